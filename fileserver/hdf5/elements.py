"""Elements as HSDS stores them: as bytes in a chunk, and as JSON in an attribute.

The bytes are those of h5json's `array_util.arrayToBytes`: fixed types lie packed one after the other, an element of
variable length is its length in bytes (4, little-endian) and its bytes, a compound is its fields. An object reference
is the text `groups/g-…`, filled up with zeros to 48 bytes; a region reference is the blob of
`hdf5dtype.RegionReference.tobytes`.
"""

from __future__ import annotations

import base64
import itertools
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import h5py
import numpy as np

from fileserver.hdf5.ids import FOLDERS
from fileserver.hdf5.types import (
    VLEN_MOST,
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
from fileserver.hdf5.typing_rules import NotHeld

_POINTS: Final = 1  # as h5json's selections call them
_HYPERSLABS: Final = 2
_ALL: Final = 3
MOST_POINTS: Final = 10_000
"""Elements of a region that are listed one by one; regions that need more are refused."""
_WIDTHS: Final = ((1 << 16, "H"), (1 << 32, "I"), (1 << 64, "Q"))


@dataclass(frozen=True, slots=True)
class Region:
    """Some elements of a dataset: all, one hyperslab of (start, stop, step) a dimension, or points."""

    dataset: str
    shape: tuple[int, ...]
    slab: tuple[tuple[int, int, int], ...] | None = None
    points: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class Pointing:
    """Where references lead; None for those that lead nowhere."""

    target: Callable[[h5py.h5r.Reference], str | None]
    region: Callable[[h5py.h5r.RegionReference], Region | None]


def to_bytes(kind: Type, values: Values, pointing: Pointing) -> bytes:
    """Elements in the order of their array, as they lie in a chunk.

    Raises:
        NotHeld: an element is longer than HSDS takes.
    """
    if is_plain(kind):
        return fixed(kind, values).tobytes()
    return b"".join(_bytes(kind, each, pointing) for each in values.reshape(-1))


def fixed(kind: Type, values: Values) -> Values:
    """The same elements in the layout of a plain stored type; those of an array type have its dimensions last."""
    wanted = packed(kind.base if isinstance(kind, Array) else kind)
    if values.dtype == wanted:
        return values if values.flags.c_contiguous else values.copy(order="C")
    plain = _without_complex(values.dtype)
    return (values if plain is values.dtype else values.view(plain)).astype(wanted, order="C")


def _without_complex(kind: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The same layout with complex numbers as compounds of two: numpy does not cast one to the other."""
    if kind.kind == "c":
        half = np.dtype(f"{kind.byteorder}f{kind.itemsize // 2}")
        return np.dtype([("r", half), ("i", half)])
    if kind.subdtype is not None:
        inner = _without_complex(kind.subdtype[0])
        return kind if inner is kind.subdtype[0] else np.dtype((inner, kind.subdtype[1]))
    fields = [kind.fields[name] for name in kind.names] if kind.names and kind.fields else []
    inside = [_without_complex(field[0]) for field in fields]
    if all(new is old[0] for new, old in zip(inside, fields, strict=True)):
        return kind
    offsets = [field[1] for field in fields]
    names = {"names": kind.names, "formats": inside, "offsets": offsets, "itemsize": kind.itemsize}
    found: np.dtype[np.generic] = np.dtype(names)  # type: ignore[call-overload]  # numpy's form with offsets
    return found


def blank(kind: Type) -> bytes:
    """An element that was never written."""
    match kind:
        case Compound():
            return b"".join(blank(each) for _, each in kind.fields)
        case Sequenced() | Text(length=None) | Reference(region=True):
            return bytes(4)
        case Reference():
            return bytes(48)
        case _:
            return bytes(packed(kind).itemsize)


def to_value(kind: Type, values: Values, pointing: Pointing) -> Json:
    """Elements as the value of an attribute.

    Raises:
        UnicodeDecodeError: a text is not UTF-8.
    """
    if isinstance(kind, Array):
        return to_value(kind.base, values, pointing)
    if is_plain(kind):
        return _texts(fixed(kind, values).tolist(), kind)
    return _nested(kind, values if values.ndim else values[()], values.ndim, pointing)


def _nested(kind: Type, values: Values, depth: int, pointing: Pointing) -> Json:
    if depth:
        return [_nested(kind, each, depth - 1, pointing) for each in values]
    return _value(kind, values, pointing)


def _texts(data: Json, kind: Type) -> Json:
    """What numpy's `tolist` gives, with bytes as text."""
    if isinstance(data, list | tuple):
        return [_texts(each, kind) for each in data]
    if isinstance(data, bytes):
        return _opaque(data) if isinstance(kind, Opaque) else data.decode()
    return data


def _opaque(data: bytes) -> str:
    return base64.b64encode(data).decode() if any(data) else ""


def _value(kind: Type, one: Any, pointing: Pointing) -> Json:  # noqa: PLR0911 -- one a type
    match kind:
        case Reference(region=True):
            return _region_json(pointing.region(one) if one else None)
        case Reference():
            return (pointing.target(one) if one else None) or ""
        case Text(length=None):
            return one.decode() if isinstance(one, bytes) else str(one or "")
        case Sequenced():
            return to_value(kind.base, sequenced(kind.base, np.asarray(one)), pointing)
        case Compound():
            return [_value(each, one[i], pointing) for i, (_, each) in enumerate(kind.fields)]
        case Array():
            return to_value(kind.base, np.asarray(one), pointing)
        case _:
            return _texts(np.asarray(one).tolist(), kind)


def _bytes(kind: Type, one: Any, pointing: Pointing) -> bytes:
    match kind:
        case Reference(region=True):
            region = pointing.region(one) if one else None
            return measured(region_blob(region) if region else b"")
        case Reference():
            found = pointing.target(one) if one else None
            return (f"{FOLDERS[found[0]]}/{found}" if found else "").encode().ljust(48, b"\0")
        case Text(length=None):
            return measured(one if isinstance(one, bytes) else str(one or "").encode())
        case Sequenced():
            held = isinstance(one, np.ndarray)
            return measured(to_bytes(kind.base, sequenced(kind.base, one), pointing) if held else b"")
        case Compound():
            return b"".join(_bytes(each, one[i], pointing) for i, (_, each) in enumerate(kind.fields))
        case _:
            return fixed(kind, np.asarray(one)).tobytes()


def sequenced(base: Type, values: Values) -> Values:
    """Elements of a sequence as what they are: h5py (3.16) gives big-endian numbers out for native ones, unswapped."""
    if isinstance(base, Number | Enum) and values.dtype.itemsize == packed(base).itemsize:
        return values.view(packed(base))
    return values


def measured(data: bytes) -> bytes:
    """Bytes with their number before them; raises NotHeld for more than HSDS takes."""
    if len(data) > VLEN_MOST:
        msg = f"an element of variable length has {len(data)} bytes: HSDS takes {VLEN_MOST} at most"
        raise NotHeld(msg)
    return struct.pack("<i", len(data)) + data


def _region_json(region: Region | None) -> Json:
    if region is None:
        return None
    head = {"id": region.dataset[2:]}
    if region.points is not None:
        return {**head, "select_type": "H5S_SEL_POINTS", "selection": [list(p) for p in region.points]}
    slab = region.slab or tuple((0, extent, 1) for extent in region.shape)
    if any(step != 1 for _, _, step in slab):  # h5json has no form for steps but single points
        axes = [range(*each) for each in slab]
        if math.prod(map(len, axes)) > MOST_POINTS:
            msg = f"a region of more than {MOST_POINTS} single elements, which an attribute has to list"
            raise NotHeld(msg)
        points = [list(point) for point in itertools.product(*axes)]
        return {**head, "select_type": "H5S_SEL_POINTS", "selection": points}
    ends: Json = [[start for start, _, _ in slab], [stop - 1 for _, stop, _ in slab]]
    return {**head, "select_type": "H5S_SEL_HYPERSLABS", "selection": [ends]}


def region_blob(region: Region) -> bytes:
    """A region reference as it lies in a chunk, without its length."""
    selection = _selection(region)
    name = region.dataset.encode()
    head = b"HRRF" + struct.pack("<BH", 1, len(name)) + name
    return head + struct.pack("<I", len(selection)) + selection + b"\xff"


def _selection(region: Region) -> bytes:
    """A selection in the bytes of h5json's `Selection.tobytes`, version 1."""
    most = max(region.shape, default=0)
    code, letter = next((i, letter) for i, (bound, letter) in enumerate(_WIDTHS) if most < bound)
    kind = _POINTS if region.points is not None else _HYPERSLABS if region.slab is not None else _ALL
    head = b"HSEL" + struct.pack("<BBBBH", 1, 0, kind, code, len(region.shape))
    head += struct.pack(f"<{len(region.shape)}{letter}", *region.shape) + b"\0"
    if region.points is not None:
        columns = zip(*region.points, strict=True)
        return head + b"".join(struct.pack(f"<BI{len(c)}{letter}", 1, len(c), *c) for c in columns)
    return head + b"".join(struct.pack(f"<B3{letter}", 0, *each) for each in region.slab or ())
