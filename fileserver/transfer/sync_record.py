"""How the items of a transfer end, recorded while others are under way: many at a time, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, Self, TypeVar

import sqlalchemy as sa

from fileserver.catalogue.files import now
from fileserver.catalogue.store import Store
from fileserver.together import heard_within, to_its_end
from fileserver.transfer import ledger, manifest_rows, sync_rows
from fileserver.transfer.live import Live
from fileserver.transfer.record import StoredStep, plain
from fileserver.transfer.sync_rows import Item
from planes.plane import StepReceipt

E = TypeVar("E")

_FLUSH: Final = 0.25  # seconds until what has ended is recorded at the latest


class Recorded(Generic[E]):
    """Work on items side by side; how they ended is recorded soon, many at a time, with the counters.

    `enter` writes what has ended of a transfer into its rows.
    """

    def __init__(
        self, store: Store, transfer: str, live: Live, enter: Callable[[sa.Connection, str, list[E]], None]
    ) -> None:
        self.live = live
        self.ended: list[E] = []
        self._enter_ended = enter
        self._steps: list[StoredStep] = []
        self._stop = asyncio.Event()
        self._turn = asyncio.Lock()
        """Held by who writes: receipts of an upload that is gone must not come behind the token of the next."""
        self._store = store
        self._transfer = transfer

    async def __aenter__(self) -> Self:
        self._regularly = asyncio.create_task(self._record_regularly())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        await to_its_end(self._record_last())
        if kind is None:  # else that is the one to report
            self.check()

    def check(self) -> None:
        """Raise what has stopped the recording: work that nobody records would be done for nothing."""
        if self._regularly.done() and (failure := self._regularly.exception()):
            raise failure

    async def token(self, item: Item, token: str) -> None:
        """Record the upload of an item, of which nothing is stored yet."""
        async with self._turn:
            self._steps = [each for each in self._steps if each.part != item.number]
            await self._store.write(lambda c: sync_rows.set_token(c, self._transfer, item.number, token))

    async def stored(self, item: Item) -> list[StepReceipt]:
        """What is recorded as stored of an item's upload."""
        number = item.number
        steps = await self._store.read(lambda c: manifest_rows.steps(c, self._transfer, number, number))
        return [each.receipt for each in steps.get(number, ())]

    def keep(self, item: Item, receipt: StepReceipt) -> None:
        """Record soon that a step of an item's upload is stored."""
        self._steps.append(StoredStep(item.number, receipt))

    async def _record_regularly(self) -> None:
        while not self._stop.is_set():
            await heard_within(self._stop, _FLUSH)
            await self._record()

    async def _record_last(self) -> None:
        await asyncio.wait({self._regularly})
        await self._record()  # also what a failure has left

    async def _record(self) -> None:
        async with self._turn:
            ended, self.ended = self.ended, []
            steps, self._steps = self._steps, []
            if not (ended or steps):
                return
            try:
                await self._store.write(lambda c: self._enter(c, ended, steps))
            except BaseException:  # also when it is cancelled: what is not written is written with the next
                self.ended[:0], self._steps[:0] = ended, steps
                raise

    def _enter(self, c: sa.Connection, ended: list[E], steps: list[StoredStep]) -> None:
        manifest_rows.add_steps(c, self._transfer, steps)
        self._enter_ended(c, self._transfer, ended)
        ledger.update(c, self._transfer, now(), progress=plain(self.live.progress))
