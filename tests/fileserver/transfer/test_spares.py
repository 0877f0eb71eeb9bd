"""A clean-up removes what is the transfer's own, spares what is not, and one lost plane holds up no other."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from fileserver.catalogue import files
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.configured import Configured
from fileserver.transfer import ledger
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Despray, Location, Spec, spec_to_json
from fileserver.transfer.stages import Stages
from planes.memory import MemoryPlane, MemorySettings

SMALL = b"small" * 100
TARGET = "out/x.dat"


class StoreLike(MemoryPlane):
    """A plane that is a store: small objects need no upload, and a receipt has the version as its ETag.

    As at S3, where a copy within the bucket keeps the metadata of its source, `discard` does not know it for ours.
    """

    @property
    def capabilities(self):
        return replace(super().capabilities, shared=True)

    async def put(self, key, data, **named):
        receipt = await super().put(key, data, **named)
        return replace(receipt, etag=(await self.stat(key)).version)


class World:
    """A registered file, and a store to despray it to."""

    def __init__(self, store) -> None:
        self.store, self.source, self.target = store, MemoryPlane("source"), StoreLike("target")
        self.configure(self.target)

    def configure(self, *targets) -> None:
        planes = Configured({p.name: MemorySettings() for p in (self.source, *targets)}, "source")
        planes._open = {p.name: p for p in (self.source, *targets)}
        self.stages, self.live = Stages(planes, self.store, Buffers(1 << 22), 0.0), Live(Progress())

    async def despray(self, transfer: str, plane: str) -> None:
        await self.source.put(f"x{transfer}", SMALL, upload_id="setup")
        info = await self.source.stat(f"x{transfer}")
        part = FilePart(1, "source", info.key, info.size, info.version, dict(info.checksums), owned=False)
        file = LogicalFile(f"a::{transfer}", f"g{transfer}", info.size, None, "registered", None, 1, "", 0.0)
        spec = spec_to_json(Spec(Despray(file.name, Location(plane, TARGET)), True))
        record = Record(transfer, spec, "QUEUED", "", 1, time.time(), time.time())

        def work(c) -> None:
            files.enter_parts(c, file.generation, [part])
            files.publish(c, file, overwrite=False, retire_at=0.0)
            ledger.create(c, record, transfer, f"object:{plane}:{TARGET}")

        await self.store.write(work)
        segments = await self.stages.plan(transfer, self.live)
        await self.stages.open(transfer, self.live)
        for segment in range(1, segments + 1):
            await self.stages.fill(transfer, segment, self.live)


@pytest.fixture
def world(store):
    return World(store)


async def keys(plane) -> list[str]:
    return [info.key async for info in plane.list()]


async def test_what_one_request_wrote_is_removed(world):
    await world.despray("t1", "target")
    assert await keys(world.target) == [TARGET]
    await world.stages.stop("t1", "cancel", world.live)
    assert await keys(world.target) == []


async def test_a_strangers_object_in_its_place_is_spared(world):
    await world.despray("t1", "target")
    await world.target.put(TARGET, b"theirs", upload_id="theirs", replace=True)
    await world.stages.stop("t1", "cancel", world.live)
    assert await keys(world.target) == [TARGET]
    assert (await world.stages.record("t1")).warnings == ()


async def test_a_target_that_is_gone_already_is_no_trouble(world):
    await world.despray("t1", "target")
    await world.target.delete(TARGET)
    await world.stages.stop("t1", "cancel", world.live)
    assert (await world.stages.record("t1")).warnings == ()


async def test_a_plane_that_is_not_configured_any_more_holds_up_no_other(world):
    other = StoreLike("other")
    world.configure(world.target, other)
    for transfer, plane in (("t1", "target"), ("t2", "other")):
        await world.despray(transfer, plane)
        await world.store.write(lambda c, t=transfer: ledger.end(c, t, time.time(), "FAILED", clean=False))
    world.configure(other)
    await world.stages.clean_again()
    assert await keys(other) == []
    assert [record.id for record in await world.store.read(ledger.unclean)] == ["t1"]
    world.configure(world.target, other)
    await world.stages.clean_again()
    assert await keys(world.target) == []


async def test_a_transfer_whose_plane_is_not_configured_any_more_can_be_cancelled(world):
    await world.despray("t1", "target")
    world.configure()
    await world.stages.stop("t1", "cancel", world.live)
    record = await world.stages.record("t1")
    assert record.state == "CANCELLED"
    assert any("no plane is called target" in note for note in record.warnings)
