"""The runs of transfers in this process: their live states, and stages whose every failure is caught and told.

Knows nothing of the job engine, which decides what runs next.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from math import inf
from random import Random
from typing import Any, Final

import structlog

from fileserver import traces
from fileserver.catalogue.files import now
from fileserver.catalogue.store import Store
from fileserver.errors import Cancelled, to_record
from fileserver.transfer import ledger
from fileserver.transfer.execute import RouteRefused
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.live import PATIENCE, Away, Live, Paused
from fileserver.transfer.record import Record, plain
from fileserver.transfer.stages import Stages
from fileserver.transfer.sync import SyncStages
from planes.errors import Error

AnyStages = Stages | SyncStages | IngestStages
Stage = Callable[[AnyStages, Live], Coroutine[None, None, Any]]

EACH: Final = 2
"""Segments side by side for each host that has files of a transfer."""
MOST: Final = 32
"""Of all hosts together."""
LOOKS: Final = 3
"""How often in a row nobody must be seen at a run that should be at work."""

log = structlog.get_logger(__name__)


class Superseded(BaseException):
    """Another file server works on the transfer: this one must not touch it any more, nor say that it failed."""


class Runs:
    """What is at work here.

    Args:
        stages: of the verbs that write logical files.
        others: by kind of their specs, those of the verbs that have stages of their own.
    """

    def __init__(self, store: Store, stages: Stages, others: Mapping[str, SyncStages | IngestStages]) -> None:
        self._store = store
        self._stages = stages
        self._others = others
        self._live: dict[str, Live] = {}
        self._working: set[str] = set()
        self._idle: Counter[str] = Counter()
        self.draining = False

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, transfer: str) -> bool:
        return transfer in self._live

    def get(self, transfer: str) -> Live | None:
        """The shared state of a transfer that runs here."""
        return self._live.get(transfer)

    def begin(self, record: Record) -> None:
        """The current run of a transfer is about to start; nothing changes if it has, or is not the newest any more."""
        live = self._live.get(record.id)
        if live is not None and live.run >= record.run:
            return
        live = self._live[record.id] = Live(record.progress, record.run)
        live.ask("fail" if record.error is not None else record.wish)

    async def live(self, transfer: str) -> Live:
        """The shared state of a transfer that runs here, with what is wished of it by now."""
        record = await self._stages.record(transfer)
        live = self._live.get(transfer)
        if live is None:
            live = self._live[transfer] = Live(record.progress, record.run)
        wish = "fail" if record.error is not None else record.wish
        if self.draining:
            live.ask("drain")
        elif wish and live.wish != wish:
            live.ask(wish)
        return live

    def drain(self) -> None:
        """Stop everything at its next step."""
        self.draining = True
        for live in self._live.values():
            live.ask("drain")

    async def idle(self) -> None:
        """Wait until nothing is at work."""
        for live in list(self._live.values()):
            await live.idle()

    async def guarded(self, transfer: str, work: Stage) -> dict[str, Any]:
        """Run a stage and say how it ended, as plain data: {"ok": …} or {"stop": kind}.

        The first failure is stored at once, so that it is the transfer's failure whatever happens next.
        """
        PATIENCE.set(inf)
        live = await self.live(transfer)
        live.begin()
        try:
            live.check()
            return {"ok": await live.until_stopped(work(await self._stages_of(transfer), live))}
        except Cancelled:
            return {"stop": "cancel"}
        except Paused as paused:
            if live.wish == "drain":
                live.finish()
                await _for_ever()
            if isinstance(paused, Away) and not live.wish:
                agent = paused.agent
                await self._store.write(lambda c: ledger.ask(c, transfer, "pause", now(), agent))
                live.ask("pause")
            return {"stop": live.wish or "pause"}
        except RouteRefused as refused:
            live.ask("again")
            return {"stop": "again", "closed": {refused.plane: refused.why}, "route": refused.route}
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
        await self._must_own(transfer)
        record = await self._stages.record(transfer)
        if record.error is None:
            await self._store.write(lambda c: ledger.update(c, transfer, now(), error=error))
        live.ask("fail")
        return {"stop": "fail"}

    async def stopped(self, transfer: str, kind: str) -> None:
        """Stand still or clean up, whatever happens; not while the server ends: then the next one does it."""
        live = await self.live(transfer)
        if self.draining:
            await _for_ever()
        await self._must_own(transfer)
        live.begin()
        try:
            await (await self._stages_of(transfer)).stop(transfer, kind, live)
        except Exception:  # a bug in the clean-up must not leave a transfer that never ends
            log.exception("clean-up failed", transfer=transfer)
            note = f"clean-up failed and will be tried again; the server's log tells more under {transfer}"
            await (await self._stages_of(transfer)).give_up(transfer, kind, note)
        finally:
            live.finish()

    async def _stages_of(self, transfer: str) -> AnyStages:
        """The stages that the verb of a transfer has."""
        return self._others.get((await self._stages.record(transfer)).spec["kind"], self._stages)

    async def order(self, transfer: str, segments: int) -> tuple[int, Sequence[int]]:
        """How many segments of a transfer are moved side by side, and in which order they are begun.

        Those of hosts in any: else one host after the other would have all the work.
        """
        width, numbers = (await self._stages_of(transfer)).width, list(range(1, segments + 1))
        plan = (await self._stages.record(transfer)).plan
        hosts = self._stages.hosts(plan) if plan is not None else 0
        if hosts:
            Random(transfer).shuffle(numbers)  # noqa: S311 - no secret
        return max(width, min(EACH * hosts, MOST)), numbers

    async def take(self, transfer: str, run: int) -> bool:
        """Work on a run from now on; False if it is not the newest: one that broke off comes back with a server."""
        return await self._store.write(lambda c: ledger.take(c, transfer, run, self._store.me))

    async def _must_own(self, transfer: str) -> None:
        """Raise Superseded if another file server took this one for dead, and works on the transfer."""
        if self._store.shared and await self._store.read(lambda c: ledger.owner(c, transfer)) != self._store.me:
            raise Superseded

    async def tell_traces(self, transfer: str) -> None:
        """Tell who collects traces of a transfer that has ended."""
        traces.ended(await self._stages.record(transfer))

    async def hear(self) -> None:
        """Do what was asked of other file servers about transfers that run here."""
        for transfer, live in list(self._live.items()):
            record = await self._stages.record(transfer)
            wish = "fail" if record.error is not None else record.wish
            if wish and live.wish not in {wish, "drain"}:
                live.ask(wish)
            elif not wish:
                live.go_on("pause")

    def enter(self, transfer: str, run: int) -> None:
        """The job engine has begun a run here."""
        self._working.add(name_of(transfer, run))

    def standing(self, names: Iterable[str]) -> bool:
        """Whether the job engine takes runs for running here at which nobody has worked for some looks in a row.

        The database may go away between its claim of a run and the run itself, or under the run: the claim stays.
        """
        idle = set(names) - self._working
        self._idle = Counter({name: self._idle[name] + 1 for name in idle})
        return any(looks % LOOKS == 0 for looks in self._idle.values())

    def stands(self, record: Record) -> bool:
        """Whether the current run of a transfer is one of these."""
        name = name_of(record.id, record.run)
        return self._idle[name] >= LOOKS and name not in self._working

    def at(self, record: Record) -> bool:
        """Whether the current run of a transfer is at work here, or is about to be."""
        live = self._live.get(record.id)
        return live is not None and live.run == record.run and not self.stands(record)

    def ended(self, transfer: str, run: int) -> None:
        """A run is over: watchers see the last state, and the live state goes."""
        self._working.discard(name_of(transfer, run))
        live = self._live.get(transfer)
        if live is not None and live.run == run:
            del self._live[transfer]
            live.announce()

    async def save_progress(self) -> None:
        """Store the counters that have moved."""
        for transfer, live in list(self._live.items()):
            record = await self._stages.record(transfer)
            ahead = record.progress.forward(live.progress)
            if ahead != record.progress and record.ended is None:
                values = {"progress": plain(ahead)}
                await self._store.write(lambda c, t=transfer, v=values: ledger.update(c, t, now(), **v))  # type: ignore[misc]


def name_of(transfer: str, run: int) -> str:
    """What a run is called."""
    return f"{transfer}-{run}"


async def _for_ever() -> None:
    """Wait for the end of the process, so that nothing of a step is recorded."""
    await asyncio.Event().wait()
