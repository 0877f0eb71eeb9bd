"""Transfers as durable jobs: accepted once, run to their end whatever dies, watched and stopped from anywhere.

The only module beside `workflow` that knows the job engine (DBOS Transact, chosen because it keeps its steps in the
same SQLite or PostgreSQL and needs no server of its own). A transfer is one workflow a run; a pause ends the run, a
resume begins the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

import sqlalchemy as sa
import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions, SetWorkflowID

from fileserver.catalogue import databases
from fileserver.catalogue.files import PAGE, now
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds.targets import Targets
from fileserver.transfer import ledger, manifest_rows, turns
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.checking import check_names
from fileserver.transfer.dispatch import Dispatch, Replicas
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.live import Away
from fileserver.transfer.liveness import Liveness
from fileserver.transfer.planning import Drawing, Planner
from fileserver.transfer.record import Record, Span
from fileserver.transfer.runs import Runs, name_of
from fileserver.transfer.spec import Ingest, Spec, spec_from_json, spec_to_json
from fileserver.transfer.stages import Stages
from fileserver.transfer.sweep import Sweep
from fileserver.transfer.sync import SyncStages
from fileserver.transfer.upkeep import Upkeep
from fileserver.transfer.workflow import CURRENT, run_transfer
from planes.errors import Unavailable
from planes.plane import MIB

VERSION: Final = "1"
"""Of the workflow: raised only when the order of its steps changes."""

SPREAD: Final = 8
"""Segments of a transfer side by side where many servers take them."""

_SOON: Final = 0.02  # seconds until who watches looks again, at first
_SELDOM: Final = 2.0  # and at last, if nothing changes
_HARDLY: Final = 15.0  # the same for what runs here, which says when it changes
_TURN: Final = 0.25  # seconds between two looks whether a plane takes another transfer
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
        self._bounded = turns.bounded(planes)
        self._liveness: Liveness | None = None
        buffers = self.buffers = Buffers(memory)
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
        CURRENT.append(self.runs)
        if self._store.shared:
            self._liveness = Liveness(self._store.engine, self._store.me)
            await asyncio.to_thread(self._liveness.hold)
        DBOS(config=_engine(self._store.engine, self._store.me if self._store.shared else "local"))
        DBOS.launch()
        for plane, most in self._bounded.items():
            await DBOS.register_queue_async(
                turns.queue_of(plane), global_concurrency=most, polling_interval_sec=_TURN, on_conflict="always_update"
            )
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
        CURRENT.remove(self.runs)

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
        mine = await asyncio.to_thread(self._under_way)
        await self.runs.save_progress()
        if self.runs.standing(mine) or self._is_keeper:
            await self._start_idle()

    def _under_way(self) -> list[str]:
        """The runs that the engine takes for running here; it goes on, on any server, with those of dead servers."""
        running = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        if self._liveness is None:
            return [w.workflow_id for w in running]
        for peer in self._liveness.dead(w.executor_id for w in running if w.executor_id):
            log.warning("a file server is gone: its transfers go on elsewhere", server=peer)
            DBOS._recover_pending_workflows([peer])  # noqa: SLF001 - the engine has no other way; a test holds it to this
        return [w.workflow_id for w in running if w.executor_id == self._store.me]

    async def _start_idle(self) -> None:
        """Start every transfer that should run and at which nobody works.

        After a crash, after a call that broke off, or because an agent is back that it stood still for.
        """
        before: tuple[float, str] | None = None
        while page := await self._store.read(partial(ledger.listing, before=before, limit=PAGE, active=True)):
            for record in page:
                if self.runs.draining:
                    return
                if record.state != "PAUSED" and not self.runs.at(record):
                    await self._start_again(record)
                elif record.state == "PAUSED" and record.waits_for:
                    again = await self._store.write(partial(ledger.met, transfer=record.id, now=now()))
                    if again is not None:
                        await self._run(again)
            before = (page[-1].created, page[-1].id)

    async def _start_again(self, record: Record) -> None:
        """Start the current run; if that one is over without an end of the transfer, the next."""
        name = name_of(record.id, record.run)
        status = await DBOS.get_workflow_status_async(name)
        over = status is not None and status.status not in _UNDER_WAY
        if not over and self.runs.stands(record):
            over = True
            await DBOS.cancel_workflow_async(name)  # it would keep its turn
        if status is not None and not over:
            return  # some server is at it, or the engine is about to find one
        again = await self._store.write(lambda c: ledger.run_again(c, record.id, record.run, now(), new=over))
        if again is not None and not self.runs.at(again):
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
        try:
            return await self.planner.draw(spec, "dry-run")
        except Away:
            msg = "the machine that has these files was not connected for minutes"
            raise Unavailable(msg) from None

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

    async def timeline(self, transfer: str) -> list[Span]:
        """Which segment of a transfer ran where, and when; raises TransferNotFound."""
        await self.stages.record(transfer)
        return await self._store.read(lambda c: manifest_rows.timeline(c, transfer))

    async def watch(self, transfer: str, pause: float = 0.25) -> AsyncIterator[tuple[Record, float]]:
        """The transfer now, then whenever it changes, until it has ended or stands still.

        What runs here says when it changes; what does not is looked at, ever less often while it stays as it is.
        """
        last: Record | None = None
        nap = _SOON
        while True:
            live = self.runs.get(transfer)
            record, rate = await self.get(transfer)
            if record != last:
                yield record, rate
                nap = _SOON if last is None else pause
                last = record
            else:
                nap = min(2 * nap, _SELDOM if live is None else _HARDLY)
            if record.ended is not None or record.state == "PAUSED":
                return
            if live is None:
                await asyncio.sleep(nap)
            else:
                await live.change(max(nap, pause))

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
        """Start the workflow of the current run, or have it wait its turn; the engine knows it already after a crash.

        What is to stop has no need of a turn.
        """
        spec = spec_from_json(record.spec)
        plane = await turns.plane_of(spec, self._planes, self._store) if self._bounded else ""
        name = SetWorkflowID(name_of(record.id, record.run))
        if plane in self._bounded and not record.wish and record.error is None:
            with name, SetEnqueueOptions(priority=spec.priority or turns.USUAL):
                await DBOS.enqueue_workflow_async(turns.queue_of(plane), run_transfer, record.id, record.run)
            return
        self.runs.begin(record)
        with ExitStack() as undone:
            undone.callback(self.runs.ended, record.id, record.run)
            with name:
                handle = await DBOS.start_workflow_async(run_transfer, record.id, record.run)
            undone.pop_all()
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
