"""What the check says of real stores, each of which lacks something else; and that nothing of it stays there."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from planes import facts
from planes.azure import AzurePlane, AzureSettings
from planes.check import Checked, check
from planes.opening import decorated
from planes.retrying import Patience
from planes.s3 import S3Plane, S3Settings
from planes.settings import PlaneLimits
from tests.doubles import azurite, localbucket, seaweedfs


async def checked(plane: Any) -> Checked:
    """As the service does it: with all layers around the plane."""
    whole = decorated(plane, PlaneLimits(), Patience(attempts=2, seconds=2.0, throttled=10.0))
    done = await check(whole)
    assert [info.key async for info in whole.list()] == []
    await whole.aclose()
    return done


def told(done: Checked) -> dict[str, str]:
    return {f.fact: f.found for f in done.facts}


def costs(done: Checked) -> dict[str, str]:
    return {f.fact: f.costs for f in done.facts}


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("CHECK_AK", "any")
    monkeypatch.setenv("CHECK_SK", "any")
    return {"access_key": {"env": "CHECK_AK"}, "secret_key": {"env": "CHECK_SK"}}


async def test_seaweedfs_lists_in_an_order_of_its_own(tmp_path, keys, monkeypatch):
    with seaweedfs.running(tmp_path) as store, contextlib.closing(store.client()) as client:
        store.create_bucket("lake")
        monkeypatch.setenv("CHECK_AK", store.access_key)
        monkeypatch.setenv("CHECK_SK", store.secret_key)
        given = {"bucket": "lake", "endpoint": store.endpoint} | keys
        done = await checked(S3Plane("cloud", S3Settings.model_validate(given)))
        assert client.list_multipart_uploads(Bucket="lake").get("Uploads", []) == []
        client.put_bucket_versioning(Bucket="lake", VersioningConfiguration={"Status": "Enabled"})
        with_versions = await checked(S3Plane("cloud", S3Settings.model_validate(given)))
    assert all(r.ok for r in done.results), done
    # Whether two of its uploads that race are both told that they won is a matter of luck: not exact, or seems so.
    assert told(done) | {facts.CONDITIONS: ""} == {
        facts.RANGES: "yes",
        facts.WHOLE: "yes",
        facts.CHECKSUMS: "crc64nvme",
        facts.EVIDENCE: "compared",
        facts.CONDITIONS: "",
        facts.ORDER: "no",
        facts.POURS: "no",
        facts.METADATA: "yes",
        facts.VERSIONS: "no",
        facts.NAMES: "no",
    }
    assert "may skip or repeat keys" in costs(done)[facts.ORDER]
    assert "objects with // or /./ or \\ in their names are refused" in costs(done)[facts.NAMES]
    assert "16 MiB" in costs(done)[facts.POURS]
    assert told(with_versions)[facts.VERSIONS] == "yes"


async def test_localbucket_keeps_neither_checksums_nor_metadata(tmp_path, keys):
    with localbucket.running(tmp_path) as store:
        store.create_bucket("lake")
        given = {"bucket": "lake", "endpoint": store.endpoint} | keys
        done = await checked(S3Plane("cloud", S3Settings.model_validate(given | {"checksums": "none"})))
        hopeful = await checked(S3Plane("cloud", S3Settings.model_validate(given)))
    assert all(r.ok for r in done.results), done
    assert told(done)[facts.EVIDENCE] == "pinned"
    said = costs(done)
    assert "no checksums kept: success of native copies is `pinned`, not `compared`" in said[facts.EVIDENCE]
    assert told(done)[facts.CHECKSUMS] == "none"
    assert told(done)[facts.METADATA] == "no"
    assert "a write whose answer is lost" in said[facts.METADATA]
    # The same store, configured as if it knew CRC64NVME: it is said what to write instead.
    assert not all(r.ok for r in hopeful.results)
    assert "with `checksums: none`" in costs(hopeful)[facts.CHECKSUMS]
    assert (told(hopeful)[facts.RANGES], told(hopeful)[facts.WHOLE]) == ("no", "no")


@pytest.mark.soak  # test_azure tries the command, and that no block stays
async def test_azure_lacks_little_and_no_block_stays(tmp_path, monkeypatch):
    with azurite.running(tmp_path) as account:
        account.create_container("lake")
        monkeypatch.setenv("CHECK_CS", account.connection_string)
        given = {"container": "lake", "connection_string": {"env": "CHECK_CS"}}
        done = await checked(AzurePlane("cloud", AzureSettings.model_validate(given)))
        with account.client() as client:
            blobs = client.get_container_client("lake").list_blobs(include=["uncommittedblobs"])
            assert [blob.name for blob in blobs] == []
    assert all(r.ok for r in done.results), done
    assert told(done) == {
        facts.RANGES: "yes",
        facts.WHOLE: "yes",
        facts.CHECKSUMS: "crc64nvme",
        facts.EVIDENCE: "compared",
        facts.CONDITIONS: "exact",
        facts.ORDER: "yes",
        facts.POURS: "no",
        facts.METADATA: "yes",
        facts.VERSIONS: "no",
        facts.NAMES: "no",
    }
