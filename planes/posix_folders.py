"""Directories that stay open while many files are written, so that each is found and looked at once.

What holds for one file holds here: a directory is resolved by the kernel to a descriptor, what that really is, is
checked, and only then is it used. Blocking; knows no asyncio.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, Self

from planes.posix_paths import Root, Tree

_KEPT: Final = 64
_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Folders:
    """Directories below the root of a tree, made where they are missing. Belongs to one thread.

    `made` are those that were missing, for whoever has to remove them again.

    Args:
        tree: below whose root they are.
        make: makes a directory by what it is given, and remembers that it was made here.
    """

    def __init__(self, tree: Tree, make: Callable[[str, Callable[[], None]], None]) -> None:
        self.made = list[str]()
        self._make = make
        self._tree = tree
        self._open = OrderedDict[str, int]()
        self._new = set[str]()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._root: Root = self._stack.enter_context(self._tree.opened_root())
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        self._stack.close()

    def forget(self) -> None:
        """Close all, to look anew: somebody may have removed some."""
        while self._open:
            os.close(self._open.popitem()[1])

    def at(self, path: str) -> int:
        """A descriptor of a directory, valid till the next call.

        Raises:
            NotFound: others remove directories meanwhile; `forget`, and try again.
            Refused, PathEscapes: an element is no directory, or leads out of the root.
        """
        if not path:
            return self._root.fd
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        above, _, name = path.rpartition("/")
        over = self.at(above)
        with self._tree.translating("open", path):
            fd = self._opened(over, name, path)
        try:
            self._tree.must_be_inside(fd, self._root, path)
        except BaseException:  # whatever it was, nobody else closes it
            os.close(fd)
            raise
        self._open[path] = fd
        if len(self._open) > _KEPT:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def _opened(self, over: int, name: str, path: str) -> int:
        if path.rpartition("/")[0] not in self._new:  # else it is hardly there already
            with suppress(FileNotFoundError, NotADirectoryError):
                return os.open(name, _FLAGS, dir_fd=over)
        with suppress(FileExistsError):  # another was faster, or something else has the name: the next call tells
            self._make(path, lambda: os.mkdir(name, dir_fd=over))
            self.made.append(path)
            self._new.add(path)
        with self._tree.not_in_the_way(name, over, path):
            return os.open(name, _FLAGS, dir_fd=over)
