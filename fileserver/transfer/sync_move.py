"""One object of a sync → its bytes in place, with evidence. Reads no row and decides no order.

The route is that of any part: the provider copies if it can, else the bytes travel, whole if they are few, in steps if
they are many.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from time import time
from typing import Final

from fileserver.configured import Configured
from fileserver.together import side_by_side, to_its_end
from fileserver.transfer import routes
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.described import Described, inherited
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Extent, Part
from fileserver.transfer.plan import at_once
from fileserver.transfer.record import Plan
from fileserver.transfer.spec import Sync
from fileserver.transfer.sync_evidence import Held
from fileserver.transfer.sync_journal import Journal, Moved
from fileserver.transfer.sync_plan import folder
from fileserver.transfer.sync_rows import Item
from planes import checksum
from planes.errors import Changed, Corrupt, Error, NotFound, Refused, Unsupported
from planes.pack import Step
from planes.plane import MIB, Info, StepReceipt, Take, Ticket, Upload
from planes.plane import Extent as PlaneExtent

WIDTH: Final = 8
"""Steps of one large object in flight."""

_TICK: Final = 2.0  # seconds by which the clock of a file system may be behind


class Mover:
    """Copies the objects of one sync."""

    def __init__(
        self, planes: Configured, buffers: Buffers, transfer: str, sync: Sync, live: Live, *, verify_read: bool
    ) -> None:
        self._source, self._target = planes.plane(sync.source.plane), planes.plane(sync.target.plane)
        self._from, self._to = folder(sync.source), folder(sync.target)
        self.names = (sync.source.plane, sync.target.plane)
        """Planes of both ends."""
        self._buffers = buffers
        self._transfer = transfer
        self._held = Held(planes, buffers, sync, live, verify_read=verify_read)
        self._live = live
        self._verify = verify_read
        self.closed = ""
        """Why the target copies nothing by itself any more; empty while it may."""
        self._plan = Plan(
            plane=sync.target.plane,
            file="",
            format=None,
            split="none",
            size=0,
            parts=0,
            limits=self._target.limits,
            native={},
            overwrite=True,
        )
        self._open = dict[int, str]()
        """By item, the upload that it has begun and that is neither committed nor aborted."""

    async def move(self, item: Item, journal: Journal) -> Moved:
        """Copy one object, unless its contents turn out to be the same.

        A source that has changed since it was listed is looked at once more. An upload that a crash or a pause has
        left goes on after the steps that are recorded as stored.

        Raises:
            Error: what the planes raise; nothing half-made is left but what `left` names.
        """
        if item.token:
            self._open[item.number] = item.token
        elif item.why in {"newer", "checksum"} and await self._held.same(item):
            self._count(item, through=False)
            return Moved("equal", compared=True)
        wrote = _Wrote()
        try:
            compared = await self._proved(item, journal, wrote)
        except Changed:
            info = await self._source.stat(self.source_key(item))
            item = replace(item, size=info.size, version=info.version)
            await self._abort(item)
            wrote = _Wrote()
            compared = await self._proved(item, journal, wrote)
        assert wrote.plan is not None
        way = routes.way_of(self._part(item), wrote.plan)
        return Moved("copied", compared, way.route, way.why)

    def source_key(self, item: Item) -> str:
        """Where an object is."""
        return self._from + item.key

    def target_key(self, item: Item) -> str:
        """Where it is to be."""
        return self._to + item.key

    def attempt(self, item: Item) -> str:
        """What tells the writes of an object from those of others."""
        return f"{self._transfer}-{item.number}"

    def streams(self, item: Item) -> tuple[str, str] | None:
        """The route of a small object, and why, if its bytes travel whatever it is; None where that depends on it."""
        if self._verify or (not self.closed and self._ticket(item)):
            return None
        way = routes.way_of(self._part(item), self._now(item))
        return way.route, way.why

    def counted(self, item: Item, receipt: StepReceipt) -> None:
        """Count an object that was read and put."""
        self._count(item, through=True)
        self._live.checked += receipt.bytes_checked

    def left(self, item: Item) -> str | None:
        """The token of an upload that an item has begun and that could not be aborted; asked once."""
        return self._open.pop(item.number, None)

    async def _proved(self, item: Item, journal: Journal, wrote: _Wrote) -> bool:
        """Copy an object and look at what came of it; what turns out to be other bytes does not stay."""
        try:
            compared = await self._copy(item, journal, wrote)
            if wrote.upload is None and (item.size > MIB or not self._source.capabilities.metadata):
                await self._held.unchanged(item)  # a request for each small object of a store would cost too much
            return await self._held.look(item) if self._verify or not compared else compared
        except Corrupt as error:
            if wrote.done:
                try:
                    await self._unmake(item, wrote)
                except Error as stays:
                    error.add_note(f"moreover: what was written is still there: {stays.message}")
            raise

    async def _unmake(self, item: Item, wrote: _Wrote) -> None:
        """Delete what was just written, unless somebody else has written there since."""
        key = self.target_key(item)
        try:
            found = await self._target.stat(key)
        except NotFound:
            return
        if wrote.upload is not None:
            made = await wrote.upload.made()
            is_ours = made is not None and made.version == found.version
        elif wrote.etag:
            is_ours = found.version.split(" ")[0] == wrote.etag
        else:  # no file has a name for who wrote it
            is_ours = found.size == item.size and found.modified.timestamp() >= wrote.began - _TICK
        if is_ours:
            await self._target.delete(key, version=found.version)

    async def _abort(self, item: Item) -> None:
        """Abort the upload that an item has begun before, if there is one; until that works it is known."""
        if token := self._open.get(item.number):
            await self._target.resume(token).abort()
            del self._open[item.number]

    # --- routes -------------------------------------------------------------------------------------------------

    def _part(self, item: Item) -> Part:
        extent = Extent(self.names[0], self.source_key(item), item.version, 0, item.size, item.size)
        return Part(item.number, self.target_key(item), (extent,) if item.size else ())

    def _now(self, item: Item) -> Plan:
        """Which routes are open by now."""
        source, target = self.names
        ticket = self._ticket(item)
        mine = self._target.copy_ticket(Info(self.target_key(item), item.size, "", datetime.now(UTC)))
        why = self.closed or ("" if ticket else f"{target} cannot fetch from {source} by itself")
        means = {source: routes.between(ticket.kind, mine.kind)} if ticket and mine else {}
        return replace(self._plan, native={source: why}, means=means)

    async def _copy(self, item: Item, journal: Journal, wrote: _Wrote) -> bool:
        part, plan = self._part(item), self._now(item)
        wrote.plan = plan
        ticket = None if self.closed else self._ticket(item)
        steps = routes.steps(part, plan)
        way = at_once(part, steps, plan.limits, routes.copies_whole(plan))
        if way:
            await self._abort(item)
        if ticket is not None and (way == "copy" or any(step.native for step in steps)):
            try:
                receipt = await self._native(item, part, way, steps, ticket, journal, wrote)
            except (Refused, Unsupported) as error:
                if type(error) not in {Refused, Unsupported}:  # a full disk refuses the bytes, not the route
                    raise
                self.closed = error.message
                return await self._copy(item, journal, wrote)
            return receipt.compared or await self._held.is_source(item, receipt)
        return await self._through_us(item, part, way, steps, journal, wrote)

    def _ticket(self, item: Item) -> Ticket | None:
        """A ticket for the version that was listed: one that changed since is refused by the copy itself."""
        ticket = self._source.copy_ticket(Info(self.source_key(item), item.size, item.version, datetime.now(UTC)))
        return ticket if ticket is not None and self._target.accepts(ticket) else None

    async def _native(
        self, item: Item, part: Part, way: str, steps: list[Step], ticket: Ticket, journal: Journal, wrote: _Wrote
    ) -> StepReceipt:
        if way == "copy":
            url = partial(self._source.presign, ticket)
            receipt = await self._target.copy(part.key, ticket, upload_id=self.attempt(item), replace=True, url=url)
            wrote.by(receipt)
            self._count(item, through=False)
            self._live.native += item.size
            return receipt
        return await self._in_steps(item, part, steps, journal, await self._described(item), ticket, wrote)

    async def _described(self, item: Item) -> Info | None:
        """The facts of the source, which must be of the version that was listed; None unless both ends are stores."""
        both = self._source.capabilities.shared and self._target.capabilities.shared
        return await self._held.unchanged(item) if both else None

    async def _through_us(
        self, item: Item, part: Part, way: str, steps: list[Step], journal: Journal, wrote: _Wrote
    ) -> bool:
        """Read and put; where both ends keep what describes an object, it comes along."""
        info = await self._described(item)
        if way == "put":
            receipt = await self._put(item, part.key, info)
            wrote.by(receipt)
        else:
            receipt = await self._in_steps(item, part, steps, journal, info, None, wrote)
            self._live.checked += receipt.bytes_checked
        if info is not None and self._held.hold_against(info, receipt, part.key):
            return True
        return receipt.compared or (info is None and await self._held.is_source(item, receipt))

    async def _put(self, item: Item, key: str, info: Info | None) -> StepReceipt:
        """Read a small object and put it whole; compared if its version is the MD5 of what was read."""
        said = inherited(info, self._target) if info else Described()
        async with self._buffers.take(item.size) as buffer:
            if item.size:
                await self._source.read(PlaneExtent(self.source_key(item), item.version, 0, item.size), buffer)
            is_known = await self._held.is_as_stored(item, buffer, info)
            receipt = await self._target.put(
                key,
                buffer,
                upload_id=self.attempt(item),
                replace=True,
                content_type=said.content_type,
                metadata=said.metadata,
            )
            reported = self._target.capabilities.confirms and not receipt.compared
            if reported and receipt.crc64nvme == checksum.compute(buffer):
                receipt = replace(receipt, compared=is_known or checksum.is_digest(item.version, buffer))
        self.counted(item, receipt)
        return receipt

    async def _in_steps(
        self,
        item: Item,
        part: Part,
        steps: list[Step],
        journal: Journal,
        info: Info | None,
        ticket: Ticket | None,
        wrote: _Wrote,
    ) -> StepReceipt:
        """A large object by an upload, which is recorded before a byte moves, and every step behind it.

        A call that is cancelled (a pause, the end of the server) leaves both for the next one.
        """
        receipts = dict[int, StepReceipt]()
        upload: Upload | None = None
        try:
            upload = await self._begun(item, part, steps, journal, info, receipts)
            await side_by_side(
                [step for step in steps if step.number not in receipts],
                partial(self._stored, item, upload, ticket, journal, receipts),
                WIDTH,
            )
            stored = [receipts[step.number] for step in steps]
            whole = checksum.combine_all((r.crc64nvme, r.size) for r in stored)
            now = await self._held.unchanged(item)
            is_known = self._held.hold_against(now, StepReceipt(1, item.size, whole), part.key)
            await upload.commit(stored, item.size, whole)
        except Exception as error:  # whatever it was, also the database's: an upload that nobody goes on with is no use
            self._live.done -= sum(step.size for step in steps if step.number in receipts)
            try:
                await self._abort(item)
            except Error as stays:  # its token stays known, and the first error is the one to report
                error.add_note(f"moreover: {stays.message}")
            raise
        del self._open[item.number]
        wrote.done, wrote.upload = True, upload
        self._live.parts_done += 1
        checked = sum(r.bytes_checked for r in stored)
        compared = is_known or all(r.compared for r in stored)
        return StepReceipt(1, item.size, whole, compared=compared, bytes_checked=checked)

    async def _begun(
        self,
        item: Item,
        part: Part,
        steps: list[Step],
        journal: Journal,
        info: Info | None,
        receipts: dict[int, StepReceipt],
    ) -> Upload:
        """The upload of an item, begun before if the steps that are recorded of it fit; those go to `receipts`."""
        if token := self._open.get(item.number):
            sizes = {step.number: step.size for step in steps}
            stored = await journal.stored(item)
            if stored and all(sizes.get(receipt.number) == receipt.size for receipt in stored):
                receipts |= {receipt.number: receipt for receipt in stored}
                return self._target.resume(token)
            await self._abort(item)
        said = inherited(info, self._target) if info else Described()
        upload = await self._target.upload(
            part.key,
            upload_id=self.attempt(item),
            replace=True,
            content_type=said.content_type,
            metadata=said.metadata,
        )
        self._open[item.number] = upload.token
        await to_its_end(journal.token(item, upload.token))  # else nobody would ever know of it
        return upload

    async def _stored(
        self,
        item: Item,
        upload: Upload,
        ticket: Ticket | None,
        journal: Journal,
        receipts: dict[int, StepReceipt],
        step: Step,
    ) -> None:
        receipt = await self._step(upload, step, ticket)
        receipts[step.number] = replace(receipt, number=step.number, size=step.size)
        journal.keep(item, receipts[step.number])
        self._live.done += step.size
        if step.native:
            self._live.native += step.size
        else:
            self._live.through_us += step.size
        self._live.touch()

    async def _step(self, upload: Upload, step: Step, ticket: Ticket | None) -> StepReceipt:
        [piece] = step.pieces
        assert piece.extent is not None
        extent = piece.extent
        if step.native and ticket is not None:
            url = partial(self._source.presign, ticket)
            return await upload.copy(step.number, step.offset, ticket, extent.start, extent.end, url)
        if self._target.capabilities.pours:

            async def stream(take: Take) -> None:
                await self._source.stream(extent, take)

            return await upload.pour(step.number, step.offset, step.size, stream)
        async with self._buffers.take(step.size) as buffer:
            await self._source.read(extent, buffer)
            return await upload.put(step.number, step.offset, buffer)

    def _count(self, item: Item, *, through: bool) -> None:
        self._live.done += item.size
        self._live.parts_done += 1
        if through:
            self._live.through_us += item.size
        self._live.touch()


@dataclass(slots=True)
class _Wrote:
    """What one attempt at an object has made visible."""

    began: float = field(default_factory=time)
    done: bool = False
    plan: Plan | None = None
    """By which routes."""
    etag: str = ""
    upload: Upload | None = None

    def by(self, receipt: StepReceipt) -> None:
        """One request has written it."""
        self.done, self.etag = True, receipt.etag
