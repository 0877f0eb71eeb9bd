"""The sweep: ends what ended transfers left open in their folders, and nothing else."""

from __future__ import annotations

import time

import pytest

from fileserver.catalogue import tables
from fileserver.transfer import ledger
from fileserver.transfer.record import Plan, Record
from fileserver.transfer.sweep import Sweep, drop_below, owner
from planes.errors import Unavailable
from planes.faulty import Fault, FaultyPlane, Raise
from planes.memory import LIMITS, MemoryPlane
from planes.plane import Unfinished
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.given import Planes


async def nothing(_plane: str) -> None:
    """No transfer has left anything that is recorded."""


async def transfer(store, name: str, state: str) -> None:
    """A transfer into a::x on `data`, ended unless it is RUNNING."""
    now = time.time()
    plan = Plan("data", "a::x", None, "none", 0, 1, LIMITS, {}, overwrite=False)
    record = Record(name, {}, "QUEUED", "", 1, now, now)

    def work(c) -> None:
        ledger.create(c, record, f"r-{name}", f"file:{name}")
        ledger.update(c, name, now, plan=plan.to_json(), state=state)
        if state != "RUNNING":
            ledger.end(c, name, now, state)

    await store.write(work)


async def opened(plane, *keys: str) -> None:
    for key, attempt in (each.split(" ") for each in keys):
        await plane.upload(key, upload_id=attempt)


async def waiting(plane) -> list[str]:
    return sorted([one.attempt async for one in plane.unfinished()])


@pytest.mark.parametrize(
    ("key", "attempt", "found"),
    [
        ("a/x/~t1/x._2_of_3", "", ("t1", "t1-2")),
        ("a/x/~t1/_manifest.json", "", ("t1", "t1-0")),
        ("a/x/~t1/whatever", "", None),
        ("a/x/~t1/whatever", "t1-7", ("t1", "t1-7")),
        ("a/x/~t1/x._2_of_3", "t2-2", None),
        ("a/x/~t1/deeper/x._2_of_3", "", None),
        ("a/x/t1/x._2_of_3", "", None),
        ("~x", "", None),
    ],
)
def test_whose_an_open_upload_is(key, attempt, found):
    mine = owner(Unfinished(key, attempt))
    assert (mine and (mine[0], mine[1].attempt)) == found


async def test_only_what_an_ended_transfer_left_in_its_folder_is_ended(plane, store):
    for name, state in (("done", "SUCCEEDED"), ("bad", "FAILED"), ("busy", "RUNNING")):
        await transfer(store, name, state)
    mine = ("a/x/~done/x._1_of_1 done-1", "a/x/~bad/x._1_of_1 bad-1")
    others = ("a/x/~busy/x._1_of_1 busy-1", "a/x/~who/x._1_of_1 who-1", "a/theirs done-2", "a/x/~done/y w-5")
    await opened(plane, *mine, *others)
    sweep = Sweep(store, Planes(data=plane), nothing)
    would = await sweep.plane("data", validate_only=True)
    assert {one.transfer for one in would} == {"done", "bad"}
    assert len(await waiting(plane)) == 6, "a dry run ends nothing"
    assert await sweep.plane("data", validate_only=False) == would
    assert await waiting(plane) == ["busy-1", "done-2", "w-5", "who-1"]
    assert await sweep.plane("data", validate_only=False) == []


async def test_the_schedule_looks_behind_each_ended_transfer_once(plane, store):
    await transfer(store, "done", "SUCCEEDED")
    await transfer(store, "busy", "RUNNING")
    await opened(plane, "a/x/~done/x._1_of_1 done-1", "a/x/~busy/x._1_of_1 busy-1")
    sweep = Sweep(store, Planes(data=plane), nothing)
    assert await sweep.recent(time.time()) == 1
    assert await waiting(plane) == ["busy-1"]
    await opened(plane, "a/x/~done/x._1_of_1 done-1")
    assert await sweep.recent(time.time()) == 0
    assert await Sweep(store, Planes(data=plane), nothing).recent(time.time()) == 1, "the next server looks again"


async def test_a_forgotten_transfer_is_known_by_the_file_that_it_made(plane, store):
    row = {"name": "a::x", "generation": "old", "size": 0, "evidence": "compared", "part_count": 1}
    more = {"transfer": "old", "created": 0.0}
    await store.write(lambda c: c.execute(tables.files.insert().values(**row, **more)))
    await opened(plane, "a/x/~old/x._1_of_1 old-1")
    assert [
        one.transfer for one in await Sweep(store, Planes(data=plane), nothing).plane("data", validate_only=False)
    ] == ["old"]


async def test_a_manifest_that_is_being_rewritten_is_left_alone(plane, store):
    await transfer(store, "done", "SUCCEEDED")
    row = {"generation": "done", "name": "a::y", "not_before": 0.0}
    await store.write(lambda c: c.execute(tables.stale_manifests.insert().values(**row)))
    await opened(plane, "a/x/~done/_manifest.json done-0", "a/x/~done/x._1_of_1 done-1")
    await Sweep(store, Planes(data=plane), nothing).plane("data", validate_only=False)
    assert await waiting(plane) == ["done-0"]


async def test_what_cannot_be_ended_is_said(store):
    await transfer(store, "done", "SUCCEEDED")
    plane = FaultyPlane(MemoryPlane("data"), [Fault("drop", 0, Raise(Unavailable("reset")))])
    await opened(plane, "a/x/~done/x._1_of_1 done-1")
    (one,) = await Sweep(store, Planes(data=plane), nothing).plane("data", validate_only=False)
    assert one.left == "reset"
    (error,) = await drop_below(Planes(data=plane), "data", "done", "a/x/~done")
    assert error.message == "open uploads below data:a/x/~done could not be ended: reset"


async def test_temporary_files_are_found_below_a_prefix_and_objects_stay(tmp_path):
    (tmp_path / "p").mkdir()
    plane = PosixPlane("data", PosixSettings(path=tmp_path / "p", durability="os"))
    await plane.put("a/b/x", b"x", upload_id="t1-1")
    await opened(plane, "a/b/y t1-2", "a/c/y t1-3", "y t1-4")
    found = [one async for one in plane.unfinished("a/b/")]
    assert found == [Unfinished("a/b/t1-2", "t1-2")]
    assert await waiting(plane) == ["t1-2", "t1-3", "t1-4"]
    for one in found:
        assert await plane.drop(one)
    assert await waiting(plane) == ["t1-3", "t1-4"]
    assert [info.key async for info in plane.list()] == ["a/b/x"]
    await plane.aclose()
