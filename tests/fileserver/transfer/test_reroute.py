"""A refused route is given up whole, whatever interrupts that; and what could not be removed is not forgotten."""

from __future__ import annotations

import asyncio
import os
import pkgutil
import time
from contextlib import suppress

import pytest

from fileserver.catalogue.files import Catalogue
from fileserver.errors import Cancelled
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.execute import RouteRefused
from fileserver.transfer.live import Live, Paused
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Fixed, Location, Spec, Spray, spec_to_json
from fileserver.transfer.stages import Stages
from planes.errors import Refused, Unavailable
from planes.faulty import Fault, FaultyPlane, Hold, Raise
from planes.memory import MemoryPlane
from planes.plane import Extent
from tests.fileserver.given import Planes

DATA = os.urandom(1 << 20)
PARTS = 4
AWAY = Unavailable("away")


class World:
    """A transfer within one store, whose third copied step the provider refuses."""

    def __init__(self, store) -> None:
        self.store = store
        self.source = MemoryPlane("source")
        self.inner = MemoryPlane("target", store=self.source._store)
        self.target = FaultyPlane(self.inner, [Fault("upload.copy", 3, Raise(Refused("not from there")))])
        planes = Planes(source=self.source, target=self.target)
        self.stages, self.live = Stages(planes, store, Buffers(1 << 22), 0.0), Live(Progress())

    async def refused(self) -> dict[str, str]:
        """Run until the refusal; the routes that it closes."""
        await self.source.put("x", DATA, upload_id="setup")
        spec = Spec(Spray((Location("source", "x"),), "a::x", "target", PARTS, 0, Fixed(1)))
        record = Record("t1", spec_to_json(spec), "QUEUED", "", 1, time.time(), time.time())
        await self.store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
        segments = await self.stages.plan("t1", self.live)
        await self.stages.open("t1", self.live)
        with pytest.raises(RouteRefused) as refused:
            await self.fill(segments)
        return {refused.value.plane: refused.value.why}

    async def fill(self, segments: int) -> None:
        for segment in range(1, segments + 1):
            await self.stages.fill("t1", segment, self.live)

    async def resume(self) -> None:
        """All stages in order, as the next run has them."""
        self.live = Live(Progress())
        segments = await self.stages.plan("t1", self.live)
        await self.stages.open("t1", self.live)
        await self.fill(segments)
        await self.stages.commit("t1", self.live)
        await self.stages.publish("t1", self.live)

    async def content(self) -> bytes:
        found, catalogue = b"", Catalogue(self.store)
        for part in await catalogue.all_parts((await catalogue.get("a::x")).generation):
            buffer = bytearray(part.size)
            await self.inner.read(Extent(part.key, "", 0, part.size), memoryview(buffer))
            found += buffer
        return found


@pytest.fixture
def world(store):
    return World(store)


async def test_a_pause_while_uploads_are_removed_for_another_route_can_be_resumed(world):
    closed = await world.refused()
    hold = Hold()
    world.target.script.faults = [Fault("upload.abort", 3, hold)]
    work = world.stages.reroute("t1", world.live, closed, "copied in ranges")
    reroute = asyncio.create_task(world.live.until_stopped(work))
    await hold.reached.wait()
    world.live.ask("pause")
    with pytest.raises(Paused):
        await reroute
    world.target.script.faults = []
    await world.resume()
    assert await world.content() == DATA
    assert world.live.native == 0
    record = await world.stages.record("t1")
    said = "source: not from there; what was to be copied in ranges from there is streamed"
    assert [note for note in record.warnings if "not from there" in note] == [said]
    assert record.plan.native == {"source": "not from there"}
    assert record.plan.whole == {"source": ""}, "only the route that was refused is closed"
    assert record.plan.closing == {}


@pytest.mark.parametrize("step", ["manifest_rows.clear_segments", "manifest_rows.add_segments", "ledger.update"])
async def test_a_pause_while_a_manifest_is_packed_anew_can_be_resumed(world, monkeypatch, step):
    closed = await world.refused()
    place = f"fileserver.transfer.stages.{step}"
    work = pkgutil.resolve_name(place)
    loop = asyncio.get_running_loop()

    def pausing(*args, **kwargs):
        done = work(*args, **kwargs)
        loop.call_soon_threadsafe(world.live.ask, "pause")
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()  # the wish is there before this step ends
        return done

    monkeypatch.setattr(place, pausing)
    with suppress(Paused):  # its last step may have been the last of all
        await world.live.until_stopped(world.stages.reroute("t1", world.live, closed))
    assert world.live.wish == "pause"
    monkeypatch.setattr(place, work)
    await world.resume()
    assert await world.content() == DATA


async def test_an_upload_that_could_not_be_removed_for_another_route_is_not_forgotten(world):
    closed = await world.refused()
    tokens = {row.token for row in await world.store.read(lambda c: manifest_rows.parts(c, "t1"))}
    world.target.script.faults = [Fault("upload.abort", 0, Raise(AWAY))]
    with pytest.raises(Unavailable, match="could not be removed"):
        await world.stages.reroute("t1", world.live, closed)
    assert {row.token for row in await world.store.read(lambda c: manifest_rows.parts(c, "t1"))} == tokens
    await world.stages.stop("t1", "fail", world.live)
    assert len(world.inner._store.drafts) == PARTS
    world.target.script.faults = []
    await world.stages.clean_again()
    assert world.inner._store.drafts == {}
    assert await world.store.read(ledger.unclean) == []


async def test_a_cancel_is_a_cancel_even_if_what_it_interrupts_fails_over_it(world):
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise AWAY

    asyncio.get_running_loop().call_soon(lambda: world.live.ask("cancel"))
    with pytest.raises(Cancelled):
        await world.live.until_stopped(work())
