"""The stages of a transfer against planes that misbehave: it completes, or there is one clear error and no litter."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from fileserver.catalogue.files import Catalogue
from fileserver.catalogue.store import Store
from fileserver.errors import Cancelled, FormatMismatch
from fileserver.transfer import ledger
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.execute import RouteRefused
from fileserver.transfer.live import Live, Paused
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Csv, Fixed, Location, Spec, Spray, spec_to_json
from fileserver.transfer.stages import Stages
from planes.errors import Changed, Corrupt, Error, Full, Refused, Unavailable
from planes.faulty import Fault, FaultyPlane, Flip, LoseAnswer, Raise
from planes.memory import MemoryPlane
from planes.plane import Extent
from planes.retrying import Patience, RetryingPlane
from tests.fileserver.given import Planes

DATA = os.urandom(1 << 20)


class World:
    """A source plane, a target plane with faults, and the stages between them."""

    def __init__(self, tmp_path, faults=(), *, source_faults=(), shared=False) -> None:
        self.source = MemoryPlane("source")
        self.inner = MemoryPlane("target", store=self.source._store if shared else None)
        self.faulty = FaultyPlane(self.inner, faults)

        async def at_once(_seconds: float) -> None:
            return

        patience = Patience(attempts=3, sleep=at_once)
        target = RetryingPlane(self.faulty, patience)
        source = RetryingPlane(FaultyPlane(self.source, source_faults), patience)
        self.store = Store(tmp_path)
        self.stages = Stages(Planes(source=source, target=target), self.store, Buffers(1 << 22), 0.0)
        self.live = Live(Progress())

    async def begin(self, parts: int = 4, *, verify: bool = False) -> None:
        if "x" not in [i.key async for i in self.source.list()]:
            await self.source.put("x", DATA, upload_id="setup")
        spec = Spec(Spray((Location("source", "x"),), "a::x", "target", parts, 0, Fixed(1)), verify_read=verify)
        record = Record("t1", spec_to_json(spec), "QUEUED", "", 1, time.time(), time.time())
        await self.store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))

    async def run(self) -> None:
        """All stages in order, as a workflow does."""
        for segment in range(1, await self.stages.plan("t1", self.live) + 1):
            await self.stages.open("t1", self.live)
            await self.stages.fill("t1", segment, self.live)
        await self.stages.commit("t1", self.live)
        await self.stages.publish("t1", self.live)

    async def content(self) -> bytes:
        catalogue = Catalogue(self.store)
        file = await catalogue.get("a::x")
        found = b""
        for part in await catalogue.all_parts(file.generation):
            buffer = bytearray(part.size)
            await self.inner.read(Extent(part.key, "", 0, part.size), memoryview(buffer))
            found += buffer
        return found

    async def litter(self) -> list[str]:
        return [i.key async for i in self.inner.list() if i.key != "x"]


async def test_whoever_goes_on_after_a_crash_knows_how_much_there_is_to_do(tmp_path):
    world = World(tmp_path)
    await world.begin()
    await world.stages.plan("t1", world.live)
    stored = (await world.stages.record("t1")).progress
    assert (stored.bytes_total, stored.parts_total) == (len(DATA), 4)


UNAVAILABLE = Raise(Unavailable("reset"))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("upload", 2, UNAVAILABLE),
        Fault("upload.put", 3, UNAVAILABLE),
        Fault("upload.put", 1, LoseAnswer()),
        Fault("upload.commit", 2, UNAVAILABLE),
        Fault("upload.commit", 1, LoseAnswer()),
        Fault("put", 1, LoseAnswer()),
        Fault("stat", 1, UNAVAILABLE),
    ],
    ids=lambda f: f"{f.verb}-{type(f.trouble).__name__}",
)
async def test_what_passes_is_survived(tmp_path, fault):
    world = World(tmp_path, [fault])
    await world.begin()
    await world.run()
    assert await world.content() == DATA
    record = await world.stages.record("t1")
    assert (record.state, record.outcome["evidence"]) == ("SUCCEEDED", "compared")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("upload", 0, UNAVAILABLE), Unavailable),
        (Fault("upload.put", 0, Raise(Full("no space"))), Full),
        (Fault("upload.commit", 0, Raise(Refused("no"))), Refused),
        (Fault("upload.put", 0, Flip()), Corrupt),
        (Fault("put", 0, UNAVAILABLE), Unavailable),
    ],
    ids=lambda f: getattr(f, "verb", ""),
)
async def test_what_stays_is_one_error_and_no_litter(tmp_path, fault, kind):
    world = World(tmp_path, [fault])
    await world.begin()
    with pytest.raises(kind):
        await world.run()
    await world.stages.stop("t1", "fail", world.live)
    assert await world.litter() == []
    assert world.inner._store.drafts == {}
    assert (await world.stages.record("t1")).state == "FAILED"


async def test_a_flipped_bit_on_the_way_from_the_source_is_found(tmp_path):
    world = World(tmp_path, source_faults=[Fault("read", 1, Flip(7))])
    await world.begin()
    with pytest.raises(Corrupt, match="source says"):
        await world.run()


async def test_a_provider_that_refuses_to_copy_is_packed_anew_and_bytes_travel(tmp_path):
    world = World(tmp_path, [Fault("upload.copy", 0, Raise(Refused("not from there")))], shared=True)
    await world.begin()
    segments = await world.stages.plan("t1", world.live)
    await world.stages.open("t1", world.live)
    with pytest.raises(RouteRefused) as refused:
        await world.stages.fill("t1", segments, world.live)
    await world.stages.reroute("t1", world.live, {refused.value.plane: refused.value.why})
    await world.run()
    assert await world.content() == DATA
    record = await world.stages.record("t1")
    assert any("not from there" in note for note in record.warnings)
    assert world.live.native == 0
    assert world.live.through_us == len(DATA)


async def test_stored_steps_are_not_sent_again(tmp_path):
    world = World(tmp_path)
    await world.begin()
    segments = await world.stages.plan("t1", world.live)
    await world.stages.open("t1", world.live)
    for segment in range(1, segments + 1):
        await world.stages.fill("t1", segment, world.live)
    sent = world.faulty.script.calls["upload.put"]
    await world.store.write(lambda c: c.exec_driver_sql("UPDATE segments SET done = 0").close())
    await world.run()
    assert world.faulty.script.calls["upload.put"] == sent
    assert await world.content() == DATA


async def test_every_stage_may_run_twice(tmp_path):
    world = World(tmp_path)
    await world.begin()
    for _ in range(2):
        segments = await world.stages.plan("t1", world.live)
        for segment in range(1, segments + 1):
            await world.stages.open("t1", world.live)
            await world.stages.fill("t1", segment, world.live)
    await world.stages.commit("t1", world.live)
    await world.stages.commit("t1", world.live)
    await world.stages.publish("t1", world.live)
    await world.stages.publish("t1", world.live)
    assert await world.content() == DATA


async def test_a_source_that_changes_is_one_error(tmp_path):
    world = World(tmp_path)
    await world.begin()
    await world.stages.plan("t1", world.live)
    await world.source.put("x", DATA[::-1], upload_id="again", replace=True)
    with pytest.raises(Changed):
        await world.run()


async def test_verify_read_finds_what_the_store_changed_behind_our_back(tmp_path):
    world = World(tmp_path)
    await world.begin(verify=True)
    segments = await world.stages.plan("t1", world.live)
    await world.stages.open("t1", world.live)
    for segment in range(1, segments + 1):
        await world.stages.fill("t1", segment, world.live)
    await world.stages.commit("t1", world.live)
    key = (await world.litter())[0]
    size = (await world.inner.stat(key)).size
    await world.inner.put(key, bytes(size), upload_id="evil", replace=True)
    with pytest.raises(Corrupt):
        await world.stages.publish("t1", world.live)


async def test_a_stop_ends_the_work_and_waits_for_it(tmp_path):
    world = World(tmp_path)
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asyncio.get_running_loop().call_soon(lambda: world.live.ask("cancel"))
    with pytest.raises(Error, match="cancelled"):
        await world.live.until_stopped(work())
    assert ended.is_set()


async def test_a_stop_that_is_taken_back_while_the_work_ends_is_still_a_stop():
    """The work is gone, so the run has to end in good order: the next one goes on."""
    live, ending = Live(Progress()), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.sleep(0)

    async def caller() -> None:
        live.ask("pause")
        await ending.wait()
        live.go_on("pause")

    asking = asyncio.create_task(caller())
    with pytest.raises(Paused):
        await live.until_stopped(work())
    await asking


async def test_a_stop_that_is_taken_back_before_it_is_noticed_stops_nothing():
    live, go_on = Live(Progress()), asyncio.Event()

    async def work() -> str:
        await go_on.wait()
        return "done"

    async def caller() -> None:
        live.ask("pause")
        live.go_on("pause")
        for _ in range(5):
            await asyncio.sleep(0)
        go_on.set()

    asking = asyncio.create_task(caller())
    assert await live.until_stopped(work()) == "done"
    await asking


async def test_a_cancel_while_the_work_ends_for_a_pause_is_a_cancel():
    live = Live(Progress())

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            live.ask("cancel")

    asyncio.get_running_loop().call_soon(lambda: live.ask("pause"))
    with pytest.raises(Cancelled):
        await live.until_stopped(work())


async def test_buffers_keep_to_their_budget():
    buffers, held, most = Buffers(100), 0, 0

    async def use(size: int) -> None:
        nonlocal held, most
        async with buffers.take(size) as view:
            assert len(view) == size
            held += size
            most = max(most, held)
            await asyncio.sleep(0)
            held -= size

    await asyncio.gather(*(use(size) for size in (60, 50, 40, 30, 100, 10)))
    assert most <= 100
    await use(250)


async def test_parts_that_were_done_before_a_route_was_refused_are_written_again(tmp_path):
    """Whole objects are copied at once and done; the third refusal must not leave the first two deleted."""
    world = World(tmp_path, [Fault("copy", 3, Raise(Refused("not from there")))], shared=True)
    contents = [os.urandom(1000) for _ in range(3)]
    for number, content in enumerate(contents):
        await world.source.put(f"x{number}", content, upload_id=f"setup{number}")
    verb = Spray(tuple(Location("source", f"x{n}") for n in range(3)), "a::x", "target", 3, 0, Fixed(1), no_split=True)
    record = Record("t1", spec_to_json(Spec(verb)), "QUEUED", "", 1, time.time(), time.time())
    await world.store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
    segments = await world.stages.plan("t1", world.live)
    await world.stages.open("t1", world.live)
    with pytest.raises(RouteRefused) as refused:
        await world.stages.fill("t1", segments, world.live)
    await world.stages.reroute("t1", world.live, {refused.value.plane: refused.value.why})
    await world.run()
    assert await world.content() == b"".join(contents)


async def test_routes_fall_one_by_one_and_the_record_says_which_was_taken_and_why(tmp_path):
    """Whole copies are refused, then copies of ranges: what is left is streamed, and nothing of it is silent."""
    faults = [Fault("copy", 0, Raise(Refused("no whole copies"))), Fault("upload.copy", 0, Raise(Refused("no ranges")))]
    world = World(tmp_path, faults, shared=True)
    content = DATA[: 64 * 1024]
    await world.source.put("x", content, upload_id="setup")
    verb = Spray((Location("source", "x"),), "a::x", "target", 1, 0, Fixed(1), no_split=True)
    record = Record("t1", spec_to_json(Spec(verb)), "QUEUED", "", 1, time.time(), time.time())
    await world.store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
    routes = []
    for _ in range(3):
        segments = await world.stages.plan("t1", world.live)
        await world.stages.open("t1", world.live)
        try:
            await world.stages.fill("t1", segments, world.live)
        except RouteRefused as refused:
            routes.append(refused.route)
            await world.stages.reroute("t1", world.live, {refused.plane: refused.why}, refused.route)
    await world.stages.commit("t1", world.live)
    await world.stages.publish("t1", world.live)
    assert routes == ["copied whole", "copied in ranges"]
    ended = await world.stages.record("t1")
    assert [note.partition(";")[0] for note in ended.warnings] == ["source: no whole copies", "source: no ranges"]
    assert ended.outcome["routes"] == [
        {
            "route": "streamed",
            "why": "no ranges; no whole copies",
            "size": len(content),
            "part_count": 1,
            "parts": [[1, 1]],
        }
    ]
    assert ended.outcome["route"] == "1 part streamed, 64 KiB through this machine"
    assert await world.content() == content


@pytest.mark.parametrize("wish", ["cancel", "pause"])
async def test_a_wish_that_comes_before_the_publish_is_heeded_by_it(tmp_path, wish):
    world = World(tmp_path)
    await world.begin()
    segments = await world.stages.plan("t1", world.live)
    await world.stages.open("t1", world.live)
    for segment in range(1, segments + 1):
        await world.stages.fill("t1", segment, world.live)
    await world.stages.commit("t1", world.live)
    await world.store.write(lambda c: ledger.ask(c, "t1", wish, time.time()))
    with pytest.raises((Cancelled, Paused)):
        await world.stages.publish("t1", world.live)
    await world.stages.stop("t1", wish, world.live)
    record = await world.stages.record("t1")
    assert record.state == {"cancel": "CANCELLED", "pause": "PAUSED"}[wish]
    if wish == "cancel":
        assert await world.litter() == []


async def test_a_cancelled_write_to_the_store_has_ended_when_its_call_returns(tmp_path):
    world = World(tmp_path)
    begun, ended = threading.Event(), threading.Event()

    def slowly(_c) -> None:
        begun.set()
        time.sleep(0.2)
        ended.set()

    task = asyncio.create_task(world.store.write(slowly))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_cancel_beats_a_pause_whatever_comes_first(tmp_path):
    world = World(tmp_path)
    await world.begin()
    ask = world.stages
    for wish in ("pause", "cancel", "pause", ""):
        await world.store.write(lambda c, wish=wish: ledger.ask(c, "t1", wish, time.time()))
    assert (await ask.record("t1")).wish == "cancel"
    await world.stages.stop("t1", "pause", world.live)
    assert (await ask.record("t1")).state == "CANCELLED"


async def test_a_resume_while_it_is_still_pausing_begins_the_next_run(tmp_path):
    world = World(tmp_path)
    await world.begin()
    assert await world.store.write(lambda c: ledger.take(c, "t1", 1, "me"))
    for wish in ("pause", ""):
        await world.store.write(lambda c, wish=wish: ledger.ask(c, "t1", wish, time.time()))
    await world.stages.stop("t1", "pause", world.live)
    record = await world.stages.record("t1")
    assert (record.state, record.run, record.wish) == ("QUEUED", 2, "")


async def test_what_a_failed_plane_kept_is_removed_when_it_is_back(tmp_path):
    world = World(tmp_path)
    await world.begin()
    segments = await world.stages.plan("t1", world.live)
    await world.stages.open("t1", world.live)
    for segment in range(1, segments + 1):
        await world.stages.fill("t1", segment, world.live)
    await world.stages.commit("t1", world.live)
    world.faulty.script.faults = [Fault("delete", 0, UNAVAILABLE), Fault("upload.abort", 0, UNAVAILABLE)]
    await world.stages.stop("t1", "fail", world.live)
    assert await world.litter()
    assert any("could not be removed" in w for w in (await world.stages.record("t1")).warnings)
    world.faulty.script.faults = []
    await world.stages.clean_again()
    assert await world.litter() == []
    assert await world.store.read(ledger.unclean) == []


async def test_counters_are_recorded_with_the_receipts(tmp_path):
    world = World(tmp_path)
    await world.begin()
    segments = await world.stages.plan("t1", world.live)
    await world.stages.open("t1", world.live)
    for segment in range(1, segments + 1):
        await world.stages.fill("t1", segment, world.live)
    progress = (await world.stages.record("t1")).progress
    assert progress.bytes_done == progress.bytes_through_us == len(DATA)


async def test_an_odd_number_of_quotes_is_refused_in_a_part_that_one_put_writes(tmp_path):
    world = World(tmp_path)
    text = b'a,"b\n' + b"c,d\n" * 200
    await world.source.put("q", text, upload_id="setup")
    verb = Spray((Location("source", "q"),), "a::x", "target", 1, 0, Csv(max_record=4000))
    record = Record("t1", spec_to_json(Spec(verb)), "QUEUED", "", 1, time.time(), time.time())
    await world.store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
    with pytest.raises(FormatMismatch, match="--split exact"):
        await world.run()


async def test_after_a_power_cut_receipts_of_uncommitted_parts_are_not_believed(tmp_path, monkeypatch):
    world = World(tmp_path)
    await world.begin()
    segments = await world.stages.plan("t1", world.live)
    await world.stages.open("t1", world.live)
    for segment in range(1, segments + 1):
        await world.stages.fill("t1", segment, world.live)
    for draft in world.inner._store.drafts.values():
        draft.steps = {number: (offset, bytes(len(data))) for number, (offset, data) in draft.steps.items()}
    monkeypatch.setattr("fileserver.transfer.stages.boot", lambda: "another")
    await world.stages.commit("t1", world.live)
    await world.stages.publish("t1", world.live)
    assert await world.content() == DATA
