"""Standard input as a source: kept in a file until the transfer that reads it has ended.

A transfer outlives the command that asked for it, so the file cannot go with the command. While the command lives it
holds a lock on the file, which the kernel lets go of when it ends, however it ends. What nobody holds and no
unfinished transfer names is swept by the server (`fileserver.spool`), in whose state directory the file lies.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from client.errors import Code, Reason, ServerError

FOLDER: Final = "spool"
"""Of the server's state directory."""

_PIECE: Final = 1 << 20
_NAME: Final = re.compile(rf"/.*/{FOLDER}/[0-9a-f]{{32}}\.data", re.DOTALL)


class Spooled:
    """One spooled input; `path` is absolute."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_kept = False

    @property
    def is_kept(self) -> bool:
        """A transfer that may not have ended needs it."""
        return self._is_kept

    def keep(self) -> None:
        """From here on the file stays when this command ends: a transfer may need it."""
        self._is_kept = True

    def remove(self) -> None:
        """Delete the file, because its transfer has ended or never began; idempotent."""
        self.path.unlink(missing_ok=True)


@contextmanager
def spool(source: BinaryIO, folder: Path, name: str) -> Iterator[Spooled]:
    """Write all of `source` into a file of `folder`, which is removed at the end unless a transfer may need it.

    Args:
        source: read to its end.
        folder: absolute; made if need be.
        name: 32 hex digits.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
        ServerError: PLANE_REFUSED, the source cannot be read.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    spooled = Spooled(folder / f"{name}.data")
    descriptor = _create(spooled.path)
    with os.fdopen(descriptor, "wb") as out:  # buffered: a bare file may take less than it is given, and not say so
        try:
            while piece := _read(source):
                out.write(piece)
            out.flush()
            yield spooled
        finally:
            if not spooled.is_kept:
                spooled.remove()


def _create(path: Path) -> int:
    """A fresh file that we hold; a sweep may come between making and holding it."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(_PIECE)
    except OSError as error:
        msg = f"standard input cannot be read: {error.strerror}"
        raise ServerError(Reason.PLANE_REFUSED, Code.FAILED_PRECONDITION, msg) from error


def is_spooled(key: str) -> bool:
    """Whether a local path is one that `spool` makes."""
    return _NAME.fullmatch(key) is not None
