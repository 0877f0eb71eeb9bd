"""Transfers as durable jobs: accepted once, run to their end whatever dies, watched and stopped from anywhere.

The only module that knows the job engine (DBOS Transact, chosen because it keeps its steps in the same SQLite or
PostgreSQL and needs no server of its own). A transfer is one workflow a run; a pause ends the run, a resume begins the
next. Steps take and give ids and counts; everything else is in the ledger. A step that fails for good returns its
failure instead of raising it, so that what other steps did stays done.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

import structlog
from dbos import DBOS, DBOSPortableJSONSerializer, SetWorkflowID

from fileserver.catalogue.files import PAGE, now
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import Cancelled, InvalidSpec, to_record
from fileserver.transfer import ledger
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.execute import RouteRefused
from fileserver.transfer.live import Live, Paused
from fileserver.transfer.planning import Drawing, Planner, check_names
from fileserver.transfer.record import Record, plain
from fileserver.transfer.spec import Spec, spec_to_json
from fileserver.transfer.stages import Stages
from fileserver.transfer.sync import SyncStages
from fileserver.transfer.upkeep import Upkeep
from planes.errors import Error
from planes.plane import MIB

VERSION: Final = "1"
"""Of the workflow: raised only when the order of its steps changes."""

MEMORY: Final = 128 * MIB
WIDTH: Final = 2
"""Segments of a transfer that run side by side."""

Work = Callable[[Stages | SyncStages, Live], Coroutine[None, None, Any]]

log = structlog.get_logger(__name__)


class Jobs:
    """The transfers of this file server."""

    def __init__(self, store: Store, planes: Configured, *, retire_after: float) -> None:
        self._store = store
        self._planes = planes
        buffers = Buffers(MEMORY)
        self.stages = Stages(planes, store, buffers, retire_after)
        self.syncs = SyncStages(planes, store, buffers)
        self.planner = Planner(planes, store)
        self._live: dict[str, Live] = {}
        self._draining = False
        self._upkeep = Upkeep(store, planes, self.stages, self.syncs, self._every_second, DBOS.delete_workflows_async)

    # --- life of the server -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the engine in the running event loop and go on with every transfer that has not ended."""
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        _CURRENT.append(self)
        DBOS(
            config={
                "name": "cropduster",
                "system_database_url": str(self._store.engine.url),
                "system_database_engine": self._store.engine,
                "executor_id": "local",
                "application_version": VERSION,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "CRITICAL",
            }
        )
        DBOS.launch()
        await self._start_idle()
        self._upkeep.start()

    async def stop(self) -> None:
        """Stop at the next step; what is unfinished goes on at the next start."""
        self._draining = True
        for live in list(self._live.values()):
            live.ask("drain")
        await self._upkeep.stop()
        for live in list(self._live.values()):
            await live.idle()
        await self._save_progress()
        _CURRENT.remove(self)

    def unfinished(self) -> int:
        """Transfers that are running here."""
        return len(self._live)

    async def _every_second(self) -> None:
        await self._save_progress()
        await self._start_idle()

    async def _start_idle(self) -> None:
        """Start every transfer that should run and at which nobody works: after a crash, or a call that broke off."""
        before: tuple[float, str] | None = None
        while page := await self._store.read(lambda c, b=before: ledger.listing(c, b, PAGE, active=True)):  # type: ignore[misc]
            for record in page:
                if record.state != "PAUSED" and record.id not in self._live and not self._draining:
                    await self._start_again(record)
            before = (page[-1].created, page[-1].id)

    async def _start_again(self, record: Record) -> None:
        """Start the current run; if the engine has ended that one without ending the transfer, the next."""
        status = await DBOS.get_workflow_status_async(_name(record))
        if status is not None and status.status not in {"PENDING", "ENQUEUED"}:
            record = await self._store.write(lambda c: ledger.next_run(c, record.id, now()))
        await self._run(record)

    # --- calls --------------------------------------------------------------------------------------------------

    async def create(self, spec: Spec, request_id: str = "") -> Record:
        """Accept a transfer, or return the one that the same request made before.

        Raises:
            InvalidSpec: the request id belongs to another spec.
            TargetBusy: another transfer holds the target.
            Error: what can be told before anything is looked at.
        """
        request_id = request_id or uuid.uuid4().hex
        asked = spec_to_json(spec)
        known = await self._store.read(lambda c: ledger.by_request(c, request_id))
        if known is not None:
            if known.spec != asked:
                msg = f"request id {request_id} was used for another transfer, {known.id}; take a fresh one"
                raise InvalidSpec(msg, {"request_id": msg}, transfer=known.id)
            return known
        target = await check_names(spec, self._planes, self._store)
        moment = now()
        record = Record(uuid.uuid4().hex[:12], asked, "QUEUED", "", 1, moment, moment)
        made = await self._store.write(lambda c: ledger.create(c, record, request_id, target))
        if made.id == record.id:
            await self._run(record)
        return made

    async def draw(self, spec: Spec) -> Drawing:
        """What a transfer would do; writes nothing."""
        await check_names(spec, self._planes, self._store)
        return await self.planner.draw(spec, "dry-run")

    async def stages_of(self, transfer: str) -> Stages | SyncStages:
        """The stages that the verb of a transfer has."""
        return self.syncs if (await self.stages.record(transfer)).spec["kind"] == "sync" else self.stages

    async def get(self, transfer: str) -> tuple[Record, float]:
        """A transfer as it stands now, and its rate in bytes a second (0.0 while unknown)."""
        record = await self.stages.record(transfer)
        live = self._live.get(transfer)
        if live is None or record.ended is not None:
            return record, 0.0
        return replace(record, progress=record.progress.forward(live.progress)), live.rate()

    async def listing(self, before: tuple[float, str] | None, limit: int, *, active: bool) -> list[Record]:
        """Transfers, newest first."""
        return await self._store.read(lambda c: ledger.listing(c, before, limit, active=active))

    async def watch(self, transfer: str, pause: float = 0.25) -> AsyncIterator[tuple[Record, float]]:
        """The transfer now, then whenever it changes, until it has ended or stands still."""
        last: Record | None = None
        while True:
            live = self._live.get(transfer)
            record, rate = await self.get(transfer)
            if record != last:
                yield record, rate
                last = record
            if record.ended is not None or record.state == "PAUSED":
                return
            if live is None:
                await asyncio.sleep(0.02)
            else:
                await live.change(pause)

    async def cancel(self, transfer: str) -> Record:
        """Ask a transfer to stop for good; one that stands still is woken for it."""
        return await self._ask(transfer, "cancel")

    async def pause(self, transfer: str) -> Record:
        """Ask a transfer to stand still."""
        return await self._ask(transfer, "pause")

    async def resume(self, transfer: str) -> Record:
        """Let a paused transfer go on; others are left alone."""
        return await self._ask(transfer, "")

    async def _ask(self, transfer: str, wish: str) -> Record:
        wake = await self._store.write(lambda c: ledger.ask(c, transfer, wish, now()))
        record = await self.stages.record(transfer)
        live = self._live.get(transfer)
        if wake:
            await self._run(record)
        elif live is not None and record.ended is None and record.wish:
            live.ask(record.wish)
        elif live is not None:
            live.go_on("pause")
        return (await self.get(transfer))[0]

    # --- running ------------------------------------------------------------------------------------------------

    async def _run(self, record: Record) -> None:
        """Start the workflow of the current run; the engine knows it already after a crash."""
        live = self._live[record.id] = Live(record.progress, record.run)
        live.ask("fail" if record.error is not None else record.wish)
        with SetWorkflowID(_name(record)):
            await DBOS.start_workflow_async(_transfer, record.id, record.run)

    async def live(self, transfer: str) -> Live:
        """The shared state of a transfer that runs here, with what is wished of it by now."""
        record = await self.stages.record(transfer)
        live = self._live.get(transfer)
        if live is None:
            live = self._live[transfer] = Live(record.progress, record.run)
        wish = "fail" if record.error is not None else record.wish
        if self._draining:
            live.ask("drain")
        elif wish and live.wish != wish:
            live.ask(wish)
        return live

    async def guarded(self, transfer: str, work: Work) -> dict[str, Any]:
        """Run a stage and say how it ended, as plain data: {"ok": …} or {"stop": kind}.

        The first failure is stored at once, so that it is the transfer's failure whatever happens next.
        """
        live = await self.live(transfer)
        live.begin()
        try:
            live.check()
            return {"ok": await live.until_stopped(work(await self.stages_of(transfer), live))}
        except Cancelled:
            return {"stop": "cancel"}
        except Paused:
            if live.wish == "drain":
                live.finish()
                await _for_ever()
            return {"stop": live.wish or "pause"}
        except RouteRefused as refused:
            live.ask("again")
            return {"stop": "again", "closed": {refused.plane: refused.why}}
        except Error as error:
            return await self._failed(transfer, live, to_record(error))
        except Exception:  # a bug must end this transfer cleanly and leave the server alive
            line = uuid.uuid4().hex[:8]
            log.exception("bug", id=line, transfer=transfer)
            message = f"a bug in the server; its log has the details under {line}"
            return await self._failed(transfer, live, {"reason": "BUG", "message": message, "facts": {"log": line}})
        finally:
            live.finish()

    async def _failed(self, transfer: str, live: Live, error: dict[str, Any]) -> dict[str, Any]:
        record = await self.stages.record(transfer)
        if record.error is None:
            await self._store.write(lambda c: ledger.update(c, transfer, now(), error=error))
        live.ask("fail")
        return {"stop": "fail"}

    async def stopped(self, transfer: str, kind: str) -> None:
        """Stand still or clean up, whatever happens; not while the server ends: then the next one does it."""
        live = await self.live(transfer)
        if self._draining:
            await _for_ever()
        live.begin()
        try:
            await (await self.stages_of(transfer)).stop(transfer, kind, live)
        except Exception:  # a bug in the clean-up must not leave a transfer that never ends
            log.exception("clean-up failed", transfer=transfer)
            note = f"clean-up failed and will be tried again; the server's log tells more under {transfer}"
            await (await self.stages_of(transfer)).give_up(transfer, kind, note)
        finally:
            live.finish()

    def ended(self, transfer: str, run: int) -> None:
        """A run is over: watchers see the last state, and the live state goes."""
        live = self._live.get(transfer)
        if live is not None and live.run == run:
            del self._live[transfer]
            live.touch()

    async def _save_progress(self) -> None:
        for transfer, live in list(self._live.items()):
            record = await self.stages.record(transfer)
            ahead = record.progress.forward(live.progress)
            if ahead != record.progress and record.ended is None:
                values = {"progress": plain(ahead)}
                await self._store.write(lambda c, t=transfer, v=values: ledger.update(c, t, now(), **v))  # type: ignore[misc]


_CURRENT: Final[list[Jobs]] = []
"""The engine's workflows are plain functions; this is where they find their server: one a process."""


async def _for_ever() -> None:
    """Wait for the end of the process, so that nothing of a step is recorded."""
    await asyncio.Event().wait()


def _name(record: Record) -> str:
    """What the engine calls a run."""
    return f"{record.id}-{record.run}"


async def _in_stage(transfer: str, work: Work) -> dict[str, Any]:
    return await _CURRENT[-1].guarded(transfer, work)


@DBOS.step(name="plan")
async def _plan(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.plan(transfer, live))


@DBOS.step(name="open")
async def _open(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.open(transfer, live))


async def _fill(transfer: str, segment: int) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.fill(transfer, segment, live))


@DBOS.step(name="reroute")
async def _reroute(transfer: str, closed: dict[str, str]) -> dict[str, Any]:
    (await _CURRENT[-1].live(transfer)).go_on("again")
    return await _in_stage(transfer, lambda stages, live: stages.reroute(transfer, live, closed))


@DBOS.step(name="commit")
async def _commit(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.commit(transfer, live))


@DBOS.step(name="publish")
async def _publish(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.publish(transfer, live))


@DBOS.step(name="stop")
async def _stop(transfer: str, kind: str) -> None:
    await _CURRENT[-1].stopped(transfer, kind)


async def _fill_all(transfer: str, segments: int) -> dict[str, Any]:
    """All segments, WIDTH side by side; their step ids are drawn first, so that a replay finds them in any order."""
    slots = [DBOS.reserve_step() for _ in range(segments)]
    gate = asyncio.Semaphore(WIDTH)

    async def one(number: int) -> dict[str, Any]:
        async with gate:
            return await slots[number - 1].run_async({"name": "fill"}, _fill, transfer, number)

    ends = await asyncio.gather(*(one(number) for number in range(1, segments + 1)))
    stops = [end for end in ends if "stop" in end]
    for kind in ("cancel", "fail", "pause", "again"):
        for end in stops:
            if end["stop"] == kind and (kind != "again" or "closed" in end):
                return end
    return {"ok": None}


@DBOS.workflow(name="transfer", max_recovery_attempts=1000)
async def _transfer(transfer: str, run: int) -> str:
    """One run of a transfer, from wherever the ledger says it stands."""
    try:
        end = await _move(transfer)
        if "stop" in end:
            await _stop(transfer, end["stop"])
    finally:
        _CURRENT[-1].ended(transfer, run)
    return str(end.get("stop", "done"))


async def _move(transfer: str) -> dict[str, Any]:
    """All stages in order; how the last of them ended."""
    end = await _plan(transfer)
    while "ok" in end:
        segments = end["ok"]
        end = await _open(transfer)
        if "ok" in end:
            end = await _fill_all(transfer, segments)
        if end.get("stop") != "again":
            break
        end = await _reroute(transfer, end["closed"])
        if "ok" in end:
            end = await _plan(transfer)
    for stage in (_commit, _publish):
        if "ok" in end:
            end = await stage(transfer)
    return end
