"""One object of a sync → its bytes in place, with evidence. Reads no row and decides no order.

The route is that of any part: the provider copies if it can, else the bytes travel, whole if they are few, in steps if
they are many.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from time import time
from typing import Final

from fileserver.configured import Configured, where
from fileserver.together import side_by_side
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.described import Described, inherited
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Extent, Part
from fileserver.transfer.plan import at_once, steps_of
from fileserver.transfer.spec import Sync
from fileserver.transfer.sync_plan import folder
from fileserver.transfer.sync_rows import Item
from planes import checksum
from planes.errors import Changed, Corrupt, Error, NotFound, Refused, Unsupported
from planes.pack import Step
from planes.plane import KIB, MIB, Info, Plane, StepReceipt, Take, Ticket, Upload
from planes.plane import Extent as PlaneExtent

WIDTH: Final = 8
"""Steps of one large object in flight."""

_SAMPLE: Final = 4 * KIB
_READ: Final = 8 * MIB
_TICK: Final = 2.0  # seconds by which the clock of a file system may be behind

Tokens = Callable[[Item, str], Awaitable[None]]
"""Records the upload of an item."""


class Mover:
    """Copies the objects of one sync."""

    def __init__(
        self, planes: Configured, buffers: Buffers, transfer: str, sync: Sync, live: Live, *, verify_read: bool
    ) -> None:
        self._source, self._target = planes.plane(sync.source.plane), planes.plane(sync.target.plane)
        self._from, self._to = folder(sync.source), folder(sync.target)
        self._names = (sync.source.plane, sync.target.plane)
        self._buffers = buffers
        self._transfer = transfer
        self._checksum = sync.checksum
        self._live = live
        self._verify = verify_read
        self.closed = ""
        """Why the target copies nothing by itself any more; empty while it may."""
        self._open = dict[int, str]()
        """By item, the upload that it has begun and that is neither committed nor aborted."""

    async def move(self, item: Item, tokens: Tokens) -> tuple[str, bool]:
        """Copy one object, unless its contents turn out to be the same: ("copied" or "equal", compared).

        A source that has changed since it was listed is looked at once more.

        Raises:
            Error: what the planes raise; nothing half-made is left but what `left` names.
        """
        if item.token:
            self._open[item.number] = item.token
            await self._abort(item)
        if item.why in {"newer", "checksum"} and await self._same(item):
            self._count(item, through=False)
            return "equal", True
        try:
            compared = await self._proved(item, tokens)
        except Changed:
            info = await self._source.stat(self._from + item.key)
            item = replace(item, size=info.size, version=info.version)
            compared = await self._proved(item, tokens)
        return "copied", compared

    def left(self, item: Item) -> str | None:
        """The token of an upload that an item has begun and that could not be aborted; asked once."""
        return self._open.pop(item.number, None)

    async def _proved(self, item: Item, tokens: Tokens) -> bool:
        """Copy an object and look at what came of it; what turns out to be other bytes does not stay."""
        wrote = _Wrote()
        try:
            compared = await self._copy(item, tokens, wrote)
            return await self._look(item) if self._verify or not compared else compared
        except Corrupt as error:
            if wrote.done:
                try:
                    await self._unmake(item, wrote)
                except Error as stays:
                    error.add_note(f"moreover: what was written is still there: {stays.message}")
            raise

    async def _unmake(self, item: Item, wrote: _Wrote) -> None:
        """Delete what was just written, unless somebody else has written there since."""
        key = self._to + item.key
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

    async def _copy(self, item: Item, tokens: Tokens, wrote: _Wrote) -> bool:
        key, size = self._from + item.key, item.size
        extent = Extent(self._names[0], key, item.version, 0, size, size)
        part = Part(item.number, self._to + item.key, (extent,) if size else ())
        ticket = None if self.closed else self._ticket(key, item)
        limits = self._target.limits
        steps = steps_of(part, limits, lambda e: ticket is not None and e.of > limits.min_copy_source)
        way = at_once(part, steps, limits, lambda _: ticket is not None)
        if ticket is not None and (way == "copy" or any(step.native for step in steps)):
            try:
                receipt = await self._native(item, part, way, steps, ticket, tokens, wrote)
            except (Refused, Unsupported) as error:
                if type(error) not in {Refused, Unsupported}:  # a full disk refuses the bytes, not the route
                    raise
                self.closed = error.message
                return await self._copy(item, tokens, wrote)
            return receipt.compared or await self._is_source(key, item, receipt)
        return await self._through_us(item, part, way, steps, tokens, wrote)

    def _ticket(self, key: str, item: Item) -> Ticket | None:
        """A ticket for the version that was listed: one that changed since is refused by the copy itself."""
        ticket = self._source.copy_ticket(Info(key, item.size, item.version, datetime.now(UTC)))
        return ticket if ticket is not None and self._target.accepts(ticket) else None

    async def _native(
        self, item: Item, part: Part, way: str, steps: list[Step], ticket: Ticket, tokens: Tokens, wrote: _Wrote
    ) -> StepReceipt:
        if way == "copy":
            url = partial(self._source.presign, ticket)
            receipt = await self._target.copy(part.key, ticket, upload_id=self._attempt(item), replace=True, url=url)
            wrote.by(receipt)
            self._count(item, through=False)
            self._live.native += item.size
            return receipt
        return await self._in_steps(item, part, steps, tokens, await self._described(item), ticket, wrote)

    async def _described(self, item: Item) -> Info | None:
        """The facts of the source, which must be of the version that was listed; None unless both ends are stores."""
        if not (self._source.capabilities.shared and self._target.capabilities.shared):
            return None
        info = await self._source.stat(self._from + item.key)
        if info.version.split(" ")[0] != item.version.split(" ")[0]:
            msg = f"{where(self._names[0], info.key)} has changed since it was listed"
            raise Changed(msg, plane=self._names[0], key=info.key)
        return info

    async def _through_us(
        self, item: Item, part: Part, way: str, steps: list[Step], tokens: Tokens, wrote: _Wrote
    ) -> bool:
        """Read and put; where both ends keep what describes an object, it comes along."""
        info = await self._described(item)
        if way == "put":
            receipt = await self._put(item, part.key, info)
            wrote.by(receipt)
        else:
            receipt = await self._in_steps(item, part, steps, tokens, info, None, wrote)
        self._live.checked += receipt.bytes_checked
        if info is not None and self._hold_against(info, receipt, part.key):
            return True
        return receipt.compared or (info is None and await self._is_source(self._from + item.key, item, receipt))

    async def _put(self, item: Item, key: str, info: Info | None) -> StepReceipt:
        """Read a small object and put it whole; compared if its version is the MD5 of what was read."""
        said = inherited(info, self._target) if info else Described()
        async with self._buffers.take(item.size) as buffer:
            if item.size:
                await self._source.read(PlaneExtent(self._from + item.key, item.version, 0, item.size), buffer)
            receipt = await self._target.put(
                key,
                buffer,
                upload_id=self._attempt(item),
                replace=True,
                content_type=said.content_type,
                metadata=said.metadata,
            )
            if not receipt.compared and receipt.crc64nvme == checksum.compute(buffer):
                receipt = replace(receipt, compared=checksum.is_digest(item.version, buffer))
        self._count(item, through=True)
        return receipt

    async def _in_steps(
        self,
        item: Item,
        part: Part,
        steps: list[Step],
        tokens: Tokens,
        info: Info | None,
        ticket: Ticket | None,
        wrote: _Wrote,
    ) -> StepReceipt:
        """A large object by an upload, which is recorded before a byte moves; a crash costs this object's bytes."""
        said = inherited(info, self._target) if info else Described()
        await self._abort(item)
        upload = await self._target.upload(
            part.key,
            upload_id=self._attempt(item),
            replace=True,
            content_type=said.content_type,
            metadata=said.metadata,
        )
        receipts = dict[int, StepReceipt]()

        async def one(step: Step) -> None:
            receipts[step.number] = await self._step(upload, step, ticket)
            self._live.done += step.size
            self._live.touch()

        self._open[item.number] = upload.token
        try:
            await tokens(item, upload.token)
            await side_by_side(steps, one, WIDTH)
            stored = [receipts[step.number] for step in steps]
            whole = _composed(stored)
            await upload.commit(stored, item.size, whole)
        except BaseException as error:
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
        return StepReceipt(1, item.size, whole, compared=all(r.compared for r in stored), bytes_checked=checked)

    async def _step(self, upload: Upload, step: Step, ticket: Ticket | None) -> StepReceipt:
        [piece] = step.pieces
        assert piece.extent is not None
        extent = piece.extent
        if step.native and ticket is not None:
            self._live.native += step.size
            url = partial(self._source.presign, ticket)
            return await upload.copy(step.number, step.offset, ticket, extent.start, extent.end, url)
        self._live.through_us += step.size
        if self._target.capabilities.pours:

            async def stream(take: Take) -> None:
                await self._source.stream(extent, take)

            return await upload.pour(step.number, step.offset, step.size, stream)
        async with self._buffers.take(step.size) as buffer:
            await self._source.read(extent, buffer)
            return await upload.put(step.number, step.offset, buffer)

    def _attempt(self, item: Item) -> str:
        return f"{self._transfer}-{item.number}"

    def _count(self, item: Item, *, through: bool) -> None:
        self._live.done += item.size
        self._live.parts_done += 1
        if through:
            self._live.through_us += item.size
        self._live.touch()

    # --- evidence -----------------------------------------------------------------------------------------------

    async def _is_source(self, key: str, item: Item, receipt: StepReceipt) -> bool:
        """Whether what a provider says of its copy equals what was stored with the source before."""
        if receipt.crc64nvme is None or not self._source.capabilities.checksums:
            return False
        info = await self._source.stat(key)
        return info.version.split(" ")[0] == item.version.split(" ")[0] and self._hold_against(info, receipt, key)

    def _hold_against(self, info: Info, receipt: StepReceipt, key: str) -> bool:
        """Whether a source's stored checksum could be compared; raises Corrupt if it differs."""
        mine, its = receipt.crc64nvme, info.checksums.get("crc64nvme")
        if mine is not None and its is not None and mine != its:
            raise self._differs(key, checksum.to_hex(mine), checksum.to_hex(its))
        return mine is not None and its is not None

    async def _same(self, item: Item) -> bool:
        """Whether both ends hold the same bytes, by checksums: stored ones, else of the bytes that lie nearer."""
        here = await self._source.stat(self._from + item.key)
        there = await self._target.stat(self._to + item.key)
        if here.size != there.size:
            return False
        kinds = [kind for kind in checksum.WIDTH if kind in here.checksums or kind in there.checksums]
        kinds.sort(key=lambda kind: not (kind in here.checksums and kind in there.checksums))
        if not kinds and not self._checksum:
            return False
        kind = kinds[0] if kinds else "crc64nvme"
        mine = here.checksums.get(kind)
        its = there.checksums.get(kind)
        mine = await self._sum(self._source, here, kind) if mine is None else mine
        its = await self._sum(self._target, there, kind) if its is None else its
        return mine == its

    async def _look(self, item: Item) -> bool:
        """Compare the first and last 4 KiB of both ends, or all of them; whether it was all.

        Raises:
            Corrupt: they differ.
        """
        size = item.size
        there = await self._target.stat(self._to + item.key)
        here = Info(self._from + item.key, size, item.version, there.modified)
        if there.size != size:
            raise self._differs(there.key, f"{there.size} bytes", f"{size} bytes")
        whole = self._verify or size <= 2 * _SAMPLE
        ranges = [(0, size)] if whole else [(0, _SAMPLE), (size - _SAMPLE, size)]
        for start, end in ranges:
            mine = await self._sum(self._target, there, "crc64nvme", start, end)
            its = await self._sum(self._source, here, "crc64nvme", start, end)
            if mine != its:
                raise self._differs(there.key, checksum.to_hex(mine), checksum.to_hex(its))
        return whole

    async def _sum(self, plane: Plane, info: Info, kind: str, start: int = 0, end: int | None = None) -> int:
        """The checksum of bytes [start, end) of an object, read for that alone."""
        total, end = 0, info.size if end is None else end
        for low in range(start, end, _READ):
            high = min(low + _READ, end)
            async with self._buffers.take(high - low) as buffer:
                await plane.read(PlaneExtent(info.key, info.version, low, high), buffer)
                total = checksum.compute(buffer, total, kind)
            self._live.checked += high - low
        return total

    def _differs(self, key: str, written: str, source: str) -> Corrupt:
        msg = f"{where(self._names[1], key)}: {written} as written, {source} as the source says; run the sync again"
        return Corrupt(msg, key=key, written=written, source=source)


@dataclass(slots=True)
class _Wrote:
    """What one attempt at an object has made visible."""

    began: float = field(default_factory=time)
    done: bool = False
    etag: str = ""
    upload: Upload | None = None

    def by(self, receipt: StepReceipt) -> None:
        """One request has written it."""
        self.done, self.etag = True, receipt.etag


def _composed(receipts: list[StepReceipt]) -> int | None:
    values = [(r.crc64nvme, r.size) for r in receipts]
    if any(value is None for value, _ in values):
        return None
    return checksum.combine_all((value or 0, size) for value, size in values)
