"""What a posix plane and its uploads share: one directory, and the blocking work that is done in it."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

from planes import posix_draft, posix_list
from planes.errors import Changed, NotFound, Unsupported
from planes.plane import Extent, Info, Take, Ticket, Unfinished
from planes.posix_copy import SLICE, Mover, Proof, Source, read_all
from planes.posix_draft import Draft
from planes.posix_folders import Folders
from planes.posix_paths import HIDDEN, Links, Tree, closing, pin
from planes.threads import Stop

_REMEMBERED: Final = 4096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LINKS: Final[dict[str, Links]] = {"inside": "inside", "refuse": "refuse", "anywhere": "anywhere"}


@dataclass(slots=True)
class _Made:
    """Directories that were made in this process, so that whoever aborts last removes them, not whoever made them."""

    _tops: dict[str, None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def above(self, folder: str, made: str = "") -> str:
        """The topmost directory above `folder` that was made here, `made` included; empty if there is none."""
        with self._lock:
            if made:
                self._remember(made)
                return made
            return self._above(folder)

    def make(self, path: str, make: Callable[[], None]) -> None:
        """Make a directory; whoever sees it, and asks who made it, hears that it was made here."""
        with self._lock:
            make()
            if not self._above(path):
                self._remember(path)

    def _above(self, folder: str) -> str:
        path = folder
        while path and path not in self._tops:
            path = path.rpartition("/")[0]
        return path

    def _remember(self, made: str) -> None:
        self._tops[made] = None
        if len(self._tops) > _REMEMBERED:
            del self._tops[next(iter(self._tops))]


@dataclass(frozen=True, slots=True)
class Site:
    """One directory.

    Args:
        durable: commits wait for the disk.
        prunes: directories that became empty are removed.
    """

    tree: Tree
    durable: bool
    prunes: bool
    mover: Mover = field(default_factory=Mover)
    _made: _Made = field(default_factory=_Made)

    def read(self, extent: Extent, into: memoryview, stop: Stop) -> None:
        """Fill `into` with an extent; see `planes.plane.Plane.read`."""
        with self._reading(extent) as source:
            self._fill(source, extent, into.cast("B"), extent.start, stop)

    def bytes_of(self, extent: Extent, stop: Stop) -> bytes:
        """The bytes of an extent, as `read` fills them in; in one call of the system where it gives them all."""
        stop.check()
        with self._reading(extent) as source:
            with self.tree.translating("read", extent.key):
                found = os.pread(source.fd, extent.size, extent.start)
            if len(found) < extent.size:
                rest = bytearray(extent.size - len(found))
                self._fill(source, extent, memoryview(rest), extent.start + len(found), stop)
                found += rest
        return found

    def stream(self, extent: Extent, take: Take, stop: Stop) -> None:
        """Hand an extent over slice by slice; see `planes.plane.Plane.stream`."""
        buffer = memoryview(bytearray(min(SLICE, extent.size)))
        with self._reading(extent) as source:
            for at in range(extent.start, extent.end, SLICE):
                view = buffer[: min(SLICE, extent.end - at)]
                self._fill(source, extent, view, at, stop)
                take(view)

    @contextmanager
    def _reading(self, extent: Extent) -> Iterator[Source]:
        """The extent's file, which must be of its version before and after."""
        with closing(_open_pinned(self.tree, extent.key, extent.version)) as fd:
            source = Source(fd, extent.start, extent.end, extent.version, self.tree.shown(extent.key))
            source.check(extent.end)
            yield source
            source.check(extent.end)

    def _fill(self, source: Source, extent: Extent, into: memoryview, offset: int, stop: Stop) -> None:
        with self.tree.translating("read", extent.key):
            whole = read_all(source.fd, into, offset, stop)
        if not whole:
            source.check(extent.end)
            msg = f"{source.place} was shorter for a moment while it was read"
            raise Changed(msg, key=extent.key)

    def begin(self, key: str, upload_id: str, *, replace: bool) -> Draft:
        """Make the temporary file of an upload."""
        draft = posix_draft.begin(self.tree, key, upload_id, replace=replace)
        return dataclasses.replace(draft, made=self._made.above(key.rpartition("/")[0], draft.made))

    def folders(self) -> Folders:
        """Directories that stay open; those that are made there count as made here."""
        return Folders(self.tree, self._made.make)

    def made_above(self, folder: str) -> str:
        """The topmost directory above one, or it itself, that was made here; empty if there is none."""
        return self._made.above(folder)

    def whole(self, key: str, upload_id: str, fill: Callable[[int], Proof], *, replace: bool) -> Proof:
        """Make a file in one go; `fill` writes into the descriptor it is given."""
        draft = self.begin(key, upload_id, replace=replace)
        try:
            with self.writing(draft) as fd:
                proof = fill(fd)
            self.commit(draft, proof.size)
        except BaseException:  # whatever it was, what is half-made must not stay
            self.abort(draft)
            raise
        return proof

    @contextmanager
    def writing(self, draft: Draft) -> Iterator[int]:
        """The temporary file, open; see `planes.posix_draft.open_draft`."""
        with posix_draft.open_draft(self.tree, draft) as fd, self.tree.translating("write", draft.key):
            yield fd

    def commit(self, draft: Draft, size: int) -> Info:
        """Make it visible; see `planes.posix_draft.commit`."""
        return info(draft.key, posix_draft.commit(self.tree, draft, size, durable=self.durable))

    def made(self, draft: Draft) -> Info | None:
        """The visible file, if it is that of the draft."""
        found = posix_draft.made(self.tree, draft)
        return None if found is None else info(draft.key, found)

    def abort(self, draft: Draft) -> None:
        """Remove it; see `planes.posix_draft.abort`."""
        posix_draft.abort(self.tree, draft, prune=self.prunes)

    def discard(self, key: str, upload_id: str) -> None:
        """Remove it by name; see `planes.posix_draft.discard`."""
        posix_draft.discard(self.tree, key, upload_id, prune=self.prunes)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Temporary files of uploads; see `planes.posix_list.walk`."""
        for key, _ in posix_list.walk(self.tree, prefix, "", hidden=True):
            folder, slash, name = key.rpartition("/")
            attempt = name.removeprefix(HIDDEN)
            yield Unfinished(f"{folder}{slash}{attempt}", attempt)

    def delete(self, key: str, version: str = "") -> None:
        """Remove a file, if it has that version; a directory of that name is no object and stays."""
        folder, name = self.tree.target(key)
        try:
            with self.tree.directory(folder) as fd, self.tree.translating("delete", key):
                if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    return
                if version and pin(self.tree.stat_file(key)) != version:  # what a symlink leads to is what was listed
                    return
                os.unlink(name, dir_fd=fd)
        except NotFound:
            return
        if self.prunes:
            self.tree.remove_empty(folder)

    def ticket(self, info: Info) -> Ticket:
        """Where a file is, by the names that `redeem` resolves, with the same care about symlinks."""
        tree = self.tree
        place = {"plane": tree.plane, "root": tree.root, "links": tree.links, "key": info.key}
        return Ticket("posix", host(), place, info.version, info.size)

    def accepts(self, ticket: Ticket) -> bool:
        """Whether this process can see the file."""
        return ticket.kind == "posix" and ticket.scope == host()

    def redeem(self, ticket: Ticket, start: int, end: int, target: int, offset: int, stop: Stop) -> Proof:
        """Copy bytes [start, end) of a ticket's file to `offset` of an open one; see `planes.posix_copy.Mover.copy`."""
        if not self.accepts(ticket):
            msg = f"plane {self.tree.plane} copies files of its own host only; read these bytes and put them instead"
            raise Unsupported(msg, plane=self.tree.plane, kind=ticket.kind)
        place = ticket.location
        tree = Tree(place["plane"], place["root"], _LINKS[place["links"]])
        with closing(_open_pinned(tree, place["key"], ticket.version)) as fd:
            source = Source(fd, start, end, ticket.version, tree.shown(place["key"]))
            return self.mover.copy(source, target, offset, stop)


def info(key: str, found: os.stat_result) -> Info:
    """The facts of a file in the words of the contract."""
    return Info(key, found.st_size, pin(found), _EPOCH + timedelta(microseconds=found.st_mtime_ns // 1000))


@cache
def host() -> str:
    """What tells this host's view of its files from any other: name, boot, mount namespace and root directory.

    Two containers of one machine have the same boot id and may have the same name, but not the same files.
    """
    root = Path("/").stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    mounts = Path("/proc/self/ns/mnt").readlink()
    return f"{socket.gethostname()} {boot} {mounts} {root.st_dev}:{root.st_ino}"


def _open_pinned(tree: Tree, key: str, version: str) -> int:
    try:
        return tree.open_file(key)
    except NotFound as error:
        if not version:
            raise
        msg = f"{tree.shown(key)} vanished after it was planned"
        raise Changed(msg, plane=tree.plane, key=key, pinned=version) from error
