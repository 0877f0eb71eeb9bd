"""What a sync must never do, stage by stage, between planes that misbehave: lose, forget or destroy."""

import asyncio
import os
from dataclasses import replace

import pytest
import sqlalchemy as sa

from fileserver.catalogue import files, tables
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.errors import InvalidSpec, TargetBusy
from fileserver.transfer import ledger, manifest_rows, sync_record, sync_rows
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.checking import check_names
from fileserver.transfer.record import Record
from fileserver.transfer.spec import Despray, Location, Spec, Sync
from fileserver.transfer.sync import SyncStages
from planes import checksum
from planes.errors import Changed, Refused
from planes.faulty import Fault, Flip, Raise
from planes.memory import MemorySettings
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.transfer.sync_world import LARGE, Planes, World, shown


@pytest.fixture
async def world(store):
    made = World(store)
    await made.put("source", "in/new")
    return made


# --- what --delete leaves alone ---------------------------------------------------------------------------------


async def test_generation_folders_are_left_out_of_both_sides(world):
    await world.put("source", "in/a/~g0/a._1_of_1")
    await world.put("target", "up/b/~g1/b._1_of_1")
    await world.put("target", "up/~plain")
    record = await world.run(delete=True)
    assert world.keys() == {"up/new", "up/b/~g1/b._1_of_1"}
    assert any("1 objects of the source and 1 of the target" in warning for warning in record.warnings)


@pytest.fixture
async def odd(world, tmp_path):
    """A source in a directory that has more in it than files with names."""
    folder = tmp_path / "odd/in"
    folder.mkdir(parents=True)
    for name in (b"good", b"z", b"bad\xff.csv"):
        (folder / os.fsdecode(name)).write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to("gone")
    world.planes._open["source"] = PosixPlane("source", PosixSettings(path=tmp_path / "odd"))
    yield world
    await world.planes._open["source"].aclose()


async def test_a_name_that_no_key_can_be_is_an_exception_of_that_file_alone(odd):
    await odd.put("target", "up/extra")
    record = await odd.run(delete=True)
    assert (record.state, shown(record)["copied"], shown(record)["failed"]) == ("PARTLY_SUCCEEDED", 2, 1)
    [failed] = record.outcome["sync"]["exceptions"]
    assert (failed["key"], failed["reason"]) == (r"bad\xff.csv", "PLANE_REFUSED")
    assert "not UTF-8" in failed["message"]
    assert odd.keys() == {"up/good", "up/z", "up/extra"}, "nothing is deleted while something could not be copied"


async def test_what_is_no_file_is_told_and_no_failure(odd):
    record = await odd.run(exclude=("bad*",))
    assert (record.state, shown(record)["copied"], shown(record)["failed"]) == ("SUCCEEDED", 2, 0)
    [warning] = [w for w in record.warnings if "no files" in w]
    assert warning.startswith("2 below source:in/ are no files, and were left out: ")
    assert "nowhere (a link that leads nowhere or out)" in warning
    assert "pipe (a pipe, a socket or a device)" in warning


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


def forget_checksum(world, key):
    """As of an object of a store that keeps none: what is read wrong is found behind its copy alone."""
    objects = world.inside["source"]._store.objects
    objects[key] = replace(objects[key], info=replace(objects[key].info, checksums={}))


@pytest.mark.parametrize("data", [b"small", LARGE])
async def test_what_turns_out_corrupt_does_not_stay(world, data):
    await world.put("source", "in/new", data)
    forget_checksum(world, "in/new")
    world.source.script.faults = [Fault("read", 1, Flip(0))]
    record = await world.run(verify=True)
    assert shown(record) == {"copied": 0, "equal": 0, "deleted": 0, "failed": 1}
    assert record.outcome["sync"]["exceptions"][0]["reason"] == "CHECKSUM_MISMATCH"
    assert world.keys() == set()


async def test_what_somebody_else_wrote_meanwhile_is_not_taken_for_ours(world, monkeypatch):
    await world.put("source", "in/new", LARGE)
    forget_checksum(world, "in/new")
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


async def test_a_large_object_that_is_overwritten_behind_its_last_byte_is_not_left_stale(world, monkeypatch):
    await world.put("source", "in/new", LARGE)
    objects, keep, read = world.inside["source"]._store.objects, sync_record.Recorded.keep, list[int]()

    def overwrite_behind_the_last(self, item, receipt):
        keep(self, item, receipt)
        read.append(receipt.size)
        if sum(read) == len(LARGE):
            there, now = objects["in/new"], LARGE.upper()
            info = replace(there.info, version="later", checksums={"crc64nvme": checksum.compute(now)})
            objects["in/new"] = replace(there, data=now, info=info)

    monkeypatch.setattr(sync_record.Recorded, "keep", overwrite_behind_the_last)
    record = await world.run()
    assert shown(record)["copied"] == 1
    assert world.target.script.calls["upload.commit"] == 1, "nobody has seen the first copy"
    assert world.place.objects["up/new"].data == LARGE.upper()


async def test_a_file_that_is_overwritten_while_it_is_put_is_not_left_stale(world, monkeypatch, tmp_path):
    file = tmp_path / "odd/in/new"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"old")
    put = world.target.put

    async def overwritten(*arguments, **more):
        receipt = await put(*arguments, **more)
        if file.read_bytes() == b"old":
            file.write_bytes(b"new")
        return receipt

    monkeypatch.setattr(world.target, "put", overwritten)
    world.planes._open["source"] = PosixPlane("source", PosixSettings(path=tmp_path / "odd"))
    record = await world.run()
    await world.planes._open["source"].aclose()
    assert shown(record)["copied"] == 1
    assert world.place.objects["up/new"].data == b"new"


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
    assert not await world.store.read(lambda c: manifest_rows.segment(c, "t1", 1)[1]), "the segment is not done"
    await world.fill()
    assert shown(await world.end())["copied"] == 21
    assert not await world.store.read(lambda c: c.execute(sa.select(tables.sync_items)).all())


async def test_no_deletion_at_all_may_be_asked_for(world):
    await world.put("target", "up/extra")
    with pytest.raises(Refused, match="more than the 0 that --max-delete allows"):
        await world.run(delete=True, max_delete=0)
    assert world.keys() == {"up/extra"}
