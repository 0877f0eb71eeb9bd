"""What is special to Azure, on Azurite; what all planes promise is in tests/contract."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import urllib3
from pydantic import ValidationError

from planes import azure, checksum
from planes.azure import AzurePlane, AzureSettings
from planes.azure_settings import is_public
from planes.errors import (
    AlreadyExists,
    Changed,
    Corrupt,
    Error,
    Full,
    Missing,
    NotFound,
    OutOfRange,
    PathEscapes,
    Refused,
    Throttled,
    Unavailable,
    Unsupported,
)
from planes.faulty import FaultyPlane
from planes.limited import LimitedPlane
from planes.metered import MeteredPlane
from planes.plane import KIB, MIB, Extent, Plane, Ticket
from planes.retrying import RetryingPlane
from planes.s3 import S3Plane, S3Settings
from planes.settings import PlaneLimits
from planes.wrapped import WrappedPlane
from tests.doubles import azurite, proxy, seaweedfs
from tests.doubles.azure_pull import Puller

BIG = 2 * MIB + 4321
BODY = random.Random(7).randbytes(BIG)
SMALL = BODY[: 100 * KIB]
CRC = checksum.compute(BODY)


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    with azurite.running(tmp_path_factory.mktemp("azure")) as running:
        running.create_container("lake")
        with running.client() as client:
            client.get_blob_client("lake", "source/big").upload_blob(BODY)
        yield running


@pytest.fixture(scope="module")
def behind(account):
    """A client that looks and writes behind the plane's back."""
    with account.client() as client:
        yield client.get_container_client("lake")


@pytest.fixture(scope="module")
def make(account, tmp_path_factory):
    """Make a plane; without an address, on the service itself."""
    made: list[AzurePlane] = []
    key = tmp_path_factory.mktemp("keys") / "key"
    key.write_text(f"{account.key}\n")

    def plane(url: str = account.url, **more: Any) -> AzurePlane:
        given: dict[str, Any] = {"container": "lake", "account_url": url, "account_key": {"file": key}}
        given = {name: value for name, value in (given | more).items() if value is not None}
        made.append(AzurePlane("cloud", AzureSettings.model_validate(given)))
        return made[-1]

    yield plane
    for each in made:
        asyncio.run(each.aclose())


@pytest.fixture(scope="module")
def plane(make):
    return make()


@pytest.fixture(scope="module")
def standing(account):
    with proxy.before(account.url) as running:
        yield running


@pytest.fixture
def between(standing):
    """The proxy, fresh."""
    standing.clear()
    return standing


@pytest.fixture(scope="module")
def behind_proxy(make, standing, account):
    return make(f"{standing.endpoint}/{account.name}")


@pytest.fixture
def shaky(behind_proxy, between):
    """The plane behind the proxy."""
    return behind_proxy


async def read(plane: Plane, key: str, start: int = 0, end: int | None = None, version: str = "") -> bytes:
    end = (await plane.stat(key)).size if end is None else end
    into = bytearray(end - start)
    await plane.read(Extent(key, version, start, end), memoryview(into))
    return bytes(into)


async def ticket_of(plane: Plane, key: str) -> Ticket:
    ticket = plane.copy_ticket(await plane.stat(key))
    assert ticket is not None
    return ticket


async def write(plane: Plane, key: str, data: bytes, upload_id: str, *, replace: bool = False) -> str:
    """An object in one step; its version."""
    async with await plane.upload(key, upload_id=upload_id, replace=replace) as upload:
        step = await upload.put(1, 0, data)
        return (await upload.commit([step], len(data), checksum.compute(data))).version


def names(behind: Any, prefix: str) -> list[str]:
    """Everything below a prefix, blobs that only have waiting blocks too."""
    return [b.name for b in behind.list_blobs(prefix, include=["uncommittedblobs"])]


def waiting(behind: Any, name: str) -> list[str]:
    return [block.id for block in behind.get_blob_client(name).get_block_list("uncommitted")[1]]


def says(status: int, code: str, **headers: str) -> proxy.Fault:
    """An answer of the service's kind; the service hears nothing."""
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>by a test</Message></Error>'
    named = [("Content-Type", "application/xml"), *((n.replace("_", "-"), v) for n, v in headers.items())]
    named += [("x-ms-error-code", code)] if code else []
    return lambda exchange: exchange.send(proxy.Answer(status, tuple(named), text.encode()))


# --- what is stored, and what is proved of it


async def test_copied_and_put_steps_of_any_range_make_one_proved_object(plane):
    ticket = await ticket_of(plane, "source/big")
    head, middle, tail = b"header\n", BODY[13:1_500_001], BODY[-5:]
    whole = head + middle + tail
    async with await plane.upload("native/a", upload_id="t-1", content_type="text/csv") as upload:
        receipts = [
            await upload.copy(3, len(head + middle), ticket, BIG - 5, BIG),
            await upload.put(1, 0, head),
            await upload.copy(2, len(head), ticket, 13, 1_500_001),
        ]
        info = await upload.commit(receipts, len(whole), checksum.compute(whole))
    assert [r.crc64nvme for r in receipts] == [checksum.compute(data) for data in (tail, head, middle)]
    assert [r.compared for r in receipts] == [False, True, False]
    assert info == await plane.stat("native/a")
    assert info.checksums == {"crc64nvme": checksum.compute(whole)}
    assert info.content_type == "text/csv"
    assert await read(plane, "native/a") == whole


async def test_a_native_copy_moves_no_payload_through_us(shaky, between):
    ticket = await ticket_of(shaky, "source/big")
    async with await shaky.upload("native/b", upload_id="t-2") as upload:
        receipt = await upload.copy(1, 0, ticket, 1000, BIG)
        await upload.commit([receipt], BIG - 1000, None)
    await shaky.copy("native/c", ticket, upload_id="t-2c")
    assert between.payload < 10_000
    pinned = [r.headers["x-ms-source-if-match"] for r in between.seen if "x-ms-copy-source" in r.headers]
    assert pinned == [f'"{ticket.version}"'] * 2
    assert await read(shaky, "native/c") == BODY


async def test_a_source_without_our_metadata_has_no_checksum_and_its_copy_has(plane):
    assert (await plane.stat("source/big")).checksums == {}
    receipt = await plane.copy("native/d", await ticket_of(plane, "source/big"), upload_id="t-3")
    assert (receipt.size, receipt.crc64nvme) == (BIG, CRC)
    assert (await plane.stat("native/d")).checksums == {"crc64nvme": CRC}
    assert [info.checksums async for info in plane.list("native/d")] == [{"crc64nvme": CRC}]


async def test_the_claimed_checksum_is_of_the_size_it_names_only(plane, behind):
    await plane.put("claim/a", SMALL, upload_id="t-4")
    kept = dict((await plane.stat("claim/a")).metadata)
    behind.get_blob_client("claim/a").upload_blob(SMALL + b"more", overwrite=True, metadata=kept)
    assert (await plane.stat("claim/a")).checksums == {}
    behind.get_blob_client("claim/b").upload_blob(SMALL, blob_type="AppendBlob", metadata=kept)
    assert (await plane.stat("claim/b")).checksums == {}
    behind.get_blob_client("claim/c").upload_blob(SMALL, metadata=kept | {"cropduster_crc64nvme": "not base64"})
    assert (await plane.stat("claim/c")).checksums == {}


async def test_type_and_metadata_go_with_a_copy_and_not_who_wrote_it(plane):
    await plane.put("described/a", SMALL, upload_id="t-5", content_type="text/csv", metadata={"owner": "me"})
    await plane.copy("described/b", await ticket_of(plane, "described/a"), upload_id="t-6")
    copied = await plane.stat("described/b")
    assert (copied.content_type, copied.metadata["owner"]) == ("text/csv", "me")
    assert copied.metadata["cropduster_attempt"] == "t-6"


async def test_no_version_is_answered_that_is_not_there(plane):
    for key, data in (("versions/a", SMALL), ("versions/empty", b"")):
        assert await write(plane, key, data, "t-7") == (await plane.stat(key)).version


@pytest.mark.parametrize("data", [SMALL, b""], ids=["some", "empty"])
@pytest.mark.parametrize("over", [False, True])
async def test_a_second_commit_makes_no_second_version(plane, data, over):
    key = f"twice/{over}-{len(data)}"
    upload = await plane.upload(key, upload_id="t-8", replace=over)
    step = await upload.put(1, 0, data)
    first = await upload.commit([step], len(data), None)
    assert await plane.resume(upload.token).commit([step], len(data), None) == first
    assert (await plane.stat(key)).version == first.version


async def test_a_step_with_another_checksum_is_refused_by_the_service(shaky, between):
    async with await shaky.upload("wrong/a", upload_id="t-9") as upload:
        with pytest.raises(Corrupt):
            await upload.put(1, 0, SMALL, 5)
    assert between.requests("PUT")[0].status == 400


async def test_a_block_that_is_not_what_its_receipt_says_publishes_nothing(plane, behind):
    upload = await plane.upload("wrong/b", upload_id="t-10")
    step = await upload.put(1, 0, SMALL)
    (name,) = waiting(behind, "wrong/b")
    behind.get_blob_client("wrong/b").stage_block(name, SMALL[:-1])
    with pytest.raises(Corrupt, match="instead of"):
        await upload.commit([step], len(SMALL), None)
    await upload.put(1, 0, SMALL)
    await upload.commit([step], len(SMALL), None)
    assert await read(plane, "wrong/b") == SMALL


async def test_a_wrong_checksum_in_an_answer_is_corrupt(shaky, between):
    wrong = base64.b64encode(checksum.to_azure(5)).decode()
    between.once(proxy.with_header("x-ms-content-crc64", wrong), method="PUT", query="comp=block")
    async with await shaky.upload("wrong/c", upload_id="t-11") as upload:
        with pytest.raises(Corrupt, match="another checksum"):
            await upload.put(1, 0, SMALL)


async def test_a_copy_whose_checksum_is_not_told_is_none(shaky, between):
    def silent(answer: proxy.Answer) -> proxy.Answer:
        return replace(answer, headers=tuple(h for h in answer.headers if h[0].lower() != "x-ms-content-crc64"))

    ticket = await ticket_of(shaky, "source/big")
    between.once(proxy.change(silent), method="PUT", header="x-ms-copy-source")
    async with await shaky.upload("wrong/d", upload_id="t-12") as upload:
        with pytest.raises(Unsupported, match="checksum"):
            await upload.copy(1, 0, ticket, 0, BIG)


# --- sources that change


async def test_a_source_overwritten_under_a_copy_is_changed(shaky, between, behind):
    source = behind.get_blob_client("moving/source")
    source.upload_blob(BODY, overwrite=True)
    ticket = await ticket_of(shaky, "moving/source")
    async with await shaky.upload("moving/a", upload_id="t-13") as upload:
        await upload.copy(1, 0, ticket, 0, MIB)
        overwrite = proxy.after(lambda: source.upload_blob(BODY[::-1], overwrite=True) and None)
        between.once(overwrite, method="PUT", header="x-ms-copy-source")
        with pytest.raises(Changed):
            await upload.copy(2, MIB, ticket, MIB, BIG)
    assert names(behind, "moving/a") == []
    with pytest.raises(Changed):
        await shaky.copy("moving/b", ticket, upload_id="t-14")
    assert names(behind, "moving/b") == []


async def test_an_empty_source_is_pinned_too(plane, behind):
    behind.get_blob_client("moving/empty").upload_blob(b"", overwrite=True)
    ticket = await ticket_of(plane, "moving/empty")
    await plane.copy("moving/c", ticket, upload_id="t-15")
    assert (await plane.stat("moving/c")).size == 0
    behind.get_blob_client("moving/empty").upload_blob(b"not any more", overwrite=True)
    with pytest.raises(Changed):
        await plane.copy("moving/d", ticket, upload_id="t-16")
    async with await plane.upload("moving/d", upload_id="t-17") as upload:
        with pytest.raises(Changed):
            await upload.copy(1, 0, ticket, 0, 0)


async def test_a_service_that_ignores_the_pin_of_a_read_is_found_out(shaky, between):
    between.once(proxy.with_header("etag", '"0x8DOTHER"'), method="GET")
    with pytest.raises(Changed):
        await read(shaky, "source/big", 0, 10, (await shaky.stat("source/big")).version)


# --- doubtful answers


DOUBTS = [proxy.drop_answer, proxy.fail_after]


@pytest.mark.parametrize("fault", DOUBTS)
@pytest.mark.parametrize("data", [SMALL, b""], ids=["some", "empty"])
@pytest.mark.parametrize("over", [False, True])
async def test_a_doubtful_commit_is_settled_by_looking(shaky, between, fault, data, over):
    key = f"lost/{fault.__name__}-{over}-{len(data)}"
    between.once(fault, method="PUT", query="comp=blocklist")
    version = await write(shaky, key, data, "t-20", replace=over)
    assert version == (await shaky.stat(key)).version
    assert len(between.requests("PUT", "comp=blocklist")) == 1


async def test_a_commit_that_never_arrived_can_be_repeated(shaky, between):
    between.once(proxy.refuse, method="PUT", query="comp=blocklist")
    upload = await shaky.upload("lost/never", upload_id="t-21")
    step = await upload.put(1, 0, SMALL)
    with pytest.raises(Unavailable):
        await upload.commit([step], len(SMALL), None)
    await upload.commit([step], len(SMALL), None)
    assert await read(shaky, "lost/never") == SMALL


@pytest.mark.parametrize(("over", "kind"), [(False, AlreadyExists), (True, Changed)])
async def test_a_strangers_blob_is_no_success(plane, behind, over, kind):
    key = f"strange/{over}"
    upload = await plane.upload(key, upload_id="t-22", replace=over)
    step = await upload.put(1, 0, SMALL)
    theirs, name = behind.get_blob_client(key), "x" * len(waiting(behind, key)[0])
    theirs.stage_block(name, b"theirs")
    theirs.commit_block_list([name])  # which drops our blocks
    with pytest.raises(kind):
        await upload.commit([step], len(SMALL), None)
    await upload.abort()
    assert await read(plane, key) == b"theirs"


async def test_a_lost_put_is_settled_by_looking(shaky, between):
    between.once(proxy.drop_answer, method="PUT")
    receipt = await shaky.put("lost/put", SMALL, upload_id="t-23")
    assert (receipt.crc64nvme, receipt.etag) == (
        checksum.compute(SMALL),
        (await shaky.stat("lost/put")).version,
    )


async def test_a_put_replaces_its_own_earlier_attempt_and_no_other(plane):
    await plane.put("own/a", b"first", upload_id="t-24")
    await plane.put("own/a", b"second", upload_id="t-24")
    with pytest.raises(AlreadyExists):
        await plane.put("own/a", b"third", upload_id="t-25")
    assert await read(plane, "own/a") == b"second"


async def test_a_lost_copy_is_settled_by_looking(shaky, between, behind):
    ticket = await ticket_of(shaky, "source/big")
    between.once(proxy.drop_answer, method="PUT", query="comp=blocklist")
    receipt = await shaky.copy("lost/copy", ticket, upload_id="t-26")
    again = await shaky.copy("lost/copy", ticket, upload_id="t-26")
    assert receipt.etag == again.etag == (await shaky.stat("lost/copy")).version
    assert waiting(behind, "lost/copy") == []


async def test_no_request_is_sent_twice(shaky, between):
    for fault in (proxy.fail, proxy.refuse, says(503, "ServerBusy")):
        between.clear()
        between.once(fault, times=9)
        with pytest.raises((Unavailable, Throttled)):
            await shaky.stat("source/big")
        assert len(between.seen) == 1
        with pytest.raises((Unavailable, Throttled)):
            await read(shaky, "source/big", 0, 9)
        assert len(between.seen) == 2


@pytest.mark.parametrize("fault", [proxy.truncate, proxy.reset_after])
@pytest.mark.parametrize("size", [0, 1, 700_000])
async def test_an_answer_that_breaks_off_is_unavailable_and_the_next_is_whole(shaky, between, fault, size):
    between.once(fault(size), method="GET")
    with pytest.raises(Unavailable):
        await read(shaky, "source/big", 0, BIG)
    assert await read(shaky, "source/big", 0, BIG) == BODY


# --- aborts


async def test_an_abort_leaves_nothing(plane, behind):
    upload = await plane.upload("abort/a", upload_id="t-30")
    await upload.put(1, 0, SMALL)
    assert names(behind, "abort/a") == ["abort/a"]
    await plane.resume(upload.token).abort()
    assert names(behind, "abort/a") == []
    await upload.abort()


async def test_an_abort_spares_blobs_and_blocks_of_others(plane, behind):
    blob = behind.get_blob_client("abort/b")
    blob.upload_blob(b"theirs")
    before = blob.get_blob_properties().etag
    upload = await plane.upload("abort/b", upload_id="t-31", replace=True)
    await upload.put(1, 0, SMALL)
    await upload.abort()
    assert (blob.get_blob_properties().etag, blob.download_blob().readall()) == (before, b"theirs")

    theirs = await plane.upload("abort/c", upload_id="t-32")
    step = await theirs.put(1, 0, SMALL)
    ours = await plane.upload("abort/c", upload_id="t-33")
    await ours.put(1, 0, b"ours")
    await ours.abort()
    await plane.discard("abort/c", "t-33")
    await theirs.commit([step], len(SMALL), None)
    assert await read(plane, "abort/c") == SMALL


async def test_what_a_broken_off_abort_left_is_not_there(shaky, between, behind):
    for attempt, key in (("t-34", "abort/d"), ("t-35", "abort/e"), ("t-36", "abort/f")):
        upload = await shaky.upload(key, upload_id=attempt)
        await upload.put(1, 0, SMALL)
        between.once(proxy.refuse, method="DELETE")
        with pytest.raises(Unavailable):
            await upload.abort()
        assert names(behind, key) == [key]
        with pytest.raises(NotFound):
            await shaky.stat(key)
        assert [info async for info in shaky.list(key)] == []
    await shaky.discard("abort/d", "t-34")
    assert names(behind, "abort/d") == []
    await shaky.put("abort/e", SMALL, upload_id="t-37")
    upload = await shaky.upload("abort/f", upload_id="t-38")
    step = await upload.put(1, 0, SMALL)
    await upload.commit([step], len(SMALL), None)
    assert await read(shaky, "abort/e") == await read(shaky, "abort/f") == SMALL


async def test_a_racing_writer_of_an_aborted_upload_wins(shaky, between, behind):
    upload = await shaky.upload("abort/g", upload_id="t-39")
    await upload.put(1, 0, SMALL)

    def first(exchange: proxy.Exchange) -> None:
        behind.get_blob_client("abort/g").upload_blob(b"theirs", overwrite=True)
        exchange.send(exchange.forward())

    between.once(first, method="PUT", query="comp=blocklist")
    await upload.abort()
    assert await read(shaky, "abort/g") == b"theirs"


async def test_discard_removes_what_an_attempt_wrote_and_nothing_else(plane, behind):
    await plane.put("discard/a", b"x", upload_id="t-40")
    await plane.discard("discard/a", "t-41")
    assert names(behind, "discard/") == ["discard/a"]
    await plane.discard("discard/a", "t-40")
    lost = await plane.upload("discard/b", upload_id="t-42")
    await lost.put(1, 0, SMALL)
    await plane.discard("discard/b", "t-42")
    assert names(behind, "discard/") == []


async def test_blocks_of_another_program_are_a_clear_error(plane, behind):
    behind.get_blob_client("ids/a").stage_block("short", b"theirs")
    async with await plane.upload("ids/a", upload_id="t-43") as upload:
        with pytest.raises(Refused, match="another program"):
            await upload.put(1, 0, SMALL)
    assert waiting(behind, "ids/a") == ["short"]


async def test_steps_have_numbers_that_azure_has(plane):
    upload = await plane.upload("ids/b", upload_id="t-44")
    for number in (0, 50_001):
        with pytest.raises(OutOfRange):
            await upload.put(number, 0, b"x")


# --- reading, listing, keys


async def test_bytes_past_the_end_are_out_of_range(shaky, between):
    for start, end in ((BIG - 1, BIG + 1), (BIG, BIG + 1), (BIG + 9, BIG + 9)):
        with pytest.raises(OutOfRange):
            await read(shaky, "source/big", start, end)
    between.once(says(416, "InvalidRange"), method="GET")  # the real service's answer
    with pytest.raises(OutOfRange):
        await read(shaky, "source/big", BIG, BIG + 1)


async def test_a_stream_passes_slices_on_from_a_thread(plane):
    got = bytearray()
    await plane.stream(Extent("source/big", "", 11, BIG), got.extend)
    assert got == BODY[11:]


async def test_a_cancelled_read_has_let_go_of_its_buffer(shaky, between):
    reached, held = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(exchange: proxy.Exchange) -> None:
        whole = exchange.forward()
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        exchange.send(whole)

    between.once(hold, method="GET")
    into = bytearray(BIG)
    task = asyncio.create_task(shaky.read(Extent("source/big", "", 0, BIG), memoryview(into)))
    await reached.wait()
    task.cancel()
    loop.call_soon(held.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(into)


async def test_listing_streams_by_pages_in_byte_order(make, between, behind, account, monkeypatch):
    monkeypatch.setattr(azure, "_PAGE", 4)
    keys = ["Z", "a", "b/1", "b/2", "b0", "k10", "k11", "k9", "k~", "kä", "kä/x"]
    for key in keys:
        behind.get_blob_client(f"many/in/{key}").upload_blob(b"x")
    behind.get_blob_client("many/in/folder").upload_blob(b"", metadata={"hdi_isfolder": "true"})
    plane = make(f"{between.endpoint}/{account.name}", prefix="many/in")
    listing = plane.list()
    assert (await anext(listing)).key == "Z"
    assert len(between.requests("GET", "comp=list")) == 1
    assert [info.key async for info in listing] == keys[1:]
    assert len(between.requests("GET", "comp=list")) == 3
    assert [info.key async for info in plane.list("k1")] == ["k10", "k11"]
    assert [info.key async for info in plane.list("k", after="k9")] == ["k~", "kä", "kä/x"]
    assert (await anext(plane.list("k11"))).version == (await plane.stat("k11")).version


@pytest.mark.parametrize("prefix", ["../x", "/x", "a/../../x"])
async def test_listing_outside_is_refused(plane, prefix):
    with pytest.raises(PathEscapes):
        await anext(plane.list(prefix))


# --- who may, and who may not


async def test_tickets_carry_no_credential_and_addresses_reach_one_blob(plane, account):
    ticket = await ticket_of(plane, "source/big")
    assert account.key not in repr(ticket)
    assert "sig=" not in repr(ticket)
    url = await plane.presign(ticket)
    get = urllib3.request("GET", url, headers={"Range": "bytes=5-9"}, retries=False)
    assert (get.status, get.data) == (206, BODY[5:10])
    other = url.replace("source/big", "source/other")
    assert urllib3.request("GET", other, retries=False).status == 403
    assert urllib3.request("DELETE", url, retries=False).status == 403
    assert (await plane.stat("source/big")).size == BIG


@pytest.mark.parametrize(
    ("kind", "scope", "yes"),
    [
        ("azure", "https://other.blob.core.windows.net", True),
        ("azure", "http://127.0.0.1:10000/devstoreaccount1", False),
        ("s3", "aws us-east-1 chain", True),
        ("s3", "https://s3.example.com us-east-1 chain", True),
        ("s3", "http://s3.example.com us-east-1 chain", False),
        ("s3", "https://10.0.0.7:9000 us-east-1 chain", False),
        ("s3", "https://minio:9000 us-east-1 chain", False),
        ("s3", "https://minio.here.internal:9000 us-east-1 chain", True),
        ("posix", "host", False),
    ],
)
async def test_azure_copies_from_where_it_can_be_expected_to_reach(make, kind, scope, yes):
    cloud = make("https://mine.blob.core.windows.net", pull_from=["https://minio.here.internal:9000/"])
    ticket = Ticket(kind, scope, {"bucket": "b", "key": "k"}, "1", 10)
    assert cloud.accepts(ticket) is yes
    assert not make(pull_from=[]).accepts(ticket)  # an emulator on loopback reaches nothing


@pytest.mark.parametrize(
    ("url", "public"),
    [("https://a.b", True), ("https://1.1.1.1", True), ("https://localhost", False), ("https://[::1]:1", False)],
)
def test_public_addresses(url, public):
    assert is_public(url) is public


async def test_a_copy_asks_nobody_for_a_place_that_it_holds_itself(plane):
    narrow = LimitedPlane(plane, PlaneLimits(requests=1))
    ticket = await ticket_of(narrow, "source/big")

    async def sign() -> str:
        return await narrow.presign(ticket)

    await narrow.copy("limited/a", ticket, upload_id="t-50", url=sign)
    async with await narrow.upload("limited/b", upload_id="t-51") as upload:
        await upload.copy(1, 0, ticket, 0, 10, sign)


@pytest.mark.parametrize("decorate", [WrappedPlane, RetryingPlane, MeteredPlane, FaultyPlane])
async def test_decorators_pass_on_who_signs(plane, decorate):
    decorated, asked = decorate(plane), []
    ticket = await ticket_of(decorated, "source/big")

    async def sign() -> str:
        asked.append(1)
        return await decorated.presign(ticket)

    await decorated.copy("signed/a", ticket, upload_id="t-58", url=sign, replace=True)
    async with await decorated.upload("signed/b", upload_id="t-59") as upload:
        await upload.copy(1, 0, ticket, 0, 10, sign)
    assert len(asked) == 2


async def test_a_plane_with_a_sas_does_all_of_it(make, account, monkeypatch):
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import generate_container_sas

    expiry = datetime.now(UTC) + timedelta(hours=1)
    sas = generate_container_sas(account.name, "lake", account_key=account.key, permission="rwdl", expiry=expiry)
    for given in (sas, f"?{sas}"):
        monkeypatch.setenv("LAKE_SAS", given)
        plane = make(account_key=None, sas={"env": "LAKE_SAS"})
        await write(plane, "sas/a", SMALL, "t-52", replace=True)
        await plane.copy("sas/b", await ticket_of(plane, "sas/a"), upload_id="t-53", replace=True)
        assert await read(plane, "sas/b", 1, 9) == SMALL[1:9]
        assert [info.key async for info in plane.list("sas/")] == ["sas/a", "sas/b"]
        assert "sig=" not in repr(plane.copy_ticket(await plane.stat("sas/a")))
        await plane.delete("sas/b")
    signature = sas.partition("sig=")[2].partition("&")[0]
    monkeypatch.setenv("LAKE_SAS", sas.replace("sp=", "sp=x"))
    with pytest.raises(Refused, match="LAKE_SAS") as caught:
        await make(account_key=None, sas={"env": "LAKE_SAS"}).put("sas/c", b"x", upload_id="t-54")
    assert signature not in caught.value.message


@pytest.mark.parametrize("key", ["bm90IHRoZSBrZXk=", "not base64!"])
async def test_wrong_credentials_name_the_setting_to_correct_and_not_its_value(make, monkeypatch, key):
    monkeypatch.setenv("LAKE_KEY", key)
    plane = make(account_key={"env": "LAKE_KEY"})
    for call in (lambda: plane.stat("source/big"), lambda: read(plane, "source/big", 0, 1)):
        with pytest.raises(Refused, match="LAKE_KEY") as caught:
            await call()
        assert key not in caught.value.message
        assert caught.value.__cause__ is None


async def test_a_connection_string_that_is_none_is_refused_and_not_shown(make, monkeypatch):
    monkeypatch.setenv("LAKE_CS", "AccountKey=secret-of-mine;nothing else")
    plane = make(account_url=None, account_key=None, connection_string={"env": "LAKE_CS"})
    with pytest.raises(Refused, match="connection_string") as caught:
        await plane.stat("a")
    assert "secret-of-mine" not in repr(caught.value)
    monkeypatch.delenv("LAKE_CS")
    with pytest.raises(Refused, match="LAKE_CS"):
        await plane.stat("a")


async def test_a_missing_container_is_missing_for_every_call(make):
    plane = make(container="nowhere")
    upload = await plane.upload("a", upload_id="t-55")
    calls: list[Callable[[], Any]] = [
        lambda: plane.stat("a"),
        lambda: read(plane, "a", 0, 1),
        lambda: plane.put("a", b"x", upload_id="t-56"),
        lambda: upload.put(1, 0, b"x"),
        lambda: anext(plane.list()),
        lambda: plane.delete("a"),
        lambda: plane.discard("a", "t-55"),
    ]
    for call in calls:
        with pytest.raises(Missing, match="nowhere"):
            await call()


async def test_nobody_there_is_unavailable(make):
    (port,) = seaweedfs.free_ports(1)
    plane = make(f"http://127.0.0.1:{port}/nobody")
    for call in (lambda: plane.stat("a"), lambda: read(plane, "a", 0, 1)):
        with pytest.raises(Unavailable, match="cloud"):
            await call()


ANSWERS: list[tuple[int, str, type[Error]]] = [
    (503, "ServerBusy", Throttled),
    (429, "", Throttled),
    (500, "OperationTimedOut", Unavailable),
    (500, "InternalError", Unavailable),
    (409, "ContainerBeingDeleted", Unavailable),
    (507, "", Full),
    (403, "AuthorizationPermissionMismatch", Refused),
    (403, "", Refused),
    (412, "LeaseIdMissing", Refused),
    (409, "BlobArchived", Refused),
    (409, "AccountIsDisabled", Refused),
    (412, "ConditionNotMet", Changed),
    (404, "BlobNotFound", NotFound),
    (404, "ContainerNotFound", Missing),
    (501, "APINotImplemented", Unsupported),
]


@pytest.mark.parametrize(("status", "code", "kind"), ANSWERS)
async def test_answers_are_translated_by_code_and_status(shaky, between, status, code, kind):
    between.once(says(status, code), times=2)
    for call in (lambda: shaky.stat("source/big"), lambda: read(shaky, "source/big", 0, 1)):
        with pytest.raises(Error) as caught:
            await call()
        assert type(caught.value) is kind
        assert "source/big" in caught.value.message
        assert "sig=" not in caught.value.message


SOURCES: list[tuple[int, type[Error]]] = [
    (401, Refused),
    (403, Refused),
    (404, Changed),
    (412, Changed),
    (416, OutOfRange),
    (429, Throttled),
    (503, Throttled),
    (500, Unavailable),
    (400, Refused),
]


@pytest.mark.parametrize(("status", "kind"), SOURCES)
async def test_what_the_source_answers_is_told_apart(shaky, between, status, kind):
    ticket = await ticket_of(shaky, "source/big")
    between.once(says(status, "CannotVerifyCopySource"), header="x-ms-copy-source")
    async with await shaky.upload("sources/a", upload_id="t-57") as upload:
        with pytest.raises(Error) as caught:
            await upload.copy(1, 0, ticket, 0, 10)
    assert type(caught.value) is kind
    assert "sig=" not in caught.value.message


async def test_the_service_says_how_long_to_wait(shaky, between):
    between.once(says(503, "ServerBusy", Retry_After="7"), times=2)
    for call in (lambda: shaky.stat("source/big"), lambda: read(shaky, "source/big", 0, 1)):
        with pytest.raises(Throttled) as caught:
            await call()
        assert caught.value.retry_after == 7


@pytest.fixture(scope="module")
def with_identity(tmp_path_factory):
    with azurite.running(tmp_path_factory.mktemp("identity"), identity=True) as running:
        running.create_container("lake")
        yield running


async def test_an_identity_needs_no_secret_and_signs_with_a_delegated_key(make, with_identity, monkeypatch):
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", azurite.Identity)
    plane = make(with_identity.url, account_key=None, ca=with_identity.ca)
    await write(plane, "a", SMALL, "t-60")
    assert await read(plane, "a", 3, 33) == SMALL[3:33]
    ticket = await ticket_of(plane, "a")
    receipt = await plane.copy("b", ticket, upload_id="t-61")
    assert receipt.crc64nvme == checksum.compute(SMALL)
    assert "skoid=" in await plane.presign(ticket)  # the mark of a key that was delegated to somebody
    with pytest.raises(Refused, match="certificate"):
        await make(with_identity.url, account_key=None).stat("a")
    with pytest.raises(Refused, match="certificate"):
        await read(make(with_identity.url, account_key=None), "a", 0, 1)


async def test_no_identity_at_all_is_refused(make, with_identity, monkeypatch):
    from azure.core.exceptions import ClientAuthenticationError

    def none(self: object, *_: object, **__: object) -> None:
        raise ClientAuthenticationError

    monkeypatch.setattr(azurite.Identity, "get_token", none)
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", azurite.Identity)
    plane = make(with_identity.url, account_key=None, ca=with_identity.ca)
    for call in (lambda: plane.stat("a"), lambda: read(plane, "a", 0, 1)):
        with pytest.raises(Refused, match="identity"):
            await call()


# --- S3 as a source


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with seaweedfs.running(tmp_path_factory.mktemp("s3")) as running:
        running.create_bucket("lake")
        yield running


@pytest.fixture
async def amazon(store, monkeypatch):
    monkeypatch.setenv("AK", store.access_key)
    monkeypatch.setenv("SK", store.secret_key)
    keys = {"access_key": {"env": "AK"}, "secret_key": {"env": "SK"}}
    opened = S3Plane("amazon", S3Settings.model_validate({"bucket": "lake", "endpoint": store.endpoint} | keys))
    yield opened
    await opened.aclose()


@pytest.fixture
def pulling(make, account, between, store):
    """A plane whose service fetches from S3 by itself, and the addresses that it was given."""
    puller = Puller(account)
    between.once(puller, header="x-ms-copy-source", times=1000)
    return make(f"{between.endpoint}/{account.name}", pull_from=[store.endpoint]), puller.fetched


async def test_azure_pulls_from_s3_and_the_checksums_meet(pulling, amazon, between, store):
    plane, fetched = pulling
    await amazon.put("some folder/ä+b", BODY, upload_id="s-1", content_type="text/csv", metadata={"who-is": "me"})
    source = await amazon.stat("some folder/ä+b")
    ticket = amazon.copy_ticket(source)
    assert ticket is not None
    assert plane.accepts(ticket)

    async def sign() -> str:
        return await amazon.presign(ticket)

    between.seen.clear()
    async with await plane.upload("pulled/a", upload_id="t-70") as upload:
        steps = [
            await upload.copy(2, MIB, ticket, MIB, BIG, sign),
            await upload.copy(1, 0, ticket, 0, MIB, sign),
        ]
        await upload.commit(steps, BIG, source.checksums["crc64nvme"])
    assert await read(plane, "pulled/a") == BODY
    assert (len(fetched), len({url for url in fetched if store.secret_key in url})) == (2, 0)
    await plane.copy("pulled/b", ticket, upload_id="t-71", url=sign)
    copied = await plane.stat("pulled/b")
    assert copied.checksums == source.checksums
    assert (copied.content_type, copied.metadata["who_is"]) == ("text/csv", "me")
    with pytest.raises(Unsupported):
        await plane.copy("pulled/c", ticket, upload_id="t-72")  # with nobody to sign


async def test_an_object_of_s3_overwritten_under_a_pull_is_changed(pulling, amazon, behind):
    plane, fetched = pulling
    await amazon.put("moving", BODY, upload_id="s-2", replace=True)
    ticket = await ticket_of(amazon, "moving")

    async def sign() -> str:
        url = await amazon.presign(ticket)
        if len(fetched) == 1:
            await amazon.put("moving", BODY[::-1], upload_id="s-3", replace=True)
        return url

    async with await plane.upload("pulled/d", upload_id="t-73") as upload:
        await upload.copy(1, 0, ticket, 0, MIB, sign)
        with pytest.raises(Changed):
            await upload.copy(2, MIB, ticket, MIB, BIG, sign)
    await amazon.delete("moving")
    with pytest.raises(Changed):
        await plane.copy("pulled/d", ticket, upload_id="t-74", url=sign)
    assert names(behind, "pulled/d") == []


async def test_an_address_that_azure_may_not_read_is_refused(pulling, amazon):
    plane, _ = pulling
    await amazon.put("forbidden", SMALL, upload_id="s-4", replace=True)
    ticket = await ticket_of(amazon, "forbidden")

    async def sign() -> str:
        return (await amazon.presign(ticket)).replace("X-Amz-Signature=", "X-Amz-Signature=0")

    async with await plane.upload("pulled/e", upload_id="t-75") as upload:
        with pytest.raises(Refused, match="grant") as caught:
            await upload.copy(1, 0, ticket, 0, len(SMALL), sign)
    assert "X-Amz" not in caught.value.message


# --- settings


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "container"),
        ({"container": "c"}, "connection_string"),
        ({"container": "c", "account_url": "https://a", "connection_string": {"env": "CS"}}, "connection_string"),
        ({"container": "c", "account_url": "a.blob"}, "https://"),
        ({"container": "c", "account_url": "https://a?sv=1&sig=x"}, "SAS"),
        ({"container": "c", "connection_string": {"env": "CS"}, "sas": {"env": "S"}}, "account_url"),
        ({"container": "c", "account_url": "https://a", "sas": {"env": "S"}, "account_key": {"env": "K"}}, "not both"),
        ({"container": "c", "account_url": "https://a", "account_key": "key-itself"}, "account_key"),
        ({"container": "c", "account_url": "http://a"}, "an identity is told by https only"),
        ({"container": "c", "account_url": "https://a", "prefix": "a/../b"}, "prefix"),
        ({"container": "c", "account_url": "https://a", "put_size": "5GiB"}, "put_size"),
        ({"container": "c", "account_url": "https://a", "unknown": 1}, "unknown"),
    ],
)
def test_settings_that_cannot_work_are_refused(given, field):
    with pytest.raises(ValidationError) as caught:
        AzureSettings.model_validate(given)
    assert field in str(caught.value)
    assert "key-itself" not in str(caught.value)


def test_settings_are_made_regular():
    settings = AzureSettings(container="lake", prefix="/in", account_url="https://a.blob.core.windows.net/")
    assert settings.location == "az://lake/in/ at https://a.blob.core.windows.net"


async def test_a_token_is_plain_data(plane, account):
    upload = await plane.upload("token/a", upload_id="t-80", replace=True, content_type="text/csv", metadata={"a": "b"})
    assert account.key not in upload.token
    named = json.loads(upload.token)
    described = {"content_type": "text/csv", "metadata": {"a": "b"}}
    assert named == {"key": "token/a", "attempt": "t-80", "replace": True} | described
    step = await upload.put(1, 0, b"x")
    info = await plane.resume(upload.token).commit([step], 1, None)
    assert (info.content_type, info.metadata["a"]) == ("text/csv", "b")


async def test_the_way_through_a_proxy_of_the_environment_is_taken(plane, between, monkeypatch):
    monkeypatch.setenv("http_proxy", between.endpoint)
    monkeypatch.setenv("no_proxy", "")
    assert await read(plane, "source/big", 0, 10) == BODY[:10]
    assert len(between.requests("GET")) == 1


def test_the_sdk_is_not_loaded_for_other_planes():
    import subprocess
    import sys

    code = "import sys, planes.opening, planes.azure_settings, planes.pack; assert 'azure' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


async def test_metadata_gets_names_that_azure_takes_and_ours_is_not_carried(plane):
    given = {"made-by": "me", "plain": "x", "cropduster-attempt": "theirs", "cropduster_crc64nvme": "no", "1st": "x"}
    await plane.put("named", b"x", upload_id="t-1", metadata=given)
    async with await plane.upload("named/large", upload_id="t-2", metadata=given) as upload:
        receipt = await upload.put(1, 0, b"x")
        await upload.commit([receipt], 1, receipt.crc64nvme)
    for key, attempt in (("named", "t-1"), ("named/large", "t-2")):
        found = (await plane.stat(key)).metadata
        assert {name: text for name, text in found.items() if not name.startswith("cropduster")} == {
            "made_by": "me",
            "plain": "x",
        }
        assert found["cropduster_attempt"] == attempt
