"""Content type and metadata of what is copied whole, and two credentials in one transfer, by the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.doubles import azurite, proxy, seaweedfs

MIB = 2**20


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    with azurite.running(tmp_path_factory.mktemp("azurite")) as running:
        running.create_container("lake")
        yield running


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """A store with two users, each with a bucket that the other may not touch."""
    with seaweedfs.running(tmp_path_factory.mktemp("users"), seaweedfs.WRITABLE_IAM) as store:
        for bucket in ("hers", "his"):
            store.create_bucket(bucket)
        yield store, store.create_user("she", "hers"), store.create_user("he", "his")


def s3(store, bucket: str, key: str, more: str = "") -> str:
    return (
        f"{{type: s3, bucket: {bucket}, endpoint: '{store}', access_key: {{env: {key}_AK}},"
        f" secret_key: {{env: {key}_SK}}{more}}}"
    )


@pytest.fixture
def clouds(machine, users, account):
    """The machine with `hers` and `his` (S3, two users), `also` (hers under another prefix), `az` and `data`."""
    store, hers, his = users
    keys = {"HER_AK": hers[0], "HER_SK": hers[1], "HIS_AK": his[0], "HIS_SK": his[1]}
    machine.environment |= keys | {"CS": account.connection_string}
    with proxy.before(store.endpoint) as between:
        machine.configure(
            "planes:\n"
            f"  data: {{type: posix, path: {machine.folder}/plane}}\n"
            f"  hers: {s3(between.endpoint, 'hers', 'HER')}\n"
            f"  also: {s3(between.endpoint, 'hers', 'HER', ', prefix: also')}\n"
            f"  his: {s3(between.endpoint, 'his', 'HIS')}\n"
            "  az: {type: azure, container: lake, connection_string: {env: CS}}\n"
        )
        (machine.folder / "plane").mkdir()
        yield between


@pytest.fixture
def source(machine, users, clouds, tmp_path):
    """`a::x`: one part, of type text/csv and with metadata, at `hers`; its bytes."""
    data = os.urandom(6 * MIB)
    name = f"source-{tmp_path.name}"
    users[0].client().put_object(
        Bucket="hers", Key=name, Body=data, ContentType="text/csv", Metadata={"made-by": "her"}
    )
    machine("files", "register", "a::x", f"hers:{name}")
    return data


def described(users, bucket: str, key: str) -> tuple[str, dict[str, str]]:
    head = users[0].client().head_object(Bucket=bucket, Key=key)
    return head["ContentType"], {n: t for n, t in head["Metadata"].items() if not n.startswith("cropduster")}


@pytest.mark.parametrize(("plane", "native"), [("also", True), ("his", False)])
def test_from_s3_to_s3_natively_and_through_us(machine, users, clouds, source, tmp_path, plane, native):
    bucket, folder = {"also": ("hers", "also/"), "his": ("his", "")}[plane]
    shown = machine("copy", "a::x", f"a::{plane}", "--plane", plane, "--json").json
    assert (shown["progress"]["bytes_through_us"] < 8193) is native
    (part,) = machine("files", "show", f"a::{plane}", "--json").json["parts"]
    assert described(users, bucket, folder + part["key"]) == ("text/csv", {"made-by": "her"})
    key = f"out-{tmp_path.name}"
    machine("despray", "a::x", f"{plane}:{key}")
    assert described(users, bucket, folder + key) == ("text/csv", {"made-by": "her"})
    assert users[0].client().get_object(Bucket=bucket, Key=folder + key)["Body"].read() == source


def test_from_s3_to_azure_and_back(machine, users, clouds, account, source, tmp_path):
    machine("copy", "a::x", "a::az", "--plane", "az")
    (part,) = machine("files", "show", "a::az", "--json").json["parts"]
    with account.client() as client:
        found = client.get_blob_client("lake", part["key"]).get_blob_properties()
    assert found.content_settings.content_type == "text/csv"
    assert found.metadata["made_by"] == "her", "a name that Azure takes"
    machine("despray", "a::az", f"hers:back-{tmp_path.name}")
    assert described(users, "hers", f"back-{tmp_path.name}") == ("text/csv", {"made_by": "her"})


def test_small_objects_keep_theirs_too(machine, users, clouds, account, tmp_path):
    users[0].client().put_object(Bucket="hers", Key="small", Body=b"1,2\n", ContentType="text/csv", Metadata={"a": "b"})
    machine("files", "register", "a::s", "hers:small")
    for plane in ("his", "az"):
        machine("copy", "a::s", f"a::{plane}", "--plane", plane)
    (part,) = machine("files", "show", "a::his", "--json").json["parts"]
    assert described(users, "his", part["key"]) == ("text/csv", {"a": "b"})
    (part,) = machine("files", "show", "a::az", "--json").json["parts"]
    with account.client() as client:
        found = client.get_blob_client("lake", part["key"]).get_blob_properties()
    assert (found.content_settings.content_type, found.metadata["a"]) == ("text/csv", "b")


def test_pieces_of_an_object_inherit_nothing_and_files_have_nothing_to_give(machine, users, clouds, source, tmp_path):
    name = f"source-{tmp_path.name}"
    machine("spray", f"hers:{name}", "a::cut", "--plane", "his", "--format", "fixed:1", "--parts", "2")
    for part in machine("files", "show", "a::cut", "--json").json["parts"]:
        assert described(users, "his", part["key"])[1] == {}
        assert described(users, "his", part["key"])[0] != "text/csv"
    machine("copy", "a::x", "a::here", "--plane", "data")
    machine("despray", "a::here", f"his:{name}")
    assert described(users, "his", name)[1] == {}


def test_two_users_of_one_store_never_ask_with_each_others_key(machine, users, clouds, source, tmp_path):
    _, hers, his = users
    shown = machine("copy", "a::x", "a::his", "--plane", "his", "--json").json
    assert shown["progress"]["bytes_through_us"] == len(source)
    assert not [each for each in clouds.seen if "x-amz-copy-source" in each.headers]
    asked: dict[str, set[str]] = {}
    for each in clouds.seen:
        key = each.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        asked.setdefault(each.path.split("/")[1], set()).add(key)
    assert asked == {"hers": {hers[0]}, "his": {his[0]}}


def test_a_part_is_not_overwritten_through_another_users_plane(machine, users, clouds, source, tmp_path):
    """The same object under another key of the store is still the same object."""
    store, name = users[0], f"source-{tmp_path.name}"
    machine.environment |= {"OWNER_AK": store.access_key, "OWNER_SK": store.secret_key}
    with Path(machine.environment["CROPDUSTER_CONFIG"]).open("a") as config:
        config.write(f"  owner: {s3(clouds.endpoint, 'hers', 'OWNER')}\n")
    refused = machine("despray", "a::x", f"owner:{name}", "--overwrite", "--json", code=2)
    assert "is a part of the file itself" in refused.error["message"]
    assert described(users, "hers", name) == ("text/csv", {"made-by": "her"})
