"""The book of a file server: segments out of its database, receipts into it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from fileserver.catalogue.files import now
from fileserver.catalogue.store import Store
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.book import Page
from fileserver.transfer.live import Live
from fileserver.transfer.record import Done, StoredStep, plain


class StoreBook:
    """The book of a file server."""

    failures = (sa.exc.SQLAlchemyError,)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, transfer: str, number: int) -> Page | None:
        """What the store has of a segment; who took it up is noted."""
        page = await self._store.read(lambda c: page_of(c, transfer, number))
        if page is not None:
            await self._store.write(lambda c: manifest_rows.segment_begun(c, transfer, number, self._store.me, now()))
        return page

    async def enter(self, transfer: str, stored: Sequence[StoredStep], done: Sequence[Done], live: Live) -> None:
        """Record receipts."""
        await self._store.write(lambda c: enter(c, transfer, stored, done, live))

    async def end(self, transfer: str, number: int) -> None:
        """Note that a segment is done."""
        await self._store.write(lambda c: manifest_rows.segment_done(c, transfer, number, now()))


def page_of(c: sa.Connection, transfer: str, number: int) -> Page | None:
    """A segment with its parts and receipts; None if it is done."""
    segment, done = manifest_rows.segment(c, transfer, number)
    if done:
        return None
    plan = ledger.get(c, transfer).plan
    assert plan is not None
    first, last = segment.first_part, segment.last_part
    rows = manifest_rows.parts(c, transfer, first, last)
    return Page(
        plan, segment, rows, manifest_rows.steps(c, transfer, first, last, segment.first_step, segment.last_step)
    )


def enter(
    c: sa.Connection, transfer: str, stored: Sequence[StoredStep], done: Sequence[Done], live: Live | None = None
) -> None:
    """Record receipts, and with them the counters, so that after a crash those are the ones of what is stored."""
    manifest_rows.add_steps(c, transfer, stored)
    manifest_rows.parts_done(c, transfer, done)
    if live is not None and not live.elsewhere:
        ledger.update(c, transfer, now(), progress=plain(live.progress))
