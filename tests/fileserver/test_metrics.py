"""What a Prometheus is told: as it reads it, over HTTP."""

import asyncio
import urllib.error
import urllib.request

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from fileserver import config, metrics
from fileserver.catalogue import tables as t
from fileserver.catalogue.agents import agents
from fileserver.catalogue.files import now
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from planes.memory import MemorySettings
from planes.plane import Extent

SECRET = "hunter2"


@pytest.fixture
async def planes():
    made = Configured({"data": MemorySettings(), "idle": MemorySettings()}, "data")
    yield made
    await made.aclose()


async def asked(told):
    """Every sample, by its name and labels."""
    async with metrics.answering("127.0.0.1:0", told) as address:
        url = f"http://{address}/metrics"
        body = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=60).read().decode())
    assert SECRET not in body
    samples = [s for family in text_string_to_metric_families(body) for s in family.samples]
    found = {(s.name, *sorted(s.labels.values())): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def transfer(name, state, kind, *, created=0.0, ended=None):
    spec = {"kind": kind, "verb": {"password": SECRET}}
    row = {"id": name, "request_id": name, "state": state, "spec": spec, "created": created, "ended": ended}
    return t.transfers.insert().values(**row, progress={}, warnings=[], updated=0.0)


def segment(number, *, of="a", begun=None, done=False):
    places = dict.fromkeys(("first_part", "last_part", "first_step", "last_step", "size"), 0)
    return t.segments.insert().values(transfer=of, number=number, done=done, begun=begun, **places)


async def test_planes_are_told_as_they_were_used(planes, store):
    plane = planes.plane("data")
    receipt = await plane.put("k", b"12345", upload_id="1")
    assert receipt.size == 5
    version = (await plane.stat("k")).version
    await plane.read(Extent("k", version, 0, 3), memoryview(bytearray(3)))
    with pytest.raises(Exception, match="not there"):
        await plane.stat("missing")
    await planes.bulk("data").put("b", b"67", upload_id="2")
    found = await asked(metrics.Metrics(planes, store))
    assert found["cropduster_plane_bytes_total", "data", "written"] == 7
    assert found["cropduster_plane_bytes_total", "data", "read"] == 3
    assert found["cropduster_plane_requests_total", "data", "stat"] == 2
    assert found["cropduster_plane_errors_total", "OBJECT_NOT_FOUND", "data"] == 1
    assert not [key for key in found if "idle" in key]  # nobody used it: it is not opened for being watched
    assert found["process_resident_memory_bytes",] > 0


async def test_transfers_and_segments_are_told_as_the_database_has_them(planes, store):
    statements = [
        transfer("a", "RUNNING", "spray", created=now() - 60),
        transfer("b", "RUNNING", "spray", created=now() - 10),
        transfer("c", "FAILED", "sync", ended=1.0),
        transfer("d", "PAUSED", "copy", created=now()),
        *(segment(1, begun=1.0, done=True), segment(2, begun=1.0), segment(3), segment(4)),
        *(segment(1, of="d", begun=1.0, done=True), segment(2, of="d", begun=1.0), segment(3, of="d")),
        t.garbage.insert().values(plane="data", key="k", not_before=0.0),
        agents.insert().values(plane="host:h1", stream="s", lease_until=1.0),
    ]
    await store.write(lambda c: [c.execute(each) for each in statements])
    found = await asked(metrics.Metrics(planes, store))
    assert found["cropduster_database_answers",] == 1
    assert {state: found["cropduster_hosts", state] for state in ("here", "lost")} == {"here": 0, "lost": 1}
    assert found["cropduster_transfers", "running", "spray"] == 2
    assert found["cropduster_transfers", "failed", "sync"] == 1
    states = {state: found["cropduster_segments", state] for state in ("waiting", "taken", "done", "paused")}
    assert states == {"waiting": 2, "taken": 1, "done": 2, "paused": 2}  # nobody takes those of a paused transfer
    assert 60 <= found["cropduster_oldest_transfer_seconds",] < 3600
    assert found["cropduster_garbage_objects",] == 1
    assert found["cropduster_files",] == 0


@pytest.mark.parametrize("trouble", ["silent", "broken"])
async def test_planes_are_told_when_the_database_is_away(trouble, planes, monkeypatch):
    class Away:
        async def read(self, _work):
            if trouble == "broken":
                statement = "SELECT"
                raise sa.exc.OperationalError(statement, {"password": SECRET}, ConnectionError(SECRET))
            await asyncio.Event().wait()

    monkeypatch.setattr(metrics, "PATIENCE", 0.05)
    await planes.plane("data").put("k", b"12345", upload_id="1")
    found = await asked(metrics.Metrics(planes, Away()))
    assert found["cropduster_database_answers",] == 0
    assert found["cropduster_plane_bytes_total", "data", "written"] == 5
    assert not [key for key in found if key[0] == "cropduster_transfers"]


async def test_whoever_asks_often_does_not_ask_the_database_as_often(planes, store):
    time, looks = [100.0], []

    class Watched:
        async def read(self, work):
            looks.append(time[0])
            return await store.read(work)

    told = metrics.Metrics(planes, Watched(), clock=lambda: time[0])
    for moment in (100.0, 100.1, 104.9, 105.0, 105.1):
        time[0] = moment
        await asyncio.to_thread(lambda: list(told.collect()))
    assert looks == [100.0, 105.0]


async def test_an_address_that_is_taken_is_told(planes, store):
    async with metrics.answering("127.0.0.1:0", metrics.Metrics(planes, store)) as address:
        with pytest.raises(InvalidSpec, match=r"metrics\.listen"):
            async with metrics.answering(address, metrics.Metrics(planes, store)):
                pass
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(urllib.request.urlopen, f"http://{address}/metrics")


def test_metrics_are_told_at_a_port(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("metrics: {listen: '0.0.0.0:7303'}")
    assert config.load(path, {}, tmp_path).metrics.listen == "0.0.0.0:7303"
    for wrong in ("/run/metrics.sock", "everywhere"):
        path.write_text(f"metrics: {{listen: '{wrong}'}}")
        with pytest.raises(InvalidSpec) as caught:
            config.load(path, {}, tmp_path)
        assert list(caught.value.violations) == ["metrics.listen"]
