"""From keys to open files below one directory, without ever leaving it.

Every path is resolved by the kernel to a descriptor first; what that descriptor really is (`/proc/self/fd`) is
checked, and only then is it used. Nothing that is swapped on disk between check and use can change the outcome.
Nothing here writes into files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from planes.errors import (
    AlreadyExists,
    Error,
    Full,
    Missing,
    NotFound,
    PathEscapes,
    Refused,
    Unavailable,
)

Links = Literal["inside", "refuse", "anywhere"]

HIDDEN: Final = ".cropduster-"
"""Names that begin so are temporary files of uploads: not listed, and not to be used as keys."""

_NO_NAMES: Final = frozenset({"", ".", ".."})

TRIES: Final = 100
"""How often a directory is made again that others, tidying up, removed before anything was in it."""

_BY_ERRNO: Final[dict[int, type[Error]]] = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), NotFound),
    errno.EEXIST: AlreadyExists,
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), Full),
    **dict.fromkeys(
        (
            errno.ESTALE,
            errno.EIO,
            errno.ETIMEDOUT,
            errno.EHOSTDOWN,
            errno.EHOSTUNREACH,
            errno.ENOTCONN,
            errno.EAGAIN,
            errno.EBUSY,
            errno.EMFILE,
            errno.ENFILE,
            errno.ENOMEM,
        ),
        Unavailable,
    ),
}

_WAY_OUT: Final = {
    errno.EACCES: "give the user of the file server the right to do it",
    errno.EPERM: "give the user of the file server the right to do it",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOSPC: "free some space, or choose another plane",
    errno.EDQUOT: "the quota of the user or project is used up: raise it, or choose another plane",
    errno.EFBIG: "it is larger than the file system or the process limit (ulimit -f) allows",
    errno.ENAMETOOLONG: "an element of the path is longer than the file system allows",
    errno.ELOOP: "its symlinks lead in a circle",
    errno.EISDIR: "there is a directory of this name",
}


@dataclass(frozen=True, slots=True)
class Root:
    """The directory of a plane, open, and its path as the kernel says it, without a slash at the end."""

    fd: int
    real: str


@dataclass(frozen=True, slots=True)
class Tree:
    """The directory of one plane, and how far symlinks may be followed: inside it, not at all, or anywhere."""

    plane: str
    root: str
    links: Links

    def shown(self, key: str) -> str:
        """The key as a user would write it: an absolute path, or `plane:key`."""
        return f"/{key}" if self.links == "anywhere" else f"{self.plane}:{key}"

    def elements(self, key: str) -> tuple[str, ...]:
        """The elements of a key's path.

        Raises:
            PathEscapes: it is empty, absolute, or has an element that is empty, `.`, `..` or holds a NUL.
        """
        found = tuple(key.split("/"))
        if "\0" in key or not _NO_NAMES.isdisjoint(found):
            msg = f"{self.shown(key)!r} is not a path inside of plane {self.plane}: no '..', '.', '//' or leading '/'"
            raise PathEscapes(msg, plane=self.plane, key=key)
        return found

    def target(self, key: str) -> tuple[str, str]:
        """Directory and name of an object that is to be written or deleted.

        Raises:
            PathEscapes: see `elements`.
            Refused: the name is one of those that temporary files have.
        """
        *folder, name = self.elements(key)
        if name.startswith(HIDDEN):
            msg = f"{self.shown(key)}: names that begin with {HIDDEN} are kept for temporary files; choose another"
            raise Refused(msg, plane=self.plane, key=key)
        return "/".join(folder), name

    def open_file(self, key: str) -> int:
        """A descriptor for reading the regular file of a key; the caller closes it.

        Raises:
            NotFound, PathEscapes, Missing: as they say.
            Refused: it is a directory, a pipe, a device or a socket, or may not be read.
        """
        with self.translating("read", key), self._found(key) as handle:
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)

    def stat_file(self, key: str) -> os.stat_result:
        """Facts about the regular file of a key; raises as `open_file`, but needs no right to read it."""
        with self.translating("look at", key), self._found(key) as handle:
            return os.fstat(handle)

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """A descriptor of a directory that exists; `path` is relative, empty for the root."""
        elements = self.elements(path) if path else ()
        with self.translating("open", path):
            fd = self._open_directory(elements, path)
        try:
            yield fd
        finally:
            os.close(fd)

    def make_directory(self, path: str) -> str:
        """Make a directory and those above it; returns the topmost that was made, empty if all were there.

        Raises:
            NotFound: others removed it again and again meanwhile, as `remove_empty` does.
            Refused: an element of the path is a file, or a symlink that leads nowhere.
        """
        made: list[str] = []
        for attempt in range(1, TRIES + 1):
            try:
                with self.translating("make directory", path):
                    self._make_each(path, made)
                break
            except NotFound:
                if attempt == TRIES:
                    raise
        return min(made, key=len, default="")

    def remove_empty(self, path: str, top: str = "") -> None:
        """Remove a directory and those above it as long as they are empty, `top` the last; never the root.

        Empty `top` goes up to below the root. What cannot be removed stays, without an error.
        """
        while path and (not top or path == top or path.startswith(f"{top}/")):
            above, _, name = path.rpartition("/")
            try:
                with self.directory(above) as fd:
                    os.rmdir(name, dir_fd=fd)
            except (OSError, Error):
                return
            path = above

    @contextmanager
    def translating(self, doing: str, key: str) -> Iterator[None]:
        """Turn an OSError of the body into one of ours that names the key."""
        try:
            yield
        except OSError as error:
            raise self._translated(error, doing, key) from error

    @contextmanager
    def _found(self, key: str) -> Iterator[int]:
        path = "/".join(self.elements(key))
        # O_PATH has no side effects: opening a pipe would wait, opening a tape would wind it.
        with self.opened_root() as root, opened(path, os.O_PATH, root.fd) as handle:
            self.must_be_inside(handle, root, key)
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                self._not_a_file(key, mode)
            yield handle

    def _make_each(self, path: str, made: list[str]) -> None:
        elements = self.elements(path) if path else ()
        with self.opened_root() as root:
            current = os.dup(root.fd)
            try:
                for depth, element in enumerate(elements, 1):
                    here = "/".join(elements[:depth])
                    try:
                        os.mkdir(element, dir_fd=current)
                        made.append(here)
                    except FileExistsError:
                        pass
                    with self.not_in_the_way(element, current, path):
                        deeper = os.open(element, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
                    os.close(current)
                    current = deeper
                    self.must_be_inside(current, root, here)
            finally:
                os.close(current)

    @contextmanager
    def not_in_the_way(self, element: str, above: int, path: str) -> Iterator[None]:
        """Around the opening of a directory that is just made: raises Refused if something else has its name."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            # Gone altogether is another matter: whoever removed it was tidying up, and it can be made again.
            os.stat(element, dir_fd=above, follow_symlinks=False)
            msg = (
                f"cannot make directory {self.shown(path)}: an element of it is a file, or a symlink that leads nowhere"
            )
            raise Refused(msg, plane=self.plane, key=path) from error

    def _translated(self, error: OSError, doing: str, key: str) -> Error:
        shown, code = self.shown(key), error.errno or 0
        name = errno.errorcode.get(code, str(code))
        kind = _BY_ERRNO.get(code, Refused)
        if kind is NotFound:
            return NotFound(f"{shown} is not there", plane=self.plane, key=key, errno=name)
        message = f"cannot {doing} {shown}: {os.strerror(code)}"
        if way_out := _WAY_OUT.get(code):
            message = f"{message}; {way_out}"
        return kind(message, plane=self.plane, key=key, errno=name)

    @contextmanager
    def opened_root(self) -> Iterator[Root]:
        """The root as it is now: it may be mounted, replaced or a symlink."""
        try:
            fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            plane, _, host = self.plane.partition("@")
            way_out = f"correct planes.{plane}.path"
            if host:  # it is opened by an agent, which was told where it is
                way_out = f"start the agent of {host} with another --plane {plane}=FOLDER"
            msg = f"plane {self.plane}: {self.root} is not a directory; create it, or {way_out}"
            raise Missing(msg, plane=self.plane, path=self.root) from error
        try:
            yield Root(fd, _real_path(fd).rstrip("/"))
        finally:
            os.close(fd)

    def _open_directory(self, elements: tuple[str, ...], path: str) -> int:
        with self.opened_root() as root:
            fd = os.open("/".join(elements) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root.fd)
            try:
                self.must_be_inside(fd, root, path)
            except BaseException:  # whatever it was, nobody else closes it
                os.close(fd)
                raise
            return fd

    def must_be_inside(self, fd: int, root: Root, path: str) -> None:
        """Raise PathEscapes if an open file or directory, asked for as `path`, is not where it may be."""
        if self.links == "anywhere":
            return
        real = _real_path(fd)
        if real != (root.real or "/") and not real.startswith(f"{root.real}/"):
            msg = f"{self.shown(path)} is reached by a symlink that leads out of plane {self.plane}"
            raise PathEscapes(msg, plane=self.plane, key=path)
        asked = f"{root.real}/{path}" if path else root.real or "/"
        # The kernel appends " (deleted)" to the name of a file that was replaced since it was opened.
        if self.links == "refuse" and real not in {asked, f"{asked} (deleted)"}:
            msg = (
                f"{self.shown(path)} is reached by a symlink, and planes.{self.plane}.symlinks is 'refuse'; "
                "name the file itself, or set it to 'inside'"
            )
            raise PathEscapes(msg, plane=self.plane, key=path)

    def _not_a_file(self, key: str, mode: int) -> NoReturn:
        kind = _kind(mode)
        msg = f"{self.shown(key)} is a {kind}, not a file; only regular files are objects"
        if stat.S_ISDIR(mode):
            msg = f"{self.shown(key)} is a directory; name the files in it, for example {self.shown(key)}/*"
        raise Refused(msg, plane=self.plane, key=key, kind=kind)


def _real_path(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - compared as the kernel says it, not normalised


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISFIFO(mode):
        return "named pipe"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device"


@contextmanager
def opened(path: str, flags: int, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor for the body, closed after it; never inherited by child processes."""
    fd = os.open(path, flags | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """The same for a descriptor that is open already."""
    try:
        yield fd
    finally:
        os.close(fd)


def pin(found: os.stat_result) -> str:
    """The version of a file: changes with every write to it, even if size and mtime are set back (ctime is not)."""
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
