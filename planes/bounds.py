"""What holds requests back: places, bytes a second, and what the provider asked for. All may change while it runs.

A plane belongs to one event loop, so nothing here is locked against threads. Time is injected.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from planes.errors import Error, Throttled, Unavailable
from planes.settings import PlaneLimits
from planes.window import Window

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

LONGEST_WAIT: Final = 60.0
"""Seconds that a request waits because the provider asked for it; for longer ones the caller is told."""
_LONGEST_PAUSE: Final = 3600.0  # seconds; a provider that asks for more is asked again after an hour
_LOOK_AGAIN: Final = 0.5  # seconds: so soon who waits notices that bounds were changed


class Gate:
    """Lets `width` in at a time, in the order of their coming."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def inside(self) -> int:
        """How many are in."""
        return self._inside

    @property
    def full(self) -> bool:
        """Who comes now has to wait."""
        return self._inside >= self._width or bool(self._waiting)

    def widen(self, width: int) -> None:
        """Change the width; if it is narrower now, those inside finish first."""
        self._width = width
        self._admit()

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Inside for the body."""
        if self._inside < self._width and not self._waiting:
            self._inside += 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._inside -= 1
            self._admit()

    async def _wait(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):  # passed over already
                    self._waiting.remove(place)
            else:  # let in at the very moment of the cancellation
                self._inside -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._inside < self._width:
            place = self._waiting.popleft()
            if not place.done():
                self._inside += 1
                place.set_result(None)


@dataclass(slots=True)
class Bucket:
    """Paces bytes: who comes waits until the bytes of those before have had their time, and is then let through whole.

    So a step of any size passes, and the rate holds over time. A rate of 0 is no limit.
    """

    rate: int
    clock: Clock = time.monotonic
    sleep: Sleep = asyncio.sleep
    _owed: float = 0.0
    _since: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self, size: int) -> None:
        """Wait for the turn of `size` bytes."""
        if not self.rate:
            return
        async with self._turn:
            while (wait := self._wait()) > 0:
                await self.sleep(min(wait, _LOOK_AGAIN))
            self._owed += size

    def _wait(self) -> float:
        now = self.clock()
        self._owed = max(0.0, self._owed - (now - self._since) * self.rate) if self.rate else 0.0
        self._since = now
        return self._owed / self.rate if self.rate else 0.0


class Pause:
    """Nobody sends before the moment that the provider, or a rest between two requests, asks for."""

    def __init__(self, clock: Clock, sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._until = -math.inf

    @property
    def left(self) -> float:
        """Seconds that are left of it."""
        return max(0.0, self._until - self._clock())

    def ask_for(self, seconds: float) -> None:
        """At least so many seconds from now."""
        self._until = max(self._until, self._clock() + min(seconds, _LONGEST_PAUSE))

    def lift(self) -> None:
        """No longer."""
        self._until = -math.inf

    async def over(self) -> None:
        """Wait for its end, also if it is put off or lifted meanwhile."""
        seen = -math.inf
        while seen != self._until:
            seen, left = self._until, self.left
            # Counted down here too, so that a sleep without time cannot wait for ever.
            while left > 0 and seen == self._until:
                nap = min(left, _LOOK_AGAIN)
                await self._sleep(nap)
                left = min(left - nap, self.left)


class Bounds:
    """The bounds of one plane: what the operator allows, and what the provider takes.

    Args:
        plane: its name, for messages.
        limits: the operator's.
        clock: seconds of any origin.
        sleep: waits so many seconds.
    """

    def __init__(self, plane: str, limits: PlaneLimits, clock: Clock, sleep: Sleep) -> None:
        self._plane = plane
        self._clock = clock
        self.window = Window(limits.requests)
        self.bucket = Bucket(limits.bytes_per_second, clock, sleep)
        self.pause = Pause(clock, sleep)
        self._gate = Gate(self.window.places)
        self._pours = Gate(self.window.places)

    def change(self, limits: PlaneLimits) -> None:
        """Other limits from now on; what the provider asked us to wait is forgotten, for an operator knows better."""
        self.bucket.rate = limits.bytes_per_second
        self.window.allow(limits.requests)
        self.pause.lift()
        self._widen()

    @asynccontextmanager
    async def of(self, size: int = 0, *, is_page: bool = True) -> AsyncIterator[None]:
        """One request that moves `size` bytes, waited for outside, so that nobody waits for bytes in a place.

        Not `is_page`: it may have been no request at all (the next object of a page that is here already).

        Raises:
            Throttled: the provider wants to be left alone for longer than a caller waits.
        """
        if size:
            await self.bucket.take(size)
        async with self._gate.entered():
            await self.quiet()
            begun, since = self.window.begin(), self._clock()
            try:
                yield
            except Error as error:
                self._failed(error, begun, since)
                raise
            if is_page:
                self._answered(begun, since)

    @asynccontextmanager
    async def pour(self, size: int) -> AsyncIterator[None]:
        """A step of `size` bytes that is stored while it is read; what fails in it says nothing about this plane.

        In places of their own: pours wait for reads, of this very plane maybe, which would wait for pours to end.
        """
        await self.bucket.take(size)
        async with self._pours.entered():
            await self.quiet()
            yield

    async def quiet(self) -> None:
        """Wait until the provider may be asked again; raises Throttled where that is long."""
        left = self.pause.left
        if left > LONGEST_WAIT:
            msg = (
                f"plane {self._plane!r}: the store asked to be left alone for {left:.0f} s more: wait, or lift that "
                f"with `cropduster planes limits {self._plane} --requests N`"
            )
            raise Throttled(msg, retry_after=left, plane=self._plane)
        if left:
            await self.pause.over()

    def _answered(self, begun: int, since: float) -> None:
        self.window.answered(begun, full=self._gate.full, seconds=self._clock() - since)
        self._widen()
        self._rest()

    def _failed(self, error: Error, begun: int, since: float) -> None:
        if error.retry_after:
            self.pause.ask_for(error.retry_after)
        if isinstance(error, Throttled):
            self.window.refused(begun, self._gate.inside, seconds=self._clock() - since)
        elif isinstance(error, Unavailable):
            self.window.lost(begun, self._gate.inside)
        else:  # the provider has answered
            self._answered(begun, since)
            return
        self._widen()
        self._rest()

    def _rest(self) -> None:
        if self.window.rest:
            self.pause.ask_for(self.window.rest)

    def _widen(self) -> None:
        self._gate.widen(self.window.places)
        self._pours.widen(self.window.places)
