"""Small objects in numbers at a real store: the same contract, whichever client makes the request."""

import asyncio
import contextlib
import os
from datetime import UTC, datetime

import pytest

from planes import s3_listing, s3_small
from planes.errors import AlreadyExists, Changed, NotFound, OutOfRange, PathEscapes, Throttled
from planes.plane import Extent, Info
from planes.s3 import S3Plane, S3Settings
from planes.settings import Secret
from tests.doubles import proxy, seaweedfs


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with seaweedfs.running(tmp_path_factory.mktemp("store")) as running:
        running.create_bucket("lake")
        yield running


@pytest.fixture
def behind(store):
    with contextlib.closing(store.client()) as client:
        yield client


@pytest.fixture
def between(store):
    with proxy.before(store.endpoint) as running:
        yield running


@pytest.fixture
async def make(store, monkeypatch):
    monkeypatch.setenv("SMALL_AK", store.access_key)
    monkeypatch.setenv("SMALL_SK", store.secret_key)
    # What the second client would read of the environment must not count.
    monkeypatch.setenv("AWS_SESSION_TOKEN", "stale")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    made = []

    def plane(endpoint=store.endpoint, **more):
        keys = {"access_key": Secret(env="SMALL_AK"), "secret_key": Secret(env="SMALL_SK")}
        settings = S3Settings(bucket="lake", prefix=os.urandom(4).hex(), endpoint=endpoint, **keys, **more)
        made.append(S3Plane("s3", settings, soon=0))
        return made[-1]

    yield plane
    for each in made:
        await each.aclose()


@pytest.fixture
async def small(make):
    """A plane that has seen its store confirm a checksum."""
    plane = make()
    await plane.put("first", b"x", upload_id="t-0")
    return plane


class Counted:
    """Which requests the SDK made."""

    def __init__(self, plane):
        self.names = []
        for patient in (False, True):
            events = plane._connection._client(patient=patient).meta.events
            events.register("before-call.s3.*", lambda model, **_: self.names.append(model.name))


async def read(plane, info, start=0, end=None):
    buffer = bytearray((info.size if end is None else end) - start)
    await plane.read(Extent(info.key, info.version, start, start + len(buffer)), memoryview(buffer))
    return bytes(buffer)


async def test_it_keeps_what_the_sdk_keeps(small, behind):
    counted = Counted(small)
    data = os.urandom(10_240)
    receipt = await small.put("a/b c+ü%#", data, upload_id="t-1", content_type="text/x", metadata={"Origin": "here"})
    assert counted.names == []
    key = f"{small._settings.prefix}a/b c+ü%#"
    kept = behind.head_object(Bucket="lake", Key=key, ChecksumMode="ENABLED")
    assert kept["Metadata"] == {"cropduster-attempt": "t-1", "origin": "here"}
    assert kept["ContentType"] == "text/x"
    info = await small.stat("a/b c+ü%#")
    assert info.checksums == {"crc64nvme": receipt.crc64nvme}
    assert (receipt.etag, receipt.compared, receipt.size) == (info.version, True, 10_240)
    counted.names.clear()
    assert await read(small, info) == data
    assert await read(small, info, 10, 20) == data[10:20]
    assert counted.names == []


async def test_the_first_put_goes_by_the_sdk_for_only_that_sees_what_the_store_confirms(make):
    plane = make()
    counted = Counted(plane)
    for number in range(3):
        receipt = await plane.put(f"k{number}", b"x", upload_id=f"t-{number}")
        assert receipt.compared
    assert counted.names == ["PutObject"]


async def test_a_store_that_keeps_no_checksums_is_believed_nothing(make):
    plane = make(checksums="none")
    counted = Counted(plane)
    assert not (await plane.put("k", b"x", upload_id="t-1")).compared
    assert counted.names == []


@pytest.mark.parametrize("key", ["a//b", "a/", "a/./b", "tab\tin", "line\nin"])
async def test_keys_that_it_would_change_go_by_the_sdk(small, key, behind):
    counted = Counted(small)
    with contextlib.suppress(Exception):  # what the store makes of them is not this test's
        await small.put(key, b"x", upload_id="t-1")
    assert counted.names[:1] == ["PutObject"]
    with pytest.raises(PathEscapes):
        await small.put("../out", b"x", upload_id="t-1")


@pytest.mark.parametrize("metadata", [{"cache-control": "x"}, {"Content-Type": "x"}])
async def test_metadata_that_would_become_something_else_goes_by_the_sdk(small, metadata):
    counted = Counted(small)
    await small.put("k", b"x", upload_id="t-1", metadata=metadata)
    assert counted.names == ["PutObject"]


async def test_its_refusals_have_the_words_of_the_sdk(small):
    await small.put("k", b"first", upload_id="t-1")
    with pytest.raises(AlreadyExists):
        await small.put("k", b"other", upload_id="t-2")
    await small.put("k", b"again", upload_id="t-1")
    info = await small.stat("k")
    await small.put("k", b"third!", upload_id="t-3", replace=True)
    with pytest.raises(Changed):
        await read(small, info)
    with pytest.raises(NotFound):
        await read(small, Info("none", 3, "", info.modified))
    with pytest.raises(OutOfRange):
        await read(small, Info("k", 9, "", info.modified))


async def test_a_fault_is_asked_again_and_what_stays_is_told(make, between):
    plane = make(between.endpoint)
    await plane.put("first", b"x", upload_id="t-0")
    between.once(proxy.drop_answer, method="PUT", path="lost")
    assert (await plane.put("lost", b"data", upload_id="t-1")).compared
    info = await plane.stat("lost")
    between.once(proxy.truncate(2), method="GET")
    assert await read(plane, info) == b"data"
    between.once(proxy.slow_down, method="GET", times=2)
    with pytest.raises(Throttled):
        await read(plane, info)


async def test_a_cancelled_put_has_ended_when_it_says_so(make, between):
    plane = make(between.endpoint)
    await plane.put("first", b"x", upload_id="t-0")
    reached, held = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(exchange):
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        exchange.send(exchange.forward())

    between.once(hold, method="PUT", path="held")
    task = asyncio.create_task(plane.put("held", b"data", upload_id="t-1"))
    await reached.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done(), "it is still being written"
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await plane.stat("held")).size == 4


async def copied(plane):
    """A ticket of an object that has been put."""
    await plane.put("source", b"source", upload_id="t-1", content_type="text/x", metadata={"by": "me"})
    return plane.copy_ticket(await anext(plane.list("source")))


async def test_a_copy_is_one_request(small):
    ticket = await copied(small)
    counted = Counted(small)
    receipt = await small.copy("target", ticket, upload_id="t-2", replace=True)
    assert counted.names == []
    assert (receipt.size, receipt.etag, receipt.compared) == (6, ticket.version, True)
    made = await small.stat("target")
    assert (made.content_type, made.metadata["by"]) == ("text/x", "me")


async def test_a_copy_over_an_object_is_pinned(small):
    ticket = await copied(small)
    await small.put("target", b"before", upload_id="t-4", replace=True)
    before = await small.stat("target")
    await small.put("source", b"changed", upload_id="t-3", replace=True)
    with pytest.raises(Changed):
        await small.copy("target", ticket, upload_id="t-5", replace=True)
    assert (await small.stat("target")).version == before.version
    counted = Counted(small)
    await small.copy("target", small.copy_ticket(await small.stat("source")), upload_id="t-6", replace=True)
    assert counted.names == ["HeadObject"]
    assert await read(small, await small.stat("target")) == b"changed"


async def test_odd_keys_are_signed_as_they_are(small):
    for name in ("a b+c%20&=?#é", "~$'(x)*!,;:@", "日本/ü"):
        await small.put(name, name.encode(), upload_id="t-1")
        ticket = small.copy_ticket(await small.stat(name))
        counted = Counted(small)
        assert (await small.copy(f"to/{name}", ticket, upload_id="t-2", replace=True)).compared
        assert counted.names == []
        assert await read(small, await small.stat(f"to/{name}")) == name.encode()


async def test_a_source_that_is_overwritten_during_a_copy_leaves_nothing(make, between, behind):
    plane = make(between.endpoint)
    await plane.put("first", b"x", upload_id="t-0")
    ticket = await copied(plane)

    def overwrite(exchange):
        behind.put_object(Bucket="lake", Key=f"{plane._settings.prefix}source", Body=b"other!")
        exchange.send(exchange.forward())

    between.once(overwrite, method="PUT", path="target")
    with pytest.raises(Changed):
        await plane.copy("target", ticket, upload_id="t-2", replace=True)
    with pytest.raises(NotFound):
        await plane.stat("target")


async def test_a_cancelled_copy_waits_for_the_store(make, between):
    plane = make(between.endpoint)
    await plane.put("first", b"x", upload_id="t-0")
    ticket = await copied(plane)
    reached, held = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(exchange):
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        exchange.send(exchange.forward())

    between.once(hold, method="PUT", path="target")
    task = asyncio.create_task(plane.copy("target", ticket, upload_id="t-2", replace=True))
    await reached.wait()
    task.cancel()
    await asyncio.sleep(0)
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await read(plane, await plane.stat("target")) == b"source"


@pytest.mark.parametrize("answer", ["error", "nonsense", "nothing", "another"])
async def test_a_200_that_is_no_answer_is_asked_again_by_the_sdk(make, between, answer):
    plane = make(between.endpoint)
    ticket = await copied(plane)
    bodies = {
        "error": b"<Error><Code>InternalError</Code></Error>",
        "nonsense": b"<CopyObjectResult",
        "nothing": b"<CopyObjectResult/>",
        "another": f"<CopyObjectResult><ETag>&quot;{'0' * 32}&quot;</ETag></CopyObjectResult>".encode(),
    }
    said = proxy.Answer(200, (("Content-Type", "application/xml"),), bodies[answer])
    between.once(lambda exchange: exchange.send(said), method="PUT", path="target")
    counted = Counted(plane)
    receipt = await plane.copy("target", ticket, upload_id="t-2", replace=True)
    assert "CopyObject" in counted.names
    assert receipt.crc64nvme is not None
    assert await read(plane, await plane.stat("target")) == b"source"
    assert (await plane.copy("next", ticket, upload_id="t-3", replace=True)).compared is (answer != "another")


async def test_a_copy_that_fails_late_does_not_make_etags_believed_again(small, monkeypatch):
    ticket, inside = await copied(small), set()

    async def copy(_self, key, _ticket):
        """One of two that are under way is answered with another ETag, and then the other fails."""
        inside.add(key)
        while len(inside) < 2 or (key == "late" and small._small._digests):
            await asyncio.sleep(0)
        return "0" * 32 if key == "other" else None

    monkeypatch.setattr(s3_small.Copier, "copy", copy)
    await asyncio.gather(*(small.copy(key, ticket, upload_id=key, replace=True) for key in ("other", "late")))
    assert not small._small._digests


async def test_deletes_are_idempotent(small):
    counted = Counted(small)
    await small.put("k", b"x", upload_id="t-1")
    await small.delete("k")
    await small.delete("k")
    assert counted.names == []
    with pytest.raises(NotFound):
        await small.stat("k")


async def test_without_its_package_the_sdk_does_it(small, monkeypatch):
    monkeypatch.setattr(s3_small, "_connect", lambda _: (_ for _ in ()).throw(ImportError))
    small._small._store = None
    await small.put("k", b"x", upload_id="t-1")
    assert await read(small, await small.stat("k")) == b"x"


async def test_a_few_objects_do_not_load_it(store, make, monkeypatch):
    plane = make()
    few = S3Plane("few", plane._settings)
    for number in range(8):
        await few.put(f"k{number}", b"x", upload_id=f"t-{number}")
    assert few._small._store is None
    await few.aclose()


# --- listings ---------------------------------------------------------------------------------------------------

PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>lake</Name><IsTruncated>{truncated}</IsTruncated>
<EncodingType>url</EncodingType><NextContinuationToken>next</NextContinuationToken>{contents}</ListBucketResult>"""
ONE = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-21T17:44:18.250Z</LastModified><ETag>&quot;e1&quot;</ETag>"
    "<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def parsed(body, status=200):
    response, made = {"status_code": status, "body": body.encode()}, {}
    s3_listing._read(response, made)
    return response["body"], made


def test_a_page_is_read_and_its_rest_left_to_the_sdk():
    body, made = parsed(PAGE.format(truncated="true", contents=ONE.format(key="a%20b", size=5) * 2))
    moment = datetime(2026, 11, 21, 17, 44, 18, 250_000, tzinfo=UTC)
    assert made["Contents"] == [{"Key": "a%20b", "LastModified": moment, "ETag": '"e1"', "Size": 5}] * 2
    assert b"<Contents>" not in body
    assert b"next" in body


@pytest.mark.parametrize(
    "contents", ["<Contents><Key>a</Key></Contents>", ONE.format(key="a", size="many"), "<Contents>"]
)
def test_a_page_that_it_does_not_understand_is_the_sdks(contents):
    whole = PAGE.format(truncated="false", contents=contents)
    assert parsed(whole) == (whole.encode(), {})
    assert parsed(PAGE, status=500) == (PAGE.encode(), {})


async def test_odd_keys_are_listed_as_they_are(small, behind):
    keys = ["a b", "a+b", "a%2Bb", "a&b<c>", "ü/ß", "q?#", "line\r\nfeed"]
    for key in keys:
        behind.put_object(Bucket="lake", Key=f"{small._settings.prefix}odd/{key}", Body=b"x")
    assert sorted([info.key async for info in small.list("odd/")]) == sorted(f"odd/{key}" for key in keys)
