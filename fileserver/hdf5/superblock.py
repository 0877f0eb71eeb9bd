"""What the first bytes of a file say: whether it is HDF5, whole, and not being written; before the library opens it.

The layout is that of the HDF5 File Format Specification, section II.A (superblock versions 0 to 3).
"""

from __future__ import annotations

from typing import Final

from fileserver.errors import FormatMismatch

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
LENGTH: Final = 96
"""Bytes of the longest superblock, from its signature on, as far as they are looked at."""

_NETCDF: Final = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_WRITING: Final = 0b101  # flags of version 3: open for writing, and for single-writer multiple-reader
_EOF: Final = {0: 40, 1: 44, 2: 28, 3: 28}  # where the end-of-file address lies
_BASE: Final = {0: 24, 1: 28, 2: 12, 3: 12}


def places(size: int) -> list[int]:
    """Where a superblock may begin in a file of `size` bytes: at 0, 512, 1024, 2048 and so on."""
    found, place = [0], 512
    while place < size:
        found.append(place)
        place *= 2
    return found


def look(name: str, data: bytes) -> None:
    """Look at a file of which all bytes are here; raises FormatMismatch as `check`, and if it is no HDF5."""
    for place in places(len(data)):
        block = data[place : place + LENGTH]
        if block.startswith(SIGNATURE):
            check(name, block, place, len(data))
            return
    raise refuse(name, data[:LENGTH], len(data))


def check(name: str, block: bytes, place: int, size: int) -> None:
    """Look at the superblock that was found at byte `place` of a file of `size` bytes.

    Raises:
        FormatMismatch: the file is cut short, or somebody is writing it, or the version is unknown.
    """
    version = block[8] if len(block) > 8 else -1
    if version not in _EOF:
        msg = f"{name} has an HDF5 signature, and behind it a superblock of no known version ({version}): it is damaged"
        raise FormatMismatch(msg, key=name)
    at = _EOF[version]
    width = block[13] if version < 2 else block[9]
    if width != 8 or len(block) < at + 8:
        return  # other widths are legal and rare: the library will find out
    if version == 3 and block[11] & _WRITING:
        msg = (
            f"{name} is marked as open for writing: its writer is still at work, or has crashed. Try again when it has"
            " closed the file; after a crash `h5clear -s` takes the mark away"
        )
        raise FormatMismatch(msg, key=name)
    end = int.from_bytes(block[at : at + 8], "little")
    base = int.from_bytes(block[_BASE[version] : _BASE[version] + 8], "little")
    # Writers differ in whether the end counts from the base; it is cut short only if it is by both.
    whole = end if base == place else end + place
    if min(whole, end) > size:
        msg = f"{name} is cut short: its superblock says {end} bytes, and there are {size}. Fetch it again"
        raise FormatMismatch(msg, key=name, size=str(size), expected=str(end))


def refuse(name: str, head: bytes, size: int) -> FormatMismatch:
    """What to say of a file without a superblock."""
    if size == 0:
        return FormatMismatch(f"{name} is empty: no HDF5 file", key=name)
    if head[:4] in _NETCDF:
        msg = f"{name} is classic NetCDF (version 3), not HDF5: convert it with `nccopy -k nc4` first"
        return FormatMismatch(msg, key=name)
    return FormatMismatch(f"{name} is not HDF5: it has no HDF5 signature", key=name)
