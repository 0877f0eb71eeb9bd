"""The stages of an ingest against a real HSDS: crashes at every step, bad files, clean-up."""

import asyncio
import os
from dataclasses import replace
from functools import partial

import pytest

from fileserver.catalogue import tables
from fileserver.errors import TargetBusy
from fileserver.hdf5 import load, rest
from fileserver.hdf5.hsds.connection import Connection
from fileserver.transfer import ingest_rows, ledger
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.ingest_file import Worker
from fileserver.transfer.ingest_rows import Ended
from fileserver.transfer.ingest_target import Target
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress
from planes.errors import Error, Unavailable
from planes.posix import PosixPlane
from planes.retrying import Patience
from tests.fileserver.transfer.ingest_world import Crash, server, world

__all__ = ["server", "world"]  # fixtures


@pytest.mark.parametrize(
    ("target", "step"),
    [
        ("main", 8),
        pytest.param("far", 27, marks=pytest.mark.soak),  # a flush takes the server seconds
        pytest.param("main", 1, marks=pytest.mark.soak),
        pytest.param("far", 4, marks=pytest.mark.soak),
    ],
)
async def test_a_process_that_dies_anywhere_leaves_the_old_domain_or_the_new_and_the_next_one_ends_it(
    world, target, step
):
    world.make("old.h5", 1)
    old = f"old-{target}-{step}"  # of roots that are gone, the server does not give the ids again
    await world.begin(old, "old.h5", target=target)
    before = world.life.count
    await world.run(old)
    fresh = world.life.count - before
    assert world.read() == (1, 1)
    died, value = 0, 1
    while True:
        world.make("new.h5", value + 1)
        transfer = f"{target}-{step}-{died}"
        await world.begin(transfer, "new.h5", target=target)
        world.life.left = died
        try:
            await world.run(transfer)
        except Crash:
            world.life.left = 1 << 30
            status, _ = world.server.call("GET", "/", domain=f"{world.folder}/x")
            assert status in {200, 410}  # in between there are some milliseconds without
            if status == 200:
                assert world.read() in {(value, value), (value + 1, value + 1)}
            record = await world.run(transfer)
            is_over = False
        else:
            record, is_over = await world.stages.record(transfer), True
        assert record.state == "SUCCEEDED", record.error
        value += 1
        assert world.read() == (value, value)
        assert (await world.files(transfer))[0].state == "loaded"
        assert world.left()[0] == ["x"]
        if is_over:
            break
        died += step
    assert died > fresh / 2


async def test_a_process_that_dies_as_soon_as_a_new_domain_has_its_name_leaves_no_other(world):
    world.make("a.h5", 3)
    for name in ("first", "whole"):  # the first also makes the folder
        await world.begin(name, "a.h5", domain=f"{world.folder}/{name}", target="main")
        before = world.life.count
        await world.run(name)
    steps = world.life.count - before
    for back in range(1, 13):
        transfer = f"back-{back}"
        await world.begin(transfer, "a.h5", domain=f"{world.folder}/{transfer}", target="main")
        world.life.left = steps - back
        with pytest.raises(Crash):
            await world.run(transfer)
        world.life.left = 1 << 30
        await world.run(transfer)
        assert (await world.files(transfer))[0].state == "loaded"
    assert world.left()[0] == sorted([*(f"back-{back}" for back in range(1, 13)), "first", "whole"])


async def test_a_cancelled_ingest_leaves_nothing_wherever_it_was(world):
    world.make("a.h5", 3)
    died = 0
    while True:
        transfer, name = f"cancelled-{died}", f"c{died}"
        before = world.left()[1]
        await world.begin(transfer, "a.h5", domain=f"{world.folder}/{name}", target="main")
        world.life.left = died
        try:
            await world.run(transfer)
        except Crash:
            world.life.left = 1 << 30
        else:
            break
        await world.stages.stop(transfer, "cancel", Live(Progress()))
        assert (await world.stages.record(transfer)).state == "CANCELLED"
        names, roots = world.left()
        assert roots <= before
        [file] = await world.files(transfer) or [None]
        is_there = file is not None and file.state == "loaded"
        assert names == ([name] if is_there else [])
        if is_there:
            assert world.read(name) == (3, 3)
            world.server.call("DELETE", "/", domain=f"{world.folder}/{name}")
        died += 3
    world.life.left = 1 << 30


async def test_bad_files_fail_for_themselves_and_what_they_left_is_gone(world):
    for name in ("a.h5", "b.h5", "c.h5"):
        world.make(name, 5)
    (world.data / "b.h5").write_bytes((world.data / "b.h5").read_bytes()[:-100])
    (world.data / "classic.nc").write_bytes(b"CDF\x01" + bytes(100))
    for name in (b"\xff.h5", b"\xff.txt"):  # not UTF-8
        (world.data / os.fsdecode(name)).write_bytes(b"")
    await world.begin("bad", "", domain=f"{world.folder}/in/", verify="full")
    record = await world.run("bad")
    assert record.state == "PARTLY_SUCCEEDED"
    files = {each.key: each for each in await world.files("bad")}
    assert {key: each.state for key, each in files.items()} == {
        "a.h5": "loaded",
        "b.h5": "failed",
        "c.h5": "loaded",
        "classic.nc": "failed",
        r"\xff.h5": "failed",
    }
    assert "is not UTF-8" in files[r"\xff.h5"].error["message"]
    assert files["b.h5"].error["reason"] == files["classic.nc"].error["reason"] == "FORMAT_MISMATCH"
    assert not any(each.owed for each in files.values())
    assert world.left()[0] == ["in"]


async def test_what_reads_back_otherwise_is_not_published(world, monkeypatch):
    world.make("a.h5", 7)
    await world.begin("corrupt", "a.h5", verify="sample", target="main")
    real = PosixPlane.put_many

    async def put_many(plane, objects):
        lost = [replace(one, data=bytes(len(one.data))) if one.key.endswith("/0") else one for one in objects]
        assert lost != objects  # a chunk
        return await real(plane, lost)

    monkeypatch.setattr(PosixPlane, "put_many", put_many)
    with pytest.raises(Error) as caught:
        await world.run("corrupt")
    assert caught.value.reason == "CHECKSUM_MISMATCH"
    assert "/d of" in caught.value.message
    assert world.left()[0] == []


async def test_who_writes_a_domain_is_told_to_the_next_one_by_its_address(world):
    await world.store.write(
        lambda c: c.execute(tables.reservations.insert(), [{"target": "domain:main:/h/x", "transfer": "t1"}])
    )
    with pytest.raises(TargetBusy, match=r"^hdf5://h/x on HSDS 'main' is being written by transfer t1"):
        await world.store.read(lambda c: ledger.refuse_busy(c, "domain:main:/h/x"))


async def test_a_data_node_that_dies_amid_a_load_costs_no_value(world, monkeypatch):
    world.make("a.h5", 9)
    await world.begin("died", "a.h5", target="far", verify="none")
    real, killed = Connection.call, []

    async def call(own, method, path, **options):
        if "flush" in (options.get("params") or {}) and not killed:
            killed.append(path)
            world.server.kill("dn1")  # with all that it had not stored, and had said yes to
            world.restarting = asyncio.create_task(asyncio.to_thread(world.server.start, "dn1"))
        return await real(own, method, path, **options)

    monkeypatch.setattr(Connection, "call", call)
    record = await world.run("died")
    await world.restarting
    assert killed
    assert record.state == "SUCCEEDED"
    assert world.read() == (9, 9)


@pytest.mark.parametrize("target", ["main", pytest.param("far", marks=pytest.mark.soak)])
async def test_a_service_node_that_is_restarted_amid_a_load_is_waited_for(world, monkeypatch, target):
    world.make("a.h5", 1)
    await world.begin(f"before-{target}", "a.h5", target=target)
    await world.run(f"before-{target}")
    module = load if target == "main" else rest
    real, restarting = module.load, []

    async def loading(*words, **more):
        if not restarting:
            world.server.kill("sn")
            restarting.append(asyncio.create_task(asyncio.to_thread(world.server.start, "sn")))
        return await real(*words, **more)

    monkeypatch.setattr(module, "load", loading)
    world.make("a.h5", 2)
    await world.begin(f"restarted-{target}", "a.h5", target=target, verify="full")
    assert (await world.run(f"restarted-{target}")).state == "SUCCEEDED"
    await restarting[0]
    assert world.read() == (2, 2)
    assert world.left()[0] == ["x"]


async def test_a_server_that_is_gone_ends_the_ingest_and_what_is_owed_is_removed_later(world, monkeypatch):
    monkeypatch.setattr("fileserver.transfer.ingest_target.Patience", lambda: Patience(attempts=1, seconds=0.1))
    for i in range(5):
        world.make(f"{i}.h5", i)
    await world.begin("gone", "", domain=f"{world.folder}/in/", target="far", verify="none")
    real, count = rest.load, []

    async def loading(*words, **more):
        count.append(words)
        if len(count) == 2:
            world.server.kill("sn")
        return await real(*words, **more)

    monkeypatch.setattr(rest, "load", loading)
    monkeypatch.setattr("fileserver.transfer.ingest_target.LOADS", 1)
    try:
        with pytest.raises(Unavailable, match="does not answer"):
            await world.run("gone")
        await world.stages.stop("gone", "fail", Live(Progress()))
    finally:
        world.server.start("sn")
    record = await world.stages.record("gone")
    assert record.state == "FAILED"
    assert "could be removed yet" in record.warnings[0]
    await world.stages.clean_again()
    files = await world.files("gone")
    assert not any(each.owed for each in files)
    names = {each.key for each in files if each.state == "loaded"}
    said = world.server.call("GET", "/domains", domain=f"{world.folder}/in/")[1]
    assert {each["name"].rpartition("/")[2] for each in said.get("domains", [])} == names


async def test_what_is_owed_to_one_server_does_not_wait_for_another(world, monkeypatch):
    world.make("a.h5", 1)
    world.processes.append(IngestStages(world.planes, world.store, world.targets))
    for name in ("gone", "main", "far"):  # the first is not configured any more
        await world.begin(f"owed-{name}", "a.h5", target=name)
        await world.stages.plan(f"owed-{name}", Live(Progress()))
        await world.store.write(partial(ingest_rows.update, transfer=f"owed-{name}", number=1, owed=True))
    await world.store.write(lambda c: c.execute(tables.transfers.update().values(ended=1.0)))
    together = asyncio.Barrier(2)
    monkeypatch.setattr(Target, "clean", lambda *_: together.wait())
    async with asyncio.timeout(60):
        await world.stages.clean_again()
    assert [(await world.files(f"owed-{name}"))[0].owed for name in ("gone", "main", "far")] == [True, False, False]


async def test_a_paused_ingest_stands_still_and_goes_on(world):
    world.make("a.h5", 11)
    await world.begin("paused", "a.h5", target="main")
    world.life.left = 20
    with pytest.raises(Crash):
        await world.run("paused")
    world.life.left = 1 << 30
    await world.store.write(lambda c: ledger.ask(c, "paused", "pause", 2.0))
    await world.stages.stop("paused", "pause", Live(Progress()))
    assert (await world.stages.record("paused")).state == "PAUSED"
    assert not world.server.call("GET", "/", domain=f"{world.folder}/x")[1].get("root")
    assert await world.store.write(lambda c: ledger.ask(c, "paused", "", 3.0))
    assert (await world.run("paused")).state == "SUCCEEDED"
    assert world.read() == (11, 11)


async def test_by_requests_sixty_files_are_in_flight_and_eight_of_them_wait_in_the_server(world, monkeypatch):
    flushing, arrived, most, enough = 0, 0, 0, asyncio.Event()

    async def exchange(_connection, _asked, request):
        nonlocal flushing, most
        assert request.query["flush"] == "1"
        flushing += 1
        most = max(most, flushing)
        await enough.wait()
        flushing -= 1
        return 200, "", "", b'{"dn_ids": ["dn"]}'

    async def arrive(worker, file, **_):
        nonlocal arrived
        arrived += 1
        waits = asyncio.ensure_future(worker.target.flush(file.domain))
        if arrived == 60:
            for _ in range(100):  # whoever is let in now, is in the server before it answers the first
                await asyncio.sleep(0)
            enough.set()
        await waits
        return Ended(replace(file, state="loaded", ended=1.0))

    monkeypatch.setattr(Connection, "_exchange", exchange)
    monkeypatch.setattr(Worker, "arrive", arrive)
    for number in range(62):
        (world.data / f"{number}.h5").touch()
    await world.begin("many", "*.h5", target="far", domain=f"{world.folder}/")
    async with asyncio.timeout(60):
        assert (await world.run("many")).state == "SUCCEEDED"
    assert most == 8
