"""Data of a dataset in blocks, as the bytes that HSDS takes and gives for a hyperslab.

A block is made of whole chunks as HSDS has them, or, where one is very large, of a part of one.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import h5py
import numpy as np

from fileserver.hdf5 import grid, read, transcode
from fileserver.hdf5.beside import STAND_IN, Assembly, assembled, external_bytes
from fileserver.hdf5.elements import to_bytes
from fileserver.hdf5.hsds.objects import Slab
from fileserver.hdf5.source import Source
from fileserver.hdf5.survey import Planned
from planes.plane import MIB

SIZE: Final = 4 * MIB
"""Bytes that a block has at most, unless one element or one chunk is larger."""
_LARGEST: Final = 16 * MIB  # larger chunks are taken apart
_GUESS: Final = 64  # bytes of an element of variable length


@dataclass(frozen=True, slots=True)
class Block:
    """A hyperslab without gaps: `start` and `count` by dimension, both empty for a scalar."""

    start: grid.Dims
    count: grid.Dims

    @property
    def slabs(self) -> list[Slab]:
        """As the server is asked for it."""
        return [Slab(first, first + number) for first, number in zip(self.start, self.count, strict=True)]


def shape(planned: Planned, most: int = SIZE) -> grid.Dims:
    """Extents of a block."""
    facts, chunk = planned.facts, planned.plan.chunk
    dims, item = facts.dims or (), facts.item or _GUESS
    if facts.layout == "external" or not dims:
        return chunk  # as its bytes lie in other files
    if math.prod(chunk) * item > _LARGEST:
        return grid.shrunk(chunk, item, SIZE)
    return grid.grown(chunk, dims, item, most)


def every(planned: Planned) -> Iterator[Block]:
    """All blocks of a dataset with elements, in C order."""
    dims, extents = planned.facts.dims or (), shape(planned)
    return (_block(dims, extents, place) for place in grid.places(dims, extents))


def some(planned: Planned, number: int, chance: random.Random) -> Iterator[Block]:
    """`number` blocks of a dataset at random, or all where there are no more; each has a MiB at most, if it can."""
    dims, extents = planned.facts.dims or (), shape(planned, MIB)
    counts = tuple(-(-extent // step) for extent, step in zip(dims, extents, strict=True))
    total = math.prod(counts)
    for index in sorted(chance.sample(range(total), number)) if total > number else range(total):
        yield _block(dims, extents, tuple(int(n) for n in np.unravel_index(index, counts)) if counts else ())


def _block(dims: grid.Dims, extents: grid.Dims, place: grid.Dims) -> Block:
    start = tuple(i * step for i, step in zip(place, extents, strict=True))
    count = tuple(min(step, extent - first) for step, extent, first in zip(extents, dims, start, strict=True))
    return Block(start, count)


async def stored(source: Source, planned: Planned) -> Iterator[Block]:
    """The blocks of a dataset in which something was written; of all, if what was not is not what HSDS would give.

    Raises:
        OSError, RuntimeError: the index of chunks is damaged.
    """
    facts = planned.facts
    if facts.dims is None or 0 in facts.dims:
        return iter(())
    if facts.layout == "chunked" and not facts.fill_unheld:
        chunk = facts.chunk or ()
        table = await source.run(partial(read.chunk_table, node=planned.node, chunk=chunk))
        return _touched(planned, table.places * np.array(chunk))
    if facts.layout == "contiguous" and facts.offset is None and facts.fill is None and not facts.fill_unheld:
        return iter(())
    return every(planned)


def _touched(planned: Planned, starts: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Iterator[Block]:
    """Blocks that hold elements of chunks which start there."""
    dims, chunk, extents = planned.facts.dims or (), planned.facts.chunk or (), shape(planned)
    seen = set[grid.Dims]()
    for start in starts.tolist():
        ends = (min(first + step, extent) for first, step, extent in zip(start, chunk, dims, strict=True))
        first = tuple(a // step for a, step in zip(start, extents, strict=True))
        last = tuple((end - 1) // step for end, step in zip(ends, extents, strict=True))
        for offset in np.ndindex(*(b - a + 1 for a, b in zip(first, last, strict=True))):
            place = tuple(a + int(b) for a, b in zip(first, offset, strict=True))
            if place not in seen:
                seen.add(place)
                yield _block(dims, extents, place)


class Data:
    """The data of one dataset, decoded; see `data`."""

    def __init__(self, source: Source, planned: Planned, names: dict[int, str], made: Assembly | None) -> None:
        self._source = source
        self._planned = planned
        self._names = names
        self._made = made

    async def block(self, block: Block) -> bytes:
        """The elements of a block as HSDS takes and gives them.

        Raises:
            NotHeld: an element is longer than HSDS takes, or its file is missing.
            OSError, RuntimeError: the library cannot decode it.
        """
        facts = self._planned.facts
        if facts.segments:
            width = facts.item or 1
            start = _offset(facts.dims or (), block.start) * width
            size = math.prod(block.count) * width
            return (await external_bytes(self._source, facts.segments, start, start + size)).ljust(size, b"\0")
        return await self._source.run(partial(self._decoded, block=block))

    def _decoded(self, file: h5py.File, block: Block) -> bytes:
        made, facts = self._made, self._planned.facts
        place = transcode.dataset(made.made[0], STAND_IN) if made else transcode.dataset(file, self._planned.node.raw)
        values = transcode.read(place, facts, block.start, block.count)
        return to_bytes(facts.typed.stored, values, read.pointing(file, self._names))


def _offset(dims: grid.Dims, start: grid.Dims) -> int:
    at = 0
    for extent, first in zip(dims, start, strict=True):
        at = at * extent + first
    return at


@asynccontextmanager
async def data(source: Source, planned: Planned, names: dict[int, str]) -> AsyncIterator[Data]:
    """The data of a dataset, put together where they lie in several files; `names` are the ids for references.

    Raises:
        NotHeld: a source of a virtual dataset is missing, or they are too much to be put together.
    """
    if planned.facts.sources:
        async with assembled(source, planned.node.raw) as made:
            yield Data(source, planned, names, made)
    else:
        yield Data(source, planned, names, None)
