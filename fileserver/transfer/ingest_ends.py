"""What one run of an ingest leaves for the next: how it ended, and which files the HDF5 library survived.

A run that ends with its process leaves nothing, and files that are taken up again more than once after that are
suspected. One that is paused, drained or given up says so, and nobody is suspected for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from fileserver.catalogue.store import Store
from fileserver.together import to_its_end
from fileserver.transfer import ingest_rows
from fileserver.transfer.ingest_rows import File
from fileserver.transfer.live import Paused
from planes.errors import Error

_KEPT: Final = 1 << 16  # files that are remembered


@dataclass(slots=True)
class Taken:
    """The files, by their numbers from `first` to `last`, that a run has begun or taken up again by now."""

    transfer: str
    first: int
    last: int


@asynccontextmanager
async def orderly(store: Store, taken: Taken) -> AsyncIterator[None]:
    """Work on files; if it is stopped, or fails, the next run does not count it against those that have not ended."""
    try:
        yield
    except (asyncio.CancelledError, Paused, Error):
        with suppress(Exception):  # the first failure counts; without this, a sound file may be tried in vain
            await to_its_end(store.write(lambda c: ingest_rows.stand_still(c, taken.transfer, taken.first, taken.last)))
        raise


class Survived:
    """Files that the HDF5 library has survived in a process of its own: they are not tried again by this process."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    def __contains__(self, file: File) -> bool:
        return (file.plane, file.key, file.version) in self._known

    def add(self, file: File) -> None:
        """It has survived this version of a file."""
        self._known[file.plane, file.key, file.version] = None
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
