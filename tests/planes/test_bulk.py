"""Many files, one flush."""

import os
from datetime import timedelta

import pytest

from planes import bulk, posix_draft, posix_sync
from planes.errors import PathEscapes, Refused, Unavailable
from planes.faulty import Fault, FaultyPlane, Raise
from planes.many import Whole
from planes.memory import MemoryPlane, MemorySettings
from planes.metered import MeteredPlane
from planes.opening import open_plane
from planes.posix import PosixSettings
from planes.retrying import Patience, RetryingPlane
from planes.wrapped import find


@pytest.fixture
def flushes(monkeypatch):
    """How often single files and directories were flushed, and whole file systems."""
    counted = {"single": 0, "whole": []}

    def single(_):
        counted["single"] += 1

    monkeypatch.setattr(posix_draft.os, "fsync", single)
    monkeypatch.setattr(posix_sync.sync_file_system, "_flush", counted["whole"].append)
    return counted


@pytest.mark.parametrize(("kind", "single", "whole"), [(bulk.open_bulk, 0, 2), (open_plane, 12, 0)])
async def test_a_plane_in_bulk_flushes_when_it_settles_and_another_at_every_file(
    tmp_path, flushes, kind, single, whole
):
    plane = kind("data", PosixSettings(path=tmp_path))
    try:
        for name in "abc":
            await plane.put(f"x/{name}", b"1", upload_id=name)
        await bulk.settle(plane)
        await plane.put("x/d", b"1", upload_id="d")
        await bulk.settle(plane)
    finally:
        await plane.aclose()
    assert (flushes["single"], len(flushes["whole"])) == (single, whole)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == list("abcd")


async def test_a_file_system_is_really_flushed(tmp_path):
    directory = os.open(tmp_path, os.O_PATH)
    try:
        posix_sync.flush_file_system(directory)
    finally:
        os.close(directory)
    with pytest.raises(OSError, match="Bad file"):
        posix_sync.flush_file_system(directory)


async def test_what_was_written_in_bulk_before_the_host_started_may_be_lost(tmp_path):
    whole, many = open_plane("data", PosixSettings(path=tmp_path)), bulk.open_bulk("data", PosixSettings(path=tmp_path))
    memory = MemoryPlane("m", MemorySettings())
    try:
        await many.put("x", b"1", upload_id="u")
        assert bulk.survived(many, await many.stat("x"))
        before = bulk._started() - timedelta(hours=1)
        os.utime(tmp_path / "x", (before.timestamp(), before.timestamp()))
        old = await many.stat("x")
        assert not bulk.survived(many, old)
        assert bulk.survived(whole, old)
        assert bulk.survived(memory, old)
    finally:
        for plane in (whole, many, memory):
            await plane.aclose()


def many(*names):
    return [Whole(name, name.encode(), f"u-{number}") for number, name in enumerate(names)]


@pytest.mark.parametrize(("kind", "flushed"), [(bulk.open_bulk, False), (open_plane, True)])
async def test_many_files_at_once_appear_in_order_replace_and_leave_nothing_beside(tmp_path, flushes, kind, flushed):
    plane = kind("data", PosixSettings(path=tmp_path))
    renamed = []
    try:
        assert bulk.takes_many(plane) is not flushed
        await plane.put("a/b/x", b"before", upload_id="old")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                os, "rename", lambda *way, rename=os.rename, **at: renamed.append(way[1]) or rename(*way, **at)
            )
            receipts = await bulk.put_many(plane, many("a/b/x", "a/c", "d"))
        assert find(plane, MeteredPlane).snapshot().bytes_written == sum(r.size for r in receipts) + 6 == 15
    finally:
        await plane.aclose()
    assert renamed == ["x", "c", "d"]
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {name: name for name in ("a/b/x", "a/c", "d")}
    assert (flushes["single"] > 3) is flushed


async def test_of_many_files_those_before_the_one_that_fails_are_there_and_no_other(tmp_path):
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    (tmp_path / "taken").mkdir()
    try:
        with pytest.raises(Refused, match="data:taken"):
            await bulk.put_many(plane, many("a", "taken", "new/b"))
        with pytest.raises(PathEscapes):
            await bulk.put_many(plane, many("../out"))
        await bulk.put_many(plane, many("a", "new/b"))
    finally:
        await plane.aclose()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "new", "new/b", "taken"]


async def test_what_an_attempt_before_has_left_half_written_is_replaced(tmp_path):
    (tmp_path / ".cropduster-u-0").write_bytes(b"much longer than what comes")
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    try:
        await bulk.put_many(plane, many("a"))
    finally:
        await plane.aclose()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"a")]


async def test_a_layer_that_knows_single_objects_alone_is_asked_for_each(tmp_path):
    inner = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    plane = RetryingPlane(FaultyPlane(inner, [Fault("put", 2, Raise(Unavailable("gone")))]), Patience(first=0))
    try:
        await bulk.put_many(plane, many("a", "b"))
    finally:
        await inner.aclose()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
