"""One segment → bytes in place: the one executor of all verbs. Finds no split point, commits no upload."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from fileserver.errors import FormatMismatch
from fileserver.formats.csv import Csv
from fileserver.together import first_of, side_by_side, to_its_end
from fileserver.transfer import routes
from fileserver.transfer.book import Book
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.described import described
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Extent, Part
from fileserver.transfer.plan import at_once
from fileserver.transfer.record import Done, PartRow, Plan, Segment, StoredStep
from fileserver.transfer.spec import format_from_json
from fileserver.transfer.survey import Planes
from planes import checksum
from planes.errors import Refused, Unsupported
from planes.pack import Step
from planes.plane import Extent as PlaneExtent
from planes.plane import Plane, StepReceipt, Take, Ticket, Upload

WIDTH: Final = 8
"""Steps of a segment in flight; the plane's own limits may allow fewer."""

_FLUSH: Final = 0.25  # seconds until a receipt is recorded at the latest


Mine = Mapping[int, Collection[int]]
"""Steps by part that are one's own; a part that is not in it is somebody else's, none of its steps are all of them."""


class RouteRefused(Exception):
    """The target's provider will not copy from a source plane by a route (see `transfer.routes`; "" is by none)."""

    def __init__(self, plane: str, why: str, route: str = "") -> None:
        super().__init__(why)
        self.plane = plane
        self.route = route
        self.why = why


def upload_id(transfer: str, part: int) -> str:
    """The name of the one attempt at a part."""
    return f"{transfer}-{part}"


class Executor:
    """Moves segments on this file server."""

    def __init__(self, planes: Planes, book: Book, buffers: Buffers) -> None:
        self._planes = planes
        self._book = book
        self._buffers = buffers

    async def fill(self, transfer: str, number: int, live: Live, mine: Mine | None = None) -> None:
        """Store every missing step of a segment and record the receipts; nothing to do if it is done.

        With `mine`, nothing else of it: what is somebody else's was stored before.

        Raises:
            RouteRefused: the provider will not copy by itself; the manifest has to be packed anew.
            Error: what the planes raise, the first of several.
        """
        page = await self._book.begin(transfer, number)
        if page is None:
            return
        work = _Filling(self, transfer, page.plan, live)
        # Packing is arithmetic, but a part of a million pieces has much of it.
        missing = await asyncio.to_thread(work.missing, page.segment, page.rows, page.have, mine)
        try:
            async with asyncio.TaskGroup() as both:
                receipts = both.create_task(work.record_regularly())
                await side_by_side(missing, work.do, WIDTH)
                receipts.cancel()
        except BaseException as failure:  # also a cancel: what is stored by now is not sent again
            with suppress(*self._book.failures):  # the first failure counts; what is not recorded is sent again
                await to_its_end(work.record())
            if isinstance(failure, BaseExceptionGroup):
                raise first_of(failure) from None
            raise
        await work.record()
        await self._book.end(transfer, number)

    def plane(self, name: str) -> Plane:
        """A configured plane."""
        return self._planes.plane(name)

    @property
    def buffers(self) -> Buffers:
        """The memory for payload."""
        return self._buffers

    @property
    def book(self) -> Book:
        """Where receipts are recorded."""
        return self._book


@dataclass(frozen=True, slots=True)
class _Due:
    """A step that is to be stored."""

    row: PartRow
    upload: Upload | None
    """None: one put writes the part whole."""
    step: Step


class _Filling:
    """The work on one segment: its steps side by side, its receipts on their way to the store."""

    def __init__(self, executor: Executor, transfer: str, plan: Plan, live: Live) -> None:
        self.transfer = transfer
        self.plan = plan
        self.target = executor.plane(plan.plane)
        self._executor = executor
        self._live = live
        self._tickets: dict[tuple[str, str], Ticket] = {}
        self._unrecorded: list[StoredStep] = []
        self._ended: list[tuple[int, StepReceipt]] = []
        form = format_from_json(plan.format)
        self._counted = form if plan.split == "deduce" and isinstance(form, Csv) and form.quotes else None
        """The format whose quotes are counted in bytes that pass through us."""

    def missing(
        self,
        segment: Segment,
        rows: Sequence[PartRow],
        have: Mapping[int, Sequence[StoredStep]],
        mine: Mine | None = None,
    ) -> list[_Due]:
        """What no record holds as stored; legal in any thread."""
        due = list[_Due]()
        for row in rows:
            if row.done or (mine is not None and row.part.number not in mine):
                continue
            steps = routes.steps(row.part, self.plan)
            if row.token == "":
                due.append(_Due(row, None, steps[0]))
                continue
            assert row.token is not None
            stored = {s.receipt.number for s in have.get(row.part.number, ())}
            upload = self.target.resume(row.token)
            wanted = of_segment(segment, steps)
            if mine is not None and (own := mine[row.part.number]):
                wanted = [step for step in wanted if step.number in own]
            due += [_Due(row, upload, step) for step in wanted if step.number not in stored]
        return due

    async def do(self, due: _Due) -> None:
        """Store one of them."""
        if due.upload is None:
            await self._write_at_once(due.row, due.step)
        else:
            await self._store(due.row.part.number, due.upload, due.step)

    async def _store(self, part: int, upload: Upload, step: Step) -> None:
        """One step of an upload."""
        if step.native:
            receipt, quotes = await self._copy(upload, step), None
        else:
            receipt, quotes = await self._put(upload, step)
        if receipt.size != step.size:
            receipt = replace(receipt, number=step.number, size=step.size)
        self._count(step, receipt, native=step.native)
        self._unrecorded.append(StoredStep(part, receipt, quotes))

    async def _write_at_once(self, row: PartRow, step: Step) -> None:
        """A small part that one put writes whole."""
        number, key = row.part.number, row.part.key
        name, over = upload_id(self.transfer, number), self.plan.overwrite
        way = at_once(row.part, [step], self.plan.limits, routes.copies_whole(self.plan))
        if way == "copy":
            (extent,) = row.part.pieces
            assert isinstance(extent, Extent)
            ticket = await self._ticket(extent.plane, extent.on_plane)
            url = partial(self._executor.plane(extent.plane).presign, ticket)
            copy = self.target.copy(key, ticket, upload_id=name, replace=over, url=url)
            receipt = await _by_route(extent.plane, routes.route_of_whole(self.plan, extent.plane), copy)
        else:
            async with self._executor.buffers.take(step.size) as buffer:
                await self._read(step, buffer)
                if (self._quotes(buffer) or 0) % 2:
                    raise odd_quotes(row.part)
                said = await described(self._executor.plane, self.target, row.part)
                receipt = await self.target.put(
                    key,
                    buffer,
                    upload_id=name,
                    replace=over,
                    content_type=said.content_type,
                    metadata=said.metadata,
                )
                receipt = self._with_other(receipt, buffer)
        if not self.target.capabilities.shared:  # a directory keeps no checksum: the version tells of a later write
            receipt = replace(receipt, etag=(await self.target.stat(key)).version)
        self._count(step, receipt, native=way == "copy")
        self._live.parts_done += 1
        self._ended.append((number, receipt))

    async def _copy(self, upload: Upload, step: Step) -> StepReceipt:
        piece = step.pieces[0]
        assert piece.extent is not None
        ticket = await self._ticket(piece.source, piece.extent)
        extent, url = piece.extent, partial(self._executor.plane(piece.source).presign, ticket)
        copy = upload.copy(step.number, step.offset, ticket, extent.start, extent.end, url)
        return await _by_route(piece.source, routes.route_of_step(self.plan, step), copy)

    async def _put(self, upload: Upload, step: Step) -> tuple[StepReceipt, int | None]:
        if self.target.capabilities.pours and len(step.pieces) == 1 and step.pieces[0].extent is not None:
            return await self._pour(upload, step, step.pieces[0].source, step.pieces[0].extent)
        async with self._executor.buffers.take(step.size) as buffer:
            crc = await self._read(step, buffer)
            receipt = self._with_other(await upload.put(step.number, step.offset, buffer, crc), buffer)
            return receipt, self._quotes(buffer)

    async def _pour(
        self, upload: Upload, step: Step, source: str, extent: PlaneExtent
    ) -> tuple[StepReceipt, int | None]:
        """Store bytes as they come in: they take no memory but a slice, and do not leave the processor's cache."""
        quotes = other = 0
        counts, sums = self._counted is not None, self.plan.kind != "crc64nvme"

        async def stream(take: Take) -> None:
            nonlocal quotes, other
            quotes = other = 0  # again from the first byte, if this is a second attempt

            def look(data: memoryview) -> None:
                nonlocal quotes, other
                take(data)
                if counts:
                    quotes += self._quotes(data) or 0
                if sums:
                    other = checksum.compute(data, other, self.plan.kind)

            await self._executor.plane(source).stream(extent, look)

        receipt = await upload.pour(step.number, step.offset, step.size, stream)
        self._live.through_us += step.size
        if sums and receipt.other is None:
            receipt = replace(receipt, other=other)
        return receipt, quotes if counts else None

    def _quotes(self, buffer: memoryview) -> int | None:
        """The quotes in bytes that pass through us; None where they do not matter."""
        if self._counted is None:
            return None
        from fileserver.formats.records import count_quotes  # noqa: PLC0415 - brings numpy: not before it is needed

        return count_quotes(self._counted, buffer)

    def _with_other(self, receipt: StepReceipt, buffer: memoryview) -> StepReceipt:
        """The receipt with the checksum of the plan's kind, of bytes that passed through us."""
        if self.plan.kind == "crc64nvme" or receipt.other is not None:
            return receipt
        return replace(receipt, other=checksum.compute(buffer, kind=self.plan.kind))

    async def _read(self, step: Step, buffer: memoryview) -> int:
        at = 0
        for piece in step.pieces:
            view = buffer[at : at + piece.size]
            if piece.extent is None:
                view[:] = piece.literal
            else:
                await self._executor.plane(piece.source).read(piece.extent, view)
                self._live.through_us += piece.size
            at += piece.size
        return checksum.compute(buffer)

    async def _ticket(self, source: str, extent: PlaneExtent) -> Ticket:
        known = self._tickets.get((source, extent.key))
        if known is None:
            plane = self._executor.plane(source)
            info = await plane.stat(extent.key)
            fresh = plane.copy_ticket(info)
            if fresh is None:
                raise RouteRefused(source, f"{source} gives no ticket for its objects")
            # The pin is the plan's, not today's: a source that changed since is refused by the copy itself.
            known = Ticket(fresh.kind, fresh.scope, fresh.location, extent.version, fresh.size)
            self._tickets[source, extent.key] = known
        return known

    def _count(self, step: Step, receipt: StepReceipt, *, native: bool) -> None:
        self._live.done += step.size
        self._live.checked += receipt.bytes_checked
        if native:
            self._live.native += step.size
        self._live.touch()

    async def record_regularly(self) -> None:
        """Record receipts soon, many at a time; a database that is busy or full is tried again."""
        while True:
            await asyncio.sleep(_FLUSH)
            with suppress(*self._executor.book.failures):  # they are kept, and the end of the segment insists on them
                await to_its_end(self.record())

    async def record(self) -> None:
        """Record the receipts that are not recorded yet; those that could not be are kept for the next call."""
        stored, self._unrecorded = self._unrecorded, []
        ended, self._ended = self._ended, []
        if stored or ended:
            try:
                await self._executor.book.enter(self.transfer, stored, self._done(ended), self._live)
            except BaseException:  # recorded twice is recorded once
                self._unrecorded[:0], self._ended[:0] = stored, ended
                raise

    def _done(self, ended: list[tuple[int, StepReceipt]]) -> list[Done]:
        # Outside of our folders a clean-up has to know the object again.
        named = not (self.plan.file and self.target.capabilities.shared)
        return [Done(n, r.crc64nvme, r.other, r.compared, r.etag if named else "") for n, r in ended]


def of_segment(segment: Segment, steps: Sequence[Step]) -> Sequence[Step]:
    """Those of the steps of a part that belong to a segment."""
    return steps[max(segment.first_step, 1) - 1 : segment.last_step or len(steps)]


def odd_quotes(part: Part) -> FormatMismatch:
    """What a part is told whose quotes do not come in pairs."""
    msg = (
        f"part {part.number} ({part.key}) holds an odd number of quotes, so a record was cut or the quotes do not stand"
        " only around fields; try --split exact"
    )
    return FormatMismatch(msg, part=str(part.number), key=part.key)


async def _by_route(plane: str, route: str, copy: Coroutine[None, None, StepReceipt]) -> StepReceipt:
    """A provider's copy; its refusal closes this route from that plane."""
    try:
        return await copy
    except (Refused, Unsupported) as error:
        if type(error) not in {Refused, Unsupported}:  # a full disk refuses the bytes, not the route
            raise
        raise RouteRefused(plane, error.message, route) from error
