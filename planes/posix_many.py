"""Many whole files in one go. Blocking; knows no asyncio.

Each of them is written under a temporary name, read back and compared, and then renamed, as `planes.posix_draft` does
it. Only one that must not replace anything carries a mark of its attempt: whoever replaces need not know what is his.

A file that has its name when the host fails, and not its bytes, would be half of an object. So in a durable directory
each is flushed before any has its name, and then the directories, once for all names in them. In one that settles
later, those that must not replace anything wait until all is settled: such a one is a name for what was written before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from planes.checksum import compute
from planes.errors import Corrupt, Error, NotFound
from planes.many import Whole
from planes.posix_copy import Proof
from planes.posix_draft import Draft, create, hidden_name, set_mark, take_name
from planes.posix_folders import Folders
from planes.posix_paths import TRIES, closing
from planes.posix_site import Site
from planes.posix_sync import sync_directory
from planes.threads import Stop

_AT_ONCE: Final = 1 << 20  # bytes that are read back at a time


def write(site: Site, objects: Sequence[Whole], stop: Stop, settle: Callable[[], None]) -> list[Proof]:
    """Write files in this order, and behind those that replace the others.

    When it fails, a durable directory has none of those whose turn had not come to get their names; any other has all
    before the one that failed.

    Args:
        site: the directory.
        objects: to be written.
        stop: looked at between two files.
        settle: makes durable all that was written, where nothing is flushed for itself.

    Raises:
        Error: as `Plane.put`.
    """
    with site.folders() as folders:
        names = _Names(site, folders)
        try:
            proofs = [_file(site, folders, each, stop, names) for each in objects]
            names.take(settle)
        except BaseException:  # whatever it was, files without their names must not stay
            names.drop()
            raise
    return proofs


@dataclass(slots=True)
class _Names:
    """Files that are written, and wait for their names."""

    site: Site
    folders: Folders
    waiting: list[Draft] = field(default_factory=list)

    def take(self, settle: Callable[[], None]) -> None:
        """Give them their names, in order, those that may replace something first."""
        if self.waiting and not self.site.durable:
            settle()
        for replace in (True, False):
            taken = self._take([draft for draft in self.waiting if draft.replace is replace])
            if self.site.durable and taken:
                self._sync(taken)

    def _take(self, drafts: Sequence[Draft]) -> set[str]:
        """Give some their names; returns the directories that have changed."""
        changed = set[str]()
        for draft in drafts:
            folder, name = self.site.tree.target(draft.key)
            directory = self.folders.at(folder)
            with self.site.tree.translating("write", draft.key):
                take_name(self.site.tree, draft, directory, hidden_name(draft.upload_id), name)
            self.waiting.remove(draft)
            changed.add(folder)
        return changed

    def _sync(self, changed: set[str]) -> None:
        """Make names durable, and those of directories that were made here, by whichever call: each is in one above."""
        paths = set[str]()
        for folder in changed:
            path, top = folder, self.site.made_above(folder)
            while top and path != top:
                paths.add(path)
                path = path.rpartition("/")[0]
            paths |= {folder, path, top.rpartition("/")[0]} if top else {folder}
        for path in paths:
            with self.site.tree.translating("make durable", path):
                sync_directory(self.folders.at(path))

    def drop(self) -> None:
        """Remove those that have none, with directories that are empty without them."""
        for draft in self.waiting:
            folder, _ = self.site.tree.target(draft.key)
            with suppress(OSError, Error):
                os.unlink(hidden_name(draft.upload_id), dir_fd=self.folders.at(folder))
            _tidy(self.site, self.folders, folder, 0)


def _file(site: Site, folders: Folders, one: Whole, stop: Stop, names: _Names) -> Proof:
    stop.check()
    folder, name = site.tree.target(one.key)
    made = len(folders.made)
    for attempt in range(1, TRIES + 1):
        try:
            directory = folders.at(folder)
            with site.tree.translating("write", one.key):
                return _written(one, directory, name, names, durable=site.durable)
        except NotFound:
            folders.forget()
            if attempt == TRIES:
                raise
        except BaseException:  # the same for folders that were made for them
            _tidy(site, folders, folder, made)
            raise
    raise AssertionError


def _written(one: Whole, directory: int, name: str, names: _Names, *, durable: bool) -> Proof:
    hidden = hidden_name(one.upload_id)
    fd = create(hidden, directory)
    try:
        with closing(fd), memoryview(one.data) as data, data.cast("B") as view:
            proof = _filled(fd, view)
            word = "" if one.replace else set_mark(fd, one.upload_id)
            if durable:
                os.fsync(fd)  # with its mark
            if one.replace and not durable:
                os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
            else:
                facts = os.fstat(fd)
                names.waiting.append(Draft(one.key, one.upload_id, one.replace, facts.st_dev, facts.st_ino, word, ""))
    except BaseException:  # and for the one that is being written
        with suppress(OSError):
            os.unlink(hidden, dir_fd=directory)
        raise
    return proof


def _filled(fd: int, data: memoryview) -> Proof:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], done)
    for at in range(0, len(data), _AT_ONCE):
        found = os.pread(fd, min(_AT_ONCE, len(data) - at + 1), at)  # one more, which must not be there
        if found != bytes(data[at : at + _AT_ONCE]):  # a view would be compared byte by byte, forty times as slow
            msg = f"the file does not hold at offset {at} what was just written"
            raise Corrupt(msg, offset=str(at))
    crc = compute(data)
    return Proof(len(data), crc, crc, len(data))


def _tidy(site: Site, folders: Folders, folder: str, made: int) -> None:
    """Remove directories that were made for a file that did not come to be, or any that are empty."""
    new = [path for path in folders.made[made:] if path == folder or folder.startswith(f"{path}/")]
    if site.prunes or new:
        with suppress(OSError, Error):
            site.tree.remove_empty(folder, "" if site.prunes else min(new, key=len))
