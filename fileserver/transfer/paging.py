"""The rows of a transfer, a page at a time: nothing that walks a manifest holds more of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial

import sqlalchemy as sa

from fileserver.catalogue.files import PAGE
from fileserver.catalogue.store import Store
from fileserver.transfer import manifest_rows
from fileserver.transfer.manifest import Extent, Part, Source
from fileserver.transfer.record import PartRow


class Rows:
    """What the store holds of transfers, in pages."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def parts(self, transfer: str, size: int = PAGE) -> AsyncIterator[list[PartRow]]:
        """The parts in order, `size` at a time."""
        first = 1
        while page := await self._store.read(partial(manifest_rows.parts, transfer=transfer, first=first, limit=size)):
            yield page
            first = page[-1].part.number + 1

    async def sources(self, transfer: str) -> AsyncIterator[list[Source]]:
        """The sources in order."""
        after = 0
        while page := await self._store.read(partial(manifest_rows.sources, transfer=transfer, after=after)):
            yield page
            after += len(page)

    async def behind(self, transfer: str, parts: Sequence[Part]) -> dict[tuple[str, str], Source]:
        """The sources of which these parts hold the end, by plane and key: their values count there."""

        def work(c: sa.Connection) -> dict[tuple[str, str], Source]:
            ends = {(p.plane, p.key) for part in parts for p in part.pieces if isinstance(p, Extent) and p.end == p.of}
            return manifest_rows.sources_of(c, transfer, ends)

        return await self._store.read(work)
