"""Landing zones at work: looks that are due, transfers for what has settled, results of what has ended.

One round after another, for as long as the server lives. Everything that matters is in the tables, so any number of
file servers may do this over one database, and any of them may die at any moment.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
import structlog

from fileserver.catalogue.files import PAGE
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import TransferNotFound, to_record
from fileserver.landing import arrivals, taking, watches
from fileserver.landing.actions import Action, Loading, verdicts
from fileserver.landing.looking import Superseded, look
from fileserver.landing.watch import Arrival, State, Watch
from fileserver.together import heard_within
from fileserver.transfer import ingest_rows
from fileserver.transfer.record import Record
from fileserver.transfer.spec import Spec
from planes.errors import Error

T = TypeVar("T")

_IDLE: Final = 1.0  # seconds between two rounds
_BUSY: Final = 0.1  # the same while something runs

_log = structlog.stdlib.get_logger(__name__)


class Transfers(Protocol):
    """The transfers, as far as landing zones have a use for them."""

    async def start(self) -> None:
        """Begin to work."""
        ...

    async def stop(self) -> None:
        """Stop at the next step."""
        ...

    def unfinished(self) -> int:
        """How many run here."""
        ...

    async def create(self, spec: Spec, request_id: str = "") -> Record:
        """Accept a transfer, or return the one that the same request made before."""
        ...

    async def get(self, transfer: str) -> tuple[Record, float]:
        """A transfer as it stands; raises TransferNotFound."""
        ...


class Landing:
    """The watches of this file server, and its transfers, which it starts and stops.

    Args:
        store: where everything is.
        planes: the configured planes.
        jobs: what makes and runs transfers.
        action: what becomes of arrivals; HDF5 files are ingested, if it is not given.
    """

    def __init__(self, store: Store, planes: Configured, jobs: Transfers, action: Action | None = None) -> None:
        self._store = store
        self._planes = planes
        self._jobs = jobs
        self._action = action or Loading()
        self._me = uuid.uuid4().hex
        self._active = 0
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._rounds: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._renewed = 0.0

    # --- life of the server -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the transfers, and go on with every watch."""
        await self._jobs.start()
        if self._store.engine.dialect.name == "sqlite":  # which belongs to one server, and the last one is dead
            await self._store.write(watches.release)
        self._active = len(await self._store.read(lambda c: watches.listing(c, "", PAGE, active=True)))
        self._rounds = asyncio.create_task(self._for_ever())

    async def stop(self) -> None:
        """Stop looking, and the transfers at their next step; watches go on at the next start."""
        await self.rest()
        await self._jobs.stop()

    def unfinished(self) -> int:
        """Transfers that run here, and active watches: for them a server stays."""
        return self._jobs.unfinished() + self._active

    async def _for_ever(self) -> None:
        while True:
            pause = _IDLE
            try:
                pause = _BUSY if await self.round() else _IDLE
            except Exception:  # noqa: BLE001 - lives as long as the server; what fails now is tried again
                _log.warning("a round over the landing zones failed", exc_info=True)
            await heard_within(self._wake, pause)
            self._wake.clear()

    async def rest(self) -> None:
        """End the rounds and looks of this process; its leases run out."""
        tasks = [task for task in (self._rounds, *self._looks.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- calls --------------------------------------------------------------------------------------------------

    async def watch(self, asked: Watch) -> Watch:
        """Begin a watch, or let the same one go on.

        Raises:
            PlaneNotFound, Refused: the plane cannot be used.
            AlreadyExists: one of that name asks for something else.
        """
        self._planes.refuse_hosts((asked.plane,), "arrivals are looked for where a file server is")
        self._planes.plane(asked.plane)
        made = await self.write(lambda c: watches.create(c, asked))
        self._active = max(self._active, 1)
        return made

    async def remove(self, name: str) -> None:
        """Forget a watch and its inventory; raises WatchNotFound, TargetBusy."""
        await self.write(lambda c: watches.remove(c, name))

    async def ask(
        self,
        name: str,
        change: Callable[[sa.Connection, str, Sequence[str]], int],
        states: Sequence[State],
        test: Callable[[str], bool],
    ) -> int:
        """Change arrivals (`arrivals.retry`, `arrivals.reset`) by state and key, a page at a time; how many."""
        count, after = 0, ""
        await self.read(lambda c: watches.get(c, name))
        while True:

            def page(c: sa.Connection, after: str = after) -> tuple[int, str]:
                keys, last = arrivals.matching(c, name, states, test, after)
                return change(c, name, keys), last

            changed, after = await self.write(page)
            count += changed
            if not after:
                return count

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run statements that only read."""
        return await self._store.read(work)

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run statements that write, and see to what follows from them at once."""
        done = await self._store.write(work)
        self._wake.set()
        return done

    # --- a round ------------------------------------------------------------------------------------------------

    async def round(self) -> bool:
        """Do what is to be done now; returns whether something runs, so that the next round should be soon."""
        active = await self._active_watches()
        self._active = len(active)
        if not active and not await self._store.read(taking.is_busy):
            return False
        await self._collect()
        for watch in active:
            if watch.options.once and watch.name not in self._looks:  # asked before its next look, which may be due
                await self._store.write(partial(watches.end_if_done, watch=watch))
        await self._begin_looks()
        for batch in await self._store.read(taking.abandoned):
            await self._make(await self._store.write(partial(taking.adopt, owner=self._me, batch=batch)))
        for name in await self._store.read(taking.ready):
            watch = await self._store.read(partial(watches.get, name=name))
            for some in await self._store.write(
                partial(taking.take, watch=watch, owner=self._me, group=self._action.group)
            ):
                await self._make(some)
        return bool(self._looks) or await self._store.read(taking.is_busy)

    async def _active_watches(self) -> list[Watch]:
        found, after = list[Watch](), ""
        while page := await self._store.read(partial(watches.listing, after=after, limit=PAGE, active=True)):
            found += page
            after = page[-1].name
        return found

    async def _watch_of(self, arrival: Arrival) -> Watch:
        return await self._store.read(lambda c: watches.get(c, arrival.watch))

    # --- looks

    async def _begin_looks(self) -> None:
        """Keep the looks that go on, and begin those that are due, each in a task of its own."""
        renew = time.monotonic() >= self._renewed + _IDLE
        for name, task in list(self._looks.items()) if renew else ():
            self._renewed = time.monotonic()
            if not await self._store.write(partial(watches.renew, name=name, looker=self._me)):
                task.cancel()
        for watch in await self._store.read(watches.due):
            if watch.name not in self._looks:
                began = await self._store.write(partial(watches.claim, name=watch.name, looker=self._me))
                if began is not None:
                    task = asyncio.create_task(self._look(watch, began))
                    self._looks[watch.name] = task
                    task.add_done_callback(lambda _, name=watch.name: self._looks.pop(name, None))  # type: ignore[misc]

    async def _look(self, watch: Watch, began: float) -> None:
        try:
            await look(self._store, self._planes.plane(watch.plane), watch, self._me, began)
        except Superseded:
            pass
        except Error as error:
            record = to_record(error)
            await self._store.write(lambda c: watches.looked(c, watch, self._me, record))
            _log.warning("could not look", watch=watch.name, reason=error.reason, error=error.message)
        except Exception:  # noqa: BLE001 - a bug in one look must not end all watches; it is told and tried again
            _log.exception("a look failed", watch=watch.name)
            record = {"reason": "BUG", "message": "a bug in the server; its log has the details", "facts": {}}
            await self._store.write(lambda c: watches.looked(c, watch, self._me, record))
        self._wake.set()

    # --- transfers

    async def _make(self, batch: Sequence[Arrival]) -> None:
        """Have the transfer of a batch made, or say of each arrival why there is none."""
        sound = list[Arrival]()
        for arrival in batch:
            try:
                self._action.check(await self._watch_of(arrival), arrival)
            except Error as error:
                await self._end(arrival, to_record(error), loaded=False)
            else:
                sound.append(arrival)
        if not sound:
            return
        try:
            spec = self._action.spec(await self._watch_of(sound[0]), sound)
            record = await self._jobs.create(spec, taking.request_id(sound[0].batch))
        except Error as error:
            failed = to_record(error)
        except Exception:  # noqa: BLE001 - a bug about some arrivals must not keep the others from being loaded
            line = uuid.uuid4().hex[:8]
            _log.exception("bug", id=line, watch=sound[0].watch, keys=[each.key for each in sound])
            message = f"a bug in the server; its log has the details under {line}"
            failed = {"reason": "BUG", "message": message, "facts": {"log": line}}
        else:
            await self._store.write(lambda c: taking.made(c, sound[0].batch, record.id))
            return
        for arrival in sound:
            await self._end(arrival, failed, loaded=False)

    async def _collect(self) -> None:
        """Copy the results of transfers that have ended into their arrivals."""
        while ended := await self._store.read(taking.over):
            for transfer in dict.fromkeys(transfer for _, transfer in ended):
                await self._results(transfer, [arrival for arrival, its in ended if its == transfer])

    async def _results(self, transfer: str, mine: Sequence[Arrival]) -> None:
        watch = await self._watch_of(mine[0])
        keys = [watch.prefix + each.key for each in mine]
        try:
            record, _ = await self._jobs.get(transfer)
        except TransferNotFound as error:  # it ended so long ago that it is forgotten: nobody knows how
            for each in mine:
                await self._end(each, to_record(error), loaded=False)
            return
        of = verdicts(record, await self._store.read(lambda c: ingest_rows.by_key(c, transfer, watch.plane, keys)))
        for each, key in zip(mine, keys, strict=True):
            found = of(key)
            await self._end(each, found.error, loaded=found.loaded)

    async def _end(self, arrival: Arrival, error: dict[str, Any] | None, *, loaded: bool) -> None:
        most = (await self._watch_of(arrival)).options.tries
        await self._store.write(lambda c: taking.end(c, arrival, most, error, loaded=loaded))
