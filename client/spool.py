"""Standard input as a source: kept in a file until the transfer that reads it has ended.

A transfer outlives the command that asked for it, so the file cannot go with the command. Beside it lies the name of
its transfer, and every later spray from standard input removes the files whose transfer has ended.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_ORPHAN_SECONDS: Final = 7 * 86400
_PIECE: Final = 1 << 20
_DATA: Final = ".data"
_OWNER: Final = ".transfer"


class Spooled:
    """One spooled input; `path` is absolute."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}{_DATA}"
        self._owner = folder / f"{name}{_OWNER}"

    @property
    def is_kept(self) -> bool:
        """A transfer that may not have ended needs it."""
        return self._owner.exists()

    def keep_for(self, transfer: str) -> None:
        """From here on the file stays until this transfer has ended."""
        self._owner.write_text(transfer, encoding="utf-8")

    def remove(self) -> None:
        """Delete the file, because its transfer has ended or never began; idempotent."""
        self.path.unlink(missing_ok=True)
        self._owner.unlink(missing_ok=True)


@contextmanager
def spool(source: BinaryIO, folder: Path, name: str) -> Iterator[Spooled]:
    """Write all of `source` into a file of `folder`, which is removed at the end unless a transfer needs it.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    spooled = Spooled(folder, name)
    try:
        descriptor = os.open(spooled.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as out:
            shutil.copyfileobj(source, out, _PIECE)
        yield spooled
    finally:
        if not spooled.is_kept:
            spooled.remove()


def sweep(folder: Path, ended: Callable[[str], bool]) -> None:
    """Remove the spooled files whose transfer has ended; `ended` tells by the transfer's name."""
    for owner in sorted(folder.glob(f"*{_OWNER}")):
        if ended(owner.read_text(encoding="utf-8")):
            Spooled(folder, owner.name.removesuffix(_OWNER)).remove()
    for data in folder.glob(f"*{_DATA}"):
        # A command that was killed before it named an owner; one that is still reading has written lately.
        if not data.with_suffix(_OWNER).exists() and time.time() - data.stat().st_mtime > _ORPHAN_SECONDS:
            data.unlink(missing_ok=True)
