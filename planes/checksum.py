"""CRC arithmetic: compute, combine, subtract. Pure functions; never reads a file.

CRC64NVME (reflected polynomial 0x9A6C9329AC4BC9B5, init and xor-out all ones) is the checksum of every receipt:
S3 stores it for whole objects, Azure returns it for every block, and CRC(A‖B) follows from CRC(A), CRC(B) and
len(B). CRC32 and CRC32C are here because older objects may have one of those instead. Values are plain ints;
0 is the checksum of no bytes and the identity of `combine`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Final, overload

from awscrt import checksums
from typing_extensions import Buffer

WIDTH: Final = {"crc64nvme": 8, "crc32c": 4, "crc32": 4}
"""The composable kinds, and how many bytes a value of each has."""

_COMPUTE: Final[dict[str, Callable[[Buffer, int], int]]] = {
    "crc64nvme": checksums.crc64nvme,
    "crc32c": checksums.crc32c,
    "crc32": checksums.crc32,
}
_COMBINE: Final[dict[str, Callable[[int, int, int], int]]] = {
    "crc64nvme": checksums.combine_crc64nvme,
    "crc32c": checksums.combine_crc32c,
    "crc32": checksums.combine_crc32,
}
_MD5_DIGITS: Final = 32
_HEX: Final = frozenset("0123456789abcdef")
_LONGEST: Final = 2**62  # near 2^63 the library answers with a wrong value instead of an error


def compute(data: Buffer, previous: int = 0, kind: str = "crc64nvme") -> int:
    """The checksum of `data`, continued from `previous` (the checksum of all bytes before it)."""
    return _COMPUTE[kind](data, previous)


def combine(first: int, second: int, second_length: int, kind: str = "crc64nvme") -> int:
    """The checksum of A‖B from those of A and B and the length of B in bytes.

    Raises:
        ValueError: the length is negative or beyond 2^62.
    """
    if not 0 <= second_length <= _LONGEST:
        msg = f"length {second_length} is outside 0 … 2^62"
        raise ValueError(msg)
    return _COMBINE[kind](first, second, second_length)


@overload
def combine_all(parts: Iterable[tuple[int, int]], kind: str = "crc64nvme") -> int: ...
@overload
def combine_all(parts: Iterable[tuple[int | None, int]], kind: str = "crc64nvme") -> int | None: ...
def combine_all(parts: Iterable[tuple[int | None, int]], kind: str = "crc64nvme") -> int | None:
    """The checksum of a concatenation from (checksum, length) of its pieces in order.

    None if the checksum of a piece is not known; pieces without bytes need none.
    """
    total = 0
    for value, length in parts:
        if not length:
            continue
        if value is None:
            return None
        total = combine(total, value, length, kind)
    return total


def subtract(whole: int, first: int, second_length: int, kind: str = "crc64nvme") -> int:
    """The checksum of B from those of A‖B and A and the length of B in bytes."""
    return combine(first, 0, second_length, kind) ^ whole


def may_be_digest(version: str) -> bool:
    """Whether a version has the form of one that tells what the bytes are."""
    return len(version) == _MD5_DIGITS and _HEX.issuperset(version)


def is_digest(version: str, data: Buffer) -> bool:
    """Whether a version tells what the bytes are: the ETag of what a store was sent in one piece is mostly its MD5."""
    return len(version) == _MD5_DIGITS and hashlib.md5(data, usedforsecurity=False).hexdigest() == version


def to_hex(value: int, kind: str = "crc64nvme") -> str:
    """Lower-case hex of fixed width, the form of our JSON and catalogue."""
    return f"{value:0{WIDTH[kind] * 2}x}"


def from_hex(text: str) -> int:
    """The inverse of `to_hex`."""
    return int(text, 16)


def to_s3(value: int, kind: str = "crc64nvme") -> str:
    """Base64 of the big-endian bytes: the form of S3's x-amz-checksum headers."""
    return base64.b64encode(value.to_bytes(WIDTH[kind], "big")).decode("ascii")


def from_s3(text: str) -> int:
    """The inverse of `to_s3`."""
    return int.from_bytes(base64.b64decode(text), "big")


def to_azure(value: int) -> bytes:
    """The little-endian bytes of a CRC64NVME: what Azure's x-ms-content-crc64 carries, before base64."""
    return value.to_bytes(8, "little")


def from_azure(data: Buffer) -> int:
    """The inverse of `to_azure`."""
    return int.from_bytes(memoryview(data), "little")
