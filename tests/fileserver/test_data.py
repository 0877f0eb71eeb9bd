"""DataService: bytes in and out of planes and logical files, checked, bounded, resumable."""

import asyncio
import os

import grpc
import hypothesis.strategies as st
import pytest
from grpc import StatusCode, aio
from hypothesis import HealthCheck, given, settings

from fileserver import codec
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.catalogue.store import Store
from fileserver.catalogue.writes import Writes, metadata
from fileserver.errors import FileNotFound, InvalidSpec, PlaneNotFound, ServerBusy
from fileserver.services import reading, writing
from fileserver.services.data import ABANDONED, DataServicer
from fileserver.status import ErrorInterceptor, from_call
from fileserver.v1 import data_pb2, data_pb2_grpc
from planes import checksum
from planes.errors import AlreadyExists, Changed, Corrupt, Full, NotFound, OutOfRange, Unavailable
from planes.memory import MemoryPlane, MemorySettings
from planes.plane import MIB, Extent
from planes.posix import PosixPlane, PosixSettings
from planes.wrapped import WrappedPlane, WrappedUpload

BYTES = os.urandom(5 * MIB + 12345)


class Planes:
    def __init__(self, **planes):
        self.planes = planes

    def plane(self, name):
        if name not in self.planes:
            raise PlaneNotFound(f"no plane is called {name}", plane=name)
        return self.planes[name]


class Files:
    """A catalogue of one page of two parts at a time."""

    def __init__(self):
        self.files = {}

    def enter(self, name, parts):
        size = sum(p.size for p in parts)
        file = LogicalFile(name, f"g-{name}", size, None, "pinned", None, len(parts), "t", 0.0)
        self.files[name] = (file, parts)

    async def get(self, name):
        if name not in self.files:
            raise FileNotFound(f"no file {name}", file=name)
        return self.files[name][0]

    async def parts(self, generation, after=0):
        _, parts = next(f for f in self.files.values() if f[0].generation == generation)
        return [p for p in parts if p.number > after][:2]


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path)
    metadata.create_all(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def files():
    return Files()


@pytest.fixture(params=["memory", "posix"])
async def plane(request, tmp_path):
    if request.param == "memory":
        opened = MemoryPlane("data", MemorySettings())
    else:
        (tmp_path / "plane").mkdir()
        opened = PosixPlane("data", PosixSettings(path=tmp_path / "plane", durability="os"))
    yield opened
    await opened.aclose()


class Serving:
    """A DataService behind a real connection."""

    def __init__(self, plane, files, store, streams=4):
        self.planes = Planes(data=plane)
        self.servicer = DataServicer(self.planes, files, Writes(store), streams)
        self.server = aio.server(interceptors=[ErrorInterceptor()])
        self.servicer.add_to(self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def __aenter__(self):
        await self.server.start()
        self.channel = aio.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = data_pb2_grpc.DataServiceStub(self.channel)
        return self

    async def __aexit__(self, *_):
        await self.channel.close()
        await self.server.stop(0)

    async def read(self, **request):
        """All bytes of a Read, each message checked; through the generated classes, as a foreign client does."""
        taken, position = bytearray(), request.get("offset", 0)
        async for message in self.stub.Read(data_pb2.ReadRequest(**request)):
            assert message.offset == position + len(taken)
            assert 0 < len(message.data) <= MIB
            assert checksum.compute(message.data, 0, "crc32c") == message.crc32c
            taken += message.data
        return bytes(taken)

    async def refused(self, call):
        with pytest.raises(grpc.RpcError) as caught:
            await call
        return from_call(caught.value)

    async def write(self, messages, *, generated=False):
        """All answers to a Write, sent from a thread as bulk streams are."""

        def sent():
            with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
                call = data_pb2_grpc.DataServiceStub(channel).Write if generated else codec.write_call(channel)
                return list(call(iter(messages)))

        return await asyncio.to_thread(sent)

    def talk(self):
        """A Write whose messages are sent and answers read one by one."""
        return self.channel.stream_stream(codec.WRITE, codec.encode_write, data_pb2.WriteResponse.FromString)()


@pytest.fixture
async def serving(plane, files, store):
    async with Serving(plane, files, store) as opened:
        yield opened


async def put(plane, key, data, replace=False):
    async with await plane.upload(key, upload_id="u", replace=replace) as upload:
        steps = []
        size = plane.limits.put_size
        for number, start in enumerate(range(0, max(1, len(data)), size), 1):
            steps.append(await upload.put(number, start, data[start : start + size]))
        return await upload.commit(steps, len(data), None)


async def content(plane, key):
    info = await plane.stat(key)
    buffer = bytearray(info.size)
    await plane.read(Extent(key, info.version, 0, info.size), memoryview(buffer))
    return bytes(buffer)


def message(offset, data, **more):
    return codec.WriteRequest(offset=offset, data=data, crc32c=checksum.compute(data, 0, "crc32c"), **more)


def messages(write_id, key, data, *, start=0, size=MIB, finish=True, **more):
    """The messages of one write from byte `start` on."""
    first = {"write_id": write_id, "plane": "data", "key": key} | {k: v for k, v in more.items() if k == "overwrite"}
    last = {k: v for k, v in more.items() if k == "crc64nvme"}
    for offset in range(start, len(data), size):
        yield message(offset, data[offset : offset + size], **first)
        first = {}
    if finish:
        yield codec.WriteRequest(offset=len(data), finish=True, **first, **last)


# --- Read -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 0), (1, 0), (0, 1), (MIB - 1, 2), (3 * MIB, MIB), (len(BYTES) - 1, 0), (len(BYTES), 0), (100, 1 << 40)],
)
async def test_reads_any_range_of_an_object(serving, plane, offset, length, monkeypatch):
    monkeypatch.setattr(reading, "SLICE", 2 * MIB + 3)
    await put(plane, "in/a.bin", BYTES)
    end = offset + length if length else len(BYTES)
    assert await serving.read(plane="data", key="in/a.bin", offset=offset, length=length) == BYTES[offset:end]


async def test_an_empty_object_is_an_empty_stream(serving, plane):
    await put(plane, "empty", b"")
    assert await serving.read(plane="data", key="empty") == b""


async def test_the_codec_reads_the_same_as_the_generated_class(serving, plane):
    await put(plane, "a", BYTES)

    def taken():
        with grpc.insecure_channel(f"127.0.0.1:{serving.port}") as channel:
            return b"".join(m.data for m in codec.read_call(channel)(data_pb2.ReadRequest(plane="data", key="a")))

    assert await asyncio.to_thread(taken) == BYTES


def parts_of(sizes):
    return [FilePart(n, "data", f"p{n}", size, "", {}, owned=True) for n, size in enumerate(sizes, 1)]


async def test_reads_a_logical_file_across_its_parts(serving, plane, files):
    sizes = [10, 0, 20, 0, 0, 5, 40]
    files.enter("a::b", parts_of(sizes))
    whole = os.urandom(sum(sizes))
    position = 0
    for number, size in enumerate(sizes, 1):
        await put(plane, f"p{number}", whole[position : position + size])
        position += size
    for offset in range(0, len(whole) + 1, 5):
        for length in (0, 1, 10, 37, 100):
            expected = whole[offset : offset + length if length else None]
            assert await serving.read(file="a::b", offset=offset, length=length) == expected


async def test_a_part_that_changed_size_is_no_part_of_the_file(serving, plane, files):
    files.enter("a::b", parts_of([10, 20]))
    await put(plane, "p1", b"x" * 10)
    await put(plane, "p2", b"x" * 21)
    error = await serving.refused(serving.read(file="a::b"))
    assert type(error) is Changed
    assert error.facts["part"] == "2"


async def test_a_read_is_pinned_to_the_version_asked_for(serving, plane):
    old = await put(plane, "a", b"old bytes")
    assert await serving.read(plane="data", key="a", version=old.version) == b"old bytes"
    await plane.put("a", b"new bytes", upload_id="again", replace=True)
    assert type(await serving.refused(serving.read(plane="data", key="a", version=old.version))) is Changed


async def test_an_object_that_changes_while_it_is_read_never_gives_a_mix(plane, files, store, monkeypatch):
    monkeypatch.setattr(reading, "SLICE", MIB)

    class Changing(WrappedPlane):
        """Replaces the object before its third slice is read."""

        async def read(self, extent, into):
            if extent.start == 2 * MIB:
                await self.inner.put("a", b"other", upload_id="x", replace=True)
            await self.inner.read(extent, into)

    await put(plane, "a", BYTES)
    async with Serving(Changing(plane), files, store) as serving:
        assert type(await serving.refused(serving.read(plane="data", key="a"))) is Changed


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"plane": "data", "key": "none"}, NotFound),
        ({"plane": "nope", "key": "a"}, PlaneNotFound),
        ({"file": "no::such"}, FileNotFound),
        ({"plane": "data", "key": "a", "offset": 4}, OutOfRange),
        ({"plane": "data", "key": "a", "offset": -1, "length": -1}, InvalidSpec),
        ({"plane": "data"}, InvalidSpec),
        ({"plane": "data", "key": "a", "file": "a"}, InvalidSpec),
        ({}, InvalidSpec),
    ],
)
async def test_reads_that_cannot_be(serving, plane, request_, kind):
    await put(plane, "a", b"abc")
    error = await serving.refused(serving.read(**request_))
    assert type(error) is kind
    if request_.get("offset") == -1:
        assert set(error.violations) == {"offset", "length"}


async def test_a_full_server_says_when_to_come_back_and_counts_right(plane, files, store):
    gate = asyncio.Event()

    class Gated(WrappedPlane):
        async def read(self, extent, into):
            await gate.wait()
            await self.inner.read(extent, into)

    await put(plane, "a", BYTES)
    async with Serving(Gated(plane), files, store, streams=1) as serving:
        held = serving.stub.Read(data_pb2.ReadRequest(plane="data", key="a"))
        while serving.servicer._free:
            await asyncio.sleep(0)
        error = await serving.refused(serving.read(plane="data", key="a"))
        assert type(error) is ServerBusy
        assert error.retry_after == 1.0
        held.cancel()
        gate.set()
        while serving.servicer._free == 0:
            await asyncio.sleep(0)
        assert await serving.read(plane="data", key="a") == BYTES


@given(sizes=st.lists(st.integers(0, 20), max_size=8), offset=st.integers(0, 170), length=st.integers(0, 170))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_runs_cover_exactly_the_bytes_asked_for(sizes, offset, length):
    files = Files()
    files.enter("f", parts_of(sizes))

    class Pinned:
        name = "data"

        async def stat(self, key):
            from planes.plane import Info

            return Info(key, sizes[int(key[1:]) - 1], "v", None)

    async def covered():
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        found = []
        async for run in reading.file_runs(files, Planes(data=Pinned()), "f", offset, length):
            start = starts[int(run.extent.key[1:]) - 1]
            assert run.extent.size > 0
            found += range(start + run.extent.start, start + run.extent.end)
        return found

    total = sum(sizes)
    if offset > total:
        with pytest.raises(OutOfRange):
            asyncio.run(covered())
    else:
        assert asyncio.run(covered()) == list(range(total))[offset : offset + length if length else None]


# --- Write ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, MIB, len(BYTES)])
@pytest.mark.parametrize("piece", [MIB, 777_777])
async def test_what_is_written_is_there_whole_and_proved(serving, plane, size, piece):
    data = BYTES[:size]
    got = await serving.write(messages("w1", "out/a", data, size=piece))
    assert await content(plane, "out/a") == data
    assert got[-1].finished
    assert got[-1].persisted_size == size
    assert got[-1].crc64nvme == checksum.to_hex(checksum.compute(data))
    persisted = [a.persisted_size for a in got]
    assert persisted == sorted(persisted)
    asked = await serving.stub.QueryWrite(data_pb2.QueryWriteRequest(write_id="w1"))
    assert (asked.persisted_size, asked.finished) == (size, True)


async def test_generated_classes_write_too(serving, plane):
    def requests():
        for m in messages("w1", "a", BYTES, size=MIB):
            yield data_pb2.WriteRequest.FromString(codec.encode_write(m))

    assert (await serving.write(requests(), generated=True))[-1].finished
    assert await content(plane, "a") == BYTES


async def test_nothing_is_visible_before_finish_and_what_is_stored_is_acknowledged_meanwhile(serving, plane):
    size = writing.step_size(plane.limits, 1)
    data = os.urandom(size)
    call = serving.talk()
    await call.write(message(0, data[:MIB], write_id="w", plane="data", key="a"))
    for offset in range(MIB, size, MIB):
        await call.write(message(offset, data[offset : offset + MIB]))
    assert (await call.read()).persisted_size == size  # although not one message more is sent
    with pytest.raises(NotFound):
        await plane.stat("a")
    await call.write(codec.WriteRequest(offset=size, finish=True))
    assert (await call.read()).finished
    assert await content(plane, "a") == data


async def test_a_broken_write_goes_on_from_what_is_stored(serving, plane):
    size = writing.step_size(plane.limits, 1)
    data = os.urandom(2 * size + MIB + 5)
    assert (await serving.write(messages("w", "a", data[: size + 5], finish=False)))[-1].persisted_size == size
    asked = await serving.stub.QueryWrite(data_pb2.QueryWriteRequest(write_id="w"))
    assert (asked.persisted_size, asked.finished) == (size, False)
    got = await serving.write(messages("w", "a", data, start=size))
    assert got[-1].finished
    assert got[-1].crc64nvme == checksum.to_hex(checksum.compute(data))
    assert await content(plane, "a") == data


async def test_a_cancelled_write_goes_on_too(serving, plane):
    size = writing.step_size(plane.limits, 1)
    data = os.urandom(2 * size)
    call = serving.talk()
    await call.write(message(0, data[:MIB], write_id="w", plane="data", key="a"))
    for offset in range(MIB, size, MIB):
        await call.write(message(offset, data[offset : offset + MIB]))
    await call.read()
    call.cancel()
    while serving.servicer._writing:
        await asyncio.sleep(0)
    assert (await serving.write(messages("w", "a", data, start=size)))[-1].finished
    assert await content(plane, "a") == data


async def test_another_server_goes_on_where_the_first_was_killed(plane, files, store):
    size = writing.step_size(plane.limits, 1)
    data = os.urandom(2 * size)
    async with Serving(plane, files, store) as first:
        await first.write(messages("w", "a", data[:size], finish=False))
    async with Serving(plane, files, store) as second:
        assert (await second.write(messages("w", "a", data, start=size)))[-1].finished
    assert await content(plane, "a") == data


async def test_an_upload_that_was_opened_and_never_recorded_is_removed(plane, files, store, tmp_path):
    size = writing.step_size(plane.limits, 1)
    data = os.urandom(size + 1)
    writes = Writes(store)
    lost = await plane.upload("a", upload_id="w-w")
    await lost.put(1, 0, b"x" * 10)
    from fileserver.catalogue.writes import Write

    await writes.put(Write("w", "data", "a", overwrite=False))
    async with Serving(plane, files, store) as serving:
        assert (await serving.write(messages("w", "a", data)))[-1].finished
    assert await content(plane, "a") == data


async def test_finishing_twice_answers_twice(serving, plane):
    await serving.write(messages("w", "a", BYTES))
    got = await serving.write(messages("w", "a", BYTES, start=len(BYTES)))
    assert (got[-1].finished, got[-1].persisted_size) == (True, len(BYTES))


@pytest.mark.parametrize("offset", [0, MIB - 1, MIB + 1, 2 * MIB])
async def test_an_offset_that_does_not_follow_is_refused_and_heals(serving, plane, offset):
    wrong = [
        message(0, BYTES[:MIB], write_id="w", plane="data", key="a"),
        message(offset, BYTES[:10]),
    ]
    error = await serving.refused(serving.write(wrong))
    assert type(error) is OutOfRange
    assert error.facts["offset"] == str(MIB)
    stored = (await serving.stub.QueryWrite(data_pb2.QueryWriteRequest(write_id="w"))).persisted_size
    await serving.write(messages("w", "a", BYTES, start=stored))
    assert await content(plane, "a") == BYTES


async def test_bytes_that_were_garbled_on_the_way_are_refused(serving, plane):
    garbled = codec.WriteRequest("w", "data", "a", data=b"abc", crc32c=1)
    error = await serving.refused(serving.write([garbled]))
    assert type(error) is Corrupt
    with pytest.raises(NotFound):
        await plane.stat("a")


@pytest.mark.parametrize("size", [10, 3 * MIB])
async def test_a_whole_that_the_caller_knows_otherwise_never_appears(serving, plane, size):
    wrong = checksum.to_hex(checksum.compute(b"something else"))
    error = await serving.refused(serving.write(messages("w", "a", BYTES[:size], crc64nvme=wrong)))
    assert type(error) is Corrupt
    with pytest.raises(NotFound):
        await plane.stat("a")
    asked = await serving.stub.QueryWrite(data_pb2.QueryWriteRequest(write_id="w"))
    assert asked.persisted_size == 0
    right = checksum.to_hex(checksum.compute(BYTES[:size]))
    assert (await serving.write(messages("w", "a", BYTES[:size], crc64nvme=right)))[-1].finished


@pytest.mark.parametrize("size", [10, 9 * MIB])
async def test_an_object_that_exists_is_replaced_only_if_asked(serving, plane, size):
    data = os.urandom(size)
    await put(plane, "a", b"old")
    error = await serving.refused(serving.write(messages("w1", "a", data)))
    assert type(error) is AlreadyExists
    assert await content(plane, "a") == b"old"
    await serving.write(messages("w2", "a", data, overwrite=True))
    assert await content(plane, "a") == data


async def test_a_failed_write_leaves_nothing_on_the_plane(serving, plane, tmp_path):
    await put(plane, "a", b"old")
    await serving.refused(serving.write(messages("w1", "a", os.urandom(9 * MIB))))
    if isinstance(plane, PosixPlane):
        assert [p.name for p in (tmp_path / "plane").rglob("*")] == ["a"]
    assert [i.key async for i in plane.list()] == ["a"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"write_id": "", "plane": "data", "key": "a"}, {"write_id"}),
        ({"write_id": "a b", "plane": "", "key": ""}, {"write_id", "plane", "key"}),
    ],
)
async def test_a_first_message_must_name_the_write(serving, fields, wrong):
    error = await serving.refused(serving.write([codec.WriteRequest(**fields)]))
    assert set(error.violations) == wrong
    assert type(await serving.refused(serving.write([]))) is InvalidSpec


async def test_an_id_belongs_to_one_object(serving):
    await serving.write(messages("w", "a", b"abc"))
    assert type(await serving.refused(serving.write(messages("w", "b", b"abc")))) is InvalidSpec


async def test_two_streams_of_one_write_do_not_mix(serving):
    held = serving.talk()
    await held.write(message(0, b"abc", write_id="w", plane="data", key="a"))
    while not serving.servicer._writing:
        await asyncio.sleep(0)
    error = await serving.refused(serving.write(messages("w", "a", b"abc")))
    assert type(error) is ServerBusy
    await held.write(codec.WriteRequest(offset=3, finish=True))
    assert (await held.read()).finished


async def test_an_unknown_write_has_stored_nothing(serving):
    asked = await serving.stub.QueryWrite(data_pb2.QueryWriteRequest(write_id="never"))
    assert (asked.persisted_size, asked.finished) == (0, False)


class Failing(WrappedPlane):
    """Fails the second put of an upload, once, with a given error, after the first is recorded."""

    def __init__(self, inner, error, writes):
        super().__init__(inner)
        self.error, self.writes = error, writes

    def _wrap(self, upload):
        return FailingUpload(upload, self)


class FailingUpload(WrappedUpload):
    def __init__(self, inner, plane):
        super().__init__(inner)
        self.plane = plane

    async def put(self, number, offset, data, crc64nvme=None):
        error, self.plane.error = (self.plane.error, None) if number == 2 else (None, self.plane.error)
        if error:
            while not await self.plane.writes.steps("w"):
                await asyncio.sleep(0)
            raise error
        return await self.inner.put(number, offset, data, crc64nvme)


@pytest.mark.parametrize(("error", "kept"), [(Unavailable("away"), True), (Full("no space"), False)])
async def test_what_was_stored_stays_for_errors_that_pass_and_goes_for_others(plane, files, store, error, kept):
    size = writing.step_size(plane.limits, 1)
    data = os.urandom(3 * size + 1)
    async with Serving(Failing(plane, error, Writes(store)), files, store) as serving:
        raised = await serving.refused(serving.write(messages("w", "a", data)))
        assert type(raised) is type(error)
        stored = (await serving.stub.QueryWrite(data_pb2.QueryWriteRequest(write_id="w"))).persisted_size
        assert stored == (size if kept else 0)
        await serving.write(messages("w", "a", data, start=stored))
    assert await content(plane, "a") == data


async def test_abandoned_writes_are_swept_with_what_they_stored(serving, plane, tmp_path):
    size = writing.step_size(plane.limits, 1)
    await serving.write(messages("half", "a", os.urandom(size + 1), finish=False))
    await serving.write(messages("whole", "b", b"abc"))
    assert await serving.servicer.sweep() == 0
    import time

    assert await serving.servicer.sweep(time.time() + ABANDONED + 60) == 2
    asked = await serving.stub.QueryWrite(data_pb2.QueryWriteRequest(write_id="half"))
    assert asked.persisted_size == 0
    assert [i.key async for i in plane.list()] == ["b"]
    if isinstance(plane, PosixPlane):
        assert [p.name for p in (tmp_path / "plane").rglob("*")] == ["b"]


async def test_the_size_of_a_call_too_large_for_grpc_is_told_as_no_error_of_ours(serving):
    with pytest.raises(grpc.RpcError) as caught:
        await serving.write([message(0, b"x" * (5 * MIB), write_id="w", plane="data", key="a")])
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
