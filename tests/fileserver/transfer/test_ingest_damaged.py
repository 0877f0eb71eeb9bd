"""Damaged files of an ingest, against a real HSDS: what each costs, and that it costs no other."""

import asyncio

import h5py
import numpy as np
import pytest

from fileserver.hdf5 import joined, load, trial
from fileserver.transfer import ingest_rows
from fileserver.transfer.ingest_target import LOADS
from tests.fileserver.transfer.ingest_world import Crash, server, world

__all__ = ["server", "world"]  # fixtures


async def test_what_the_library_says_where_nobody_awaits_it_costs_its_file_alone(world, monkeypatch):
    for name in ("a.h5", "b.h5", "c.h5"):
        world.make(name, 5)
    real = load.load

    async def loading(source, *words, **more):
        if source.info.key == "b.h5":
            msg = "bad heap free list"
            raise RuntimeError(msg)
        return await real(source, *words, **more)

    monkeypatch.setattr(load, "load", loading)
    await world.begin("awry", "", domain=f"{world.folder}/in/", verify="sample", target="main")
    assert (await world.run("awry")).state == "PARTLY_SUCCEEDED"
    files = await world.files("awry")
    assert [(each.state, each.owed) for each in files] == [("loaded", False), ("failed", False), ("loaded", False)]
    assert "data:b.h5 cannot be read as HDF5 (RuntimeError: bad heap free list)" in files[1].error["message"]


async def test_a_file_that_the_library_does_not_survive_is_told_and_tried_no_more(world, monkeypatch):
    names = [f"{letter}.h5" for letter in "abcdefgh"]
    for name in names:
        world.make(name, 5)
    tried, at_once, most = [], 0, 0

    async def ends(_plane, key):
        nonlocal at_once, most
        tried.append(key)
        at_once += 1
        most = max(most, at_once)
        for _ in range(200):  # till all are here that may be
            await asyncio.sleep(0)
        at_once -= 1
        return "ends every process that reads it (SIGSEGV)" if key == "b.h5" else ""

    monkeypatch.setattr(trial, "ends", ends)
    await world.begin("deadly", "", domain=f"{world.folder}/in/", verify="sample", target="main")
    for _ in range(2):
        world.life.left = 24
        with pytest.raises(Crash):
            await world.run("deadly")
        assert tried == []  # whoever is killed once may have had bad luck
    world.life.left = 1 << 30
    assert (await world.run("deadly")).state == "PARTLY_SUCCEEDED"
    files = await world.files("deadly")
    assert [each.key for each in files if each.state == "failed"] == ["b.h5"]
    assert [each.key for each in files if each.state == "loaded"] == [name for name in names if name != "b.h5"]
    assert not any(each.owed for each in files)
    assert 0 < most <= LOADS
    assert "data:b.h5 ends every process that reads it (SIGSEGV)" in files[1].error["message"]
    assert set(tried) >= {"b.h5"}


@pytest.mark.parametrize("more", [{}, {"aggregate": "time"}], ids=["alone", "joined"])
async def test_files_that_were_paused_are_not_suspected(world, monkeypatch, more):
    for name in ("a.h5", "b.h5"):
        world.make(name, 5)
    begun = asyncio.Event()

    async def stands(*_, **__):
        begun.set()
        await asyncio.Event().wait()

    for place in (load, joined):
        monkeypatch.setattr(place, "load" if place is load else "look", stands)
    transfer, domain = f"paused-{len(more)}", f"{world.folder}/{'x' if more else 'in/'}"
    await world.begin(transfer, "", domain=domain, verify="sample", target="main", **more)
    for _ in range(4):
        begun.clear()
        run = asyncio.create_task(world.run(transfer))
        await begun.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    files = [each for each in await world.files(transfer) if each.state == "loading"]
    assert files
    assert all(each.resumed < 1 for each in files)


def damaged(world):
    """A file of which two datasets cannot be read, of the second one only one of many chunks."""
    values = np.random.default_rng(3).random(240_000)
    with h5py.File(world.data / "a.h5", "w") as file:
        file.create_dataset("bad", data=values[:100], chunks=(100,), compression="gzip")
        file.create_dataset("end", data=values, chunks=(20_000,), compression="gzip")
        file["d"] = np.full(8, 5, "<i4")
        file.create_group("g").attrs["value"] = 5
        chunks = [file["bad"].id.get_chunk_info(0), file["end"].id.get_chunk_info(5)]
    with (world.data / "a.h5").open("r+b") as raw:
        for info in chunks:
            raw.seek(info.byte_offset + 8)
            raw.write(b"\xff" * (info.size - 8))


@pytest.mark.parametrize("target", ["main", "far"])
async def test_a_damaged_chunk_costs_its_dataset_alone(world, monkeypatch, target):
    damaged(world)
    monkeypatch.setattr("fileserver.hdf5.source.WHOLE", 0)  # of small ones every chunk is looked at
    transfer = f"damaged-{target}"
    await world.begin(transfer, "a.h5", verify="sample", target=target)
    assert (await world.run(transfer)).state == "PARTLY_SUCCEEDED"
    told = await world.store.read(lambda c: ingest_rows.told(c, transfer, 1, 0))
    results = {each.path: each.result for each in told}
    assert results == dict.fromkeys(("/", "/d", "/g"), "loaded") | dict.fromkeys(("/bad", "/end"), "failed")
    assert all("its data cannot be read" in each.reason for each in told if each.result == "failed")
    assert world.read() == (5, 5)
    with world.open() as domain:
        assert sorted(domain) == ["d", "g"]
    assert world.left()[0] == ["x"]


@pytest.mark.soak
@pytest.mark.parametrize("step", [23, 3])
async def test_a_process_that_dies_at_a_damaged_file_goes_on_without_what_is_damaged(world, monkeypatch, step):
    damaged(world)
    monkeypatch.setattr("fileserver.hdf5.source.WHOLE", 0)
    died = 4
    while True:
        transfer = f"dies-{step}-{died}"
        await world.begin(transfer, "a.h5", verify="sample", target="main", domain=f"{world.folder}/{transfer}")
        world.life.left = died
        try:
            await world.run(transfer)
        except Crash:
            world.life.left = 1 << 30
            await world.run(transfer)
            is_over = False
        else:
            is_over = True
        assert [each.state for each in await world.files(transfer)] == ["partly"]
        with world.open(transfer) as domain:
            assert sorted(domain) == ["d", "g"]
        if is_over:
            break
        died += step
    assert died > 40
    assert not [name for name in world.left()[0] if name.startswith(".")]
