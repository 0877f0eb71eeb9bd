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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

import structlog
from dbos import DBOS, DBOSPortableJSONSerializer, SetWorkflowID

from fileserver.catalogue import files
from fileserver.catalogue.files import now
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
from planes.errors import Error
from planes.plane import MIB

VERSION: Final = "1"
"""Of the workflow: raised only when the order of its steps changes."""

MEMORY: Final = 128 * MIB
WIDTH: Final = 2
"""Segments of a transfer that run side by side."""

_KEPT: Final = 30 * 24 * 3600.0
_TICK: Final = 1.0
_SWEEP: Final = 60.0

log = structlog.get_logger(__name__)


class Jobs:
    """The transfers of this file server."""

    def __init__(self, store: Store, planes: Configured, *, retire_after: float) -> None:
        self._store = store
        self._planes = planes
        self.stages = Stages(planes, store, Buffers(MEMORY), retire_after)
        self.planner = Planner(planes, store)
        self._live: dict[str, Live] = {}
        self._active = 0
        self._background: list[asyncio.Task[None]] = []
        self._draining = False

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
        for record in await self._store.read(lambda c: ledger.listing(c, None, 10_000, active=True)):
            if record.state != "PAUSED":
                await self._run(record)
        self._background = [asyncio.create_task(self._tick()), asyncio.create_task(self._sweep())]

    async def stop(self) -> None:
        """Stop at the next step; what is unfinished goes on at the next start."""
        self._draining = True
        for live in self._live.values():
            live.ask("drain")
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for live in self._live.values():
            await live.idle()
        await self._save_progress()
        _CURRENT.remove(self)

    def unfinished(self) -> int:
        """Transfers that are running here."""
        return self._active

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
        await self._store.write(lambda c: ledger.create(c, record, request_id, target))
        await self._run(record)
        return record

    async def draw(self, spec: Spec) -> Drawing:
        """What a transfer would do; writes nothing."""
        await check_names(spec, self._planes, self._store)
        return await self.planner.draw(spec, "dry-run")

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
        return await self._ask(transfer, "cancel", "CANCELLING")

    async def pause(self, transfer: str) -> Record:
        """Ask a transfer to stand still."""
        return await self._ask(transfer, "pause", "PAUSING")

    async def resume(self, transfer: str) -> Record:
        """Let a paused transfer go on; others are left alone."""
        record = await self.stages.record(transfer)
        if record.state == "PAUSED":
            await self._wake(record, "QUEUED", "")
        return (await self.get(transfer))[0]

    async def _ask(self, transfer: str, wish: str, state: str) -> Record:
        record = await self.stages.record(transfer)
        if record.ended is not None or (wish == "pause" and record.state in {"PAUSED", "CANCELLING"}):
            return record
        if record.state == "PAUSED":
            await self._wake(record, state, wish)
        else:
            await self._store.write(lambda c: ledger.update(c, transfer, now(), wish=wish, state=state))
            if transfer in self._live:
                self._live[transfer].ask(wish)
        return (await self.get(transfer))[0]

    async def _wake(self, record: Record, state: str, wish: str) -> None:
        run = record.run + 1
        await self._store.write(lambda c: ledger.update(c, record.id, now(), state=state, wish=wish, run=run))
        await self._run(await self.stages.record(record.id))

    # --- running ------------------------------------------------------------------------------------------------

    async def _run(self, record: Record) -> None:
        """Start the workflow of the current run; the engine knows it already after a crash."""
        self._live_of(record)
        with SetWorkflowID(f"{record.id}-{record.run}"):
            await DBOS.start_workflow_async(_transfer, record.id)

    def _live_of(self, record: Record) -> Live:
        live = self._live.get(record.id)
        if live is None:
            live = self._live[record.id] = Live(record.progress)
            self._active += 1
        live.ask("")
        if record.wish:
            live.ask(record.wish)
        if record.error is not None:
            live.ask("fail")
        return live

    async def live(self, transfer: str) -> Live:
        """The shared state of a transfer that runs here."""
        known = self._live.get(transfer)
        return known if known is not None else self._live_of(await self.stages.record(transfer))

    async def guarded(
        self, transfer: str, work: Callable[[Stages, Live], Coroutine[None, None, Any]]
    ) -> dict[str, Any]:
        """Run a stage and say how it ended, as plain data: {"ok": …} or {"stop": kind}.

        The first failure is stored at once, so that it is the transfer's failure whatever happens next.
        """
        live = await self.live(transfer)
        live.begin()
        try:
            live.check()
            return {"ok": await live.until_stopped(work(self.stages, live))}
        except Cancelled:
            return {"stop": "cancel"}
        except Paused:
            if live.wish == "drain":
                live.finish()
                await asyncio.Event().wait()  # the process ends; nothing of this step is recorded
            return {"stop": live.wish}
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

    async def ended(self, transfer: str) -> None:
        """The run is over: watchers see the last state, and the live state goes."""
        live = self._live.pop(transfer, None)
        if live is not None:
            self._active -= 1
            live.touch()

    async def _save_progress(self) -> None:
        for transfer, live in list(self._live.items()):
            record = await self.stages.record(transfer)
            ahead = record.progress.forward(live.progress)
            if ahead != record.progress and record.ended is None:
                values = {"progress": plain(ahead)}
                await self._store.write(lambda c, t=transfer, v=values: ledger.update(c, t, now(), **v))  # type: ignore[misc]

    async def _tick(self) -> None:
        """Store counters, at most once a second."""
        while True:
            await asyncio.sleep(_TICK)
            await _kept_alive("progress", self._save_progress())

    async def _sweep(self) -> None:
        """Delete garbage whose time has come, and forget old transfers."""
        while True:
            await _kept_alive("garbage", self.collect())
            await _kept_alive("history", self._store.write(lambda c: ledger.forget_before(c, now() - _KEPT)))
            await asyncio.sleep(_SWEEP)

    async def collect(self) -> int:
        """Delete garbage whose time has come; returns how many objects."""
        count = 0
        rows = await self._store.read(lambda c: files.due(c, now()))
        for plane, key in rows:
            if plane in self._planes.names:
                await self._planes.plane(plane).delete(key)
                await self._store.write(lambda c, row=(plane, key): files.forget_garbage(c, [row]))  # type: ignore[misc]
                count += 1
        return count


_CURRENT: Final[list[Jobs]] = []
"""The engine's workflows are plain functions; this is where they find their server: one a process."""


async def _kept_alive(what: str, work: Awaitable[Any]) -> None:
    try:
        await work
    except Exception:  # a background task lives as long as the server; what fails now is tried again
        log.warning("background task failed", task=what, exc_info=True)


async def _in_stage(transfer: str, work: Callable[[Stages, Live], Coroutine[None, None, Any]]) -> dict[str, Any]:
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
async def _reroute(transfer: str, closed: dict[str, str]) -> None:
    live = await _CURRENT[-1].live(transfer)
    await _CURRENT[-1].stages.reroute(transfer, live, closed)


@DBOS.step(name="commit")
async def _commit(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.commit(transfer, live))


@DBOS.step(name="publish")
async def _publish(transfer: str) -> dict[str, Any]:
    return await _in_stage(transfer, lambda stages, live: stages.publish(transfer, live))


@DBOS.step(name="stop")
async def _stop(transfer: str, kind: str) -> None:
    jobs = _CURRENT[-1]
    live = await jobs.live(transfer)
    record = await jobs.stages.record(transfer)
    try:
        await jobs.stages.stop(transfer, kind, record.error, live)
    except Exception:  # a bug in the clean-up must not leave a transfer that never ends
        log.exception("clean-up failed", transfer=transfer)
        note = f"clean-up failed; the server's log has the details under transfer {transfer}"
        await jobs.stages.give_up(transfer, kind, record.error, note)


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
async def _transfer(transfer: str) -> str:
    """One run of a transfer, from wherever the ledger says it stands."""
    end = await _plan(transfer)
    while "ok" in end:
        segments = end["ok"]
        end = await _open(transfer)
        if "ok" in end:
            end = await _fill_all(transfer, segments)
        if end.get("stop") != "again":
            break
        await _reroute(transfer, end["closed"])
        end = await _plan(transfer)
    if "ok" in end:
        end = await _commit(transfer)
    if "ok" in end:
        end = await _publish(transfer)
    if "stop" in end:
        await _stop(transfer, end["stop"])
    await _CURRENT[-1].ended(transfer)
    return str(end.get("stop", "done"))
