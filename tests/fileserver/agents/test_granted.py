"""What a grant is good for, and that it is good for nothing else: raw calls at the external address."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import grpc
import pytest
from grpc import aio
from structlog.testing import capture_logs

from fileserver import codec
from fileserver.calls import GRANT_KEY, Call
from fileserver.errors import CallerDenied, InvalidSpec, ServerUnavailable
from fileserver.grants import LIFE, Grant, Keys, fingerprint
from fileserver.guard.audit import Audits
from fileserver.services import granted, halves
from fileserver.services.data import STREAMS
from fileserver.services.granted import GrantedData
from fileserver.status import from_call
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.live import Live
from fileserver.transfer.record import Done, Progress, Record, StoredStep
from fileserver.transfer.spec import Fixed, Location, Spec, Spray, spec_to_json
from fileserver.transfer.store_book import enter
from fileserver.v1 import data_pb2, data_pb2_grpc
from planes import checksum
from planes.errors import Corrupt, OutOfRange, Unsupported
from planes.memory import MemoryPlane
from planes.plane import MIB, StepReceipt

SIZE = 2 * MIB
"""Of two parts, each too large for one put: each is one step of an upload."""
SOME = 300_000
"""Bytes of a message."""


pytestmark = pytest.mark.parametrize("world", [False], indirect=True, ids=["nobody works"])


@pytest.fixture
async def held(world):
    """A transfer whose uploads are open, and at which nobody works."""
    source = MemoryPlane("source")
    world.planes._settings["source"] = world.planes._settings["data"]
    world.planes._open["source"] = source
    data = bytes(range(256)) * (SIZE // 256)
    upload = await source.upload("x", upload_id="u")
    await upload.commit([await upload.put(1, 0, data)], SIZE, None)
    spec = spec_to_json(Spec(Spray((Location("source", "x"),), "a::x", "data", 2, 0, Fixed(1))))
    record = Record("t1", spec, "PAUSED", "", 1, time.time(), time.time())
    await world.store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
    live = Live(Progress())
    await world.jobs.stages.plan("t1", live)
    await world.jobs.stages.open("t1", live)
    async with aio.insecure_channel(f"127.0.0.1:{world.port}") as channel:
        yield Held(world, channel, data)


class Held:
    def __init__(self, world, channel, data):
        self.world, self.channel, self.data = world, channel, data
        self.stub = data_pb2_grpc.DataServiceStub(channel)

    async def grant(self, part=1, direction="write", **changed):
        (row,) = await self.world.store.read(lambda c: manifest_rows.parts(c, "t1", part, part))
        size = row.part.size
        made = Grant(direction, "t1", part, fingerprint(row.token), 0, size, size, time.time() + LIFE)
        return self.world.keys.mint(replace(made, **changed))

    async def write(self, token, name="t1-1-1", data=None, offset=0, **last):
        data = self.data[: SIZE // 2] if data is None else data
        messages = [
            codec.WriteRequest(
                write_id=name if not start else "",
                offset=offset + start,
                data=data[start : start + SOME],
                crc32c=checksum.compute(data[start : start + SOME], 0, "crc32c"),
            )
            for start in range(0, max(1, len(data)), SOME)
        ]
        messages[-1] = replace(messages[-1], **({"finish": True} | last))

        def sent():  # from a thread, as bulk streams are
            with grpc.insecure_channel(f"127.0.0.1:{self.world.port}") as channel:
                call = channel.stream_stream(codec.WRITE, codec.encode_write, data_pb2.WriteResponse.FromString)
                return list(call(iter(messages), metadata=((GRANT_KEY, token),) if token else ()))

        return await asyncio.to_thread(sent)

    async def query(self, token, name="t1-1-1"):
        asked = data_pb2.QueryWriteRequest(write_id=name)
        return await self.stub.QueryWrite(asked, metadata=((GRANT_KEY, token),))

    async def read(self, token, **request):
        asked = {"plane": "source", "key": "x", "version": await self.version(), "offset": 0, "length": 10} | request
        metadata = ((GRANT_KEY, token),) if token else ()
        return b"".join([m.data async for m in self.stub.Read(data_pb2.ReadRequest(**asked), metadata=metadata)])

    async def version(self):
        return (await self.world.planes.plane("source").stat("x")).version

    async def receipt(self, answer):
        steps = [StoredStep(1, StepReceipt(1, SIZE // 2, checksum.from_hex(answer.crc64nvme), answer.etag))]
        await self.world.store.write(lambda c: enter(c, "t1", steps, []))


async def refused(call):
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return from_call(caught.value)


async def denied(call, why):
    error = await refused(call)
    assert isinstance(error, CallerDenied), error
    assert error.facts["why"] == why, error


async def test_a_step_is_stored_once_it_is_whole_and_again_by_the_same_grant(held):
    token = await held.grant()
    for _ in range(2):
        (answer,) = await held.write(token)
        assert answer.finished
        assert answer.persisted_size == SIZE // 2
        assert answer.crc64nvme == checksum.to_hex(checksum.compute(held.data[: SIZE // 2]))
    for known in (None, held.receipt):  # by who has stored it, and by any other once its receipt has come
        if known:
            held.world.halves._stored.clear()
            assert not (await held.query(token)).finished
            await known(answer)
        asked = await held.query(token)
        assert (asked.finished, asked.persisted_size, asked.crc64nvme) == (True, SIZE // 2, answer.crc64nvme)


def message(data, start, end, **more):
    piece = data[start:end]
    return codec.WriteRequest(offset=start, data=piece, crc32c=checksum.compute(piece, 0, "crc32c"), **more)


async def begun(held, token, data):
    """A stream of which some bytes have come, and that is still open."""
    call = held.channel.stream_stream(codec.WRITE, codec.encode_write, data_pb2.WriteResponse.FromString)
    writing = call(metadata=((GRANT_KEY, token),))
    await writing.write(message(data, 0, SOME, write_id="t1-1-1"))
    await writing.write(message(data, SOME, 2 * SOME))
    async with asyncio.timeout(10):
        while not any(half.at == 2 * SOME for half in held.world.halves._held.values()):
            await asyncio.sleep(0.01)
    return writing


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "not noticed to be"])
async def test_a_step_goes_on_at_the_byte_that_the_server_holds(held, broken):
    token, step = await held.grant(), held.data[: SIZE // 2]
    writing = await begun(held, token, step)
    if broken:
        writing.cancel()
    assert (await held.query(token)).persisted_size == 2 * SOME
    if not broken:
        with pytest.raises(grpc.RpcError, match="another stream goes on with it"):
            await writing.read()
    (answer,) = await held.write(token, data=step[2 * SOME :], offset=2 * SOME)
    assert (answer.finished, answer.persisted_size) == (True, SIZE // 2)
    assert answer.crc64nvme == checksum.to_hex(checksum.compute(step))
    assert held.world.halves._held == {}  # nor is memory held any more


async def test_who_begins_a_step_and_says_no_more_gives_its_place_to_others(held, monkeypatch):
    token, data = await held.grant(), held.world.granted._data
    monkeypatch.setattr(halves, "SILENT", 0.5)
    for message_first in (True, False):
        call = held.channel.stream_stream(codec.WRITE, codec.encode_write, data_pb2.WriteResponse.FromString)
        writing = call(metadata=((GRANT_KEY, token),))
        if message_first:
            await writing.write(message(held.data, 0, SOME, write_id="t1-1-1"))
        with pytest.raises(grpc.RpcError, match="nothing came for"):
            await writing.read()
        assert data._free == STREAMS
    assert (await held.query(token)).persisted_size == SOME  # it may go on


async def test_what_is_held_of_a_step_is_nobodys_elses_and_is_dropped_for_who_wants_the_memory(held):
    token, step = await held.grant(), held.data[: SIZE // 2]
    (await begun(held, token, step)).cancel()
    assert (await held.query(token)).persisted_size == 2 * SOME
    assert (await held.query(await held.grant(2), "t1-2-1")).persisted_size == 0
    assert isinstance(await refused(held.write(token, data=step[9:], offset=9)), OutOfRange)
    buffers = held.world.jobs.buffers
    async with buffers.take(buffers._limit):
        assert (await held.query(token)).persisted_size == 0
    assert isinstance(await refused(held.write(token, data=step[2 * SOME :], offset=2 * SOME)), OutOfRange)
    assert (await held.write(token))[-1].finished


async def test_a_grant_is_for_no_other_step_or_bytes_and_needs_a_name(held):
    token = await held.grant()
    for name in ("t1-2-1", "t1-1-0", "t1-1-2", "t2-1-1", "t1-1-999999999"):
        await denied(held.query(token, name), "range")
    for name in ("", "t1", "t1-1", "t1-1-1-1", "../t1-1-1", "t1-1-x", "t1--1-1"):
        assert isinstance(await refused(held.query(token, name)), InvalidSpec)
    await denied(held.write(token, "t1-2-1"), "range")
    await denied(held.write(await held.grant(end=SIZE // 2 - 1)), "range")
    await denied(held.write(await held.grant(start=1)), "range")


async def test_a_grant_that_fits_nothing_in_the_store_does_not_count(held):
    for changed in ({"size": 7}, {"upload": fingerprint("another")}, {"transfer": "t9"}):
        await denied(held.query(await held.grant(**changed)), "over")


async def test_a_grant_of_another_time_direction_or_signer_does_not_count(held):
    await denied(held.write(await held.grant(expires=time.time() - 1)), "expired")
    await denied(held.write(await held.grant(direction="read")), "direction")
    await denied(held.read(await held.grant()), "direction")
    held.world.keys = Keys(["of somebody else"], time.time)
    await denied(held.write(await held.grant()), "invalid")
    await denied(held.write("x.y.z"), "invalid")


async def test_without_a_grant_nothing_is_answered_from_outside(held):
    assert isinstance(await refused(held.write("")), Unsupported)
    assert isinstance(await refused(held.read("")), Unsupported)


async def test_requests_to_a_store_are_signed_for_what_the_grant_is_for_where_nodes_reach_it(held):
    async def sign(token, **asked):
        metadata = ((GRANT_KEY, token),) if token else ()
        return await held.stub.Sign(data_pb2.SignRequest(**asked), metadata=metadata)

    token, reads, step = await held.grant(), await held.grant(direction="read"), {"crc64nvme": "0" * 16}
    await denied(sign(token, write_id="t1-2-1", **step), "range")
    await denied(sign(reads, write_id="t1-1-1", **step), "direction")
    await denied(sign(reads, read=data_pb2.ReadRequest(plane="source", key="y", length=1)), "range")
    assert isinstance(await refused(sign("", write_id="t1-1-1", **step)), Unsupported)
    assert isinstance(await refused(sign(token, write_id="t1-1-1", crc64nvme="-1")), InvalidSpec)
    wanted = data_pb2.ReadRequest(plane="source", key="x", version=await held.version(), length=10)
    for asked in (sign(token, write_id="t1-1-1", **step), sign(reads, read=wanted)):
        error = await refused(asked)
        assert isinstance(error, Unsupported)
        assert "direct: true" in error.message


@pytest.mark.parametrize("end", ["committed", "cancelled", "failed", "ended", "forgotten"])
async def test_a_grant_counts_until_the_part_is_committed_or_the_transfer_ends(held, end):
    token, reads = await held.grant(), await held.grant(direction="read")
    assert await held.read(reads) == held.data[:10]
    ends = {
        "committed": lambda c: manifest_rows.parts_done(c, "t1", [Done(1, None, None, compared=False)]),
        "cancelled": lambda c: ledger.update(c, "t1", 0.0, wish="cancel"),
        "failed": lambda c: ledger.update(c, "t1", 0.0, error={"reason": "BUG", "message": "", "facts": {}}),
        "ended": lambda c: ledger.end(c, "t1", 0.0, "FAILED", clean=False),
        "forgotten": lambda c: (ledger.end(c, "t1", 1.0, "FAILED"), ledger.forget_before(c, 2.0)),
    }
    await held.world.store.write(ends[end])
    await denied(held.write(token), "over")
    await denied(held.query(token), "over")
    await denied(held.read(reads), "over")


async def test_a_part_that_is_committed_while_its_step_travels_is_not_touched(held):
    token = await held.grant()
    call = held.channel.stream_stream(codec.WRITE, codec.encode_write, data_pb2.WriteResponse.FromString)
    writing = call(metadata=((GRANT_KEY, token),))
    data = held.data[: SIZE // 2]

    await writing.write(message(data, 0, 5, write_id="t1-1-1"))
    done = [Done(1, None, None, compared=False)]
    await held.world.store.write(lambda c: manifest_rows.parts_done(c, "t1", done))
    await writing.write(message(data, 5, len(data), finish=True))

    await denied(writing.read(), "over")


async def test_bytes_that_are_too_many_too_few_out_of_place_or_wrong_store_nothing(held):
    token, half = await held.grant(), held.data[: SIZE // 2]
    assert isinstance(await refused(held.write(token, data=half + b"x")), OutOfRange)
    assert isinstance(await refused(held.write(token, data=half[:-1])), OutOfRange)
    assert isinstance(await refused(held.write(token, data=half[:-1], finish=False)), OutOfRange)
    assert isinstance(await refused(held.write(token, offset=5)), OutOfRange)
    assert isinstance(await refused(held.write(token, crc32c=1)), Corrupt)
    assert isinstance(await refused(held.write(token, crc64nvme="0" * 16)), Corrupt)
    assert not (await held.query(token)).finished
    assert (await held.write(token))[-1].finished


async def test_nothing_is_read_but_what_the_part_is_made_of(held):
    token = await held.grant(direction="read")
    for asked in (
        {"offset": SIZE // 2 - 5},
        {"offset": SIZE // 2},
        {"offset": -1},
        {"length": 0},
        {"length": SIZE},
        {"key": "y"},
        {"plane": "data"},
        {"version": ""},
        {"version": "another"},
        {"file": "a::x", "plane": "", "key": ""},
    ):
        await denied(held.read(token, **asked), "range")


async def test_what_a_part_is_made_of_is_read_to_its_last_byte(held):
    token = await held.grant(2, "read")
    assert await held.read(token, offset=SIZE - 5, length=5) == held.data[-5:]
    assert await held.read(token, offset=SIZE // 2, length=5) == held.data[SIZE // 2 :][:5]


async def test_the_audit_says_what_a_grant_was_used_for_once(held):
    token, context = await held.grant(), SimpleNamespace(peer=lambda: "ipv4:10.0.0.9:5")
    with capture_logs() as lines:
        async with Audits("external", lambda: "").around(Call("/fileserver.v1.DataService/Write", True, context)):
            for _ in range(2):
                await held.world.granted._open(token, "write")
    assert [line["named"] for line in lines] == [["write part 1 of transfer t1"]]


class Unread:
    """The context of a call whose caller does not read what it asked for."""

    def __init__(self, *metadata):
        self._metadata = metadata
        self.full, self.reads = asyncio.Event(), asyncio.Event()

    def invocation_metadata(self):
        return self._metadata

    async def write(self, _response):
        self.full.set()
        await self.reads.wait()


async def test_who_does_not_read_gives_its_place_to_others_and_only_at_home_it_is_waited_for(held, monkeypatch):
    monkeypatch.setattr(granted, "UNREAD", 0.01)
    outside, data = held.world.granted, held.world.granted._data
    asked = {"plane": "source", "key": "x", "version": await held.version(), "length": 10}
    context = Unread((GRANT_KEY, await held.grant(direction="read")))
    with pytest.raises(ServerUnavailable, match="nothing of this answer was read"):
        await outside.read(data_pb2.ReadRequest(**asked), context)
    assert data._free == STREAMS
    inside = GrantedData(held.world.keys, held.world.store, held.world.planes, held.world.halves, data, inside=True)
    context = Unread()
    reading = asyncio.create_task(inside.read(data_pb2.ReadRequest(**asked), context))
    await context.full.wait()
    assert data._free == STREAMS - 1
    assert (await asyncio.wait({reading}, timeout=0.1))[1] == {reading}
    context.reads.set()
    await reading
    assert data._free == STREAMS
