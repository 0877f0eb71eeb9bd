"""A sync that is driven stage by stage, between two folders on planes that can misbehave."""

import time
from dataclasses import replace

from fileserver.catalogue.store import Store
from fileserver.transfer import ledger
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Location, Spec, Sync, spec_to_json
from fileserver.transfer.sync import SyncStages
from planes.faulty import FaultyPlane
from planes.memory import MemoryPlane
from planes.memory import Store as Place
from tests.fileserver.given import Planes

LARGE = b"large" * 40_000  # in steps


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


def shown(record):
    return {name: record.outcome["sync"][name] for name in ("copied", "equal", "deleted", "failed")}
