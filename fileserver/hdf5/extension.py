"""A domain that files are to continue along a dimension: what it has, and what it will be. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from fileserver.hdf5 import stretches
from fileserver.hdf5.alike import same_fill
from fileserver.hdf5.carrying import swapped
from fileserver.hdf5.compare import Depth, differences
from fileserver.hdf5.declared import Declared, Unknown, declared
from fileserver.hdf5.differing import Difference
from fileserver.hdf5.dimension import Misfit
from fileserver.hdf5.files import Files
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.joined import Looked
from fileserver.hdf5.joint import Joint
from fileserver.hdf5.model import DEFLATE, SHUFFLE, Facts, Trouble
from fileserver.hdf5.routes import Extents, Plan, Route
from fileserver.hdf5.survey import Planned
from fileserver.hdf5.types import Sequenced, Text, size
from fileserver.hdf5.typing_rules import Typed
from fileserver.together import side_by_side

_WIDTH: Final = 4
_LEVEL: Final = 4  # of gzip, where the domain does not say


@dataclass(frozen=True, slots=True)
class Extension:
    """A domain, and the files that come behind what it has."""

    old: str
    """Its root now."""
    state: str
    """Changes if what is joined changes."""
    joints: Sequence[Joint]
    there: Mapping[str, Declared]
    """The datasets that are joined, as the domain has them."""
    known: Mapping[str, str]
    """Ids of all objects by their paths."""
    troubles: Sequence[Trouble]
    """What the first file has otherwise than the domain."""


async def measure(files: Files, looked: Looked, connection: Connection, path: str, root: str) -> Extension:
    """Measure the domain at `path`, which is flushed, by files that fit each other.

    Raises:
        Misfit: they cannot continue what the domain has.
    """
    objects = Objects(connection, path, root)
    known = await _walk(objects, root)
    found, there = await _joints(looked, objects, known, path)
    async with files.open(0) as source:
        without = frozenset(there)
        told = [each async for each in differences(source, objects, root, Depth.FULL, without=without)]
    troubles = [trouble for each in told if (trouble := _trouble(each, without)) is not None]
    return Extension(root, _state(there), found, there, known, tuple(troubles))


async def need_along(looked: Looked, connection: Connection, path: str, root: str, dimension: str) -> None:
    """Raise Misfit if the domain at `path` is not what a file that it was joined of could continue."""
    objects = Objects(connection, path, root)
    try:
        await _joints(looked, objects, await _walk(objects, root), path)
    except Misfit as error:
        msg = f"{show(path)} has it already, and was not joined along {dimension}: {error}"
        raise Misfit(msg, 0) from error


async def _joints(
    looked: Looked, objects: Objects, known: Mapping[str, str], path: str
) -> tuple[list[Joint], dict[str, Declared]]:
    """The datasets that files continue, and as the domain has them; raises Misfit."""
    one = looked.first
    shares = [one.shares, *(each.shares for each in looked.others)]
    planned = {each.node.address: each for each in one.survey.datasets}
    found, there = [], dict[str, Declared]()
    for i, lying in enumerate(one.joined):
        first = planned[lying.node.address]
        has = await _dataset(objects, known, first.node.path, show(path))
        there[first.node.path] = has
        mine = tuple(each[i] for each in shares)
        how = _continued(first, lying.axis, has, sum(each.extent for each in mine), show(path))
        old = (has.dims or ())[lying.axis]
        found.append(Joint(replace(first, plan=how), lying.axis, mine, old))
    return found, there


async def still(made: Extension, connection: Connection, path: str) -> bool:
    """Whether the domain has what it had, in the datasets that are joined."""
    objects = Objects(connection, path, made.old)
    now = {name: await declared(objects, each.id) for name, each in made.there.items()}
    return _state(now) == made.state


def names(made: Extension, root: str) -> dict[str, str]:
    """Ids of the objects of the extended domain, by their paths."""
    return {path: swapped(each.encode(), old=made.old, new=root).decode() for path, each in made.known.items()}


def every(has: Declared) -> Iterator[stretches.Block]:
    """All blocks of a dataset of a domain."""
    return stretches.blocks(has.dims or (), stretches.step_of(facts_of(has), stretches.WHOLE))


def facts_of(has: Declared) -> Facts:
    """A dataset of a domain as one of a file."""
    assert has.type is not None, "a dataset has one"
    chunk = has.storage.chunk if has.storage else None
    return Facts(Typed(has.type.type, exact=True), size(has.type.type), has.dims, has.maxdims, "chunked", chunk=chunk)


async def _walk(objects: Objects, root: str) -> dict[str, str]:
    """Ids of all objects of a domain by the paths that lead to them, if not in a circle."""
    found, todo, seen = dict[str, str](), [("/", root)], {root}
    while todo:
        groups, todo = todo, []
        told: dict[str, Declared] = {}

        async def ask(group: tuple[str, str], into: dict[str, Declared] = told) -> None:
            into[group[1]] = await declared(objects, group[1], attributes=False)

        await side_by_side(groups, ask, _WIDTH)
        for path, group in groups:
            found[path] = group
            for link in told[group].links:
                if link.kind != "hard":
                    continue
                at = f"{path.rstrip('/')}/{link.name}"
                found[at] = link.target
                if link.target.startswith("g") and link.target not in seen:
                    seen.add(link.target)
                    todo.append((at, link.target))
    return found


async def _dataset(objects: Objects, names: Mapping[str, str], path: str, domain: str) -> Declared:
    """A dataset of a domain by its path; raises Misfit."""
    if not names.get(path, "").startswith("d"):
        msg = f"{domain} has no dataset {path} that it could continue"
        raise Misfit(msg, 0)
    try:
        return await declared(objects, names[path], attributes=False)
    except Unknown as error:
        msg = f"{path} of {domain} cannot be continued: {error}"
        raise Misfit(msg, 0) from None


def _continued(first: Planned, axis: int, has: Declared, more: int, domain: str) -> Plan:
    """How the whole is kept: as the domain keeps what it has; raises Misfit."""
    facts, dims = first.facts, has.dims or ()
    why = _unlike(facts, axis, has)
    if why:
        msg = f"{first.node.path} cannot continue that of {domain}: {why}"
        raise Misfit(msg, 0)
    assert has.storage is not None, "a dataset has a layout"
    level = next((each.level or _LEVEL for each in has.storage.filters if each.number == DEFLATE), None)
    shuffle = any(each.number == SHUFFLE for each in has.storage.filters)
    extents = tuple(extent + more * (i == axis) for i, extent in enumerate(dims))
    most = tuple(None if i == axis else each for i, each in enumerate(has.maxdims or dims))
    how = Plan(Route.PLACE, "as the domain has it", has.storage.chunk, True, level, shuffle)
    return replace(how, whole=Extents(extents, most))


def _unlike(facts: Facts, axis: int, has: Declared) -> str:  # noqa: PLR0911 -- one a reason
    dims, storage = has.dims or (), has.storage
    if has.type is None or has.type.type != facts.typed.stored:
        return "its elements are of another type"
    if len(dims) != len(facts.dims or ()):
        return f"it has {len(facts.dims or ())} dimensions, not {len(dims)}"
    for i, (a, b) in enumerate(zip(dims, facts.dims or (), strict=True)):
        if i != axis and a != b:
            return f"its dimension {i} has {b} elements, not {a}"
    if storage is None or storage.layout != "H5D_CHUNKED":
        return "what is there is not kept in chunks of its own, and so cannot grow: use --overwrite with all files"
    if not same_fill(facts.fill, storage.fill) or facts.fill_unheld:
        return "it has another fill value"
    numbers = [each.number for each in storage.filters]
    if numbers not in ([], [DEFLATE], [SHUFFLE, DEFLATE]):
        return "what is there is compressed in a way that is not written here: use --overwrite with all files"
    if facts.item is None and not isinstance(facts.typed.stored, Text | Sequenced) and dims[axis] % storage.chunk[axis]:
        return "elements of that type cannot be taken out of the chunk that is not full: use --overwrite with all files"
    return ""


def extended(data: bytes, joint: Joint) -> bytes:
    """The description of a dataset with the extents of the whole."""
    whole = joint.planned.plan.whole
    assert whole is not None, "it is joined"
    body = json.loads(data)
    most = ["H5S_UNLIMITED" if each is None else each for each in whole.maxdims]
    body["shape"] = {**body["shape"], "dims": list(whole.dims), "maxdims": most}
    return json.dumps(body).encode()


def _state(there: Mapping[str, Declared]) -> str:
    found = [(path, each.id, each.dims, each.storage) for path, each in sorted(there.items())]
    return sha256(repr(found).encode()).hexdigest()


def _trouble(each: Difference, joined_: frozenset[str]) -> Trouble | None:
    if each.path in joined_:
        return None  # said before, if it matters
    here, there = each.left or "not there", each.right or "none"
    if "/@" in each.path or each.what.startswith(("order", "limits")):
        return Trouble(each.path, "mapped", f"{each.what}: in this file {here}, and the domain keeps its own: {there}")
    return Trouble(each.path, "refused", f"{each.what}: in this file {here}, and the domain keeps its own: {there}")
