"""Transfers as durable jobs: accepted once, run to their end whatever dies, watched and stopped from anywhere.

The only module that knows the job engine (DBOS Transact, chosen because it keeps its steps in the same SQLite or
PostgreSQL and needs no server of its own). A transfer is one workflow a run; a pause ends the run, a resume begins the
next. Steps take and give ids and counts; everything else is in the ledger. A step that fails for good returns its
failure instead of raising it, so that what other steps did stays done.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID

from fileserver.catalogue import databases
from fileserver.catalogue.files import PAGE, now
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds.targets import Targets
from fileserver.transfer import ledger
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.dispatch import Dispatch, Replicas
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.liveness import Liveness
from fileserver.transfer.planning import Drawing, Planner, check_names
from fileserver.transfer.record import Record
from fileserver.transfer.runs import Runs, Stage, Superseded, name_of
from fileserver.transfer.spec import Ingest, Spec, spec_to_json
from fileserver.transfer.stages import Stages
from fileserver.transfer.sweep import Sweep
from fileserver.transfer.sync import SyncStages
from fileserver.transfer.upkeep import Upkeep
from planes.plane import MIB

VERSION: Final = "1"
"""Of the workflow: raised only when the order of its steps changes."""

SPREAD: Final = 8
"""Segments of a transfer side by side where many servers take them."""

_UNDER_WAY: Final = frozenset({"PENDING", "ENQUEUED"})  # states in which the engine takes a run for running

log = structlog.get_logger(__name__)


class Jobs:
    """The transfers of this file server."""

    def __init__(
        self,
        store: Store,
        planes: Configured,
        *,
        retire_after: float,
        memory: int = 128 * MIB,
        targets: Targets | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._store = store
        self._planes = planes
        self._liveness: Liveness | None = None
        buffers = Buffers(memory)
        self.stages = Stages(planes, store, buffers, retire_after)
        self.syncs = SyncStages(planes, store, buffers)
        self.ingests = IngestStages(planes, store, targets or Targets({}))
        self.planner = Planner(planes, store)
        self.runs = Runs(store, self.stages, {"sync": self.syncs, "ingest": self.ingests})
        self._dispatch: Dispatch | None = None
        if replicas is not None:
            self._dispatch = Dispatch(replicas, self.stages.fill_here, self.runs.live)
            self.stages.filling, self.stages.width = self._dispatch.fill, SPREAD
        self.sweep = Sweep(store, planes, self.stages.clean_again)
        cleaning = (self.stages, self.syncs, self.ingests, self.sweep)
        self._upkeep = Upkeep(
            store, planes, *cleaning, self._every_second, DBOS.delete_workflows_async, lambda: self._is_keeper
        )

    # --- life of the server -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the engine in the running event loop and go on with every transfer that has not ended."""
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        _CURRENT.append(self)
        if self._store.shared:
            self._liveness = Liveness(self._store.engine, self._store.me)
            await asyncio.to_thread(self._liveness.hold)
        DBOS(config=_engine(self._store.engine, self._store.me if self._store.shared else "local"))
        DBOS.launch()
        if self._dispatch is not None:
            self._dispatch.connect()
        await self._start_idle()
        self._upkeep.start()

    async def stop(self) -> None:
        """Stop at the next step; what is unfinished goes on at the next start."""
        self.runs.drain()
        await self._upkeep.stop()
        await self.runs.idle()
        await self.runs.save_progress()
        if self._dispatch is not None:
            await self._dispatch.aclose()
        if self._liveness is not None:
            await asyncio.to_thread(self._liveness.release)
        _CURRENT.remove(self)

    def unfinished(self) -> int:
        """Transfers that are running here."""
        return len(self.runs)

    @property
    def _is_keeper(self) -> bool:
        """Whether this server cleans up: alone, or as the one that does it for all."""
        return self._liveness is None or self._liveness.keeper

    async def _every_second(self) -> None:
        if self._liveness is not None:
            await self.runs.hear()
            await asyncio.to_thread(self._take_over, self._liveness)
        await self.runs.save_progress()
        if self._is_keeper or self.runs.has_broken:
            await self._start_idle()

    @staticmethod
    def _take_over(liveness: Liveness) -> None:
        """Let the engine go on, on any server, with what dead ones were at."""
        running = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        for peer in liveness.dead(w.executor_id for w in running if w.executor_id):
            log.warning("a file server is gone: its transfers go on elsewhere", server=peer)
            DBOS._recover_pending_workflows([peer])  # noqa: SLF001 - the engine has no other way; a test holds it to this

    async def _start_idle(self) -> None:
        """Start every transfer that should run and at which nobody works: after a crash, or a call that broke off."""
        before: tuple[float, str] | None = None
        while page := await self._store.read(lambda c, b=before: ledger.listing(c, b, PAGE, active=True)):  # type: ignore[misc]
            for record in page:
                if record.state != "PAUSED" and record.id not in self.runs and not self.runs.draining:
                    await self._start_again(record)
            before = (page[-1].created, page[-1].id)

    async def _start_again(self, record: Record) -> None:
        """Start the current run; if that one is over without an end of the transfer, the next."""
        status = await DBOS.get_workflow_status_async(name_of(record.id, record.run))
        over = status is not None and status.status not in _UNDER_WAY
        broken = self.runs.forget_broken(record)
        mine = status is not None and (not self._store.shared or status.executor_id == self._store.me)
        if self._store.shared and status is not None and not over and not (broken and mine):
            return  # some server is at it, or the engine is about to find one
        over = over or broken
        again = await self._store.write(lambda c: ledger.run_again(c, record.id, record.run, now(), new=over))
        if again is not None and record.id not in self.runs:
            await self._run(again)

    # --- calls --------------------------------------------------------------------------------------------------

    async def create(self, spec: Spec, request_id: str = "", caller: str = "") -> Record:
        """Accept a transfer, or return the one that the same request of the same caller made before.

        Raises:
            InvalidSpec: the request id belongs to another spec.
            TargetBusy: another transfer holds the target.
            Error: what can be told before anything is looked at.
        """
        request_id = _request_of(caller, request_id)
        asked = spec_to_json(spec)
        known = await self._store.read(lambda c: ledger.by_request(c, request_id))
        if known is not None:
            if known.spec != asked:
                msg = f"request id {request_id} was used for another transfer, {known.id}; take a fresh one"
                raise InvalidSpec(msg, {"request_id": msg}, transfer=known.id)
            return known
        target = await self._check(spec)
        moment = now()
        record = Record(uuid.uuid4().hex[:12], asked, "QUEUED", "", 1, moment, moment, caller=caller)
        made = await self._store.write(lambda c: ledger.create(c, record, request_id, target))
        if made.id == record.id:
            await self._run(record)
        return made

    async def _check(self, spec: Spec) -> str:
        """What can be told before anything is looked at; returns the target to reserve."""
        if isinstance(spec.verb, Ingest):
            return self.ingests.check(spec)
        return await check_names(spec, self._planes, self._store)

    async def draw(self, spec: Spec) -> Drawing:
        """What a transfer would do; writes nothing."""
        await check_names(spec, self._planes, self._store)
        return await self.planner.draw(spec, "dry-run")

    async def get(self, transfer: str) -> tuple[Record, float]:
        """A transfer as it stands now, and its rate in bytes a second (0.0 while unknown)."""
        record = await self.stages.record(transfer)
        live = self.runs.get(transfer)
        if live is None or record.ended is not None:
            return record, 0.0
        return replace(record, progress=record.progress.forward(live.progress)), live.rate()

    async def listing(
        self, before: tuple[float, str] | None, limit: int, *, active: bool, caller: str | None = None
    ) -> list[Record]:
        """Transfers, newest first; those that `caller` asked for, if that is given."""
        return await self._store.read(lambda c: ledger.listing(c, before, limit, active=active, caller=caller))

    async def watch(self, transfer: str, pause: float = 0.25) -> AsyncIterator[tuple[Record, float]]:
        """The transfer now, then whenever it changes, until it has ended or stands still."""
        last: Record | None = None
        while True:
            live = self.runs.get(transfer)
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
        live = self.runs.get(transfer)
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
        self.runs.begin(record)
        with SetWorkflowID(name_of(record.id, record.run)):
            handle = await DBOS.start_workflow_async(_transfer, record.id, record.run)
        if self._store.shared and (await handle.get_status()).executor_id != self._store.me:
            self.runs.ended(record.id, record.run)  # another server was quicker


def _request_of(caller: str, request_id: str) -> str:
    """A request id that no other caller can have: whoever guesses one would be shown a transfer that is not his."""
    if not request_id:
        return uuid.uuid4().hex
    return hashlib.sha256(f"{caller}\0{request_id}".encode()).hexdigest() if caller else request_id


def migrate(url: str) -> str:
    """Make or upgrade all tables of a PostgreSQL database, those of the engine too; our revision before ("": none)."""
    before = databases.migrate(url)
    DBOS.migrate(databases.postgres_url(url))
    return before


def _engine(engine: sa.Engine, me: str) -> DBOSConfig:
    return {
        "name": "cropduster",
        "system_database_url": engine.url.render_as_string(hide_password=False),
        "system_database_engine": engine,
        "executor_id": me,
        "application_version": VERSION,
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "CRITICAL",
        "run_migrations": engine.dialect.name == "sqlite",  # a shared database is upgraded by command
    }


_CURRENT: Final[list[Jobs]] = []
"""The engine's workflows are plain functions; this is where they find their server: one a process."""


async def _in_stage(transfer: str, work: Stage) -> dict[str, Any]:
    return await _CURRENT[-1].runs.guarded(transfer, work)


@DBOS.step(name="plan")
async def _plan(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.plan(transfer, live))


@DBOS.step(name="open")
async def _open(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.open(transfer, live))


async def _fill(transfer: str, segment: int) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.fill(transfer, segment, live))


@DBOS.step(name="reroute")
async def _reroute(transfer: str, closed: dict[str, str], route: str = "") -> dict[str, Any]:
    (await _CURRENT[-1].runs.live(transfer)).go_on("again")
    return await _in_stage(transfer, lambda stages, live: stages.reroute(transfer, live, closed, route))


@DBOS.step(name="commit")
async def _commit(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.commit(transfer, live))


@DBOS.step(name="publish")
async def _publish(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.publish(transfer, live))


@DBOS.step(name="stop")
async def _stop(transfer: str, kind: str) -> None:
    await _CURRENT[-1].runs.stopped(transfer, kind)


async def _fill_all(transfer: str, segments: int) -> dict[str, Any]:
    """All segments, some side by side; their step ids are drawn first, so that a replay finds them in any order."""
    slots = [DBOS.reserve_step() for _ in range(segments)]
    gate = asyncio.Semaphore(await _CURRENT[-1].runs.width(transfer))

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
    runs = _CURRENT[-1].runs
    try:
        if not await runs.take(transfer, run):
            return "superseded"
        end = await _move(transfer)
        if "stop" in end:
            await _stop(transfer, end["stop"])
    except Superseded:
        raise
    except BaseException:
        runs.broke(transfer, run)
        raise
    finally:
        runs.ended(transfer, run)
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
        end = await _reroute(transfer, end["closed"], end.get("route", ""))
        if "ok" in end:
            end = await _plan(transfer)
    for stage in (_commit, _publish):
        if "ok" in end:
            end = await stage(transfer)
    return end
