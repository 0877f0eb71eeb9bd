"""fsync of directories and of whole file systems: one for all threads that wait for the same. Knows no key, no upload.

A thousand small parts in one folder would cost a thousand flushes of it one after the other; whoever asks while a
flush is running only needs the next one, and shares it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
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
    """Flushes directories for all threads of a process.

    Args:
        flush: what makes durable what an open descriptor of a directory stands for; the directory itself if None.
    """

    def __init__(self, flush: Callable[[int], None] | None = None) -> None:
        self._flush = flush
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
                    (self._flush or flush)(directory)
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


def flush_file_system(directory: int) -> None:
    """Make everything durable that was written to the file system of a directory, by whomever: syncfs(2).

    A thousand files cost one flush, not three thousand; but who writes much beside us is waited for too.
    """
    with opened(".", os.O_RDONLY | os.O_DIRECTORY, directory) as fd:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:  # a C library without it: all file systems
            os.sync()
        elif syncfs(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


sync_directory = DirectorySync()
"""The one of this process."""
sync_file_system = DirectorySync(flush_file_system)
"""The same for whole file systems."""
