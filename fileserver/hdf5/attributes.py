"""Attributes as HSDS writes them: read one by one, each refused or mapped for itself."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import Final

import h5py
import numpy as np
from h5py import h5a, h5o, h5p, h5s, h5t

from fileserver.hdf5.elements import Pointing, needs_base64, to_bytes, to_value
from fileserver.hdf5.model import Attribute, Trouble
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.types import Json, Values, to_json
from fileserver.hdf5.typing_rules import NotHeld, readable, typed
from fileserver.hdf5.types import Text, is_variable

Located = h5py.h5g.GroupID | h5py.h5d.DatasetID | h5py.h5t.TypeID
MOST: Final = 64 << 20
"""Bytes of the largest attribute that is read; HSDS keeps it inside the JSON of its object."""


def attributes(place: Located, path: str, pointing: Pointing, troubles: list[Trouble]) -> list[Attribute]:
    """All attributes of an open object, in order of creation if the file keeps that; what is wrong goes to `troubles`."""
    found = []
    for raw in _names(place):
        name, same = readable(raw)
        here = f"{path.rstrip('/')}/@{name}"
        if not same:
            troubles.append(Trouble(here, "mapped", "its name is not UTF-8 and is written percent-encoded"))
        try:
            attribute, notes = _read(h5a.open(place, raw), name, pointing)
        except NotHeld as error:
            troubles.append(Trouble(here, "refused", str(error)))
        except (*BROKEN, TypeError) as error:
            troubles.append(Trouble(here, "failed", f"it cannot be read: {error}"))
        else:
            found.append(attribute)
            troubles.extend(Trouble(here, "mapped", note) for note in notes)
    return found


def ordered(place: Located) -> bool:
    """Whether the file keeps the order in which attributes came."""
    if isinstance(place, h5t.TypeID):
        return False  # h5py has no creation properties of types
    return bool(place.get_create_plist().get_attr_creation_order() & h5p.CRT_ORDER_TRACKED)


def shape_json(dims: tuple[int, ...] | None) -> dict[str, Json]:
    """A space as HSDS writes it; None is the null space."""
    if dims is None:
        return {"class": "H5S_NULL"}
    return {"class": "H5S_SIMPLE", "dims": list(dims)} if dims else {"class": "H5S_SCALAR"}


def _names(place: Located) -> Iterator[bytes]:
    if not h5o.get_info(place).num_attrs:
        return
    names: list[bytes] = []
    index = h5py.h5.INDEX_CRT_ORDER if ordered(place) else h5py.h5.INDEX_NAME
    h5a.iterate(place, names.append, index_type=index)
    yield from names


def _read(attribute: h5a.AttrID, name: str, pointing: Pointing) -> tuple[Attribute, tuple[str, ...]]:
    found = typed(attribute.get_type())
    kind = found.stored
    if attribute.get_space().get_simple_extent_type() == h5s.NULL:
        return Attribute(name, to_json(kind), shape_json(None), None), found.notes
    held = math.prod(attribute.shape) * attribute.get_type().get_size()
    if held > MOST:
        msg = f"an attribute of {held} bytes: more than {MOST} would be too much for JSON"
        raise NotHeld(msg)
    values = _values(attribute)
    shape = shape_json(attribute.shape)
    if not needs_base64(kind):
        try:
            return Attribute(name, to_json(kind), shape, to_value(kind, values, pointing)), found.notes
        except UnicodeDecodeError:
            if is_variable(kind):
                return _undecodable(attribute, name, values, shape, found.notes)
    data = base64.b64encode(to_bytes(kind, values, pointing)).decode()
    return Attribute(name, to_json(kind), shape, data, base64=True), found.notes


def _undecodable(
    attribute: h5a.AttrID, name: str, values: Values, shape: Json, notes: tuple[str, ...]
) -> tuple[Attribute, tuple[str, ...]]:
    """Texts of variable length that are not UTF-8: HSDS has them as JSON alone, so they get a fixed length."""
    kind = typed(attribute.get_type()).stored
    if not isinstance(kind, Text):
        msg = "a text inside of it is not UTF-8, and HSDS keeps such values as JSON"
        raise NotHeld(msg)
    width = max(1, *(len(each) for each in values.reshape(-1)))
    stored = Text(width, "H5T_CSET_ASCII", "H5T_STR_NULLPAD")
    data = base64.b64encode(values.astype(f"S{width}").tobytes()).decode()
    note = f"text that is not UTF-8 stored with a fixed length of {width} bytes"
    return Attribute(name, to_json(stored), shape, data, base64=True), (note, *notes)


def _values(attribute: h5a.AttrID) -> Values:
    kind = attribute.dtype
    shape = attribute.shape
    memory = h5t.py_create(kind)
    if kind.subdtype is not None:
        kind, inner = kind.subdtype
        shape += inner
    values = np.zeros(shape, kind)
    attribute.read(values, mtype=memory)
    return values
