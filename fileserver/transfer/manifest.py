"""The transfer language: which bytes of which sources make up which part. Plain data; moves nothing.

A manifest is a sequence of parts; a part is an object to be written and the pieces it is made of, in order: extents
of pinned sources, or literal bytes that we add (a missing last terminator). Parts are stored and read in pages, so
nothing here holds a whole manifest.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from planes.plane import Extent as PlaneExtent


@dataclass(frozen=True, slots=True)
class Source:
    """A source object, pinned to the version that was there when the transfer was planned."""

    plane: str
    key: str
    size: int
    version: str
    checksums: dict[str, int]
    """Checksums of the whole object that its plane or our catalogue keeps, by kind."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes [start, end) of one version of one object of one plane."""

    plane: str
    key: str
    version: str
    start: int
    end: int
    of: int
    """Size of the whole source object: providers copy ranges only out of objects that are large enough."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    @property
    def whole(self) -> bool:
        """Whether it is all of its object."""
        return self.start == 0 and self.end == self.of

    @property
    def on_plane(self) -> PlaneExtent:
        """The same without the name of the plane."""
        return PlaneExtent(self.key, self.version, self.start, self.end)


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that no source holds."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Part:
    """One object to be written."""

    number: int
    key: str
    pieces: tuple[Extent | Literal, ...]

    @property
    def size(self) -> int:
        """Length in bytes."""
        return sum(p.size for p in self.pieces)


def pieces_to_json(pieces: tuple[Extent | Literal, ...]) -> list[Any]:
    """Plain data for the store."""
    return [
        [p.plane, p.key, p.version, p.start, p.end, p.of]
        if isinstance(p, Extent)
        else base64.b64encode(p.data).decode()
        for p in pieces
    ]


def pieces_from_json(data: list[Any]) -> tuple[Extent | Literal, ...]:
    """The inverse of `pieces_to_json`."""
    return tuple(Literal(base64.b64decode(p)) if isinstance(p, str) else Extent(*p) for p in data)
