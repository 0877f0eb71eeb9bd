"""The bytes of an object or of a logical file in order: pinned, in slices, one slice read ahead. Knows no message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from fileserver.catalogue.files import Copy, FilePart, LogicalFile, replaced
from fileserver.configured import where
from fileserver.transfer.survey import Planes, choose, still
from planes import checksum
from planes.errors import Changed, Corrupt, Error, OutOfRange
from planes.plane import MIB, Extent, Plane

SLICE: Final = 8 * MIB
"""Bytes of one read of a plane; a stream holds two of them."""


class Files(Protocol):
    """Logical files, as `fileserver.catalogue.files.Catalogue` has them."""

    async def get(self, name: str) -> LogicalFile:
        """The file of a name; raises FileNotFound."""
        ...

    async def copies(self, generation: str) -> list[Copy]:
        """The copies of a generation, the oldest first."""
        ...

    async def parts(self, copy: str, after: int = 0) -> list[FilePart]:
        """One page of the parts of a copy in order, beginning after number `after`."""
        ...


@dataclass(slots=True)
class Proof:
    """The checksum that a whole part must have, added up as its bytes go by."""

    part: FilePart
    kind: str
    value: int = 0
    size: int = 0

    def add(self, data: memoryview) -> None:
        """Count bytes that were read.

        Raises:
            Corrupt: these were the last, and the part is not what the catalogue says.
        """
        self.value = checksum.compute(data, self.value, self.kind)
        self.size += len(data)
        expected = self.part.checksums[self.kind]
        if self.size == self.part.size and self.value != expected:
            mine, its = checksum.to_hex(self.value, self.kind), checksum.to_hex(expected, self.kind)
            msg = (
                f"part {self.part.number} ({where(self.part.plane, self.part.key)}) has {self.kind} {mine}, catalogued"
                f" is {its}: its bytes were changed since it was written; `cropduster files verify` tells more"
            )
            raise Corrupt(msg, plane=self.part.plane, key=self.part.key)


@dataclass(frozen=True, slots=True)
class Run:
    """A pinned extent and the plane that holds it; `proof` if it is a whole part whose checksum is known.

    `spares` are other copies of the part, to be read where this one cannot be.
    """

    plane: Plane
    extent: Extent
    proof: Proof | None = None
    spares: Sequence[tuple[Plane, FilePart]] = ()


async def object_runs(plane: Plane, key: str, version: str, offset: int, length: int) -> AsyncIterator[Run]:
    """Bytes [offset, offset + length) of one object; length 0 is to the end, and none reach past it.

    Raises:
        OutOfRange: the object ends before `offset`.
        Changed: it is another version than the one asked for.
    """
    info = await plane.stat(key)
    if version and info.version != version:
        msg = f"{plane.name}:{key} is not the version that was asked for: it changed since"
        raise Changed(msg, plane=plane.name, key=key)
    start, end = _range(f"{plane.name}:{key}", info.size, offset, length)
    if start < end:
        yield Run(plane, Extent(key, info.version, start, end))


async def file_runs(files: Files, planes: Planes, name: str, offset: int, length: int) -> AsyncIterator[Run]:
    """The same of a logical file, whose parts follow each other; parts are looked up a page at a time.

    A part that is gone, or was written again, or whose plane does not answer, is read from another copy of it.

    Raises:
        Changed: a part is not what the catalogue says, or the file was replaced and its parts are gone.
    """
    file = await files.get(name)
    start, end = _range(file.name, file.size, offset, length)
    copies = await files.copies(file.generation)
    position, number, away = 0, 0, set[str]()
    while position < end and start < end:
        pages = [page for copy in copies if (page := await files.parts(copy.id, number))]
        for same in zip(*pages, strict=False):
            size = same[0].size
            first, last = max(start, position) - position, min(end, position + size) - position
            if first < last:
                part, info = await choose(planes, same, away)
                kind = next(iter(part.checksums), "") if last - first == size else ""
                proof = Proof(part, kind) if kind else None
                extent = Extent(part.key, info.version, first, last)
                yield Run(planes.plane(part.plane), extent, proof, _spares(planes, same, part))
            position += size
        if not pages:
            raise replaced(file.name)
        number = min(page[-1].number for page in pages)


def _spares(planes: Planes, same: Sequence[FilePart], part: FilePart) -> list[tuple[Plane, FilePart]]:
    found = []
    for other in same:
        if other is not part:
            with suppress(Error):  # a plane that is not configured any more
                found.append((planes.plane(other.plane), other))
    return found


async def slices(runs: AsyncIterator[Run]) -> AsyncGenerator[memoryview, None]:
    """The bytes of all runs in order, each slice valid until the next is asked for.

    While the caller has one slice, the next is read into the other of two buffers.

    Raises:
        Corrupt: a whole part is not what the catalogue says; its last slice is not handed out.
    """
    buffers = (bytearray(SLICE), bytearray(SLICE))
    ahead: tuple[asyncio.Task[memoryview], Run] | None = None
    turn = 0
    try:
        async for run in _cut(runs):
            coming = asyncio.create_task(_fill(run, memoryview(buffers[turn]))), run
            ready, ahead, turn = ahead, coming, 1 - turn
            if ready:
                try:
                    yield await _proved(*ready)
                finally:
                    await _end(ready[0])
        if ahead:
            yield await _proved(*ahead)
    finally:
        if ahead:
            await _end(ahead[0])


async def _proved(task: asyncio.Task[memoryview], run: Run) -> memoryview:
    data = await task
    if run.proof:
        try:
            run.proof.add(data)
        except Corrupt:
            if not await _instead(run, run.proof, data):
                raise
    return data


async def _instead(run: Run, proof: Proof, data: memoryview) -> bool:
    """Whether another copy gives the right bytes, where no byte of the part was handed out before."""
    if data.nbytes != proof.part.size:
        return False
    for spare in run.spares:
        with suppress(Error):
            await _read_spare(spare, run.extent, data)
            if checksum.compute(data, kind=proof.kind) == proof.part.checksums[proof.kind]:
                return True
    return False


async def _end(task: asyncio.Task[memoryview]) -> None:
    """Wait until a read has let go of its buffer; what it raises has been told, or nobody is there to be told."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


async def _fill(run: Run, buffer: memoryview) -> memoryview:
    view = buffer[: run.extent.size]
    try:
        await run.plane.read(run.extent, view)
    except Error:
        for spare in run.spares:
            with suppress(Error):
                await _read_spare(spare, run.extent, view)
                return view
        raise
    return view


async def _read_spare(spare: tuple[Plane, FilePart], extent: Extent, into: memoryview) -> None:
    """The same bytes out of another copy."""
    plane, part = spare
    info = await still(plane, part)
    await plane.read(Extent(part.key, info.version, extent.start, extent.end), into)


async def _cut(runs: AsyncIterator[Run]) -> AsyncIterator[Run]:
    async for run in runs:
        e = run.extent
        for start in range(e.start, e.end, SLICE):
            yield replace(run, extent=Extent(e.key, e.version, start, min(start + SLICE, e.end)))


def _range(name: str, size: int, offset: int, length: int) -> tuple[int, int]:
    if offset > size:
        msg = f"{name} has {size} bytes and none at offset {offset}"
        raise OutOfRange(msg, name=name, size=str(size), offset=str(offset))
    return offset, min(size, offset + length) if length else size
