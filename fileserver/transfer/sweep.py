"""Open uploads that nobody will finish: found by what was recorded before they were begun, and ended.

A create whose answer was lost leaves an upload whose id nobody knows. Its key is known: it lies in the folder of a
generation (`~<transfer>/`), which was recorded before. So an upload is swept if its folder is named after a transfer
of ours that has ended. One in any other place may be a stranger's, who sees the same bucket: only its recorded token
makes it ours, and that is what the clean-up of its transfer goes by.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import sqlalchemy as sa
import structlog

from fileserver.catalogue import tables as t
from fileserver.catalogue.files import PAGE
from fileserver.catalogue.names import MANIFEST
from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.execute import upload_id
from fileserver.transfer.record import Record
from planes.errors import Error, Missing
from planes.plane import Plane, Unfinished

_IN_FOLDER: Final = re.compile(r"(?:^|/)~([A-Za-z0-9-]+)/([^/]+)$")
_NUMBER: Final = re.compile(r"\._([0-9]+)_of_[0-9]+$")
_SINCE: Final = 24 * 3600.0  # seconds before the start of a server in which transfers ended that it looks behind

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """An upload that is ended, or would be: what it was to become, of which transfer, and why it is there still."""

    key: str
    transfer: str
    left: str = ""


def owner(one: Unfinished) -> tuple[str, Unfinished] | None:
    """The transfer in whose folder an upload lies, and the upload with its attempt; None if it lies in none.

    An upload that says another attempt than one of that transfer's is none of it.
    """
    found = _IN_FOLDER.search(one.key)
    if found is None:
        return None
    transfer, name = found.groups()
    if one.attempt:
        return (transfer, one) if one.attempt.startswith(f"{transfer}-") else None
    number = _NUMBER.search(name)
    if number is None and name != MANIFEST:
        return None
    return transfer, replace(one, attempt=upload_id(transfer, int(number[1]) if number else 0))


async def drop_below(planes: Configured, name: str, transfer: str, home: str) -> list[Error]:
    """End the open uploads of a transfer that is ending, in its folder; returns why some are still there."""
    try:
        plane = planes.plane(name)
        async for one in plane.unfinished(f"{home}/"):
            mine = owner(one)
            if mine is not None and mine[0] == transfer:
                await plane.drop(mine[1])
    except Missing:  # the bucket or root itself is gone, and everything in it
        pass
    except Error as error:
        msg = f"open uploads below {where(name, home)} could not be ended: {error.message}"
        return [type(error)(msg, retry_after=error.retry_after, **error.facts)]
    return []


class Sweep:
    """The sweep of a file server.

    Args:
        clean: tries again to remove what ended transfers into a plane have left.
    """

    def __init__(self, store: Store, planes: Configured, clean: Callable[[str], Awaitable[None]]) -> None:
        self._store = store
        self._planes = planes
        self._clean = clean
        self._looked: float | None = None

    async def plane(self, name: str, *, validate_only: bool) -> list[Swept]:
        """Everything on a plane that is ours and that nobody will finish; raises what the plane raises."""
        plane = self._planes.plane(name)
        found = [one async for one in self._recorded(name)]
        if not validate_only:
            await self._clean(name)
            still = {(one.transfer, one.key) async for one in self._recorded(name)}
            words = "it could not be removed yet, which will be tried again"
            found = [replace(one, left=words if (one.transfer, one.key) in still else "") for one in found]
        return found + await self._below(plane, "", validate_only=validate_only)

    async def recent(self, now: float) -> int:
        """Look behind the transfers that have ended since the last call, each in its own folder; returns how many."""
        since, self._looked = self._looked or now - _SINCE, now
        count = 0
        for name, home in await self._store.read(lambda c: _ended_between(c, since, now)):
            if name in self._planes.names:
                try:
                    swept = await self._below(self._planes.plane(name), f"{home}/", validate_only=False)
                except Error as error:
                    log.warning("open uploads stay for now", plane=name, folder=home, error=error.message)
                    continue
                count += len(swept)
        return count

    async def _recorded(self, plane: str) -> AsyncIterator[Swept]:
        """Uploads whose tokens we hold, of transfers that have ended and could not remove them then."""
        for record in await self._store.read(ledger.unclean):
            if record.plan is None or record.plan.plane != plane:
                continue
            first = 1
            while page := await self._store.read(partial(manifest_rows.parts, transfer=record.id, first=first)):
                for row in page:
                    yield Swept(row.part.key, record.id)
                first = page[-1].part.number + 1

    async def _below(self, plane: Plane, prefix: str, *, validate_only: bool) -> list[Swept]:
        swept: list[Swept] = []
        page: list[tuple[str, Unfinished]] = []
        async for one in plane.unfinished(prefix):
            mine = owner(one)
            page += [] if mine is None else [mine]
            if len(page) == PAGE:
                swept += await self._end(plane, page, validate_only=validate_only)
                page = []
        return swept + await self._end(plane, page, validate_only=validate_only)

    async def _end(self, plane: Plane, page: list[tuple[str, Unfinished]], *, validate_only: bool) -> list[Swept]:
        ended = await self._store.read(lambda c: _ended(c, {transfer for transfer, _ in page}))
        swept: list[Swept] = []
        for transfer, one in page:
            if transfer not in ended or (one.attempt == upload_id(transfer, 0) and not ended[transfer]):
                continue
            left = ""
            try:
                if not validate_only and not await plane.drop(one):
                    continue  # a stranger's, or gone already
            except Error as error:
                left = error.message
            swept.append(Swept(one.key, transfer, left))
            if not validate_only:
                log.info(
                    "open upload of an ended transfer", plane=plane.name, key=one.key, transfer=transfer, left=left
                )
        return swept


def _ended(c: sa.Connection, transfers: set[str]) -> dict[str, bool]:
    """Which of these are transfers of ours that have ended, and whether nobody rewrites the manifest of theirs.

    After a transfer is forgotten, the file that it made still tells that it was ours.
    """
    x, f, s = t.transfers.c, t.files.c, t.stale_manifests.c
    known = {r.id: r.ended is not None for r in c.execute(sa.select(x.id, x.ended).where(x.id.in_(transfers)))}
    made = {r.transfer for r in c.execute(sa.select(f.transfer).where(f.transfer.in_(transfers)))}
    made |= {r.id for r in c.execute(sa.select(t.copies.c.id).where(t.copies.c.id.in_(transfers)))}
    busy = {r.generation for r in c.execute(sa.select(s.generation).where(s.generation.in_(transfers)))}
    return {each: each not in busy for each in transfers if known.get(each, each in made)}


def _ended_between(c: sa.Connection, since: float, until: float) -> list[tuple[str, str]]:
    """Planes and folders of the logical files whose transfers ended then."""
    x = t.transfers.c
    ids = [r.id for r in c.execute(sa.select(x.id).where(x.ended >= since, x.ended < until).order_by(x.ended))]
    return [place for each in ids for place in _folders_of(ledger.get(c, each))]


def _folders_of(record: Record) -> list[tuple[str, str]]:
    plan = record.plan
    return [(plan.plane, home) for home in plan.homes(record.id)] if plan is not None and plan.file else []
