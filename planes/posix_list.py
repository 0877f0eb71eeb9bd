"""The files below a directory as keys in byte order, one directory in memory at a time. Reads no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from planes.errors import NotFound, PathEscapes, Refused
from planes.left_out import LeftOut, Tell
from planes.posix_paths import HIDDEN, Tree, opened


@dataclass(frozen=True, slots=True)
class _Entry:
    """`order` is the name as it stands in keys: that of a directory ends with `/`, so `a-b` comes before `a/b`."""

    order: bytes
    is_link: bool

    @property
    def is_directory(self) -> bool:
        return self.order.endswith(b"/")


def walk(
    tree: Tree, prefix: str, after: str, *, hidden: bool = False, left_out: Tell | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """Keys that begin with `prefix` and are greater than `after`, with facts about their files.

    With `hidden` those of temporary files, else of all others.

    Symlinks are followed as far as the tree allows; those that lead out of it, nowhere or in a circle are left out.
    Where they may lead anywhere, those to directories are left out too. `left_out` is told all of these.

    Raises:
        Missing: the root is not there.
        PathEscapes: the prefix has a `..` in it.
        Refused: a directory cannot be read, or a name is not UTF-8 and there is no `left_out`, so that the listing
            would not be whole.
    """
    folder, _, _ = prefix.rpartition("/")
    if folder:
        tree.elements(folder)
    try:
        with tree.directory(folder) as fd:
            identity = _identity(os.fstat(fd))
    except NotFound:
        return
    yield from _Walk(tree, prefix.encode(), after.encode(), hidden, left_out).below(folder, (identity,))


@dataclass(frozen=True, slots=True)
class _Walk:
    tree: Tree
    prefix: bytes
    after: bytes
    hidden: bool = False
    left_out: Tell | None = None

    def below(self, folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.stat_result]]:
        """Files of one directory; `above` are the directories on the way to it, against symlinks in a circle."""
        base = os.fsencode(f"{folder}/") if folder else b""
        for entry in self._entries(folder):
            order = base + entry.order
            if not self._wanted(order, entry):
                continue
            key = self._key(order.removesuffix(b"/"))
            if key is None:
                continue
            if not entry.is_directory:
                found = self._file(key, entry)
                if found is not None:
                    yield key, found
                continue
            if entry.is_link and self.tree.links == "anywhere":
                # What lies behind it is not part of what was asked for: a sync would copy and delete there.
                self._leave(key, "a link to a directory")
                continue
            identity = self._directory(key)
            if identity is not None and identity not in above:
                yield from self.below(key, (*above, identity))
            elif entry.is_link:
                self._leave(key, "a link that leads out or in a circle")

    def _entries(self, folder: str) -> list[_Entry]:
        try:
            with (
                self.tree.directory(folder) as handle,
                self.tree.translating("list", folder),
                opened(".", os.O_RDONLY | os.O_DIRECTORY, handle) as fd,
                os.scandir(fd) as found,
            ):
                entries = [self._entry(e) for e in found if self._shown(e)]
        except NotFound:  # removed since its name was read
            return []
        return sorted(entries, key=lambda e: e.order)

    def _shown(self, found: os.DirEntry[str]) -> bool:
        is_hidden = found.name.startswith(HIDDEN)
        return not is_hidden if not self.hidden or _is_directory(found) else is_hidden

    @staticmethod
    def _entry(found: os.DirEntry[str]) -> _Entry:
        name = os.fsencode(found.name)
        return _Entry(name + b"/" if _is_directory(found) else name, found.is_symlink())

    def _wanted(self, order: bytes, entry: _Entry) -> bool:
        if entry.is_directory:
            reaches = order.startswith(self.prefix) or self.prefix.startswith(order)
            return reaches and (order > self.after or self.after.startswith(order))
        return order.startswith(self.prefix) and order > self.after

    def _leave(self, name: str, why: str, *, has_data: bool = False) -> None:
        if self.left_out is not None:
            self.left_out(LeftOut(name, why, has_data))

    def _key(self, order: bytes) -> str | None:
        try:
            return order.decode("utf-8")
        except UnicodeDecodeError as error:
            shown = order.decode("utf-8", "backslashreplace")
            if self.left_out is not None:
                self._leave(shown, "its name is not UTF-8", has_data=True)
                return None
            msg = f"the name of {self.tree.shown(shown)} is not UTF-8; rename it, or list a prefix without it"
            raise Refused(msg, plane=self.tree.plane, key=shown) from error

    def _file(self, key: str, entry: _Entry) -> os.stat_result | None:
        try:
            if entry.is_link:
                return self.tree.stat_file(key)
            folder, _, name = key.rpartition("/")
            with self.tree.directory(folder) as fd, self.tree.translating("look at", key):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (NotFound, PathEscapes):
            if entry.is_link:  # else it was removed since its name was read
                self._leave(key, "a link that leads nowhere or out")
            return None
        except Refused:
            if not entry.is_link:
                raise
            self._leave(key, "a link to what is no file")  # a directory that cannot be looked into, a pipe, a device
            return None
        if stat.S_ISREG(found.st_mode):
            return found
        self._leave(key, "a pipe, a socket or a device")
        return None

    def _directory(self, key: str) -> tuple[int, int] | None:
        try:
            with self.tree.directory(key) as fd:
                return _identity(os.fstat(fd))
        except (NotFound, PathEscapes):
            return None


def _is_directory(found: os.DirEntry[str]) -> bool:
    try:
        return found.is_dir()
    except OSError:  # a symlink in a circle
        return False


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
