"""Copies of one logical file on several planes: real stores, real commands, kill -9."""

from __future__ import annotations

import os
import time

from tests.e2e.conftest import config_of

SIZE = 3_000_000


def test_a_file_of_azure_is_replicated_to_a_directory_and_to_s3_and_outlives_the_first_two(machine, bucket, account):
    name = f"c{os.urandom(6).hex()}"
    account.create_container(name)
    machine.environment["CS"] = account.connection_string
    az = f"  az: {{type: azure, container: {name}, connection_string: {{env: CS}}}}\n"
    machine.configure(config_of(machine, bucket.store, bucket.name) + az)
    data = os.urandom(SIZE)
    (machine.folder / "x.dat").write_bytes(data)
    machine("spray", "x.dat", "a::x", "--plane", "az", "--format", "fixed:1000", "--parts", "3")

    planned = machine("replicate", "a::x", "--plane", "data", "--dry-run", "--json").json
    assert [part["route"] for part in planned["parts"]] == ["streamed"] * 3
    for plane in ("data", "cloud"):
        shown = machine("replicate", "a::x", "--plane", plane, "--json").json
        assert (shown["verb"], shown["outcome"]["evidence"]) == ("replicate", "compared")
    assert machine("replicate", "a::x", "--plane", "cloud", "--json", code=5).error["reason"] == "TARGET_EXISTS"

    file = machine("files", "show", "a::x", "--uris", "--json").json
    assert [replica["plane"] for replica in file["replicas"]] == ["data", "cloud"]
    cloud = file["replicas"][1]["parts"]
    assert [part["uri"] for part in cloud] == [f"s3://{bucket.name}/in/{part['key']}" for part in cloud]
    assert b"".join(bucket.get(f"in/{part['key']}") for part in cloud) == data
    sums = [[part["checksum"] for part in copy] for copy in (file["parts"], file["replicas"][0]["parts"], cloud)]
    assert sums[0] == sums[1] == sums[2]
    assert machine("files", "verify", "a::x", "--json").json["ok"]

    with account.client() as client:
        client.delete_container(name)
    (machine.folder / "plane" / file["replicas"][0]["parts"][1]["key"]).write_bytes(bytes(10))
    machine("despray", "a::x", "out.dat")
    assert (machine.folder / "out.dat").read_bytes() == data
    checked = machine("files", "verify", "a::x", "--json", code=9)
    verdicts = [(part["plane"], part["verdict"]) for part in checked.json["parts"]]
    assert verdicts[:5] == [("az", "away")] * 3 + [("data", "size"), ("data", "different")]
    assert "'cropduster replicate a::x --plane data' makes it again" in checked.error["message"]

    machine("replicate", "a::x", "--plane", "data")
    machine.configure(config_of(machine, bucket.store, bucket.name))
    machine("despray", "a::x", "again.dat")
    assert (machine.folder / "again.dat").read_bytes() == data


def test_the_next_call_finishes_a_replicate_whose_server_was_killed(machine):
    size = 12 << 20
    for folder in ("one", "two"):
        (machine.folder / folder).mkdir()

    def configure(limit: int) -> None:
        one, two = (f"{{type: posix, path: {machine.folder / folder}" for folder in ("one", "two"))
        machine.configure(f"planes:\n  one: {one}}}\n  two: {two}, limits: {{bytes_per_second: {limit}}}}}\n")

    configure(4_000_000)
    (machine.folder / "x.dat").write_bytes(os.urandom(size))
    machine("spray", "x.dat", "a::x", "--plane", "one", "--format", "fixed:1", "--parts", "12")
    transfer = machine("replicate", "a::x", "--plane", "two", "--no-wait", "--json").json["id"]
    deadline = time.monotonic() + 60
    while machine("transfers", "show", transfer, "--json").json["progress"]["bytes_done"] < size // 4:
        assert time.monotonic() < deadline
    machine.kill()
    assert machine("files", "show", "a::x", "--json").json["replicas"] == []
    configure(0)
    shown = machine("transfers", "watch", transfer, "--json").json
    assert (shown["state"], shown["outcome"]["evidence"]) == ("SUCCEEDED", "compared")
    [replica] = machine("files", "show", "a::x", "--json").json["replicas"]
    joined = b"".join((machine.folder / "two" / part["key"]).read_bytes() for part in replica["parts"])
    assert joined == (machine.folder / "x.dat").read_bytes()
    assert len(machine.files(machine.folder / "two")) == 13
