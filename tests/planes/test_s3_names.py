"""Names that a store takes for others: nothing is written over another object, and nothing is left of the trial."""

import os
from urllib.parse import parse_qs

import pytest

from planes.errors import Refused
from planes.s3 import S3Plane, S3Settings
from planes.s3_names import odd_in
from planes.settings import Secret
from tests.doubles import proxy, seaweedfs

ODD = ["a//b", "a\\b", "a//c", "x//y"]


@pytest.fixture(scope="module")
def merging(tmp_path_factory):
    """A store that takes all of them for `a/b`."""
    with seaweedfs.running(tmp_path_factory.mktemp("store")) as running:
        running.create_bucket("lake")
        yield running


@pytest.fixture
async def make(monkeypatch):
    made = []

    def plane(store, **more):
        monkeypatch.setenv("NAMES_AK", store.access_key)
        monkeypatch.setenv("NAMES_SK", store.secret_key)
        keys = {"access_key": Secret(env="NAMES_AK"), "secret_key": Secret(env="NAMES_SK")}
        settings = {"bucket": "lake", "prefix": f"{os.urandom(4).hex()}/", "endpoint": store.endpoint} | more
        made.append(S3Plane("s3", S3Settings(**settings, **keys)))
        return made[-1]

    yield plane
    for each in made:
        await each.aclose()


async def listed(plane):
    return [info.key async for info in plane.list()]


@pytest.mark.parametrize("key", ODD)
async def test_nothing_is_written_over_an_object_of_another_name(make, merging, key):
    plane = make(merging)
    done = await plane.put("a/b", b"plain", upload_id="t-1")
    ticket = plane.copy_ticket(await plane.stat("a/b"))
    for write in (
        plane.put(key, b"odd", upload_id="t-2", replace=True),
        plane.upload(key, upload_id="t-2", replace=True),
        plane.copy(key, ticket, upload_id="t-2", replace=True),
    ):
        with pytest.raises(Refused, match=r"does not keep .* choose another name"):
            await write
    assert (await plane.stat("a/b")).version == done.etag
    assert await listed(plane) == ["a/b"]


async def test_it_is_tried_once_and_only_where_it_matters(make, merging):
    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        await plane.put("a b/c:d/%2F+&?#ü.x", b"x", upload_id="t-1")
        assert len(between.seen) == 1
        for number in range(3):
            with pytest.raises(Refused):
                await plane.put(f"{number}//b", b"x", upload_id="t-1")
        assert [each.method for each in between.seen[1:]] == ["PUT", "GET", "DELETE", "DELETE"]


async def test_a_store_that_keeps_them_is_believed(make, merging):
    def lists_what_was_put(exchange):
        folder = parse_qs(exchange.request.query)["prefix"][0]
        item = f"<Key>{folder}a//b</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>x</ETag><Size>0</Size>"
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{item}</Contents></ListBucketResult>"
        exchange.send(proxy.Answer(200, (("Content-Type", "application/xml"),), text.encode()))

    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        between.always(lists_what_was_put, method="GET", query="cropduster-names")
        for number in range(2):
            await plane.put(f"{number}//b", b"x", upload_id="t-1")
        assert [each.method for each in between.seen] == ["PUT", "GET", "DELETE", "PUT", "PUT"]


def test_only_such_names_are_odd():
    assert odd_in("in/a b/../c.d/.e/f./…") == []
    assert odd_in("in//a") == odd_in("/a") == ["//"]
    assert odd_in("./a\\b") == ["/./", "\\"]
