"""What a domain says of its objects, as plain data: the way back from the server's JSON.

The counterpart of `fileserver.hdf5.describe`, but for all that HSDS 1.0.2 writes, whoever had it written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.hsds.reading import Reader
from fileserver.hdf5.model import Kind
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
)

UNLIMITED: Final = "H5S_UNLIMITED"
_WHOLE: Final = "H5D_CONTIGUOUS"
_HARD: Final = "H5L_TYPE_HARD"
_KINDS: Final[dict[str, Literal["hard", "soft", "external"]]] = {
    _HARD: "hard",
    "H5L_TYPE_SOFT": "soft",
    "H5L_TYPE_EXTERNAL": "external",
}


class Unknown(Exception):
    """A domain holds what we have no word for; the message says what."""


@dataclass(frozen=True, slots=True)
class DeclaredType:
    """A type, and the id of the committed one that it refers to."""

    type: Type
    committed: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredLink:
    """A name in a group: `target` is an id for a hard link, a path for the others."""

    name: str
    kind: Literal["hard", "soft", "external"]
    target: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredAttribute:
    """An attribute with its value; `dims` is None for a null space."""

    name: str
    type: DeclaredType
    dims: tuple[int, ...] | None
    value: Json


@dataclass(frozen=True, slots=True)
class DeclaredFilter:
    """A filter by HDF5's number of it (or the server's name, where it has none), with its level if it has one."""

    number: int
    name: str
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """How a dataset is kept: `layout` is the server's class of it, `chunk` in elements."""

    layout: str
    chunk: tuple[int, ...]
    filters: tuple[DeclaredFilter, ...]
    fill: Json


@dataclass(frozen=True, slots=True)
class Declared:
    """An object. Links are a group's; type a dataset's and a committed type's; the rest a dataset's."""

    id: str
    attributes: tuple[DeclaredAttribute, ...]
    ordered: bool
    """The order in which links and attributes were made means something."""
    links: tuple[DeclaredLink, ...] = ()
    type: DeclaredType | None = None
    dims: tuple[int, ...] | None = None
    maxdims: tuple[int | None, ...] | None = None
    """None if no extent may change."""
    storage: Storage | None = None

    @property
    def kind(self) -> Kind:
        """What it is."""
        return "g" if self.id[0] == "g" else "d" if self.id[0] == "d" else "t"


async def declared(objects: Objects, object_id: str, *, links: bool = True, attributes: bool = True) -> Declared:
    """What the server says of one object, by one request.

    Args:
        objects: of the domain.
        object_id: of a group, dataset or committed type.
        links: of a group, with it.
        attributes: with it.

    Raises:
        NotFound: it is not there.
        Unknown: it is of a type that we do not know.
        Refused: the answer is none that HSDS gives.
    """
    found = await objects.get(object_id, links=links and object_id.startswith("g"), attributes=attributes)
    held = tuple(_attribute(name, each) for name, each in _by_age(found, "attributes"))
    ordered = found.has("creationProperties") and found.item("creationProperties").has("CreateOrder")
    if object_id.startswith("g"):
        return Declared(object_id, held, ordered, tuple(_link(name, each) for name, each in _by_age(found, "links")))
    kind = type_of(found.value("type"))
    if object_id.startswith("t"):
        return Declared(object_id, held, ordered, type=kind)
    shape = found.item("shape")
    dims = _dims(shape)
    return Declared(object_id, held, ordered, (), kind, dims, _maxdims(shape, dims), _storage(found, dims))


def type_of(found: Json) -> DeclaredType:
    """A type from the server's JSON of it.

    Raises:
        Unknown: we have none like it.
    """
    committed = found.get("id", "") if isinstance(found, dict) else ""
    return DeclaredType(_type(found), str(committed).rpartition("/")[2])


def _type(found: Json) -> Type:  # noqa: PLR0911 -- one a class of HDF5's
    if isinstance(found, str):
        return _number(found)
    body = found if isinstance(found, dict) else {}
    match body.get("class"):
        case "H5T_INTEGER" | "H5T_FLOAT":
            return _number(body.get("base"))
        case "H5T_STRING":
            length = body.get("length")
            charset, pad = body.get("charSet", "H5T_CSET_ASCII"), body.get("strPad", "H5T_STR_NULLPAD")
            return Text(length if isinstance(length, int) else None, str(charset), str(pad))
        case "H5T_OPAQUE":
            return Opaque(_int(body.get("size"), found), str(body.get("tag", "")))
        case "H5T_ENUM":
            return _enum(body)
        case "H5T_ARRAY":
            return Array(_type(body.get("base")), _ints(body.get("dims"), found))
        case "H5T_COMPOUND":
            return Compound(tuple((str(each["name"]), _type(each["type"])) for each in _maps(body.get("fields"))))
        case "H5T_VLEN":
            return Sequenced(_type(body.get("base")))
        case "H5T_REFERENCE":
            return Reference(region=body.get("base") == "H5T_STD_REF_DSETREG")
        case _:
            msg = f"a type that we do not know: {str(found)[:200]}"
            raise Unknown(msg)


def _number(name: Json) -> Number:
    text = str(name).removeprefix("H5T_").removeprefix("STD_").removeprefix("IEEE_")
    kind, order = text[:1], text[-2:]
    bits = text[1:-2]
    if kind not in {"I", "U", "F"} or order not in {"LE", "BE"} or bits not in {"8", "16", "32", "64"}:
        msg = f"a number that we do not know: {str(name)[:200]}"
        raise Unknown(msg)
    return Number(kind, int(bits) // 8, order)


def _enum(body: dict[str, Json]) -> Enum:
    base = _type(body.get("base"))
    members = body.get("members", body.get("mapping"))
    if isinstance(members, dict):
        pairs = tuple((name, _int(value, members)) for name, value in members.items())
    else:
        pairs = tuple((str(each["name"]), _int(each["value"], members)) for each in _maps(members))
    if not isinstance(base, Number):
        msg = "an enum of something that is no integer"
        raise Unknown(msg)
    return Enum(base, pairs)


def _attribute(name: str, found: Reader) -> DeclaredAttribute:
    return DeclaredAttribute(name, type_of(found.value("type")), _dims(found.item("shape")), found.value("value"))


def _link(name: str, found: Reader) -> DeclaredLink:
    kind = found.text("class", _HARD)
    if kind not in _KINDS:
        msg = f"a link of class {kind}"
        raise Unknown(msg)
    if kind == _HARD:
        return DeclaredLink(name, "hard", found.text("id").rpartition("/")[2])
    return DeclaredLink(name, _KINDS[kind], found.text("h5path"), found.text("h5domain", ""))


def _by_age(found: Reader, name: str) -> list[tuple[str, Reader]]:
    """Members in the order in which they were made; those of the same moment as the server has them."""
    return sorted(found.pairs(name), key=lambda pair: pair[1].number("created", 0.0)) if found.has(name) else []


def _dims(shape: Reader) -> tuple[int, ...] | None:
    match shape.text("class"):
        case "H5S_NULL":
            return None
        case "H5S_SCALAR":
            return ()
        case _:
            return _ints(shape.value("dims"), shape.value("dims"))


def _maxdims(shape: Reader, dims: tuple[int, ...] | None) -> tuple[int | None, ...] | None:
    found = shape.value("maxdims")
    if not isinstance(found, list) or dims is None:
        return None
    most = tuple(None if each in {UNLIMITED, 0} else _int(each, found) for each in found)
    return None if most == dims else most


def _storage(found: Reader, dims: tuple[int, ...] | None) -> Storage:
    properties = found.item("creationProperties") if found.has("creationProperties") else None
    layout = next((each.item("layout") for each in (properties, found) if each and each.has("layout")), None)
    chunk = _ints(layout.value("dims"), layout.value("dims")) if layout and layout.has("dims") else dims or ()
    filters = properties.value("filters") if properties else None
    fill = properties.value("fillValue") if properties else None
    known = tuple(map(_filter, filters)) if isinstance(filters, list) else ()
    return Storage(layout.text("class", _WHOLE) if layout else _WHOLE, chunk, known, fill)


def _filter(found: Json) -> DeclaredFilter:
    if not isinstance(found, dict):
        return DeclaredFilter(found if isinstance(found, int) else 0, str(found))
    number, level = found.get("id"), found.get("level")
    name = str(found.get("name") or found.get("class") or "")
    return DeclaredFilter(number if isinstance(number, int) else 0, name, level if isinstance(level, int) else None)


def _maps(found: Json) -> Sequence[dict[str, Json]]:
    if isinstance(found, list) and all(isinstance(each, dict) and len(each) > 1 for each in found):
        return found
    msg = f"a type that we do not know: {str(found)[:200]}"
    raise Unknown(msg)


def _ints(found: Json, of: Json) -> tuple[int, ...]:
    if not isinstance(found, list):
        return (_int(found, of),)
    return tuple(_int(each, of) for each in found)


def _int(found: Json, of: Json) -> int:
    if isinstance(found, int):
        return found
    msg = f"no number where one has to be: {str(of)[:200]}"
    raise Unknown(msg)
