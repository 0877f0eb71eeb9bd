"""The sweep on real stores: what our ended transfers left open goes, whatever a stranger has open stays."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from tests.doubles import proxy
from tests.e2e.conftest import config_of
from tests.e2e.test_azure import config_of as azure_config
from tests.e2e.test_azure import container  # noqa: F401 - a fixture

MIB = 2**20
SPRAY = ("--format", "fixed:1", "--parts", "1", "--json")


def lose_a_create(between: proxy.Proxy) -> None:
    """The store begins an upload, its answer is lost, and its listing is late: the retry does not see it."""
    between.once(proxy.drop_answer, method="POST", query="uploads")
    between.once(proxy.answer(501, "NotImplemented"), method="GET", query="uploads")


def swept_by_itself(machine, is_open) -> None:
    """Let a new server do its first round, which finds what is open; the next comes a minute later."""
    machine.kill()
    machine("planes", "list")
    for _ in range(400):
        if not is_open():
            return
        time.sleep(0.05)
    pytest.fail(f"still open: {is_open()}")


def test_a_create_whose_answer_was_lost_leaves_an_upload_that_the_sweep_finds(machine, bucket, seaweed):
    """The store made it, the answer never came: nobody knows its id; the recorded transfer tells its folder."""
    client = seaweed.client()
    (machine.folder / "x.dat").write_bytes(os.urandom(20 * MIB))
    stranger = {"Bucket": bucket.name, "Key": "in/a/x/theirs"}
    other = {"Bucket": bucket.name, "Key": "in/a/x/~0123456789ab/x._1_of_1"}  # of another Cropduster on this bucket
    with proxy.before(seaweed.endpoint) as between:
        machine.configure(config_of(machine, seaweed, bucket.name).replace(seaweed.endpoint, between.endpoint))
        lose_a_create(between)
        machine("spray", "x.dat", "a::first", "--plane", "cloud", *SPRAY)
        swept_by_itself(machine, bucket.open_uploads)
        for named in (stranger, other):
            named["UploadId"] = client.create_multipart_upload(**named)["UploadId"]
        client.upload_part(**stranger, PartNumber=1, Body=b"theirs")
        lose_a_create(between)
        done = machine("spray", "x.dat", "a::x", "--plane", "cloud", *SPRAY).json
        key = f"in/a/x/~{done['id']}/x._1_of_1"
        assert key in bucket.open_uploads(), "the transfer has succeeded with a second upload of the same key"
        would = machine("planes", "sweep", "cloud", "--dry-run", "--json").json
        mine = {"key": key.removeprefix("in/"), "transfer": f"transfers/{done['id']}", "left": ""}
        assert would == {"plane": "cloud", "dry_run": True, "uploads": [mine]}
        assert key in bucket.open_uploads()
        assert machine("planes", "sweep", "cloud", "--json").json == {**would, "dry_run": False}
        assert sorted(bucket.open_uploads()) == sorted([stranger["Key"], other["Key"]])
        assert machine("planes", "sweep", "cloud").out == "0 open uploads ended\n"
    assert [part["Size"] for part in client.list_parts(**stranger)["Parts"]] == [6], "it can go on"
    assert machine("files", "verify", "a::x", "--json").json["ok"]


def test_a_failed_transfer_with_a_lost_create_has_ended_it_before_it_says_so(machine, bucket, seaweed):
    (machine.folder / "x.dat").write_bytes(os.urandom(20 * MIB))
    with proxy.before(seaweed.endpoint) as between:
        machine.configure(config_of(machine, seaweed, bucket.name).replace(seaweed.endpoint, between.endpoint))
        lose_a_create(between)
        between.always(proxy.answer(403, "AccessDenied"), method="PUT", query="partNumber")
        assert machine("spray", "x.dat", "a::x", "--plane", "cloud", *SPRAY, code=7).error["reason"] == "PLANE_REFUSED"
        assert len(between.requests("POST", "uploads")) == 2
        assert bucket.open_uploads() == []


def test_a_running_transfer_keeps_its_uploads(machine, bucket, seaweed):
    (machine.folder / "x.dat").write_bytes(os.urandom(24 * MIB))
    machine.configure(config_of(machine, seaweed, bucket.name, ", limits: {bytes_per_second: 6000000}, put_size: 5MiB"))
    first = machine("spray", "x.dat", "a::x", "--plane", "cloud", *SPRAY, "--no-wait").json
    while not bucket.open_uploads():
        time.sleep(0.02)
    assert machine("planes", "sweep", "cloud", "--json").json["uploads"] == []
    assert machine("transfers", "watch", first["id"], "--json").json["state"] == "SUCCEEDED"


def test_azure_uncommitted_blocks_of_ours_go_and_a_strangers_stay(machine, container):  # noqa: F811
    data = os.urandom(MIB)
    (machine.folder / "x.dat").write_bytes(data)
    done = machine("spray", "x.dat", "a::x", "--plane", "az", *SPRAY).json
    home, attempt = f"in/a/x/~{done['id']}", f"{done['id']}-2"
    mine = f"cropduster-{hashlib.sha256(attempt.encode()).hexdigest()[:32]}-"
    machine.configure(azure_config(machine, container.name))
    with container.account.client() as client:
        ours = client.get_blob_client(container.name, f"{home}/x._2_of_2")
        ours.stage_block(f"{mine}00001", b"ours")
        swept_by_itself(machine, lambda: {f"{home}/x._2_of_2"} & set(container.keys()))
        ours.stage_block(f"{mine}00001", b"ours")
        client.get_blob_client(container.name, f"{home}/x._3_of_3").stage_block("1", b"theirs, in our folder")
        client.get_blob_client(container.name, "in/theirs").stage_block("1", b"theirs")
        client.get_blob_client(container.name, f"{home}/x._1_of_1").stage_block("1", b"theirs, at our blob")
    swept = machine("planes", "sweep", "az", "--json").json["uploads"]
    assert [one["key"] for one in swept] == [f"a/x/~{done['id']}/x._2_of_2"]
    left = [f"{home}/_manifest.json", f"{home}/x._1_of_1", f"{home}/x._3_of_3", "in/theirs"]
    assert sorted(container.keys()) == sorted(left)
    assert container.get(f"{home}/x._1_of_1") == data
