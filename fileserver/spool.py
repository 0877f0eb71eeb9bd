"""What the command line keeps of its standard input in our state directory, and when it may go.

A command holds a lock (flock) on the file it made, `<state>/spool/<32 hex digits>.data`, for as long as it lives;
`client/spool.py` is the other half. A file that nobody holds is needed as long as an unfinished transfer names it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDER: Final = "spool"


async def sweep(state: Path, needed: Callable[[set[str]], Awaitable[set[str]]]) -> int:
    """Remove the files that nobody needs any more; returns how many.

    Args:
        state: the state directory.
        needed: which of these paths an unfinished transfer names; asked once we hold all of them, so that no living
            command can ask for another transfer of them meanwhile.
    """
    held = await asyncio.to_thread(_hold, state / FOLDER)
    try:
        kept = await needed(set(held)) if held else set()
        gone = [path for path in held if path not in kept]
        await asyncio.to_thread(_remove, gone)
    finally:
        for descriptor in held.values():
            os.close(descriptor)
    return len(gone)


def _hold(folder: Path) -> dict[str, int]:
    """The files that no command holds, held by us from now on: descriptors by path."""
    held: dict[str, int] = {}
    for path in sorted(folder.glob("*.data")):
        with suppress(OSError):  # it has gone, or was never ours: no regular file, or another user's
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise
            held[str(path)] = descriptor
    return held


def _remove(paths: list[str]) -> None:
    for path in paths:
        with suppress(OSError):  # somebody else was quicker, or will be: the next sweep comes soon
            Path(path).unlink()
