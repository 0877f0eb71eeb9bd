"""A domain of HSDS as an HDF5 file: structure first, then attributes and data, read through its server.

What the file cannot have as the domain has it is mapped or left out with a reason, and the rest goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import h5py

from fileserver.hdf5 import export_direct, export_write, grid, stretches
from fileserver.hdf5.declared import Declared, DeclaredLink, Unknown, declared
from fileserver.hdf5.export_write import Written
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.model import Trouble
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.restored import Garbled
from fileserver.hdf5.source import alone, close_all
from fileserver.hdf5.stretches import Block
from fileserver.together import side_by_side
from planes.errors import NotFound
from planes.plane import Info, Plane
from planes.threads import Threads

T = TypeVar("T")

_WIDTH: Final = 8  # requests at a time
_BLOCKS: Final = 4  # blocks of data that are held at a time
_LISTED: Final = 1000  # chunk objects whose names are held at a time
_BATCH: Final = 64  # objects that are held at a time
_FAULTS: Final = (*BROKEN, Garbled)
"""What the library or the domain's own bytes may have against one object."""


@dataclass(slots=True)
class Progress:
    """How far it is; may be looked at meanwhile."""

    objects: int = 0
    """Whose attributes and data are written, of `found`."""
    found: int = 0
    bytes: int = 0
    """Of data, as the server gave them."""


async def export(
    objects: Objects, root: str, path: Path, progress: Progress, bucket: Plane | None = None
) -> tuple[Trouble, ...]:
    """Write all that a domain holds into a new file; what could not be written as it is.

    Args:
        objects: of the domain.
        root: id of its root group.
        path: of the file, which is not there yet; its directory is.
        progress: told how far it is.
        bucket: of the server, to which everything of the domain is flushed; chunks are taken from there where they are
            as HDF5 has them.

    Raises:
        Unavailable, Throttled, CallerDenied: the server does not answer, or not to us.
        OSError: the file cannot be written.
    """
    threads = Threads("export", 1)
    held: list[h5py.File] = []
    try:
        top = await declared(objects, root, attributes=False)
        await threads.run(lambda _: held.append(export_write.begun(path, ordered=top.ordered)))
        job = _Export(objects, root, held, threads, progress, bucket)
        await job.structure(top)
        await job.contents()
        await threads.run(lambda _: close_all(held))
        return tuple(job.troubles)
    finally:
        await threads.run(lambda _: close_all(held))
        threads.close()


@dataclass(slots=True)
class _Export:
    objects: Objects
    root: str
    held: list[h5py.File]
    """The file: nothing of the library's leaves its thread, see `fileserver.hdf5.source`."""
    threads: Threads
    progress: Progress
    bucket: Plane | None
    troubles: list[Trouble] = field(default_factory=list)
    written: Written = field(default_factory=Written)

    async def structure(self, root: Declared) -> None:
        """All objects under their names, and all other links, in the order of the domain."""
        self.written.paths[root.id] = b"/"
        todo = deque([root])
        self.progress.found = 1
        while todo:
            group = todo.popleft()
            links = iter(group.links)
            while batch := list(islice(links, _BATCH)):
                todo.extend(await self._links(group, batch))

    async def _links(self, group: Declared, batch: Sequence[DeclaredLink]) -> list[Declared]:
        """Some links of a group; the groups among them that are new."""
        told: dict[str, Declared | str] = {}
        fresh = {link.target for link in batch if link.kind == "hard" and link.target not in self.written.paths}

        async def ask(object_id: str) -> None:
            try:
                told[object_id] = await declared(self.objects, object_id, attributes=False)
            except Unknown as unknown:
                told[object_id] = str(unknown)
            except NotFound:
                told[object_id] = "the domain has a name for it, and nothing behind it"

        await side_by_side(fresh, ask, _WIDTH)
        await self._committed(told)
        made = await self._run(
            partial(
                export_write.links,
                written=self.written,
                group=group,
                batch=batch,
                told=told,
                troubles=self.troubles,
            )
        )
        self.progress.found = len(self.written.paths)
        return made

    async def _committed(self, told: dict[str, Declared | str]) -> None:
        """Committed types have to be there before what refers to them."""
        for each in list(told.values()):
            if isinstance(each, str) or each.type is None or not each.type.committed or each.kind == "t":
                continue
            if each.type.committed not in self.written.paths:
                try:
                    kind = await declared(self.objects, each.type.committed, attributes=False)
                except (NotFound, Unknown):
                    continue  # the type itself is with the object
                await self._run(partial(export_write.aside, written=self.written, kind=kind))

    async def contents(self) -> None:
        """Attributes and data of all objects."""
        left = iter(list(self.written.paths))
        while batch := list(islice(left, _BATCH)):
            told: dict[str, Declared] = {}

            async def ask(object_id: str, into: dict[str, Declared] = told) -> None:
                try:
                    into[object_id] = await declared(self.objects, object_id, links=False)
                except (Unknown, NotFound) as error:
                    self._trouble(object_id, f"its attributes cannot be read: {error}")

            await side_by_side(batch, ask, _WIDTH)
            there = [told[object_id] for object_id in batch if object_id in told]
            write = partial(export_write.attributes, written=self.written, found=there, troubles=self.troubles)
            await self._run(write)
            datasets = [each for each in there if each.kind == "d"]
            if self.bucket is not None:
                for each in [each for each in datasets if export_direct.chunk_size(each)]:
                    await self._raw(each, self.bucket)
                    datasets.remove(each)
            await self._data(datasets)
            self.progress.objects += len(batch)
        await self._run(export_write.ended)

    def _trouble(self, object_id: str, reason: str) -> None:
        path = self.written.paths[object_id].decode(errors="backslashreplace")
        self.troubles.append(Trouble(path, "failed", reason))

    async def _raw(self, dataset: Declared, bucket: Plane) -> None:
        """Chunks as they lie in the bucket; those that are otherwise through the server."""
        size = export_direct.chunk_size(dataset)
        otherwise: list[Block] = []

        async def one(found: tuple[grid.Dims, Info]) -> None:
            place, info = found
            block = export_direct.block_of(dataset, place)
            if min(block.count) <= 0:
                return  # of a dataset that was larger once
            data = await export_direct.raw(bucket, info, size)
            if data is None or not await asyncio.to_thread(export_direct.is_chunk, dataset, data, size):
                otherwise.append(block)
                return
            path = self.written.paths[dataset.id]
            await self._run(partial(export_direct.put, path=path, start=block.start, data=data))
            self.progress.bytes += size

        held: list[tuple[grid.Dims, Info]] = []
        async with aclosing(export_direct.chunks(bucket, self.root, dataset)) as found:
            async for each in found:
                held.append(each)
                if len(held) == _LISTED:
                    await self._some(held, one, dataset, otherwise)
        await self._some(held, one, dataset, otherwise)

    async def _some(
        self,
        held: list[tuple[grid.Dims, Info]],
        one: Callable[[tuple[grid.Dims, Info]], Awaitable[None]],
        dataset: Declared,
        otherwise: list[Block],
    ) -> None:
        await side_by_side(held, one, _BLOCKS)
        await self._blocks(iter([(dataset, block) for block in otherwise]))
        held.clear()
        otherwise.clear()

    async def _data(self, datasets: Sequence[Declared]) -> None:
        await self._blocks(_jobs(datasets))

    async def _blocks(self, jobs: Iterator[tuple[Declared, Block]]) -> None:
        lost: set[str] = set()

        async def one(job: tuple[Declared, Block]) -> None:
            dataset, block = job
            if dataset.id in lost:
                return
            data = await self.objects.read(dataset.id, block.slabs)
            try:
                await self._run(
                    partial(export_write.block, written=self.written, dataset=dataset, part=block, data=data)
                )
            except _FAULTS as error:
                if isinstance(error, OSError) and error.errno:
                    raise  # of the disk, not of this dataset
                lost.add(dataset.id)
                self._trouble(dataset.id, f"its data cannot be written: {error}")
            self.progress.bytes += len(data)

        await side_by_side(jobs, one, _BLOCKS)

    async def _run(self, work: Callable[[h5py.File], T]) -> T:
        held = self.held
        return await self.threads.run(lambda _: alone(held, work))


def _jobs(datasets: Sequence[Declared]) -> Iterator[tuple[Declared, Block]]:
    for each in datasets:
        if each.dims is None or 0 in each.dims or each.type is None or each.storage is None:
            continue
        step = export_write.step_of(each)
        yield from ((each, block) for block in stretches.blocks(each.dims, step))
