"""Objects that we own and nobody needs any more: entered, and deleted when their time has come."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from fileserver.catalogue import files
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from planes.errors import Error

AT_ONCE: Final = 8
"""Deletes in flight on each plane."""

_FAILURES: Final = 16  # on one plane, after which it has to wait for the next call: it is probably down

log = structlog.get_logger(__name__)


async def collect(store: Store, planes: Configured, now: float) -> int:
    """Delete the garbage whose time has come by `now` (seconds since 1970, UTC); returns how many objects.

    What cannot be deleted is logged, stays for the next call, and blocks nothing else. Garbage of planes that are not
    configured any more is left alone.
    """
    counts = await asyncio.gather(*(_Plane(store, planes, name).collect(now) for name in planes.names))
    dead = await store.read(files.dead)
    if dead:
        await store.write(lambda c: files.forget_parts(c, files.dead(c)))
    return sum(counts)


class _Plane:
    """One plane during one collection."""

    def __init__(self, store: Store, planes: Configured, name: str) -> None:
        self._store = store
        self._planes = planes
        self._name = name
        self._failures = 0

    async def collect(self, now: float) -> int:
        count, after = 0, (self._name, "")
        while self._failures < _FAILURES:
            page = await self._store.read(lambda c, after=after: files.due(c, now, [self._name], after))  # type: ignore[misc]
            if not page:
                break
            gate = asyncio.Semaphore(AT_ONCE)
            gone = [key for key in await asyncio.gather(*(self._delete(key, gate) for _, key in page)) if key]
            rows = [(self._name, key) for key in gone]
            await self._store.write(lambda c, rows=rows: files.forget_garbage(c, rows))  # type: ignore[misc]
            count, after = count + len(rows), page[-1]
        return count

    async def _delete(self, key: str, gate: asyncio.Semaphore) -> str:
        """Delete one object; returns its key, "" if it is still there."""
        async with gate:
            if self._failures >= _FAILURES:
                return ""
            try:
                await self._planes.plane(self._name).delete(key)
            except Error as error:
                self._failures += 1
                log.warning("garbage stays for now", plane=self._name, key=key, error=error.message)
                return ""
            return key
