"""Single HTTP requests that are signed for whoever has no key: a node that reaches the store by itself.

What is signed is for one request, of these bytes, for a few minutes. It is a credential: never stored, never logged,
never in an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from planes.plane import KIB, Extent, Plane
from planes.wrapped import WrappedPlane

LIFE: Final = 300
"""Seconds within which a signed request must begin."""
_MOST: Final = 256 * KIB  # characters of certificates: they go with each request that is signed


@dataclass(frozen=True, slots=True)
class Address:
    """A request that may be made: all headers must be sent as they are, and no other of the provider's own."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    authorities: str = field(default="", repr=False)
    """Certificates (PEM) of those who signed the store's own, to be trusted beside the node's usual ones."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An object that one request is to write."""

    key: str
    upload_id: str
    replace: bool = False
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class Signing(Protocol):
    """Signs requests to one plane; each raises Unsupported where the provider's signature would reach too far."""

    async def step(self, token: str, number: int, size: int, crc64nvme: int) -> Address:
        """To store step `number` of the upload of a token: so many bytes with this checksum."""
        ...

    async def put(self, whole: Whole, size: int, crc64nvme: int) -> Address:
        """To write a whole object: so many bytes with this checksum."""
        ...

    async def read(self, extent: Extent) -> Address:
        """To read these bytes of this version."""
        ...


@runtime_checkable
class Signs(Protocol):
    """A plane whose requests can be signed for others."""

    def signing(self) -> Signing:
        """Who signs them."""
        ...


async def authorities(ca: Path | None) -> str:
    """The certificates that a plane's `ca` has, for whoever makes a signed request; "" where they are too many.

    A file that cannot be read has none: the plane itself says what is wrong with it.
    """
    if ca is None:
        return ""
    try:
        text = await asyncio.to_thread(ca.read_text, encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return text if len(text) <= _MOST else ""


def signing(plane: Plane) -> Signing | None:
    """Who signs requests to a plane, past its decorators; None where nodes do not reach it by themselves."""
    if not plane.capabilities.direct:
        return None
    while isinstance(plane, WrappedPlane):
        plane = plane.inner
    return plane.signing() if isinstance(plane, Signs) else None
