"""What a transfer leaves: its result or nothing, even if a crash came between a commit and its record."""

from __future__ import annotations

import json
import os
import time

import pytest

from fileserver.catalogue import files
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.catalogue.store import Store
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Source
from fileserver.transfer.manifest_file import ManifestFile, write_manifest
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Despray, Location, Spec, spec_to_json
from fileserver.transfer.stages import Stages
from planes import checksum
from planes.errors import NotFound, Unavailable
from planes.faulty import Fault, FaultyPlane, LoseAnswer, Raise
from planes.memory import LIMITS, MemoryPlane
from planes.plane import Extent
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.given import Planes

SMALL, LARGE = os.urandom(1000), os.urandom(1 << 19)
TARGET = "out/x.dat"


class World:
    """A registered file on a source plane, and a target plane to despray it to."""

    def __init__(self, store: Store, target) -> None:
        self.store, self.target = store, FaultyPlane(target)
        self.source = MemoryPlane("source")
        self.planes = Planes(source=self.source, target=self.target)
        self.stages = Stages(self.planes, store, Buffers(1 << 22), 0.0)
        self.live = Live(Progress())

    async def begin(self, data: bytes, *, overwrite: bool = False) -> None:
        await self.source.put("x", data, upload_id="setup")
        info = await self.source.stat("x")
        part = FilePart(1, "source", "x", info.size, info.version, dict(info.checksums), owned=False)
        file = LogicalFile("a::x", "g1", info.size, None, "registered", None, 1, "", 0.0)
        spec = spec_to_json(Spec(Despray("a::x", Location("target", TARGET)), overwrite))
        record = Record("t1", spec, "QUEUED", "", 1, time.time(), time.time())

        def work(c) -> None:
            files.enter_parts(c, "g1", [part])
            files.publish(c, file, overwrite=False, retire_at=0.0)
            ledger.create(c, record, "r1", f"object:target:{TARGET}")

        await self.store.write(work)

    async def fill(self) -> None:
        segments = await self.stages.plan("t1", self.live)
        await self.stages.open("t1", self.live)
        for segment in range(1, segments + 1):
            await self.stages.fill("t1", segment, self.live)

    async def commit_without_record(self) -> None:
        """What a crash right after a commit leaves."""
        (row,) = await self.store.read(lambda c: manifest_rows.parts(c, "t1"))
        if row.done:  # one request wrote it, and that was recorded
            work = "UPDATE parts SET done = 0, version = '', crc64nvme = NULL"
            await self.store.write(lambda c: c.exec_driver_sql(work).close())
            return
        steps = (await self.store.read(lambda c: manifest_rows.steps(c, "t1", 1, 1)))[1]
        await self.target.resume(row.token).commit([s.receipt for s in steps], row.part.size, None)

    async def content(self) -> bytes | None:
        try:
            info = await self.target.stat(TARGET)
        except NotFound:
            return None
        buffer = bytearray(info.size)
        await self.target.read(Extent(TARGET, info.version, 0, info.size), memoryview(buffer))
        return bytes(buffer)


@pytest.fixture(params=["memory", "posix"])
async def world(request, store, tmp_path):
    if request.param == "memory":
        target = MemoryPlane("target")
    else:
        (tmp_path / "target").mkdir()
        target = PosixPlane("target", PosixSettings(path=tmp_path / "target", durability="os"))
    yield World(store, target)
    await target.aclose()


@pytest.mark.parametrize("data", [SMALL, LARGE, b""], ids=["small", "large", "empty"])
async def test_a_despray_that_is_cancelled_after_a_crash_behind_its_commit_leaves_nothing(world, data):
    await world.begin(data)
    await world.fill()
    await world.commit_without_record()
    assert await world.content() == data
    await world.stages.stop("t1", "cancel", world.live)
    assert await world.content() is None
    assert (await world.stages.record("t1")).state == "CANCELLED"


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_and_after_the_crash_it_can_be_finished_as_well(world, data):
    await world.begin(data)
    await world.fill()
    await world.commit_without_record()
    await world.stages.open("t1", world.live)
    await world.stages.commit("t1", world.live)
    await world.stages.publish("t1", world.live)
    assert await world.content() == data


async def test_what_a_stranger_put_there_meanwhile_is_spared(world):
    await world.begin(LARGE)
    await world.fill()
    await world.target.put(TARGET, LARGE, upload_id="theirs")
    await world.stages.stop("t1", "cancel", world.live)
    assert await world.content() == LARGE


async def test_what_was_there_before_stays_if_it_was_to_be_replaced_and_was_not(world):
    await world.target.put(TARGET, b"old", upload_id="theirs")
    await world.begin(LARGE, overwrite=True)
    await world.fill()
    await world.stages.stop("t1", "cancel", world.live)
    assert await world.content() == b"old"


async def test_a_target_whose_plane_went_away_behind_the_commit_is_removed_when_it_is_back(world):
    await world.begin(LARGE)
    await world.fill()
    away = Fault("upload.made", 0, Raise(Unavailable("away")))
    world.target.script.faults = [Fault("upload.commit", 0, LoseAnswer()), away]
    with pytest.raises(Unavailable):
        await world.stages.commit("t1", world.live)
    await world.stages.stop("t1", "fail", world.live)
    assert any("tried again" in note for note in (await world.stages.record("t1")).warnings)
    world.target.script.faults = []
    await world.stages.clean_again()
    assert await world.content() is None
    assert await world.store.read(ledger.unclean) == []


# --- the manifest beside the parts ------------------------------------------------------------------------------------


async def enter(store, count: int, sources: int) -> LogicalFile:
    """A file of many parts and sources, in the catalogue alone."""
    parts = [
        FilePart(n, "p", f"a/x/~g1/x._{n}_of_{count}", n, "v", {"crc64nvme": n}, owned=True)
        for n in range(1, count + 1)
    ]
    size = sum(p.size for p in parts)
    file = LogicalFile("b::y", "g1", size, {"kind": "fixed", "record_size": 1}, "compared", 7, count, "g1", 5.0)

    def work(c) -> None:
        files.enter_parts(c, "g1", parts)
        manifest_rows.save_sources(c, "g1", [Source("p", f"ü{n}", n, "v", {}) for n in range(sources)])

    await store.write(work)
    return file


@pytest.mark.parametrize(("count", "sources"), [(1, 0), (1, 1), (2, 1001), (2500, 3), (5000, 0)])
async def test_a_manifest_of_any_length_is_written_in_pieces_and_read_as_it_was(store, count, sources):
    plane, file = FaultyPlane(MemoryPlane("p")), await enter(store, count, sources)
    for _ in range(2):
        await write_manifest(store, plane, file, "a/x/~g1")
    key = "a/x/~g1/_manifest.json"
    size = (await plane.stat(key)).size
    text = bytearray(size)
    await plane.read(Extent(key, "", 0, size), memoryview(text))
    found = ManifestFile.model_validate_json(text)
    assert found.file() == file
    assert found.home == "a/x/~g1"
    assert [p.number for p in found.parts] == list(range(1, count + 1))
    assert found.parts[-1].checksum == {"crc64nvme": checksum.to_hex(count)}
    assert [s.key for s in found.sources] == [f"ü{n}" for n in range(sources)]
    assert len(json.loads(text)["parts"]) == count
    step = min(LIMITS.put_size, LIMITS.single_put)
    assert plane.script.calls["upload.put"] == (2 * -(-size // step) if size > step else 0)
