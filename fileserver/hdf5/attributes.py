"""Attributes as HSDS writes them: read one by one, each refused or mapped for itself."""

from __future__ import annotations

import math
from typing import Final

import h5py
import numpy as np
from h5py import h5a, h5s, h5t

from fileserver.hdf5.elements import Pointing, fixed, to_value
from fileserver.hdf5.model import Attribute, Trouble
from fileserver.hdf5.outline import BROKEN, Located
from fileserver.hdf5.types import (
    Array,
    Compound,
    Json,
    Number,
    Opaque,
    Text,
    Type,
    Values,
    is_plain,
    packed,
    parts,
    to_json,
)
from fileserver.hdf5.typing_rules import NotHeld, Typed, readable, typed

MOST: Final = 64 << 20
"""Bytes of the largest attribute that is read; HSDS keeps it inside the JSON of its object."""


def attributes(
    place: Located, path: str, pointing: Pointing, troubles: list[Trouble], *, ordered: bool
) -> list[Attribute]:
    """All attributes of an open object, by creation if they are `ordered` so; `troubles` gets what is wrong."""
    found = []
    try:
        names = _names(place, ordered=ordered)
    except BROKEN as error:
        troubles.append(Trouble(path, "failed", f"its attributes cannot be read: {error}"))
        return []
    for raw in names:
        name, same = readable(raw)
        here = f"{path.rstrip('/')}/@{name}"
        if not same:
            troubles.append(Trouble(here, "mapped", "its name is not UTF-8 and is written percent-encoded"))
        try:
            attribute, notes = _read(h5a.open(place, raw), name, pointing)
        except NotHeld as error:
            troubles.append(Trouble(here, "refused", str(error)))
        except BROKEN as error:
            troubles.append(Trouble(here, "failed", f"it cannot be read: {error}"))
        else:
            found.append(attribute)
            troubles.extend(Trouble(here, "mapped", note) for note in notes)
    return found


def shape_json(dims: tuple[int, ...] | None) -> dict[str, Json]:
    """A space as HSDS writes it; None is the null space."""
    if dims is None:
        return {"class": "H5S_NULL"}
    return {"class": "H5S_SIMPLE", "dims": list(dims)} if dims else {"class": "H5S_SCALAR"}


def _names(place: Located, *, ordered: bool) -> list[bytes]:
    if not h5a.get_num_attrs(place):
        return []
    names: list[bytes] = []
    index = h5py.h5.INDEX_CRT_ORDER if ordered else h5py.h5.INDEX_NAME
    h5a.iterate(place, names.append, index_type=index)
    return names


def _read(attribute: h5a.AttrID, name: str, pointing: Pointing) -> tuple[Attribute, tuple[str, ...]]:
    raw, space = attribute.get_type(), attribute.get_space()
    found = typed(raw)
    kind = found.stored
    if space.get_simple_extent_type() == h5s.NULL:
        return Attribute(name, to_json(kind), shape_json(None), None), found.notes
    dims = space.get_simple_extent_dims()
    held = math.prod(dims) * raw.get_size()
    if held > MOST:
        msg = f"an attribute of {held} bytes: more than {MOST} would be too much for JSON"
        raise NotHeld(msg)
    values = _values(attribute, found, raw, dims)
    shape = shape_json(dims)
    if _opaque_inside(kind):
        return _bytewise(name, kind, values, shape, (_INSIDE, *found.notes))
    try:
        return Attribute(name, to_json(kind), shape, to_value(kind, values, pointing)), found.notes
    except UnicodeDecodeError:
        return _bytewise(name, kind, values, shape, (_UNDECODABLE, *found.notes))


def _opaque_inside(kind: Type) -> bool:
    return not isinstance(kind, Opaque) and any(isinstance(each, Opaque) for each in parts(kind))


def _bytewise(
    name: str, kind: Type, values: Values, shape: Json, notes: tuple[str, ...]
) -> tuple[Attribute, tuple[str, ...]]:
    """Texts and opaque bytes that JSON cannot hold as they are: the same bytes, as opaque ones or as small integers."""
    if isinstance(kind, Text) and kind.length is None:
        width = max(1, *(len(each) for each in values.reshape(-1).tolist() if each))
        kind, values = Text(width, kind.charset, kind.pad), np.asarray(values, f"S{width}")
    if not is_plain(kind):
        msg = "a text or opaque bytes beside elements of variable length that JSON cannot hold"
        raise NotHeld(msg)
    stored = Opaque(kind.length or 1) if isinstance(kind, Text) else _small_integers(kind)
    inner = stored.base if isinstance(stored, Array) else stored
    same = fixed(kind, values).view(packed(inner))
    return Attribute(name, to_json(stored), shape, to_value(stored, same, _NOWHERE)), notes


def _small_integers(kind: Type) -> Type:
    match kind:
        case Text(length=int(width)) | Opaque(size=width):
            return Array(Number("U", 1, "LE"), (width,))
        case Compound():
            return Compound(tuple((name, _small_integers(each)) for name, each in kind.fields))
        case Array():
            inner = _small_integers(kind.base)
            return Array(inner.base, (*kind.dims, *inner.dims)) if isinstance(inner, Array) else Array(inner, kind.dims)
        case _:
            return kind


_INSIDE: Final = "opaque bytes inside of an attribute stored as an array of bytes"
_UNDECODABLE: Final = "text that is not UTF-8 stored as opaque bytes: HSDS has attributes as JSON"
_NOWHERE: Final = Pointing(lambda _: None, lambda _: None)


def _values(attribute: h5a.AttrID, found: Typed, raw: h5t.TypeID, shape: tuple[int, ...]) -> Values:
    kind = raw.dtype
    # The file's own type needs no conversion, and there is none for opaque bytes with a tag.
    memory = raw if found.exact and is_plain(found.stored) else h5t.py_create(kind)
    if kind.subdtype is not None:
        kind, inner = kind.subdtype
        shape = (*shape, *inner)
    values = np.zeros(shape, kind)
    attribute.read(values, mtype=memory)
    return values
