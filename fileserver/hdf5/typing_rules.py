"""From an HDF5 type to what HSDS stores, by rule: the same, mapped with a reason, or refused with one.

Mapped:
- bit fields become unsigned integers of the same bytes;
- integers of odd sizes or with unused bits become the next full size;
- floats other than IEEE half, single and double become double;
- complex numbers become a compound of `r` and `i`, as h5py writes them;
- enums without members, and of two members TRUE and FALSE whose values are not 1 and 0, become their integers (HSDS
  takes the latter for booleans); enums, and opaque bytes, inside arrays become integers (HSDS takes neither there);
- field names that are not ASCII, and texts in names that are not UTF-8, are written as percent-encoded UTF-8.

Refused, since HSDS 1.0.2 cannot read back what it would store: sequences of sequences, of texts of variable length or
of region references, arrays of references or of sequences, compounds whose only field is of variable length, and times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import h5py
from h5py import h5t

from fileserver.hdf5.types import (
    Array,
    Compound,
    Enum,
    Number,
    Opaque,
    Reference,
    Sequenced,
    Text,
    Type,
    is_variable,
    size,
)

_SIZES: Final = (1, 2, 4, 8)
_FLOATS: Final = tuple(
    (Number("F", width, order), getattr(h5t, f"IEEE_F{8 * width}{order}"))
    for width in (2, 4, 8)
    for order in ("LE", "BE")
)
_BITS: Final = tuple(
    (Number("U", width, order), getattr(h5t, f"STD_B{8 * width}{order}")) for width in _SIZES for order in ("LE", "BE")
)
_PADS: Final = {
    h5t.STR_NULLTERM: "H5T_STR_NULLTERM",
    h5t.STR_NULLPAD: "H5T_STR_NULLPAD",
    h5t.STR_SPACEPAD: "H5T_STR_SPACEPAD",
}


class NotHeld(Exception):
    """HSDS cannot hold this; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Typed:
    """How a type is stored."""

    stored: Type
    exact: bool
    """The bytes in the file are the bytes that HSDS stores."""
    notes: tuple[str, ...] = ()
    """What was mapped, for the report."""
    committed: int | None = None
    """Address of the committed type that it refers to."""


def typed(kind: h5t.TypeID) -> Typed:
    """How HSDS stores an HDF5 type.

    Raises:
        NotHeld: it cannot.
    """
    found = _typed(kind)
    if kind.committed():
        return Typed(found.stored, found.exact, found.notes, h5py.h5o.get_info(kind).addr)
    return found


def readable(name: bytes) -> tuple[str, bool]:
    """A name as text, and whether it is the very same: names that are not UTF-8 are percent-encoded."""
    try:
        return name.decode(), True
    except UnicodeDecodeError:
        return quote(name, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~"), False


def _typed(kind: h5t.TypeID) -> Typed:  # noqa: C901, PLR0911 -- one case a class of HDF5's
    match kind.get_class():
        case h5t.INTEGER:
            return _integer(kind, "U" if kind.get_sign() == h5t.SGN_NONE else "I")
        case h5t.BITFIELD:
            return _bits(kind)
        case h5t.FLOAT:
            return _float(kind)
        case h5t.STRING:
            return _text(kind)
        case h5t.OPAQUE:
            return Typed(Opaque(kind.get_size(), readable(kind.get_tag())[0]), exact=True)
        case h5t.ENUM:
            return _enum(kind)
        case h5t.COMPOUND:
            return _compound(kind)
        case h5t.ARRAY:
            return _array(kind)
        case h5t.VLEN:
            return _sequence(kind)
        case h5t.REFERENCE:
            return Typed(Reference(region=kind.equal(h5t.STD_REF_DSETREG)), exact=False)
        case h5t.COMPLEX:
            return _complex(kind)
        case other:
            msg = f"HSDS has no type like HDF5's class {other} (2: time), and it has no bytes that mean the same"
            raise NotHeld(msg)


def _integer(kind: h5t.TypeID, sign: str) -> Typed:
    order = "BE" if kind.get_order() == h5t.ORDER_BE else "LE"
    held, width = kind.get_size(), 8 * kind.get_size()
    if held in _SIZES and kind.get_precision() == width and kind.get_offset() == 0:
        return Typed(Number(sign, held, order), exact=True)
    full = next((s for s in _SIZES if s >= held), None)
    if full is None:
        msg = f"an integer of {held} bytes: HSDS holds at most 8"
        raise NotHeld(msg)
    note = f"integer of {kind.get_precision()} bits stored in {8 * full}"
    return Typed(Number(sign, full, order), exact=False, notes=(note,))


def _float(kind: h5t.TypeID) -> Typed:
    for number, same in _FLOATS:
        if kind.equal(same):
            return Typed(number, exact=True)
    order = "BE" if kind.get_order() == h5t.ORDER_BE else "LE"
    note = f"float of {kind.get_precision()} bits stored as double"
    return Typed(Number("F", 8, order), exact=False, notes=(note,))


def _bits(kind: h5t.TypeID) -> Typed:
    for number, same in _BITS:
        if kind.equal(same):
            return Typed(number, exact=True, notes=("bit field stored as unsigned integer",))
    msg = f"a bit field of {kind.get_size()} bytes with unused bits: HSDS has no type like it"
    raise NotHeld(msg)


def _complex(kind: h5t.TypeID) -> Typed:
    part = _typed(kind.get_super())
    note = "complex number stored as a compound of r and i"
    return Typed(Compound((("r", part.stored), ("i", part.stored))), part.exact, (note, *part.notes))


def _text(kind: h5t.TypeID) -> Typed:
    charset = "H5T_CSET_UTF8" if kind.get_cset() == h5t.CSET_UTF8 else "H5T_CSET_ASCII"
    if kind.is_variable_str():
        return Typed(Text(None, charset, "H5T_STR_NULLTERM"), exact=False)
    return Typed(Text(kind.get_size(), charset, _PADS[kind.get_strpad()]), exact=True)


def _enum(kind: h5t.TypeID) -> Typed:
    base = _typed(kind.get_super())
    members = tuple(
        (readable(kind.get_member_name(i))[0], kind.get_member_value(i)) for i in range(kind.get_nmembers())
    )
    if not isinstance(base.stored, Number):
        msg = "an enum of something that is no integer"
        raise NotHeld(msg)
    if not members:
        return Typed(base.stored, base.exact, ("enum without members stored as integer",))
    named = dict(members)
    if set(named) == {"TRUE", "FALSE"} and (named["TRUE"], named["FALSE"]) != (1, 0) and base.stored.size == 1:
        return Typed(
            base.stored, base.exact, ("enum of TRUE and FALSE with other values than 1 and 0 stored as integer",)
        )
    return Typed(Enum(base.stored, members), base.exact, base.notes)


def _compound(kind: h5t.TypeID) -> Typed:
    fields, notes, exact, offset = [], [], True, 0
    for i in range(kind.get_nmembers()):
        name, same = readable(kind.get_member_name(i))
        if not name.isascii():
            name, same = quote(name), False
        if not same:
            notes.append(f"field name written as {name}: HSDS takes ASCII only")
        found = _typed(kind.get_member_type(i))
        exact = exact and found.exact and kind.get_member_offset(i) == offset
        offset += size(found.stored) or 0
        notes.extend(found.notes)
        fields.append((name, found.stored))
    if len(fields) == 1 and is_variable(fields[0][1]):
        msg = "a compound whose only field is of variable length: HSDS cannot read that back"
        raise NotHeld(msg)
    return Typed(Compound(tuple(fields)), exact and offset == kind.get_size(), tuple(notes))


def _array(kind: h5t.TypeID) -> Typed:
    base, dims = _typed(kind.get_super()), tuple(kind.get_array_dims())
    match base.stored:
        case Enum(base=number):
            return Typed(Array(number, dims), base.exact, ("enum inside an array stored as integer", *base.notes))
        case Opaque(size=held):
            note = "opaque bytes inside an array stored as an array of bytes"
            return Typed(Array(Number("U", 1, "LE"), (*dims, held)), base.exact, (note, *base.notes))
        case Sequenced() | Reference():
            msg = "an array of sequences or references: HSDS has no such type"
            raise NotHeld(msg)
        case Text(length=None) | Compound() as stored if is_variable(stored):
            msg = "an array of elements of variable length: HSDS cannot read that back"
            raise NotHeld(msg)
        case Array(base=inner, dims=more):
            return Typed(Array(inner, (*dims, *more)), base.exact, base.notes)
        case stored:
            return Typed(Array(stored, dims), base.exact, base.notes)


def _sequence(kind: h5t.TypeID) -> Typed:
    base = _typed(kind.get_super())
    if isinstance(base.stored, Sequenced | Array | Text | Reference) and is_variable(base.stored):
        msg = "a sequence of sequences, of texts of variable length or of region references: HSDS cannot read that back"
        raise NotHeld(msg)
    return Typed(Sequenced(base.stored), exact=False, notes=base.notes)
