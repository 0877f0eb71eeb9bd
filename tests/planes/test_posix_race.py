"""A folder of a directory plane that turns into a symlink to elsewhere, and back, while it is used."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from planes.errors import Error
from planes.plane import Extent
from planes.posix import PosixPlane, PosixSettings

TURNS = 200


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose folder `d` is swapped all the time; `elsewhere` beside it is not ours."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder, text in ((root / "d", b"inside"), (elsewhere, b"secret")):
        folder.mkdir(parents=True)
        (folder / "f").write_bytes(text)
    enough = threading.Event()

    def at_last(change: Callable[[], object]) -> None:
        """Make a change even if the plane has just made a folder of that name."""
        while True:
            try:
                change()
            except OSError:
                shutil.rmtree(root / "d", ignore_errors=True)
            else:
                return

    def swap() -> None:
        while not enough.is_set():
            (root / "d").rename(root / "aside")
            at_last(lambda: (root / "d").symlink_to(elsewhere))
            (root / "d").unlink()
            at_last(lambda: (root / "aside").rename(root / "d"))
            enough.wait(0.0005)  # else the other thread finds it there too seldom

    thread = threading.Thread(target=swap)
    thread.start()
    yield root
    enough.set()
    thread.join()


async def test_nothing_is_read_written_or_deleted_elsewhere(place: Path) -> None:
    plane = PosixPlane("data", PosixSettings(path=place, durability="os"))
    read, refused, turn = set(), 0, 0
    while turn < TURNS or not read or not refused:  # until it has met both
        turn += 1
        key, data = f"d/{turn}", bytearray(6)
        try:
            info = await plane.stat("d/f")
            await plane.read(Extent("d/f", info.version, 0, 6), memoryview(data))
            read.add(bytes(data))
            await plane.put(key, b"ours", upload_id="u")
            await plane.delete(key)
        except Error:
            refused += 1
    await plane.aclose()
    elsewhere = place.parent / "elsewhere"
    assert read == {b"inside"}
    assert [(each.name, each.read_bytes()) for each in elsewhere.iterdir()] == [("f", b"secret")]
