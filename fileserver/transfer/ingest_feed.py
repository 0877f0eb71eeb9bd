"""The files of a segment for those who bring them: a page ahead, so that nobody waits for the last of a page."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fileserver.transfer.ingest_ends import Taken
from fileserver.transfer.ingest_rows import File


@dataclass(frozen=True, slots=True)
class Begun:
    """A file with all that it needs to be brought."""

    file: File
    fresh: bool
    """Nothing of it was written before."""


@dataclass(slots=True)
class Feed:
    """Files in order, each handed out once.

    Args:
        page: files from a number on, begun; none behind the last.
        first: the number to start with.
        taken: the files that were begun by now.
    """

    page: Callable[[int], Awaitable[Sequence[Begun]]]
    first: int
    taken: Taken
    _ready: deque[Begun] = field(default_factory=deque)
    _over: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def next(self, fits: Callable[[Sequence[Begun]], bool] = lambda files: not files) -> list[Begun]:
        """The next file, or as many as there `fits` one more; none when all are handed out."""
        found: list[Begun] = []
        async with self._turn:
            while fits(found) and await self._has_more():
                found.append(self._ready.popleft())
                self.first = found[-1].file.number + 1
        return found

    async def _has_more(self) -> bool:
        if not self._ready and not self._over:
            self._ready.extend(await self.page(self.first))
            self._over = not self._ready
            if self._ready:
                self.taken.last = self._ready[-1].file.number
        return bool(self._ready)
