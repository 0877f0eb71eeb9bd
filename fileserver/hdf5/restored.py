"""Types and elements of a domain as the HDF5 library has them: the way back from `elements` and `types`."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5p, h5t

from fileserver.hdf5.elements import Region, measured, region_blob
from fileserver.hdf5.ids import FOLDERS
from fileserver.hdf5.types import (
    Array,
    Compound,
    Enum,
    Json,
    Number,
    Opaque,
    Reference,
    Sequenced,
    Text,
    Type,
    Values,
    is_plain,
    packed,
)

_POINTS: Final = 1  # as h5json's selections call them
_HYPERSLABS: Final = 2
_WIDTHS: Final = "HIQ"
_CHARSETS: Final = {"H5T_CSET_UTF8": h5t.CSET_UTF8}
_PADS: Final = {"H5T_STR_NULLTERM": h5t.STR_NULLTERM, "H5T_STR_SPACEPAD": h5t.STR_SPACEPAD}
_REFERENCE: Final = 48


class Garbled(Exception):
    """Bytes or JSON of a domain that are not what its type says; the message says how."""


@dataclass(frozen=True, slots=True)
class Aiming:
    """Makes references into the file that is written; each may give a null reference."""

    target: Callable[[str], h5py.h5r.Reference]
    region: Callable[[Region], h5py.h5r.RegionReference]


def hdf5_type(kind: Type) -> h5t.TypeID:  # noqa: C901, PLR0911 -- one a type
    """A type as the library has it; compounds lie packed."""
    match kind:
        case Number():
            return getattr(h5t, kind.base.removeprefix("H5T_")).copy()
        case Text():
            made = h5t.C_S1.copy()
            made.set_size(h5t.VARIABLE if kind.length is None else kind.length)
            made.set_cset(_CHARSETS.get(kind.charset, h5t.CSET_ASCII))
            if kind.length is not None:
                made.set_strpad(_PADS.get(kind.pad, h5t.STR_NULLPAD))
            return made
        case Opaque():
            made = h5t.create(h5t.OPAQUE, kind.size)
            made.set_tag(kind.tag.encode())
            return made
        case Enum():
            made = h5t.enum_create(hdf5_type(kind.base))
            for name, value in kind.members:
                made.enum_insert(name.encode(), value)
            return made
        case Array():
            return h5t.array_create(hdf5_type(kind.base), kind.dims)
        case Compound():
            parts = [(name.encode(), hdf5_type(each)) for name, each in kind.fields]
            made = h5t.create(h5t.COMPOUND, sum(each.get_size() for _, each in parts))
            at = 0
            for name_, each in parts:
                made.insert(name_, at, each)
                at += each.get_size()
            return made
        case Sequenced():
            return h5t.vlen_create(hdf5_type(kind.base))
        case Reference():
            return (h5t.STD_REF_DSETREG if kind.region else h5t.STD_REF_OBJ).copy()


def set_fill(plist: h5p.PropDCID, value: Values) -> None:
    """Let a dataset in the making have a fill value, an array of no dimension.

    h5py takes every text for one of variable length, and of a fixed one would store the first bytes of its address;
    so text is handed over as of variable length, and the library makes it as long as the dataset's.
    """
    text = h5t.check_string_dtype(value.dtype)
    plist.set_fill_value(value if text is None else np.array(value.item(), h5t.string_dtype(text.encoding)))


def values(kind: Type, data: bytes, dims: tuple[int, ...], memory: h5t.TypeID, aiming: Aiming) -> Values:
    """Elements as the library takes them: of a plain type their bytes as they are, to be written as that type.

    Raises:
        Garbled: there are more or fewer bytes than elements.
    """
    if is_plain(kind):
        width = memory.get_size()
        if len(data) != math.prod(dims) * width:
            msg = f"{len(data)} bytes for {math.prod(dims)} elements of {width}"
            raise Garbled(msg)
        return np.frombuffer(data, f"V{width}").reshape(dims)
    found: Values = np.empty(math.prod(dims), memory.dtype)
    at = 0
    for i in range(len(found)):
        one, at = _element(kind, data, at, aiming)
        found[i] = one
    if at != len(data):
        msg = f"{len(data) - at} bytes behind the last of {len(found)} elements"
        raise Garbled(msg)
    return found.reshape(dims)


def from_json(kind: Type, value: Json, rank: int) -> bytes:
    """The value of an attribute as the bytes that HSDS would have for such elements in a chunk.

    Raises:
        Garbled: it is not of that type.
    """
    try:
        if isinstance(kind, Number | Enum) and rank:
            return np.array(value, packed(kind)).tobytes()
        return b"".join(_packed(kind, each) for each in _flat(value, rank))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        msg = f"its value is not of its type ({error})"
        raise Garbled(msg) from error


def _flat(value: Any, rank: int) -> Iterator[Any]:
    if not rank:
        yield value
        return
    for each in value:
        yield from _flat(each, rank - 1)


def _packed(kind: Type, one: Any) -> bytes:  # noqa: PLR0911 -- one a type
    match kind:
        case Number() | Enum():
            return np.array(one, packed(kind)).tobytes()
        case Text():
            text = str(one or "").encode()
            return measured(text) if kind.length is None else text[: kind.length].ljust(kind.length, b"\0")
        case Opaque():
            return base64.b64decode(one or "").ljust(kind.size, b"\0")
        case Array():
            return b"".join(_packed(kind.base, each) for each in _flat(one, len(kind.dims)))
        case Compound():
            pairs = zip(kind.fields, one, strict=True)
            return b"".join(_packed(each, part) for (_, each), part in pairs)
        case Sequenced():
            return measured(b"".join(_packed(kind.base, each) for each in one or ()))
        case Reference(region=True):
            return measured(region_blob(_region_of(one)) if one else b"")
        case Reference():
            found = str(one or "").rpartition("/")[2]
            return (f"{FOLDERS[found[0]]}/{found}" if found else "").encode().ljust(_REFERENCE, b"\0")


def _region_of(one: Any) -> Region:
    """A region as h5json writes it into attributes: inclusive corners of one block, or points."""
    dataset, selection = str(one["id"]), one["selection"]
    dataset = dataset if dataset.startswith("d-") else f"d-{dataset}"
    if one["select_type"] == "H5S_SEL_POINTS":
        points = tuple(tuple(int(n) for n in point) for point in selection)
        return Region(dataset, tuple(max(column) + 1 for column in zip(*points, strict=True)), points=points)
    if len(selection) != 1:
        msg = "a region of several blocks"
        raise ValueError(msg)
    low, high = selection[0]
    slab = tuple((int(a), int(b) + 1, 1) for a, b in zip(low, high, strict=True))
    return Region(dataset, tuple(stop for _, stop, _ in slab), slab=slab)


def _element(kind: Type, data: bytes, at: int, aiming: Aiming) -> tuple[Any, int]:
    match kind:
        case Reference(region=True):
            blob, at = _measured(data, at)
            return (aiming.region(_region(blob)) if blob else h5py.h5r.RegionReference()), at
        case Reference():
            name = _taken(data, at, _REFERENCE).rstrip(b"\0").decode("ascii", "replace").rpartition("/")[2]
            return (aiming.target(name) if name else h5py.h5r.Reference()), at + _REFERENCE
        case Text(length=None):
            return _measured(data, at)
        case Sequenced():
            inner, at = _measured(data, at)
            return _sequence(kind.base, inner, aiming), at
        case Compound():
            fields = []
            for _, each in kind.fields:
                one, at = _element(each, data, at, aiming)
                fields.append(one)
            return tuple(fields), at
        case _:
            width = packed(kind).itemsize
            whole = np.dtype([("it", packed(kind))])
            return np.frombuffer(_taken(data, at, width), whole)["it"][0], at + width


def _sequence(base: Type, data: bytes, aiming: Aiming) -> Values:
    memory = hdf5_type(base).dtype
    if is_plain(base):
        return np.frombuffer(data, packed(base)).astype(memory) if data else np.empty(0, memory)
    found, at = [], 0
    while at < len(data):
        one, at = _element(base, data, at, aiming)
        found.append(one)
    made: Values = np.empty(len(found), memory)
    for i, one in enumerate(found):
        made[i] = one
    return made


def _measured(data: bytes, at: int) -> tuple[bytes, int]:
    (size,) = struct.unpack("<i", _taken(data, at, 4))
    return _taken(data, at + 4, size), at + 4 + size


def _taken(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if size < 0 or len(found) != size:
        msg = f"{size} bytes are missing at byte {at} of {len(data)}"
        raise Garbled(msg)
    return found


def _region(blob: bytes) -> Region:
    """The blob of h5json's `RegionReference.tobytes`, version 1."""
    try:
        (length,) = struct.unpack_from("<H", blob, 5)
        dataset = blob[7 : 7 + length].decode().rpartition("/")[2]
        return _selected(dataset, blob[7 + length + 4 :])
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        msg = f"a region that is cut off ({error})"
        raise Garbled(msg) from error


def _selected(dataset: str, data: bytes) -> Region:
    _, _, kind, code, rank = struct.unpack_from("<BBBBH", data, 4)
    letter = _WIDTHS[code]
    at = 4 + struct.calcsize("<BBBBH")
    shape = struct.unpack_from(f"<{rank}{letter}", data, at)
    at += struct.calcsize(f"<{rank}{letter}") + 1
    axes: list[Sequence[int]] = []
    if kind in {_POINTS, _HYPERSLABS}:
        for _ in range(rank):
            count = 3 if data[at] == 0 else struct.unpack_from("<I", data, at + 1)[0]
            at += 1 if data[at] == 0 else 5
            axes.append(struct.unpack_from(f"<{count}{letter}", data, at))
            at += struct.calcsize(f"<{count}{letter}")
    if kind == _POINTS:
        return Region(dataset, shape, points=tuple(zip(*axes, strict=True)))
    if kind == _HYPERSLABS:
        return Region(dataset, shape, slab=tuple((a[0], a[1], a[2]) for a in axes))
    return Region(dataset, shape)
