"""Writing a domain's objects into the bucket of an HSDS server, past the server.

Nothing that is written here is seen before a `.domain.json` names its root. All keys follow from the load, every
object appears whole, and what is there already is not written again: so a load that was killed goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from typing_extensions import Buffer

from fileserver.hdf5 import fletcher, ids
from fileserver.hdf5.source import Source
from fileserver.together import side_by_side
from planes import bulk
from planes.errors import Refused, Unsupported
from planes.many import Whole
from planes.plane import MIB, Plane, StepReceipt, Ticket

WIDTH: Final = 8
"""Objects that are written at a time."""
_TOGETHER: Final = 4 * MIB  # pieces that lie close to each other are read at once up to this
_PUTS: Final = 4  # of the pieces that were read at once
_GAP: Final = 64 << 10
_MEMORY: Final = 32 * MIB  # of pieces that go through us, for one load


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of the source that become one object, filled up with zeros to `full`.

    Behind them lie `trailer` bytes: none, or their checksum (`fileserver.hdf5.fletcher`).
    """

    key: str
    start: int
    end: int
    full: int = 0
    trailer: int = 0


@dataclass(slots=True)
class Written:
    """What a load has put into the bucket; sizes in bytes."""

    objects: int = 0
    copied: int = 0
    """Bytes that the provider moved by itself."""
    carried: int = 0
    """Bytes that went through this process."""
    kept: int = 0
    """Objects that an earlier attempt had written."""


@dataclass(slots=True)
class Bucket:
    """The bucket of a server as a plane, for one load."""

    plane: Plane
    root: str
    load: str
    written: Written = field(default_factory=Written)
    _there: set[str] = field(default_factory=set)
    _mark: str = field(init=False)
    """What the attempts of this load begin with."""

    def __post_init__(self) -> None:
        self._mark = sha256(self.load.encode()).hexdigest()[:12]

    async def resume(self) -> None:
        """Find out what an earlier attempt of this load has written."""
        prefix = ids.folder(self.root)
        found = self.plane.list(prefix)
        self._there = {info.key[len(prefix) :] async for info in found if bulk.survived(self.plane, info)}

    def has(self, key: str) -> bool:
        """Whether an earlier attempt has written it; chunks of one load never change."""
        return key[len(ids.folder(self.root)) :] in self._there

    async def put(self, key: str, data: Buffer) -> None:
        """Write an object, also over the same one of an earlier attempt."""
        await self.plane.put(key, data, upload_id=self._attempt(key), replace=True)
        self.written.objects += 1
        self.written.carried += memoryview(data).nbytes

    async def put_all(self, chunks: Sequence[tuple[str, Buffer]], bodies: Sequence[tuple[str, Buffer]]) -> None:
        """Write chunks, and behind them what describes them, as few trips as the plane can."""
        if bulk.takes_many(self.plane):
            self.wrote(await bulk.put_many(self.plane, self.wholes(chunks, bodies)))
            return
        await side_by_side(chunks, lambda one: self.put(*one), WIDTH)
        await side_by_side(bodies, lambda one: self.put(*one), _PUTS)

    def wholes(self, chunks: Sequence[tuple[str, Buffer]], bodies: Sequence[tuple[str, Buffer]]) -> list[Whole]:
        """The same as one call takes it."""
        return [Whole(key, data, self._attempt(key)) for key, data in (*chunks, *bodies)]

    def wrote(self, receipts: Iterable[StepReceipt]) -> None:
        """Count what was written so."""
        for receipt in receipts:
            self.written.objects += 1
            self.written.carried += receipt.size

    async def place(self, source: Source, pieces: Iterable[Piece], largest: int = 0) -> list[Piece]:
        """Write objects from raw bytes of the source, `WIDTH` at a time; by the provider itself where it can.

        Fewer at a time, if the `largest` piece is so large that as many would take too much memory. Returns the pieces
        that were not written, because they went through us and do not have the checksum that lies behind them.
        """
        width = max(1, min(WIDTH, _MEMORY // max(1, largest)))
        ticket, broken = self._ticket(source), list[Piece]()
        todo = (piece for piece in pieces if not self._kept(piece))
        if ticket is not None:
            await side_by_side(todo, lambda piece: self._copy_or_carry(source, ticket, piece, broken), WIDTH)
        else:
            await side_by_side(_together(todo), lambda group: self._carry(source, group, broken), width)
        return broken

    def copies(self, source: Source) -> bool:
        """Whether the provider can be asked to copy ranges of a source by itself."""
        return self._ticket(source) is not None

    def _kept(self, piece: Piece) -> bool:
        if self.has(piece.key):
            self.written.kept += 1
            return True
        return False

    def _ticket(self, source: Source) -> Ticket | None:
        """For a provider that copies ranges by itself; a kernel's copy of a small range is slower than two calls."""
        ticket = source.plane.copy_ticket(source.info)
        if ticket is None or ticket.kind == "posix" or not self.plane.accepts(ticket):
            return None
        return ticket if source.info.size > self.plane.limits.min_copy_source else None

    async def _copy_or_carry(self, source: Source, ticket: Ticket, piece: Piece, broken: list[Piece]) -> None:
        size = piece.end - piece.start
        if size < piece.full or not size:
            await self._carry(source, [piece], broken)
            return
        try:
            await self._copy(source, ticket, piece)
        except (Unsupported, Refused):  # a hope that did not come true, see planes.plane
            await self._carry(source, [piece], broken)

    async def _copy(self, source: Source, ticket: Ticket, piece: Piece) -> None:
        size = piece.end - piece.start
        attempt = self._attempt(piece.key)
        async with await self.plane.upload(piece.key, upload_id=attempt, replace=True) as upload:
            step = await upload.copy(1, 0, ticket, piece.start, piece.end, url=lambda: source.plane.presign(ticket))
            await upload.commit([step], size, step.crc64nvme)
        self.written.objects += 1
        self.written.copied += size

    async def _carry(self, source: Source, group: Sequence[Piece], broken: list[Piece]) -> None:
        start, end = group[0].start, max(piece.end + piece.trailer for piece in group)
        data = await source.read(start, end)

        async def put(piece: Piece) -> None:
            part = data[piece.start - start : piece.end - start]
            behind = data[piece.end - start : piece.end + piece.trailer - start]
            if piece.trailer and not await asyncio.to_thread(fletcher.matches, part, behind):
                broken.append(piece)
                return
            await self.put(piece.key, part if len(part) >= piece.full else bytes(part).ljust(piece.full, b"\0"))

        await side_by_side(group, put, min(len(group), _PUTS))

    def _attempt(self, key: str) -> str:
        return f"{self._mark}-{sha256(key.encode()).hexdigest()[:20]}"


def _together(pieces: Iterable[Piece]) -> Iterable[list[Piece]]:
    """Pieces that lie close behind each other, in groups that are read at once."""
    group: list[Piece] = []
    for piece in pieces:
        near = group and 0 <= piece.start - group[-1].end <= _GAP and piece.end - group[0].start <= _TOGETHER
        if group and not near:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group
