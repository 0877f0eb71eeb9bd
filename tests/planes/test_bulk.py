"""Many files, one flush."""

import asyncio
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from planes import bulk, posix_draft, posix_many, posix_sync
from planes.errors import AlreadyExists, Changed, Corrupt, OutOfRange, PathEscapes, Refused, Unavailable
from planes.faulty import Fault, FaultyPlane, Raise
from planes.many import Whole
from planes.memory import MemoryPlane, MemorySettings
from planes.metered import MeteredPlane
from planes.opening import open_plane
from planes.plane import Extent
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
        assert bulk.takes_many(plane)
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
    assert flushes["single"] == (4 + 6 if flushed else 0)  # the first with each directory above; 3 files, 3 directories


async def test_of_many_durable_files_none_has_its_name_before_all_are_flushed(tmp_path, monkeypatch):
    plane, seen = open_plane("data", PosixSettings(path=tmp_path)), []

    def flush(fd):
        seen.append(sorted(path.name for path in tmp_path.iterdir()))

    monkeypatch.setattr(posix_draft.os, "fsync", flush)
    objects = [Whole(name, b"1", name, replace=name == "data") for name in ("name", "data", "other")]
    hidden = [f".cropduster-{name}" for name in ("data", "name", "other")]
    try:
        await bulk.put_many(plane, objects)
    finally:
        await plane.aclose()
    assert seen[2:] == [hidden, [*hidden[1:], "data"], ["data", "name", "other"]]


@pytest.fixture
def synced(monkeypatch, tmp_path):
    """The directories that were flushed."""
    found = []
    for module in (posix_many, posix_draft):
        real = module.sync_directory

        def sync(directory, real=real):
            found.append(str(Path(f"/proc/self/fd/{directory}").readlink().relative_to(tmp_path)))
            real(directory)

        monkeypatch.setattr(module, "sync_directory", sync)
    return found


async def test_a_directory_that_a_call_made_which_then_failed_is_made_durable_by_the_next(tmp_path, synced):
    plane = open_plane("data", PosixSettings(path=tmp_path))
    (tmp_path / "taken").mkdir()
    try:
        with pytest.raises(Refused):
            await bulk.put_many(plane, many("a/b/x", "taken"))
        synced.clear()
        await bulk.put_many(plane, many("a/b/y"))
        assert sorted(synced) == [".", "a", "a/b"]
        synced.clear()
        await plane.put("a/b/z", b"1", upload_id="z")
        assert sorted(synced) == [".", "a", "a/b"]
    finally:
        await plane.aclose()


async def test_a_directory_that_another_call_has_just_made_is_made_durable_by_whoever_is_done_first(
    tmp_path, synced, monkeypatch
):
    plane = open_plane("data", PosixSettings(path=tmp_path))
    begun, go_on, real = threading.Event(), threading.Event(), posix_many._filled

    def filled(fd, data):
        if bytes(data) == b"slow":
            begun.set()
            go_on.wait()
        return real(fd, data)

    monkeypatch.setattr(posix_many, "_filled", filled)
    first = asyncio.create_task(bulk.put_many(plane, [Whole("a/slow", b"slow", "u-1")]))
    try:
        await asyncio.to_thread(begun.wait)
        await bulk.put_many(plane, [Whole("a/x", b"x", "u-2")])
        assert sorted(synced) == [".", "a"]
    finally:
        go_on.set()
        await first
        await plane.aclose()


async def test_the_mark_of_an_attempt_is_flushed_with_its_file(tmp_path, monkeypatch):
    plane, seen = open_plane("data", PosixSettings(path=tmp_path)), []
    monkeypatch.setattr(posix_many, "set_mark", lambda *_: seen.append("mark") or "")
    monkeypatch.setattr(posix_draft.os, "fsync", lambda _: seen.append("flush"))
    try:
        await bulk.put_many(plane, [Whole("x", b"1", "u", replace=False)])
    finally:
        await plane.aclose()
    assert seen == ["mark", "flush", "flush"]


async def test_of_many_durable_files_none_is_there_when_one_fails(tmp_path):
    plane = open_plane("data", PosixSettings(path=tmp_path))
    try:
        with pytest.raises(PathEscapes):
            await bulk.put_many(plane, many("new/a", "b", "../out"))
        assert list(tmp_path.iterdir()) == []
        await bulk.put_many(plane, many("new/a", "b"))
    finally:
        await plane.aclose()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "new"]


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


async def test_many_extents_are_read_in_one_request_each_of_its_version(tmp_path, monkeypatch):
    plane, memory = open_plane("data", PosixSettings(path=tmp_path)), MemoryPlane("m", MemorySettings())
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 10)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: real(fd, min(size, 3), at))  # the system may give less
    try:
        assert bulk.reads_many(plane)
        assert not bulk.reads_many(memory)
        infos = [await plane.stat(name) for name in ("a", "b")]
        extents = [Extent(infos[0].key, infos[0].version, 0, 10), Extent(infos[1].key, infos[1].version, 2, 9)]
        assert await bulk.read_many(plane, extents) == [b"a" * 10, b"b" * 7]
        counted = find(plane, MeteredPlane).snapshot()
        assert (counted.requests["read_many"], counted.requests.get("read"), counted.bytes_read) == (1, None, 17)
        (tmp_path / "b").write_bytes(b"c" * 10)
        with pytest.raises(Changed):
            await bulk.read_many(plane, extents)
        with pytest.raises(OutOfRange):
            await bulk.read_many(plane, [Extent("a", "", 0, 11)])
    finally:
        await plane.aclose()


async def test_below_a_directory_that_is_new_none_is_looked_for(tmp_path, monkeypatch):
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    real, looked = os.open, []
    monkeypatch.setattr(os, "open", lambda name, *words, **at: looked.append(name) or real(name, *words, **at))
    try:
        await bulk.put_many(plane, many("a/b/x", "a/c/d/y"))
    finally:
        await plane.aclose()
    assert [looked.count(name) for name in "abcd"] == [2, 1, 1, 1]


async def test_what_an_attempt_before_has_left_half_written_is_replaced(tmp_path):
    (tmp_path / ".cropduster-u-0").write_bytes(b"much longer than what comes")
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    try:
        await bulk.put_many(plane, many("a"))
    finally:
        await plane.aclose()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"a")]


async def test_one_of_many_that_must_not_replace_takes_its_name_once_and_only_from_nobody(tmp_path):
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    mine, other = Whole("a/x", b"mine", "u-1", replace=False), Whole("a/x", b"other", "u-2", replace=False)
    try:
        for _ in range(2):  # an attempt that is repeated finds what it made itself
            await bulk.put_many(plane, [mine])
        with pytest.raises(AlreadyExists, match="data:a/x"):
            await bulk.put_many(plane, [other])
    finally:
        await plane.aclose()
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "a").iterdir()] == [("x", b"mine")]


async def test_one_of_many_that_must_not_replace_appears_when_all_is_durable(tmp_path, monkeypatch):
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    seen = []

    def flush(_):
        seen.append(sorted(path.name for path in tmp_path.iterdir()))

    monkeypatch.setattr(posix_sync.sync_file_system, "_flush", flush)
    objects = [Whole(name, b"1", name, replace=name == "data") for name in ("name", "data", "other")]
    try:
        await bulk.put_many(plane, objects)
    finally:
        await plane.aclose()
    assert seen == [[".cropduster-name", ".cropduster-other", "data"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "name", "other"]


async def test_of_many_names_those_behind_one_that_is_taken_leave_nothing(tmp_path):
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    (tmp_path / "b").write_bytes(b"theirs")
    try:
        with pytest.raises(AlreadyExists):
            await bulk.put_many(plane, [Whole(name, b"1", f"u{name[0]}", replace=False) for name in ("a", "b", "c/d")])
    finally:
        await plane.aclose()
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"a": b"1", "b": b"theirs"}


@pytest.mark.parametrize("other", [lambda found: found[:-1] + b"?", lambda found: found + b"?"])
async def test_one_of_many_that_the_disk_does_not_hold_gets_no_name(tmp_path, monkeypatch, other):
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda *words: other(real(*words)))
    try:
        with pytest.raises(Corrupt):
            await bulk.put_many(plane, many("new/a"))
    finally:
        await plane.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_directories_that_somebody_tidies_away_amid_many_are_made_again(tmp_path, monkeypatch):
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    real, gone = posix_many.create, []

    def create(name, directory):
        if not gone:
            gone.append((tmp_path / "a" / "b").rmdir())
        return real(name, directory)

    monkeypatch.setattr(posix_many, "create", create)
    try:
        await bulk.put_many(plane, many("a/b/x", "a/b/y"))
    finally:
        await plane.aclose()
    assert gone
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["x", "y"]


async def test_many_leave_a_directory_through_no_symlink_and_take_no_file_for_one(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "data" / "way").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "nowhere").symlink_to("gone")
    (tmp_path / "data" / "file").write_bytes(b"")
    plane = bulk.open_bulk("data", PosixSettings(path=tmp_path / "data"))
    try:
        for key, kind in (
            ("way/x", PathEscapes),
            ("way/new/x", PathEscapes),
            ("nowhere/x", Refused),
            ("file/x", Refused),
        ):
            with pytest.raises(kind):
                await bulk.put_many(plane, [Whole(key, b"1", "u")])
    finally:
        await plane.aclose()
    assert list((tmp_path / "outside").iterdir()) == []


async def test_a_layer_that_knows_single_objects_alone_is_asked_for_each(tmp_path):
    inner = bulk.open_bulk("data", PosixSettings(path=tmp_path))
    faults = [Fault(verb, 2, Raise(Unavailable("gone"))) for verb in ("put", "read")]
    plane = RetryingPlane(FaultyPlane(inner, faults), Patience(first=0))
    try:
        await bulk.put_many(plane, many("a", "b"))
        assert await bulk.read_many(plane, [Extent(key, "", 0, 1) for key in ("a", "b")]) == [b"a", b"b"]
    finally:
        await inner.aclose()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
