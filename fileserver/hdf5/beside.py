"""Data of a dataset that lie in other files: raw external storage, and the sources of virtual datasets.

The HDF5 library would open these by whatever path the file names, anywhere on this host, and read a missing source as
fill values. So it is never asked to: other files are objects of the same plane, named relative to the file that names
them, and a missing one is an error.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import h5py
import numpy as np
from h5py import h5d, h5p, h5s

from fileserver.auth import caller
from fileserver.configured import where
from fileserver.hdf5 import inflated
from fileserver.hdf5.model import Segment
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.restored import set_fill
from fileserver.hdf5.source import Source, opened
from fileserver.hdf5.types import Values
from fileserver.hdf5.typing_rules import NotHeld, readable
from planes.errors import Error, NotFound
from planes.plane import MIB, Extent

VIRTUAL_MOST: Final = 64 * MIB
"""A virtual dataset with other files behind it is put together in memory, up to this size."""
STAND_IN: Final = b"/data"
"""Where the assembled dataset lies in its file."""
_NUMBERS: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class _Part:
    file: str
    dataset: bytes
    into: h5s.SpaceID
    out_of: h5s.SpaceID


def key_beside(source: Source, name: str) -> str:
    """The key of a file that another one names.

    For callers from outside it has to lie in the folder of that file, or below: a file that they may read must not
    bring them what they may not.

    Raises:
        NotHeld: it would lie outside of the plane, or of the folder.
    """
    if name.startswith("/"):
        key = posixpath.normpath(name).lstrip("/") if source.plane.name == "local" else ".."
    else:
        key = posixpath.normpath(posixpath.join(posixpath.dirname(source.info.key), name))
    if key == ".." or key.startswith("../"):
        msg = f"its data lie in {name}, outside of the plane {source.plane.name}, where nothing is read"
        raise NotHeld(msg)
    folder = posixpath.dirname(source.info.key)
    if caller().outside and folder and not key.startswith(f"{folder}/"):
        msg = f"its data lie in {name}, outside of the folder {folder}/, where nothing is read for callers from outside"
        raise NotHeld(msg)
    return key


async def external_bytes(source: Source, segments: Sequence[Segment], start: int, end: int) -> bytes:
    """Bytes [start, end) of a dataset whose raw data lie in other files; what is behind their end is zeros.

    Raises:
        NotHeld: a file is missing, or outside of the plane.
    """
    found = bytearray(end - start)
    at = 0
    for segment in segments:
        low, high = max(start, at), min(end, at + segment.size)
        if low < high:
            data = await _raw(source, segment, low - at, high - at)
            found[low - start : low - start + len(data)] = data
        at += segment.size
    return bytes(found)


async def _raw(source: Source, segment: Segment, start: int, end: int) -> bytearray:
    key = key_beside(source, segment.file)
    try:
        info = await source.plane.stat(key)
        first, last = segment.offset + start, min(segment.offset + end, info.size)
        data = bytearray(max(0, last - first))
        if data:
            await source.plane.read(Extent(key, info.version, first, last), memoryview(data))
    except NotFound as error:
        msg = (
            f"the external file {segment.file} with its data is not there (looked for {where(source.plane.name, key)})"
        )
        raise NotHeld(msg) from error
    return data


@dataclass(slots=True)
class Assembly:
    """Holds what must not leave the threads of files, see `fileserver.hdf5.source`."""

    made: list[h5py.File] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)

    def clear(self, _: h5py.File) -> None:
        """Let go of it, in the thread of the file."""
        self.parts.clear()
        while self.made:
            self.made.pop().close()


@asynccontextmanager
async def assembled(source: Source, path: bytes) -> AsyncIterator[Assembly]:
    """A file in memory whose `STAND_IN` is the virtual dataset at `path`, with the data of its sources.

    Raises:
        NotHeld: a source is missing, cannot be read or lies outside of the plane; or it is all too much for memory.
    """
    held = Assembly()
    try:
        files = await source.run(partial(_begin, path=path, held=held))
        for i, name in enumerate(files):
            values = await _selected(source, name, held, i)
            await source.run(partial(_fill_in, held=held, number=i, values=values))
        yield held
    finally:
        await source.run(held.clear)


def _begin(file: h5py.File, path: bytes, held: Assembly) -> list[str]:
    place = h5d.open(file.id, path)
    plist, space = place.get_create_plist(), place.get_space()
    size = space.get_simple_extent_npoints() * place.get_type().get_size()
    if size > VIRTUAL_MOST:
        msg = f"a virtual dataset of {size} bytes over other files; at most {VIRTUAL_MOST} are put together"
        raise NotHeld(msg)
    for i in range(plist.get_virtual_count()):
        name = readable(
            plist.get_virtual_filename(i).encode() if isinstance(plist.get_virtual_filename(i), str) else b""
        )[0]
        dataset = plist.get_virtual_dsetname(i)
        into, out_of = plist.get_virtual_vspace(i), plist.get_virtual_srcspace(i)
        if "%b" in name or "%b" in str(dataset) or h5s.UNLIMITED in _counts(into):
            msg = "a virtual dataset over a number of sources that is not fixed"
            raise NotHeld(msg)
        held.parts.append(_Part(name, dataset.encode() if isinstance(dataset, str) else dataset, into, out_of))
    # The library takes files in memory that have the same name for the same file.
    made = h5py.File(f"assembled {next(_NUMBERS)}", "w", driver="core", backing_store=False)
    held.made.append(made)
    copied = h5p.create(h5p.DATASET_CREATE)
    if plist.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
        fill = np.zeros((), place.dtype)
        plist.get_fill_value(fill)
        set_fill(copied, fill)
    h5d.create(made.id, STAND_IN, place.get_type(), h5s.create_simple(space.get_simple_extent_dims()), dcpl=copied)
    return [part.file for part in held.parts]


def _counts(space: h5s.SpaceID) -> tuple[int, ...]:
    if space.get_select_type() != h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return ()
    _, _, count, block = space.get_regular_hyperslab()
    return (*count, *block)


async def _selected(source: Source, name: str, held: Assembly, number: int) -> Values:
    if name == ".":
        return await source.run(partial(_read, held=held, number=number))
    key = key_beside(source, name)
    try:
        async with opened(source.plane, key) as other:
            return await other.run(partial(_read, held=held, number=number))
    except (Error, *BROKEN) as error:
        msg = f"the source {name} of a virtual dataset cannot be read: {error}"
        raise NotHeld(msg) from error


def _read(file: h5py.File, held: Assembly, number: int) -> Values:
    part = held.parts[number]
    place = h5d.open(file.id, part.dataset)
    if place.get_create_plist().get_layout() == h5d.VIRTUAL or place.get_create_plist().get_external_count():
        msg = "a virtual dataset over one that is virtual or has external storage itself"
        raise NotHeld(msg)
    space = place.get_space()
    if part.out_of.get_select_type() != h5s.SEL_ALL:
        space = part.out_of
    if space.get_select_npoints():
        first, last = space.get_select_bounds()
        inflated.check(place, first, tuple(b - a + 1 for a, b in zip(first, last, strict=True)))
    values: Values = np.zeros((space.get_select_npoints(),), place.dtype)
    place.read(h5s.create_simple(values.shape), space, values, place.get_type())
    return values


def _fill_in(_: h5py.File, held: Assembly, number: int, values: Values) -> None:
    place = h5d.open(held.made[0].id, STAND_IN)
    place.write(h5s.create_simple(values.shape), held.parts[number].into, values)
