"""From stored steps to a proved, visible result, or to nothing at all: commit, settle, publish, clean up.

The evidence of a part is `compared` when what its writer reported equals a value that did not come from this write:
every step's own comparison, the stored value of a source that is wholly in it, the stored values of all sources
composed, or (verify_read) both ends read again. Else it is `pinned`, and its first and last 4 KiB are compared.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from fileserver.catalogue import files
from fileserver.catalogue.files import PAGE, FilePart, LogicalFile, now
from fileserver.catalogue.names import MANIFEST, folder
from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.errors import Cancelled
from fileserver.transfer import ledger
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.execute import copies, odd_quotes, upload_id
from fileserver.transfer.live import Live, Paused
from fileserver.transfer.manifest import Literal, Source
from fileserver.transfer.plan import steps_of
from fileserver.transfer.record import Done, PartRow, Plan, Record, StoredStep, plain
from planes import checksum
from planes.errors import Corrupt, Error, Missing
from planes.plane import KIB, MIB, Plane
from planes.plane import Extent as PlaneExtent

T = TypeVar("T")

AT_ONCE: Final = 16
_LEFT: Final = 3  # objects that could not be removed, after which clean-up gives up
_COMMITS: Final = 200  # parts whose commits are recorded together
_SAMPLE: Final = 4 * KIB
_READ: Final = 8 * MIB


@dataclass(frozen=True, slots=True)
class Proof:
    """What settling found of a whole transfer."""

    evidence: str
    crc64nvme: int | None


class Finisher:
    """The end of a transfer on this file server."""

    def __init__(self, planes: Configured, store: Store, buffers: Buffers) -> None:
        self._planes = planes
        self._store = store
        self._buffers = buffers

    # --- commit -------------------------------------------------------------------------------------------------

    async def commit(self, transfer: str, plan: Plan, live: Live) -> None:
        """Commit every part that is not committed yet, after comparing it with what the sources' values say.

        A commit that has begun ends and is recorded, even if the transfer is being stopped.

        Raises:
            Corrupt: what is stored is not what the sources hold; nothing of that part became visible.
        """
        known = await self._source_values(transfer)
        async for page in self._pages(transfer, _COMMITS):
            first, last = page[0].part.number, page[-1].part.number
            stored = await self._store.read(lambda c, a=first, b=last: ledger.steps(c, transfer, a, b))  # type: ignore[misc]
            gate = asyncio.Semaphore(AT_ONCE)
            done: list[Done] = []

            async def one(
                row: PartRow, gate: asyncio.Semaphore = gate, stored: Any = stored, done: list[Done] = done
            ) -> None:
                async with gate:
                    steps = stored.get(row.part.number, [])
                    await to_its_end(self._commit_part(plan, row, steps, known), done.append)
                    live.parts_done += 1
                    live.touch()

            try:
                await all_of(one(row) for row in page if not row.done)
            finally:
                await to_its_end(self._store.write(lambda c, done=done: self._record(c, transfer, done, live)))  # type: ignore[misc]

    @staticmethod
    def _record(c: sa.Connection, transfer: str, done: list[Done], live: Live) -> None:
        ledger.parts_done(c, transfer, done)
        ledger.update(c, transfer, now(), progress=plain(live.progress))

    async def _commit_part(
        self, plan: Plan, row: PartRow, stored: list[StoredStep], known: dict[tuple[str, str], Source]
    ) -> Done:
        part = row.part
        expected = [s.size for s in steps_of(part, plan.limits, copies(plan))]
        if [s.receipt.size for s in stored] != expected:
            msg = f"part {part.number} lacks steps: {len(stored)} of {len(expected)} are recorded"
            raise Corrupt(msg, part=str(part.number))
        if all(s.quotes is not None for s in stored) and sum(s.quotes or 0 for s in stored) % 2:
            raise odd_quotes(part)
        crc: int | None = 0
        other: int | None = 0 if plan.kind != "crc64nvme" else None
        for s in stored:
            crc = _join(crc, (s.receipt.crc64nvme, s.receipt.size))
            other = _join(other, (s.receipt.other, s.receipt.size), plan.kind)
        mine = crc if plan.kind == "crc64nvme" else other
        (value, _), whole = _expected(row, known, plan.kind)
        if whole and mine is not None and value is not None:
            _same(mine, value, where(plan.plane, part.key), plan.kind)
        compared = all(s.receipt.compared for s in stored)
        upload = self._planes.plane(plan.plane).resume(row.token or "")
        info = await upload.commit([s.receipt for s in stored], part.size, crc)
        return Done(part.number, crc, other, compared, info.version)

    # --- evidence -----------------------------------------------------------------------------------------------

    async def settle(self, transfer: str, plan: Plan, live: Live, *, verify_read: bool) -> Proof:
        """Compare what was written with every value that did not come from the write.

        Raises:
            Corrupt: two values differ that must be equal.
        """
        known = await self._source_values(transfer)
        written: int | None = 0
        expected: int | None = 0
        crc: int | None = 0
        all_compared = True
        async for page in self._pages(transfer):
            marks: list[int] = []
            for row in page:
                value, whole = _expected(row, known, plan.kind)
                mine = (row.value(plan.kind), row.part.size)
                expected, written = _join(expected, value, plan.kind), _join(written, mine, plan.kind)
                crc = _join(crc, (row.crc64nvme, row.part.size))
                if whole and mine[0] is not None and value[0] is not None:
                    _same(mine[0], value[0], f"part {row.part.number} ({where(plan.plane, row.part.key)})", plan.kind)
                    marks += [] if row.compared else [row.part.number]
                elif not row.compared:
                    all_compared = False
            await self._mark(transfer, marks)
        if written is not None and expected is not None:
            _same(written, expected, "the whole", plan.kind)
            all_compared = True
        if not all_compared or verify_read:
            all_compared = await self._look(transfer, plan, live, read=verify_read)
        return Proof("compared" if all_compared else "pinned", crc)

    async def _source_values(self, transfer: str) -> dict[tuple[str, str], Source]:
        found: dict[tuple[str, str], Source] = {}
        after = 0
        while page := await self._store.read(lambda c, after=after: ledger.sources(c, transfer, after)):  # type: ignore[misc]
            found |= {(s.plane, s.key): s for s in page}
            after += len(page)
        return found

    async def _mark(self, transfer: str, numbers: list[int]) -> None:
        if numbers:
            await self._store.write(lambda c: ledger.parts_compared(c, transfer, numbers))

    async def _look(self, transfer: str, plan: Plan, live: Live, *, read: bool) -> bool:
        """Compare first and last 4 KiB of the parts without comparison, or (read) all of every part."""
        target = self._planes.plane(plan.plane)
        async for page in self._pages(transfer):
            for row in page:
                if read:
                    await self._compare(target, row, [(0, row.part.size)], live)
                    await self._mark(transfer, [row.part.number])
                elif not row.compared:
                    size = row.part.size
                    ends = [(0, min(size, _SAMPLE)), (max(0, size - _SAMPLE), size)]
                    await self._compare(target, row, ends, live)
        return read

    async def _compare(self, target: Plane, row: PartRow, ranges: Sequence[tuple[int, int]], live: Live) -> None:
        info = await target.stat(row.part.key)
        what = f"part {row.part.number} ({row.part.key})"
        if info.size != row.part.size:
            msg = f"{what} has {info.size} bytes instead of {row.part.size}"
            raise Corrupt(msg, key=row.part.key)
        for start, end in ranges:
            mine, theirs = 0, 0
            for low in range(start, end, _READ):
                high = min(low + _READ, end)
                async with self._buffers.take(2 * (high - low)) as both:
                    here, there = both[: high - low], both[high - low :]
                    await target.read(PlaneExtent(row.part.key, info.version, low, high), here)
                    await self._read_source(row, low, there)
                    mine, theirs = checksum.compute(here, mine), checksum.compute(there, theirs)
                live.checked += 2 * (high - low)
            _same(mine, theirs, f"{what} between bytes {start} and {end}")

    async def _read_source(self, row: PartRow, start: int, into: memoryview) -> None:
        """Bytes of the part from `start` on, from where they came."""
        at, end = 0, start + len(into)
        for piece in row.part.pieces:
            low, high = max(start, at), min(end, at + piece.size)
            if low < high:
                view = into[low - start : high - start]
                if isinstance(piece, Literal):
                    view[:] = piece.data[low - at : high - at]
                else:
                    begin = piece.start - at
                    extent = PlaneExtent(piece.key, piece.version, begin + low, begin + high)
                    await self._planes.plane(piece.plane).read(extent, view)
            at += piece.size

    # --- publish ------------------------------------------------------------------------------------------------

    async def publish(
        self, record: Record, proof: Proof, outcome: dict[str, Any], moment: float, retire_at: float
    ) -> None:
        """Make the logical file visible, whole, and end the transfer, in one transaction; may run twice."""
        plan = record.plan
        assert plan is not None
        if plan.file:
            await self._enter(record.id, plan)
            await self._write_manifest(record, plan, proof)
        file = LogicalFile(
            plan.file,
            record.id,
            plan.size,
            plan.format,
            proof.evidence,
            proof.crc64nvme,
            plan.parts,
            record.id,
            moment,
        )

        def work(c: sa.Connection) -> None:
            wish = ledger.get(c, record.id).wish
            if wish:  # asked while the last byte was proved: nothing is visible yet
                raise Cancelled(f"the transfer {record.id} was cancelled") if wish == "cancel" else Paused
            if plan.file:
                files.publish(c, file, overwrite=plan.overwrite, retire_at=retire_at)
            ledger.end(c, record.id, moment, "SUCCEEDED", outcome=outcome)

        await self._store.write(work, durable=True)

    async def _enter(self, transfer: str, plan: Plan) -> None:
        async for page in self._pages(transfer):
            rows = [_file_part(plan, row) for row in page]
            await self._store.write(lambda c, rows=rows: files.enter_parts(c, transfer, rows))  # type: ignore[misc]

    async def _write_manifest(self, record: Record, plan: Plan, proof: Proof) -> None:
        """What readers that do not ask us, and `files rebuild`, need to know; written last."""
        content: dict[str, Any] = {
            "cropduster": 1,
            "name": plan.file,
            "generation": record.id,
            "created": record.created,
            "size": plan.size,
            "format": plan.format,
            "evidence": proof.evidence,
            "crc64nvme": None if proof.crc64nvme is None else checksum.to_hex(proof.crc64nvme),
            "parts": [],
            "sources": [
                {"plane": s.plane, "key": s.key, "size": s.size, "version": s.version}
                for s in (await self._source_values(record.id)).values()
            ],
        }
        async for page in self._pages(record.id):
            content["parts"] += [
                {
                    "number": p.number,
                    "key": p.key,
                    "size": p.size,
                    "checksum": {kind: checksum.to_hex(v, kind) for kind, v in p.checksums.items()},
                }
                for p in (_file_part(plan, row) for row in page)
            ]
        key = f"{folder(plan.file, record.id)}/{MANIFEST}"
        data = json.dumps(content, indent=1).encode()
        await self._planes.plane(plan.plane).put(
            key, data, upload_id=upload_id(record.id, 0), replace=True, content_type="application/json"
        )

    # --- clean up -----------------------------------------------------------------------------------------------

    async def clean(self, record: Record) -> list[str]:
        """Remove everything that a transfer has written; returns a sentence for what could not be removed."""
        plan = record.plan
        left: list[str] = []
        if plan is None or not plan.opened:
            return left
        if plan.file:
            manifest = f"{folder(plan.file, record.id)}/{MANIFEST}"
            await self._remove(plan.plane, manifest, upload_id(record.id, 0), None, left, ours=True)
        async for page in self._pages(record.id):
            gate = asyncio.Semaphore(AT_ONCE)

            async def one(row: PartRow, gate: asyncio.Semaphore = gate) -> None:
                async with gate:
                    name, ours = upload_id(record.id, row.part.number), bool(plan.file) or row.done
                    await self._remove(plan.plane, row.part.key, name, row.token, left, ours=ours)

            await all_of(one(row) for row in page)
        return left

    async def _remove(
        self, name: str, key: str, attempt: str, token: str | None, left: list[str], *, ours: bool
    ) -> None:
        """Remove one object and its upload; what can't be is added to `left`."""
        if len(left) >= _LEFT:  # the plane itself is gone: asking it once more for each part helps nobody
            return
        plane = self._planes.plane(name)
        try:
            if token:
                await plane.resume(token).abort()
            else:
                await plane.discard(key, attempt)
            if ours:
                await plane.delete(key)
        except Missing:  # the bucket or root itself is gone, and everything in it
            return
        except Error as error:
            left.append(f"{where(name, key)} could not be removed: {error.message}")

    async def _pages(self, transfer: str, size: int = PAGE) -> AsyncIterator[list[PartRow]]:
        first = 1
        while page := await self._store.read(lambda c, first=first: ledger.parts(c, transfer, first, limit=size)):  # type: ignore[misc]
            yield page
            first = page[-1].part.number + 1


async def to_its_end(work: Coroutine[None, None, T], then: Callable[[T], object] = lambda _: None) -> None:
    """Run `work` and hand on its result; a caller that is cancelled waits for that before it goes."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None or task.exception() is None:
        then(task.result())
    if cancelled is not None:
        raise cancelled


async def all_of(work: Any) -> None:
    """Run all; the first failure cancels the rest and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except BaseExceptionGroup as failed:
        inner: BaseException = failed
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        raise inner from None


def _join(total: int | None, piece: tuple[int | None, int], kind: str = "crc64nvme") -> int | None:
    """The checksum of what is known so far and a piece; None once something is unknown."""
    value, size = piece
    if size == 0:
        return total
    return None if total is None or value is None else checksum.combine(total, value, size, kind)


def _same(one: int, other: int, what: str, kind: str = "crc64nvme") -> None:
    if one != other:
        mine, its = checksum.to_hex(one, kind), checksum.to_hex(other, kind)
        msg = f"{what}: {kind} is {mine} as written, {its} as the source says; the transfer is undone"
        raise Corrupt(msg, written=mine, source=its)


def _file_part(plan: Plan, row: PartRow) -> FilePart:
    values = {kind: value for kind in ("crc64nvme", plan.kind) if (value := row.value(kind)) is not None}
    return FilePart(row.part.number, plan.plane, row.part.key, row.part.size, row.version, values, owned=True)


def _expected(row: PartRow, known: dict[tuple[str, str], Source], kind: str) -> tuple[tuple[int | None, int], bool]:
    """((checksum, size) of what the sources' values prove by the end of a part, whether that is the part's own)."""
    total: int | None = 0
    size = 0
    whole = True
    for piece in row.part.pieces:
        if isinstance(piece, Literal):
            value: int | None = checksum.compute(piece.data, kind=kind)
        else:
            whole = whole and piece.whole
            if piece.end != piece.of:  # the value of a source counts once, where the source ends
                continue
            value = known[piece.plane, piece.key].checksums.get(kind)
        length = piece.size if isinstance(piece, Literal) else piece.of
        total, size = _join(total, (value, length), kind), size + length
    return (total, size), whole
