"""fsync of directories: one for all threads that wait for the same directory. Knows no key and no upload.

A thousand small parts in one folder would cost a thousand flushes of it one after the other; whoever asks while a
flush is running only needs the next one, and shares it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from threading import Lock

from planes.posix_paths import opened


@dataclass(slots=True)
class _Turn:
    """A directory that somebody waits for; numbers count the asks."""

    flushing: Lock = field(default_factory=Lock)
    asked: int = 0
    done: int = 0
    waiting: int = 0


class DirectorySync:
    """Flushes directories for all threads of a process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._turns: dict[tuple[int, int], _Turn] = {}

    def __call__(self, directory: int) -> None:
        """Return when everything that this thread did in the directory (an open descriptor) is on the disk."""
        facts = os.fstat(directory)
        which = (facts.st_dev, facts.st_ino)
        with self._lock:
            turn = self._turns.setdefault(which, _Turn())
            turn.asked += 1
            turn.waiting += 1
            mine = turn.asked
        try:
            with turn.flushing:
                if turn.done < mine:
                    with self._lock:
                        covered = turn.asked  # all these did their work before the flush begins
                    flush(directory)
                    turn.done = covered
        finally:
            with self._lock:
                turn.waiting -= 1
                if not turn.waiting:
                    del self._turns[which]


def flush(directory: int) -> None:
    """Make a directory durable; its descriptor may be one that can't be read."""
    with opened(".", os.O_RDONLY | os.O_DIRECTORY, directory) as fd:
        os.fsync(fd)


sync_directory = DirectorySync()
"""The one of this process."""
