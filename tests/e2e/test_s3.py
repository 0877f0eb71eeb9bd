"""Spray, despray and copy with a real S3 store: native routes, evidence, faults."""

from __future__ import annotations

import os
import time

import pytest

from tests.e2e.conftest import config_of

MIB = 2**20


def spray(machine, *arguments: str) -> dict:
    return machine("spray", *arguments, "--json").json


def test_from_posix_to_a_store_and_back(machine, bucket):
    data = os.urandom(24_117_300)
    (machine.folder / "x.dat").write_bytes(data)
    shown = spray(machine, "x.dat", "a::x", "--plane", "cloud", "--format", "fixed:100", "--parts", "3")
    assert shown["outcome"]["evidence"] == "compared"
    assert shown["progress"]["bytes_through_us"] == len(data)
    parts = machine("files", "show", "a::x", "--uris", "--json").json["parts"]
    assert [p["uri"] for p in parts] == [f"s3://{bucket.name}/in/{p['key']}" for p in parts]
    assert b"".join(bucket.get(f"in/{p['key']}") for p in parts) == data
    assert bucket.open_uploads() == []
    machine("files", "verify", "a::x")
    verdicts = machine("files", "verify", "a::x", "--json").json["parts"]
    assert {v["verdict"] for v in verdicts} == {"stored"}
    back = machine("despray", "a::x", "./y.dat", "--json").json
    assert back["outcome"]["evidence"] == "compared"
    assert (machine.folder / "y.dat").read_bytes() == data


def test_inside_a_store_only_windows_travel(machine, bucket):
    line = b'12345,"some text, quoted",67890\n'
    data = line * (40 * MIB // len(line))
    bucket.put("in/x.csv", data, ChecksumAlgorithm="CRC64NVME")
    plan = machine("spray", "cloud:x.csv", "a::x", "--plane", "cloud", "--parts", "4", "--dry-run", "--json").json
    assert {p["route"] for p in plan["parts"]} == {"copied in ranges"}
    shown = spray(machine, "cloud:x.csv", "a::x", "--plane", "cloud", "--parts", "4")
    assert shown["progress"]["bytes_through_us"] <= 3 * 16 * 1024 + 8192
    assert shown["progress"]["bytes_through_us"] == plan["bytes_through_us"]
    assert shown["progress"]["bytes_native"] == len(data)
    (taken,) = shown["outcome"]["routes"]
    assert (taken["route"], taken["parts"], taken["size"]) == ("copied in ranges", [{"first": 1, "last": 4}], len(data))
    assert "parts 1-4 copied in ranges (it is not one whole object)" in machine("transfers", "show", shown["id"]).out
    assert "4 parts copied in ranges" in shown["outcome"]["route"]
    assert shown["outcome"]["evidence"] == "compared"
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    texts = [bucket.get(f"in/{p['key']}") for p in parts]
    assert b"".join(texts) == data
    assert all(t.startswith(b'12345,"some') and t.endswith(b"\n") for t in texts)
    back = machine("despray", "a::x", "cloud:y.csv", "--json").json
    assert back["progress"]["bytes_through_us"] == 0
    assert back["outcome"]["evidence"] == "compared"
    assert bucket.get("in/y.csv") == data


def test_a_source_without_a_stored_checksum_is_pinned_until_both_ends_are_read(machine, bucket):
    data = os.urandom(12 * MIB)
    bucket.put("in/x.dat", data)
    arguments = ("cloud:x.dat", "--plane", "cloud", "--format", "fixed:1", "--parts", "2")
    pinned = spray(machine, *arguments[:1], "a::x", *arguments[1:])
    assert pinned["outcome"]["evidence"] == "pinned"
    read = spray(machine, *arguments[:1], "a::y", *arguments[1:], "--verify", "read")
    assert read["outcome"]["evidence"] == "compared"
    assert machine("files", "show", "a::y", "--json").json["evidence"] == "compared"


def test_a_copy_of_parts_and_a_re_spray_stay_in_the_store(machine, bucket):
    data = os.urandom(24 * MIB)
    (machine.folder / "x.dat").write_bytes(data)
    spray(machine, "x.dat", "a::x", "--plane", "cloud", "--format", "fixed:16", "--parts", "3")
    same = machine("copy", "a::x", "a::same", "--json").json
    assert same["progress"]["bytes_through_us"] == 0
    fewer = machine("copy", "a::x", "a::fewer", "--parts", "2", "--json").json
    assert fewer["progress"]["bytes_through_us"] == 5 * MIB, "4 MiB are too few for a step that is not the last"
    assert {same["outcome"]["evidence"], fewer["outcome"]["evidence"]} == {"compared"}
    for name, count in (("a::same", 3), ("a::fewer", 2)):
        parts = machine("files", "show", name, "--json").json["parts"]
        assert len(parts) == count
        assert b"".join(bucket.get(f"in/{p['key']}") for p in parts) == data
    machine("copy", "a::x", "a::here", "--plane", "data", "--parts", "5")
    assert machine("files", "verify", "a::here", "--read", "--json").json["ok"]


def test_small_objects_and_empty_parts(machine, bucket):
    bucket.put("in/s.csv", b"a,b\n1,2\n")
    spray(machine, "cloud:s.csv", "a::s", "--plane", "cloud", "--parts", "4")
    assert machine("cat", "a::s").out == "a,b\n1,2\n"
    machine("despray", "a::s", "cloud:t.csv")
    assert bucket.get("in/t.csv") == b"a,b\n1,2\n"
    machine("copy", "a::s", "a::t")
    assert machine("cat", "a::t").out == "a,b\n1,2\n"


def test_wildcards_expand_in_byte_order_or_natural_order(machine, bucket):
    for number in (1, 2, 10):
        bucket.put(f"in/p/part{number}.csv", f"{number}\n".encode())
    spray(machine, "cloud:p/part*.csv", "a::bytes", "--parts", "1")
    spray(machine, "cloud:p/part*.csv", "a::natural", "--parts", "1", "--order", "natural")
    assert machine("cat", "a::bytes").out == "1\n10\n2\n"
    assert machine("cat", "a::natural").out == "1\n2\n10\n"


def test_registered_objects_are_read_and_never_destroyed_by_accident(machine, bucket):
    bucket.put("in/1.csv", b"1\n")
    bucket.put("in/2.csv", b"2\n")
    machine("files", "register", "a::r", "cloud:2.csv", "cloud:1.csv", "--format", "csv")
    shown = machine("files", "show", "a::r", "--json").json
    assert [p["owned"] for p in shown["parts"]] == [False, False]
    assert machine("cat", "a::r").out == "2\n1\n"
    machine("files", "delete", "a::r")
    assert bucket.keys() == ["in/1.csv", "in/2.csv"]
    machine("files", "register", "a::r", "cloud:1.csv")
    machine("files", "delete", "a::r", "--with-parts", "--yes")
    assert bucket.keys() == ["in/2.csv"]


def test_kill_9_in_the_middle_of_a_spray_into_a_store(machine, bucket, seaweed):
    data = os.urandom(48 * MIB)
    (machine.folder / "x.dat").write_bytes(data)
    machine.configure(config_of(machine, seaweed, bucket.name, ", limits: {bytes_per_second: 6000000}, put_size: 5MiB"))
    first = spray(machine, "x.dat", "a::x", "--plane", "cloud", "--format", "fixed:1", "--parts", "2", "--no-wait")
    for _ in range(300):
        if machine("transfers", "show", first["id"], "--json").json["progress"]["bytes_done"] > 16 * MIB:
            break
        time.sleep(0.05)
    machine.kill()
    machine.configure(config_of(machine, seaweed, bucket.name))
    shown = machine("transfers", "watch", first["id"], "--json").json
    assert shown["state"] == "SUCCEEDED"
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert b"".join(bucket.get(f"in/{p['key']}") for p in parts) == data
    assert bucket.open_uploads() == []


def test_a_cancelled_spray_leaves_no_object_and_no_open_upload_but_a_strangers(machine, bucket, seaweed):
    stranger = seaweed.client().create_multipart_upload(Bucket=bucket.name, Key="in/a/x/theirs")["UploadId"]
    (machine.folder / "x.dat").write_bytes(os.urandom(40 * MIB))
    machine.configure(config_of(machine, seaweed, bucket.name, ", limits: {bytes_per_second: 4000000}"))
    first = spray(machine, "x.dat", "a::x", "--plane", "cloud", "--format", "fixed:1", "--parts", "2", "--no-wait")
    for _ in range(300):
        if bucket.open_uploads() != ["in/a/x/theirs"]:
            break
        time.sleep(0.05)
    machine("transfers", "cancel", first["id"])
    assert machine("transfers", "watch", first["id"], "--json", code=130).json["state"] == "CANCELLED"
    assert bucket.keys() == []
    assert bucket.open_uploads() == ["in/a/x/theirs"]
    seaweed.client().abort_multipart_upload(Bucket=bucket.name, Key="in/a/x/theirs", UploadId=stranger)


def test_a_source_overwritten_in_mid_transfer(machine, bucket, seaweed):
    bucket.put("in/x.dat", os.urandom(30 * MIB))
    machine.configure(
        config_of(machine, seaweed, bucket.name, ", limits: {bytes_per_second: 3000000}, copy_size: 5MiB")
    )
    first = spray(
        machine, "cloud:x.dat", "a::x", "--plane", "cloud", "--format", "fixed:1", "--parts", "1", "--no-wait"
    )
    for _ in range(300):
        if machine("transfers", "show", first["id"], "--json").json["progress"]["bytes_done"]:
            break
        time.sleep(0.05)
    bucket.put("in/x.dat", b"other")
    result = machine("transfers", "watch", first["id"], "--json", code=6)
    assert result.json["error"]["reason"] == "SOURCE_CHANGED"
    assert bucket.keys() == ["in/x.dat"]
    assert bucket.open_uploads() == []


@pytest.mark.parametrize("what", ["key", "bucket"])
def test_wrong_credentials_and_a_missing_bucket_are_told_apart(machine, bucket, seaweed, what):
    (machine.folder / "x.dat").write_bytes(b"x" * 100)
    if what == "key":
        machine.environment["SK"] = "not-the-secret-key"
        code, reason = 7, "PLANE_REFUSED"
    else:
        machine.configure(config_of(machine, seaweed, "no-such-bucket"))
        code, reason = 7, "PLANE_MISSING"
    error = machine("spray", "x.dat", "a::x", "--plane", "cloud", "--format", "fixed:1", "--json", code=code).error
    assert error["reason"] == reason, error
    assert "cloud" in error["message"]
    assert "not-the-secret-key" not in machine.log()


def test_no_secret_is_written_anywhere(machine, bucket):
    (machine.folder / "x.dat").write_bytes(b"x" * 100)
    to = ("--plane", "cloud", "--format", "fixed:1")
    spray(machine, "x.dat", "a::x", *to)
    said = [
        machine("planes", "show", "cloud", "--json"),
        machine("transfers", "list", "--json"),
        machine("spray", "x.dat", "a::y", *to, "--dry-run", "--json"),
        machine("spray", "cloud:gone", "a::y", *to, "--json", code=4),
    ]
    machine.signal(15)
    secret = bucket.store.secret_key.encode()
    assert [each for each in said if secret.decode() in each.out + each.err] == []
    for path in machine.state.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path


def test_a_plane_is_checked_by_trying_its_contract(machine, bucket):
    checked = machine("planes", "check", "cloud", "--json").json
    assert checked["ok"], checked
    assert bucket.keys() == []


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C"])
@pytest.mark.parametrize("plane", ["cloud", "data"])
def test_a_source_with_another_composable_checksum_is_compared_in_that(machine, bucket, algorithm, plane):
    data = os.urandom(13 * MIB)
    bucket.put("in/x.dat", data, ChecksumAlgorithm=algorithm)
    shown = spray(machine, "cloud:x.dat", "a::x", "--plane", plane, "--format", "fixed:1", "--parts", "2")
    assert shown["outcome"]["evidence"] == "compared"
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert all(algorithm.lower() in p["checksum"] for p in parts)
    assert machine("files", "verify", "a::x", "--read", "--json").json["ok"]
    copied = machine("copy", "a::x", "a::y", "--plane", "cloud", "--json").json
    assert copied["outcome"]["evidence"] == "compared"
    machine("despray", "a::x", "./y.dat")
    assert (machine.folder / "y.dat").read_bytes() == data


def test_a_composite_checksum_is_never_compared(machine, bucket):
    from boto3.s3.transfer import TransferConfig

    path = machine.folder / "x.dat"
    path.write_bytes(os.urandom(17 * MIB))
    bucket.client.upload_file(
        str(path),
        bucket.name,
        "in/x.dat",
        ExtraArgs={"ChecksumAlgorithm": "SHA256"},
        Config=TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB),
    )
    shown = spray(machine, "cloud:x.dat", "a::x", "--plane", "cloud", "--format", "fixed:1", "--parts", "2")
    assert shown["outcome"]["evidence"] == "pinned"
