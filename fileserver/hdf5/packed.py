"""How many bytes a packed chunk says, or can only, unpack to: by the format of each filter, and without unpacking it.

What takes its memory by what the chunk says is asked for that: SZIP (the HDF5 library's four bytes ahead of it),
Zstandard (RFC 8878, 3.1.1), LZ4 and bitshuffle (eight bytes ahead), Blosc, Blosc2 (frame, first chunk and `b2nd`), SZ3,
SPERR. What takes it by the filter's own values in the file is asked for those: scale-offset, N-bit, ZFP, SZ. LZF says
nothing, but is counted; deflate and bzip2 have to be unpacked, as far as they may. Of others (LZO, FCIDECOMP, HTJ2K,
plugins that nobody here knows) nothing can be told: who installs their plugins trusts them with strangers' files.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from h5py import h5z

from planes.plane import GIB

DEFLATE: Final = h5z.FILTER_DEFLATE
BZIP2: Final = 307
LZF: Final = 32000
UNPACKED: Final = frozenset({DEFLATE, BZIP2})
"""Filters that are undone here, to see how far that goes."""
RATIOS: Final[Mapping[int, int]] = {DEFLATE: 1032, LZF: 88}
"""Bytes that one byte unpacks to at most."""

_KEEP: Final = frozenset({h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32})
_ENDLESS: Final = 1 << 62
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_FRAME: Final = b"b2frame\0"
_SZ3_RANKS: Final = range(1, 5)
_SZ3_METHODS: Final = frozenset({b"\0", b"\2"})  # Lorenzo and regression, interpolation; 1 is for packing alone
_BITSHUFFLE_PACKS: Final = frozenset({2, 3})  # LZ4 and Zstandard, in the fifth value

Says: TypeAlias = Callable[[bytes, Sequence[int], int, int], int]
"""Of a chunk's bytes, the filter's values, the size of an element and the most that is of interest: its size."""
Means: TypeAlias = Callable[[Sequence[int], int], int]
"""Of the filter's values and the size of an element: the size of what comes out of it; 0 if they say nothing."""


def _szip(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    del values, item, most
    return int.from_bytes(data[:4], "little")


def _zstd(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    """Of the first frame, by which the plugin takes its memory; what does not say it, the plugin cannot unpack."""
    del values, item, most
    if not data.startswith(_ZSTD) or len(data) < len(_ZSTD) + 1:
        return 0
    flags = data[4]
    is_single = bool(flags & 0x20)
    width = (int(is_single), 2, 4, 8)[flags >> 6]
    at = 5 + (not is_single) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)


def _ahead(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    del values, item, most
    return int.from_bytes(data[:8], "big")


def _bitshuffle(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    packs = len(values) > 4 and values[4] in _BITSHUFFLE_PACKS
    return _ahead(data, values, item, most) if packs else len(data)


def _blosc(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    del values, item, most
    return int.from_bytes(data[4:8], "little")


def _blosc2(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    """Of the array in it, if it is one; whose chunk is padded, to less than the double in each dimension."""
    del item
    if data[2:10] != _FRAME:
        return 0  # which the plugin refuses
    length = int.from_bytes(data[11:15], "big")
    frame, chunk = int.from_bytes(data[30:38], "big"), int.from_bytes(data[58:62], "big")
    padded = max(frame, chunk, _blosc(data[length : length + 16], values, 1, most))
    dims = _b2nd(data[:length])
    if not dims:
        return padded
    return max(math.prod(dims) * int.from_bytes(data[48:52], "big"), padded >> len(dims))


def _b2nd(head: bytes) -> tuple[int, ...]:
    """Extents of the array in a Blosc2 frame: msgpack of version, rank and shape, behind five bytes."""
    named = head.find(b"\xa4b2nd\xd2")
    if named < 0:
        return ()
    at = int.from_bytes(head[named + 6 : named + 10], "big") + 5
    rank = head[at + 2] if at + 2 < len(head) else 0
    starts = range(at + 5, at + 5 + 9 * rank, 9)
    return tuple(int.from_bytes(head[start : start + 8], "big") for start in starts)


def _lzf(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    """Counted: runs of up to 32 bytes, and references of two or three bytes to up to 264."""
    del item
    at, size, end = 0, 0, len(data)
    if len(data) * RATIOS[LZF] <= most:
        at, size = end, len(data) * RATIOS[LZF]
    while at < end and size <= most:
        first = data[at]
        if first < 32:
            at, size = at + first + 2, size + first + 1
        elif first < 224:
            at, size = at + 2, size + (first >> 5) + 2
        else:
            at, size = at + 3, size + 9 + (data[at + 1] if at + 1 < end else 0)
    return max(size, values[2] if len(values) > 2 else 0)


def _sz3(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    """By the settings at its end: their size behind them; rank, extents, count and method ahead. All that is trusted.

    The plugin ends its process at a rank or a method that it does not have, and writes where it may not at others.
    """
    del most
    at = len(data) - 4 - int.from_bytes(data[-4:], "little")
    told = data[at:-4] if at >= 0 else b""
    rank = told[0] if told else 0
    counts = [int.from_bytes(told[i : i + 8], "little") for i in range(1, 1 + 8 * (rank + 1), 8)]
    method = told[1 + 8 * len(counts) :][:1]
    if rank not in _SZ3_RANKS or method not in _SZ3_METHODS or math.prod(counts[:-1]) != counts[-1]:
        return _ENDLESS
    if counts[-1] * item != (meant := _sz(values, item)) and meant:
        return _ENDLESS  # it writes what the chunk says into the memory that the values say
    return counts[-1] * item


def _sperr(data: bytes, values: Sequence[int], item: int, most: int) -> int:
    """By the values; a field that is the same everywhere has its count in it."""
    del most
    is_constant = len(data) > 1 and data[1] & 1
    count = int.from_bytes(data[2:10], "little") if is_constant else 0
    dims = values[2 : 2 + (values[0] & 0xF)] if values else ()
    return max(count, math.prod(dims) if dims else 0) * item


_SAYS: Final[Mapping[int, Says]] = {
    h5z.FILTER_SZIP: _szip,
    LZF: _lzf,
    32001: _blosc,
    32004: _ahead,  # LZ4
    32008: _bitshuffle,
    32015: _zstd,
    32024: _sz3,
    32026: _blosc2,
    32028: _sperr,
}


def _scaleoffset(values: Sequence[int], item: int) -> int:
    del item
    return values[2] * values[4] if len(values) > 4 else 0


def _nbit(values: Sequence[int], item: int) -> int:
    del item
    return values[2] * values[4] if len(values) > 4 and not values[1] else 0


def _sz(values: Sequence[int], item: int) -> int:
    rank = values[0] if values else 0
    if rank == 1:
        return ((values[2] << 32) + values[3]) * item if len(values) > 3 else 0
    return math.prod(values[2 : 2 + rank]) * item


def _zfp(values: Sequence[int], item: int) -> int:
    """By ZFP's own header in the values: magic, type, rank less one, and extents less one, in 48 bits."""
    del item
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        raw = b"".join(each.to_bytes(4, order) for each in values[1:])
        if raw.startswith(b"zfp"):
            bits = int.from_bytes(raw, "little") >> 32
            kind, rank = bits & 3, (bits >> 2 & 3) + 1
            width = 48 // rank
            counts = ((bits >> 4 + width * i & (1 << width) - 1) + 1 for i in range(rank))
            return math.prod(counts) * (4, 8, 4, 8)[kind]
    return 0


_MEANS: Final[Mapping[int, Means]] = {
    h5z.FILTER_NBIT: _nbit,
    h5z.FILTER_SCALEOFFSET: _scaleoffset,
    32013: _zfp,
    32017: _sz,
}
NEEDS_DATA: Final = frozenset({DEFLATE, BZIP2, *_SAYS})
"""Filters of which only the chunk tells."""


def meant(code: int, values: Sequence[int], item: int) -> int:
    """What a filter makes of every chunk by its values alone; 0 if they do not say."""
    return _MEANS[code](values, item) if code in _MEANS else 0


def unpacked(code: int, values: Sequence[int], data: bytes, item: int, most: int) -> tuple[int, bytes | None]:
    """What becomes of a chunk's bytes when a filter is undone: how many there are, and which, where that is found out.

    No more than `most` are made; more than that are said if it is more, and 0 if nothing can be told.
    """
    if code == h5z.FILTER_FLETCHER32:
        return len(data), data[:-4]
    if code in _SAYS:
        return _SAYS[code](data, values, item, most), None
    try:
        if code == DEFLATE:
            deflated = zlib.decompressobj()
            found = deflated.decompress(data, most)
            return len(found) + bool(deflated.unconsumed_tail) * GIB, found
        if code == BZIP2:
            bzipped = bz2.BZ2Decompressor()
            found = bzipped.decompress(data, most)
            return len(found) + (not bzipped.eof and not bzipped.needs_input) * GIB, found
    except (zlib.error, OSError, EOFError):
        return 0, b""  # the library finds that, too
    return (len(data) if code in _KEEP else 0), None
