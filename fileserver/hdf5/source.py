"""An HDF5 file on any plane, pinned to one version, opened by the HDF5 library in a thread.

Small files are read whole, by one request; of large ones the library gets blocks, which are kept in a bounded cache.
While the library waits for a block, it holds the one lock that all its objects need, even to be freed. So no such
object ever leaves the thread of its file: the event loop, which has to bring the block, would wait for ever.

The library itself never opens another file: what external storage, virtual datasets and external links name may lie
outside of the plane (see `fileserver.hdf5.read`).
"""

from __future__ import annotations

import asyncio
import io
import os
import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

import h5py
from typing_extensions import Buffer

from fileserver.configured import where
from fileserver.errors import FormatMismatch
from fileserver.hdf5 import superblock
from planes.errors import Changed
from planes.plane import KIB, MIB, Extent, Info, Plane
from planes.threads import Threads

T = TypeVar("T")

WHOLE: Final = 4 * MIB
"""Files up to this size are read at once."""
_BLOCK: Final = 512 * KIB
_KEPT: Final = 64  # blocks, 32 MiB
_LARGE: Final = 8 * MIB  # of larger reads
_IDLE: Final = 4
_idle: list[Threads] = []
"""Threads of files that are closed, for the next ones: to start a thread costs as much as to read a small file."""


@contextmanager
def thread() -> Iterator[Threads]:
    """A thread that no other file works in meanwhile."""
    found = _idle.pop() if _idle else Threads("hdf5", 1)
    try:
        yield found
    finally:
        if len(_idle) < _IDLE:
            _idle.append(found)
        else:
            found.close()


class PlaneFile(io.RawIOBase):
    """Bytes of one object version as a seekable file, for threads that are not the event loop's."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self._size = size
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._large: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def readinto(self, into: Buffer, /) -> int:
        """Fill a buffer as far as the file goes; of reads larger than a block, the last are kept as they are."""
        view = memoryview(into).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        if count > _BLOCK:
            view[:count] = self._range(self._at, self._at + count)
        else:
            self._gather(view[:count])
        self._at += count
        return count

    def _range(self, start: int, end: int) -> bytes:
        """Bytes that may be asked for twice: chunks are looked at before they are unpacked, see `inflated`."""
        data = self._large.pop((start, end), b"") or self._read(start, end)
        if len(data) <= _LARGE:
            self._large[start, end] = data
        while sum(map(len, self._large.values())) > _LARGE:
            self._large.popitem(last=False)
        return data

    def _gather(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            number, inside = divmod(self._at + done, _BLOCK)
            piece = self._block(number)[inside : inside + len(view) - done]
            view[done : done + len(piece)] = piece
            done += len(piece)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * _BLOCK
        block = self._read(start, min(start + _BLOCK, self._size))
        self._blocks[number] = block
        if len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return block


class Source:
    """An open HDF5 file; `run` works on it in its thread, `read` gets raw bytes beside it."""

    def __init__(self, plane: Plane, info: Info, threads: Threads, whole: bytes | None) -> None:
        self.plane = plane
        self.info = info
        self._threads = threads
        self._whole = whole
        self._open_file: list[h5py.File] = []

    @property
    def whole(self) -> bytes | None:
        """All bytes of a small file, which are here already; None of a large one."""
        return self._whole

    async def run(self, work: Callable[[h5py.File], T]) -> T:
        """What `work` makes of the file, in the file's own thread; nothing of the library's may be in that."""
        held = self._open_file
        return await self._threads.run(lambda _: alone(held, work))

    async def read(self, start: int, end: int) -> memoryview:
        """Raw bytes [start, end) of the pinned version."""
        if self._whole is not None:
            return memoryview(self._whole)[start:end]
        into = memoryview(bytearray(end - start))
        await self.plane.read(Extent(self.info.key, self.info.version, start, end), into)
        return into

    async def unchanged(self) -> None:
        """Make sure that it is still the version that was opened.

        Raises:
            Changed: it is not.
        """
        if self._whole is not None:
            return  # all of it came by one read of that version
        now = await self.plane.stat(self.info.key)
        if now.version != self.info.version:
            msg = f"{where(self.plane.name, self.info.key)} changed while it was read"
            raise Changed(msg, plane=self.plane.name, key=self.info.key)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()

        def wait(work: Coroutine[None, None, T]) -> T:
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        name = where(self.plane.name, self.info.key)
        stream: io.RawIOBase | None = None
        if self._whole is None:
            stream = PlaneFile(lambda start, end: bytes(wait(self.read(start, end))), self.info.size)
        await self._check(name)
        whole, held = self._whole, self._open_file
        await self._threads.run(lambda _: open_into(held, name, whole, stream))

    async def _check(self, name: str) -> None:
        size = self.info.size
        head = b""
        for place in superblock.places(size):
            block = bytes(await self.read(place, min(place + superblock.LENGTH, size)))
            head = head or block
            if block.startswith(superblock.SIGNATURE):
                superblock.check(name, block, place, size)
                return
        raise superblock.refuse(name, head, size)

    async def _close(self) -> None:
        held = self._open_file
        await self._threads.run(lambda _: close_all(held))


@asynccontextmanager
async def opened(plane: Plane, key: str) -> AsyncIterator[Source]:
    """An HDF5 file of a plane, for reading.

    Raises:
        NotFound: there is no such object.
        Changed: it was replaced in between.
        FormatMismatch: it is not HDF5, cut short, damaged, or open for writing.
    """
    info = await plane.stat(key)
    whole = None
    if info.size <= WHOLE:
        into = bytearray(info.size)
        await plane.read(Extent(key, info.version, 0, info.size), memoryview(into))
        whole = bytes(into)
    with thread() as threads:
        source = Source(plane, info, threads, whole)
        try:
            await source._open()  # noqa: SLF001 -- its own factory
            yield source
        finally:
            await source._close()  # noqa: SLF001 -- its own factory


def alone(held: list[h5py.File], work: Callable[[h5py.File], T]) -> T:
    """What `work` makes of an open file, in its thread; an error takes nothing of the library's out of that."""
    try:
        return work(held[0])
    except BaseException as error:  # whatever it is, its frames hold objects of the library
        _clear(error)
        raise


def _clear(error: BaseException) -> None:
    """Let go of all that the frames of an error hold, in the thread of the file."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


def open_into(held: list[h5py.File], name: str, whole: bytes | None, stream: io.RawIOBase | None = None) -> None:
    """Open a file in its thread, from all of its bytes or from a stream; raises FormatMismatch."""
    try:
        held.append(h5py.File(stream, "r") if whole is None else h5py.File(h5py.h5f.open_file_image(whole)))
        h5py.h5o.get_info(held[0].id)  # the library opens a file whose root group it cannot read
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        _clear(error)
        msg = f"{name} cannot be opened as HDF5: it is damaged ({error})"
        raise FormatMismatch(msg, key=name) from error


def close_all(held: list[h5py.File]) -> None:
    """Close files in their thread, and let go of them there."""
    while held:
        held.pop().close()
