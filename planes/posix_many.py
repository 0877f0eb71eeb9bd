"""Many whole files in one go, in a directory where none is flushed for itself. Blocking; knows no asyncio.

Each of them is written under a temporary name and then renamed, as `planes.posix_draft` does it. They carry no mark
of their attempt: whoever replaces need not know what is his own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from planes.errors import Error, NotFound
from planes.many import Whole
from planes.posix_copy import Proof
from planes.posix_draft import create, hidden_name
from planes.posix_paths import TRIES, closing
from planes.posix_site import Site
from planes.threads import Stop


def write(site: Site, objects: Sequence[Whole], stop: Stop) -> list[Proof]:
    """Write files in this order, and replace what is there; those before one that fails stay.

    Raises:
        Error: as `Plane.put`.
    """
    return [_file(site, each, stop) for each in objects]


def _file(site: Site, one: Whole, stop: Stop) -> Proof:
    stop.check()
    if site.durable:
        return site.whole(one.key, one.upload_id, lambda fd: site.mover.put(one.data, fd, 0, None, stop), replace=True)
    folder, name = site.tree.target(one.key)
    hidden, made = hidden_name(one.upload_id), ""
    for attempt in range(1, TRIES + 1):
        try:
            with site.tree.directory(folder) as directory, site.tree.translating("write", one.key):
                fd = create(hidden, directory)
                with closing(fd), _removed_on_failure(site, folder, made, hidden, directory):
                    proof = site.mover.put(one.data, fd, 0, None, stop)
                    os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
                return proof
        except NotFound:
            if attempt == TRIES:
                raise
            made = min(filter(None, (made, site.tree.make_directory(folder))), key=len, default="")
    raise AssertionError


@contextmanager
def _removed_on_failure(site: Site, folder: str, made: str, hidden: str, directory: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError, Error):
            os.unlink(hidden, dir_fd=directory)
        if site.prunes or made:
            site.tree.remove_empty(folder, "" if site.prunes else made)
        raise
