"""One HDF5 file into the bucket of an HSDS server: chunks first, then what describes them; unseen until published.

Small files are made in one trip to their thread (`fileserver.hdf5.at_once`), others object by object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Final

import h5py

from fileserver.hdf5 import at_once, blocks, describe, grid, ids, links
from fileserver.hdf5.beside import Assembly, assembled, external_bytes
from fileserver.hdf5.making import Making, decoded_size, slabs
from fileserver.hdf5.model import Facts, Trouble
from fileserver.hdf5.routes import Means, Route
from fileserver.hdf5.source import Source
from fileserver.hdf5.storage import Bucket, Piece, Written
from fileserver.hdf5.survey import Planned, Survey, leaving, look, names, survey
from fileserver.together import side_by_side
from planes.plane import MIB, Plane

_BATCH: Final = 64  # objects that one trip to the file's thread describes
_DECODED: Final = 8 * MIB  # bytes of chunks that one trip decodes


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


async def load(
    source: Source,
    bucket: Plane,
    name: str,
    created: float,
    *,
    link: str = "",
    fresh: bool = False,
    found: Survey | None = None,
    behind: Mapping[str, str] | None = None,
) -> Loaded:
    """Write a file's objects into a bucket; `name` is a text that no other load has, `created` seconds since 1970.

    In a bucket that is open in bulk (`planes.bulk`), which is faster, it has to settle before anything names the root.
    With the same `name` and `created` it goes on where an earlier attempt was stopped; `fresh`: there was none. With
    `link`, which is the file as the server calls it (`links.uri`), data that the server can read there are not written.
    What is `found` already is not looked for, and travels as that says. Datasets that are to stay `behind` are given by
    their paths, with the reasons.

    Raises:
        Changed: the source is not the version that was opened any more.
    """
    root = ids.root_id(name)
    to = Bucket(bucket, root, name)
    if not fresh:
        await to.resume()
    if found is None and (link or behind):
        found = await _found(source, to, created, link, behind or {})
    making, made = await _begin(source, to, created, found)
    if made is None:
        await _Load(source, to, making).run()
    else:
        to.written.kept += made.kept
        await to.put_all(made.chunks, made.bodies)
    await source.unchanged()
    return Loaded(root, created, making.survey, tuple(making.troubles), to.written, making.frame.ids)


async def _found(source: Source, to: Bucket, created: float, link: str, behind: Mapping[str, str]) -> Survey:
    """What is known of a file of which not everything is to be written."""
    found = leaving(await survey(source, Means(link=bool(link))), behind)
    if not link:
        return found
    keep = partial(links.put, to, to.root, created)
    datasets, more = await links.linked(source, found.datasets, link, to.root, keep)
    return replace(found, datasets=datasets, troubles=(*found.troubles, *more))


async def _begin(
    source: Source, to: Bucket, created: float, found: Survey | None
) -> tuple[Making, at_once.Made | None]:
    """What is known of a file, and all that is to be written if that can be made at once."""
    if found is not None:
        return _making(found, source, to.root, created), None
    return await source.run(partial(_begun, source=source, to=to, created=created))


def _begun(file: h5py.File, source: Source, to: Bucket, created: float) -> tuple[Making, at_once.Made | None]:
    found = look(file, Means())
    making = _making(found, source, to.root, created)
    if source.whole is None or to.copies(source) or not at_once.suits(found):
        return making, None
    return making, at_once.make(file, making, source.whole, to.has)


def _making(found: Survey, source: Source, root: str, created: float) -> Making:
    frame = describe.Frame(root, created, names(found, root))
    return Making(frame, found, source.info.size, list(found.troubles))


@dataclass(slots=True)
class _Load:
    """A file that goes object by object."""

    source: Source
    bucket: Bucket
    making: Making

    async def run(self) -> None:
        small, others = self.making.together()
        left = iter(small)
        while batch := list(islice(left, _BATCH)):
            await self._place(batch)
        for planned in others:
            with self.making.losing(planned.node):
                await self._data(planned)
        self.making.forget_lost()
        await self._describe()

    async def _data(self, planned: Planned) -> None:
        facts, how = planned.facts, planned.plan
        match how.route:
            case Route.SLAB:
                await self._slabs(planned)
            case Route.PLACE:
                await self._place([planned])
            case Route.TRANSCODE if facts.sources:
                await self._virtual(planned)
            case Route.TRANSCODE | Route.MERGE:
                await self._transcode(planned, await self.source.run(partial(blocks.places, planned=planned)))
            case _:
                pass

    async def _slabs(self, planned: Planned) -> None:
        facts, offset = planned.facts, planned.facts.offset or 0
        if facts.segments:
            await side_by_side(slabs(planned), lambda s: self._external(facts, self.making.key(planned, s.place), s), 2)
            return
        pieces = (
            Piece(self.making.key(planned, s.place), offset + s.start, offset + s.end, s.full) for s in slabs(planned)
        )
        await self.bucket.place(self.source, pieces)

    async def _external(self, facts: Facts, key: str, slab: grid.Slab) -> None:
        data = await external_bytes(self.source, facts.segments, slab.start, slab.end)
        await self.bucket.put(key, data.ljust(slab.full, b"\0"))

    async def _virtual(self, planned: Planned) -> None:
        async with assembled(self.source, planned.node.raw) as made:
            await self._transcode(planned, grid.places(planned.facts.dims or (), planned.plan.chunk), made)

    async def _place(self, batch: Sequence[Planned]) -> None:
        """Raw chunks of datasets, then those that have to be decoded all the same."""
        tables = await self.source.run(partial(self.making.tables, batch=batch))
        largest = max((int(table.rows["size"].max()) for _, table in tables if len(table.rows)), default=0)
        raw = chain.from_iterable(self.making.raw(p, table) for p, table in tables)
        self.making.lose_broken([p for p, _ in tables], await self.bucket.place(self.source, raw, largest))
        for planned, table in tables:
            if planned.node.address in self.making.lost:
                continue
            if again := self.making.not_raw(planned, table):
                with self.making.losing(planned.node):
                    await self._transcode(planned, again)

    async def _transcode(self, planned: Planned, places: Iterable[grid.Dims], made: Assembly | None = None) -> None:
        key = partial(self.making.key, planned)
        todo: Iterator[grid.Dims] = (place for place in places if not self.bucket.has(key(place)))
        while batch := list(islice(todo, max(1, _DECODED // decoded_size(planned)))):
            decoded = await self.source.run(partial(self.making.decode, planned=planned, places=batch, made=made))
            pairs = zip(batch, decoded, strict=True)
            await side_by_side(pairs, lambda pair: self.bucket.put(key(pair[0]), pair[1]), 4)

    async def _describe(self) -> None:
        left = iter(self.making.described())
        while batch := list(islice(left, _BATCH)):
            bodies = await self.source.run(partial(self.making.bodies, nodes=batch))
            await side_by_side(bodies, lambda body: self.bucket.put(*body), 4)
