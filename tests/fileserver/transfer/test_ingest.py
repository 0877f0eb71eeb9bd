"""The stages of an ingest against a real HSDS: crashes at every step, bad files, clean-up."""

import asyncio
from dataclasses import replace

import h5py
import h5pyd
import numpy as np
import pytest

from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.hdf5 import rest
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.settings import HsdsSettings
from fileserver.hdf5.hsds.targets import Targets
from fileserver.transfer import ingest_rows, ledger
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Ingest, Location, Spec, spec_to_json
from planes.errors import Error, Unavailable
from planes.posix import PosixPlane, PosixSettings
from planes.retrying import Patience
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
        common = {"endpoint": server.endpoint, "username": "admin", "password": Secret(file=tmp_path / "secret")}
        common["bucket"] = server.bucket
        self.targets = Targets({"main": HsdsSettings(**common, storage="bucket"), "far": HsdsSettings(**common)})
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

    async def begin(self, transfer, source, **more):
        spec = Spec(
            Ingest((Location("data", source),), **({"domain": f"{self.folder}/x", "verify": "metadata"} | more)),
            overwrite=True,
        )
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

    def read(self, name="x"):
        options = {"endpoint": self.server.endpoint, "username": "admin", "password": self.server.password}
        with h5pyd.File(f"{self.folder}/{name}", "r", getobjs=False, **options) as file:
            return int(file["d"][0]), int(file["g"].attrs["value"])

    def left(self):
        """Names in the folder, and roots that have data and no domain."""
        status, said = self.server.call("GET", "/domains", domain=f"{self.folder}/")
        found = said["domains"] if status == 200 else []
        roots = {each["root"][2:19] for each in found if each.get("root")}
        with_data = {path.parent.parent.name for path in self.server.storage.glob("db/*/d/*")}
        return sorted(each["name"].rpartition("/")[2] for each in found), with_data - roots


@pytest.fixture
async def world(tmp_path, server, monkeypatch):
    made = World(tmp_path, server, monkeypatch)
    yield made
    for process in made.processes:
        for transfer in list(process._runs):
            await process._let_go(transfer)
    await made.planes.aclose()
    made.store.close()


@pytest.mark.parametrize(
    ("target", "step"),
    [
        ("main", 8),
        ("far", 27),  # a flush takes the server seconds
        pytest.param("main", 1, marks=pytest.mark.soak),
        pytest.param("far", 4, marks=pytest.mark.soak),
    ],
)
async def test_a_process_that_dies_anywhere_leaves_the_old_domain_or_the_new_and_the_next_one_ends_it(
    world, target, step
):
    world.make("old.h5", 1)
    old = f"old-{target}-{step}"  # of roots that are gone, the server does not give the ids again
    await world.begin(old, "old.h5", target=target)
    before = world.life.count
    await world.run(old)
    fresh = world.life.count - before
    assert world.read() == (1, 1)
    died, value = 0, 1
    while True:
        world.make("new.h5", value + 1)
        transfer = f"{target}-{step}-{died}"
        await world.begin(transfer, "new.h5", target=target)
        world.life.left = died
        try:
            await world.run(transfer)
        except Crash:
            world.life.left = 1 << 30
            status, _ = world.server.call("GET", "/", domain=f"{world.folder}/x")
            assert status in {200, 410}  # in between there are some milliseconds without
            if status == 200:
                assert world.read() in {(value, value), (value + 1, value + 1)}
            record = await world.run(transfer)
            is_over = False
        else:
            record, is_over = await world.stages.record(transfer), True
        assert record.state == "SUCCEEDED", record.error
        value += 1
        assert world.read() == (value, value)
        assert (await world.files(transfer))[0].state == "loaded"
        assert world.left()[0] == ["x"]
        if is_over:
            break
        died += step
    assert died > fresh / 2


async def test_a_process_that_dies_as_soon_as_a_new_domain_has_its_name_leaves_no_other(world):
    world.make("a.h5", 3)
    for name in ("first", "whole"):  # the first also makes the folder
        await world.begin(name, "a.h5", domain=f"{world.folder}/{name}", target="main")
        before = world.life.count
        await world.run(name)
    steps = world.life.count - before
    for back in range(1, 13):
        transfer = f"back-{back}"
        await world.begin(transfer, "a.h5", domain=f"{world.folder}/{transfer}", target="main")
        world.life.left = steps - back
        with pytest.raises(Crash):
            await world.run(transfer)
        world.life.left = 1 << 30
        await world.run(transfer)
        assert (await world.files(transfer))[0].state == "loaded"
    assert world.left()[0] == sorted([*(f"back-{back}" for back in range(1, 13)), "first", "whole"])


async def test_a_cancelled_ingest_leaves_nothing_wherever_it_was(world):
    world.make("a.h5", 3)
    died = 0
    while True:
        transfer, name = f"cancelled-{died}", f"c{died}"
        before = world.left()[1]
        await world.begin(transfer, "a.h5", domain=f"{world.folder}/{name}", target="main")
        world.life.left = died
        try:
            await world.run(transfer)
        except Crash:
            world.life.left = 1 << 30
        else:
            break
        await world.stages.stop(transfer, "cancel", Live(Progress()))
        assert (await world.stages.record(transfer)).state == "CANCELLED"
        names, roots = world.left()
        assert roots <= before
        [file] = await world.files(transfer) or [None]
        is_there = file is not None and file.state == "loaded"
        assert names == ([name] if is_there else [])
        if is_there:
            assert world.read(name) == (3, 3)
            world.server.call("DELETE", "/", domain=f"{world.folder}/{name}")
        died += 3
    world.life.left = 1 << 30


async def test_bad_files_fail_for_themselves_and_what_they_left_is_gone(world):
    for name in ("a.h5", "b.h5", "c.h5"):
        world.make(name, 5)
    (world.data / "b.h5").write_bytes((world.data / "b.h5").read_bytes()[:-100])
    (world.data / "classic.nc").write_bytes(b"CDF\x01" + bytes(100))
    await world.begin("bad", "", domain=f"{world.folder}/in/", verify="full")
    record = await world.run("bad")
    assert record.state == "PARTLY_SUCCEEDED"
    files = {each.key: each for each in await world.files("bad")}
    assert {key: each.state for key, each in files.items()} == {
        "a.h5": "loaded",
        "b.h5": "failed",
        "c.h5": "loaded",
        "classic.nc": "failed",
    }
    assert files["b.h5"].error["reason"] == files["classic.nc"].error["reason"] == "FORMAT_MISMATCH"
    assert not any(each.owed for each in files.values())
    assert world.left()[0] == ["in"]


async def test_what_reads_back_otherwise_is_not_published(world, monkeypatch):
    world.make("a.h5", 7)
    await world.begin("corrupt", "a.h5", verify="sample", target="main")
    real = PosixPlane.put_many

    async def put_many(plane, objects):
        lost = [replace(one, data=bytes(len(one.data))) if one.key.endswith("/0") else one for one in objects]
        assert lost != objects  # a chunk
        return await real(plane, lost)

    monkeypatch.setattr(PosixPlane, "put_many", put_many)
    with pytest.raises(Error) as caught:
        await world.run("corrupt")
    assert caught.value.reason == "CHECKSUM_MISMATCH"
    assert "/d of" in caught.value.message
    assert world.left()[0] == []


async def test_a_data_node_that_dies_amid_a_load_costs_no_value(world, monkeypatch):
    world.make("a.h5", 9)
    await world.begin("died", "a.h5", target="far", verify="none")
    real, killed = Connection.call, []

    async def call(own, method, path, **options):
        found = await real(own, method, path, **options)
        if path.endswith("/value") and not killed:
            killed.append(path)
            world.server.kill("dn1")  # with what it had not stored
            world.restarting = asyncio.create_task(asyncio.to_thread(world.server.start, "dn1"))
        return found

    monkeypatch.setattr(Connection, "call", call)
    record = await world.run("died")
    await world.restarting
    assert killed
    assert record.state == "SUCCEEDED"
    assert world.read() == (9, 9)


async def test_a_server_that_is_gone_ends_the_ingest_and_what_is_owed_is_removed_later(world, monkeypatch):
    monkeypatch.setattr("fileserver.transfer.ingest_target.Patience", lambda: Patience(attempts=1, seconds=0.1))
    for i in range(5):
        world.make(f"{i}.h5", i)
    await world.begin("gone", "", domain=f"{world.folder}/in/", target="far", verify="none")
    real, count = rest.load, []

    async def loading(*words):
        count.append(words)
        if len(count) == 2:
            world.server.kill("sn")
        return await real(*words)

    monkeypatch.setattr(rest, "load", loading)
    monkeypatch.setattr("fileserver.transfer.ingest_target.LOADS", 1)
    try:
        with pytest.raises(Unavailable, match="does not answer"):
            await world.run("gone")
        await world.stages.stop("gone", "fail", Live(Progress()))
    finally:
        world.server.start("sn")
    record = await world.stages.record("gone")
    assert record.state == "FAILED"
    assert "could be removed yet" in record.warnings[0]
    await world.stages.clean_again()
    files = await world.files("gone")
    assert not any(each.owed for each in files)
    names = {each.key for each in files if each.state == "loaded"}
    said = world.server.call("GET", "/domains", domain=f"{world.folder}/in/")[1]
    assert {each["name"].rpartition("/")[2] for each in said.get("domains", [])} == names


async def test_a_paused_ingest_stands_still_and_goes_on(world):
    world.make("a.h5", 11)
    await world.begin("paused", "a.h5", target="main")
    world.life.left = 20
    with pytest.raises(Crash):
        await world.run("paused")
    world.life.left = 1 << 30
    await world.store.write(lambda c: ledger.ask(c, "paused", "pause", 2.0))
    await world.stages.stop("paused", "pause", Live(Progress()))
    assert (await world.stages.record("paused")).state == "PAUSED"
    assert not world.server.call("GET", "/", domain=f"{world.folder}/x")[1].get("root")
    assert await world.store.write(lambda c: ledger.ask(c, "paused", "", 3.0))
    assert (await world.run("paused")).state == "SUCCEEDED"
    assert world.read() == (11, 11)
