"""Which way the objects of a sync go, what is proved of them, and large ones that go on where they were."""

import asyncio
import hashlib
from dataclasses import replace

import pytest
import sqlalchemy as sa

from fileserver.catalogue import tables
from fileserver.transfer import sync, sync_move, sync_record, sync_rows
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.sync import SyncStages
from planes.errors import Refused, Unavailable
from planes.faulty import Fault, FaultyPlane, Flip, Raise
from planes.memory import MemoryPlane
from planes.plane import StepReceipt
from tests.doubles.silent import Silent
from tests.fileserver.transfer.sync_world import LARGE, World, shown


@pytest.fixture
async def world(store):
    made = World(store)
    await made.put("source", "in/new")
    return made


async def test_the_outcome_names_the_routes_and_why(world):
    await world.put("source", "in/large", LARGE)
    record = await world.run()
    [taken] = record.outcome["routes"]
    facts = (taken["route"], taken["why"], taken["part_count"], taken["size"])
    assert facts == ("streamed", "target cannot fetch from source by itself", 2, len(LARGE) + 1)


async def test_a_route_that_was_refused_is_the_reason_of_the_other(store):
    world = World(store)
    twin = FaultyPlane(MemoryPlane("target", store=world.inside["source"]._store))
    twin.script.faults = [Fault("copy", 0, Raise(Refused("not from there")))]
    world.planes._open["target"] = twin
    await world.put("source", "in/new")
    record = await world.run()
    assert [(taken["route"], taken["why"]) for taken in record.outcome["routes"]] == [("streamed", "not from there")]


GREAT = bytes(range(256)) * (4 << 12)  # four steps


def stored(world) -> int:
    """Steps that the target has taken in."""
    return world.live.through_us // (1 << 20)


async def interrupted(world, monkeypatch, after: int) -> None:
    """A large object, cut off after so many steps as by a pause or the end of the server."""
    await world.put("source", "in/new", GREAT)
    await world.begin()
    await world.stages.open("t1", world.live)
    reached, stream = asyncio.Event(), world.source.stream

    async def slowly(extent, take) -> None:
        if stored(world) >= after:
            reached.set()
            await asyncio.Event().wait()
        await stream(extent, take)

    monkeypatch.setattr(sync_move, "WIDTH", 1)
    with monkeypatch.context() as patch:
        patch.setattr(world.source, "stream", slowly)
        filling = asyncio.create_task(world.fill())
        await reached.wait()
        filling.cancel()
        await asyncio.wait({filling})


async def test_a_large_object_goes_on_after_the_steps_that_are_recorded(world, monkeypatch):
    await interrupted(world, monkeypatch, 2)
    assert (stored(world), world.keys()) == (2, set())
    world.stages = SyncStages(world.planes, world.store, Buffers(1 << 24))
    await world.stages.open("t1", world.live)
    await world.fill()
    record = await world.end()
    assert world.place.objects["up/new"].data == GREAT
    assert stored(world) == 4
    assert (shown(record)["copied"], record.outcome["evidence"]) == (1, "compared")
    assert not await world.store.read(lambda c: c.execute(sa.select(tables.steps)).all())


async def test_steps_of_an_upload_that_is_gone_are_not_taken_for_those_of_the_next(world, monkeypatch):
    monkeypatch.setattr(sync_record, "_FLUSH", 60.0)
    await world.put("source", "in/new", GREAT)
    await world.begin()
    [item] = await world.store.read(lambda c: sync_rows.page(c, "t1", 1))
    async with sync_record.Recorded(world.store, "t1", world.live, sync_rows.enter_ended) as work:
        await work.token(item, "first")
        work.keep(item, StepReceipt(1, 1 << 20, 7))
        await work.token(item, "second")
    assert await work.stored(item) == []


@pytest.mark.parametrize("by", ["stored value", "digest"])
async def test_what_a_store_does_not_confirm_is_not_compared(world, monkeypatch, by):
    data = bytes(9 << 10)
    await world.put("source", "in/new", data)
    if by == "digest":
        objects = world.inside["source"]._store.objects
        info = replace(objects["in/new"].info, version=hashlib.md5(data).hexdigest(), checksums={})
        objects["in/new"] = replace(objects["in/new"], info=info)
    world.planes._open["target"] = Silent("target", store=world.place)
    assert (await world.run()).outcome["evidence"] == "pinned"


async def test_an_object_keeps_the_route_that_it_took_when_another_is_refused_behind_it(store, monkeypatch):
    world = World(store)
    twin = FaultyPlane(MemoryPlane("target", store=world.inside["source"]._store))
    twin.script.faults = [Fault("copy", 2, Raise(Refused("not from there")))]
    world.planes._open["target"] = twin
    refused, copy = asyncio.Event(), twin.copy

    async def slowly(key, ticket, **more):
        """The first copy answers after the second was refused."""
        try:
            receipt = await copy(key, ticket, **more)
        except Refused:
            refused.set()
            raise
        await refused.wait()
        return receipt

    monkeypatch.setattr(twin, "copy", slowly)
    for name in ("one", "two"):
        await world.put("source", f"in/{name}")
    record = await world.run()
    routes = {taken["route"]: taken["part_count"] for taken in record.outcome["routes"]}
    assert routes == {"copied whole": 1, "streamed": 1}


async def test_a_large_object_whose_source_changed_meanwhile_begins_anew(world, monkeypatch):
    await interrupted(world, monkeypatch, 2)
    await world.put("source", "in/new", GREAT[::-1])
    await world.fill()
    await world.end()
    assert world.place.objects["up/new"].data == GREAT[::-1]
    assert not world.place.drafts


@pytest.mark.parametrize("kind", ["cancel", "fail"])
async def test_a_large_object_that_is_given_up_half_way_leaves_nothing(world, monkeypatch, kind):
    await interrupted(world, monkeypatch, 2)
    assert world.place.drafts
    await world.stages.stop("t1", kind, world.live)
    assert (world.place.drafts, world.keys()) == ({}, set())


async def test_what_a_directory_lost_with_its_machine_is_written_again(world, monkeypatch):
    await interrupted(world, monkeypatch, 2)
    monkeypatch.setattr(sync, "boot", lambda: "the next run of the machine")
    await world.stages.open("t1", world.live)
    await world.fill()
    await world.end()
    assert world.place.objects["up/new"].data == GREAT
    assert stored(world) == 2 + 4


@pytest.mark.parametrize("data", [b"small" * 100, LARGE], ids=["small", "large"])
async def test_what_was_read_wrong_is_never_seen(world, data):
    await world.put("source", "in/new", data)
    await world.put("target", "up/new", b"old")
    world.source.script.faults = [Fault("read", 1, Flip(20))]
    record = await world.run()
    [failed] = record.outcome["sync"]["exceptions"]
    assert (failed["key"], failed["reason"]) == ("new", "CHECKSUM_MISMATCH")
    assert world.place.objects["up/new"].data == b"old"
    assert not world.place.drafts


async def test_an_upload_that_is_just_begun_when_another_object_stops_all_is_known(world, monkeypatch):
    await world.put("source", "in/new", LARGE)
    await world.put("source", "in/small")
    token, begun = sync_record.Recorded.token, asyncio.Event()

    async def slowly(*arguments):
        begun.set()
        for _ in range(100):
            await asyncio.sleep(0)
        await token(*arguments)

    error = Unavailable("away")

    async def fails(*arguments, **more):
        await begun.wait()
        raise error

    monkeypatch.setattr(sync_record.Recorded, "token", slowly)
    monkeypatch.setattr(world.target, "put", fails)
    await world.begin()
    with pytest.raises(Unavailable):
        await world.fill()
    known = await world.store.read(lambda c: sync_rows.opened(c, "t1"))
    assert len(known) == len(world.place.drafts) == 1
