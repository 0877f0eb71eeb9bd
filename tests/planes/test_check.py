"""The check of a configured plane finds what is broken, says what it can do, and cleans up after itself."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from planes import facts
from planes.check import Checked, CheckResult, check
from planes.errors import Refused, Unavailable, Unsupported
from planes.facts import Fact
from planes.faulty import Fault, FaultyPlane, Flip, Raise
from planes.memory import MemoryPlane
from planes.plane import Capabilities
from planes.posix import PosixPlane, PosixSettings

TRIES = 13


async def results(plane) -> dict[str, CheckResult]:
    return {r.check: r for r in (await check(plane)).results}


def found(checked: Checked) -> dict[str, str]:
    return {f.fact: f.found for f in checked.facts}


def broken(checked: Checked) -> list[str]:
    return [r.check for r in checked.results if not r.ok]


@pytest.mark.parametrize(
    ("durability", "evidence"), [("fsync", "compared"), ("os", "pinned")], ids=["fsync", "left to the kernel"]
)
async def test_a_directory_passes_and_is_left_as_it_was(tmp_path, durability, evidence):
    (tmp_path / "mine").mkdir()
    plane = PosixPlane("p", PosixSettings(path=tmp_path, durability=durability))
    checked = await check(plane)
    assert not broken(checked)
    assert len(checked.results) == TRIES
    assert found(checked) == {
        facts.RANGES: "yes",
        facts.WHOLE: "yes",
        facts.CHECKSUMS: "none",
        facts.EVIDENCE: evidence,
        facts.CONDITIONS: "exact",
        facts.ORDER: "yes",
        facts.POURS: "yes",
        facts.METADATA: "no",
        facts.VERSIONS: "no",
        facts.NAMES: "yes",
    }
    lacking = {facts.CHECKSUMS, facts.METADATA} | ({facts.EVIDENCE} if evidence == "pinned" else set())
    assert {f.fact for f in checked.facts if f.costs} == lacking
    await plane.aclose()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


async def test_memory_lacks_nothing(tmp_path):
    plane = MemoryPlane("m")
    checked = await check(plane)
    assert not broken(checked)
    assert not [f for f in checked.facts if f.costs]
    assert plane._store.objects == plane._store.drafts == {}


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (Fault("read", 1, Flip(5)), "read it back"),
        (Fault("read", 2, Flip(5)), "read it back"),
        (Fault("list", 1, Raise(Unavailable("no answer"))), "list it"),
        (Fault("upload.commit", 4, Raise(Unavailable("no answer"))), "several writers of one key"),
        (Fault("upload.commit", 6, Raise(Unavailable("no answer"))), "write in steps"),
        (Fault("copy", 1, Raise(Unavailable("no answer"))), "copy inside the plane"),
        (Fault("upload.copy", 1, Raise(Unavailable("no answer"))), "copy a range inside the plane"),
        (Fault("delete", 1, Raise(Unavailable("no answer"))), "delete"),
    ],
)
async def test_what_is_broken_is_found_and_the_rest_is_still_tried(fault, name):
    inner = MemoryPlane("m")
    checked = await check(FaultyPlane(inner, [fault]))
    assert broken(checked)[0] == name
    assert next(r for r in checked.results if not r.ok).detail
    assert len(checked.results) == TRIES
    assert inner._store.objects == inner._store.drafts == {}


async def test_what_could_not_be_found_out_is_said_to_be_unknown():
    checked = await check(FaultyPlane(MemoryPlane("m"), [Fault("list", 1, Raise(Unavailable("no answer")))]))
    assert found(checked)[facts.ORDER] == "unknown"
    assert next(f for f in checked.facts if f.fact == facts.ORDER).costs == "what was tried for it failed"


async def test_after_a_failed_write_nothing_more_is_tried():
    plane = FaultyPlane(MemoryPlane("m"), [Fault("put", 1, Raise(Refused("read-only key")))])
    failed = CheckResult("write an object", ok=False, detail="read-only key", reason="PLANE_REFUSED")
    assert await check(plane) == Checked((failed,))


async def test_a_listing_that_never_works_leaves_nothing_behind():
    inner = MemoryPlane("m")
    checked = await check(FaultyPlane(inner, [Fault("list", 0, Raise(Unavailable("no answer")))]))
    assert broken(checked) == ["list it", "tell names apart", "delete"]
    assert inner._store.objects == inner._store.drafts == {}


@pytest.mark.parametrize("verb", ["stat", "read", "upload", "put"])
async def test_a_check_that_is_cancelled_leaves_nothing_behind(verb):
    class Stuck(MemoryPlane):
        reached = asyncio.Event()

    async def hang(self, *arguments, **options):
        if verb == "put" and not self._store.objects:  # the first one works
            return await MemoryPlane.put(self, *arguments, **options)
        self.reached.set()
        return await asyncio.Event().wait()

    setattr(Stuck, verb, hang)
    plane = Stuck("m")
    checking = asyncio.create_task(check(plane))
    await plane.reached.wait()
    assert plane._store.objects
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert plane._store.objects == plane._store.drafts == {}


async def test_what_others_wrote_stays():
    plane = MemoryPlane("m")
    await plane.put("cropduster-check/theirs", b"x", upload_id="t")
    await check(plane)
    assert [i.key async for i in plane.list()] == ["cropduster-check/theirs"]


async def test_a_store_that_does_not_copy_is_no_failure_but_costs_something():
    refused = [Fault("copy", 1, Raise(Unsupported("no such thing"))), Fault("upload.copy", 1, Raise(Refused("no")))]
    checked = await check(FaultyPlane(MemoryPlane("m"), refused))
    assert not broken(checked)
    costs = {f.fact: f.costs for f in checked.facts if f.found == "no"}
    assert "no such thing" in costs[facts.WHOLE]
    assert "through this machine (no)" in costs[facts.RANGES]


async def test_a_store_that_overwrites_is_found_out():
    class Careless(MemoryPlane):
        async def put(self, key, data, **options):
            return await super().put(key, data, **{**options, "replace": True})

    checked = await check(Careless("m"))
    assert broken(checked) == ["refuse to overwrite it"]
    (said,) = [f for f in checked.facts if f.fact == facts.CONDITIONS]
    assert said.found == "not exact"
    assert "of 4 that wrote the same key at the same moment, 4 were told" in said.costs


async def test_uploads_that_overwrite_are_found_out():
    class Careless(MemoryPlane):
        async def upload(self, key, **options):
            return await super().upload(key, **{**options, "replace": True})

    checked = await check(Careless("m"))
    assert broken(checked) == ["refuse to overwrite it"]
    assert found(checked)[facts.CONDITIONS] == "not exact"


async def test_a_store_that_ignores_pins_is_found_out():
    class Careless(MemoryPlane):
        async def read(self, extent, into):
            into[:] = self._store.cut(extent.key, "", extent.start, extent.end)

    assert broken(await check(Careless("m"))) == ["notice a replaced object"]


async def test_old_versions_that_stay_readable_cost_room():
    class Keeping(MemoryPlane):
        """Has the old bytes of an object that was replaced."""

        replaced: ClassVar[dict[str, bytes]] = {}

        async def put(self, key, data, **options):
            if options.get("replace"):
                self.replaced[self._store.objects[key].info.version] = self._store.objects[key].data
            return await super().put(key, data, **options)

        async def read(self, extent, into):
            if extent.version in self.replaced:
                into[:] = self.replaced[extent.version][extent.start : extent.end]
            else:
                await super().read(extent, into)

    checked = await check(Keeping("m"))
    (said,) = [f for f in checked.facts if f.fact == facts.VERSIONS]
    assert said.found == "yes"
    assert "this check's own objects too" in said.costs


async def test_a_listing_in_another_order_costs_something_and_one_that_loses_keys_is_broken():
    class Unordered(MemoryPlane):
        async def list(self, prefix="", after="", left_out=None):
            for info in [i async for i in MemoryPlane.list(self, prefix, after, left_out)][::-1]:
                yield info

    class Losing(MemoryPlane):
        async def list(self, prefix="", after="", left_out=None):
            for info in [i async for i in MemoryPlane.list(self, prefix, after, left_out)][1:]:
                yield info

    checked = await check(Unordered("m"))
    assert (broken(checked), found(checked)[facts.ORDER]) == ([], "no")
    assert "list it" in broken(await check(Losing("m")))


async def test_a_store_that_takes_names_for_others_costs_something_and_one_that_does_so_silently_is_broken():
    class Merging(MemoryPlane):
        async def put(self, key, data, **options):
            if "\\" in key:
                msg = "it would be another object"
                raise Refused(msg)
            return await super().put(key, data, **options)

    class Silent(MemoryPlane):
        async def put(self, key, data, **options):
            return await super().put(key.replace("\\", "/"), data, **options)

    checked = await check(Merging("m"))
    (said,) = [f for f in checked.facts if f.fact == facts.NAMES]
    assert (broken(checked), said.found) == ([], "no")
    assert "with \\ in their names are refused" in said.costs
    silent = Silent("m")
    assert broken(await check(silent)) == ["tell names apart"]
    assert silent._store.objects == {}


async def test_a_plane_that_keeps_less_than_it_says_is_found_out():
    class Forgetful(MemoryPlane):
        async def put(self, key, data, *, content_type="", metadata=None, **options):
            del content_type, metadata
            return await super().put(key, data, **options)

    (said,) = [f for f in (await check(Forgetful("m"))).facts if f.fact == facts.METADATA]
    assert said.found == "no"
    assert "a write whose answer is lost" in said.costs


def test_a_plane_that_says_itself_that_conditions_are_not_exact_is_believed():
    class Modest(MemoryPlane):
        capabilities = Capabilities(checksums=frozenset(), atomic_create=False, shared=True)

    assert facts.conditions(Modest("m"), 4, 1).found == "not exact"
    assert facts.conditions(MemoryPlane("m"), 4, 1) == Fact(facts.CONDITIONS, "exact")
