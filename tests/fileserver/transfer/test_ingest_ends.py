"""What a run of an ingest leaves for the next: whom it suspects, and what it need not try again."""

import asyncio
from contextlib import suppress

import pytest

from fileserver.catalogue.store import Store
from fileserver.hdf5 import trial
from fileserver.transfer import ingest_rows
from fileserver.transfer.ingest_ends import Survived, Taken, orderly
from fileserver.transfer.ingest_rows import File, Found
from fileserver.transfer.ingest_target import LOADS
from fileserver.transfer.ingest_trial import deadly
from fileserver.transfer.live import Live, Paused
from fileserver.transfer.record import Progress
from planes.errors import Unavailable


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    yield made
    made.close()


class Crash(BaseException):
    """The process ends here."""


ENDS = {"paused": (asyncio.CancelledError, 0), "asked": (Paused, 0), "away": (Unavailable, 0), "crash": (Crash, 1)}


@pytest.mark.parametrize("how", ENDS)
async def test_files_are_counted_as_taken_up_again_after_an_end_of_the_process_alone(store, how):
    error, counted = ENDS[how]
    files = [Found("data", f"{n}.h5", 10, "v", f"/home/{n}.h5") for n in range(4)]
    await store.write(lambda c: ingest_rows.enter(c, "t", 1, files))
    one, two, three, _ = await store.read(lambda c: ingest_rows.page(c, "t", 1))
    await store.write(lambda c: ingest_rows.begin(c, [one, two, three], 1.0))
    await store.write(lambda c: ingest_rows.update(c, "t", 2, state="loaded"))
    with suppress(error):
        async with orderly(store, Taken("t", 1, 2)):
            raise error(how)
    rows = await store.read(lambda c: ingest_rows.page(c, "t", 1, pending=False))
    assert [each.resumed for each in rows] == [counted - 1, 0, 0, 0]  # the next run adds one
    async with orderly(store, Taken("t", 1, 4)):
        pass
    assert await store.read(lambda c: ingest_rows.page(c, "t", 1, pending=False)) == rows


class Planes:
    """Planes that nobody asks for anything."""

    def plane(self, name):
        """One of them."""
        return name


def row(number, resumed=0):
    return File("t", number, "data", f"{number}.h5", 10, "v", "/home/x", resumed=resumed)


@pytest.fixture
def tried(monkeypatch):
    """The keys of files that are tried, and how many at once at most."""
    keys, now, most = [], 0, [0]

    async def ends(_plane, key):
        nonlocal now
        keys.append(key)
        now += 1
        most[0] = max(most[0], now)
        for _ in range(20):
            await asyncio.sleep(0)
        now -= 1
        return "ends every process that reads it (SIGSEGV)" if key == "3.h5" else ""

    monkeypatch.setattr(trial, "ends", ends)
    return keys, most


async def test_files_of_one_domain_are_tried_several_at_a_time_and_each_once(tried):
    keys, most = tried
    known, turns, live = Survived(), asyncio.Semaphore(LOADS), Live(Progress())
    files = [row(1, resumed=2), *(row(n) for n in range(2, 10))]
    assert await deadly(Planes(), [row(1, resumed=1), row(2)], turns, known, live) == {}
    assert keys == []
    assert list(await deadly(Planes(), files, turns, known, live)) == [2]
    assert sorted(keys) == [each.key for each in files]
    assert most == [LOADS]
    assert list(await deadly(Planes(), files, turns, known, live)) == [2]
    assert keys[len(files) :] == ["3.h5"]


async def test_a_pause_is_seen_between_two_files(tried):
    keys, _ = tried
    known, live = Survived(), Live(Progress())
    files = [row(1, resumed=2), *(row(n) for n in range(4, 10))]
    turns = asyncio.Semaphore(1)
    work = asyncio.create_task(deadly(Planes(), files, turns, known, live))
    while not keys:
        await asyncio.sleep(0)
    live.ask("pause")
    with pytest.raises(Paused):
        await work
    assert keys == ["1.h5"]
    live.ask("")
    assert await deadly(Planes(), files, turns, known, live) == {}
    assert sorted(keys) == [each.key for each in files]
