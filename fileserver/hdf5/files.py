"""Many HDF5 files of which a few are open at a time, each as the version that was listed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from fileserver.configured import where
from fileserver.hdf5.source import Source, opened
from planes.errors import Changed
from planes.plane import Plane

OPEN: Final = 4
"""Files that are open at once: each may hold some tens of MiB."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file is, and which version of it."""

    plane: Plane
    key: str
    version: str


@dataclass(slots=True)
class _Open:
    source: Source
    stack: AsyncExitStack
    users: int = 0


class Files:
    """The files of one job, by their numbers from 0. Belongs to one event loop.

    Args:
        places: of all of them.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._turns = asyncio.Semaphore(OPEN)
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def open(self, number: int) -> AsyncIterator[Source]:
        """A file, for reading; it stays open until others need its place.

        Nobody may ask for another one while it has one.

        Raises:
            Changed: it is not the version that was listed.
            NotFound, FormatMismatch: as `fileserver.hdf5.source.opened` says.
        """
        async with self._turns:
            one = await self._get(number)
            try:
                yield one.source
            finally:
                one.users -= 1

    async def aclose(self) -> None:
        """Close all files."""
        while self._open:
            await self._open.popitem()[1].stack.aclose()

    async def _get(self, number: int) -> _Open:
        async with self._opening:
            if number not in self._open:
                await self._make_room()
                self._open[number] = await self._opened(number)
            self._open.move_to_end(number)
            one = self._open[number]
            one.users += 1
            return one

    async def _make_room(self) -> None:
        idle = [number for number, each in self._open.items() if not each.users]
        for number in idle[: max(0, len(self._open) - OPEN + 1)]:
            await self._open.pop(number).stack.aclose()

    async def _opened(self, number: int) -> _Open:
        place = self.places[number]
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(opened(place.plane, place.key))
            if source.info.version != place.version:
                msg = f"{where(place.plane.name, place.key)} has changed since it was listed: run the ingest again"
                raise Changed(msg, plane=place.plane.name, key=place.key)
            return _Open(source, stack.pop_all())
        raise AssertionError  # the stack swallows nothing
