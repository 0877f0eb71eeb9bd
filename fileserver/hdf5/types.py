"""What HSDS can hold in one element: its types as plain data, their JSON, and the layout of their bytes.

A stored type is what a domain declares; its elements lie packed, without padding. Where an HDF5 type has no
counterpart it is mapped to one that has, and says so (`fileserver.hdf5.typing_rules`).

The rules are those of HSDS 1.0.2 (its package h5json, module hdf5dtype), as found by storing each and reading it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None

VLEN_MOST: Final = 1_000_000
"""Bytes that HSDS takes at most in one element of variable length."""
_REFERENCE: Final = 48  # bytes of an object reference: the id of an object, filled up with zeros
_NUMPY: Final = {"I": "i", "U": "u", "F": "f"}


@dataclass(frozen=True, slots=True)
class Number:
    """An integer or a float; `kind` is I, U or F, `size` in bytes, `order` LE or BE."""

    kind: str
    size: int
    order: str

    @property
    def base(self) -> str:
        """HDF5's name of it, as HSDS writes it."""
        family = "IEEE" if self.kind == "F" else "STD"
        return f"H5T_{family}_{self.kind}{8 * self.size}{self.order}"


@dataclass(frozen=True, slots=True)
class Text:
    """A string; `length` in bytes, or None for variable length."""

    length: int | None
    charset: str
    pad: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes without a meaning."""

    size: int
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Enum:
    """Named values of an integer."""

    base: Number
    members: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Array:
    """A fixed number of elements in one."""

    base: Type
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Compound:
    """Named fields, one after the other."""

    fields: tuple[tuple[str, Type], ...]


@dataclass(frozen=True, slots=True)
class Sequenced:
    """Elements of any number (HDF5's variable-length sequence)."""

    base: Type


@dataclass(frozen=True, slots=True)
class Reference:
    """Points to an object, or to a region of a dataset."""

    region: bool


Type: TypeAlias = Number | Text | Opaque | Enum | Array | Compound | Sequenced | Reference


def to_json(kind: Type) -> dict[str, Json]:  # noqa: PLR0911 -- one a type
    """The type as HSDS writes it into a domain."""
    match kind:
        case Number():
            return {"class": "H5T_FLOAT" if kind.kind == "F" else "H5T_INTEGER", "base": kind.base}
        case Text():
            length: Json = "H5T_VARIABLE" if kind.length is None else kind.length
            return {"class": "H5T_STRING", "charSet": kind.charset, "length": length, "strPad": kind.pad}
        case Opaque():
            tag: dict[str, Json] = {"tag": kind.tag} if kind.tag else {}
            return {"class": "H5T_OPAQUE", "size": kind.size, **tag}
        case Enum():
            members: Json = [{"name": name, "value": value} for name, value in kind.members]
            return {"class": "H5T_ENUM", "base": to_json(kind.base), "members": members}
        case Array():
            return {"class": "H5T_ARRAY", "base": to_json(kind.base), "dims": list(kind.dims)}
        case Compound():
            fields: Json = [{"name": name, "type": to_json(each)} for name, each in kind.fields]
            return {"class": "H5T_COMPOUND", "fields": fields}
        case Sequenced():
            return {"class": "H5T_VLEN", "size": "H5T_VARIABLE", "base": to_json(kind.base)}
        case Reference(region=True):
            return {"class": "H5T_REFERENCE", "base": "H5T_STD_REF_DSETREG", "length": "H5T_VARIABLE"}
        case Reference():
            pads = {"charSet": "H5T_CSET_ASCII", "strPad": "H5T_STR_NULLPAD"}
            return {"class": "H5T_REFERENCE", "base": "H5T_STD_REF_OBJ", "length": _REFERENCE, **pads}


def parts(kind: Type) -> Iterator[Type]:
    """The type itself and all that it is made of."""
    yield kind
    match kind:
        case Array() | Sequenced():
            yield from parts(kind.base)
        case Compound():
            for _, each in kind.fields:
                yield from parts(each)
        case _:
            pass


def is_variable(kind: Type) -> bool:
    """Whether elements differ in size as they are stored."""
    return any(
        isinstance(each, Sequenced)
        or (isinstance(each, Text) and each.length is None)
        or (isinstance(each, Reference) and each.region)
        for each in parts(kind)
    )


def is_plain(kind: Type) -> bool:
    """Whether an array of it is bytes to numpy: fixed in size, and without references, which name objects of a file."""
    return not any(
        isinstance(each, Sequenced | Reference) or (isinstance(each, Text) and each.length is None)
        for each in parts(kind)
    )


def packed(kind: Type) -> np.dtype[np.generic]:
    """The numpy dtype of a plain type as it is stored.

    Raises:
        TypeError: the type is not plain.
    """
    match kind:
        case Number():
            order = "<" if kind.order == "LE" else ">"
            return np.dtype(f"{order}{_NUMPY[kind.kind]}{kind.size}")
        case Text(length=int(length)):
            return np.dtype(f"S{length}")
        case Opaque():
            return np.dtype(f"V{kind.size}")
        case Enum():
            return packed(kind.base)
        case Array():
            return np.dtype((packed(kind.base), kind.dims))
        case Compound():
            return np.dtype([(name, packed(each)) for name, each in kind.fields])
        case _:
            msg = f"{kind} has no fixed layout"
            raise TypeError(msg)


def size(kind: Type) -> int | None:
    """Bytes of one stored element; None if they differ."""
    if is_variable(kind):
        return None
    match kind:
        case Reference():
            return _REFERENCE
        case Array():
            return (size(kind.base) or 0) * math.prod(kind.dims)
        case Compound():
            return sum(size(each) or 0 for _, each in kind.fields)
        case _:
            return packed(kind).itemsize


Values: TypeAlias = npt.NDArray[np.generic]
"""What h5py reads: elements of one type in any number of dimensions (those of an array type come last)."""
