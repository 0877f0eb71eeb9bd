"""The checksum that HDF5 puts behind a chunk (its filter fletcher32), over raw bytes and at the speed of numpy."""

from __future__ import annotations

from typing import Final

import numpy as np
from typing_extensions import Buffer

TRAILER: Final = 4
"""Bytes of a checksum, behind those that it is of."""
_WORDS: Final = 1 << 16  # at a time; as whole numbers, because BLAS would put threads to work at a sum of products
_MODULUS: Final = 0xFFFF
_WEIGHTS: Final = np.arange(_WORDS, 0, -1, dtype=np.uint64)


def fletcher32(data: Buffer) -> int:
    """The checksum, as `H5_checksum_fletcher32` has it: of big-endian words of 16 bits, filled up with a zero."""
    view = memoryview(data).cast("B")
    words = np.frombuffer(view, ">u2", len(view) // 2)
    first = second = 0
    for start in range(0, len(words), _WORDS):
        some = words[start : start + _WORDS].astype(np.uint64)
        second = _folded(second + len(some) * first + int(some @ _WEIGHTS[_WORDS - len(some) :]))
        first = _folded(first + int(some.sum()))
    if len(view) % 2:
        first = _folded(first + (view[-1] << 8))
        second = _folded(second + first)
    return second << 16 | first


def matches(data: Buffer, trailer: Buffer) -> bool:
    """Whether `trailer`, 4 bytes, is the checksum of data; also as HDF5 1.6.2 and earlier wrote it (bytes swapped)."""
    kept = int.from_bytes(bytes(trailer), "little")
    found = fletcher32(data)
    swapped = (found & 0x00FF00FF) << 8 | (found >> 8) & 0x00FF00FF
    return kept in {found, swapped}


def _folded(number: int) -> int:
    """Modulo 65535, but that only nothing at all is 0, as where carries are added at the end."""
    return (number - 1) % _MODULUS + 1 if number else 0
