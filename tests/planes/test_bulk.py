"""Many files, one flush."""

import os
from datetime import timedelta

import pytest

from planes import bulk, posix_draft, posix_sync
from planes.memory import MemoryPlane, MemorySettings
from planes.opening import open_plane
from planes.posix import PosixSettings


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
