"""sync through the command line: every pair of planes, odd names, filters, guards, failures, crashes."""

from __future__ import annotations

import os
import time

import pytest

from tests.e2e.conftest import config_of

ODD = ["a b+c%20&d.txt", "ü/ß.csv", "deep/er/and/er.bin", "#hash", "tilde~/~x", "quo'te\".csv", "q?*[x].csv", "-dash"]


@pytest.fixture
def source(machine):
    """50 files in folders, empty ones and odd names among them; contents by relative name."""
    return some(machine, 50)


def some(machine, count):
    files = {f"{n % 7}/{n:03d}.bin": os.urandom(n * 37) for n in range(count - len(ODD))}
    files |= {name: name.encode() for name in ODD}
    write(machine.folder / "plane/in", files)
    return files


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stored(bucket, prefix):
    return {key.removeprefix(prefix): bucket.get(key) for key in sorted(bucket.keys()) if key.startswith(prefix)}


def sync(machine, *arguments, code=0):
    return machine("sync", *arguments, "--json", code=code).json


def counts(shown):
    objects = shown["outcome"]["objects"]
    return tuple(objects[name] for name in ("copied", "equal", "deleted", "failed"))


@pytest.mark.soak  # fault_sync has every pair in one process, and the other tests the command
def test_every_pair_of_planes(machine, bucket, source):
    for start, end in (
        ("data:in", "cloud:up"),
        ("cloud:up/", "cloud:over/"),
        ("cloud:over", "data:down"),
        ("data:down", "./here"),
    ):
        shown = sync(machine, start, end)
        assert shown["state"] == "SUCCEEDED"
        assert counts(shown) == (50, 0, 0, 0)
        assert shown["outcome"]["evidence"] in {"compared", "pinned"}
        assert shown["outcome"]["size"] == sum(map(len, source.values())) == shown["progress"]["bytes_done"]
        assert shown["progress"]["parts_done"] == 50
        again = sync(machine, start, end)
        assert counts(again) == (0, 50, 0, 0)
        assert again["outcome"]["evidence"] == ""
    assert stored(bucket, "in/up/") == stored(bucket, "in/over/") == source
    assert content(machine.folder / "plane/down") == content(machine.folder / "here") == source
    assert bucket.open_uploads() == []


@pytest.mark.soak  # fault_sync has every pair in one process, and the other tests the command
def test_with_azure(machine, bucket, source, account):
    name = f"c{os.urandom(6).hex()}"
    account.create_container(name)
    machine.environment["CS"] = account.connection_string
    az = f"  az: {{type: azure, container: {name}, prefix: in/, connection_string: {{env: CS}}}}\n"
    machine.configure(config_of(machine, bucket.store, bucket.name) + az)
    routes = {}
    for start, end in (("data:in", "az:up"), ("az:up", "az:over"), ("az:over", "cloud:up"), ("cloud:up", "az:back")):
        shown = sync(machine, start, end)
        assert counts(shown) == (50, 0, 0, 0)
        taken = shown["outcome"]["routes"]
        assert sum(each["part_count"] for each in taken) == 50
        routes[start, end] = {each["route"] for each in taken if each["size"]}
    assert routes["data:in", "az:up"] == routes["az:over", "cloud:up"] == {"streamed"}
    assert routes["az:up", "az:over"] == {"copied whole"}
    assert counts(sync(machine, "az:back", "data:down")) == (50, 0, 0, 0)
    assert content(machine.folder / "plane/down") == stored(bucket, "in/up/") == source


def test_inside_a_store_nothing_travels_and_all_is_compared(machine, bucket, source):
    sync(machine, "data:in", "cloud:a")
    shown = sync(machine, "cloud:a", "cloud:b")
    assert shown["progress"]["bytes_through_us"] == 0
    assert shown["progress"]["bytes_native"] == shown["outcome"]["size"]
    assert shown["outcome"]["evidence"] == "compared"
    bucket.put("in/plain/x", b"x" * 3000, ContentType="text/x", Metadata={"by": "me"})
    assert sync(machine, "cloud:plain", "cloud:c", "--verify", "read")["outcome"]["evidence"] == "compared"
    head = bucket.client.head_object(Bucket=bucket.name, Key="in/c/x")
    assert (head["ContentType"], head["Metadata"]["by"]) == ("text/x", "me")


def test_a_large_object_copied_inside_a_store_keeps_what_describes_it(machine, bucket, seaweed):
    machine.configure(config_of(machine, seaweed, bucket.name, ", copy_size: 5242880"))
    bucket.put("in/a/x", os.urandom(11 * 2**20), ContentType="text/x", Metadata={"by": "me"})
    shown = sync(machine, "cloud:a", "cloud:b")
    assert shown["progress"]["bytes_native"] == 11 * 2**20
    head = bucket.client.head_object(Bucket=bucket.name, Key="in/b/x")
    assert (head["ContentType"], head["Metadata"]["by"]) == ("text/x", "me")
    assert bucket.get("in/b/x") == bucket.get("in/a/x")


def test_parts_of_a_logical_file_are_no_business_of_a_sync(machine, bucket, source):
    (machine.folder / "x.dat").write_bytes(os.urandom(1000))
    machine("spray", "x.dat", "a::x", "--plane", "cloud", "--parts", "2", "--format", "fixed:10")
    bucket.put("in/a/mine", b"mine")
    machine("files", "register", "a::mine", "cloud:a/mine")
    bucket.put("in/a/extra", b"extra")
    shown = sync(machine, "data:in", "cloud:a", "--delete")
    assert shown["outcome"]["objects"]["deleted"] == 1
    assert any("generation folders" in warning for warning in shown["warnings"])
    assert not stored(bucket, "in/a/extra")
    machine("files", "verify", "a::x")
    machine("files", "verify", "a::mine")


def test_one_place_under_two_names_is_refused(machine, bucket, source, seaweed):
    (machine.folder / "link").symlink_to("plane/in")
    text = config_of(machine, seaweed, bucket.name)
    twin = text.splitlines()[2].replace("cloud:", "twin:").replace("prefix: in/", "prefix: in/deep/")
    machine.configure(f"{text}{twin}\n")
    for start, end in (
        ("data:in", "./plane"),
        ("./link", "data:in/deep"),
        ("cloud:deep", "twin:x"),
        ("twin:", "cloud:"),
    ):
        told = machine("sync", start, end, "--delete", "--json", code=2)
        assert "lies in the other" in told.error["message"]


def test_large_objects_go_in_steps(machine, bucket):
    data = {"large": os.urandom(40 * 2**20), "small": b"s"}
    write(machine.folder / "plane/in", data)
    up = sync(machine, "data:in", "cloud:up")
    assert up["outcome"]["evidence"] == "compared"
    down = sync(machine, "cloud:up", "./down")
    assert down["outcome"]["evidence"] == "compared"
    assert content(machine.folder / "down") == data
    assert bucket.open_uploads() == []
    here = sync(machine, "./down", "./again", "--verify", "read")
    assert (here["outcome"]["evidence"], here["progress"]["bytes_native"]) == ("compared", 40 * 2**20 + 1)


def test_what_differs_is_copied_and_what_only_looks_so_is_not(machine, bucket):
    folder = machine.folder / "plane/in"
    write(folder, {"same": b"same", "size": b"1", "newer": b"aaaa", "touched": b"bbbb", "older": b"cccc"})
    for file in folder.iterdir():  # a store tells whole seconds: what it got in the same one would look older there
        os.utime(file, (time.time() - 100, time.time() - 100))
    sync(machine, "data:in", "cloud:up")
    write(folder, {"size": b"12", "newer": b"AAAA"})
    later, before = time.time() + 100, time.time() - 10_000
    for name in ("newer", "touched"):
        os.utime(folder / name, (later, later))
    (folder / "older").write_bytes(b"CCCC")
    os.utime(folder / "older", (before, before))
    planned = sync(machine, "data:in", "cloud:up", "--dry-run")
    assert {(o["key"], o["why"]) for o in planned["objects"]} == {
        ("size", "size"),
        ("newer", "newer"),
        ("touched", "newer"),
    }
    nothing = dict.fromkeys(("delete", "compare", "compare_bytes", "fail"), 0)
    assert planned["totals"] == {"copy": 3, "copy_bytes": 10, "equal": 2} | nothing
    looked = sync(machine, "data:in", "cloud:up", "--checksum", "--dry-run")
    assert {o["key"] for o in looked["objects"] if o["action"] == "compare"} == {"same", "older"}
    assert (looked["totals"]["copy"], looked["totals"]["compare"]) == (5, 2)
    assert counts(sync(machine, "data:in", "cloud:up")) == (2, 3, 0, 0)
    assert stored(bucket, "in/up/")["older"] == b"cccc"
    assert counts(sync(machine, "data:in", "cloud:up", "--checksum")) == (1, 4, 0, 0)
    assert stored(bucket, "in/up/") == content(folder)


def test_filters_and_lists_of_names(machine, bucket, source):
    sync(machine, "data:in", "cloud:csv", "--include", "*.csv", "--exclude", "ü/")
    assert set(stored(bucket, "in/csv/")) == {name for name in ODD if name.endswith(".csv") and "/" not in name}
    names = ["0/000.bin", "./1/001.bin", "#hash", "", "not/there"]
    (machine.folder / "names").write_text("\n".join(names))
    shown = sync(machine, "data:in", "cloud:named", "--files-from", "names", code=11)
    assert set(stored(bucket, "in/named/")) == {"0/000.bin", "1/001.bin", "#hash"}
    assert shown["state"] == "PARTLY_SUCCEEDED"
    assert [(e["key"], e["reason"]) for e in shown["outcome"]["objects"]["exceptions"]] == [
        ("not/there", "OBJECT_NOT_FOUND")
    ]


def test_delete_is_asked_for_guarded_and_last(machine, bucket, source):
    sync(machine, "data:in", "cloud:up")
    for name in [name for name in source if name.startswith("0/")]:
        (machine.folder / "plane/in" / name).unlink()
        del source[name]
    gone = 50 - len(source)
    bucket.put("in/up/kept.log", b"excluded")
    assert counts(sync(machine, "data:in", "cloud:up")) == (0, len(source), 0, 0)
    more = ("--delete", "--exclude", "*.log")
    planned = sync(machine, "data:in", "cloud:up", *more, "--dry-run")
    assert planned["totals"]["delete"] == gone == len([o for o in planned["objects"] if o["action"] == "delete"])
    (machine.folder / "plane/in/new").write_bytes(b"new")
    refused = machine("sync", "data:in", "cloud:up", *more, "--max-delete", str(gone - 1), "--json", code=7)
    assert str(gone) in refused.error["message"]
    assert "new" not in stored(bucket, "in/up/"), "nothing was done"
    shown = sync(machine, "data:in", "cloud:up", *more, "--max-delete", str(gone))
    assert counts(shown) == (1, len(source), gone, 0)
    assert stored(bucket, "in/up/") == source | {"new": b"new", "kept.log": b"excluded"}


def test_an_empty_or_mistyped_source_empties_nothing(machine, bucket):
    bucket.put("in/up/x", b"x")
    (machine.folder / "empty").mkdir()
    for folder in ("./empty", "./mistyped", "cloud:mistyped", "data:nothing/"):
        machine("sync", folder, "cloud:up", "--delete", code=4)
    assert stored(bucket, "in/up/") == {"x": b"x"}


def test_nothing_behind_a_link_to_a_directory_is_touched(machine):
    for folder, names in {"source": ["a"], "target": [], "precious": ["k"], "elsewhere": ["secret"]}.items():
        write(machine.folder / folder, dict.fromkeys(names, b"1"))
    (machine.folder / "target").mkdir(exist_ok=True)
    (machine.folder / "target/ext").symlink_to("../precious")
    (machine.folder / "source/more").symlink_to("../elsewhere")
    sync(machine, "./source", "./target", "--delete")
    assert content(machine.folder / "precious") == {"k": b"1"}
    assert sorted(p.name for p in (machine.folder / "target").iterdir()) == ["a", "ext"]


def test_folders_within_each_other_are_refused(machine, bucket):
    for start, end in (("cloud:", "cloud:a"), ("cloud:a/b", "cloud:a"), ("./a", "./a/")):
        machine("sync", start, end, code=2)
    machine("sync", "nowhere:a", "cloud:a", code=4)
    machine("sync", "./a", "cloud:a", "--max-delete", "3", code=2)
    machine("sync", "./a", "cloud:a", "--include", "[z-a]", code=2)


def test_what_cannot_be_copied_is_named_and_nothing_is_deleted(machine, bucket):
    for key in ("in/s/ok", "in/s/.cropduster-mine", "in/s/a", "in/s/dir/"):
        bucket.put(key, key.encode())
    write(machine.folder / "plane/t", {"a/b": b"in the way", "extra": b"extra"})
    shown = sync(machine, "cloud:s", "data:t", "--delete", code=11)
    failed = {e["key"] for e in shown["outcome"]["objects"]["exceptions"]}
    assert failed == {".cropduster-mine", "a"}
    assert counts(shown) == (1, 0, 0, 2)
    assert content(machine.folder / "plane/t") == {"a/b": b"in the way", "extra": b"extra", "ok": b"in/s/ok"}
    assert any("nothing was deleted" in warning for warning in shown["warnings"])
    told = machine("sync", "cloud:s", "data:t", code=11)
    assert "2 failed" in told.out
    assert ".cropduster-mine" in told.err


def test_kill_9_in_the_middle_and_nothing_is_copied_twice(machine, bucket, seaweed):
    source = some(machine, 200)
    slow = ", limits: {requests: 2, bytes_per_second: 100000}"
    machine.configure(config_of(machine, seaweed, bucket.name, slow))
    transfer = machine("sync", "data:in", "cloud:up", "--no-wait", "--json").json["id"]
    done = until(machine, transfer, 30)
    machine.kill()
    there = {key: modified(bucket, key) for key in sorted(bucket.keys())}
    machine.configure(config_of(machine, seaweed, bucket.name))
    shown = machine("transfers", "watch", transfer, "--json").json
    assert counts(shown) == (200, 0, 0, 0)
    assert stored(bucket, "in/up/") == source
    again = [key for key, before in there.items() if modified(bucket, key) != before]
    assert len(again) <= max(20, len(there) - done), f"{len(again)} of {len(there)} were written again"
    assert bucket.open_uploads() == []


def test_a_cancelled_sync_keeps_whole_objects_and_leaves_no_upload(machine, bucket, seaweed, source):
    write(machine.folder / "plane/in", {"0large": os.urandom(40 * 2**20)})
    slow = ", put_size: 5MiB, limits: {requests: 2, bytes_per_second: 4000000}"
    machine.configure(config_of(machine, seaweed, bucket.name, slow))
    transfer = machine("sync", "data:in", "cloud:up", "--no-wait", "--json").json["id"]
    until(machine, transfer, 5)
    machine("transfers", "pause", transfer)
    until(machine, transfer, 5, state="PAUSED")
    machine("transfers", "resume", transfer)
    machine("transfers", "cancel", transfer)
    told = machine("transfers", "watch", transfer, code=130)
    assert "what it had copied stays" in told.err
    found = stored(bucket, "in/up/")
    assert found
    assert all(source.get(name, found[name]) == data for name, data in found.items())
    assert bucket.open_uploads() == []


def modified(bucket, key):
    return bucket.client.head_object(Bucket=bucket.name, Key=key)["LastModified"]


def until(machine, transfer, parts, state=""):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = machine("transfers", "show", transfer, "--json").json
        if shown["progress"]["parts_done"] >= parts and state in {"", shown["state"]}:
            return shown["progress"]["parts_done"]
        time.sleep(0.05)
    raise AssertionError(shown)
