"""Names that a store takes for others: nothing is written over another object, and nothing is left of the trial."""

import asyncio
import os
import threading
from urllib.parse import parse_qs

import pytest

from planes.errors import Refused, Unavailable
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


DENIED = proxy.answer(403, "AccessDenied")
TRIAL = "cropduster-names"


async def test_who_may_not_write_there_is_told_by_the_write_itself_and_nothing_is_believed(make, merging):
    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        between.once(DENIED, method="PUT", path=TRIAL)
        await plane.put("x//y", b"x", upload_id="t-1")
        assert [each.method for each in between.seen] == ["PUT", "PUT"]
        with pytest.raises(Refused, match="does not keep"):
            await plane.put("x//y", b"x", upload_id="t-1")


async def test_without_the_right_to_list_it_is_asked_for_the_other_name(make, merging):
    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        between.once(DENIED, method="GET", query=TRIAL)
        with pytest.raises(Refused, match="does not keep"):
            await plane.put("x//y", b"x", upload_id="t-1")
        assert [each.method for each in between.seen] == ["PUT", "GET", "HEAD", "DELETE", "DELETE"]
        assert await listed(plane) == []


@pytest.mark.parametrize("absent", [404, 403])
async def test_a_store_without_the_other_name_is_believed_also_if_it_refuses_to_say_that(make, merging, absent):
    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        between.once(DENIED, method="GET", query=TRIAL)
        between.once(proxy.answer(absent, "NoSuchKey"), method="HEAD", path="/a/b")
        for number in range(2):
            await plane.put(f"{number}//y", b"x", upload_id="t-1")
        assert len(between.requests("HEAD")) == (1 if absent == 404 else 2)
        assert sorted(await listed(plane)) == ["0/y", "1/y"]  # it is not to be believed, but who could know


async def test_what_cannot_be_found_out_is_refused_until_it_can(make, merging):
    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        between.once(DENIED, method="GET", query=TRIAL)
        between.always(DENIED, method="HEAD", path=TRIAL)
        with pytest.raises(Refused, match=r"cannot be found out.*s3:ListBucket"):
            await plane.put("x//y", b"x", upload_id="t-1")
        assert await listed(plane) == []
        with pytest.raises(Refused, match="does not keep"):
            await plane.put("x//y", b"x", upload_id="t-1")


async def test_nothing_stays_of_a_trial_whose_write_is_not_answered(make, merging):
    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        between.once(proxy.drop_answer, method="PUT", path=TRIAL)
        with pytest.raises(Unavailable):
            await plane.put("x//y", b"x", upload_id="t-1")
        assert await listed(plane) == []


async def test_a_trial_that_cannot_be_removed_has_told_what_it_should(make, merging):
    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        between.always(proxy.fail, method="DELETE")
        with pytest.raises(Refused, match="does not keep"):
            await plane.put("x//y", b"x", upload_id="t-1")


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
async def test_nothing_stays_of_a_trial_that_is_cancelled(make, merging, method):
    reached, go = threading.Event(), threading.Event()

    def hold():
        reached.set()
        go.wait(10)

    with proxy.before(merging.endpoint) as between:
        plane = make(merging, endpoint=between.endpoint)
        between.once(proxy.after(hold), method=method)
        writing = asyncio.create_task(plane.put("x//y", b"x", upload_id="t-1"))
        assert await asyncio.to_thread(reached.wait, 10)
        writing.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await listed(plane) == []


def test_only_such_names_are_odd():
    assert odd_in("in/a b/../c.d/.e/f./…") == []
    assert odd_in("in/a b/../c.d/.e/f./x") == odd_in("in/a/") == odd_in("in-./a") == []
    assert odd_in("in//a") == odd_in("/a") == ["//"]
    assert odd_in("a/.") == odd_in("in/./a") == odd_in(".") == ["/./"]
    assert odd_in("./a\\b") == ["/./", "\\"]
