"""Whether files can be joined along a dimension: each against the first of them. Reads no data that are joined.

A dataset that lies along the dimension has to be there in every file, of the same type and with the same other extents:
else the file does not fit, and nothing is joined. Everything else is the first file's. What another file has otherwise
is told of it: attributes as mapped (they are the first file's now), other objects as refused, for they stay behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Final

import h5py

from fileserver.hdf5 import ids, read, stretches
from fileserver.hdf5.aggregate import agrees
from fileserver.hdf5.alike import same
from fileserver.hdf5.dimension import Along, Misfit, along
from fileserver.hdf5.elements import Pointing
from fileserver.hdf5.model import Attribute, Facts, Node, Trouble
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.routes import Means, Route
from fileserver.hdf5.source import Source
from fileserver.hdf5.survey import Planned, Survey, survey
from fileserver.hdf5.typing_rules import NotHeld

_ANY: Final = ids.root_id("names of objects by their paths")
_SHOWN: Final = 60  # characters of a value
_RAW: Final = frozenset({Route.PLACE, Route.MERGE, Route.NONE})
_FIRST: Final = "the domain has that of the first file"


@dataclass(frozen=True, slots=True)
class Form:
    """What decides whether chunks of a file can be chunks of the whole."""

    chunk: tuple[int, ...] | None
    """None if the file has no chunks that HSDS reads as they are."""
    compressed: bool
    shuffled: bool
    reason: str
    """Why so, as `fileserver.hdf5.routes` says."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a file has of a dataset that is joined: elements along the dimension, and bytes of data."""

    extent: int
    stored: int
    form: Form


@dataclass(frozen=True, slots=True)
class Fitted:
    """A file that fits: its shares, in the order of `First.joined`, and what of it stays behind."""

    shares: tuple[Share, ...]
    troubles: tuple[Trouble, ...]


@dataclass(frozen=True, slots=True)
class First:
    """The file whose objects those of the domain are."""

    survey: Survey
    joined: tuple[Along, ...]
    facts: Mapping[str, Facts]
    """Of every dataset, by its path."""
    attributes: Mapping[str, Sequence[Attribute]]
    """Of every object, by its path."""
    digests: Mapping[str, bytes]
    """Of the data of every dataset that is not joined."""
    shares: tuple[Share, ...]

    @property
    def others(self) -> Iterator[Node]:
        """Objects that are not joined, and that HSDS can hold."""
        joined = {each.node.address for each in self.joined}
        for node in self.survey.outline.nodes.values():
            if node.address not in joined and node.address not in self.survey.refused:
                yield node


async def first(source: Source, dimension: str) -> First:
    """The first file, which all others are measured by.

    Raises:
        Misfit: nothing in it lies along the dimension, or it cannot be joined with anything.
    """
    found = await survey(source, Means())
    lying, attributes = await source.run(partial(_described, found=found, dimension=dimension))
    planned = {each.node.address: each for each in found.datasets}
    for each in lying.values():
        if each.node.address not in planned:
            raise _unheld(found, each.node.path)
        _need(planned[each.node.address])
    joined = tuple(each for each in lying.values())
    still = [(each, each) for each in found.datasets if each.node.address not in lying]
    digests, _ = await _digests(source, still, found)
    return First(
        found,
        joined,
        {each.node.path: each.facts for each in found.datasets},
        attributes,
        digests,
        tuple(_share(planned[each.node.address], each) for each in joined),
    )


async def fitted(source: Source, one: First, dimension: str) -> Fitted:
    """Another file, measured by the first.

    Raises:
        Misfit: it cannot be joined with it.
    """
    found = await survey(source, Means())
    lying, attributes = await source.run(partial(_described, found=found, dimension=dimension))
    planned = {each.node.path: each for each in found.datasets}
    here = {each.node.path: each for each in lying.values()}
    shares = tuple(_continued(one, each, here, planned, found, dimension) for each in one.joined)
    known = {each.node.path for each in one.joined}
    for path in here:
        if path not in known:
            msg = f"{path} lies along {dimension}, and is not there in the first file"
            raise Misfit(msg)
    troubles = list(_otherwise(one, found, planned))
    differing = {each.path for each in troubles}
    models = ((each, planned.get(each.node.path)) for each in one.survey.datasets if each.node.path in one.digests)
    still = [(model, each) for model, each in models if each is not None and each.node.path not in differing]
    digests, unread = await _digests(source, still, found)
    troubles += unread
    for path, digest in digests.items():
        if digest != one.digests[path]:
            troubles.append(Trouble(path, "refused", f"its data are other than in the first file: {_FIRST}"))
    troubles += _attributes(one.attributes, attributes)
    return Fitted(shares, tuple(troubles))


def _continued(
    one: First,
    wanted: Along,
    here: Mapping[str, Along],
    planned: Mapping[str, Planned],
    found: Survey,
    dimension: str,
) -> Share:
    path = wanted.node.path
    each = here.get(path)
    if each is None and path not in {node.path for node in found.outline.nodes.values()}:
        msg = f"there is no dataset {path}, which lies along {dimension} in the first file"
        raise Misfit(msg)
    if each is None or each.axis != wanted.axis:
        msg = f"{path} does not lie along {dimension} with its dimension {wanted.axis}, as it does in the first file"
        raise Misfit(msg)
    if path not in planned:
        raise _unheld(found, path)
    why = agrees(one.facts[path], planned[path].facts, wanted.axis)
    if why:
        msg = f"{path} cannot continue that of the first file: {why}"
        raise Misfit(msg)
    _need(planned[path])
    return _share(planned[path], each)


def _need(planned: Planned) -> None:
    if planned.facts.segments or planned.facts.sources:
        msg = f"the data of {planned.node.path} lie in other files, and such are not joined"
        raise Misfit(msg)


def _unheld(found: Survey, path: str) -> Misfit:
    why = next((each.reason for each in found.troubles if each.path == path), "HSDS cannot hold it")
    return Misfit(f"{path} cannot be joined: {why}")


def _share(planned: Planned, lying: Along) -> Share:
    facts, how = planned.facts, planned.plan
    raw = how.route in _RAW and facts.layout == "chunked" and not facts.fill_unheld
    form = Form(facts.chunk if raw else None, how.level is not None, how.shuffle, how.reason)
    return Share(lying.extent, facts.stored, form)


def _described(
    file: h5py.File, found: Survey, dimension: str
) -> tuple[dict[int, Along], dict[str, Sequence[Attribute]]]:
    """What lies along the dimension, and all attributes."""
    try:
        lying = along(file, found.outline.nodes, dimension)
    except BROKEN as error:
        msg = f"it cannot be read which datasets lie along {dimension}: {error}"
        raise Misfit(msg) from None
    to = read.pointing(file, _names(found))
    attributes: dict[str, Sequence[Attribute]] = {}
    for node in found.outline.nodes.values():
        if node.address not in found.refused:
            attributes[node.path] = _of(file, node, found, to)
    return lying, attributes


def _of(file: h5py.File, node: Node, found: Survey, to: Pointing) -> Sequence[Attribute]:
    try:
        match node.kind:
            case "g":
                return read.group(file, found.outline, node, to, []).attributes
            case "t":
                return read.datatype(file, node, to, []).attributes
            case _:
                return read.dataset(file, node, to, []).attributes
    except (NotHeld, *BROKEN):
        return ()  # said when it is loaded


def _names(found: Survey) -> dict[int, str]:
    """Ids that are the same for objects of the same path, so that references can be compared."""
    return {node.address: ids.object_id(_ANY, node.kind, node.path) for node in found.outline.nodes.values()}


async def _digests(
    source: Source, datasets: Sequence[tuple[Planned, Planned]], found: Survey
) -> tuple[dict[str, bytes], list[Trouble]]:
    """Digests of all data of some datasets, and those that cannot be read; in the blocks of the first file's."""
    digests, troubles = dict[str, bytes](), list[Trouble]()
    for model, planned in datasets:
        digest = sha256()
        try:
            dims, names = planned.facts.dims, _names(found)
            if dims is not None and 0 not in dims:
                async with stretches.contents(source, planned.node, planned.facts) as held:
                    for block in stretches.blocks(dims, stretches.step_of(model.facts, stretches.WHOLE)):
                        digest.update(await held.stored(block, names))
        except (NotHeld, *BROKEN) as error:
            troubles.append(Trouble(planned.node.path, "failed", f"its data cannot be read: {error}"))
        else:
            digests[planned.node.path] = digest.digest()
    return digests, troubles


def _otherwise(one: First, found: Survey, planned: Mapping[str, Planned]) -> Iterator[Trouble]:
    """Objects beside those that are joined which only one of the files has, or which are of another kind."""
    here = {node.path: node for node in found.outline.nodes.values()}
    for node in one.others:
        other = here.get(node.path)
        if other is None:
            yield Trouble(node.path, "refused", f"it is missing in this file: {_FIRST}")
        elif other.kind != node.kind:
            yield Trouble(node.path, "refused", f"it is of another kind than in the first file: {_FIRST}")
        elif node.kind == "d" and (why := _unlike(one.facts[node.path], planned.get(node.path))):
            yield Trouble(node.path, "refused", f"{why}: {_FIRST}")
    known = {node.path for node in one.survey.outline.nodes.values()}
    for path in here.keys() - known:
        yield Trouble(path, "refused", "it is not there in the first file, so that the domain has no place for it")


def _unlike(wanted: Facts, found: Planned | None) -> str:
    if found is None:
        return "HSDS cannot hold it as it is in this file"
    if wanted.typed.stored != found.facts.typed.stored:
        return "its elements are of another type than in the first file"
    if bool(found.facts.segments) != bool(wanted.segments):
        return "only in one of the two files its data lie in other files"
    if wanted.dims != found.facts.dims:
        return f"its extents are {_dims(found.facts.dims)}, in the first file {_dims(wanted.dims)}"
    return ""


def _dims(dims: tuple[int, ...] | None) -> str:
    return "none" if dims is None else " x ".join(map(str, dims)) or "those of a single element"


def _attributes(
    wanted: Mapping[str, Sequence[Attribute]], found: Mapping[str, Sequence[Attribute]]
) -> Iterator[Trouble]:
    for path, ours in wanted.items():
        if path not in found:
            continue
        here = {each.name: each for each in found[path]}
        for each in ours:
            at, other = f"{path.rstrip('/')}/@{each.name}", here.pop(each.name, None)
            if other is None:
                yield Trouble(at, "mapped", f"it is missing in this file: {_FIRST}, {_shown(each)}")
            elif not same([each.type, each.shape, each.value], [other.type, other.shape, other.value]):
                yield Trouble(at, "mapped", f"in this file it is {_shown(other)}: {_FIRST}, {_shown(each)}")
        for name, other in here.items():
            at = f"{path.rstrip('/')}/@{name}"
            yield Trouble(at, "mapped", f"{_shown(other)} is in this file alone: the first has no such attribute")


def _shown(each: Attribute) -> str:
    text = repr(each.value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
