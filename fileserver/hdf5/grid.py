"""Sizes of chunks, and which there are: only arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from planes.plane import KIB, MIB

SUITS: Final = 1 * MIB
"""The size of a chunk that suits HSDS, which asks for 1 to 4 MiB."""
ONE: Final = 4 * MIB
"""Contiguous data up to this size stay one object."""
TINY: Final = 128 * KIB
"""Chunks smaller than this are merged, if there are many."""
FEW: Final = 16
"""So many tiny chunks are left as they are."""
MOST: Final = 128 * MIB
"""HSDS reads no larger chunk (its `chunk_mem_cache_size`)."""

Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slab:
    """One chunk of contiguous data: its place in the grid, its bytes [start, end) and how many it has when full."""

    place: Dims
    start: int
    end: int
    full: int


def slabs_of(dims: Dims, item: int, most: int = SUITS) -> Dims:
    """The largest chunk up to `most` bytes whose elements lie one behind the other in contiguous data."""
    chunk = list(dims)
    for axis, extent in enumerate(dims):
        inner = math.prod(dims[axis + 1 :]) * item
        if extent * inner <= most:
            break
        chunk[axis] = max(1, min(extent, most // max(1, inner)))
        if chunk[axis] > 1:
            break
    return tuple(chunk)


def slabs(dims: Dims, chunk: Dims, item: int) -> Iterator[Slab]:
    """All chunks of contiguous data, for a chunk of `slabs_of`; those at the end may be shorter than full."""
    full = math.prod(chunk) * item
    total = math.prod(dims) * item
    axis = next((i for i, extent in enumerate(chunk) if extent > 1), len(chunk) - 1)
    rows = math.prod(dims[axis + 1 :]) * item  # bytes of one step along the axis that is cut
    for place in places(dims, chunk):
        outer = 0
        for i in range(axis):
            outer = outer * dims[i] + place[i]
        first = place[axis] * chunk[axis]
        last = min(first + chunk[axis], dims[axis])
        start = (outer * dims[axis] + first) * rows
        yield Slab(place, start, min(start + (last - first) * rows, total), full)


def places(dims: Dims, chunk: Dims) -> Iterator[Dims]:
    """The grid of chunks, in C order; a scalar has the one place ()."""
    counts = [-(-extent // step) for extent, step in zip(dims, chunk, strict=True)]
    if 0 in counts:
        return
    place = [0] * len(counts)
    while True:
        yield tuple(place)
        for axis in reversed(range(len(counts))):
            place[axis] += 1
            if place[axis] < counts[axis]:
                break
            place[axis] = 0
        else:
            return


def with_axis(dims: Dims, axis: int, number: int) -> Dims:
    """The same, with another number for one axis."""
    return (*dims[:axis], number, *dims[axis + 1 :])


def count(dims: Dims, chunk: Dims) -> int:
    """How many places the grid has."""
    return math.prod(-(-extent // step) for extent, step in zip(dims, chunk, strict=True))


def grown(chunk: Dims, dims: Dims, item: int, most: int = SUITS) -> Dims:
    """A multiple of a chunk of at most `most` bytes that reaches no further than it must: the last dimension first."""
    grown_ = list(chunk)
    for axis in reversed(range(len(chunk))):
        room = most // max(1, math.prod(grown_) * item)
        times = min(room, -(-dims[axis] // grown_[axis]))
        if times > 1:
            grown_[axis] *= times
    return tuple(grown_)


def shrunk(chunk: Dims, item: int, most: int = ONE) -> Dims:
    """A smaller chunk: the largest dimension is halved until it has at most `most` bytes."""
    found = list(chunk)
    while math.prod(found) * item > most and max(found) > 1:
        axis = found.index(max(found))
        found[axis] = -(-found[axis] // 2)
    return tuple(found)
