"""Blocks of a dataset of a file: which there are, and their bytes as HSDS gives them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import h5py

from fileserver.hdf5 import grid, read, transcode
from fileserver.hdf5.beside import STAND_IN, Assembly, assembled, external_bytes
from fileserver.hdf5.elements import to_bytes
from fileserver.hdf5.hsds.objects import Slab
from fileserver.hdf5.model import Facts, Node
from fileserver.hdf5.source import Source
from fileserver.hdf5.typing_rules import NotHeld
from planes.plane import KIB, MIB

WHOLE: Final = 4 * MIB
"""Bytes of a block, where all are read."""
SAMPLE: Final = 256 * KIB
"""Bytes of a block, where a few are."""
_LARGE: Final = 8 * MIB  # chunks up to this size are read as they are: to read part of one is to decode all of it
_ELEMENT: Final = 64  # bytes that one of variable length is taken for


@dataclass(frozen=True, slots=True)
class Block:
    """A hyperslab; both empty for a scalar."""

    start: grid.Dims
    count: grid.Dims

    @property
    def elements(self) -> int:
        """How many."""
        return math.prod(self.count)

    @property
    def slabs(self) -> list[Slab]:
        """As the server is asked for it."""
        return [Slab(first, first + number) for first, number in zip(self.start, self.count, strict=True)]


def blocks(dims: grid.Dims, step: grid.Dims) -> Iterator[Block]:
    """All blocks of a dataset, in C order; those at its edges are smaller."""
    return (block(place, dims, step) for place in grid.places(dims, step))


def some(dims: grid.Dims, step: grid.Dims, number: int, random: Random) -> Iterator[Block]:
    """The first and the last block of a dataset and others at random, `number` in all or as many as there are."""
    count = grid.count(dims, step)
    if count <= number:
        yield from blocks(dims, step)
        return
    chosen = {0, count - 1}
    while len(chosen) < number:
        chosen.add(random.randrange(count))
    for at in sorted(chosen):
        yield block(_place(at, dims, step), dims, step)


def step_of(facts: Facts, most: int) -> grid.Dims:
    """Extents of blocks of about `most` bytes: whole chunks where there are, else what lies one behind the other."""
    dims, item = facts.dims or (), facts.item or _ELEMENT
    if facts.chunk is None:
        return grid.slabs_of(dims, item, most)
    chunk = tuple(map(min, facts.chunk, dims))
    if math.prod(chunk) * item > _LARGE:
        return grid.shrunk(chunk, item, _LARGE)
    return grid.grown(chunk, dims, item, most)


@dataclass(frozen=True, slots=True)
class Contents:
    """The data of one dataset of a file."""

    source: Source
    node: Node
    facts: Facts
    made: Assembly | None = None
    """Stands in for a virtual dataset over other files."""

    async def stored(self, block: Block, ids: Mapping[int, str]) -> bytes:
        """A block's elements packed as HSDS stores them, references as `ids` of objects by their address.

        Raises:
            NotHeld: HSDS cannot hold them, or they lie in files that cannot be read.
            OSError, RuntimeError, KeyError, ValueError: the library cannot read them.
        """
        if self.facts.layout == "external":
            return await self._external(block)
        return await self.source.run(partial(self._decoded, block=block, ids=ids))

    def _decoded(self, file: h5py.File, block: Block, ids: Mapping[int, str]) -> bytes:
        return decoded(file, self.node, self.facts, block, ids, self.made)

    async def _external(self, block: Block) -> bytes:
        """`step_of` cuts what has no chunks into pieces that lie one behind the other."""
        dims, item = self.facts.dims or (), self.facts.item
        if item is None or not self.facts.typed.exact:
            msg = "external storage of elements that lie differently in HSDS"
            raise NotHeld(msg)
        first = 0
        for at, extent in zip(block.start, dims, strict=True):
            first = first * extent + at
        start = first * item
        return await external_bytes(self.source, self.facts.segments, start, start + block.elements * item)


def decoded(
    file: h5py.File, node: Node, facts: Facts, block: Block, ids: Mapping[int, str], made: Assembly | None = None
) -> bytes:
    """The same in the thread of the file, of what does not lie in external storage."""
    if facts.missing:
        msg = f"needs filters of which there is no plugin here: {', '.join(facts.missing)}"
        raise NotHeld(msg)
    place = transcode.dataset(made.made[0], STAND_IN) if made else transcode.dataset(file, node.raw)
    values = transcode.read(place, facts, block.start, block.count)
    return to_bytes(facts.typed.stored, values, read.pointing(file, ids))


@asynccontextmanager
async def contents(source: Source, node: Node, facts: Facts) -> AsyncIterator[Contents]:
    """The data of a dataset; a virtual one is put together once.

    Raises:
        NotHeld: sources of a virtual dataset cannot be read.
    """
    if not facts.sources:
        yield Contents(source, node, facts)
        return
    async with assembled(source, node.raw) as made:
        yield Contents(source, node, facts, made)


def block(place: grid.Dims, dims: grid.Dims, step: grid.Dims) -> Block:
    """The block at a place in the grid of blocks with extents `step`."""
    start = tuple(i * n for i, n in zip(place, step, strict=True))
    return Block(start, tuple(min(n, extent - at) for n, extent, at in zip(step, dims, start, strict=True)))


def _place(at: int, dims: grid.Dims, step: grid.Dims) -> grid.Dims:
    """The place in the grid of a block by its number in C order."""
    place = []
    for extent, n in zip(reversed(dims), reversed(step), strict=True):
        at, inside = divmod(at, -(-extent // n))
        place.append(inside)
    return tuple(reversed(place))
