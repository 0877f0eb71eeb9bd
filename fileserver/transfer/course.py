"""What the stages of all verbs have in common: the record, its state, and how a transfer stands still or ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue.files import now
from fileserver.catalogue.store import Store
from fileserver.transfer import ledger
from fileserver.transfer.live import Live
from fileserver.transfer.record import Record, plain

WIDTH: Final = 2
"""Segments of a transfer side by side on one server."""


class Course(ABC):
    """The course of transfers in the store. A verb's stages say what is to be removed when one is given up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.width = WIDTH
        """Segments of a transfer that are moved side by side."""

    async def record(self, transfer: str) -> Record:
        """The transfer as it stands."""
        return await self._store.read(lambda c: ledger.get(c, transfer))

    async def stop(self, transfer: str, kind: str, live: Live) -> None:
        """Stand still ("pause"), or remove what is half-made and end ("cancel", "fail").

        What is wished by now counts: a cancel after a pause ends the transfer, a resume lets it go on in a new run.
        """
        record = await self.record(transfer)
        if record.ended is not None:
            return
        progress = plain(record.progress.forward(live.progress))
        if kind == "pause":
            kind = await self._store.write(lambda c: ledger.stand_still(c, transfer, now(), progress))
            if kind != "cancel":
                return
        left = await self._removed(record)
        notes = [f"not everything could be removed yet, which will be tried again: {left[0]}"] if left else []
        await self._end(record, kind, notes, clean=not left, progress=progress)

    async def give_up(self, transfer: str, kind: str, note: str) -> None:
        """End a transfer whose clean-up failed; what it left is tried again later."""
        await self._end(await self.record(transfer), kind, [note], clean=False)

    @abstractmethod
    async def _removed(self, record: Record) -> list[str]:
        """Remove what is half-made; returns a sentence for what could not be removed."""

    def _forget(self, c: sa.Connection, transfer: str) -> None:  # noqa: B027 - sprays have none
        """Forget rows of the verb's own, of which nothing is left."""

    async def _end(self, record: Record, kind: str, notes: list[str], *, clean: bool, **values: Any) -> None:
        state = "CANCELLED" if kind == "cancel" else "FAILED"
        values |= {"warnings": [*record.warnings, *notes]}

        def work(c: sa.Connection) -> None:
            if clean:
                self._forget(c, record.id)
            ledger.end(c, record.id, now(), state, clean=clean, **values)

        await self._store.write(work, durable=True)

    async def _state(self, transfer: str, state: str, live: Live) -> None:
        await self._store.write(lambda c: ledger.enter_state(c, transfer, now(), state))
        live.announce()
