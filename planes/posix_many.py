"""Many whole files in one go, in a directory where none is flushed for itself. Blocking; knows no asyncio.

Each of them is written under a temporary name, read back and compared, and then renamed, as `planes.posix_draft` does
it. Only one that must not replace anything carries a mark of its attempt: whoever replaces need not know what is his.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from planes.checksum import compute
from planes.errors import Corrupt, Error, NotFound
from planes.many import Whole
from planes.posix_copy import Proof
from planes.posix_draft import Draft, create, hidden_name, set_mark, take_name
from planes.posix_folders import Folders
from planes.posix_paths import TRIES, closing
from planes.posix_site import Site
from planes.threads import Stop

_AT_ONCE: Final = 1 << 20  # bytes that are read back at a time


def write(site: Site, objects: Sequence[Whole], stop: Stop) -> list[Proof]:
    """Write files in this order; those before one that fails stay.

    Raises:
        Error: as `Plane.put`.
    """
    if site.durable:
        return [_alone(site, each, stop) for each in objects]
    with Folders(site.tree) as folders:
        return [_file(site, folders, each, stop) for each in objects]


def _alone(site: Site, one: Whole, stop: Stop) -> Proof:
    def fill(fd: int) -> Proof:
        return site.mover.put(one.data, fd, 0, None, stop)

    stop.check()
    return site.whole(one.key, one.upload_id, fill, replace=one.replace)


def _file(site: Site, folders: Folders, one: Whole, stop: Stop) -> Proof:
    stop.check()
    folder, name = site.tree.target(one.key)
    made = len(folders.made)
    for attempt in range(1, TRIES + 1):
        try:
            directory = folders.at(folder)
            with site.tree.translating("write", one.key):
                return _written(site, one, directory, name)
        except NotFound:
            folders.forget()
            if attempt == TRIES:
                raise
        except BaseException:
            _tidy(site, folders, folder, made)
            raise
    raise AssertionError


def _written(site: Site, one: Whole, directory: int, name: str) -> Proof:
    hidden = hidden_name(one.upload_id)
    fd = create(hidden, directory)
    try:
        with closing(fd), memoryview(one.data) as data, data.cast("B") as view:
            proof = _filled(fd, view)
            if one.replace:
                os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
            else:
                facts, word = os.fstat(fd), set_mark(fd, one.upload_id)
                draft = Draft(one.key, one.upload_id, one.replace, facts.st_dev, facts.st_ino, word, "")
                take_name(site.tree, draft, directory, hidden, name)
    except BaseException:
        with suppress(OSError):
            os.unlink(hidden, dir_fd=directory)
        raise
    return proof


def _filled(fd: int, data: memoryview) -> Proof:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], done)
    for at in range(0, len(data), _AT_ONCE):
        if os.pread(fd, _AT_ONCE, at) != data[at : at + _AT_ONCE]:
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
