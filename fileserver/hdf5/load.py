"""One HDF5 file into the bucket of an HSDS server: chunks first, then what describes them; unseen until published.

An object that HSDS cannot hold, or that cannot be read, stays behind with a reason, and the rest goes on. References
and links to it lead nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Final, Literal

import h5py
import numpy as np

from fileserver.hdf5 import describe, grid, ids, links, read, transcode
from fileserver.hdf5.beside import STAND_IN, Assembly, assembled, external_bytes
from fileserver.hdf5.bodies import body
from fileserver.hdf5.model import ChunkTable, Facts, Node, Outline, Trouble
from fileserver.hdf5.outline import BROKEN, outline
from fileserver.hdf5.routes import Means, Plan, Route, plan
from fileserver.hdf5.source import Source
from fileserver.hdf5.storage import Bucket, Piece, Written
from fileserver.hdf5.typing_rules import NotHeld
from fileserver.together import side_by_side
from planes.bulk import settle
from planes.plane import MIB, Plane

_BATCH: Final = 64  # objects that one trip to the file's thread describes
_SMALL: Final = 1 * MIB  # datasets up to this size are placed together
_DECODED: Final = 8 * MIB  # bytes of chunks that one trip decodes


@dataclass(frozen=True, slots=True)
class Planned:
    """A dataset and how it travels."""

    node: Node
    facts: Facts
    plan: Plan


@dataclass(frozen=True, slots=True)
class Survey:
    """All objects of a file, how each dataset travels, and what stays behind."""

    outline: Outline
    datasets: tuple[Planned, ...]
    troubles: tuple[Trouble, ...]
    refused: frozenset[int]
    """Addresses of objects that stay behind."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in the bucket now: publish `root` to make it seen."""

    root: str
    created: float
    survey: Survey
    troubles: tuple[Trouble, ...]
    written: Written
    ids: Mapping[int, str] = field(default_factory=dict)
    """By address in the file: all objects that have arrived."""

    @property
    def whole(self) -> bool:
        """Whether everything arrived, if some of it mapped."""
        return all(each.what == "mapped" for each in self.troubles)


async def survey(source: Source, means: Means) -> Survey:
    """Look at all objects of a file; writes nothing."""
    return await source.run(partial(_survey, means=means))


async def load(
    source: Source, bucket: Plane, name: str, created: float, *, link: str = "", found: Survey | None = None
) -> Loaded:
    """Write a file's objects into a bucket; `name` is a text that no other load has, `created` seconds since 1970.

    They are durable when this returns, also in a bucket that is open in bulk (`planes.bulk`), which is faster. With
    the same `name` and `created` it goes on where an earlier attempt was stopped. With `link`, which is the file as
    the server calls it (`links.uri`), data that the server can read there are not written. What is `found` already is
    not looked for, and travels as that says.

    Raises:
        Changed: the source is not the version that was opened any more.
    """
    found = found or await survey(source, Means(link=bool(link)))
    root = ids.root_id(name)
    to = Bucket(bucket, root, name)
    await to.resume()
    if link:
        keep = partial(links.put, to, root, created)
        datasets, more = await links.linked(source, found.datasets, link, root, keep)
        found = replace(found, datasets=datasets, troubles=(*found.troubles, *more))
    job = _Load(source, to, describe.Frame(root, created, names(found, root)), found, list(found.troubles))
    await job.run()
    await source.unchanged()
    await settle(bucket)
    return Loaded(root, created, found, tuple(job.troubles), to.written, job.frame.ids)


def names(found: Survey, root: str) -> dict[int, str]:
    """Ids of all objects that can arrive, by their address in the file."""
    return {
        node.address: root if node is found.outline.root else ids.object_id(root, node.kind, str(node.address))
        for node in found.outline.nodes.values()
        if node.address not in found.refused
    }


def _survey(file: h5py.File, means: Means) -> Survey:
    seen = outline(file)
    datasets, troubles, refused = [], list(seen.troubles), set()
    for node in seen.nodes.values():
        try:
            if node.kind == "d":
                facts = read.facts(transcode.dataset(file, node.raw))
                datasets.append(Planned(node, facts, plan(facts, means)))
            elif node.kind == "t":
                read.datatype(file, node, read.pointing(file, {}), [])
        except NotHeld as error:
            troubles.append(Trouble(node.path, "refused", str(error)))
            refused.add(node.address)
        except BROKEN as error:
            troubles.append(Trouble(node.path, "failed", f"it cannot be read: {error}"))
            refused.add(node.address)
    return Survey(seen, tuple(datasets), tuple(troubles), frozenset(refused))


@dataclass(slots=True)
class _Load:
    source: Source
    bucket: Bucket
    frame: describe.Frame
    survey: Survey
    troubles: list[Trouble]
    lost: set[int] = field(default_factory=set)

    async def run(self) -> None:
        small = [p for p in self.survey.datasets if p.plan.route is Route.PLACE and p.facts.stored <= _SMALL]
        left = iter(small)
        while batch := list(islice(left, _BATCH)):
            await self._place(batch)
        alone = {id(planned) for planned in small}
        for planned in self.survey.datasets:
            if id(planned) not in alone:
                with self._losing(planned.node):
                    await self._data(planned)
        there = {address: name for address, name in self.frame.ids.items() if address not in self.lost}
        self.frame = replace(self.frame, ids=there)
        await self._describe()

    @contextmanager
    def _losing(self, node: Node) -> Iterator[None]:
        """What goes wrong with the data of one object leaves that object behind, and no other."""
        try:
            yield
        except NotHeld as error:
            self._lose(node, "refused", str(error))
        except BROKEN as error:
            self._lose(node, "failed", f"its data cannot be read: {error}")

    def _lose(self, node: Node, what: Literal["refused", "failed"], reason: str) -> None:
        self.troubles.append(Trouble(node.path, what, reason))
        self.lost.add(node.address)

    async def _data(self, planned: Planned) -> None:
        key = partial(ids.chunk_key, self.frame.ids[planned.node.address], self.frame.root)
        facts, how = planned.facts, planned.plan
        match how.route:
            case Route.SLAB:
                offset, item = facts.offset or 0, facts.item or 1
                slabs = (
                    grid.slabs(facts.dims or (), how.chunk, item)
                    if facts.dims
                    else iter([grid.Slab((), 0, item, item)])
                )
                if facts.segments:
                    await side_by_side(slabs, lambda slab: self._external(facts, key(slab.place), slab), 2)
                    return
                pieces = (Piece(key(s.place), offset + s.start, offset + s.end, s.full) for s in slabs)
                await self.bucket.place(self.source, pieces)
            case Route.PLACE:
                await self._place([planned])
            case Route.TRANSCODE if facts.sources:
                await self._virtual(planned)
            case Route.TRANSCODE | Route.MERGE:
                await self._transcode(planned, grid.places(facts.dims or (), how.chunk))
            case _:
                pass

    async def _external(self, facts: Facts, key: str, slab: grid.Slab) -> None:
        data = await external_bytes(self.source, facts.segments, slab.start, slab.end)
        await self.bucket.put(key, data.ljust(slab.full, b"\0"))

    async def _virtual(self, planned: Planned) -> None:
        async with assembled(self.source, planned.node.raw) as made:
            await self._transcode(planned, grid.places(planned.facts.dims or (), planned.plan.chunk), made)

    async def _place(self, batch: Sequence[Planned]) -> None:
        """Raw chunks of datasets, then those that have to be decoded all the same."""
        tables = await self.source.run(partial(self._tables, batch=batch))
        largest = max((int(table.rows["size"].max()) for _, table in tables if len(table.rows)), default=0)
        raw = chain.from_iterable(self._raw(p, table) for p, table in tables)
        await self.bucket.place(self.source, raw, largest)
        for planned, table in tables:
            skipped = np.flatnonzero(table.rows["mask"] != 0)
            again = [tuple(place) for place in table.places[skipped].tolist()]
            if planned.facts.fill_unheld:
                there = {tuple(place) for place in table.places.tolist()}
                every = grid.places(planned.facts.dims or (), planned.plan.chunk)
                again.extend(place for place in every if place not in there)
                self.troubles.append(Trouble(planned.node.path, "mapped", _FILL))
            if again:
                with self._losing(planned.node):
                    await self._transcode(planned, iter(again))

    def _tables(self, file: h5py.File, batch: Sequence[Planned]) -> list[tuple[Planned, ChunkTable]]:
        found = []
        for planned in batch:
            with self._losing(planned.node):
                table = read.chunk_table(file, planned.node, planned.plan.chunk)
                ends = table.rows["offset"] + table.rows["size"]
                if len(ends) and int(ends.max()) > self.source.info.size:
                    msg = "a chunk reaches past the end of the file: its index of chunks is damaged"
                    raise OSError(msg)  # as the library says of damage that it finds
                found.append((planned, table))
        return found

    def _raw(self, planned: Planned, table: ChunkTable) -> Iterator[Piece]:
        """Chunks that went through all filters, in the order in which they lie in the file."""
        key = partial(ids.chunk_key, self.frame.ids[planned.node.address], self.frame.root)
        raw = np.flatnonzero(table.rows["mask"] == 0)
        for i in raw[np.argsort(table.rows["offset"][raw], kind="stable")]:
            start, held = int(table.rows["offset"][i]), int(table.rows["size"][i])
            yield Piece(key(table.places[i].tolist()), start, start + held - planned.plan.trailer)

    async def _transcode(self, planned: Planned, places: Iterator[grid.Dims], made: Assembly | None = None) -> None:
        facts, how = planned.facts, planned.plan
        size = max(1, math.prod(how.chunk) * (facts.item or 64))
        key = partial(ids.chunk_key, self.frame.ids[planned.node.address], self.frame.root)
        todo = (place for place in places if not self.bucket.has(key(place)))
        while batch := list(islice(todo, max(1, _DECODED // size))):
            decoded = await self.source.run(
                partial(_decode, planned=planned, places=batch, names=self.frame.ids, made=made)
            )
            pairs = zip(batch, decoded, strict=True)
            await side_by_side(pairs, lambda pair: self.bucket.put(key(pair[0]), pair[1]), 4)

    async def _describe(self) -> None:
        """Datasets and types first, then groups; the root, which is the first node, is the last object."""
        nodes = [n for n in self.survey.outline.nodes.values() if n.address in self.frame.ids]
        plans = {planned.node.address: planned.plan for planned in self.survey.datasets}
        root = self.survey.outline.root
        left = iter(sorted(nodes, key=lambda node: (node.kind == "g", node is root)))
        while batch := list(islice(left, _BATCH)):
            bodies = await self.source.run(partial(self._bodies, nodes=batch, plans=plans))
            await side_by_side(bodies, lambda body: self.bucket.put(*body), 4)

    def _bodies(self, file: h5py.File, nodes: Sequence[Node], plans: Mapping[int, Plan]) -> list[tuple[str, bytes]]:
        to = read.pointing(file, self.frame.ids)
        key = partial(ids.key, root=self.frame.root)
        found = []
        for node in nodes:
            data = body(file, self.frame, self.survey.outline, node, plans.get(node.address), to, self.troubles)
            found.append((key(self.frame.ids[node.address]), data))
        return found


_FILL: Final = "HSDS holds no fill value of this type: chunks that were never written are written out"


def _decode(
    file: h5py.File, planned: Planned, places: Sequence[grid.Dims], names: Mapping[int, str], made: Assembly | None
) -> list[bytes]:
    """Chunks of a dataset; of a virtual one from the stand-in that was `made` for it."""
    place = transcode.dataset(made.made[0], STAND_IN) if made else transcode.dataset(file, planned.node.raw)
    to = read.pointing(file, names)
    return [transcode.chunk_bytes(place, planned.facts, planned.plan, at, to) for at in places]
