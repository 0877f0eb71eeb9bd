"""Another copy of the same parts: made, refused, repaired, read when the first is gone, deleted with its file."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from fileserver.catalogue import files, tables
from fileserver.catalogue.files import Catalogue, FilePart, now
from fileserver.catalogue.names import MANIFEST
from fileserver.services.reading import file_runs, slices
from fileserver.transfer import garbage, ledger, renamed
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.custody import Custody
from fileserver.transfer.live import Live
from fileserver.transfer.planning import Planner
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Despray, Fixed, Location, Replicate, Spec, Spray, spec_from_json, spec_to_json
from fileserver.transfer.stages import Stages
from fileserver.transfer.verdict import whole
from planes.errors import AlreadyExists, Changed, Corrupt, Full, Unavailable
from planes.faulty import Fault, FaultyPlane, Raise, Script
from planes.memory import MemoryPlane
from tests.doubles.silent import Silent
from tests.fileserver.given import Planes

DATA = os.urandom(1 << 18)
NAME = "a::x"


class World:
    """A file of four parts on the plane `one`, and the planes `two` and `three`, on which nothing is yet."""

    def __init__(self, store) -> None:
        self.store = store
        self.inner = {name: MemoryPlane(name) for name in ("one", "two", "three")}
        self.faulty = {name: FaultyPlane(plane) for name, plane in self.inner.items()}
        self.planes = Planes(**self.faulty)
        self.stages = Stages(self.planes, store, Buffers(1 << 22), 50.0)
        self.custody = Custody(store, self.planes, retire_after=50.0)
        self.catalogue = Catalogue(store)

    async def run(self, transfer: str, verb, until: str = "", **options) -> Record:
        """A transfer, all stages in order as a workflow does, or up to the one that is named."""
        spec = spec_to_json(Spec(verb, **options))
        record = Record(transfer, spec, "QUEUED", "", 1, time.time(), time.time())
        await self.store.write(lambda c: ledger.create(c, record, transfer, f"object:{transfer}"))
        live = Live(Progress())
        try:
            segments = await self.stages.plan(transfer, live)
            await self.stages.open(transfer, live)
            for number in range(1, segments + 1):
                await self.stages.fill(transfer, number, live)
            await self.stages.commit(transfer, live)
            if until != "publish":
                await self.stages.publish(transfer, live)
        except Exception:
            await self.stages.stop(transfer, "fail", live)
            raise
        return await self.stages.record(transfer)

    async def publish(self, transfer: str) -> None:
        live = Live(Progress())
        try:
            await self.stages.publish(transfer, live)
        except Exception:
            await self.stages.stop(transfer, "fail", live)
            raise

    async def replicate(self, transfer: str, plane: str, **options) -> Record:
        return await self.run(transfer, Replicate(NAME, plane), **options)

    async def copies(self) -> dict[str, list]:
        """The parts of each copy, by the copy's id, the oldest first."""
        file = await self.catalogue.get(NAME)
        return {c.id: await self.catalogue.all_parts(c.id) for c in await self.catalogue.copies(file.generation)}

    async def keys(self, plane: str) -> list[str]:
        return [info.key async for info in self.inner[plane].list()]

    async def read(self) -> bytes:
        return b"".join([bytes(piece) async for piece in slices(file_runs(self.catalogue, self.planes, NAME, 0, 0))])

    def damage(self, plane: str, number: int, *, quietly: bool = False) -> None:
        """Other bytes in a part, of the same size; `quietly` in a way that only reading shows."""
        entries = self.inner[plane]._store.objects
        key = next(k for k in entries if k.endswith(f"._{number}_of_4"))
        one = entries[key]
        info = one.info if quietly else replace(one.info, version="later", checksums={})
        entries[key] = replace(one, data=bytes(len(one.data)), info=info)


def faults(world, plane: str, *faults: Fault) -> None:
    world.faulty[plane].script = Script(faults)


@pytest.fixture
async def world(store):
    made = World(store)
    await made.inner["three"].put("x", DATA, upload_id="setup")
    await made.run("t0", Spray((Location("three", "x"),), NAME, "one", 4, 0, Fixed(1)))
    await made.inner["three"].delete("x")
    return made


async def test_the_copy_has_the_same_parts_and_every_one_is_compared(world):
    record = await world.replicate("t1", "two")
    assert (record.outcome["evidence"], record.outcome["file"]) == ("compared", NAME)
    copies = await world.copies()
    first, second = copies["t0"], copies["t1"]
    facts = [(p.number, p.size, p.checksums["crc64nvme"]) for p in first]
    assert [(p.number, p.size, p.checksums["crc64nvme"]) for p in second] == facts
    assert {p.plane for p in second} == {"two"}
    assert all(p.owned for p in second)
    assert await world.keys("two") == sorted([*(p.key for p in second), f"a/x/~t1/{MANIFEST}"])
    assert (await world.catalogue.get(NAME)).transfer == "t0"
    verdicts = await world.custody.verify(NAME, read=True)
    assert [(v.plane, v.verdict) for v in verdicts] == [("one", "read")] * 4 + [("two", "read")] * 4


@pytest.mark.parametrize(("verify", "level"), [(False, "pinned"), (True, "compared")])
async def test_what_a_store_does_not_confirm_is_compared_only_by_reading_it(world, verify, level):
    world.planes._open["two"] = Silent("two")
    record = await world.replicate("t1", "two", verify_read=verify)
    assert record.outcome["evidence"] == level


async def test_a_plane_that_holds_a_whole_copy_is_refused_unless_told_otherwise(world):
    for plane in ("one", "two"):
        if plane == "two":
            await world.replicate("t1", "two")
        with pytest.raises(AlreadyExists, match=f"{plane} holds a whole copy of a::x; --overwrite"):
            await world.replicate(f"again-{plane}", plane)
    await world.replicate("t2", "two", overwrite=True)
    assert list(await world.copies()) == ["t0", "t2"]
    await garbage.collect(world.store, world.planes, now() + 60)
    assert {key.split("/")[2] for key in await world.keys("two")} == {"~t2"}


@pytest.mark.parametrize("what", ["gone", "damaged", "quietly damaged"])
@pytest.mark.parametrize("plane", ["one", "two"])
async def test_what_is_missing_or_damaged_is_made_again_from_the_other_copy(world, plane, what):
    await world.replicate("t1", "two")
    parts = next(parts for parts in (await world.copies()).values() if parts[0].plane == plane)
    if what == "gone":
        await world.inner[plane].delete(parts[1].key)
    else:
        world.damage(plane, 2, quietly=what == "quietly damaged")
    await world.replicate("t2", plane, overwrite=what == "quietly damaged")
    assert all(v.ok for v in await world.custody.verify(NAME, read=True))
    assert sorted(parts[0].plane for parts in (await world.copies()).values()) == ["one", "two"]
    assert await world.read() == DATA


@pytest.fixture
async def spread(world):
    """A file registered with its parts on two planes, and a copy of it on a third."""
    await world.custody.delete(NAME, with_parts=False, validate_only=False)
    for plane, piece in (("one", DATA[:1000]), ("two", DATA[1000:])):
        await world.inner[plane].put("r", piece, upload_id="setup")
    await world.custody.register(NAME, [Location("one", "r"), Location("two", "r")], Fixed(1), natural=False)
    await world.replicate("t1", "three")
    return world


@pytest.mark.parametrize(
    ("what", "options"), [("gone", {}), ("damaged", {}), ("quietly damaged", {"overwrite": True})], ids=str
)
async def test_a_damaged_copy_that_lies_on_two_planes_is_replaced_by_one_on_either(spread, what, options):
    if what == "gone":
        await spread.inner["one"].delete("r")
    else:
        entry = spread.inner["one"]._store.objects["r"]
        info = entry.info if what == "quietly damaged" else replace(entry.info, version="later", checksums={})
        spread.inner["one"]._store.objects["r"] = replace(entry, data=bytes(1000), info=info)
    assert not all(v.ok for v in await spread.custody.verify(NAME, read=True))
    await spread.replicate("t2", "one", **options)
    assert all(v.ok for v in await spread.custody.verify(NAME, read=True))
    assert list(await spread.copies()) == ["t1", "t2"]
    await garbage.collect(spread.store, spread.planes, now() + 60)
    assert await spread.inner["two"].stat("r"), "what we did not write stays"


@pytest.mark.parametrize("away", [False, True])
async def test_a_copy_that_lies_on_two_planes_stays_while_it_is_whole_or_nobody_can_tell(spread, away):
    first, _ = await spread.copies()
    if away:
        faults(spread, "two", Fault("stat", 0, Raise(Unavailable("down"))))
    await spread.replicate("t2", "one")
    assert list(await spread.copies()) == [first, "t1", "t2"]


@pytest.mark.parametrize("what", ["gone", "damaged", "quietly damaged", "away", "away half-way"])
async def test_reading_falls_to_another_copy(world, what):
    await world.replicate("t1", "two")
    if what == "gone":
        await world.inner["one"].delete((await world.copies())["t0"][2].key)
    elif what.startswith("away"):
        verb, call = ("stat", 0) if what == "away" else ("read", 3)
        faults(world, "one", Fault(verb, call, Raise(Unavailable("down"))))
    else:
        world.damage("one", 3, quietly="quietly" in what)
    assert await world.read() == DATA


async def test_reading_says_what_is_wrong_where_no_copy_is_whole(world):
    await world.replicate("t1", "two")
    world.damage("one", 3, quietly=True)
    world.damage("two", 3, quietly=True)
    with pytest.raises(Corrupt, match="part 3"):
        await world.read()


@pytest.mark.parametrize("what", ["gone", "damaged", "away"])
async def test_transfers_read_the_copy_that_is_whole(world, what):
    await world.replicate("t1", "two")
    if what == "gone":
        await world.inner["one"].delete((await world.copies())["t0"][2].key)
    elif what == "away":
        faults(world, "one", Fault("stat", 0, Raise(Unavailable("down"))))
    else:
        world.damage("one", 3)
    await world.run("t2", Despray(NAME, Location("three", "out")))
    info = await world.inner["three"].stat("out")
    assert info.size == len(DATA)
    record = await world.stages.record("t2")
    assert record.outcome["evidence"] == "compared"


async def test_the_copy_that_the_target_can_copy_by_itself_is_read_first(world, store):
    await world.replicate("t1", "two")
    near = MemoryPlane("near", store=world.inner["two"]._store)
    planner = Planner(Planes(near=near, **world.faulty), store)
    drawing = await planner.draw(Spec(Replicate(NAME, "near")), "t2")
    assert {source.plane for source in drawing.sources} == {"two"}
    assert drawing.plan.native == {"two": ""}


async def test_a_despray_may_not_overwrite_an_object_of_another_copy(world):
    await world.replicate("t1", "two")
    key = (await world.copies())["t1"][0].key
    with pytest.raises(Exception, match="is a part of the file itself"):
        await world.run("t2", Despray(NAME, Location("two", key)), overwrite=True)
    assert await world.read() == DATA


async def test_deleting_the_file_deletes_all_copies(world):
    await world.replicate("t1", "two")
    gone, kept = await world.custody.delete(NAME, with_parts=False, validate_only=False)
    assert (len(gone), kept) == (8, [])
    await garbage.collect(world.store, world.planes, now() + 60)
    assert await world.keys("one") == await world.keys("two") == []
    left = await world.store.read(
        lambda c: [len(c.execute(t.select()).all()) for t in (tables.copies, tables.file_parts)]
    )
    assert left == [0, 0]


async def test_a_file_that_is_deleted_or_replaced_meanwhile_is_told_and_nothing_is_left(world):
    await world.replicate("t1", "two", until="publish")
    await world.custody.delete(NAME, with_parts=False, validate_only=False)
    assert await garbage.collect(world.store, world.planes, now() + 60) == 1  # the manifest: parts are still read
    with pytest.raises(Changed, match="a::x was deleted or replaced while another copy"):
        await world.publish("t1")
    assert await world.keys("two") == []
    assert (await world.stages.record("t1")).state == "FAILED"


async def test_a_file_that_is_renamed_meanwhile_gets_its_copy_and_its_manifest_the_new_name(world, monkeypatch):
    await world.replicate("t1", "two", until="publish")
    await world.custody.rename(NAME, "b::y")
    await world.publish("t1")
    assert len(await world.catalogue.copies((await world.catalogue.get("b::y")).generation)) == 2
    await world.custody.rename("b::y", "c::z")
    await renamed.rewrite_all(world.store, world.planes, now() + 60)
    await lose_the_catalogue(world)
    for plane in ("two", "one"):
        assert (await world.custody.rebuild(plane, validate_only=False)).restored == ["c::z"]


async def lose_the_catalogue(world) -> None:
    def work(c) -> None:
        for table in (tables.files, tables.copies, tables.file_parts, tables.sources):
            c.execute(table.delete())

    await world.store.write(work)


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
async def test_a_rebuild_restores_all_copies_as_one_file(world, order):
    await world.replicate("t1", "two")
    before = await world.copies()
    await lose_the_catalogue(world)
    for plane in order:
        assert (await world.custody.rebuild(plane, validate_only=True)).restored == [NAME]
        found = await world.custody.rebuild(plane, validate_only=False)
        assert (found.restored, found.present, found.skipped) == ([NAME], [], [])
    assert await world.copies() == before
    assert (await world.custody.rebuild("two", validate_only=False)).present == [NAME]
    assert (await world.catalogue.get(NAME)).generation == "t0"


async def test_a_rebuild_takes_no_copy_whose_parts_are_cut_elsewhere(world):
    await world.replicate("t1", "two")

    def work(c) -> None:
        c.execute(tables.copies.delete().where(tables.copies.c.id == "t1"))
        p = tables.file_parts.c
        mine = tables.file_parts.update().where(p.generation == "t0")
        for number, size in ((1, 1), (2, (1 << 17) - 1)):
            c.execute(mine.where(p.number == number).values(size=size))

    await world.store.write(work)
    found = await world.custody.rebuild("two", validate_only=False)
    assert found.restored == []
    assert found.skipped == [f"{NAME}: is not a copy of {NAME}, though it says so: part 1 is another"]


@pytest.mark.parametrize(("state", "ended"), [("PUBLISHING", None), ("FAILED", 1.0), ("CANCELLED", 1.0)])
async def test_a_rebuild_leaves_alone_what_a_transfer_has_not_published(world, state, ended):
    await world.replicate("t1", "two")

    def work(c) -> None:
        c.execute(tables.copies.delete().where(tables.copies.c.id == "t1"))
        c.execute(tables.file_parts.delete().where(tables.file_parts.c.generation == "t1"))
        c.execute(tables.transfers.update().where(tables.transfers.c.id == "t1").values(state=state, ended=ended))

    await world.store.write(work)
    found = await world.custody.rebuild("two", validate_only=False)
    assert (found.restored, found.present) == ([], [])
    assert found.skipped == [f"a/x/~t1/{MANIFEST}: the transfer t1 has not published it: what it left goes with it"]


async def test_the_evidence_of_a_file_is_that_of_its_oldest_copy(world):
    def work(c) -> None:
        c.execute(tables.copies.update().values(evidence="pinned"))
        c.execute(tables.files.update().values(evidence="pinned"))

    await world.store.write(work)
    await world.replicate("t1", "two")
    assert (await world.catalogue.get(NAME)).evidence == "pinned"
    await world.replicate("t2", "one", overwrite=True)
    assert (await world.catalogue.get(NAME)).evidence == "compared"


async def test_what_was_written_again_and_has_no_checksum_is_no_whole_copy(world):
    await world.inner["one"].put("raw", b"before", upload_id="setup")
    info = await world.inner["one"].stat("raw")
    parts = [FilePart(1, "one", "raw", 6, info.version, {}, owned=False)]
    assert await whole(world.planes, parts)
    await world.inner["one"].put("raw", b"behind", upload_id="later", replace=True)
    assert not await whole(world.planes, parts)


async def test_what_fails_leaves_nothing_and_the_file_as_it_was(world):
    faults(world, "two", Fault("put", 3, Raise(Full("no space"))), Fault("upload.put", 3, Raise(Full("no space"))))
    with pytest.raises(Full):
        await world.replicate("t1", "two")
    assert await world.keys("two") == []
    assert list(await world.copies()) == ["t0"]
    assert await world.read() == DATA


def test_a_spec_comes_back_from_its_record():
    spec = Spec(Replicate("a::x", "two"), overwrite=True)
    assert spec_from_json(spec_to_json(spec)) == spec


async def test_a_replaced_file_takes_its_copies_with_it(world):
    await world.replicate("t1", "two")
    await world.inner["three"].put("y", DATA[::-1], upload_id="setup")
    await world.run("t2", Spray((Location("three", "y"),), NAME, "one", 2, 0, Fixed(1)), overwrite=True)
    assert list(await world.copies()) == ["t2"]
    await garbage.collect(world.store, world.planes, now() + 60)
    assert await world.keys("two") == []
    assert await world.store.read(lambda c: files.copies(c, "t0")) == []
