"""DataService.Read: any range of objects and logical files, pinned, checked, bounded."""

import asyncio
import os
from dataclasses import replace

import grpc
import hypothesis.strategies as st
import pytest
from hypothesis import given

from fileserver import codec
from fileserver.errors import FileNotFound, InvalidSpec, PlaneNotFound, ServerBusy
from fileserver.services import reading
from fileserver.v1 import data_pb2
from planes import checksum
from planes.errors import Changed, NotFound, OutOfRange
from planes.plane import MIB, Info
from planes.wrapped import WrappedPlane
from tests.fileserver.serving import BYTES, Files, Planes, Serving, parts_of, put


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


@pytest.mark.parametrize("known", [True, False])
async def test_a_part_with_a_new_version_is_read_if_its_checksum_is_known(serving, plane, files, known):
    checksums = {"crc64nvme": checksum.compute(b"x" * 10)} if known else {}
    files.enter("a::b", [replace(p, version="older", checksums=checksums) for p in parts_of([10])])
    await put(plane, "p1", b"x" * 10)
    if known:
        assert await serving.read(file="a::b") == b"x" * 10
        return
    error = await serving.refused(serving.read(file="a::b"))
    assert type(error) is Changed
    assert "part 1" in str(error)
    assert "files verify" in str(error)


@pytest.mark.parametrize("left", range(5))
async def test_a_file_that_is_replaced_while_it_is_read_never_ends_early(serving, plane, files, left):
    files.enter("a::b", parts_of([10] * 5))
    for number in range(1, 6):
        await put(plane, f"p{number}", b"x" * 10)
    file, parts = files.files["a::b"]
    files.files["a::b"] = (file, parts[:left])
    error = await serving.refused(serving.read(file="a::b"))
    assert type(error) is Changed
    assert "was replaced while it was read; try again" in str(error)


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
def test_runs_cover_exactly_the_bytes_asked_for(sizes, offset, length):
    files = Files()
    files.enter("f", parts_of(sizes))

    class Pinned:
        name = "data"

        async def stat(self, key):
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
