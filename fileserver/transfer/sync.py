"""The stages of a sync: plan, open, fill, commit, publish, stop, as those of other transfers, under the same workflow.

Its work is in tables of its own (`sync_rows`): there is no catalogue, no manifest and nothing to undo. Every object
is whole at its target or not there; one that fails is recorded and named at the end, and running the same sync again
does only what is missing.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue.files import now
from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.errors import Cancelled, to_record
from fileserver.together import side_by_side, to_its_end
from fileserver.transfer import ledger, manifest_rows, sync_guard, sync_rows
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.course import Course
from fileserver.transfer.live import Live, Paused
from fileserver.transfer.record import Plan, Record, plain
from fileserver.transfer.spec import Spec, Sync, spec_from_json
from fileserver.transfer.stages import boot, size_text
from fileserver.transfer.sync_journal import Moved
from fileserver.transfer.sync_move import Mover
from fileserver.transfer.sync_plan import Compared, SyncPlanner, folder, target_of, too_many
from fileserver.transfer.sync_record import Recorded
from fileserver.transfer.sync_rows import Ended, Item, Tally
from fileserver.transfer.sync_small import MOST, OUTAGES, Together
from planes.errors import Error, Missing, NotFound, Refused
from planes.plane import Plane

WIDTH: Final = 64
"""Objects of a segment in flight; the planes' own limits may allow fewer."""
MOST_FAILED: Final = 1000
"""Failures after which it is not some objects that cannot be copied, but all."""
SHOWN: Final = 100
"""Failures that an outcome names."""


class SyncStages(Course):
    """What has to be done for a sync, on this file server."""

    def __init__(self, planes: Configured, store: Store, buffers: Buffers) -> None:
        super().__init__(store)
        self._planes = planes
        self._buffers = buffers
        self._planner = SyncPlanner(planes, store)
        self._previews: set[str] = set()
        self._closed: dict[str, str] = {}
        """By transfer, why its target copies nothing by itself."""
        self._alone: set[str] = set()
        """Transfers whose small objects do not go together."""

    async def preview(self, spec: Spec) -> AsyncGenerator[tuple[Compared, list[Item]]]:
        """What a sync would do, a page of objects at a time, the first of which may be empty; writes no object."""
        sync, name = _sync(spec), f"preview-{uuid.uuid4().hex[:12]}"
        await target_of(sync, self._planes)
        self._previews.add(name)
        try:
            compared = await self._planner.compare(sync, name)
            items = await self._store.read(lambda c: sync_rows.page(c, name, 1, pending=False))
            yield compared, items
            while items:
                last = items[-1].number
                items = await self._store.read(partial(sync_rows.page, transfer=name, first=last + 1, pending=False))
                if items:
                    yield compared, items
        finally:
            self._previews.discard(name)
            await to_its_end(self._store.write(lambda c: sync_rows.clear(c, name)))

    async def compare(self, spec: Spec) -> Compared:
        """How much a sync would do."""
        async with aclosing(self.preview(spec)) as pages:
            return (await anext(pages))[0]

    # --- stages -------------------------------------------------------------------------------------------------

    async def plan(self, transfer: str, live: Live) -> int:
        """List and compare both ends; returns the number of segments.

        Raises:
            Refused: more would be deleted than was allowed.
        """
        record = await self.record(transfer)
        if record.plan is None:
            await self._state(transfer, "PLANNING", live)
            await self._compare(record, live)
        return await self._store.read(lambda c: sync_rows.segment_count(c, transfer))

    async def _compare(self, record: Record, live: Live) -> None:
        spec = spec_from_json(record.spec)
        sync, transfer = _sync(spec), record.id
        await self._store.write(lambda c: manifest_rows.clear_manifest(c, transfer))
        compared = await self._planner.compare(sync, transfer)
        totals = compared.totals
        if (refused := too_many(sync, totals)) is not None:
            raise refused
        await self._store.write(lambda c: sync_rows.cut(c, transfer, totals))
        live.total, live.parts_total = totals.copy_bytes, totals.copy + totals.delete
        made = Plan(
            plane=sync.target.plane,
            file="",
            format=None,
            split="none",
            size=totals.copy_bytes,
            parts=totals.copy + totals.delete,
            limits=self._planes.plane(sync.target.plane).limits,
            native={},
            overwrite=True,
            equal=totals.equal,
        )
        values = {"plan": made.to_json(), "warnings": list(compared.warnings), "progress": plain(live.progress)}
        await self._store.write(lambda c: ledger.update(c, transfer, now(), **values))
        live.announce()

    async def open(self, transfer: str, live: Live) -> None:
        """Nothing to begin: uploads of large objects begin with their bytes.

        What a directory had before the machine went down may be recorded as stored, and not be on the disk.
        """
        await self._state(transfer, "RUNNING", live)
        plan = (await self.record(transfer)).plan
        assert plan is not None
        if plan.boot == boot():
            return
        lost = plan.boot and not self._planes.plane(plan.plane).capabilities.shared

        def work(c: sa.Connection) -> None:
            if lost:
                manifest_rows.forget_steps(c, transfer)
            ledger.update(c, transfer, now(), plan=replace(plan, boot=boot()).to_json())

        await self._store.write(work)

    async def fill(self, transfer: str, segment: int, live: Live) -> None:
        """Copy what has not ended of a segment."""
        run, done = await self._store.read(lambda c: manifest_rows.segment(c, transfer, segment))
        if done:
            return
        await self._store.write(lambda c: manifest_rows.segment_begun(c, transfer, segment, self._store.me, now()))
        record = await self.record(transfer)
        spec = spec_from_json(record.spec)
        mover = Mover(self._planes, self._buffers, transfer, _sync(spec), live, verify_read=spec.verify_read)
        mover.closed = self._closed.get(transfer, "")
        together = Together(mover, self._planes, self._buffers, off=transfer in self._alone)
        work = Recorded(self._store, transfer, live, sync_rows.enter_ended)
        first = run.first_part
        async with work:
            while items := await self._store.read(
                partial(sync_rows.page, transfer=transfer, first=first, last=run.last_part)
            ):
                groups, alone = together.groups(items)
                await side_by_side(groups, partial(self._some, mover, together, work), WIDTH // MOST)
                await side_by_side(alone, partial(self._one, mover, work), WIDTH)
                first = items[-1].number + 1
        if together.off:
            self._alone.add(transfer)
        if mover.closed:
            self._closed[transfer] = mover.closed
            await self._note(transfer, f"{mover.closed}; bytes travelled through this machine")
        await self._stop_if_hopeless(transfer)
        await self._store.write(lambda c: manifest_rows.segment_done(c, transfer, segment, now()))

    async def _some(self, mover: Mover, together: Together, work: Recorded[Ended], items: Sequence[Item]) -> None:
        """Small objects in one go; those with which something was wrong go alone then, and say what it is."""
        work.check()

        def ended(item: Item, moved: Moved) -> None:
            work.ended.append(Ended(item.number, moved.result, moved.compared, None, None, moved.route, moved.because))

        for item in await together.move(items, ended):
            await self._one(mover, work, item)

    async def _one(self, mover: Mover, work: Recorded[Ended], item: Item) -> None:
        work.check()
        try:
            moved = await mover.move(item, work)
        except Error as error:
            if isinstance(error, OUTAGES):
                raise
            work.live.parts_done += 1
            work.ended.append(Ended(item.number, "failed", error=to_record(error), token=mover.left(item)))
        else:
            left = mover.left(item)
            facts = (moved.result, moved.compared, None, left, moved.route, moved.because)
            work.ended.append(Ended(item.number, *facts))

    async def reroute(self, transfer: str, live: Live, closed: dict[str, str], route: str = "") -> None:
        """Never asked for: an object whose route is refused takes the other at once."""

    async def commit(self, transfer: str, live: Live) -> None:
        """Delete what the source does not have, if everything else went well."""
        await self._state(transfer, "PUBLISHING", live)
        if not await self._store.read(lambda c: sync_rows.deletions(c, transfer, 0)):
            return
        tally = await self._store.read(lambda c: sync_rows.tally(c, transfer))
        if tally.failed:
            await self._note(transfer, f"nothing was deleted, because {tally.failed} objects could not be copied")
            return
        sync, after = _sync(spec_from_json((await self.record(transfer)).spec)), 0
        at = await self._planner.shared(sync)
        async with Recorded(self._store, transfer, live, sync_rows.enter_ended) as work:
            while items := await self._store.read(partial(sync_rows.deletions, transfer=transfer, after=after)):
                needed = await self._store.read(partial(sync_guard.named, items=items, at=at))
                work.ended += [Ended(number, "kept") for number in sorted(needed)]
                free = [item for item in items if item.number not in needed]
                await side_by_side(free, partial(self._delete, sync, work), WIDTH)
                after = items[-1].number

    async def _delete(self, sync: Sync, work: Recorded[Ended], item: Item) -> None:
        """Delete one object, after both ends have said once more that it is still that one, and not in the source."""
        source, target = self._planes.plane(sync.source.plane), self._planes.plane(sync.target.plane)
        try:
            try:
                await source.stat(folder(sync.source) + item.key)
            except NotFound:
                is_same = await _is_still(target, folder(sync.target) + item.key, item.version)
                if is_same:
                    await target.delete(folder(sync.target) + item.key, version=item.version)
                work.ended.append(Ended(item.number, "deleted" if is_same else "kept"))
            else:
                work.ended.append(Ended(item.number, "kept"))
        except Error as error:
            if isinstance(error, OUTAGES):
                raise
            work.ended.append(Ended(item.number, "failed", error=to_record(error)))
        work.live.parts_done += 1
        work.live.touch()

    async def publish(self, transfer: str, live: Live) -> None:
        """Say what was done; nothing to do if that has happened."""
        record = await self.record(transfer)
        if record.ended is not None:
            return
        assert record.plan is not None
        plan, moment = record.plan, now()
        tally = await self._store.read(lambda c: sync_rows.tally(c, transfer))
        failed = await self._store.read(lambda c: sync_rows.failures(c, transfer, SHOWN))
        taken = await self._store.read(lambda c: sync_rows.routes_taken(c, transfer))
        left = await self._abort(record)
        notes = [f"not everything could be removed yet, which will be tried again: {left[0]}"] if left else []
        outcome = _outcome(plan, tally, failed, live) | {
            "seconds": max(moment - record.created, 0.001),
            "routes": [asdict(each) for each in taken],
        }
        state = "PARTLY_SUCCEEDED" if tally.failed else "SUCCEEDED"
        done = record.progress.forward(live.progress)
        # What was under way when a server died is counted twice.
        progress = plain(replace(done, parts_done=min(done.parts_done, plan.parts)))

        def work(c: sa.Connection) -> None:
            wish = ledger.get(c, transfer).wish
            if wish:
                raise Cancelled(f"the transfer {transfer} was cancelled") if wish == "cancel" else Paused
            if not left:
                sync_rows.clear(c, transfer)
            warnings = [*record.warnings, *notes]
            ledger.end(c, transfer, moment, state, outcome=outcome, progress=progress, warnings=warnings)

        await self._store.write(work, durable=True)
        self._forget_ways(transfer)

    async def clean_again(self) -> None:
        """Try again to abort what ended syncs have left, and forget plans that nobody waits for."""
        # Who lives is asked in the transaction: whoever begins while it waits for the database has rows in it already.
        await self._store.write(lambda c: sync_rows.strays(c, list(self._previews)))
        for transfer in await self._store.read(sync_rows.unclean):
            if not await self._abort(await self.record(transfer)):
                await self._store.write(partial(sync_rows.clear, transfer=transfer))

    # --- pieces of the above ------------------------------------------------------------------------------------

    async def _removed(self, record: Record) -> list[str]:
        self._forget_ways(record.id)
        return await self._abort(record)

    def _forget_ways(self, transfer: str) -> None:
        self._closed.pop(transfer, None)
        self._alone.discard(transfer)

    def _forget(self, c: sa.Connection, transfer: str) -> None:
        sync_rows.clear(c, transfer)

    async def _abort(self, record: Record) -> list[str]:
        """Abort all uploads that are known; returns a sentence for what could not be."""
        sync, left, after = _sync(spec_from_json(record.spec)), list[str](), 0
        while items := await self._store.read(partial(sync_rows.opened, transfer=record.id, after=after)):
            for item in items:
                try:
                    await self._planes.plane(sync.target.plane).resume(item.token or "").abort()
                except Missing:  # the bucket or root itself is gone, and everything in it
                    continue
                except Error as error:
                    what = where(sync.target.plane, folder(sync.target) + item.key)
                    left.append(f"the open upload of {what} could not be removed: {error.message}")
            after = items[-1].number
        return left

    async def _stop_if_hopeless(self, transfer: str) -> None:
        if await self._store.read(lambda c: sync_rows.failed(c, transfer, MOST_FAILED + 1)) > MOST_FAILED:
            [(key, error)] = await self._store.read(lambda c: sync_rows.failures(c, transfer, 1))
            msg = f"more than {MOST_FAILED} objects failed, so the rest was not tried; the first, {key}: "
            raise Refused(msg + str(error["message"]), key=key)

    async def _note(self, transfer: str, note: str) -> None:
        def work(c: sa.Connection) -> None:
            known = ledger.get(c, transfer).warnings
            if note not in known:
                ledger.update(c, transfer, now(), warnings=[*known, note])

        await self._store.write(work)


async def _is_still(plane: Plane, key: str, version: str) -> bool:
    """Whether an object is there, in the version that was listed."""
    try:
        found = (await plane.stat(key)).version
    except NotFound:
        return False
    if plane.capabilities.shared:  # the listing of a store does not name version ids
        return found.partition(" ")[0] == version.partition(" ")[0]
    return found == version


def _sync(spec: Spec) -> Sync:
    assert isinstance(spec.verb, Sync)
    return spec.verb


def _outcome(plan: Plan, tally: Tally, failed: list[tuple[str, dict[str, Any]]], live: Live) -> dict[str, Any]:
    evidence = "" if not tally.copied else "compared" if tally.compared else "pinned"
    through = f"{size_text(live.through_us)} through this machine"
    route = f"{size_text(live.native)} copied by the provider, {through}" if live.native else through
    return {
        "size": tally.copied_bytes,
        "evidence": evidence,
        "route": route if tally.copied else "",
        "crc64nvme": None,
        "file": "",
        "sync": {
            "copied": tally.copied,
            "equal": tally.equal + plan.equal,
            "deleted": tally.deleted,
            "failed": tally.failed,
            "exceptions": [
                {"key": key, "reason": error["reason"], "message": error["message"]} for key, error in failed
            ],
        },
    }
