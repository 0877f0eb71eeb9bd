"""A file server with a plane, and agents of a machine whose files it does not see, in this process."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from functools import partial

from dbos import DBOS
from grpc import aio

from fileserver.agents.dispatch import Agents
from fileserver.away.work import Agent, Orders
from fileserver.catalogue.files import Catalogue
from fileserver.catalogue.writes import Writes
from fileserver.configured import Configured, agent_plane
from fileserver.errors import from_record
from fileserver.grants import Keys
from fileserver.server import OPTIONS
from fileserver.services.agent import AgentServicer
from fileserver.services.data import DataServicer
from fileserver.services.format_shapes import format_message
from fileserver.services.granted import GrantedData
from fileserver.services.halves import Halves
from fileserver.status import ErrorInterceptor
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.jobs import Jobs
from fileserver.transfer.spec import Csv, Despray, Fixed, Location, Spec, Spray
from fileserver.v1 import agent_pb2_grpc
from planes.plane import MIB, Extent
from planes.posix import PosixSettings
from planes.settings import PlaneSettings

KEY = "k" * 32
PLANE = agent_plane(KEY)
CSV = Csv()
SECRET = "of the file servers"


SLOW = ((0, 24 * 60, 8 * MIB),)
"""So that something can happen meanwhile."""

HOSTED = {"thor": PosixSettings(hosts=("h1", "h2"), default_parts=2)}
"""A plane of two hosts, by whose agents a test has it or not."""


class Planes(Configured):
    """Planes handed in as they are, and one of hosts."""

    def __init__(self, **planes):
        super().__init__({name: PlaneSettings(type="memory") for name in planes} | HOSTED, "data")
        self._open = planes


class World:
    """The server, and what a test asks of it; `folder` is on the agent's machine."""

    def __init__(self, store, plane, folder, *, works=True):
        self.works = works
        self.store, self.plane, self.folder = store, plane, folder
        self.planes = Planes(data=plane)
        self.jobs = Jobs(store, self.planes, retire_after=0.0)
        self.keys = Keys([SECRET], time.time)
        self.agents = self.planes.beside = Agents(store, self.keys, format_message, HOSTED)
        self.agents.before(self.jobs.stages)
        data = DataServicer(self.planes, Catalogue(store), Writes(store))
        self.halves = Halves(self.jobs.buffers)
        self.granted = GrantedData(self.keys, store, self.planes, self.halves, data, inside=False)
        self.server = aio.server(interceptors=[ErrorInterceptor()], options=OPTIONS)
        self.granted.add_to(self.server)
        servicer = AgentServicer(self.agents, lambda name: self.planes.plane(name).capabilities.shared)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(servicer, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def __aenter__(self):
        await self.server.start()
        if self.works:
            await self.jobs.start()
        return self

    async def __aexit__(self, *_):
        if self.works:
            await self.jobs.stop()
            DBOS.destroy()
        await self.server.stop(0)

    @asynccontextmanager
    async def agent(self, reads=("*",), writes=(), port=0, **more):
        """An agent at work; it ends in good order with the block."""
        orders = Orders(
            f"127.0.0.1:{port or self.port}",
            KEY,
            reads=[f"{self.folder}/{name}" for name in reads],
            writes=[f"{self.folder}/{name}" for name in writes],
            **more,
        )
        async with self.working(orders) as agent:
            yield agent

    def home(self, host):
        """The folder of a host that is the data of the plane `thor`."""
        made = self.folder.parent / "hosts" / host
        made.mkdir(parents=True, exist_ok=True)
        return made

    @asynccontextmanager
    async def host(self, name, **more):
        """The agent of a host at work."""
        folders = {"planes": {"thor": str(self.home(name))}}
        async with self.working(Orders(f"127.0.0.1:{self.port}", host=name, **(folders | more))) as agent:
            yield agent

    @asynccontextmanager
    async def hosts(self, **more):
        """Both of them."""
        async with self.host("h1", **more) as first, self.host("h2", **more) as second:
            yield first, second

    @asynccontextmanager
    async def working(self, orders):
        """An agent at work; it ends in good order with the block."""
        ready = asyncio.Event()
        agent = Agent(orders, ready.set)
        agent.task = asyncio.create_task(agent.run())
        try:
            await asyncio.wait_for(ready.wait(), 10)
            yield agent
        finally:
            agent.end()
            await asyncio.wait({agent.task})

    def write(self, name, data):
        (self.folder / name).write_bytes(data)
        return data

    def here(self, name):
        """A place on the agent's machine."""
        return Location(PLANE, f"{self.folder}/{name}")

    async def spray(self, *names, file="a::x", parts=3, form=None, **more):
        verb = Spray(tuple(map(self.here, names)), file, "data", parts, 0, form or Fixed(1))
        return (await self.jobs.create(Spec(verb, **more))).id

    async def despray(self, name, file="a::x", **more):
        return (await self.jobs.create(Spec(Despray(file, self.here(name)), **more))).id

    async def ended(self, transfer, seconds=60):
        """The record of a transfer that has ended."""
        async with asyncio.timeout(seconds):
            while (record := await self.record(transfer)).ended is None:
                await asyncio.sleep(0.02)
        return record

    async def done(self, transfer):
        """The outcome of a transfer that succeeded."""
        record = await self.ended(transfer)
        if record.error:
            raise from_record(record.error)
        assert record.state == "SUCCEEDED", record
        return record.outcome

    async def record(self, transfer):
        return await self.store.read(partial(ledger.get, transfer=transfer))

    async def until(self, transfer, condition, seconds=30):
        """Wait until something holds of a transfer's record."""
        async with asyncio.timeout(seconds):
            while not condition(await self.record(transfer)):
                await asyncio.sleep(0.01)

    async def content(self, file="a::x"):
        catalogue, found = Catalogue(self.store), []
        for part in await catalogue.all_parts((await catalogue.get(file)).generation):
            buffer = bytearray(part.size)
            await self.plane.read(Extent(part.key, part.version, 0, part.size), memoryview(buffer))
            found.append(bytes(buffer))
        return found

    async def keys_there(self):
        return [info.key async for info in self.plane.list("")]


def table(rows):
    """Records with quotes, of which some hold the terminator."""
    return b"".join(b'%d,"a\n""b""",%d\n' % (n, n * n) for n in range(rows))


def noise(size):
    return os.urandom(size)


async def stored(world, transfer):
    have = await world.store.read(lambda c: manifest_rows.steps(c, transfer, 1, 100))
    return sum(len(steps) for steps in have.values())


async def some_stored(world, transfer):
    async with asyncio.timeout(30):
        while not await stored(world, transfer):
            await asyncio.sleep(0.01)
