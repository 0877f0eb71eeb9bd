"""What is special about directories: links, pins, pipes, crashes between system calls. The rest is in the contract."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from planes import posix_draft, posix_site
from planes.checksum import compute
from planes.errors import (
    AlreadyExists,
    Changed,
    Corrupt,
    Error,
    Full,
    Missing,
    NotFound,
    PathEscapes,
    Refused,
    Unavailable,
    Unsupported,
)
from planes.plane import Extent
from planes.posix import PosixPlane, PosixSettings
from planes.posix_copy import SLICE, Mover, Source, copy_range, reflink, send
from planes.posix_list import walk
from planes.posix_paths import Tree, pin
from planes.threads import Stop


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def make(root):
    """A plane with settings; all are closed in the end."""

    def made(**options) -> PosixPlane:
        return PosixPlane("data", PosixSettings(path=root, **{"durability": "os", **options}))

    return made


@pytest.fixture
def plane(make) -> PosixPlane:
    return make()


async def read(plane: PosixPlane, key: str, version: str = "") -> bytes:
    info = await plane.stat(key)
    into = bytearray(info.size)
    await plane.read(Extent(key, version, 0, info.size), memoryview(into))
    return bytes(into)


async def keys(plane: PosixPlane, prefix: str = "", after: str = "") -> list[str]:
    return [info.key async for info in plane.list(prefix, after)]


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# Pins.


async def test_a_change_of_the_same_size_with_restored_mtime_is_noticed(plane, root):
    (root / "f").write_bytes(b"before")
    os.utime(root / "f", ns=(1, 1))
    old = await plane.stat("f")
    (root / "f").write_bytes(b"after!")
    os.utime(root / "f", ns=(1, 1))
    with pytest.raises(Changed):
        await read(plane, "f", old.version)


async def test_a_change_during_a_read_is_noticed(plane, root, monkeypatch):
    (root / "f").write_bytes(b"before")
    old = await plane.stat("f")
    read_all = posix_site.read_all

    def read_then_change(*arguments) -> bool:
        found = read_all(*arguments)
        (root / "f").write_bytes(b"after!")
        return found

    monkeypatch.setattr(posix_site, "read_all", read_then_change)
    with pytest.raises(Changed):
        await read(plane, "f", old.version)


@pytest.mark.parametrize("change", [lambda f: f.write_bytes(b"x" * 600_000), lambda f: os.truncate(f, 300_000)])
async def test_a_change_during_a_copy_is_changed_and_not_corrupt(plane, root, change):
    source = root / "source"
    source.write_bytes(os.urandom(600_000))
    ticket = plane.copy_ticket(await plane.stat("source"))

    def copy_then_change(*arguments) -> int:
        moved = copy_range(*arguments)
        change(source)
        return moved

    plane._site.mover.ways = {"range": copy_then_change}
    async with await plane.upload("target", upload_id="u") as upload:
        with pytest.raises(Changed):
            await upload.copy(1, 0, ticket, 0, 600_000)


async def test_a_slice_that_arrives_damaged_is_corrupt(make, root):
    plane = make(durability="fsync")
    (root / "source").write_bytes(os.urandom(600_000))
    ticket = plane.copy_ticket(await plane.stat("source"))

    def damage(source: int, start: int, target: int, offset: int, count: int) -> int:
        moved = copy_range(source, start, target, offset, count)
        if start:
            os.pwrite(target, b"?", offset + moved // 2)
        return moved

    plane._site.mover.ways = {"range": damage}
    with pytest.raises(Corrupt):
        await plane.copy("target", ticket, upload_id="u")
    assert everything(root) == ["source"]


# Links and other things that are not files.


async def test_a_link_that_stays_inside_is_followed(plane, root):
    (root / "d").mkdir()
    (root / "d/f").write_bytes(b"inside")
    (root / "relative").symlink_to("d/f")
    (root / "absolute").symlink_to(root / "d/f")
    (root / "folder").symlink_to("d")
    for key in ("relative", "absolute", "folder/f"):
        assert await read(plane, key) == b"inside"
    await plane.put("folder/new", b"through a link", upload_id="u")
    assert (root / "d/new").read_bytes() == b"through a link"
    assert await keys(plane) == ["absolute", "d/f", "d/new", "folder/f", "folder/new", "relative"]


async def test_a_link_that_leads_out_is_refused(plane, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to("../outside")
    (root / "root2").symlink_to(f"{root}2")
    Path(f"{root}2").mkdir()
    for key in ("file", "folder/secret"):
        with pytest.raises(PathEscapes):
            await plane.stat(key)
        with pytest.raises(PathEscapes):
            await read(plane, key)
    for key in ("folder/new", "folder/made/new", "root2/new"):
        with pytest.raises(PathEscapes):
            await plane.put(key, b"x", upload_id="u")
    for key in ("folder/secret", "folder/new", "root2/new"):
        with pytest.raises(PathEscapes):
            await plane.delete(key)
    with pytest.raises(PathEscapes):
        await keys(plane, "folder/")
    assert await keys(plane) == []
    assert everything(outside) == ["secret"]
    assert everything(Path(f"{root}2")) == []


async def test_a_ticket_does_not_lead_out_either(plane, root, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "f").write_bytes(b"inside")
    ticket = plane.copy_ticket(await plane.stat("f"))
    (root / "f").unlink()
    (root / "f").symlink_to(tmp_path / "secret")
    with pytest.raises(PathEscapes):
        await plane.copy("copy", ticket, upload_id="u")


async def test_links_can_be_refused_altogether(make, root):
    (root / "f").write_bytes(b"x")
    (root / "link").symlink_to("f")
    (root / "d").mkdir()
    (root / "folder").symlink_to("d")
    plane = make(symlinks="refuse")
    assert await read(plane, "f") == b"x"
    with pytest.raises(PathEscapes, match="symlinks"):
        await plane.stat("link")
    with pytest.raises(PathEscapes, match="symlinks"):
        await plane.put("folder/f", b"x", upload_id="u")
    assert await keys(plane) == ["f"]


async def test_writing_replaces_a_link_and_not_what_it_leads_to(plane, root, tmp_path):
    (tmp_path / "theirs").write_bytes(b"theirs")
    (root / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(AlreadyExists):
        await plane.put("link", b"ours", upload_id="u")
    await plane.put("link", b"ours", upload_id="u", replace=True)
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert (root / "link").read_bytes() == b"ours"


async def test_links_in_a_circle_end(plane, root):
    (root / "d").mkdir()
    (root / "d/f").write_bytes(b"x")
    (root / "d/up").symlink_to("..")
    (root / "d/self").symlink_to("self")
    (root / "d/nowhere").symlink_to("missing")
    assert await keys(plane) == ["d/f"]
    with pytest.raises(Refused, match="circle"):
        await plane.stat("d/self")
    with pytest.raises(NotFound):
        await plane.stat("d/nowhere")
    with pytest.raises(Refused, match="leads nowhere"):
        await plane.put("d/nowhere/f", b"x", upload_id="u")


async def test_what_is_not_a_file_is_refused_and_never_opened(plane, root):
    os.mkfifo(root / "pipe")  # a reader that opened it would wait here for ever
    (root / "folder").mkdir()
    for key, word in (("pipe", "pipe"), ("folder", "directory")):
        with pytest.raises(Refused, match=word):
            await plane.stat(key)
        with pytest.raises(Refused, match=word):
            await plane.read(Extent(key, "", 0, 1), memoryview(bytearray(1)))
    with pytest.raises(Refused, match="device"):
        await PosixPlane.local().stat("dev/null")
    assert await keys(plane) == []


def test_directories_are_made_while_others_tidy_up(root):
    tree, done = Tree("data", str(root), "inside"), threading.Event()

    def tidy() -> None:
        while not done.is_set():
            tree.remove_empty("a/b/c")

    others = [threading.Thread(target=tidy) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for number in range(100):
            draft = posix_draft.begin(tree, f"a/b/c/{number}", "u", replace=False)
            posix_draft.abort(tree, draft, prune=False)
    finally:
        done.set()
        for other in others:
            other.join()
    assert everything(root) == []


async def test_a_directory_in_the_place_of_the_target(plane, root):
    (root / "d").mkdir()
    with pytest.raises(AlreadyExists):
        await plane.put("d", b"x", upload_id="u")
    with pytest.raises(Refused, match="directory"):
        await plane.put("d", b"x", upload_id="u", replace=True)
    await plane.delete("d")
    assert everything(root) == ["d"]


async def test_a_file_in_the_place_of_a_directory(plane, root):
    (root / "f").write_bytes(b"x")
    with pytest.raises(Refused, match="is a file"):
        await plane.put("f/g", b"x", upload_id="u")
    with pytest.raises(NotFound):
        await plane.stat("f/g")
    await plane.delete("f/g")
    assert everything(root) == ["f"]


@pytest.mark.parametrize("key", ["", "/f", "a//f", "a/./f", "f/", "a/\0"])
async def test_odd_keys_are_refused(plane, key):
    with pytest.raises(PathEscapes):
        await plane.put(key, b"x", upload_id="u")
    with pytest.raises(PathEscapes):
        await plane.stat(key)


async def test_a_listing_cannot_look_outside(plane):
    with pytest.raises(PathEscapes):
        await keys(plane, "../")


async def test_temporary_files_are_hidden_and_their_names_kept(plane, root):
    async with await plane.upload("d/f", upload_id="up-1") as upload:
        assert everything(root) == ["d", "d/.cropduster-up-1"]
        assert await keys(plane) == []
        await upload.put(1, 0, b"x")
    with pytest.raises(Refused, match="temporary"):
        await plane.put("d/.cropduster-up-1", b"x", upload_id="u")


@pytest.mark.parametrize("upload_id", ["", "a/b", "..", "x" * 201, "a b"])
async def test_an_upload_id_is_a_plain_word(plane, upload_id):
    with pytest.raises(Refused):
        await plane.upload("f", upload_id=upload_id)


# The place itself.


async def test_a_missing_root_is_missing_for_every_call(make, root):
    plane = make()
    (root / "f").write_bytes(b"x")
    ticket = plane.copy_ticket(await plane.stat("f"))
    token = (await plane.upload("g", upload_id="u")).token
    root.rename(root.with_name("moved"))
    calls = [
        plane.stat("f"),
        keys(plane),
        plane.read(Extent("f", "", 0, 1), memoryview(bytearray(1))),
        plane.put("g", b"x", upload_id="u"),
        plane.copy("g", ticket, upload_id="u"),
        plane.delete("f"),
        plane.resume(token).put(1, 0, b"x"),
    ]
    for call in calls:
        with pytest.raises(Missing, match=r"planes\.data\.path") as caught:
            await call
        assert str(root) in caught.value.message


async def test_an_agent_says_of_a_folder_that_is_gone_how_it_is_told_of_another(tmp_path):
    plane = PosixPlane("thor@h1", PosixSettings(path=tmp_path / "gone"))
    with pytest.raises(Missing, match="start the agent of h1 with another --plane thor=FOLDER"):
        await plane.stat("f")
    await plane.aclose()


async def test_a_root_that_nobody_may_write_is_refused():
    plane = PosixPlane("data", PosixSettings(path="/sys/kernel"))  # even root may not make files there
    with pytest.raises(Refused, match=r"cannot .* data:f"):
        await plane.put("f", b"x", upload_id="u")


async def test_a_file_that_may_not_grow_is_full_and_leaves_nothing(plane, root):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(Full):
            await plane.put("d/f", bytes(200_000), upload_id="u")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert everything(root) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, NotFound),
        (errno.EEXIST, AlreadyExists),
        (errno.EACCES, Refused),
        (errno.EROFS, Refused),
        (errno.ENOSPC, Full),
        (errno.EDQUOT, Full),
        (errno.EFBIG, Full),
        (errno.ESTALE, Unavailable),
        (errno.EIO, Unavailable),
        (errno.EMFILE, Unavailable),
        (errno.EXDEV, Refused),
    ],
)
def test_every_failure_of_the_kernel_has_a_meaning(code, kind):
    tree = Tree("data", "/nowhere", "inside")
    with pytest.raises(Error) as caught, tree.translating("write", "a/b"):
        raise OSError(code, "words of the kernel")
    assert type(caught.value) is kind
    assert "data:a/b" in caught.value.message
    assert caught.value.facts["errno"] == errno.errorcode[code]


def test_a_relative_path_is_refused_by_the_settings():
    with pytest.raises(ValidationError, match="absolute"):
        PosixSettings(path="data")


# What is left behind.


async def test_directories_that_become_empty_go(plane, root):
    for key in ("a/b/c/f", "a/g"):
        await plane.put(key, b"x", upload_id="u")
    await plane.delete("a/b/c/f")
    assert everything(root) == ["a", "a/g"]
    await plane.delete("a/g")
    assert everything(root) == []
    assert root.is_dir()


async def test_directories_of_a_landing_zone_stay(make, root):
    plane = make(category="lz")
    await plane.put("a/b/f", b"x", upload_id="u")
    await plane.delete("a/b/f")
    assert everything(root) == ["a", "a/b"]


async def test_an_abort_in_a_landing_zone_removes_what_was_made_for_it(make, root):
    plane = make(category="lz")
    (root / "theirs").mkdir()
    first = await plane.upload("theirs/ours/deep/f", upload_id="u1")
    second = await plane.upload("theirs/ours/deep/g", upload_id="u2")
    await first.abort()
    assert everything(root) == ["theirs", "theirs/ours", "theirs/ours/deep", "theirs/ours/deep/.cropduster-u2"]
    await second.abort()
    assert everything(root) == ["theirs"]


async def test_an_abort_in_another_process_removes_what_was_made_too(make, root):
    upload = await make(category="lz").upload("a/b/f", upload_id="u")
    await make(category="lz").resume(upload.token).abort()
    assert everything(root) == []


async def test_the_mode_of_a_file_follows_the_umask(plane, root):
    old = os.umask(0o027)
    try:
        await plane.put("d/f", b"x", upload_id="u")
    finally:
        os.umask(old)
    assert stat.S_IMODE((root / "d/f").stat().st_mode) == 0o640


# Crashes between two system calls.


async def test_a_crash_between_link_and_unlink_is_finished_by_the_next_commit(plane, root):
    upload = await plane.upload("f", upload_id="u")
    step = await upload.put(1, 0, b"x")
    os.link(root / ".cropduster-u", root / "f")
    await plane.resume(upload.token).commit([step], 1, None)
    assert everything(root) == ["f"]
    assert (root / "f").stat().st_nlink == 1


async def test_a_crash_between_link_and_unlink_is_cleaned_by_an_abort_that_keeps_the_object(plane, root):
    upload = await plane.upload("f", upload_id="u")
    await upload.put(1, 0, b"x")
    os.link(root / ".cropduster-u", root / "f")
    await plane.resume(upload.token).abort()
    assert everything(root) == ["f"]


async def test_a_newer_attempt_fences_the_older_one_of_the_same_id(plane, root):
    old = await plane.upload("f", upload_id="u")
    new = await plane.upload("f", upload_id="u")
    with pytest.raises(NotFound, match="begun anew"):
        await old.put(1, 0, b"old")
    await old.abort()
    with pytest.raises(NotFound, match="begun anew"):
        await old.commit([], 0, None)
    step = await new.put(1, 0, b"new")
    await new.commit([step], 3, None)
    assert (root / "f").read_bytes() == b"new"


async def test_a_stranger_with_the_inode_of_an_aborted_upload_is_not_ours(plane, root):
    upload = await plane.upload("f", upload_id="u")
    step = await upload.put(1, 0, b"ours")
    await upload.abort()
    draft = posix_draft.from_token(upload.token)
    for _ in range(20):  # until the file system gives out the number again; if it never does, nothing is to be feared
        (root / "f").write_bytes(b"them")
        if (root / "f").stat().st_ino == draft.inode:
            break
        (root / "f").unlink()
    with pytest.raises(NotFound):
        await upload.commit([step], 4, None)


async def test_without_attributes_the_inode_tells_an_uploads_own_file(plane, root, monkeypatch):
    def refuse(*_) -> None:
        raise OSError(errno.ENOTSUP, "no attributes")

    monkeypatch.setattr(posix_draft.os, "setxattr", refuse)
    monkeypatch.setattr(posix_draft.os, "getxattr", refuse)
    upload = await plane.upload("f", upload_id="u")
    step = await upload.put(1, 0, b"x")
    first = await upload.commit([step], 1, None)
    assert await plane.resume(upload.token).commit([step], 1, None) == first
    with pytest.raises(AlreadyExists):
        await plane.put("f", b"y", upload_id="u")
    assert everything(root) == ["f"]


async def test_a_file_of_the_wrong_size_on_disk_is_corrupt(plane, root):
    async with await plane.upload("f", upload_id="u") as upload:
        step = await upload.put(1, 0, b"four")
        os.truncate(root / ".cropduster-u", 5)
        with pytest.raises(Corrupt):
            await upload.commit([step], 4, None)


async def test_a_commit_waits_for_the_disk_file_first_then_names(make, root, monkeypatch):
    synced: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        posix_draft.os,
        "fsync",
        lambda fd: synced.append((str(Path(f"/proc/self/fd/{fd}").readlink()), everything(root))),
    )
    await make(durability="fsync").put("a/b/f", b"x", upload_id="u")
    hidden, *names = synced
    assert hidden == (f"{root}/a/b/.cropduster-u", ["a", "a/b", "a/b/.cropduster-u"])
    assert [path for path, _ in names] == [f"{root}/a/b", f"{root}/a", f"{root}"]
    assert all(there == ["a", "a/b", "a/b/f"] for _, there in names)
    synced.clear()
    await make(durability="os").put("a/b/g", b"x", upload_id="u")
    assert synced == []


@pytest.mark.parametrize(
    "token", ["", "null", "[]", "{}", '{"kind":"s3"}', '{"kind":"posix"}', '{"kind":"posix","x":1}']
)
def test_a_strange_token_is_refused(plane, token):
    with pytest.raises(Refused):
        plane.resume(token)


# Cancellation.


async def test_a_cancelled_copy_has_stopped_when_it_says_so(plane, root):
    (root / "source").write_bytes(bytes(8 * SLICE))
    ticket = plane.copy_ticket(await plane.stat("source"))
    moving, go_on, slices = threading.Event(), threading.Event(), []

    def slowly(source: int, start: int, target: int, offset: int, count: int) -> int:
        slices.append(start)
        moving.set()
        assert go_on.wait(30)
        return copy_range(source, start, target, offset, count)

    plane._site.mover.ways = {"range": slowly}
    upload = await plane.upload("d/f", upload_id="u")
    copying = asyncio.create_task(upload.copy(1, 0, ticket, 0, 8 * SLICE))
    await asyncio.to_thread(moving.wait)
    copying.cancel()
    for _ in range(10):
        await asyncio.sleep(0)  # the loop goes round; a task that did not wait would be done after two
    assert not copying.done(), "it must wait for its thread, which still holds the file"
    copying.cancel()  # impatience changes nothing
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert slices == [0]
    await upload.abort()
    assert everything(root) == ["source"]


async def test_a_cancelled_put_of_a_whole_object_leaves_nothing(plane, root, monkeypatch):
    writing, told = threading.Event(), threading.Event()
    put, tell = Mover.put, Stop.set

    def slowly(*arguments):
        writing.set()
        assert told.wait(30)
        return put(*arguments)

    def stopped(stop):
        tell(stop)
        told.set()

    monkeypatch.setattr(Mover, "put", slowly)
    monkeypatch.setattr(Stop, "set", stopped)
    task = asyncio.create_task(plane.put("d/f", b"x", upload_id="u"))
    await asyncio.to_thread(writing.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert everything(root) == []


# Moving bytes.


def shared_blocks(source: int, start: int, target: int, offset: int, count: int) -> int:
    """As a file system that can share blocks: whole ones only."""
    assert start % 4096 == offset % 4096 == count % 4096 == 0
    return copy_range(source, start, target, offset, count)


def refused(*_: int) -> int:
    raise OSError(errno.EOPNOTSUPP, "not here")


def nothing(*_: int) -> int:
    return 0


WAYS = {
    "as it is here": {"reflink": reflink, "range": copy_range, "send": send},
    "shared blocks": {"reflink": shared_blocks, "range": copy_range, "send": send},
    "sendfile": {"reflink": refused, "range": refused, "send": send},
    "a range call that does nothing": {"reflink": refused, "range": nothing, "send": send},
}


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "source"
    path.write_bytes(os.urandom(3 * SLICE + 12_345))
    return path


@pytest.mark.parametrize("ways", WAYS.values(), ids=WAYS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_way_moves_exactly_the_range(ways, large, tmp_path, data):
    size = large.stat().st_size
    start = data.draw(st.integers(0, size) | st.sampled_from([0, 4096, SLICE]))
    end = data.draw(st.integers(start, size) | st.just(size))
    offset = data.draw(st.integers(0, 10_000) | st.sampled_from([0, 4096, start % 4096]))
    with large.open("rb") as source, (tmp_path / "target").open("w+b") as target:
        version = pin(os.fstat(source.fileno()))
        proof = Mover(dict(ways)).copy(
            Source(source.fileno(), start, end, version, "source"), target.fileno(), offset, Stop()
        )
        source.seek(start)
        wanted = source.read(end - start)
        target.seek(offset)
        assert target.read() == wanted
    assert proof.source == proof.target == compute(wanted)
    assert (proof.size, proof.checked) == (len(wanted), 2 * len(wanted))


def test_a_way_that_is_refused_is_not_tried_again(large, tmp_path):
    tried: list[str] = []

    def refuse(*_: int) -> int:
        tried.append("reflink")
        raise OSError(errno.EOPNOTSUPP, "not here")

    mover = Mover(ways={"reflink": refuse, "range": copy_range})
    with large.open("rb") as source, (tmp_path / "target").open("w+b") as target:
        for _ in range(2):
            mover.copy(Source(source.fileno(), 0, 2 * SLICE, "", "source"), target.fileno(), 0, Stop())
    assert tried == ["reflink"]


def test_when_no_way_is_left_the_caller_is_told_so(large, tmp_path):
    mover = Mover(ways={"range": refused, "send": refused})
    with large.open("rb") as source, (tmp_path / "target").open("w+b") as target, pytest.raises(Unsupported):
        mover.copy(Source(source.fileno(), 0, 100, "", "source"), target.fileno(), 0, Stop())


def test_a_failure_that_is_no_refusal_is_passed_on(large, tmp_path):
    def full(*_: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    with large.open("rb") as source, (tmp_path / "target").open("w+b") as target, pytest.raises(OSError, match="full"):
        Mover(ways={"range": full}).copy(Source(source.fileno(), 0, 9, "", "source"), target.fileno(), 0, Stop())


async def test_a_copy_that_need_not_be_durable_takes_the_kernels_word_and_reads_the_target_alone(plane, root):
    data = os.urandom(1000)
    (root / "source").write_bytes(data)
    receipt = await plane.copy("target", plane.copy_ticket(await plane.stat("source")), upload_id="u")
    assert not receipt.compared
    assert receipt.bytes_checked == 1000
    assert receipt.crc64nvme == compute(data)


async def test_both_sides_of_a_copy_are_read_and_counted(make, root):
    plane = make(durability="fsync")
    (root / "source").write_bytes(os.urandom(1000))
    receipt = await plane.copy("target", plane.copy_ticket(await plane.stat("source")), upload_id="u")
    assert receipt.compared
    assert receipt.bytes_checked == 2000
    put = await plane.put("other", b"123", upload_id="u")
    assert put.compared
    assert put.bytes_checked == 3


# Listings.

_names = st.text(st.sampled_from("ab-./0ü"), min_size=1, max_size=7).map(lambda t: t.strip("/"))


def _legal(key: str) -> bool:
    return all(e not in {"", ".", ".."} for e in key.split("/"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(_names.filter(_legal), max_size=12),
    prefix=st.sampled_from(["", "a", "a/", "b-", "a/b"]),
    at=st.data(),
)
async def test_a_listing_is_what_sorting_all_keys_gives(tmp_path_factory, names, prefix, at):
    root = tmp_path_factory.mktemp("list")
    made = set()
    for name in sorted(names):
        if not any(other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in made):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"")
            made.add(name)
    plane = PosixPlane("data", PosixSettings(path=root))
    ordered = sorted(made, key=str.encode)
    after = at.draw(st.sampled_from(["", *ordered, "a/", "a-"]))
    wanted = [n for n in ordered if n.startswith(prefix) and n.encode() > after.encode()]
    assert await keys(plane, prefix, after) == wanted
    await plane.aclose()


async def test_a_listing_comes_in_pages(plane, root, monkeypatch):
    monkeypatch.setattr("planes.posix._PAGE", 2)
    for n in range(5):
        (root / f"f{n}").write_bytes(b"")
    assert await keys(plane) == [f"f{n}" for n in range(5)]


async def test_a_name_that_is_not_utf8_is_named_and_never_left_out(plane, root):
    (root / "good").write_bytes(b"")
    os.close(os.open(os.fsencode(root) + b"/k\xff", os.O_CREAT))
    assert await keys(plane, "g") == ["good"]
    with pytest.raises(Refused, match=r"k\\xff is not UTF-8"):
        await keys(plane)


@pytest.mark.parametrize("links", ["inside", "anywhere"])
async def test_what_is_no_object_is_told_and_the_listing_goes_on(plane, root, links):
    for name in ("good", "z/good"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    (root / os.fsdecode(b"d\xff")).mkdir()
    for name in (b"d\xff/inside", b"k\xff"):
        (root / os.fsdecode(name)).write_bytes(b"")
    os.mkfifo(root / "pipe")
    for name, goal in {"nowhere": "gone", "itself": "itself", "to pipe": "pipe", "up": ".", "link": "good"}.items():
        (root / name).symlink_to(goal)
    told = []
    found = walk(Tree("data", str(root), links), "", "", left_out=told.append)
    assert [key for key, _ in found] == ["good", "link", "z/good"]
    assert {each.name: each.has_data for each in told} == {
        "d\\xff": True, "k\\xff": True, "pipe": False, "nowhere": False, "itself": False, "to pipe": False, "up": False
    }  # fmt: skip
    assert all(each.why for each in told)
    assert [info.key async for info in plane.list("g", left_out=told.append)] == ["good"]


# The plane of bare paths.


async def test_local_keys_are_absolute_paths(plane, root, tmp_path):
    local = PosixPlane.local(durable=False)
    folder = str(tmp_path).lstrip("/")
    await local.put(f"{folder}/made/f", b"local", upload_id="u")
    assert (tmp_path / "made/f").read_bytes() == b"local"
    assert await keys(local, f"{folder}/made/") == [f"{folder}/made/f"]
    info = await local.stat(f"{folder}/made/f")
    await plane.copy("sprayed", local.copy_ticket(info), upload_id="u")
    assert (root / "sprayed").read_bytes() == b"local"
    await local.delete(f"{folder}/made/f")
    assert (tmp_path / "made").is_dir(), "a directory of the user's is not ours to remove"


async def test_local_links_lead_anywhere_and_messages_show_paths(tmp_path):
    local = PosixPlane.local()
    folder = str(tmp_path).lstrip("/")
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/link").symlink_to(tmp_path / "f")
    assert await read(local, f"{folder}/d/link") == b"x"
    with pytest.raises(NotFound, match=f"^{tmp_path}/missing is not there"):
        await local.stat(f"{folder}/missing")


async def test_a_plane_may_be_the_root_directory(tmp_path):
    plane = PosixPlane("all", PosixSettings(path="/", symlinks="refuse", durability="os"))
    key = f"{str(tmp_path.resolve()).lstrip('/')}/f"
    await plane.put(key, b"x", upload_id="u")
    assert await read(plane, key) == b"x"
