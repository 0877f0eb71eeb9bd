"""The stages of a transfer: plan, open, fill, commit, publish, stop. Each may run again after a crash.

What a stage did is in the ledger before it ends, so running it again does only what is missing. In which order they
run, and that they run at all, is `jobs`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from fileserver import traces
from fileserver.catalogue import tables
from fileserver.catalogue.files import PAGE, now
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.hosts import RESTARTED, host_of
from fileserver.together import side_by_side, to_its_end
from fileserver.transfer import ledger, manifest_rows, routes
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.course import Course
from fileserver.transfer.described import described
from fileserver.transfer.dispatch import Fill
from fileserver.transfer.evidence import Evidence, Proof
from fileserver.transfer.execute import Executor, Mine, upload_id
from fileserver.transfer.finish import Finisher
from fileserver.transfer.live import PATIENCE, PLANNING, Live
from fileserver.transfer.manifest import Part
from fileserver.transfer.paging import Rows
from fileserver.transfer.plan import Segments, at_once
from fileserver.transfer.planning import Planner
from fileserver.transfer.record import PartRow, Plan, Record, Segment, plain
from fileserver.transfer.spec import spec_from_json
from fileserver.transfer.store_book import StoreBook
from planes.errors import Corrupt

AT_ONCE: Final = 16
_RESTARTS: Final = 5  # of machines, between the first byte and the last commit of a transfer


class Stages(Course):
    """What has to be done for a transfer, on this file server."""

    def __init__(self, planes: Configured, store: Store, buffers: Buffers, retire_after: float) -> None:
        super().__init__(store)
        self.filling: Fill = self.fill_here
        """Who stores a segment: this server, or (`transfer.dispatch`) one of many."""
        self._planes = planes
        self._planner = Planner(planes, store)
        self._executor = Executor(planes, StoreBook(store), buffers)
        self._evidence = Evidence(planes, store, buffers)
        self._finisher = Finisher(planes, store)
        self._rows = Rows(store)
        self._retire_after = retire_after

    async def plan(self, transfer: str, live: Live) -> int:
        """Draw and store the manifest; returns the number of segments."""
        record = await self.record(transfer)
        if record.plan is None:
            PATIENCE.set(PLANNING)
            await self._state(transfer, "PLANNING", live)
            await self._draw(record, live)
        elif record.plan.closing:  # a pause came between
            await self.reroute(transfer, live, record.plan.closing, record.plan.closing_route)
        return await self._store.read(lambda c: _count(c, transfer))

    async def _draw(self, record: Record, live: Live) -> None:
        drawing = await self._planner.draw(spec_from_json(record.spec), record.id)
        await self._store.write(lambda c: manifest_rows.clear_manifest(c, record.id))
        await self._store.write(lambda c: manifest_rows.save_sources(c, record.id, drawing.sources))
        cutting, parts = _Cutting(drawing.plan), drawing.parts()
        while page := await asyncio.to_thread(cutting.page, parts):
            await self._store.write(partial(page.enter, transfer=record.id))
        await self._store.write(lambda c: manifest_rows.add_segments(c, record.id, cutting.segments.rest()))
        live.total, live.parts_total = drawing.plan.size, drawing.plan.parts
        live.through_us += drawing.plan.windows
        values = {"plan": drawing.plan.to_json(), "warnings": list(drawing.warnings), "progress": plain(live.progress)}
        await self._store.write(lambda c: ledger.update(c, record.id, now(), **values))
        live.announce()

    async def open(self, transfer: str, live: Live) -> None:
        """Begin an upload for every part that needs one; tokens are recorded before a byte moves."""
        record = await self.record(transfer)
        plan = record.plan
        assert plan is not None
        await self._state(transfer, "RUNNING", live)
        again, plan = plan.opened, replace(plan, opened=True, boot=plan.boot or boot())
        await self._store.write(lambda c: ledger.update(c, transfer, now(), plan=plan.to_json()))
        target = self._planes.plane(plan.plane)
        tokens: dict[int, str] = {}

        async def begin(row: PartRow) -> None:
            name = upload_id(transfer, row.part.number)
            if again:  # a crash may have come between begin and record
                await target.discard(row.part.key, name)
            said = await described(self._planes.plane, target, row.part)
            upload = await target.upload(
                row.part.key,
                upload_id=name,
                replace=plan.overwrite,
                content_type=said.content_type,
                metadata=said.metadata,
                kind=plan.kind,
            )
            tokens[row.part.number] = upload.token

        async for page in self._rows.parts(transfer):
            todo = [row for row in page if row.token is None]
            tokens.clear()
            tokens.update(await asyncio.to_thread(_need_none, todo, plan, shared=target.capabilities.shared))
            try:
                await side_by_side([row for row in todo if row.part.number not in tokens], begin, AT_ONCE)
            finally:
                await to_its_end(self._store.write(lambda c: manifest_rows.set_tokens(c, transfer, tokens)))

    def hosts(self, plan: Plan) -> int:
        """How many hosts have the files that a transfer writes, or reads; 0 where the file servers reach them."""
        return max((len(self._planes.hosts(name)) for name in (plan.plane, *plan.apart)), default=0)

    async def fill(self, transfer: str, segment: int, live: Live) -> None:
        """Have what is missing of a segment stored."""
        await self.filling(transfer, segment, live)

    async def fill_here(self, transfer: str, segment: int, live: Live, mine: Mine | None = None) -> None:
        """Store what is missing of a segment, or of what of it is `mine`, on this file server."""
        with traces.span("segment", transfer, segment=segment, server=self._store.me):
            await self._executor.fill(transfer, segment, live, mine)

    async def reroute(self, transfer: str, live: Live, closed: dict[str, str], route: str = "") -> None:
        """Pack the same manifest anew without a route that a provider refused; what was written is removed first.

        `closed` says from which planes and why; a `route` of "" closes all of them. That this has begun is on record,
        so that whoever comes after a pause or a crash ends it (`plan` does) before anything that is recorded as stored
        is believed.

        Raises:
            Error: something could not be removed; its upload stays on record, and so does that this has begun.
        """
        record = await self.record(transfer)
        plan = record.plan
        assert plan is not None
        if not plan.closing and routes.without(plan, closed, route) == plan:
            return
        route = plan.closing_route if plan.closing else route
        plan = replace(plan, closing={**plan.closing, **closed}, closing_route=route)
        await self._store.write(lambda c: ledger.update(c, transfer, now(), plan=plan.to_json()))
        left = await self._finisher.clean(record)
        if left:
            raise left[0]
        await self._store.write(lambda c: _pack_anew(c, record, plan))
        live.done = live.native = live.parts_done = 0
        live.go_on("again")

    async def commit(self, transfer: str, live: Live) -> None:
        """Commit all parts."""
        record = await self.record(transfer)
        assert record.plan is not None
        await self._fill_after_power_cut(record, record.plan, live)
        await self._state(transfer, "PUBLISHING", live)
        for left in reversed(range(_RESTARTS)):
            try:
                await self._finisher.commit(transfer, record.plan, live)
            except Corrupt as error:
                if not left or error.facts.get("why") != RESTARTED:
                    raise
                await self._write_anew(transfer, error.facts.get("host", ""), live)
            else:
                return

    async def _write_anew(self, transfer: str, host: str, live: Live) -> None:
        """What is not committed on a host that was started anew is written again, as it may have lost some."""
        async for page in self._rows.parts(transfer):
            lost = [row.part.number for row in page if not row.done and row.token and host_of(row.part.key) == host]
            await self._store.write(partial(manifest_rows.begin_anew, transfer=transfer, numbers=lost))
        await self.open(transfer, live)
        for number in range(1, await self._store.read(lambda c: _count(c, transfer)) + 1):
            await self.fill(transfer, number, live)

    async def _fill_after_power_cut(self, record: Record, plan: Plan, live: Live) -> None:
        """Receipts of a directory may be on the disk without their bytes, if the machine went down in between."""
        if plan.boot == boot() or self._planes.plane(plan.plane).capabilities.shared:
            return
        if plan.hosts or self._planes.hosts(plan.plane):  # another machine's: its agent sees to that at the commit
            return
        await self._store.write(lambda c: manifest_rows.forget_receipts(c, record.id))
        for number in range(1, await self._store.read(lambda c: _count(c, record.id)) + 1):
            await self.fill(record.id, number, live)
        fresh = replace(plan, boot=boot()).to_json()
        await self._store.write(lambda c: ledger.update(c, record.id, now(), plan=fresh))

    async def publish(self, transfer: str, live: Live) -> None:
        """Settle the evidence and make the result visible; nothing to do if that has happened."""
        record = await self.record(transfer)
        plan = record.plan
        if record.ended is not None:
            return
        assert plan is not None
        verify = bool(record.spec["verify_read"])
        proof = await self._evidence.settle(transfer, plan, live, verify_read=verify)
        moment = now()
        outcome = self._outcome(record, plan, proof, live, moment)
        record = replace(record, progress=record.progress.forward(live.progress))
        await self._store.write(lambda c: ledger.update(c, transfer, moment, progress=plain(record.progress)))
        await self._finisher.publish(record, proof, outcome, moment, moment + self._retire_after)

    @staticmethod
    def _outcome(record: Record, plan: Plan, proof: Proof, live: Live, moment: float) -> dict[str, Any]:
        return {
            "size": plan.size,
            "evidence": proof.evidence,
            "route": f"{routes.phrase(proof.taken)}, {size_text(live.through_us)} through this machine",
            "routes": [asdict(each) for each in proof.taken],
            "seconds": max(moment - record.created, 0.001),
            "crc64nvme": proof.crc64nvme,
            "file": plan.file,
        }

    async def _removed(self, record: Record) -> list[str]:
        return [error.message for error in await self._finisher.clean(record)]

    async def clean_again(self, plane: str = "") -> None:
        """Try again to remove what ended transfers have left, on one plane or ("") on all."""
        for record in await self._store.read(ledger.unclean):
            if plane and (record.plan is None or record.plan.plane != plane):
                continue
            if not await self._finisher.clean(record):
                await self._store.write(partial(manifest_rows.clear_manifest, transfer=record.id))


def _pack_anew(c: sa.Connection, record: Record, plan: Plan) -> None:
    """Forget segments, receipts and tokens, and cut the manifest again; in one transaction, or not at all."""
    why = [routes.told(plane, plan.closing_route, why) for plane, why in plan.closing.items()]
    plan = replace(routes.without(plan, plan.closing, plan.closing_route), closing={}, closing_route="")
    manifest_rows.clear_segments(c, record.id)
    cutting, first = _Cutting(plan), 1
    while rows := manifest_rows.parts(c, record.id, first):
        manifest_rows.add_segments(c, record.id, cutting.page(iter([row.part for row in rows])).segments)
        first = rows[-1].part.number + 1
    manifest_rows.add_segments(c, record.id, cutting.segments.rest())
    ledger.update(c, record.id, now(), plan=plan.to_json(), warnings=[*record.warnings, *why])


def boot() -> str:
    """Names the present run of this machine, from its start to its next."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def size_text(size: int) -> str:
    """A size for people: 224 KiB, 1.5 GiB."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"


def _count(c: sa.Connection, transfer: str) -> int:
    s = tables.segments
    return c.execute(sa.select(sa.func.count()).select_from(s).where(s.c.transfer == transfer)).scalar_one()


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of a manifest, and the segments that are full with it."""

    parts: list[Part]
    segments: list[Segment]

    def __bool__(self) -> bool:
        return bool(self.parts)

    def enter(self, c: sa.Connection, transfer: str) -> None:
        manifest_rows.add_parts(c, transfer, self.parts)
        manifest_rows.add_segments(c, transfer, self.segments)


class _Cutting:
    """Cuts the parts of a plan into segments, page by page; busy for a while, so not for the event loop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.segments = Segments(plan.size)

    def page(self, parts: Iterator[Part]) -> _Page:
        """The next page of parts."""
        page = list(islice(parts, PAGE))
        full = [s for part in page for s in self.segments.add(part, routes.steps(part, self._plan))]
        return _Page(page, full)


def _need_none(rows: list[PartRow], plan: Plan, *, shared: bool) -> dict[int, str]:
    """An empty token for each part that one request writes.

    A target outside of our folders needs an upload on a plane that is not a store: if a crash comes before its commit
    is recorded, nothing else tells that the object is ours.
    """
    if not plan.file and not shared:
        return {}

    def needs_none(part: Part) -> bool:
        steps = routes.steps(part, plan)
        return at_once(part, steps, plan.limits, routes.copies_whole(plan)) != ""

    return {row.part.number: "" for row in rows if needs_none(row.part)}
