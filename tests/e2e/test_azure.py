"""Spray, despray and copy with a real Azure Blob service: native routes, evidence, both ways between the clouds."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import pytest

from tests.doubles import azurite, proxy
from tests.doubles.azure_pull import Puller

MIB = 2**20
CRC = "cropduster_crc64nvme"


@dataclass
class Container:
    """A container of its own for one test, looked at behind Cropduster's back."""

    account: azurite.Account
    name: str

    def put(self, key: str, data: bytes) -> None:
        with self.account.client() as client:
            client.get_blob_client(self.name, key).upload_blob(data, overwrite=True)

    def get(self, key: str) -> bytes:
        with self.account.client() as client:
            return client.get_blob_client(self.name, key).download_blob().readall()

    def keys(self) -> list[str]:
        """Of blobs, and of what only has waiting blocks."""
        with self.account.client() as client:
            found = client.get_container_client(self.name).list_blobs(include=["uncommittedblobs"])
            return [blob.name for blob in found]


@pytest.fixture
def container(machine, account):
    """A fresh container, and the machine configured with the planes `az` (in/ of it) and `data` (posix)."""
    name = f"c{os.urandom(6).hex()}"
    account.create_container(name)
    machine.environment |= {"CS": account.connection_string, "KEY": account.key}
    (machine.folder / "plane").mkdir(exist_ok=True)
    machine.configure(config_of(machine, name))
    return Container(account, name)


def config_of(machine, container: str, more: str = "", rest: str = "") -> str:
    return (
        "planes:\n"
        f"  data: {{type: posix, path: {machine.folder}/plane}}\n"
        f"  az: {{type: azure, container: {container}, prefix: in/, connection_string: {{env: CS}}{more}}}\n"
        f"{rest}"
    )


def spray(machine, *arguments: str) -> dict:
    return machine("spray", *arguments, "--json").json


def test_from_posix_to_azure_and_back(machine, container):
    data = os.urandom(2_117_300)
    (machine.folder / "x.dat").write_bytes(data)
    machine.configure(config_of(machine, container.name, ", put_size: 256KiB"))
    shown = spray(machine, "x.dat", "a::x", "--plane", "az", "--format", "fixed:100", "--parts", "3")
    assert shown["outcome"]["evidence"] == "compared"
    assert shown["progress"]["bytes_through_us"] == len(data)
    parts = machine("files", "show", "a::x", "--uris", "--json").json["parts"]
    assert [p["uri"] for p in parts] == [f"az://{container.name}/in/{p['key']}" for p in parts]
    assert b"".join(container.get(f"in/{p['key']}") for p in parts) == data
    assert {v["verdict"] for v in machine("files", "verify", "a::x", "--json").json["parts"]} == {"stored"}
    back = machine("despray", "a::x", "./y.dat", "--json").json
    assert back["outcome"]["evidence"] == "compared"
    assert (machine.folder / "y.dat").read_bytes() == data


def test_inside_azure_only_windows_travel(machine, container):
    line = b'12345,"some text, quoted",67890\n'
    data = line * (3 * MIB // len(line))
    container.put("in/x.csv", data)
    machine.configure(config_of(machine, container.name, ", copy_size: 512KiB"))
    plan = machine("spray", "az:x.csv", "a::x", "--plane", "az", "--parts", "4", "--dry-run", "--json").json
    assert {p["route"] for p in plan["parts"]} == {"copied in ranges"}
    shown = spray(machine, "az:x.csv", "a::x", "--plane", "az", "--parts", "4")
    # Windows around the split points; and, for `pinned`, both ends of every part are looked at.
    assert shown["progress"]["bytes_through_us"] == plan["bytes_through_us"] <= 3 * 16 * 1024 + 8192
    assert shown["progress"]["bytes_native"] == len(data)
    assert shown["outcome"]["evidence"] == "pinned", "a stranger's blob has no checksum of the whole"
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    texts = [container.get(f"in/{p['key']}") for p in parts]
    assert b"".join(texts) == data
    assert all(t.startswith(b'12345,"some') and t.endswith(b"\n") for t in texts)
    back = machine("despray", "a::x", "az:y.csv", "--json").json
    assert back["progress"]["bytes_through_us"] == 0
    assert back["outcome"]["evidence"] == "compared"
    assert container.get("in/y.csv") == data
    again = spray(machine, "az:y.csv", "a::again", "--plane", "az", "--parts", "3")
    assert again["outcome"]["evidence"] == "compared", "what we wrote ourselves says its checksum"


def test_a_re_spray_of_other_parts_stays_in_azure(machine, container):
    data = os.urandom(2 * MIB)
    (machine.folder / "x.dat").write_bytes(data)
    spray(machine, "x.dat", "a::x", "--plane", "az", "--format", "fixed:16", "--parts", "3")
    for name, count in (("a::same", 3), ("a::fewer", 2), ("a::more", 7)):
        copied = machine("copy", "a::x", name, "--parts", str(count), "--json").json
        assert copied["progress"]["bytes_through_us"] == 0
        assert copied["outcome"]["evidence"] == "compared"
        parts = machine("files", "show", name, "--json").json["parts"]
        assert len(parts) == count
        assert b"".join(container.get(f"in/{p['key']}") for p in parts) == data
    machine("copy", "a::x", "a::here", "--plane", "data", "--parts", "5")
    assert machine("files", "verify", "a::here", "--read", "--json").json["ok"]


def test_headers_separators_and_empty_parts_mix_with_copies(machine, container):
    container.put("in/1.csv", b"a,b\n1,2")  # without its last terminator
    container.put("in/2.csv", b"3,4\n")
    spray(machine, "az:1.csv", "az:2.csv", "a::s", "--plane", "az", "--parts", "4")
    assert machine("cat", "a::s").out == "a,b\n1,2\n3,4\n"
    machine("despray", "a::s", "az:t.csv")
    assert container.get("in/t.csv") == b"a,b\n1,2\n3,4\n"


def test_kill_9_in_the_middle_of_a_spray_into_azure(machine, container):
    data = os.urandom(4 * MIB)
    (machine.folder / "x.dat").write_bytes(data)
    machine.configure(config_of(machine, container.name, ", limits: {bytes_per_second: 800000}, put_size: 256KiB"))
    first = spray(machine, "x.dat", "a::x", "--plane", "az", "--format", "fixed:1", "--parts", "2", "--no-wait")
    for _ in range(300):
        if machine("transfers", "show", first["id"], "--json").json["progress"]["bytes_done"] > MIB:
            break
        time.sleep(0.05)
    machine.kill()
    machine.configure(config_of(machine, container.name, ", put_size: 256KiB"))
    assert machine("transfers", "watch", first["id"], "--json").json["state"] == "SUCCEEDED"
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert b"".join(container.get(f"in/{p['key']}") for p in parts) == data


def test_a_cancelled_spray_leaves_no_blob_and_no_block_but_a_strangers(machine, container):
    with container.account.client() as client:
        client.get_blob_client(container.name, "in/a/x/theirs").stage_block("1", b"theirs")
    (machine.folder / "x.dat").write_bytes(os.urandom(6 * MIB))
    machine.configure(config_of(machine, container.name, ", limits: {bytes_per_second: 500000}, put_size: 128KiB"))
    first = spray(machine, "x.dat", "a::x", "--plane", "az", "--format", "fixed:1", "--parts", "2", "--no-wait")
    for _ in range(300):
        if container.keys() != ["in/a/x/theirs"]:
            break
        time.sleep(0.05)
    machine("transfers", "cancel", first["id"])
    assert machine("transfers", "watch", first["id"], "--json", code=130).json["state"] == "CANCELLED"
    assert container.keys() == ["in/a/x/theirs"]


def test_a_source_overwritten_in_mid_transfer(machine, container):
    container.put("in/x.dat", os.urandom(3 * MIB))
    machine.configure(config_of(machine, container.name, ", limits: {bytes_per_second: 300000}, copy_size: 128KiB"))
    first = spray(machine, "az:x.dat", "a::x", "--plane", "az", "--format", "fixed:1", "--parts", "1", "--no-wait")
    for _ in range(300):
        if machine("transfers", "show", first["id"], "--json").json["progress"]["bytes_done"]:
            break
        time.sleep(0.05)
    container.put("in/x.dat", b"other")
    result = machine("transfers", "watch", first["id"], "--json", code=6)
    assert result.json["error"]["reason"] == "SOURCE_CHANGED"
    assert container.keys() == ["in/x.dat"]


def test_no_secret_is_written_anywhere_and_the_log_is_short(machine, container):
    machine.configure(config_of(machine, container.name, rest="log: {level: debug}\n"))
    container.put("in/x.dat", os.urandom(100_000))
    spray(machine, "az:x.dat", "a::x", "--plane", "az", "--format", "fixed:1", "--parts", "2")
    machine("planes", "show", "az")
    machine.signal(15)
    for path in machine.state.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert container.account.key.encode() not in text, path
            assert b"sig=" not in text, path
    assert "Request URL" not in machine.log()


def test_a_plane_is_checked_by_trying_its_contract(machine, container):
    checked = machine("planes", "check", "az", "--json").json
    assert checked["ok"], checked
    assert container.keys() == []


@pytest.fixture
def both(machine, container, bucket, seaweed):
    """The machine with `cloud` (S3) and `az` too, whose service fetches from there; the addresses that it was given."""
    account, name = container.account, container.name
    with proxy.before(account.url) as between:
        puller = Puller(account)
        between.once(puller, header="x-ms-copy-source", times=10**6)
        url = f"{between.endpoint}/{account.name}"
        az = f"{{type: azure, container: {name}, prefix: in/, account_url: '{url}', account_key: {{env: KEY}}"
        machine.configure(
            "planes:\n"
            f"  data: {{type: posix, path: {machine.folder}/plane}}\n"
            f"  az: {az}, pull_from: ['{seaweed.endpoint}'], copy_size: 512KiB}}\n"
            f"  far: {az}}}\n"
            f"  cloud: {{type: s3, bucket: {bucket.name}, prefix: in/, endpoint: '{seaweed.endpoint}',"
            " access_key: {env: AK}, secret_key: {env: SK}}\n"
        )
        yield puller


def test_azure_pulls_from_s3_and_only_windows_travel(machine, container, bucket, both):
    line = b'12345,"some text, quoted",67890\n'
    data = line * (2 * MIB // len(line))
    bucket.put("in/x.csv", data, ChecksumAlgorithm="CRC64NVME")
    shown = spray(machine, "cloud:x.csv", "a::x", "--plane", "az", "--parts", "3")
    assert shown["progress"]["bytes_native"] == len(data)
    assert shown["progress"]["bytes_through_us"] <= 2 * 16 * 1024 + 8192
    assert [taken["route"] for taken in shown["outcome"]["routes"]] == ["pulled"]
    assert shown["outcome"]["evidence"] == "compared", "S3's stored value and what Azure's blocks make"
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert b"".join(container.get(f"in/{p['key']}") for p in parts) == data
    assert len(both.fetched) >= 3
    secret = {url.partition("X-Amz-Signature=")[2][:64] for url in both.fetched}
    machine.signal(15)
    for path in machine.state.rglob("*"):
        if path.is_file():
            assert not [one for one in secret if one.encode() in path.read_bytes()], path


def test_where_azure_cannot_reach_the_bytes_travel_and_it_is_said(machine, container, bucket, both):
    data = os.urandom(MIB)
    bucket.put("in/x.dat", data, ChecksumAlgorithm="CRC64NVME")
    arguments = ("cloud:x.dat", "a::x", "--plane", "far", "--format", "fixed:1", "--parts", "2")
    shown = spray(machine, *arguments)
    assert (shown["progress"]["bytes_native"], shown["progress"]["bytes_through_us"]) == (0, len(data))
    assert shown["outcome"]["evidence"] == "compared"
    back = machine("copy", "a::x", "a::back", "--plane", "cloud", "--json").json
    assert (back["outcome"]["evidence"], back["progress"]["bytes_through_us"]) == ("compared", len(data))
    parts = machine("files", "show", "a::back", "--json").json["parts"]
    assert b"".join(bucket.get(f"in/{p['key']}") for p in parts) == data
    assert both.fetched == []


def test_a_pull_that_s3_refuses_falls_to_the_next_route_with_its_reason(machine, container, bucket, both, monkeypatch):
    data = os.urandom(MIB)
    bucket.put("in/x.dat", data, ChecksumAlgorithm="CRC64NVME")
    monkeypatch.setattr(both, "_fetch", lambda source, span: Puller._fetch(source + "0", span))
    shown = spray(machine, "cloud:x.dat", "a::x", "--plane", "az", "--format", "fixed:1", "--parts", "2")
    assert shown["progress"]["bytes_through_us"] >= len(data)
    assert any("cannot read the source" in warning for warning in shown["warnings"]), shown
    (taken,) = shown["outcome"]["routes"]
    assert taken["route"] == "streamed"
    assert "cannot read the source" in taken["why"]
    assert shown["outcome"]["evidence"] == "compared"
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert b"".join(container.get(f"in/{p['key']}") for p in parts) == data
