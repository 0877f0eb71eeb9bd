"""A write test in an HDF5 file of this machine.

The HDF5 library lets one process write at a time: writers take turns by a lock on a file beside it, for each claim and
each block. All of the file's room is reserved when it is made, so that a writer that dies leaves a sound file behind.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from fileserver.hdf5.bench.field import DTYPE, Block, Field, Values
from fileserver.hdf5.bench.site import ATTRIBUTE, DATA, TABLE, Match, Rows, fresh, from_text, no_test, to_text
from planes.errors import AlreadyExists, Error, Full, NotFound, Refused

_Found = TypeVar("_Found")


class LocalSite:
    """An opened test in a file.

    Args:
        path: of the file.
        field: what is written.
    """

    def __init__(self, path: Path, field: Field) -> None:
        self._path = path
        self._field = field

    @property
    def field(self) -> Field:
        """What is written."""
        return self._field

    async def change(self, match: Match, values: Match, *, most: int = 0) -> int:
        """See Site; raises Refused, Full, NotFound."""

        def changed(file: h5py.File) -> int:
            table = file[TABLE]
            rows = table[...]
            at = _matching(rows, match)[: most or None]
            for name, value in values.items():
                rows[name][at] = value
            if len(at):
                table[...] = rows
            return len(at)

        return await asyncio.to_thread(_exclusive, self._path, changed)

    async def rows(self, match: Match | None = None) -> Rows:
        """See Site; raises Refused, NotFound."""
        rows: Rows = await asyncio.to_thread(_exclusive, self._path, lambda file: file[TABLE][...])
        return rows[_matching(rows, match or {})]

    async def write(self, block: Block, values: Values) -> None:
        """See Site; raises Refused, Full, NotFound."""

        def written(file: h5py.File) -> None:
            file[DATA][block.row : block.row + block.rows, block.column : block.column + block.columns] = values

        await asyncio.to_thread(_exclusive, self._path, written)

    async def flush(self) -> None:
        """See Site; raises Refused, Full."""
        await asyncio.to_thread(_sync, self._path)

    async def aclose(self) -> None:
        """Nothing stays open."""


def make(path: Path, field: Field, *, overwrite: bool) -> None:
    """Make a test in a new file; it gets its name when it is whole.

    Raises:
        AlreadyExists: something is there, and it is no write test or was not to be replaced.
        Refused, Full, NotFound: the file cannot be made.
    """
    if path.exists() or path.is_symlink():
        way_out = ": use --overwrite"
        if overwrite:
            way_out = "" if _is_test(path) else ", and is no write test: choose another name"
        if way_out:
            msg = f"{path} is there already{way_out}"
            raise AlreadyExists(msg, path=str(path))
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with _translated(path):
        try:
            with h5py.File(draft, "w-") as file:
                _fill(file, field)
            _sync(draft)
            if overwrite:
                draft.replace(path)
            else:
                os.link(draft, path)
        except FileExistsError:
            msg = f"{path} is there already: somebody else made it just now"
            raise AlreadyExists(msg, path=str(path)) from None
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()


def _fill(file: h5py.File, field: Field) -> None:
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_chunk(field.chunk)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((field.rows, field.columns))
    h5py.h5d.create(file.id, DATA.encode(), h5py.h5t.py_create(DTYPE), space, dcpl=early)
    file.create_dataset(TABLE, data=fresh(field), chunks=(field.blocks,))
    file.attrs[ATTRIBUTE] = to_text(field)


async def opened(path: Path) -> LocalSite:
    """Open a test.

    Raises:
        InvalidSpec: what is there is none.
        NotFound: nothing is there.
    """

    def described(file: h5py.File) -> str:
        found = file.attrs.get(ATTRIBUTE)
        if not isinstance(found, str):
            raise no_test(str(path))
        return found

    text = await asyncio.to_thread(_exclusive, path, described)
    return LocalSite(path, from_text(text, str(path)))


def _is_test(path: Path) -> bool:
    try:
        with h5py.File(path) as file:
            return ATTRIBUTE in file.attrs
    except OSError:
        return False


def _matching(rows: Rows, match: Match) -> npt.NDArray[np.intp]:
    fits = np.ones(len(rows), bool)
    for name, value in match.items():
        fits &= rows[name] == (value.encode() if isinstance(value, str) else value)
    return np.flatnonzero(fits)


def _exclusive(path: Path, work: Callable[[h5py.File], _Found]) -> _Found:
    """Do something with the file while nobody else has it open."""
    if not path.exists():
        msg = f"{path} is not there: make it with `cropduster bench hsds create`"
        raise NotFound(msg, path=str(path))
    with _translated(path), path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with h5py.File(path, "r+") as file:
            return work(file)


def _sync(path: Path) -> None:
    with _translated(path), path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _error(path, error) from error


def _error(path: Path, error: OSError) -> Error:

    why = os.strerror(error.errno) if error.errno else str(error)  # HDF5 says a paragraph, with its flags
    msg = f"{path}: {why}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Full(msg, path=str(path))
    if error.errno == errno.ENOENT:
        return NotFound(msg, path=str(path))
    return Refused(msg, path=str(path))
