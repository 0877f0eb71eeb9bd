"""The memory that payload may take in this process: a budget, and buffers that are used again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

_WASTE: Final = 4  # a free buffer serves a request for a quarter of its size
_SMALL: Final = 1 << 20  # and one up to this serves any


class Borrowed:
    """A buffer of somebody's own; it must be given back."""

    def __init__(self, buffer: bytearray, size: int, back: Callable[[bytearray], None]) -> None:
        self._buffer = buffer
        self._back = back
        self.view = memoryview(buffer)[:size]

    def give_back(self) -> None:
        """End it: the view cannot be used any more."""
        self.view.release()
        self._back(self._buffer)


class Buffers:
    """Hands out buffers of `limit` bytes in all, free ones included; who asks for more waits, in the order of coming.

    A buffer larger than the whole budget is handed out alone. Free buffers are kept and used again: fresh ones would
    cost a page fault for every 4 KiB.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._free: list[bytearray] = []
        self._waiting: deque[tuple[int, asyncio.Future[bytearray]]] = deque()
        self.relief: Callable[[], bool] = lambda: False
        """Asked before anybody waits: gives back a buffer that can be done without, and says whether there was one."""

    @property
    def short(self) -> bool:
        """Whether somebody waits for memory."""
        return bool(self._waiting)

    @property
    def held(self) -> int:
        """Bytes of all buffers, those in use and the free ones."""
        return self._used + sum(map(len, self._free))

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[memoryview]:
        """A view of exactly `size` bytes (content arbitrary) until the block ends."""
        borrowed = await self.borrow(size)
        try:
            yield borrowed.view
        finally:
            borrowed.give_back()

    async def borrow(self, size: int) -> Borrowed:
        """The same until it is given back."""
        buffer = None if self._waiting else self._fitting(size)
        while buffer is None and not self._waiting and self.relief():
            buffer = self._fitting(size)
        if buffer is None:
            buffer = await self._wait(size)
        return Borrowed(buffer, size, self._give_back)

    async def _wait(self, size: int) -> bytearray:
        place: asyncio.Future[bytearray] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, place))
        try:
            return await place
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):
                    self._waiting.remove((size, place))
                self._serve()  # who came later may need less
            else:  # served at the very moment of the cancellation
                self._give_back(place.result())
            raise

    def _give_back(self, buffer: bytearray) -> None:
        self._used -= len(buffer)
        if self.held + len(buffer) <= self._limit:
            self._free.append(buffer)
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, place = self._waiting[0]
            if not place.done():
                buffer = self._fitting(size)
                if buffer is None:
                    return
                place.set_result(buffer)
            self._waiting.popleft()

    def _fitting(self, size: int) -> bytearray | None:
        """A buffer of at least `size` bytes, counted as used; None if there is no room for it now."""
        fitting = [b for b in self._free if size <= len(b) <= max(_WASTE * size, _SMALL)]
        if fitting:
            best = min(fitting, key=len)
            self._free = [b for b in self._free if b is not best]
        elif self._used and self._used + size > self._limit:
            return None
        else:
            while self._free and self.held + size > self._limit:
                self._free.pop(0)
            best = bytearray(size)
        self._used += len(best)
        return best
