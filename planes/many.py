"""Many small objects in one call, for planes where each call costs more than what it moves.

No part of the contract: `planes.plane` has single objects. A layer that does not know of it is asked object by object,
so that whatever it does to a `put` is done to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from typing_extensions import Buffer

from planes.plane import Extent, Plane, StepReceipt


@dataclass(frozen=True, slots=True)
class Whole:
    """An object as in `Plane.put`, which replaces what has its key or must not.

    Where many objects are made durable together, one that must not replace anything appears behind all others of its
    call, and not before these, itself and all that was written before are durable.
    """

    key: str
    data: Buffer
    upload_id: str
    replace: bool = True


@runtime_checkable
class TakesMany(Protocol):
    """A plane, or a layer around one, that takes many objects in one call."""

    async def put_many(self, objects: Sequence[Whole]) -> Sequence[StepReceipt]:
        """Write objects in this order; when it fails, some of those before the one that failed may be there."""
        ...


async def put_many(plane: Plane, objects: Sequence[Whole]) -> Sequence[StepReceipt]:
    """Write objects in this order; raises as `Plane.put`, and may be repeated as that."""
    if isinstance(plane, TakesMany):
        return await plane.put_many(objects)
    return [await plane.put(each.key, each.data, upload_id=each.upload_id, replace=each.replace) for each in objects]


@runtime_checkable
class ReadsMany(Protocol):
    """A plane, or a layer around one, that reads many extents in one call."""

    async def read_many(self, extents: Sequence[Extent]) -> Sequence[bytes]:
        """The bytes of each extent."""
        ...


async def read_many(plane: Plane, extents: Sequence[Extent]) -> Sequence[bytes]:
    """The bytes of each extent; raises as `Plane.read` of the first that cannot be read."""
    if isinstance(plane, ReadsMany):
        return await plane.read_many(extents)
    found = []
    for extent in extents:
        into = bytearray(extent.size)
        await plane.read(extent, memoryview(into))
        found.append(bytes(into))
    return found


def size(objects: Sequence[Whole]) -> int:
    """Bytes of all."""
    return sum(memoryview(each.data).nbytes for each in objects)
