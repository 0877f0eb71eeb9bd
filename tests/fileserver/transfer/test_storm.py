"""Many callers who pause, resume and cancel one transfer at once: it always ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
import sqlalchemy as sa
from dbos import DBOS

from fileserver.catalogue import tables
from fileserver.catalogue.files import Catalogue
from fileserver.catalogue.store import Store
from fileserver.transfer.jobs import Jobs
from fileserver.transfer.runs import Superseded
from fileserver.transfer.spec import Fixed, Location, Spec, Spray
from planes.memory import MemoryPlane
from planes.plane import Extent
from tests.fileserver.given import Planes

DATA = os.urandom(1 << 19)
ROUNDS = 10
CALLERS = 5
CALLS = 12
TURNS = (3, 50, 400)
"""Turns of the event loop that a caller waits at most between two calls."""


class World:
    """Transfers between two planes in memory."""

    def __init__(self, tmp_path) -> None:
        self.source, self.target = MemoryPlane("source"), MemoryPlane("target")
        self.store = Store(tmp_path)
        self.jobs = Jobs(self.store, Planes(source=self.source, target=self.target), retire_after=0.0)

    async def spray(self, name: str) -> str:
        spec = Spec(Spray((Location("source", "x"),), name, "target", 60, 0, Fixed(1)))
        return (await self.jobs.create(spec)).id

    async def ended(self, transfer: str) -> str:
        """The state in which a transfer ends or stands still."""
        state = ""
        async for record, _ in self.jobs.watch(transfer):
            state = record.state
        return state

    async def looked(self, transfer: str) -> None:
        """The server has looked so often that a transfer that stands still goes on, with its second run."""
        while (await self.jobs.stages.record(transfer)).run == 1:
            await self.jobs._every_second()

    async def content(self, name: str) -> bytes:
        catalogue, found = Catalogue(self.store), b""
        for part in await catalogue.all_parts((await catalogue.get(name)).generation):
            buffer = bytearray(part.size)
            await self.target.read(Extent(part.key, part.version, 0, part.size), memoryview(buffer))
            found += buffer
        return found

    async def left(self, transfer: str) -> dict[str, int]:
        """Rows of work that should be forgotten when a transfer has ended."""

        def count(c: sa.Connection) -> dict[str, int]:
            work = (tables.parts, tables.steps, tables.segments, tables.reservations)
            asked = sa.func.count
            rows = {t.name: c.execute(sa.select(asked()).where(t.c.transfer == transfer)).scalar_one() for t in work}
            return {name: found for name, found in rows.items() if found}

        return await self.store.read(count)


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    await made.source.put("x", DATA, upload_id="setup")
    await made.jobs.start()
    yield made
    await made.jobs.stop()
    DBOS.destroy()
    made.store.close()


async def storm(world: World, transfer: str, chance: random.Random) -> None:
    """Callers at once, each with calls of its own, at whatever moment the transfer is then."""
    jobs = world.jobs

    async def caller(calls: list[tuple[str, int]]) -> None:
        for wish, turns in calls:
            for _ in range(turns):
                await asyncio.sleep(0)
            await {"pause": jobs.pause, "resume": jobs.resume, "cancel": jobs.cancel}[wish](transfer)

    wishes = ["pause", "resume"] * 12 + (["cancel"] if chance.random() < 0.6 else [])
    plans = [
        [(chance.choice(wishes), chance.randrange(chance.choice(TURNS))) for _ in range(CALLS)] for _ in range(CALLERS)
    ]
    await asyncio.gather(*map(caller, plans))


@pytest.mark.timeout(300)
async def test_a_storm_of_wishes_ends_in_a_state_that_stays_and_leaves_nothing(world):
    ends = set()
    for seed in range(ROUNDS):
        name = f"a::x{seed}"
        transfer = await world.spray(name)
        await storm(world, transfer, random.Random(seed))
        state = await world.ended(transfer)
        while state == "PAUSED":
            await world.jobs.resume(transfer)
            state = await world.ended(transfer)
        ends.add(state)
        if state == "SUCCEEDED":
            assert await world.content(name) == DATA
            await world.store.write(lambda c: c.execute(tables.files.delete()).close())
            for key in [info.key async for info in world.target.list()]:
                await world.target.delete(key)
        else:
            assert state == "CANCELLED", seed
        assert [info.key async for info in world.target.list()] == [], seed
        assert world.target._store.drafts == {}, seed
        assert await world.left(transfer) == {}, seed
    assert ends == {"SUCCEEDED", "CANCELLED"}
    assert world.jobs.unfinished() == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyError], ids=lambda e: e.__name__)
async def test_a_run_that_breaks_without_an_end_is_followed_by_another(world, monkeypatch, error):
    runs, broken = world.jobs.runs, asyncio.Event()
    real = runs.guarded

    async def once(*args):
        monkeypatch.setattr(runs, "guarded", real)
        broken.set()
        raise error

    monkeypatch.setattr(runs, "guarded", once)
    transfer = await world.spray("a::x")
    await broken.wait()
    while world.jobs.unfinished():
        await asyncio.sleep(0)
    await world.looked(transfer)
    assert await world.ended(transfer) == "SUCCEEDED"
    assert await world.content("a::x") == DATA


async def test_a_run_that_the_engine_claims_and_never_begins_is_followed_by_another(world, monkeypatch):
    """As when the database goes away between its claim of what a dead server was at and the work."""
    real = DBOS.start_workflow_async

    async def claimed_only(function, transfer, run):
        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(DBOS, "start_workflow_async", real)
        with monkeypatch.context() as m:
            m.setattr(world.jobs.runs, "take", never)
            handle = await real(function, transfer, run)
            while transfer not in {name.partition("-")[0] for name in world.jobs.runs._working}:
                await asyncio.sleep(0)
        world.jobs.runs.ended(transfer, run)
        return handle

    monkeypatch.setattr(DBOS, "start_workflow_async", claimed_only)
    transfer = await world.spray("a::x")
    await world.looked(transfer)
    assert await world.ended(transfer) == "SUCCEEDED"


async def test_a_run_that_breaks_waits_for_its_segments(world, monkeypatch):
    """Else the next run would meet them."""
    jobs, begun, go_on = world.jobs, asyncio.Event(), asyncio.Event()
    fill = jobs.stages.fill

    async def breaks(transfer, segment, live):
        if segment == 2:
            await begun.wait()
            raise Superseded
        begun.set()
        await go_on.wait()
        return await fill(transfer, segment, live)

    monkeypatch.setattr(jobs.stages, "width", 2)
    monkeypatch.setattr(jobs.stages, "fill", breaks)
    transfer = await world.spray("a::x")
    await begun.wait()
    for _ in range(100):
        await jobs.get(transfer)
    assert jobs.unfinished() == 1
    monkeypatch.setattr(jobs.stages, "fill", fill)
    go_on.set()
    await world.looked(transfer)
    assert await world.ended(transfer) == "SUCCEEDED"
    assert await world.content("a::x") == DATA
