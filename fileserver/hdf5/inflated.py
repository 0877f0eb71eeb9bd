"""Chunks that would unpack to far more than a chunk holds: found before the HDF5 library takes memory for all of it.

A megabyte of deflate (RFC 1951) can stand for a gigabyte, a hundred bytes of Blosc2 for two. The library and its
plugins unpack whatever there is and look at the size afterwards, so a stranger's file could end the server. What could
be large is asked first (`fileserver.hdf5.packed`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

from h5py import h5d

from fileserver.hdf5 import grid, packed
from fileserver.hdf5.model import Filter
from planes.plane import GIB, MIB

HARMLESS: Final = 64 * MIB
"""Bytes of an unpacked chunk that hurt nobody, whatever the chunk was to hold."""
LARGEST: Final = 1 * GIB
"""Bytes of a chunk that is unpacked at all: it has to be in memory as a whole, where it is packed."""

_SLACK: Final = 1 << 10  # what filters may have added to the bytes of a chunk, beside an eighth
_EIGHTH: Final = 8


def check(place: h5d.DatasetID, start: grid.Dims, count: grid.Dims) -> None:
    """Look at the chunks that hold these elements, if they are packed.

    Raises:
        OSError: one of them unpacks to more than a chunk holds, or than is unpacked at all; what the library says of
            chunks that it cannot unpack.
    """
    listed = place.get_create_plist()
    if listed.get_layout() != h5d.CHUNKED or not math.prod(count):
        return
    found = (listed.get_filter(number) for number in range(listed.get_nfilters()))
    filters = [Filter(code, "", tuple(values)) for code, _, values, _ in found]
    if not filters:
        return
    chunk, item = tuple(listed.get_chunk()), place.get_type().get_size()
    most = math.prod(chunk) * item
    if most > LARGEST:
        msg = f"its chunks have {most} bytes each, packed: at most {LARGEST} are unpacked; rewrite it in smaller chunks"
        raise OSError(msg)
    if any(packed.meant(each.number, each.values, item) > max(HARMLESS, _bound(most)) for each in filters):
        msg = f"a filter's settings say that chunks have more than the {most} bytes that those of this dataset have"
        raise OSError(msg)
    if not any(each.number in packed.NEEDS_DATA for each in filters):
        return
    for at in _chunks(chunk, start, count):
        info = place.get_chunk_info_by_coord(at)
        if info.byte_offset is None or _at_most(filters, info.size) <= HARMLESS:
            continue
        mask, data = place.read_direct_chunk(at)
        used = [each for bit, each in enumerate(filters) if not mask >> bit & 1]
        if not _fits(data, used, item, most):
            msg = f"the chunk at {at} may unpack to more than the {most} bytes that a chunk of this dataset has"
            raise OSError(msg)


def _chunks(chunk: grid.Dims, start: grid.Dims, count: grid.Dims) -> Iterator[grid.Dims]:
    sides = (range(a // n * n, a + c, n) for a, c, n in zip(start, count, chunk, strict=True))
    return itertools.product(*sides)


def _bound(most: int) -> int:
    """Bytes that a filter may have been given, where a chunk has `most`."""
    return most + most // _EIGHTH + _SLACK


def _at_most(filters: Sequence[Filter], stored: int) -> float:
    """Bytes that a chunk can unpack to, by filters whose ratio is known."""
    unknown = [each for each in filters if each.number in packed.NEEDS_DATA and each.number not in packed.RATIOS]
    return math.inf if unknown else stored * math.prod(packed.RATIOS.get(each.number, 1) for each in filters)


def _fits(data: bytes, filters: Sequence[Filter], item: int, most: int) -> bool:
    """Undo filters from the last to the first; False if one that needs to be asked cannot be."""
    held: bytes | None = data
    for each in reversed(filters):
        if held is None:
            if each.number in packed.NEEDS_DATA:
                return False
            continue
        limit = _bound(most) if each.number in packed.UNPACKED else max(HARMLESS, _bound(most))
        size, held = packed.unpacked(each.number, each.values, held, item, limit)
        if size > limit:
            return False
    return True
