"""Chunks that would unpack to far more than a chunk holds: found before the HDF5 library takes memory for all of it.

A megabyte of deflate (RFC 1951) can stand for a gigabyte. The library unpacks whatever there is and looks at the size
afterwards, so a stranger's file could end the server. What could be large is unpacked here first, as far as it may.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from typing import Final

from h5py import h5d, h5z

from fileserver.hdf5 import grid

HARMLESS: Final = 64 << 10
"""Stored bytes of a chunk that are not looked at: they unpack to 64 MiB at most."""

_SLACK: Final = 1 << 10  # what filters before it may have added to the bytes of a chunk
_CHECKSUM: Final = 4  # bytes of Fletcher32, behind the data


def check(place: h5d.DatasetID, start: grid.Dims, count: grid.Dims) -> None:
    """Look at the chunks that hold these elements, if they are packed with deflate.

    Raises:
        OSError: one of them unpacks to more than a chunk holds; what the library says of chunks that it cannot unpack.
    """
    listed = place.get_create_plist()
    if listed.get_layout() != h5d.CHUNKED or not math.prod(count):
        return
    codes = [listed.get_filter(number)[0] for number in range(listed.get_nfilters())]
    if h5z.FILTER_DEFLATE not in codes:
        return
    chunk = tuple(listed.get_chunk())
    most = math.prod(chunk) * place.get_type().get_size()
    for at in _chunks(chunk, start, count):
        info = place.get_chunk_info_by_coord(at)
        if info.byte_offset is None or info.size <= HARMLESS:
            continue
        mask, data = place.read_direct_chunk(at)
        used = [code for bit, code in enumerate(codes) if not mask >> bit & 1]
        if h5z.FILTER_DEFLATE in used and not _fits(data, used[used.index(h5z.FILTER_DEFLATE) :], most):
            msg = f"the chunk at {at} may unpack to more than the {most} bytes that a chunk of this dataset has"
            raise OSError(msg)


def _chunks(chunk: grid.Dims, start: grid.Dims, count: grid.Dims) -> Iterator[grid.Dims]:
    sides = (range(a // n * n, a + c, n) for a, c, n in zip(start, count, chunk, strict=True))
    return itertools.product(*sides)


def _fits(data: bytes, codes: list[int], most: int) -> bool:
    """Undo deflate, and what was done after it, from the last to the first; False if that is not known here."""
    for code in reversed(codes):
        if code == h5z.FILTER_FLETCHER32:
            data = data[:-_CHECKSUM]
            continue
        if code != h5z.FILTER_DEFLATE:
            return False
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(data, most + _SLACK)
        except zlib.error:
            return True  # the library finds that, too
        if unpacking.unconsumed_tail:
            return False
    return True
