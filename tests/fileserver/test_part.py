"""PartService over a real connection: split points, and segments that are moved, moved again and gone on with."""

from __future__ import annotations

import asyncio
import os
import time

import grpc
import pytest
from grpc import aio

from fileserver import auth, errors
from fileserver.admission import Slots
from fileserver.auth import METADATA_KEY, Cookies
from fileserver.catalogue.files import Catalogue
from fileserver.configured import LOCAL, agent_plane
from fileserver.server import Listener, Server, Service
from fileserver.services.part import PartServicer
from fileserver.status import from_call
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.dispatch import _TRIES, Dispatch, Replicas
from fileserver.transfer.jobs import Jobs
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Fixed, Location, Spec, Spray, spec_to_json
from fileserver.v1 import part_pb2, part_pb2_grpc, transfer_pb2
from planes.errors import Changed, Full, Refused, Unsupported
from planes.faulty import Fault, FaultyPlane, Hold, Raise
from planes.memory import MemoryPlane
from planes.plane import Extent
from tests.fileserver.given import Planes

COOKIE = "ab" * 32
ALLOWED = ((METADATA_KEY, COOKIE),)
DATA = os.urandom(1 << 20)
PARTS = 12
"""Each too large for one put, so that it has an upload and a token."""
TABLE = b"".join(b'%d,"a\nb",x\n' % number for number in range(3000))


class Nobody:
    """The part of the server's jobs that starts and stops: here, segments are moved by the calls alone."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def unfinished(self) -> int:
        return 0


class World:
    """A server with a PartService, and a transfer `t1` at which nobody works but its callers."""

    def __init__(self, store, tmp_path) -> None:
        self.store = store
        self.source = MemoryPlane("source")
        self.inner = MemoryPlane("target")
        self.target = FaultyPlane(self.inner)
        self.planes = Planes(source=self.source, target=self.target)
        self.jobs = Jobs(store, self.planes, retire_after=0.0)
        self.part = part = PartServicer(self.jobs)
        service = Service("PartService", lambda s: part_pb2_grpc.add_PartServiceServicer_to_server(part, s))
        path = tmp_path / "cookie"
        self.server = Server([service], Nobody(), [Listener(["127.0.0.1:0"], [Cookies(COOKIE, path).around])])
        self.live = Live(Progress())

    async def spray(self, state: str = "PAUSED") -> None:
        await self.source.put("x", DATA, upload_id="setup")
        spec = spec_to_json(Spec(Spray((Location("source", "x"),), "a::x", "target", PARTS, 0, Fixed(1))))
        record = Record("t1", spec, state, "", 1, time.time(), time.time())
        await self.store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))

    async def open(self) -> None:
        await self.spray()
        assert await self.jobs.stages.plan("t1", self.live) == 1
        await self.jobs.stages.open("t1", self.live)

    async def finish(self) -> bytes:
        """Commit and publish what was moved; the content."""
        await self.jobs.stages.commit("t1", self.live)
        await self.jobs.stages.publish("t1", self.live)
        catalogue, found = Catalogue(self.store), b""
        for part in await catalogue.all_parts((await catalogue.get("a::x")).generation):
            buffer = bytearray(part.size)
            await self.inner.read(Extent(part.key, part.version, 0, part.size), memoryview(buffer))
            found += buffer
        return found

    async def tokens(self) -> list[str]:
        return [row.token for row in await self.store.read(lambda c: manifest_rows.parts(c, "t1"))]

    def move(self, verb: str, transfer: str = "transfers/t1", number: int = 1):
        segment = part_pb2.Segment(transfer=transfer, number=number)
        if verb == "Pull":
            return self.stub.Pull(part_pb2.PullRequest(segment=segment), metadata=ALLOWED)
        return self.stub.Push(part_pb2.PushRequest(segment=segment), metadata=ALLOWED)


@pytest.fixture
async def world(store, tmp_path):
    made = World(store, tmp_path)
    (address,) = await made.server.start()
    made.address = address
    async with aio.insecure_channel(address) as channel:
        made.stub = part_pb2_grpc.PartServiceStub(channel)
        yield made
    await made.server.stop(0)


async def whole(call) -> list:
    """All that a stream tells."""
    return [message async for message in call]


async def refused(call) -> Exception:
    """The error of a call, unary or a stream."""
    with pytest.raises(grpc.RpcError) as caught:
        await call if isinstance(call, aio.UnaryUnaryCall) else [message async for message in call]
    return from_call(caught.value)


# --- Partition --------------------------------------------------------------------------------------------------------


async def partition(world, form, targets, key="t", plane="source", version=None, data=TABLE):
    await world.source.put("t", data, upload_id="setup", replace=True)
    info = await world.source.stat("t")
    source = transfer_pb2.Source(plane=plane, key=key, size=info.size, version=version or info.version)
    request = part_pb2.PartitionRequest(sources=[source], format=form, targets=targets)
    return world.stub.Partition(request, metadata=ALLOWED)


CSV = transfer_pb2.Format(csv=transfer_pb2.Csv())


@pytest.mark.parametrize("split", ["deduce", "exact"])
async def test_split_points_are_record_starts(world, split):
    form = transfer_pb2.Format(csv=transfer_pb2.Csv(split=transfer_pb2.Csv.Split.Value(f"SPLIT_{split.upper()}")))
    targets = [0, len(TABLE) // 3, len(TABLE) // 2, len(TABLE) - 1]
    answer = await (await partition(world, form, targets))
    assert answer.split == split
    assert answer.bytes_read > 0
    for target, point in zip(targets, answer.points, strict=True):
        before = TABLE.rfind(b",x\n", 0, point)
        assert point >= target
        assert point in {0, len(TABLE)} or before + 3 == point
        assert TABLE.find(b",x\n", max(0, target - 3), max(0, point - 3)) == -1


async def test_fixed_points_need_no_byte(world):
    form = transfer_pb2.Format(fixed=transfer_pb2.Fixed(record_size=10))
    answer = await (await partition(world, form, [0, 15, 29], data=bytes(30)))
    assert (list(answer.points), answer.bytes_read, answer.split) == ([0, 10, 20], 0, "fixed")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"form": transfer_pb2.Format()}, errors.InvalidSpec),
        ({"form": transfer_pb2.Format(fixed=transfer_pb2.Fixed(record_size=0))}, errors.InvalidSpec),
        ({"form": transfer_pb2.Format(fixed=transfer_pb2.Fixed(record_size=7))}, errors.FormatMismatch),
        ({"plane": "nowhere"}, errors.PlaneNotFound),
        ({"version": "another"}, Changed),
        ({"data": "a,b\n".encode("utf-16") * 100}, errors.FormatMismatch),
        (
            {"form": transfer_pb2.Format(csv=transfer_pb2.Csv(max_record=50)), "data": bytes(b"x" * 300)},
            errors.RecordTooLong,
        ),
    ],
    ids=str,
)
async def test_what_is_wrong_with_a_partition_is_told_in_our_words(world, changes, kind):
    error = await refused(await partition(world, **({"form": CSV, "targets": [0, 100]} | changes)))
    assert type(error) is kind


# --- Pull and Push ----------------------------------------------------------------------------------------------------

VERBS = pytest.mark.parametrize("verb", ["Pull", "Push"])


@VERBS
async def test_a_segment_is_moved_and_its_receipts_are_recorded(world, verb):
    await world.open()
    told = [message.progress async for message in world.move(verb)]
    assert [p.done for p in told] == [False] * (len(told) - 1) + [True]
    assert (told[-1].bytes_done, told[-1].bytes_through_us, told[-1].bytes_native) == (len(DATA), len(DATA), 0)
    assert await world.finish() == DATA


@VERBS
async def test_a_segment_that_is_moved_again_sends_nothing_twice(world, verb):
    await world.open()
    for _ in range(2):
        told = [message.progress async for message in world.move(verb)]
    assert (told[-1].done, told[-1].bytes_done) == (True, 0)
    calls = world.target.script.calls
    assert await world.finish() == DATA
    assert calls["upload.put"] == PARTS


@VERBS
async def test_a_call_that_broke_off_is_gone_on_with_under_the_same_tokens(world, verb):
    await world.open()
    tokens, held = await world.tokens(), Hold()
    world.target.script.faults = [Fault("upload.put", PARTS - 1, held)]
    broken = world.move(verb)
    await held.reached.wait()
    broken.cancel()
    while world.server.calls.active:
        await asyncio.sleep(0)
    stored = await world.store.read(lambda c: manifest_rows.steps(c, "t1", 1, PARTS))
    before = sum(map(len, stored.values()))
    assert before >= 1
    world.target.script.faults = []
    sent = world.target.script.calls["upload.put"]
    told = [message.progress async for message in world.move(verb)]
    assert told[-1].done
    assert 0 < told[-1].bytes_done < len(DATA)
    steps = sum(map(len, (await world.store.read(lambda c: manifest_rows.steps(c, "t1", 1, PARTS))).values()))
    assert world.target.script.calls["upload.put"] - sent == steps - before
    assert await world.tokens() == tokens
    assert await world.finish() == DATA


@VERBS
async def test_what_a_plane_refuses_is_told_in_our_words(world, verb):
    await world.open()
    world.target.script.faults = [Fault("upload.put", 2, Raise(Full("no space is left")))]
    error = await refused(world.move(verb))
    assert type(error) is Full
    assert error.message == "no space is left"
    world.target.script.faults = []
    assert [message.progress async for message in world.move(verb)][-1].done
    assert await world.finish() == DATA


@VERBS
async def test_a_route_that_the_provider_refuses_is_told_with_the_plane_it_is_from(world, verb):
    world.inner._store = world.source._store
    await world.open()
    world.target.script.faults = [Fault("upload.copy", 0, Raise(Refused("not from there")))]
    error = await refused(world.move(verb))
    assert type(error) is Unsupported
    assert error.facts["plane"] == "source"
    assert "not from there" in error.message


@VERBS
async def test_a_plane_that_is_gone_from_the_configuration_is_told(world, verb):
    await world.open()
    del world.planes._open["target"], world.planes._settings["target"]
    error = await refused(world.move(verb))
    assert type(error) is errors.PlaneNotFound
    assert error.facts["plane"] == "target"


@VERBS
@pytest.mark.parametrize("number", [0, 2, -1])
async def test_a_segment_that_is_not_there_is_no_bug(world, verb, number):
    await world.open()
    error = await refused(world.move(verb, number=number))
    assert type(error) is errors.InvalidSpec
    assert set(error.violations) == {"segment.number"}


@VERBS
async def test_a_transfer_that_is_not_there_is_told(world, verb):
    assert type(await refused(world.move(verb, "transfers/t9"))) is errors.TransferNotFound


@VERBS
@pytest.mark.parametrize("wish", ["cancel", "pause", "ended"])
async def test_of_a_transfer_that_stops_or_has_ended_nothing_is_moved(world, verb, wish):
    await world.open()
    if wish == "ended":
        await world.store.write(lambda c: ledger.end(c, "t1", time.time(), "FAILED", clean=False))
    else:
        await world.store.write(lambda c: ledger.update(c, "t1", time.time(), wish=wish))
    assert type(await refused(world.move(verb))) is errors.TransferNotFound
    assert world.target.script.calls["upload.put"] == 0


async def test_a_server_that_has_its_segments_says_so_and_waiting_for_it_is_no_attempt(world):
    async def nowhere_else(*_):
        raise AssertionError

    await world.open()
    held, busy = Hold(), 0
    world.part._slots = slots = Slots("segments", 1, retry_after=0.01)
    world.target.script.faults = [Fault("upload.put", PARTS - 1, held)]
    first = asyncio.create_task(whole(world.move("Pull")))
    await held.reached.wait()
    error = await refused(world.move("Push"))
    assert (type(error), error.retry_after) == (errors.ServerBusy, 0.01)
    assert (await (await partition(world, CSV, [0]))).points == [0]  # what is no segment is not in its way
    dispatch = Dispatch(Replicas(f"ipv4:{world.address}", COOKIE), nowhere_else, nowhere_else)
    second = asyncio.create_task(dispatch.fill("t1", 1, world.live))
    enter = slots.one

    def one():
        nonlocal busy
        busy += 1
        return enter()

    slots.one = one
    async with asyncio.timeout(30):
        while busy <= 2 * _TRIES:
            await asyncio.sleep(0.01)
    assert not second.done()
    held.gate.set()
    await asyncio.gather(first, second)
    await dispatch.aclose()
    assert await world.finish() == DATA


@pytest.mark.parametrize("plane", [LOCAL, agent_plane("k" * 32)])
async def test_another_file_server_finds_nothing_in_files_of_this_machine_or_of_agents(world, plane):
    auth.set_caller(auth.Caller(local=False, name="peer"))  # by its certificate
    source = transfer_pb2.Source(plane=plane, key="etc/passwd", size=1, version="v")
    with pytest.raises(errors.CallerDenied):
        await PartServicer(world.jobs).Partition(part_pb2.PartitionRequest(sources=[source], format=CSV), None)


@pytest.mark.parametrize("verb", ["Pull", "Partition"])
async def test_nobody_gets_in_without_the_cookie(world, verb):
    call = (
        world.stub.Pull(part_pb2.PullRequest()) if verb == "Pull" else world.stub.Partition(part_pb2.PartitionRequest())
    )
    assert type(await refused(call)) is errors.CallerUnknown
