"""DataService.Write: whole or not at all, acknowledged as it is stored, resumable by its id."""

import asyncio
import os
import time

import grpc
import pytest
from grpc import StatusCode

from fileserver import codec
from fileserver.catalogue.writes import Write, Writes
from fileserver.errors import InvalidSpec, ServerBusy
from fileserver.services import writing
from fileserver.services.data import ABANDONED
from fileserver.v1 import data_pb2
from planes import checksum
from planes.errors import AlreadyExists, Corrupt, Full, NotFound, OutOfRange, Unavailable
from planes.plane import MIB
from planes.posix import PosixPlane
from planes.wrapped import WrappedPlane, WrappedUpload
from tests.fileserver.serving import BYTES, Serving, content, message, messages, put


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
    assert await serving.servicer.sweep(time.time() + ABANDONED + 60) == 2
    asked = await serving.stub.QueryWrite(data_pb2.QueryWriteRequest(write_id="half"))
    assert asked.persisted_size == 0
    assert [i.key async for i in plane.list()] == ["b"]
    if isinstance(plane, PosixPlane):
        assert [p.name for p in (tmp_path / "plane").rglob("*")] == ["b"]


async def test_writes_to_a_plane_that_is_gone_do_not_keep_others_from_being_swept(serving, store):
    writes = Writes(store)
    for number in range(100):
        await writes.put(Write(f"a{number}", "gone", "x", overwrite=False))
    await serving.write(messages("z", "b", b"abc"))
    await serving.servicer.sweep(time.time() + ABANDONED + 60)
    assert await writes.get("z") is None
    assert await writes.get("a7") is not None  # its plane may be there again


async def test_the_size_of_a_call_too_large_for_grpc_is_told_as_no_error_of_ours(serving):
    with pytest.raises(grpc.RpcError) as caught:
        await serving.write([message(0, b"x" * (5 * MIB), write_id="w", plane="data", key="a")])
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
