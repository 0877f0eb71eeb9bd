"""An ingest before a real HSDS: its store, its planes, and a process that may die at any step."""

from contextlib import asynccontextmanager

import h5py
import h5pyd
import numpy as np
import pytest

from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.settings import HsdsSettings
from fileserver.hdf5.hsds.targets import Targets
from fileserver.transfer import ingest_rows, ledger
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Ingest, Location, Spec, spec_to_json
from planes.posix import PosixPlane, PosixSettings
from planes.settings import Secret
from tests.doubles import hsds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with hsds.running(tmp_path_factory.mktemp("hsds")) as started:
        yield started


class Crash(BaseException):
    """The process ends here."""


class Life:
    """Lets so many requests and writes happen, and then none."""

    left = 1 << 30
    count = 0

    def spend(self):
        if not self.left:
            raise Crash
        self.left -= 1
        self.count += 1


class World:
    """A store, planes and a server; `stages` are of a process that may die."""

    def __init__(self, tmp_path, server, monkeypatch):
        (tmp_path / "data").mkdir()
        (tmp_path / "secret").write_text(server.password)
        self.data, self.server, self.life = tmp_path / "data", server, Life()
        self.store = Store(tmp_path)
        paths = {"data": self.data, "bucket": server.storage}
        self.planes = Configured({n: PosixSettings(path=p, durability="os") for n, p in paths.items()}, "")
        access = {"endpoint": server.endpoint, "username": "admin", "password": Secret(file=tmp_path / "secret")}
        access["bucket"] = server.bucket
        self.targets = Targets({"main": HsdsSettings(**access, storage="bucket"), "far": HsdsSettings(**access)})
        self.folder = f"/home/admin/{tmp_path.name}"
        self.processes = []
        for kind, name in ((Connection, "call"), (PosixPlane, "put"), (PosixPlane, "put_many"), (PosixPlane, "delete")):
            self._mortal(monkeypatch, kind, name)
        real = Store.write

        async def write(store, work, **options):
            self.life.spend()
            return await real(store, work, **options)

        monkeypatch.setattr(Store, "write", write)

    @property
    def stages(self):
        return self.processes[-1]

    def _mortal(self, monkeypatch, kind, name):
        real = getattr(kind, name)

        async def call(own, *words, **options):
            self.life.spend()
            found = await real(own, *words, **options)
            self.life.spend()  # done, and nobody heard of it
            return found

        monkeypatch.setattr(kind, name, call)

    def make(self, name, value):
        with h5py.File(self.data / name, "w") as file:
            file["d"] = np.full(8, value, "<i4")
            file.create_group("g").attrs["value"] = value

    async def begin(self, transfer, *sources, overwrite=True, **more):
        asked = {"domain": f"{self.folder}/x", "verify": "metadata"} | more
        spec = Spec(Ingest(tuple(Location("data", each) for each in sources), **asked), overwrite)
        record = Record(transfer, spec_to_json(spec), "QUEUED", "", 1, 1.0, 1.0, None, None, Progress())
        await self.store.write(lambda c: ledger.create(c, record, transfer, f"object:{transfer}"))

    async def run(self, transfer):
        """As one run of the workflow; a process begins it anew."""
        self.processes.append(IngestStages(self.planes, self.store, self.targets))
        live = Live(Progress())
        segments = await self.stages.plan(transfer, live)
        await self.stages.open(transfer, live)
        for number in range(1, segments + 1):
            await self.stages.fill(transfer, number, live)
        await self.stages.commit(transfer, live)
        await self.stages.publish(transfer, live)
        return await self.stages.record(transfer)

    async def files(self, transfer):
        return await self.store.read(lambda c: ingest_rows.page(c, transfer, 1, pending=False))

    def open(self, name="x"):
        """A domain, as readers see it."""
        options = {"endpoint": self.server.endpoint, "username": "admin", "password": self.server.password}
        return h5pyd.File(f"{self.folder}/{name}", "r", getobjs=False, **options)

    def read(self, name="x"):
        with self.open(name) as file:
            return int(file["d"][0]), int(file["g"].attrs["value"])

    def left(self):
        """Names in the folder, and roots that have data and no domain."""
        status, said = self.server.call("GET", "/domains", domain=f"{self.folder}/")
        found = said["domains"] if status == 200 else []
        roots = {each["root"][2:19] for each in found if each.get("root")}
        with_data = {path.parent.parent.name for path in self.server.storage.glob("db/*/d/*")}
        return sorted(each["name"].rpartition("/")[2] for each in found), with_data - roots


@asynccontextmanager
async def living(made):
    """A world until the test ends."""
    yield made
    for process in made.processes:
        for transfer in list(process._runs):
            await process._let_go(transfer)
    await made.planes.aclose()
    made.store.close()


@pytest.fixture
async def world(tmp_path, server, monkeypatch):
    async with living(World(tmp_path, server, monkeypatch)) as made:
        yield made
