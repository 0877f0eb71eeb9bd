"""Every request and every byte is counted once, where it belongs."""

from __future__ import annotations

import pytest

from planes.errors import NotFound, Unavailable
from planes.faulty import Fault, FaultyPlane, Raise
from planes.memory import MemoryPlane
from planes.metered import MeteredPlane, Snapshot
from planes.plane import Extent
from planes.posix import PosixPlane, PosixSettings


async def test_a_new_plane_has_counted_nothing():
    assert MeteredPlane(MemoryPlane("m")).snapshot() == Snapshot({}, {}, 0, 0, 0, 0)


async def test_requests_and_bytes_are_counted_by_what_they_are(tmp_path):
    plane = MeteredPlane(PosixPlane("p", PosixSettings(path=tmp_path, durability="os")))
    await plane.put("f", b"x" * 100, upload_id="u1")
    info = await plane.stat("f")
    await plane.read(Extent("f", info.version, 10, 30), memoryview(bytearray(20)))
    ticket = plane.copy_ticket(info)
    await plane.copy("g", ticket, upload_id="u2")
    upload = await plane.upload("h", upload_id="u3")
    steps = [await upload.put(1, 0, b"12345"), await plane.resume(upload.token).copy(2, 5, ticket, 0, 40)]
    await upload.commit(steps, 45, None)
    await (await plane.upload("i", upload_id="u4")).abort()
    await plane.delete("f")
    await plane.discard("i", "u4")
    assert [i.key async for i in plane.list()] == ["g", "h"]
    found = plane.snapshot()
    assert found.requests == {
        "put": 1,
        "stat": 1,
        "read": 1,
        "copy": 1,
        "upload": 2,
        "upload.put": 1,
        "upload.copy": 1,
        "upload.commit": 1,
        "upload.abort": 1,
        "delete": 1,
        "discard": 1,
        "list": 1,
    }
    assert (found.bytes_read, found.bytes_written, found.bytes_copied) == (20, 105, 140)
    assert found.bytes_checked == 140, "without durability the kernel's word is taken: the target alone is read"
    assert found.errors == {}
    await plane.aclose()


async def test_errors_are_counted_by_their_reason_and_their_bytes_nowhere():
    inner = FaultyPlane(MemoryPlane("m"), [Fault("put", 1, Raise(Unavailable("reset")))])
    plane = MeteredPlane(inner)
    with pytest.raises(Unavailable):
        await plane.put("f", b"x", upload_id="u")
    with pytest.raises(NotFound):
        await plane.stat("f")
    found = plane.snapshot()
    assert found.errors == {"PLANE_UNAVAILABLE": 1, "OBJECT_NOT_FOUND": 1}
    assert found.requests == {"put": 1, "stat": 1}
    assert found.bytes_written == 0


async def test_a_snapshot_stays_as_it_was():
    plane = MeteredPlane(MemoryPlane("m"))
    before = plane.snapshot()
    await plane.put("f", b"x", upload_id="u")
    assert before.requests == {}
