"""The memory that payload may take in this process: a budget, and buffers that are used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Buffers:
    """Hands out buffers of up to `limit` bytes in all; who asks for more waits.

    A buffer larger than the whole budget is handed out alone. Free buffers are kept and used again: fresh ones would
    cost a page fault for every 4 KiB.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._free: list[bytearray] = []
        self._room = asyncio.Condition()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[memoryview]:
        """A view of exactly `size` bytes (content arbitrary) until the block ends."""
        async with self._room:
            await self._room.wait_for(lambda: not self._used or self._used + size <= self._limit)
            self._used += size
            buffer = self._fitting(size)
        view = memoryview(buffer)[:size]
        try:
            yield view
        finally:
            view.release()
            async with self._room:
                self._used -= size
                self._free.append(buffer)
                while sum(map(len, self._free)) + self._used > self._limit and self._free:
                    self._free.pop(0)
                self._room.notify_all()

    def _fitting(self, size: int) -> bytearray:
        fitting = [b for b in self._free if size <= len(b) <= max(4 * size, 1 << 20)]
        if not fitting:
            return bytearray(size)
        best = min(fitting, key=len)
        self._free = [b for b in self._free if b is not best]
        return best
