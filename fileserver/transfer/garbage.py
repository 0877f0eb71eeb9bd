"""Objects that nobody needs any more: deleted when their time has come, whatever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from fileserver.catalogue import waste
from fileserver.catalogue.store import Store
from fileserver.catalogue.waste import Garbage
from fileserver.configured import Configured
from planes.errors import Error, NotFound

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
    dead = await store.read(waste.dead)
    if dead:
        await store.write(lambda c: waste.forget_parts(c, waste.dead(c)))
    return sum(counts)


async def destroy(store: Store, planes: Configured, objects: Sequence[Garbage]) -> list[Error]:
    """Delete these objects, which are garbage, now; returns why some are still there. `collect` tries those again."""
    work = {name: _Plane(store, planes, name) for name in dict.fromkeys(g.plane for g in objects)}
    for name, plane in work.items():
        await plane.delete([g for g in objects if g.plane == name])
    return [error for plane in work.values() for error in plane.failures]


class _Plane:
    """One plane during one collection."""

    def __init__(self, store: Store, planes: Configured, name: str) -> None:
        self._store = store
        self._planes = planes
        self._name = name
        self.failures: list[Error] = []

    async def collect(self, now: float) -> int:
        count, after = 0, (self._name, "")
        while len(self.failures) < _FAILURES:
            page = await self._store.read(partial(waste.due, now=now, planes=[self._name], after=after))
            if not page:
                break
            count += await self.delete(page)
            after = (page[-1].plane, page[-1].key)
        return count

    async def delete(self, page: Sequence[Garbage]) -> int:
        """Delete objects and forget them; returns how many."""
        gate = asyncio.Semaphore(AT_ONCE)
        tried = await asyncio.gather(*(self._delete(one, gate) for one in page))
        gone = [one for one, is_gone in zip(page, tried, strict=True) if is_gone]
        await self._store.write(lambda c: waste.forget_garbage(c, gone))
        return len(gone)

    async def _delete(self, one: Garbage, gate: asyncio.Semaphore) -> bool:
        """Delete one object; returns whether it has not to be looked at again."""
        async with gate:
            if len(self.failures) >= _FAILURES:
                return False
            try:
                plane = self._planes.plane(self._name)
                if one.version and (await plane.stat(one.key)).version != one.version:
                    log.warning("not deleted: it was written again since that was asked", plane=self._name, key=one.key)
                    return True
                await plane.delete(one.key)
            except NotFound:
                return True
            except Error as error:
                self.failures.append(error)
                log.warning("garbage stays for now", plane=self._name, key=one.key, error=error.message)
                return False
            return True
