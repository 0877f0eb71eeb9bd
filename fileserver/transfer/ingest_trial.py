"""Files at which more than an ingest of them could end: what is known of each before the HDF5 library opens it here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from fileserver.configured import Configured, where
from fileserver.errors import FormatMismatch
from fileserver.hdf5 import trial
from fileserver.hdf5.outline import BROKEN
from fileserver.together import side_by_side
from fileserver.transfer.ingest_ends import Survived
from fileserver.transfer.ingest_rows import Ended, File
from fileserver.transfer.ingest_target import LOADS
from fileserver.transfer.live import Live
from planes.plane import Plane

_SUSPECT: Final = 2  # times that a file was taken up again: kill -9 may be bad luck once
_SAID: Final = 200  # characters of what the library says

log = structlog.get_logger(__name__)


async def alone(plane: Plane, file: File, turns: asyncio.Semaphore, arrive: Callable[[], Awaitable[Ended]]) -> Ended:
    """What `arrive` makes of a file; that the library does not survive it, or says what nobody awaits, costs it alone.

    Processes take `turns`: each needs the memory of a small program.

    Raises:
        FormatMismatch: so it is.
    """
    async with turns:
        await _survived(plane, file)
    try:
        return await arrive()
    except BROKEN as error:
        name, said = where(file.plane, file.key), f"{type(error).__name__}: {error}"
        log.exception("an HDF5 file cannot be read", file=name, transfer=file.transfer)
        msg = f"{name} cannot be read as HDF5 ({said[:_SAID]}): it is damaged, or this is a bug; the log has more"
        raise FormatMismatch(msg, key=name) from error


async def deadly(
    planes: Configured, files: Sequence[File], turns: asyncio.Semaphore, survived: Survived, live: Live
) -> dict[int, FormatMismatch]:
    """The files among those of one domain that the library does not survive, by their numbers from 0.

    The first stands for all; those that have `survived` before are not tried again. Processes take `turns`.

    Raises:
        Cancelled, Paused: that was asked for meanwhile.
    """
    found: dict[int, FormatMismatch] = {}
    if files[0].resumed < _SUSPECT:
        return found

    async def look(one: tuple[int, File]) -> None:
        number, file = one
        async with turns:
            live.check()
            try:
                await _survived(planes.plane(file.plane), replace(file, resumed=files[0].resumed))
            except FormatMismatch as error:
                found[number] = error
            else:
                survived.add(file)

    await side_by_side([each for each in enumerate(files) if each[1] not in survived], look, LOADS)
    return found


async def _survived(plane: Plane, file: File) -> None:
    """Raise FormatMismatch for a file that was begun several times, if the HDF5 library does not survive it."""
    if file.resumed >= _SUSPECT and (why := await trial.ends(plane, file.key)):
        name = where(file.plane, file.key)
        msg = f"{name} {why}: it is damaged, or needs another version of the HDF5 library or of a plugin; leave it out"
        raise FormatMismatch(msg, key=name)
