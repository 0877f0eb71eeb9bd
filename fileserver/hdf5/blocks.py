"""The blocks in which a server gets the data of a dataset: whole chunks as HSDS has them, or parts of large ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Final, TypeAlias

import h5py
import numpy as np
import numpy.typing as npt

from fileserver.hdf5 import grid, read, stretches
from fileserver.hdf5.model import Facts
from fileserver.hdf5.source import Source
from fileserver.hdf5.stretches import Block
from fileserver.hdf5.survey import Planned
from planes.plane import MIB

SIZE: Final = 4 * MIB
"""Bytes that a block has at most, unless one element or one chunk is larger."""
_Starts: TypeAlias = npt.NDArray[np.int64]
_LARGEST: Final = 16 * MIB  # larger chunks are taken apart
_GUESS: Final = 64  # bytes of an element of variable length


def shape(planned: Planned) -> grid.Dims:
    """Extents of a block."""
    facts, chunk = planned.facts, planned.plan.chunk
    dims, item = facts.dims or (), facts.item or _GUESS
    if facts.layout == "external" or not dims:
        return chunk  # as its bytes lie in other files
    if math.prod(chunk) * item > _LARGEST:
        return grid.shrunk(chunk, item, SIZE)
    return grid.grown(chunk, dims, item, SIZE)


async def stored(source: Source, planned: Planned) -> Iterator[Block]:
    """The blocks of a dataset in which something was written; of all, if what was not is not what HSDS would give.

    Raises:
        OSError, RuntimeError: the index of chunks is damaged.
    """
    if _has_table(planned.facts):
        return await source.run(partial(found, planned=planned))
    return _all(planned)


def found(file: h5py.File, planned: Planned) -> Iterator[Block]:
    """The same in the thread of the file."""
    if not _has_table(planned.facts):
        return _all(planned)
    dims, extents = planned.facts.dims or (), shape(planned)
    return (stretches.block(place, dims, extents) for place in _touched(planned, _starts(file, planned), extents))


def places(file: h5py.File, planned: Planned) -> Iterator[grid.Dims]:
    """Places of the chunks of HSDS that are to be decoded, in the thread of the file: those as `stored` has them.

    A dataset may be far larger than what was written into it.

    Raises:
        OSError, RuntimeError: the index of chunks is damaged.
    """
    if not _has_table(planned.facts):
        return grid.places(planned.facts.dims or (), planned.plan.chunk)
    return _touched(planned, _starts(file, planned), planned.plan.chunk)


def _has_table(facts: Facts) -> bool:
    """Whether it is written somewhere which chunks there are."""
    return facts.dims is not None and 0 not in facts.dims and facts.layout == "chunked" and not facts.fill_unheld


def _all(planned: Planned) -> Iterator[Block]:
    facts = planned.facts
    if facts.dims is None or 0 in facts.dims:
        return iter(())
    if facts.layout == "contiguous" and facts.offset is None and facts.fill is None and not facts.fill_unheld:
        return iter(())
    return stretches.blocks(facts.dims, shape(planned))


def _starts(file: h5py.File, planned: Planned) -> _Starts:
    """Where the chunks begin that there are."""
    chunk = planned.facts.chunk or ()
    return read.chunk_table(file, planned.node, chunk).places * np.array(chunk, np.int64)


def _touched(planned: Planned, starts: _Starts, extents: grid.Dims) -> Iterator[grid.Dims]:
    """Places, in a grid of these extents, that hold elements of the chunks which start there; holds no file."""
    dims, chunk = planned.facts.dims or (), planned.facts.chunk or ()
    seen = set[grid.Dims]()
    for start in starts.tolist():
        ends = (min(first + step, extent) for first, step, extent in zip(start, chunk, dims, strict=True))
        first = tuple(a // step for a, step in zip(start, extents, strict=True))
        last = tuple((end - 1) // step for end, step in zip(ends, extents, strict=True))
        for offset in np.ndindex(*(b - a + 1 for a, b in zip(first, last, strict=True))):
            place = tuple(a + int(b) for a, b in zip(first, offset, strict=True))
            if place not in seen:
                seen.add(place)
                yield place
