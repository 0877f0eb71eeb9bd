"""The check of a configured plane finds what is broken, says it in words, and cleans up after itself."""

from __future__ import annotations

import pytest

from planes.check import CheckResult, check
from planes.errors import Refused, Unavailable, Unsupported
from planes.faulty import Fault, FaultyPlane, Flip, Raise
from planes.memory import MemoryPlane
from planes.posix import PosixPlane, PosixSettings


async def results(plane) -> dict[str, CheckResult]:
    return {r.check: r async for r in check(plane)}


async def test_a_plane_that_works_passes_and_is_left_as_it_was(tmp_path):
    for plane in (MemoryPlane("m"), PosixPlane("p", PosixSettings(path=tmp_path, durability="os"))):
        found = await results(plane)
        assert len(found) == 9
        assert all(r.ok for r in found.values()), found
        assert [i.key async for i in plane.list()] == []
        await plane.aclose()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        (Fault("read", 1, Flip(5)), "read it back"),
        (Fault("list", 1, Raise(Unavailable("no answer"))), "list it"),
        (Fault("upload.commit", 1, Raise(Unavailable("no answer"))), "write in steps"),
        (Fault("copy", 1, Raise(Unavailable("no answer"))), "copy inside the plane"),
    ],
)
async def test_what_is_broken_is_found_and_the_rest_is_still_tried(fault, broken):
    plane = FaultyPlane(MemoryPlane("m"), [fault])
    found = await results(plane)
    assert [name for name, r in found.items() if not r.ok] == [broken]
    assert found[broken].detail
    assert len(found) == 9
    assert [i.key async for i in plane.list()] == []


async def test_after_a_failed_write_nothing_more_is_tried():
    plane = FaultyPlane(MemoryPlane("m"), [Fault("put", 1, Raise(Refused("read-only key")))])
    failed = CheckResult("write an object", ok=False, detail="read-only key", reason="PLANE_REFUSED")
    assert await results(plane) == {"write an object": failed}


async def test_a_store_that_does_not_copy_is_no_failure_but_worth_knowing():
    plane = FaultyPlane(MemoryPlane("m"), [Fault("copy", 1, Raise(Unsupported("no such thing")))])
    found = (await results(plane))["copy inside the plane"]
    assert found.ok
    assert "no such thing" in found.detail


async def test_a_store_that_overwrites_is_found_out():
    class Careless(MemoryPlane):
        async def put(self, key, data, **options):
            return await super().put(key, data, **{**options, "replace": True})

    found = await results(Careless("m"))
    assert [name for name, r in found.items() if not r.ok] == ["refuse to overwrite it"]


async def test_a_store_that_ignores_pins_is_found_out():
    class Careless(MemoryPlane):
        async def read(self, extent, into):
            into[:] = self._store.cut(extent.key, "", extent.start, extent.end)

    found = await results(Careless("m"))
    assert [name for name, r in found.items() if not r.ok] == ["notice a replaced object"]
