"""The JSON objects by which a domain describes its groups, datasets, types and itself.

The form is schema 2 as HSDS 1.0.2 stores it: `layout` lies inside `creationProperties`; links and attributes are kept
in the order of their `created`, so that each gets a microsecond of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fileserver.hdf5.attributes import shape_json
from fileserver.hdf5.model import Attribute, Dataset, Datatype, Facts, Group, Link
from fileserver.hdf5.routes import Extents, Plan
from fileserver.hdf5.types import Json, to_json
from fileserver.hdf5.typing_rules import Typed

_TICK: Final = 1e-6
_RIGHTS: Final = ("create", "read", "update", "delete", "readACL", "updateACL")


@dataclass(frozen=True, slots=True)
class Frame:
    """What all objects of a domain share: its root, and the seconds since 1970 at which it was made."""

    root: str
    created: float
    ids: Mapping[int, str]
    """By address in the file: all objects that arrive."""


def group_json(frame: Frame, group: Group) -> bytes:
    """A group; hard links to objects that do not arrive are left out."""
    links = {
        link.name: body | {"created": frame.created + i * _TICK}
        for i, link in enumerate(group.links)
        if (body := _link(frame, link)) is not None
    }
    body = _head(frame, group.node.address, group.attributes)
    body |= {"links": links, "creationProperties": _order(ordered=group.ordered)}
    return _dumped(body)


def dataset_json(frame: Frame, dataset: Dataset, plan: Plan) -> bytes:
    """A dataset."""
    facts = dataset.facts
    body = _head(frame, dataset.node.address, dataset.attributes)
    body |= {
        "type": type_json(frame, facts.typed),
        "shape": _space(plan.whole or facts),
        "creationProperties": _properties(facts, plan) | _order(ordered=dataset.ordered),
    }
    return _dumped(body)


def datatype_json(frame: Frame, datatype: Datatype) -> bytes:
    """A committed type."""
    body = _head(frame, datatype.node.address, datatype.attributes)
    return _dumped(body | {"type": to_json(datatype.typed.stored)})


def domain_json(root: str, owner: str, created: float, acls: Mapping[str, Mapping[str, bool]] | None = None) -> bytes:
    """The domain itself, which publishes all of this when it is written; the owner has all rights."""
    rights: dict[str, Json] = {user: dict(given) for user, given in (acls or {}).items()}
    rights[owner] = dict.fromkeys(_RIGHTS, True)
    return _dumped({"root": root, "owner": owner, "acls": rights, "created": created, "lastModified": created})


def type_json(frame: Frame, typed: Typed) -> dict[str, Json]:
    """A type, with the id of the committed type that it refers to, if that arrives."""
    body = to_json(typed.stored)
    committed = frame.ids.get(typed.committed) if typed.committed is not None else None
    return body | ({"id": committed} if committed else {})


def _head(frame: Frame, address: int, attributes: Sequence[Attribute]) -> dict[str, Json]:
    return {
        "id": frame.ids[address],
        "root": frame.root,
        "created": frame.created,
        "lastModified": frame.created,
        "attributes": {each.name: _attribute(frame, each, i) for i, each in enumerate(attributes)},
    }


def _attribute(frame: Frame, attribute: Attribute, place: int) -> dict[str, Json]:
    body: dict[str, Json] = {"type": attribute.type, "shape": attribute.shape, "value": attribute.value}
    body["created"] = frame.created + place * _TICK
    return body


def _link(frame: Frame, link: Link) -> dict[str, Json] | None:
    match link.kind:
        case "soft":
            return {"class": "H5L_TYPE_SOFT", "h5path": link.target}
        case "external":
            return {"class": "H5L_TYPE_EXTERNAL", "h5path": link.target, "h5domain": link.file}
        case "hard":
            found = frame.ids.get(link.target) if isinstance(link.target, int) else None
            return {"class": "H5L_TYPE_HARD", "id": found} if found else None


def _space(extents: Facts | Extents) -> dict[str, Json]:
    body = shape_json(extents.dims)
    if extents.maxdims is not None:
        body["maxdims"] = ["H5S_UNLIMITED" if most is None else most for most in extents.maxdims]
    return body


def _properties(facts: Facts, plan: Plan) -> dict[str, Json]:
    chunked = plan.chunked and bool(plan.chunk)
    layout: dict[str, Json] = (
        {"class": "H5D_CHUNKED", "dims": list(plan.chunk)} if chunked else {"class": "H5D_CONTIGUOUS"}
    )
    body: dict[str, Json] = {"layout": plan.link or layout}
    if plan.filters:
        body["filters"] = plan.filters
    if facts.fill is not None:
        body["fillValue"] = facts.fill
    return body


def _order(*, ordered: bool) -> dict[str, Json]:
    return {"CreateOrder": 1} if ordered else {}


def _dumped(body: Mapping[str, Json]) -> bytes:
    return json.dumps(body).encode()
