"""Planes that take only so many transfers at once: who waits, who goes first, and how one that waits is stopped."""

from __future__ import annotations

import asyncio

import pytest
from dbos import DBOS
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fileserver import traces
from fileserver.catalogue.files import Catalogue
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.transfer import turns
from fileserver.transfer.jobs import Jobs
from fileserver.transfer.spec import Copy, Despray, Fixed, Ingest, Location, Replicate, Spec, Spray, Sync
from planes.faulty import Fault, FaultyPlane, Hold
from planes.memory import MemoryPlane, MemorySettings


class World:
    """One plane that takes one transfer at once, whose source can be held up."""

    def __init__(self, tmp_path) -> None:
        self.source, self.target = MemoryPlane("source"), MemoryPlane("target")
        self.hold = Hold()
        settings = MemorySettings()
        planes = Configured({"source": settings, "held": settings, "target": MemorySettings(transfers=1)}, "target")
        held = FaultyPlane(self.source, [Fault("stat", 0, self.hold)])
        planes._open |= {"source": self.source, "held": held, "target": self.target}
        self.planes = planes
        self.store = Store(tmp_path)
        self.jobs = Jobs(self.store, planes, retire_after=0.0)

    async def spray(self, source: str, name: str, priority: int = 0) -> str:
        verb = Spray((Location(source, "x"),), name, "", 2, 0, Fixed(1))
        return (await self.jobs.create(Spec(verb, priority=priority))).id

    async def state(self, transfer: str) -> str:
        return (await self.jobs.get(transfer))[0].state

    async def ended(self, transfer: str) -> str:
        """The state in which a transfer ends or stands still."""
        state = ""
        async for record, _ in self.jobs.watch(transfer):
            state = record.state
        return state


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    await made.source.put("x", b"0123456789", upload_id="setup")
    await made.jobs.start()
    yield made
    await made.jobs.stop()
    DBOS.destroy()
    made.store.close()


async def test_one_at_a_time_the_first_by_priority_and_what_waits_can_be_stopped(world):
    first = await world.spray("held", "a::first")
    await world.hold.reached.wait()
    usual = await world.spray("source", "a::usual")
    urgent = await world.spray("source", "a::urgent", turns.FIRST)
    paused, cancelled = [await world.spray("source", name) for name in ("a::paused", "a::cancelled")]
    await world.jobs.pause(paused)
    await world.jobs.cancel(cancelled)
    assert await world.ended(paused) == "PAUSED"
    assert await world.ended(cancelled) == "CANCELLED"
    assert [await world.state(t) for t in (first, usual, urgent)] == ["PLANNING", "QUEUED", "QUEUED"]
    await world.jobs.resume(paused)
    assert await world.state(paused) == "QUEUED"

    world.hold.gate.set()
    waits = (first, urgent, usual, paused)
    assert await asyncio.gather(*map(world.ended, waits)) == ["SUCCEEDED"] * 4
    catalogue = Catalogue(world.store)
    [span] = await world.jobs.timeline(first)  # and is kept, though its segments are not
    assert (span.first_part, span.last_part, span.size, span.server, span.tries) == (1, 2, 10, world.store.me, 1)
    assert span.ended is not None
    assert span.begun <= span.ended
    made = [(await catalogue.get(name)).created for name in ("a::first", "a::urgent", "a::usual", "a::paused")]
    assert made == sorted(made)


async def test_a_turn_that_the_engine_gave_to_nobody_is_given_again(world, monkeypatch):
    """As when the database goes away between the engine's claim and the work: the claim would block the plane."""
    runs, begun = world.jobs.runs, asyncio.Event()

    def never(*_: object) -> None:
        monkeypatch.undo()
        begun.set()
        raise asyncio.CancelledError

    monkeypatch.setattr(runs, "enter", never)
    transfer = await world.spray("source", "a::x")
    await begun.wait()
    assert await world.ended(transfer) == "SUCCEEDED"
    assert (await world.jobs.stages.record(transfer)).run == 2


async def test_a_transfer_its_stages_and_its_segments_are_one_trace(world):
    exporter = InMemorySpanExporter()
    traces.start("", exporter)
    try:
        done = await world.spray("source", "a::x")
        assert await world.ended(done) == "SUCCEEDED"
        refused = Spec(Spray((Location("source", "none"),), "a::y", "", 2, 0, Fixed(1)))
        failed = (await world.jobs.create(refused)).id
        assert await world.ended(failed) == "FAILED"
        while world.jobs.unfinished():
            await asyncio.sleep(0)
    finally:
        traces.stop()
    spans = {
        each.name: each for each in exporter.get_finished_spans() if each.attributes["cropduster.transfer"] == done
    }
    assert spans.keys() == {"spray", "plan", "open", "fill", "segment", "commit", "publish"}
    whole = spans.pop("spray")
    assert (whole.parent, whole.attributes["cropduster.plane"]) == (None, "target")
    assert whole.attributes["cropduster.routes"] == ("streamed",)
    assert {each.parent.span_id for name, each in spans.items() if name != "segment"} == {whole.context.span_id}
    assert {each.context.trace_id for each in spans.values()} == {whole.context.trace_id}
    assert spans["segment"].attributes["cropduster.segment"] == 1
    [bad] = [each for each in exporter.get_finished_spans() if each.name == "spray" and each is not whole]
    assert (bad.status.description, bad.attributes["cropduster.state"]) == ("OBJECT_NOT_FOUND", "FAILED")
    assert traces.span("off", "t").__enter__() == {}, "nothing is told any more"


PLACE = Location("target", "y")


async def test_a_transfer_takes_the_turns_of_the_plane_that_it_writes_to(world):
    made = await world.jobs.create(Spec(Spray((Location("source", "x"),), "a::x", "source", 1, 0, Fixed(1))))
    assert await world.ended(made.id) == "SUCCEEDED"
    for verb, plane in (
        (Spray((PLACE,), "a::x", "", 1, 0, None), "target"),
        (Spray((PLACE,), "a::x", "source", 1, 0, None), "source"),
        (Despray("a::x", PLACE), "target"),
        (Sync(Location("source", "s"), PLACE), "target"),
        (Replicate("a::x", "source"), "source"),
        (Copy("a::x", "a::y", "held", 0, 0), "held"),
        (Copy("a::x", "a::y", "", 0, 0), "source"),
        (Copy("a::gone", "a::y", "", 0, 0), ""),
        (Ingest((PLACE,), "hdf5://home/x", "main"), ""),
    ):
        assert await turns.plane_of(Spec(verb), world.planes, world.store) == plane, verb
