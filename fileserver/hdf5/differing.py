"""Where an object of a file and one of a domain differ: pure comparisons, one kind of thing each."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fileserver.hdf5.alike import same, same_fill
from fileserver.hdf5.declared import Declared, DeclaredAttribute, DeclaredLink, DeclaredType, Unknown, type_of
from fileserver.hdf5.model import Attribute, Facts, Link, Trouble
from fileserver.hdf5.types import Array, Enum, Json, Number, Type, is_plain, packed, to_json
from fileserver.hdf5.typing_rules import Typed

KINDS: Final[Mapping[str, str]] = {"g": "group", "d": "dataset", "t": "committed type"}
_SHOWN: Final = 200  # characters of a value


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same: `left` is the file's, `right` the domain's; empty is "not there"."""

    path: str
    """Of an object or a link; `/group/@name` is an attribute."""
    what: str
    """missing, added, kind, object, link, order of links, order of attributes, type, extents, limits, fill value,
    value, data, unreadable."""
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Unequal:
    """Elements of one block that differ, and the first of them."""

    count: int
    place: tuple[int, ...]
    left: str
    right: str


def links(path: str, ours: Link, theirs: DeclaredLink) -> Iterator[Difference]:
    """Two links of one name, not both hard."""
    left = ours.kind if ours.kind == "hard" else f"{ours.kind} {ours.file}{':' if ours.file else ''}{ours.target}"
    right = theirs.kind if theirs.kind == "hard" else f"{theirs.kind} {theirs.file}{':' if theirs.file else ''}"
    right += theirs.target if theirs.kind != "hard" else ""
    if left != right:
        yield Difference(path, "link", left, right)


def attributes(
    path: str,
    ours: Sequence[Attribute],
    theirs: Sequence[DeclaredAttribute],
    troubles: Sequence[Trouble],
    *,
    without: Collection[str],
    ordered: bool,
) -> Iterator[Difference]:
    """The attributes of an object; `troubles` are those of the file's that cannot be read or held."""
    here, there = {each.name: each for each in ours}, {each.name: each for each in theirs}
    stem = f"{path.rstrip('/')}/@"
    lost = {trouble.path: trouble.reason for trouble in troubles if trouble.what != "mapped" and stem in trouble.path}
    for at, reason in lost.items():
        name = at.removeprefix(stem)
        if at not in without:
            yield Difference(at, "unreadable" if name in there else "missing", reason, "there" if name in there else "")
    for name, each in here.items():
        if name in there:
            yield from _attribute(f"{stem}{name}", each, there[name])
        elif f"{stem}{name}" not in without:
            yield Difference(f"{stem}{name}", "missing", shown(each.value), "")
    for name in there.keys() - here.keys():
        if f"{stem}{name}" not in lost:
            yield Difference(f"{stem}{name}", "added", "", shown(there[name].value))
    kept = [name for name in here if name in there]
    if ordered and [name for name in there if name in here] != kept:
        yield Difference(path, "order of attributes", ", ".join(kept), ", ".join(there))


def types(path: str, ours: Typed, theirs: DeclaredType, ids: Mapping[int, str]) -> Iterator[Difference]:
    """Two types, and the committed ones that they refer to."""
    if ours.stored != theirs.type:
        yield Difference(path, "type", _type(ours.stored), _type(theirs.type))
        return
    committed = ids.get(ours.committed, "") if ours.committed is not None else ""
    if committed != theirs.committed:
        yield Difference(path, "type", f"committed {committed}".strip(), f"committed {theirs.committed}".strip())


def datasets(path: str, ours: Facts, theirs: Declared, ids: Mapping[int, str]) -> Iterator[Difference]:
    """Two datasets, but for their data."""
    if theirs.type is not None:
        yield from types(path, ours.typed, theirs.type, ids)
    if ours.dims != theirs.dims:
        yield Difference(path, "extents", extents(ours.dims), extents(theirs.dims))
    elif ours.dims and _most(ours.maxdims, ours.dims) != _most(theirs.maxdims, ours.dims):
        yield Difference(path, "limits", extents(ours.maxdims), extents(theirs.maxdims))
    fill = theirs.storage.fill if theirs.storage else None
    if not ours.fill_unheld and not same_fill(ours.fill, fill):
        yield Difference(path, "fill value", shown(ours.fill), shown(fill))


def elements(kind: Type, start: Sequence[int], count: Sequence[int], ours: bytes, theirs: bytes) -> Unequal | None:
    """The elements of two blocks, packed as HSDS gives them; None if they are equal."""
    if ours == theirs:
        return None
    if len(ours) != len(theirs) or not is_plain(kind):
        pairs = zip(ours, theirs, strict=False)  # one may be the shorter
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
        first, last = max(0, at - 8), at + 24
        return Unequal(1, tuple(start), f"bytes {ours[first:last]!r}", f"bytes {theirs[first:last]!r}")
    width = packed(kind).itemsize
    left, right = (np.frombuffer(data, np.uint8).reshape(-1, width) for data in (ours, theirs))
    unequal = np.flatnonzero(np.any(left != right, axis=1))
    wrong = [int(i) for i in unequal if not _equal(kind, ours, theirs, int(i) * width, width)]
    if not wrong:
        return None
    inside = np.unravel_index(wrong[0], tuple(count)) if count else ()
    place = tuple(int(a) + b for a, b in zip(inside, start, strict=True))
    one, other = (str(_one(kind, data, wrong[0] * width, width))[:_SHOWN] for data in (ours, theirs))
    return Unequal(len(wrong), place, one, other)


def _equal(kind: Type, ours: bytes, theirs: bytes, at: int, width: int) -> bool:
    """Numbers may be equal in other bytes: NaN for NaN, zero for minus zero."""
    left, right = _one(kind, ours, at, width), _one(kind, theirs, at, width)
    return same(left, right)


def _one(kind: Type, data: bytes, at: int, width: int) -> Json:
    found: Json = np.frombuffer(data[at : at + width], np.dtype([("it", packed(kind))]))["it"][0].tolist()
    return found


def extents(dims: Sequence[int | None] | None) -> str:
    """Extents for people."""
    if dims is None:
        return "none"
    return " x ".join("unlimited" if each is None else str(each) for each in dims) or "scalar"


def shown(value: Json) -> str:
    """A value for people, cut off where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _attribute(path: str, ours: Attribute, theirs: DeclaredAttribute) -> Iterator[Difference]:
    try:
        kind = type_of(ours.type).type
    except Unknown as unknown:
        yield Difference(path, "unreadable", str(unknown), "")
        return
    if kind != theirs.type.type:
        yield Difference(path, "type", _type(kind), _type(theirs.type.type))
    dims = _dims(ours.shape)
    if dims != theirs.dims:
        yield Difference(path, "extents", extents(dims), extents(theirs.dims))
    if not same(ours.value, theirs.value):
        yield Difference(path, "value", shown(ours.value), shown(theirs.value))


def _dims(shape: Json) -> tuple[int, ...] | None:
    if not isinstance(shape, dict) or shape.get("class") == "H5S_NULL":
        return None
    dims = shape.get("dims")
    return tuple(int(str(each)) for each in dims) if isinstance(dims, list) else ()


def _most(maxdims: tuple[int | None, ...] | None, dims: tuple[int, ...]) -> tuple[int | None, ...]:
    return dims if maxdims is None else maxdims


def _type(kind: Type) -> str:
    match kind:
        case Number():
            return kind.base
        case Enum() | Array():
            return shown(to_json(kind))
        case _:
            return shown(to_json(kind))
