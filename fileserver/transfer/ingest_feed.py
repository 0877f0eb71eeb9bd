"""The files of a segment for those who bring them: a page ahead, so that nobody waits for the last of a page."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

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
    """

    page: Callable[[int], Awaitable[Sequence[Begun]]]
    first: int
    _ready: deque[Begun] = field(default_factory=deque)
    _over: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def next(self) -> Begun | None:
        """The next file; None when all are handed out."""
        async with self._turn:
            if not self._ready and not self._over:
                self._ready.extend(await self.page(self.first))
                self._over = not self._ready
            if not self._ready:
                return None
            begun = self._ready.popleft()
            self.first = begun.file.number + 1
            return begun
