"""What a sync must never do, stage by stage, between planes that misbehave: lose, forget or destroy."""

import asyncio
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from fileserver.catalogue import files, tables
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec, TargetBusy
from fileserver.transfer import ledger, sync, sync_move, sync_record, sync_rows
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.live import Live
from fileserver.transfer.planning import check_names
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Despray, Location, Spec, Sync, spec_to_json
from fileserver.transfer.sync import SyncStages
from planes.errors import Changed, Refused
from planes.faulty import Fault, FaultyPlane, Flip, Raise
from planes.memory import MemoryPlane, MemorySettings
from planes.memory import Store as Place
from planes.plane import StepReceipt
from planes.posix import PosixPlane, PosixSettings

LARGE = b"large" * 40_000  # in steps


class Planes(Configured):
    """Planes handed in as they are."""

    def __init__(self, **planes) -> None:
        super().__init__({name: MemorySettings() for name in planes}, "target")
        self._open = planes


class World:
    """Two folders, and a sync between them that is driven stage by stage."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.place = Place()
        self.inside = {"source": MemoryPlane("source"), "target": MemoryPlane("target", store=self.place)}
        self.source, self.target = (FaultyPlane(plane) for plane in self.inside.values())
        twin = MemoryPlane("twin", store=self.place)
        self.planes = Planes(source=self.source, target=self.target, twin=twin)
        self.stages = SyncStages(self.planes, store, Buffers(1 << 24))
        self.live = Live(Progress())

    async def put(self, plane: str, key: str, data: bytes = b"x") -> None:
        await self.inside[plane].put(key, data, upload_id=f"setup-{key}", replace=True)

    def keys(self) -> set[str]:
        return set(self.place.objects)

    async def begin(self, *, verify: bool = False, **more) -> int:
        verb = Sync(Location("source", "in"), Location("target", "up"), (), (), None, False, 1000, False)
        spec = spec_to_json(Spec(replace(verb, **more), verify_read=verify))
        record = Record("t1", spec, "QUEUED", "", 1, time.time(), time.time())
        await self.store.write(lambda c: ledger.create(c, record, "r1", "object:up/"))
        return await self.stages.plan("t1", self.live)

    async def fill(self) -> None:
        for segment in range(1, await self.stages.plan("t1", self.live) + 1):
            await self.stages.fill("t1", segment, self.live)

    async def end(self) -> Record:
        await self.stages.commit("t1", self.live)
        await self.stages.publish("t1", self.live)
        return await self.stages.record("t1")

    async def run(self, **more) -> Record:
        await self.begin(**more)
        await self.fill()
        return await self.end()


@pytest.fixture
async def world(store):
    made = World(store)
    await made.put("source", "in/new")
    return made


def shown(record):
    return {name: record.outcome["sync"][name] for name in ("copied", "equal", "deleted", "failed")}


# --- what --delete leaves alone ---------------------------------------------------------------------------------


async def test_generation_folders_are_left_out_of_both_sides(world):
    await world.put("source", "in/a/~g0/a._1_of_1")
    await world.put("target", "up/b/~g1/b._1_of_1")
    await world.put("target", "up/~plain")
    record = await world.run(delete=True)
    assert world.keys() == {"up/new", "up/b/~g1/b._1_of_1"}
    assert any("1 objects of the source and 1 of the target" in warning for warning in record.warnings)


async def test_nothing_is_deleted_below_a_generation_folder(world):
    target = Location("target", "up/~g1/")
    with pytest.raises(InvalidSpec, match="logical file"):
        await check_names(
            Spec(Sync(Location("source", "in"), target, (), (), None, True, 1000, False)), world.planes, world.store
        )


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("plane", ["target", "twin"])
async def test_parts_of_the_catalogue_stay_by_whichever_name(world, owned, plane):
    for key in ("up/part", "up/garbage", "up/extra", "up/late"):
        await world.put("target", key)

    def enter(c, key, generation):
        files.enter_parts(c, generation, [FilePart(1, plane, key, 1, "", {}, owned=owned)])
        file = LogicalFile(f"a::{generation}", generation, 1, None, "registered", None, 1, "", 0.0)
        files.publish(c, file, overwrite=False, retire_at=0.0)

    def garbage(c):
        c.execute(tables.garbage.insert().values(plane=plane, key="up/garbage", not_before=0.0, version=""))

    await world.store.write(lambda c: enter(c, "up/part", "g1"))
    await world.store.write(garbage)
    await world.begin(delete=True)
    await world.fill()
    await world.store.write(lambda c: enter(c, "up/late", "g2"))  # after the plan
    record = await world.end()
    assert world.keys() == {"up/new", "up/part", "up/garbage", "up/late"}
    assert record.outcome["sync"]["deleted"] == 1
    assert any(warning.startswith("2 objects of the target stay") for warning in record.warnings)


async def test_what_a_running_transfer_reads_or_writes_stays(world):
    for key in ("up/read", "up/written", "up/extra"):
        await world.put("target", key)

    def work(c):
        record = Record("t0", {}, "RUNNING", "", 1, 0.0, 0.0)
        ledger.create(c, record, "r0", "file:a::x")
        c.execute(tables.transfers.update().where(tables.transfers.c.id == "t0").values(plan={"plane": "twin"}))
        some = {"transfer": "t0", "number": 1, "size": 1}
        c.execute(tables.parts.insert().values(**some, key="up/written", pieces=[]))
        c.execute(tables.sources.insert().values(**some, plane="target", key="up/read", version="", checksums={}))

    await world.store.write(work)
    await world.run(delete=True)
    assert world.keys() == {"up/new", "up/read", "up/written"}


async def test_an_object_that_was_replaced_since_the_listing_is_not_deleted(world):
    await world.put("target", "up/replaced", b"before")
    await world.put("target", "up/extra")
    await world.begin(delete=True)
    await world.fill()
    await world.put("target", "up/replaced", b"after")
    record = await world.end()
    assert world.keys() == {"up/new", "up/replaced"}
    assert shown(record) == {"copied": 1, "equal": 0, "deleted": 1, "failed": 0}


# --- places under two names -------------------------------------------------------------------------------------


def sync_of(one, other, **more):
    return Spec(replace(Sync(Location(*one), Location(*other), (), (), None, False, 1000, False), **more))


async def test_the_same_place_under_two_names_is_refused(world, tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    for name, folder in (("a", "a"), ("b", "a/b"), ("link", "link")):
        world.planes._settings[name] = MemorySettings()
        world.planes._open[name] = PosixPlane(name, PosixSettings(path=tmp_path / folder))
    here = str(tmp_path).lstrip("/")
    for one, other in (
        (("target", "x"), ("twin", "x/y")),
        (("a", ""), ("b", "")),
        (("a", "b/c"), ("b", "")),
        (("a", "x"), ("link", "x")),
        (("local", f"/{here}/a/b"), ("a", "")),
        (("local", "/"), ("a", "x")),
    ):
        for spec in (sync_of(one, other), sync_of(other, one)):
            with pytest.raises(InvalidSpec, match="lies in the other"):
                await check_names(spec, world.planes, world.store)
    for one, other in ((("a", "x"), ("b", "x")), (("target", "x"), ("twin", "xy")), (("a", ""), ("target", ""))):
        await check_names(sync_of(one, other), world.planes, world.store)
    for name in ("a", "b", "link"):
        await world.planes.plane(name).aclose()


async def test_nested_targets_are_busy(world):
    record = Record("t0", {}, "RUNNING", "", 1, 0.0, 0.0)
    held = await check_names(sync_of(("source", ""), ("target", "up/a")), world.planes, world.store)
    await world.store.write(lambda c: ledger.create(c, record, "r0", held))
    file = LogicalFile("a::x", "g1", 1, None, "registered", None, 1, "", 0.0)
    await world.store.write(lambda c: files.publish(c, file, overwrite=False, retire_at=0.0))

    async def ask(spec):
        target = await check_names(spec, world.planes, world.store)
        await world.store.read(lambda c: ledger.refuse_busy(c, target))

    def despray(key):
        return Spec(Despray("a::x", Location("twin", key)))

    for spec in (
        sync_of(("source", ""), ("target", "up/a")),
        sync_of(("source", ""), ("twin", "up")),
        sync_of(("source", ""), ("twin", "up/a/b/")),
        despray("up/a/x"),
    ):
        with pytest.raises(TargetBusy, match="t0"):
            await ask(spec)
    for spec in (sync_of(("source", ""), ("target", "up/ab")), despray("up/a.x"), despray("up/x")):
        await ask(spec)


# --- nothing wrong stays, nothing is forgotten ------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"small", LARGE])
async def test_what_turns_out_corrupt_does_not_stay(world, data):
    await world.put("source", "in/new", data)
    world.source.script.faults = [Fault("read", 1, Flip(0))]
    record = await world.run(verify=True)
    assert shown(record) == {"copied": 0, "equal": 0, "deleted": 0, "failed": 1}
    assert record.outcome["sync"]["exceptions"][0]["reason"] == "CHECKSUM_MISMATCH"
    assert world.keys() == set()


async def test_what_somebody_else_wrote_meanwhile_is_not_taken_for_ours(world, monkeypatch):
    await world.put("source", "in/new", LARGE)
    world.source.script.faults = [Fault("read", 1, Flip(0))]
    stat = world.target.stat

    async def stat_late(key):
        found = await stat(key)
        await world.put("target", "up/new", b"theirs")
        return found

    monkeypatch.setattr(world.target, "stat", stat_late)
    await world.run(verify=True)
    assert world.place.objects["up/new"].data == b"theirs"


async def test_an_upload_that_cannot_be_aborted_is_remembered_until_it_is(world):
    await world.put("source", "in/new", LARGE)
    no = Refused("not now")
    world.target.script.faults = [Fault("upload.commit", 0, Raise(no)), Fault("upload.abort", 0, Raise(no))]
    record = await world.run()
    assert shown(record)["failed"] == 1
    assert any("could not be removed" in warning for warning in record.warnings)
    assert world.place.drafts
    world.target.script.faults = []
    await world.stages.clean_again()
    assert not world.place.drafts
    assert not await world.store.read(lambda c: sync_rows.opened(c, "t1"))


async def test_a_plane_that_is_not_configured_any_more_keeps_no_other_from_being_cleaned(world):
    await world.put("source", "in/new", LARGE)
    no = Refused("not now")
    world.target.script.faults = [Fault("upload.commit", 0, Raise(no)), Fault("upload.abort", 0, Raise(no))]
    await world.run()
    gone = SyncStages(Planes(source=world.source), world.store, Buffers(1 << 24))
    await gone.clean_again()
    assert await world.store.read(lambda c: sync_rows.opened(c, "t1"))  # it may be configured again


async def test_a_dry_run_that_begins_while_strays_are_forgotten_keeps_its_rows(world, monkeypatch):
    await world.put("source", "in/new")
    verb = Sync(Location("source", "in"), Location("target", "up"), (), (), None, False, 1000, False)
    pages, write = world.stages.preview(Spec(verb)), world.store.write

    async def late(work, **more):
        """Somebody else has the database first: a dry run, which lists its objects."""
        monkeypatch.setattr(world.store, "write", write)
        seen.append(await anext(pages))
        return await write(work, **more)

    seen = []
    monkeypatch.setattr(world.store, "write", late)
    await world.stages.clean_again()
    [(_, items)] = seen
    left = await world.store.read(lambda c: c.execute(sa.select(tables.sync_items.c.key)).scalars().all())
    assert [item.key for item in items] == left == ["new"]
    await pages.aclose()


async def test_a_large_object_that_fails_takes_no_progress_from_its_neighbours(world, monkeypatch):
    await world.put("source", "in/large", LARGE)
    await world.put("source", "in/small", b"x" * 1000)
    world.target.script.faults = [Fault("upload.commit", 0, Raise(Refused("no")))]
    put = world.target.put

    async def later(*arguments, **more):
        """The small one ends while the large one is under way."""
        while not world.target.script.calls["upload.put"]:
            await asyncio.sleep(0)
        return await put(*arguments, **more)

    monkeypatch.setattr(world.target, "put", later)
    await world.begin()
    await world.fill()
    assert world.live.done == 1001


async def test_a_second_try_aborts_the_first_before_it_begins(world, monkeypatch):
    await world.put("source", "in/new", LARGE)
    world.target.script.faults = [
        Fault("upload.commit", 1, Raise(Changed("written again"))),
        Fault("upload.abort", 1, Raise(Refused("no"))),
    ]
    begun, upload = [], world.target.upload

    async def begin(key, *, upload_id, **more):
        begun.append(len(world.place.drafts))
        return await upload(key, upload_id=upload_id, **more)

    monkeypatch.setattr(world.target, "upload", begin)
    record = await world.run()
    assert begun == [0, 0]
    assert shown(record)["copied"] == 1
    assert not world.place.drafts


@pytest.mark.parametrize("flush", [0.0, 60.0])
async def test_a_receipt_outlives_a_write_that_failed(world, monkeypatch, flush):
    monkeypatch.setattr(sync_record, "_FLUSH", flush)
    for number in range(20):
        await world.put("source", f"in/{number}")
    await world.begin()
    real, fails = sync_rows.enter_ended, [OSError("disk"), None]

    def enter(c, transfer, ended):
        if ended and (failure := fails.pop() if fails else None):
            raise failure
        real(c, transfer, ended)

    fails.reverse()
    monkeypatch.setattr(sync_rows, "enter_ended", enter)
    with pytest.raises(OSError, match="disk"):
        await world.fill()
    assert not await world.store.read(lambda c: ledger.segment(c, "t1", 1)[1]), "the segment is not done"
    await world.fill()
    assert shown(await world.end())["copied"] == 21
    assert not await world.store.read(lambda c: c.execute(sa.select(tables.sync_items)).all())


# --- routes, and large objects that go on -------------------------------------------------------------------------


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


async def test_a_large_object_whose_source_changed_meanwhile_begins_anew(world, monkeypatch):
    await interrupted(world, monkeypatch, 2)
    await world.put("source", "in/new", GREAT[::-1])
    await world.fill()
    await world.end()
    assert world.place.objects["up/new"].data == GREAT[::-1]
    assert not world.place.drafts


@pytest.mark.parametrize("recording", [False, True])
async def test_a_step_of_an_upload_that_was_given_up_is_none_of_the_next_one(world, monkeypatch, recording):
    monkeypatch.setattr(sync_record, "_FLUSH", 0.0 if recording else 60.0)
    await world.begin()
    [item] = await world.store.read(lambda c: sync_rows.page(c, "t1", 1))
    begun, go_on = asyncio.Event(), asyncio.Event()
    real = world.store.write

    async def late(work, **more):
        if not begun.is_set():
            begun.set()
            await go_on.wait()
        return await real(work, **more)

    async with sync_record.Recorded(world.store, "t1", world.live) as work:
        await work.token(item, "first")
        if recording:
            monkeypatch.setattr(world.store, "write", late)
        work.keep(item, StepReceipt(1, 5, 1))
        if recording:
            await begun.wait()
        again = asyncio.create_task(work.token(item, "second"))
        await asyncio.sleep(0)
        go_on.set()
        await again
    assert not await work.stored(item)


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


async def test_no_deletion_at_all_may_be_asked_for(world):
    await world.put("target", "up/extra")
    with pytest.raises(Refused, match="more than the 0 that --max-delete allows"):
        await world.run(delete=True, max_delete=0)
    assert world.keys() == {"up/extra"}
