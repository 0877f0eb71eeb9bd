"""What a file server does beside its transfers: count, clean up, forget. Each task is tried again for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from fileserver.catalogue.files import now
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.transfer import garbage, ledger, renamed
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.stages import Stages
from fileserver.transfer.sweep import Sweep
from fileserver.transfer.sync import SyncStages

KEPT: Final = 30 * 24 * 3600.0
"""Seconds that an ended transfer is remembered."""

_SWEEP: Final = 60.0
_LOOK: Final = 1.0  # seconds between two looks whether it is upon this server to clean up

_log = structlog.get_logger(__name__)


class Upkeep:
    """The background tasks of one server.

    Args:
        every_second: stores counters, and starts what has no one working at it.
        keeper: whether this server is the one that cleans up.
        forget: drops what the job engine keeps of transfers that are forgotten, by their ids and number of runs.
    """

    def __init__(
        self,
        store: Store,
        planes: Configured,
        stages: Stages,
        syncs: SyncStages,
        ingests: IngestStages,
        sweep: Sweep,
        every_second: Callable[[], Awaitable[None]],
        forget: Callable[[list[str]], Awaitable[None]],
        keeper: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._planes = planes
        self._stages = stages
        self._syncs = syncs
        self._ingests = ingests
        self._open_uploads = sweep
        self._every_second = every_second
        self._forget = forget
        self._keeper = keeper
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._sweep())]

    async def stop(self) -> None:
        """End the tasks and wait for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await _tried("progress", self._every_second())

    async def _sweep(self) -> None:
        while True:
            if not self._keeper():
                await asyncio.sleep(_LOOK)
                continue
            await _tried("garbage", garbage.collect(self._store, self._planes, now()))
            await _tried("what failed transfers left", self._stages.clean_again())
            await _tried("open uploads of ended transfers", self._open_uploads.recent(now()))
            await _tried("what syncs left", self._syncs.clean_again())
            await _tried("what ingests left", self._ingests.clean_again())
            await _tried("manifests of renamed files", renamed.rewrite_all(self._store, self._planes, now()))
            await _tried("history", self._history())
            await asyncio.sleep(_SWEEP)

    async def _history(self) -> None:
        gone = await self._store.write(lambda c: ledger.forget_before(c, now() - KEPT))
        await self._forget([f"{record.id}-{run}" for record in gone for run in range(1, record.run + 1)])


async def _tried(what: str, work: Awaitable[Any]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - a background task lives as long as the server; what fails now is tried again
        _log.warning("background task failed", task=what, exc_info=True)
