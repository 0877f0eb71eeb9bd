"""HDF5 files of a plane: what the library gets to see, and what bad files get."""

import asyncio
import gc
import io

import h5py
import numpy as np
import pytest

from fileserver.errors import FormatMismatch
from fileserver.hdf5 import load, source
from planes.errors import Changed, NotFound
from planes.memory import MemoryPlane, MemorySettings
from planes.plane import Extent


def hdf5(**options):
    held = io.BytesIO()
    with h5py.File(held, "w", **options) as file:
        file.create_dataset("d", data=np.arange(5000), chunks=(100,))
    return held.getvalue()


@pytest.fixture
async def plane():
    opened = MemoryPlane("data", MemorySettings())
    yield opened
    await opened.aclose()


async def put(plane, data, key="x.h5", again=0):
    await plane.put(key, data, upload_id=f"u{again}", replace=True)


@pytest.mark.parametrize("whole", [0, 1 << 20], ids=["in blocks", "whole"])
@pytest.mark.parametrize("options", [{}, {"userblock_size": 512}, {"libver": "latest"}], ids=str)
async def test_a_file_reads_the_same_whole_and_in_blocks(plane, whole, options, monkeypatch):
    monkeypatch.setattr(source, "WHOLE", whole)
    monkeypatch.setattr(source, "_BLOCK", 1000)
    monkeypatch.setattr(source, "_KEPT", 2)
    await put(plane, hdf5(**options))
    async with source.opened(plane, "x.h5") as file:
        assert (await file.run(lambda f: f["d"][:])).tolist() == list(range(5000))


async def test_a_file_of_this_machine_is_told_by_its_path():
    made = MemoryPlane("local", MemorySettings())
    await put(made, b"none", "tmp/x.h5")
    with pytest.raises(FormatMismatch, match=r"^/tmp/x\.h5 is not HDF5"):
        async with source.opened(made, "tmp/x.h5"):
            pass
    await made.aclose()


def test_blocks_are_read_once_and_few_are_kept(monkeypatch):
    monkeypatch.setattr(source, "_BLOCK", 10)
    monkeypatch.setattr(source, "_KEPT", 2)
    monkeypatch.setattr(source, "_LARGE", 60)
    data, asked = bytes(range(100)), []

    def read(start, end):
        asked.append((start, end))
        return data[start:end]

    file = source.PlaneFile(read, 95)
    for at, count in ((0, 4), (5, 9), (12, 3), (90, 20), (0, 30), (95, 1)):
        file.seek(at)
        assert file.read(count) == data[at : min(at + count, 95)]
    # The second read begins in the first block; the large one passes all of them by.
    assert asked == [(0, 10), (10, 20), (90, 95), (0, 30)]
    # Of large ones the last are kept, as long as there is room.
    asked.clear()
    for at, count in ((0, 30), (30, 30), (0, 30), (60, 30), (0, 30), (30, 30), (0, 70), (0, 70)):
        file.seek(at)
        assert file.read(count) == data[at : at + count]
    assert asked == [(30, 60), (60, 90), (30, 60), (0, 70), (0, 70)]


def damaged(data, at, new):
    return data[:at] + new + data[at + len(new) :]


LATEST = hdf5(libver="latest")
BAD = {
    "empty": (b"", "is empty"),
    "not HDF5": (b"hello" * 300, "no HDF5 signature"),
    "classic NetCDF": (b"CDF\x01" + bytes(600), "nccopy"),
    "cut short": (hdf5()[:-700], "cut short"),
    "cut short, latest": (LATEST[:-700], "cut short"),
    "cut into the superblock": (hdf5()[:20], "damaged"),
    "open for writing": (damaged(LATEST, 11, b"\x05"), "h5clear"),
    "unknown superblock": (damaged(LATEST, 8, b"\x09"), "no known version"),
    "damaged superblock": (damaged(LATEST, 44, b"\xff\xff\xff\xff"), "damaged"),
    "damaged root group": (damaged(LATEST, LATEST.index(b"OHDR"), b"\xff\xff"), "damaged"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_files_are_refused_in_plain_words(plane, case):
    data, words = BAD[case]
    await put(plane, data)
    with pytest.raises(FormatMismatch, match=words) as caught:
        async with source.opened(plane, "x.h5"):
            pass
    assert "data:x.h5" in str(caught.value)


async def test_a_file_that_is_not_there(plane):
    with pytest.raises(NotFound):
        async with source.opened(plane, "x.h5"):
            pass


async def test_a_file_that_is_replaced_while_it_is_loaded(plane, monkeypatch):
    monkeypatch.setattr(source, "WHOLE", 0)
    await put(plane, hdf5())
    async with source.opened(plane, "x.h5") as file:
        await put(plane, hdf5(), again=1)
        with pytest.raises(Changed):
            await load.load(file, MemoryPlane("bucket", MemorySettings()), "a load", 0.0)


async def test_a_small_file_was_read_by_then(plane):
    await put(plane, hdf5())
    async with source.opened(plane, "x.h5") as file:
        await put(plane, b"something else", again=1)
        assert (await load.load(file, MemoryPlane("bucket", MemorySettings()), "a load", 0.0)).whole


async def test_the_pinned_version_is_what_is_read(plane):
    await put(plane, hdf5())
    async with source.opened(plane, "x.h5") as file:
        assert bytes(await file.read(0, 8)) == b"\x89HDF\r\n\x1a\n"
        into = bytearray(8)
        await plane.read(Extent("x.h5", file.info.version, 0, 8), memoryview(into))
        assert bytes(into) == b"\x89HDF\r\n\x1a\n"


class Slow(MemoryPlane):
    """Reads wait for `free` and say so by `waiting`."""

    def __init__(self):
        super().__init__("slow", MemorySettings())
        self.waiting, self.free = asyncio.Event(), asyncio.Event()
        self.free.set()

    async def read(self, extent, into):
        self.waiting.set()
        await self.free.wait()
        await super().read(extent, into)


def failing(file):
    held = file["d"]
    raise ValueError(held.name)


async def test_the_event_loop_frees_nothing_of_the_library_while_it_waits_for_a_block(plane, monkeypatch):
    await put(plane, hdf5())
    async with source.opened(plane, "x.h5") as other:
        with pytest.raises(ValueError, match="/d") as caught:
            await other.run(failing)
    slow = Slow()
    await put(slow, hdf5())
    monkeypatch.setattr(source, "WHOLE", 0)
    monkeypatch.setattr(source, "_BLOCK", 1000)
    async with source.opened(slow, "x.h5") as file:
        gc.collect()  # what other tests have left of the library is freed while nobody waits in it
        slow.free.clear()
        slow.waiting.clear()
        reading = asyncio.create_task(file.run(lambda f: f["d"][:].tolist()))
        await slow.waiting.wait()
        del caught  # what the error holds is freed here, in the event loop
        gc.collect()
        slow.free.set()
        assert await reading == list(range(5000))
