"""One HDF5 file into a domain by requests to the server, for who may not write its bucket.

Objects come first, many to a request, then their data in large blocks, then groups with their links: nothing that
stays behind is linked to. Ids follow from the load, so that everything may be sent twice; what the server has taken is
not stored before a flush.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

import h5py

from fileserver.hdf5 import at_hand, blocks, describe, ids, read, stretches
from fileserver.hdf5.bodies import body
from fileserver.hdf5.hsds.connection import JSON, Connection
from fileserver.hdf5.hsds.objects import Kind, Objects, kind_of, make_domain
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.making import Lost, losing
from fileserver.hdf5.model import Node, Trouble
from fileserver.hdf5.routes import Means, Route
from fileserver.hdf5.source import Source
from fileserver.hdf5.storage import Written
from fileserver.hdf5.stretches import Block
from fileserver.hdf5.survey import Planned, Survey, names, survey
from fileserver.together import side_by_side
from planes.errors import Refused

_BATCH: Final = 100  # objects that one trip to the file's thread describes
_WIDTH: Final = 3  # blocks of one dataset at once


async def load(
    source: Source, connection: Connection, path: str, name: str, created: float, *, found: Survey | None = None
) -> Loaded:
    """Make a domain at `path` of a file; `name` is a text that no other load has, `created` seconds since 1970.

    With the same `name` it may be done again, over what an earlier attempt has left. What is `found` already is not
    looked for, and travels as that says.

    Raises:
        AlreadyExists: another domain is at `path`, or an earlier attempt was stopped while it made this one's root.
        NotFound: its folder is not there.
        Changed: the source is not the version that was opened any more.
    """
    found = found or await survey(source, Means(bucket=False))
    root = ids.root_id(name)
    job = _Load(source, connection, path, describe.Frame(root, created, names(found, root)), found)
    await job.run()
    await source.unchanged()
    return Loaded(root, created, found, tuple(job.troubles), job.written, job.frame.ids)


@dataclass(frozen=True, slots=True)
class _Described:
    node: Node
    body: dict[str, JSON]
    troubles: Sequence[Trouble]


class _Load:
    def __init__(self, source: Source, connection: Connection, path: str, frame: describe.Frame, found: Survey) -> None:
        self.frame = frame
        self.troubles = list(found.troubles)
        self.written = Written()
        self._source = source
        self._connection = connection
        self._path = path
        self._survey = found
        self._objects = Objects(connection, path, frame.root)
        self._fresh = False
        self._lost: dict[int, str] = {}
        self._described_early: dict[int, _Described] = {}
        self._at_hand: at_hand.Held = {}
        self._plans = {planned.node.address: planned.plan for planned in found.datasets}

    async def run(self) -> None:
        outline = self._survey.outline
        nodes = [node for node in outline.nodes.values() if node.address in self.frame.ids and node is not outline.root]
        await self._look_early([outline.root, *nodes])
        properties: Mapping[str, JSON] = {"CreateOrder": 1} if await self._is_ordered(outline.root) else {}
        self._fresh = await make_domain(self._connection, self._path, self.frame.root, properties=properties)
        await self._make([node for node in nodes if node.kind == "t"])
        await self._make([node for node in nodes if node.kind == "d"])
        await side_by_side(list(self._arriving()), self._data, _WIDTH)
        await self._make([node for node in nodes if node.kind == "g"])
        await self._finish_root()

    async def _is_ordered(self, root: Node) -> bool:
        [described] = await self._described([root], [])
        properties = described.body["creationProperties"]
        return isinstance(properties, dict) and "CreateOrder" in properties

    def _arriving(self) -> Iterator[Planned]:
        return (planned for planned in self._survey.datasets if planned.node.address in self.frame.ids)

    async def _look_early(self, nodes: Sequence[Node]) -> None:
        """All that a load of a few objects asks of the file, at once."""
        if len(nodes) <= _BATCH:
            described, self._at_hand = await self._source.run(partial(self._early, nodes=nodes))
            self._described_early = {each.node.address: each for each in described}

    def _early(self, file: h5py.File, nodes: Sequence[Node]) -> tuple[list[_Described], at_hand.Held]:
        small = [each for each in self._arriving() if each.plan.route is not Route.NONE and at_hand.fits(each.facts)]
        wanted = ((each.node, each.facts, partial(blocks.found, file, each)) for each in small)
        return self._bodies(file, nodes), at_hand.decoded(file, wanted, self.frame.ids)

    async def _described(self, nodes: Sequence[Node], troubles: list[Trouble]) -> list[_Described]:
        early = [self._described_early[node.address] for node in nodes if node.address in self._described_early]
        if len(early) < len(nodes):
            early = await self._source.run(partial(self._bodies, nodes=nodes))
        for each in early:
            troubles.extend(each.troubles)
        return early

    def _bodies(self, file: h5py.File, nodes: Sequence[Node]) -> list[_Described]:
        to, outline, found = read.pointing(file, self.frame.ids), self._survey.outline, []
        for node in nodes:
            troubles: list[Trouble] = []
            data = body(file, self.frame, outline, node, self._plans.get(node.address), to, troubles)
            found.append(_Described(node, json.loads(data), troubles))
        return found

    async def _make(self, nodes: Sequence[Node]) -> None:
        """Make objects of one kind; one that the server does not take stays behind, and no other."""
        left = iter(nodes)
        while batch := list(islice(left, _BATCH)):
            described = await self._described(batch, self.troubles)
            kind, items = kind_of(batch[0].kind), [asked(each.body) for each in described]
            try:
                await self._objects.make(kind, items, fresh=self._fresh)
            except Refused:
                for node, item in zip(batch, items, strict=True):
                    await self._make_one(node, kind, item)
            self.written.objects += len(batch)

    async def _make_one(self, node: Node, kind: Kind, item: Mapping[str, JSON]) -> None:
        try:
            await self._objects.make(kind, [item])
        except Refused as error:
            self._lose(node, "refused", f"the server does not take it: {error.message}")

    async def _data(self, planned: Planned) -> None:
        node = planned.node
        if planned.plan.route is Route.NONE:
            return
        with losing(partial(self._lose, node)):
            async with stretches.contents(self._source, node, planned.facts) as data:
                dataset = self.frame.ids[node.address]

                async def send(one: tuple[Block, bytes | None]) -> None:
                    block, values = one
                    if values is None:
                        values = await data.stored(block, self.frame.ids)
                    await self._objects.write(dataset, values, block.slabs)
                    self.written.carried += len(values)

                await side_by_side(await self._blocks(planned), send, _WIDTH)
        if planned.facts.fill_unheld and planned.facts.layout == "chunked":
            self.troubles.append(Trouble(node.path, "mapped", _FILL))
        if lost := self._lost.pop(node.address, ""):
            await self._objects.drop(lost)

    async def _blocks(self, planned: Planned) -> Iterable[tuple[Block, bytes | None]]:
        """The blocks of a dataset, those of a small one with their bytes."""
        if (held := self._at_hand.pop(planned.node.address, None)) is not None:
            return held
        return ((block, None) for block in await blocks.stored(self._source, planned))

    async def _finish_root(self) -> None:
        [described] = await self._described([self._survey.outline.root], self.troubles)
        await finish_root(self._objects, self.frame.root, described.body)

    def _lose(self, node: Node, what: Lost, reason: str) -> None:
        self.troubles.append(Trouble(node.path, what, reason))
        left = dict(self.frame.ids)
        self._lost[node.address] = left.pop(node.address)
        self.frame = replace(self.frame, ids=left)
        self._described_early.clear()  # they may refer to it
        self._at_hand.clear()


_FILL: Final = "HSDS holds no fill value of this type: elements that were never written are written out"


async def finish_root(objects: Objects, root: str, body: Mapping[str, JSON]) -> None:
    """The root group is there already: its links and attributes are what shows everything."""
    if links := body.get("links"):
        await objects.link({root: _dated(links)})
    if attributes := body.get("attributes"):
        await objects.describe({root: _dated(attributes)})


def asked(stored: Mapping[str, JSON]) -> dict[str, JSON]:
    """What is asked of the server to make an object as it would store it."""
    asked = {name: stored[name] for name in ("id", "type", "creationProperties") if name in stored}
    attributes, links, space = stored.get("attributes"), stored.get("links"), stored.get("shape")
    if attributes:
        asked["attributes"] = _dated(attributes)
    if links:
        asked["links"] = _dated(links)
    if isinstance(space, dict):
        match space["class"]:
            case "H5S_NULL":
                asked["shape"] = "H5S_NULL"
            case "H5S_SIMPLE":
                asked["shape"] = space["dims"]
                if "maxdims" in space:
                    asked["maxdims"] = [0 if most == "H5S_UNLIMITED" else most for most in space["maxdims"]]
                _fit(asked, space)
            case _:
                pass
    return asked


def _fit(asked: dict[str, JSON], space: Mapping[str, JSON]) -> None:
    """Make chunks no larger than what they are of can become: the server takes no others."""
    properties = asked["creationProperties"]
    assert isinstance(properties, dict)
    layout, most = properties["layout"], asked.get("maxdims", space["dims"])
    if isinstance(layout, dict) and "dims" in layout:
        assert isinstance(most, list)
        dims = [min(n, end) if end else n for n, end in zip(layout["dims"], most, strict=True)]
        asked["creationProperties"] = {**properties, "layout": {**layout, "dims": dims}}


def _dated(named: JSON) -> dict[str, JSON]:
    """Links or attributes in their order: the server keeps it by their times, and takes no time that is long ago."""
    assert isinstance(named, dict)
    now = time.time()
    return {name: {**one, "created": now + i * 1e-6} for i, (name, one) in enumerate(named.items())}
