"""What a running transfer shares with those who watch and stop it; gone with the process, never the truth."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final, TypeVar

from fileserver.errors import Cancelled
from fileserver.together import heard_within
from fileserver.transfer.record import Progress
from planes.errors import Error

T = TypeVar("T")

PATIENCE: Final[ContextVar[float]] = ContextVar("patience", default=10.0)
"""Seconds for which what goes on here waits for the agent of a host that is away; a transfer that has begun to write
waits until it is paused."""
PLANNING: Final = 60.0
"""The same while a transfer is planned, when nothing is lost yet."""

_SPAN: Final = 10.0  # seconds that a rate looks back
_OFTEN: Final = 0.1  # seconds between two looks of those who watch counters: every step would keep the store busy
_LEAST: Final = 0.2  # seconds without which a rate says nothing


class Paused(Exception):
    """The transfer stops at the next step and can go on from there."""


class Away(Paused):
    """An agent that the transfer needs has been away for so long that it is paused, and others get its turn."""

    def __init__(self, agent: str) -> None:
        super().__init__(agent)
        self.agent = agent


class Live:
    """Counters, rate and the stop flag of one transfer in this process.

    Counters only grow while the process lives; what is stored is never less than what was stored before.
    """

    def __init__(self, progress: Progress, run: int = 1, *, elsewhere: bool = False) -> None:
        self.run = run
        self.elsewhere = elsewhere
        """These counters are of a segment alone: another process counts and stores those of the transfer."""
        self.total = progress.bytes_total
        self.parts_total = progress.parts_total
        self.done = progress.bytes_done
        self.through_us = progress.bytes_through_us
        self.native = progress.bytes_native
        self.checked = progress.bytes_checked
        self.parts_done = progress.parts_done
        self.wish = ""
        """Why to stop: "", "cancel", "pause" or "drain"."""
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._halt = asyncio.Event()
        self._changed = asyncio.Event()
        self._announced = monotonic()
        self._marks: deque[tuple[float, int]] = deque([(monotonic(), self.done)])

    @property
    def progress(self) -> Progress:
        """The counters now."""
        done = min(self.done, self.total) if self.total else self.done
        return Progress(self.total, done, self.through_us, self.native, self.checked, self.parts_total, self.parts_done)

    def rate(self) -> float:
        """Bytes a second over the last ten seconds; 0.0 while unknown."""
        now = monotonic()
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[0][0] > _SPAN:
            self._marks.popleft()
        then, before = self._marks[0]
        return (self.done - before) / (now - then) if now - then > _LEAST else 0.0

    def ask(self, wish: str) -> None:
        """Ask the transfer to stop; "" lets it go on."""
        self.wish = wish
        if wish:
            self._halt.set()
        else:
            self._halt.clear()
        self.announce()

    def go_on(self, wish: str) -> None:
        """Forget a wish that has been fulfilled, if no other has taken its place."""
        if self.wish == wish:
            self.ask("")

    def begin(self) -> None:
        """A stage is at work."""
        self._busy += 1
        self._idle.clear()

    def finish(self) -> None:
        """A stage has stopped working."""
        self._busy = max(0, self._busy - 1)
        if not self._busy:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no stage is at work."""
        await self._idle.wait()

    def touch(self) -> None:
        """Counters have moved: wake those who watch, now and then."""
        if monotonic() - self._announced >= _OFTEN:
            self.announce()

    def announce(self) -> None:
        """Wake those who watch: there is more to see than counters."""
        self._announced = monotonic()
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, seconds: float) -> None:
        """Wait for a change, or for `seconds`."""
        await heard_within(self._changed, seconds)

    def check(self) -> None:
        """Stop here if that was asked; raises Cancelled, Paused."""
        if self.wish == "cancel":
            msg = "the transfer was cancelled"
            raise Cancelled(msg)
        if self.wish:
            raise Paused

    async def until_stopped(self, work: Coroutine[None, None, T]) -> T:
        """Run `work`, or cancel it, wait for its end and raise, as soon as a stop is asked.

        A stop that is taken back before anything was cancelled is none; one that is taken back later still is, because
        the work is gone. An error of a plane that comes out of cancelled work is no more than an echo of the stop.

        Raises:
            Cancelled, Paused: as `check` does.
        """
        task = asyncio.ensure_future(work)
        try:
            await self._ended_or_asked(task)
            stops = not task.done()
            if stops:
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled() and not (stops and isinstance(task.exception(), Error)):
                return task.result()
            self.check()
            raise Paused
        finally:
            if not task.done():  # this coroutine itself is being cancelled
                task.cancel()
                await asyncio.wait({task})

    async def _ended_or_asked(self, task: asyncio.Future[T]) -> None:
        """Wait until a task has ended or a stop is asked."""
        while not task.done() and not self.wish:
            halt = asyncio.ensure_future(self._halt.wait())
            both: set[asyncio.Future[Any]] = {task, halt}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                halt.cancel()
