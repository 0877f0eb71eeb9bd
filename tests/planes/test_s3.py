"""What is special to S3, on a real store; what all planes promise is in tests/contract."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
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

from planes import checksum, s3
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
from planes.plane import KIB, MIB, Extent, Info, Plane, StepReceipt, Ticket
from planes.retrying import RetryingPlane
from planes.s3 import S3Plane, S3Settings
from planes.settings import PlaneLimits
from planes.wrapped import WrappedPlane
from tests.doubles import localbucket, proxy, seaweedfs

BIG = 12 * MIB + 4321
BODY = random.Random(7).randbytes(BIG)
SMALL = BODY[: 100 * KIB]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with seaweedfs.running(tmp_path_factory.mktemp("s3")) as running:
        running.create_bucket("lake")
        with contextlib.closing(running.client()) as client:
            proof = checksum.to_s3(checksum.compute(BODY))
            client.put_object(Bucket="lake", Key="source/big", Body=BODY, ChecksumCRC64NVME=proof)
        yield running


@pytest.fixture(scope="module")
def behind(store):
    """A client that looks and writes behind the plane's back."""
    with contextlib.closing(store.client()) as client:
        yield client


@pytest.fixture(scope="module")
def make(store, tmp_path_factory):
    """Make a plane; without an endpoint, on the store itself."""
    made: list[S3Plane] = []
    folder = tmp_path_factory.mktemp("keys")
    (folder / "ak").write_text(f"{store.access_key}\n")
    (folder / "sk").write_text(f"{store.secret_key}\n")

    def plane(endpoint: str = store.endpoint, **more: Any) -> S3Plane:
        keys = {"access_key": {"file": folder / "ak"}, "secret_key": {"file": folder / "sk"}}
        given = {"type": "s3", "bucket": "lake", "endpoint": endpoint}
        made.append(S3Plane("cloud", S3Settings.model_validate(given | keys | more)))
        return made[-1]

    yield plane
    for each in made:
        asyncio.run(each.aclose())


@pytest.fixture(scope="module")
def plane(make):
    return make()


@pytest.fixture(scope="module")
def standing(store):
    with proxy.before(store.endpoint) as running:
        yield running


@pytest.fixture
def between(standing):
    """The proxy, fresh."""
    standing.clear()
    return standing


@pytest.fixture(scope="module")
def behind_proxy(make, standing):
    return make(standing.endpoint)


@pytest.fixture
def shaky(behind_proxy, between):
    """The plane behind the proxy."""
    return behind_proxy


async def read(plane: S3Plane, key: str, start: int = 0, end: int | None = None, version: str = "") -> bytes:
    end = (await plane.stat(key)).size if end is None else end
    into = bytearray(end - start)
    await plane.read(Extent(key, version, start, end), memoryview(into))
    return bytes(into)


async def ticket_of(plane: S3Plane, key: str) -> Ticket:
    ticket = plane.copy_ticket(await plane.stat(key))
    assert ticket is not None
    return ticket


def open_uploads(behind: Any, prefix: str) -> list[str]:
    found = behind.list_multipart_uploads(Bucket="lake", Prefix=prefix).get("Uploads", [])
    return sorted(each["Key"] for each in found)


# --- what is stored, and what is proved of it


async def test_copied_and_put_steps_of_any_range_make_one_proved_object(plane, behind):
    ticket = await ticket_of(plane, "source/big")
    head, cut, tail = b"name,age\n" * 600_000, 7 * MIB + 13, b"the end\n"
    whole = head + BODY[101 : 101 + cut] + BODY[3:] + tail
    async with await plane.upload("mixed/a", upload_id="t-1", content_type="text/csv") as upload:
        copied = upload.copy(2, len(head), ticket, 101, 101 + cut)
        steps = await asyncio.gather(
            upload.put(4, len(whole) - len(tail), tail),
            upload.copy(3, len(head) + cut, ticket, 3, BIG),
            copied,
            upload.put(1, 0, memoryview(head)),
        )
        made = await upload.commit(steps, len(whole), checksum.compute(whole))
    assert await read(plane, "mixed/a") == whole
    assert made.checksums == {"crc64nvme": checksum.compute(whole)}
    assert made.content_type == "text/csv"
    by_number = {step.number: step for step in steps}
    assert by_number[2].crc64nvme == checksum.compute(BODY[101 : 101 + cut])
    assert {number: step.compared for number, step in by_number.items()} == {1: True, 2: False, 3: False, 4: True}
    assert behind.head_object(Bucket="lake", Key="mixed/a")["Metadata"]["cropduster-attempt"] == "t-1"


async def test_a_native_copy_moves_no_payload_through_us(shaky, between):
    ticket = await ticket_of(shaky, "source/big")
    async with await shaky.upload("native/a", upload_id="t-2") as upload:
        first = await upload.copy(1, 0, ticket, 0, 6 * MIB + 1)
        second = await upload.copy(2, 6 * MIB + 1, ticket, 6 * MIB + 1, BIG)
        await upload.commit([first, second], BIG, None)
    await shaky.copy("native/b", ticket, upload_id="t-2b")
    assert between.payload < 10 * KIB
    assert all(each.headers["x-amz-copy-source-if-match"] for each in between.requests("PUT", "partNumber"))
    assert await read(shaky, "native/a", 5 * MIB, 7 * MIB) == BODY[5 * MIB : 7 * MIB]


async def test_checksums_of_a_list_of_steps_are_never_shown(plane, behind):
    upload = behind.create_multipart_upload(Bucket="lake", Key="sums/composite", ChecksumAlgorithm="CRC32")
    at = {"Bucket": "lake", "Key": "sums/composite", "UploadId": upload["UploadId"]}
    part = behind.upload_part(**at, PartNumber=1, Body=SMALL, ChecksumAlgorithm="CRC32")
    parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]
    behind.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    stored = behind.head_object(Bucket="lake", Key="sums/composite", ChecksumMode="ENABLED")
    assert stored["ChecksumCRC32"].endswith("-1")
    assert (await plane.stat("sums/composite")).checksums == {}


async def test_crc32_of_the_whole_is_shown(plane, behind):
    behind.put_object(Bucket="lake", Key="sums/crc32", Body=SMALL, ChecksumAlgorithm="CRC32")
    assert (await plane.stat("sums/crc32")).checksums == {"crc32": checksum.compute(SMALL, kind="crc32")}


async def test_a_commit_with_another_checksum_publishes_nothing_and_can_be_corrected(plane, monkeypatch):
    async with await plane.upload("wrong/a", upload_id="t-3") as upload:
        step = await upload.put(1, 0, SMALL)
        with pytest.raises(Corrupt, match="wrong/a"):
            await upload.commit([step], len(SMALL), 1)
        with pytest.raises(Corrupt):
            await upload.commit([step], len(SMALL) - 1, None)
        # The store itself refuses it too, where we could not compose: here it is asked with the wrong value.
        with monkeypatch.context() as patched:
            patched.setattr(checksum, "combine_all", lambda *_: 1)
            with pytest.raises(Corrupt, match="BadDigest"):
                await upload.commit([step], len(SMALL), None)
        with pytest.raises(NotFound):
            await plane.stat("wrong/a")
        await upload.commit([step], len(SMALL), checksum.compute(SMALL))
    assert await read(plane, "wrong/a") == SMALL


async def test_a_step_with_another_checksum_is_refused_by_the_store(plane):
    async with await plane.upload("wrong/b", upload_id="t-4") as upload:
        with pytest.raises(Corrupt):
            await upload.put(1, 0, SMALL, crc64nvme=1)


@pytest.mark.parametrize("empty_step", [True, False])
async def test_an_empty_object_is_an_object(plane, empty_step):
    key = f"empty/{empty_step}"
    async with await plane.upload(key, upload_id="t-5") as upload:
        steps = [await upload.put(1, 0, b"")] if empty_step else []
        made = await upload.commit(steps, 0, 0)
    assert (made.size, made.checksums) == (0, {"crc64nvme": 0})
    assert await read(plane, key) == b""
    copied = await plane.copy(f"{key}-copy", await ticket_of(plane, key), upload_id="t-5c")
    assert (copied.size, copied.crc64nvme) == (0, 0)


@pytest.mark.parametrize("proved", [True, False])
async def test_a_whole_copy_is_answered_with_its_checksum(shaky, between, behind, proved):
    source = f"whole/source-{proved}"
    proof = {"ChecksumCRC64NVME": checksum.to_s3(checksum.compute(SMALL))} if proved else {}
    behind.put_object(Bucket="lake", Key=source, Body=SMALL, ContentType="text/csv", Metadata={"by": "me"}, **proof)
    receipt = await shaky.copy(f"whole/{proved}", await ticket_of(shaky, source), upload_id="t-6")
    assert (receipt.size, receipt.crc64nvme, receipt.compared) == (len(SMALL), checksum.compute(SMALL), False)
    made = await shaky.stat(f"whole/{proved}")
    assert (made.checksums, made.content_type) == ({"crc64nvme": checksum.compute(SMALL)}, "text/csv")
    assert made.metadata == {"by": "me", "cropduster-attempt": "t-6"}
    assert len(between.requests("POST", "uploads")) == (0 if proved else 1)
    assert between.payload < 10 * KIB
    with pytest.raises(AlreadyExists):
        await shaky.copy(f"whole/{proved}", await ticket_of(shaky, source), upload_id="t-7")


# --- sources that have a CRC32 or a CRC32C of the whole, and no CRC64NVME

OTHERS = {"crc32": "CRC32", "crc32c": "CRC32C"}
CUT = 6 * MIB + 7


@pytest.fixture(params=OTHERS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def others(behind):
    """The source of each kind, written as strangers do."""
    for name, algorithm in OTHERS.items():
        behind.put_object(Bucket="lake", Key=f"source/{name}", Body=BODY, ChecksumAlgorithm=algorithm)


async def three_steps(upload: Any, ticket: Ticket) -> list[StepReceipt]:
    """The whole source again: copied up to an odd byte, put for 5 MiB, copied to the end."""
    after = CUT + 5 * MIB
    return [
        await upload.copy(3, after, ticket, after, BIG),
        await upload.put(2, CUT, memoryview(BODY)[CUT:after]),
        await upload.copy(1, 0, ticket, 0, CUT),
    ]


@pytest.mark.usefixtures("others")
async def test_steps_of_the_sources_kind_make_the_value_that_the_source_has(plane, behind, kind):
    source = await plane.stat(f"source/{kind}")
    assert source.checksums == {kind: checksum.compute(BODY, kind=kind)}
    async with await plane.upload(f"kind/{kind}", upload_id="t-50", kind=kind) as upload:
        steps = await three_steps(upload, await ticket_of(plane, source.key))
        made = await upload.commit(steps, BIG, None)
    steps.sort(key=lambda step: step.number)
    cuts = [BODY[:CUT], BODY[CUT : CUT + 5 * MIB], BODY[CUT + 5 * MIB :]]
    assert [step.other for step in steps] == [checksum.compute(cut, kind=kind) for cut in cuts]
    assert [step.crc64nvme for step in steps] == [None, checksum.compute(cuts[1]), None]
    assert [step.compared for step in steps] == [False, True, False]
    composed = checksum.combine_all([(step.other or 0, step.size) for step in steps], kind)
    assert {kind: composed} == made.checksums == source.checksums
    assert (await plane.stat(f"kind/{kind}")).checksums == source.checksums
    stored = behind.head_object(Bucket="lake", Key=f"kind/{kind}", ChecksumMode="ENABLED")
    assert stored["ChecksumType"] == "FULL_OBJECT"
    assert stored[f"Checksum{OTHERS[kind]}"] == checksum.to_s3(composed, kind)
    assert await read(plane, f"kind/{kind}") == BODY


@pytest.mark.usefixtures("others")
async def test_a_commit_of_another_kind_with_wrong_steps_publishes_nothing(plane, kind):
    key = f"kind/wrong-{kind}"
    async with await plane.upload(key, upload_id="t-51", kind=kind) as upload:
        third, second, first = good = await three_steps(upload, await ticket_of(plane, f"source/{kind}"))
        swapped = [replace(first, number=2), replace(second, number=1), third]
        with pytest.raises(Corrupt, match=r"Invalid|BadDigest"):
            await upload.commit(swapped, BIG, None)
        with pytest.raises(Corrupt, match="BadDigest"):
            await upload.commit([replace(first, other=third.other), second, third], BIG, None)
        with pytest.raises(Corrupt, match="BadDigest"):
            await upload.commit([first, replace(second, other=1), third], BIG, None)
        with pytest.raises(Corrupt, match=OTHERS[kind]):
            await upload.commit([first, second, replace(third, other=None)], BIG, None)
        with pytest.raises(NotFound):
            await plane.stat(key)
        await upload.commit(good, BIG, None)
    assert await read(plane, key) == BODY


async def test_a_put_of_another_kind_is_held_against_what_the_caller_and_the_store_say(shaky, between, kind):
    async with await shaky.upload(f"kind/put-{kind}", upload_id="t-52", kind=kind) as upload:
        with pytest.raises(Corrupt, match="step 1"):
            await upload.put(1, 0, SMALL, crc64nvme=1)
        assert between.requests("PUT", "partNumber") == []
        between.once(
            proxy.with_header(f"x-amz-checksum-{kind}", checksum.to_s3(5, kind)), method="PUT", query="partNumber"
        )
        with pytest.raises(Corrupt, match="step 1"):
            await upload.put(1, 0, SMALL)
        step = await upload.put(1, 0, SMALL, crc64nvme=checksum.compute(SMALL))
        with pytest.raises(Corrupt, match="CRC64NVME"):
            await upload.commit([step], len(SMALL), 1)
    sent = between.requests("PUT", "partNumber")[-1].headers
    assert sent[f"x-amz-checksum-{kind}"] == checksum.to_s3(checksum.compute(SMALL, kind=kind), kind)


async def test_a_token_keeps_the_kind_and_one_without_it_is_of_crc64nvme(plane, kind):
    async with await plane.upload(f"kind/token-{kind}", upload_id="t-53", kind=kind) as upload:
        resumed = plane.resume(upload.token)
        assert resumed.token == upload.token
        step = await resumed.put(1, 0, SMALL)
        assert step.other == checksum.compute(SMALL, kind=kind)
        made = await plane.resume(upload.token).commit([step], len(SMALL), checksum.compute(SMALL))
    assert made.checksums == {kind: step.other}
    async with await plane.upload(f"kind/old-{kind}", upload_id="t-54") as upload:
        old = json.dumps({name: value for name, value in json.loads(upload.token).items() if name != "kind"})
        step = await plane.resume(old).put(1, 0, SMALL)
        made = await plane.resume(old).commit([step], len(SMALL), None)
    assert (step.other, made.checksums) == (None, {"crc64nvme": checksum.compute(SMALL)})


DECORATORS: list[Callable[[S3Plane], Plane]] = [
    WrappedPlane,
    FaultyPlane,
    MeteredPlane,
    RetryingPlane,
    lambda plane: LimitedPlane(plane, PlaneLimits()),
]


@pytest.mark.parametrize("decorate", DECORATORS, ids=["wrapped", "faulty", "metered", "retrying", "limited"])
async def test_decorated_planes_pass_the_kind_on(plane, decorate):
    async with await decorate(plane).upload("kind/passed", upload_id="t-58", kind="crc32c") as upload:
        assert json.loads(upload.token)["kind"] == "crc32c"
        assert (await upload.put(1, 0, SMALL)).other == checksum.compute(SMALL, kind="crc32c")


@pytest.mark.parametrize("data", [SMALL, b""], ids=["some", "empty"])
async def test_a_lost_commit_of_another_kind_is_settled_by_its_value(shaky, between, kind, data):
    upload = await shaky.upload(f"kind/lost-{kind}-{len(data)}", upload_id="t-55", kind=kind)
    steps = [await upload.put(1, 0, data)] if data else []
    between.once(proxy.drop_answer, method="POST", query="uploadId")
    made = await upload.commit(steps, len(data), None)
    assert made.checksums == {kind: checksum.compute(data, kind=kind)}
    assert await shaky.resume(upload.token).commit(steps, len(data), None) == made


async def test_a_lost_commit_of_another_kind_with_another_value_is_no_success(shaky, between, kind):
    upload = await shaky.upload(f"kind/doubt-{kind}", upload_id="t-57", kind=kind)
    step = await upload.put(1, 0, SMALL)
    between.once(proxy.drop_answer, method="POST", query="uploadId")
    between.once(proxy.with_header(f"x-amz-checksum-{kind}", checksum.to_s3(5, kind)), method="HEAD")
    with pytest.raises(Unavailable):
        await upload.commit([step], len(SMALL), None)
    assert (await upload.commit([step], len(SMALL), None)).checksums == {kind: step.other}


@pytest.mark.usefixtures("others")
async def test_a_whole_copy_of_another_kind_says_its_value_and_no_crc64nvme(shaky, between, kind):
    source = await shaky.stat(f"source/{kind}")
    receipt = await shaky.copy(f"kind/whole-{kind}", await ticket_of(shaky, source.key), upload_id="t-56")
    assert (receipt.size, receipt.crc64nvme, receipt.other) == (BIG, None, source.checksums[kind])
    made = await shaky.stat(f"kind/whole-{kind}")
    assert (made.checksums, made.version) == (source.checksums, receipt.etag)
    assert between.payload < 10 * KIB


# --- sources that change


async def test_a_source_overwritten_under_a_copy_is_changed(shaky, between, behind):
    behind.put_object(Bucket="lake", Key="moving/a", Body=BODY)
    ticket = await ticket_of(shaky, "moving/a")
    overwrite = proxy.after(lambda: behind.put_object(Bucket="lake", Key="moving/a", Body=BODY[::-1]))
    async with await shaky.upload("moving/b", upload_id="t-8") as upload:
        await upload.copy(1, 0, ticket, 0, 6 * MIB)
        between.once(overwrite, method="PUT", query="partNumber=2")
        with pytest.raises(Changed):
            await upload.copy(2, 6 * MIB, ticket, 6 * MIB, BIG)
    with pytest.raises(Changed):
        await shaky.copy("moving/c", ticket, upload_id="t-9")
    with pytest.raises(Changed):
        await read(shaky, "moving/a", 0, 10, ticket.version)
    behind.delete_object(Bucket="lake", Key="moving/a")
    with pytest.raises(Changed, match="vanished"):
        await read(shaky, "moving/a", 0, 10, ticket.version)
    with pytest.raises(Changed):
        await read(shaky, "moving/a", 0, 0, ticket.version)
    with pytest.raises(NotFound):
        await read(shaky, "moving/a", 0, 10)


async def test_a_version_of_a_bucket_with_versions_stays_readable(make, store, behind):
    store.create_bucket("versions")
    behind.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    plane = make(bucket="versions")
    await plane.put("a", BODY, upload_id="t-10")
    ticket = await ticket_of(plane, "a")
    await plane.put("a", BODY[::-1], upload_id="t-11", replace=True)
    assert await read(plane, "a", 5, 5000, ticket.version) == BODY[5:5000]
    await plane.copy("b", ticket, upload_id="t-12")
    assert await read(plane, "b") == BODY


async def test_a_store_that_ignores_the_pin_is_found_out(shaky, between):
    pinned = (await shaky.stat("source/big")).version
    between.once(proxy.with_header("ETag", '"another"'), method="GET")
    with pytest.raises(Changed):
        await read(shaky, "source/big", 0, 10, pinned)


async def test_bytes_past_the_end_are_out_of_range(plane):
    for start, end in ((BIG - 10, BIG + 1), (BIG, BIG + 1), (BIG + 1, BIG + 1)):
        with pytest.raises(OutOfRange):
            await read(plane, "source/big", start, end)
    ticket = await ticket_of(plane, "source/big")
    async with await plane.upload("past/a", upload_id="t-13") as upload:
        with pytest.raises(OutOfRange):
            await upload.copy(1, 0, ticket, BIG - 10, BIG + 1)


async def test_ranges_of_small_sources_are_left_to_readers(plane):
    await plane.put("small/a", SMALL, upload_id="t-14")
    ticket = await ticket_of(plane, "small/a")
    async with await plane.upload("small/b", upload_id="t-15") as upload:
        with pytest.raises(Unsupported):
            await upload.copy(1, 0, ticket, 1, len(SMALL))
        step = await upload.copy(1, 0, ticket, 0, len(SMALL))
        await upload.commit([step], len(SMALL), checksum.compute(SMALL))
    assert await read(plane, "small/b") == SMALL


# --- answers that get lost or lie


@pytest.mark.parametrize("fault", [proxy.drop_answer, proxy.fail_after, proxy.conflict, proxy.error_in_200])
async def test_a_doubtful_commit_is_settled_by_looking(shaky, between, fault):
    key = f"doubt/{fault.__name__}"
    upload = await shaky.upload(key, upload_id="t-16")
    step = await upload.put(1, 0, SMALL)
    between.once(fault, method="POST", query="uploadId")
    if fault in {proxy.drop_answer, proxy.fail_after}:
        made = await upload.commit([step], len(SMALL), None)
    else:  # the store did not do it: the commit may be repeated
        with pytest.raises(Unavailable):
            await upload.commit([step], len(SMALL), None)
        made = await upload.commit([step], len(SMALL), None)
    again = await shaky.resume(upload.token).commit([step], len(SMALL), None)
    assert again == made
    assert await read(shaky, key) == SMALL


async def test_an_empty_commit_whose_answer_is_lost_can_be_repeated(shaky, between):
    upload = await shaky.upload("doubt/empty", upload_id="t-17")
    between.once(proxy.drop_answer, method="POST", query="uploadId")
    assert (await upload.commit([], 0, 0)).size == 0
    assert (await upload.commit([], 0, 0)).size == 0


async def test_a_strangers_object_is_no_success(shaky, between, behind):
    upload = await shaky.upload("doubt/stranger", upload_id="t-18")
    step = await upload.put(1, 0, SMALL)
    behind.put_object(Bucket="lake", Key="doubt/stranger", Body=SMALL)
    with pytest.raises(AlreadyExists):
        await upload.commit([step], len(SMALL), None)
    await upload.abort()
    with pytest.raises(AlreadyExists):
        await upload.commit([step], len(SMALL), None)
    assert open_uploads(behind, "doubt/stranger") == []


async def test_an_upload_that_ended_without_an_object_is_not_found(plane):
    upload = await plane.upload("doubt/ended", upload_id="t-19", replace=True)
    step = await upload.put(1, 0, SMALL)
    await upload.abort()
    await upload.abort()
    with pytest.raises(NotFound):
        await upload.commit([step], len(SMALL), None)


async def test_a_lost_put_is_settled_by_looking(shaky, between):
    between.once(proxy.drop_answer, method="PUT", path="lost/put")
    receipt = await shaky.put("lost/put", SMALL, upload_id="t-20")
    assert (receipt.crc64nvme, receipt.compared) == (checksum.compute(SMALL), True)
    between.once(proxy.refuse, method="PUT", path="lost/never")
    with pytest.raises(Unavailable):
        await shaky.put("lost/never", SMALL, upload_id="t-21")


async def test_a_put_replaces_its_own_earlier_attempt_and_no_other(plane):
    await plane.put("again/a", b"half", upload_id="t-22")
    await plane.put("again/a", b"all of it", upload_id="t-22")
    assert await read(plane, "again/a") == b"all of it"
    with pytest.raises(AlreadyExists):
        await plane.put("again/a", b"all of it", upload_id="t-23")
    await plane.put("again/a", b"new", upload_id="t-23", replace=True)
    assert await read(plane, "again/a") == b"new"


async def test_a_lost_copy_is_settled_by_looking(shaky, between):
    ticket = await ticket_of(shaky, "source/big")
    between.once(proxy.drop_answer, method="PUT", header="x-amz-copy-source")
    receipt = await shaky.copy("lost/copy", ticket, upload_id="t-24")
    assert receipt.crc64nvme == checksum.compute(BODY)


@pytest.mark.parametrize("whole", [True, False])
async def test_an_error_in_a_200_is_an_error(shaky, between, whole):
    ticket = await ticket_of(shaky, "source/big")
    async with await shaky.upload("liar/step", upload_id="t-26") as upload:
        between.once(proxy.error_in_200, method="PUT", header="x-amz-copy-source")
        with pytest.raises(Unavailable):
            await (shaky.copy("liar/a", ticket, upload_id="t-25") if whole else upload.copy(1, 0, ticket, 0, BIG))


@pytest.mark.parametrize("element", [b"ETag", b"ChecksumCRC64NVME"])
async def test_a_copy_without_etag_or_checksum_in_its_answer_is_none(shaky, between, element):
    def without(answer: proxy.Answer) -> proxy.Answer:
        head, _, rest = answer.body.partition(b"<%s>" % element)
        body = head + rest.partition(b"</%s>" % element)[2]
        kept = tuple(pair for pair in answer.headers if not pair[0].lower().startswith("x-amz-checksum"))
        return proxy.Answer(answer.status, kept, body)

    ticket = await ticket_of(shaky, "source/big")
    async with await shaky.upload("liar/silent", upload_id="t-27") as upload:
        between.once(proxy.change(without), method="PUT", query="partNumber")
        with pytest.raises(Unsupported, match="ETag" if element == b"ETag" else "checksums: none"):
            await upload.copy(1, 0, ticket, 0, BIG)


async def test_a_wrong_checksum_in_an_answer_is_corrupt(shaky, between):
    wrong = proxy.with_header("x-amz-checksum-crc64nvme", checksum.to_s3(5))
    async with await shaky.upload("liar/sum", upload_id="t-28") as upload:
        between.once(wrong, method="PUT", query="partNumber")
        with pytest.raises(Corrupt):
            await upload.put(1, 0, SMALL)
    between.once(wrong, method="PUT", path="liar/put")
    with pytest.raises(Corrupt):
        await shaky.put("liar/put", SMALL, upload_id="t-29")


@pytest.mark.parametrize("size", [0, 100, 3 * MIB])
@pytest.mark.parametrize("fault", [proxy.truncate, proxy.reset_after])
async def test_an_answer_that_breaks_off_is_unavailable_and_the_next_is_whole(shaky, between, fault, size):
    between.once(fault(size), method="GET")
    with pytest.raises(Unavailable):
        await read(shaky, "source/big", 0, 4 * MIB)
    assert await read(shaky, "source/big", 0, 4 * MIB) == BODY[: 4 * MIB]


async def test_no_request_is_sent_twice(shaky, between):
    between.once(proxy.fail, times=3)
    for call in (lambda: shaky.stat("x"), lambda: read(shaky, "x", 0, 1), lambda: shaky.delete("x")):
        with pytest.raises(Unavailable):
            await call()
    assert [each.status for each in between.seen] == [500, 500, 500]


# --- what attempts leave behind


async def test_discard_aborts_in_generation_folders_and_spares_strangers(shaky, between, behind):
    ours, theirs = "lake/~t-30/lake._1_of_1", "outbox/report.csv"
    for key in (ours, theirs):
        between.once(proxy.drop_answer, method="POST", query="uploads")
        with pytest.raises(Unavailable):
            await shaky.upload(key, upload_id="t-30")
        behind.create_multipart_upload(Bucket="lake", Key=f"{key}-longer")
        assert open_uploads(behind, key) == [key, f"{key}-longer"]
        await shaky.discard(key, "t-30")
    assert open_uploads(behind, ours) == [f"{ours}-longer"]
    assert open_uploads(behind, theirs) == [theirs, f"{theirs}-longer"]


async def test_discard_deletes_the_object_of_its_own_attempt_only(plane):
    await plane.put("left/a", SMALL, upload_id="t-31")
    await plane.discard("left/a", "t-32")
    assert (await plane.stat("left/a")).size == len(SMALL)
    await plane.discard("left/a", "t-31")
    await plane.discard("left/a", "t-31")
    with pytest.raises(NotFound):
        await plane.stat("left/a")


async def test_an_upload_left_by_an_error_is_aborted(plane, behind):
    async def fails() -> None:
        async with await plane.upload("left/b", upload_id="t-33") as upload:
            await upload.put(1, 0, SMALL)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fails()
    assert open_uploads(behind, "left/b") == []


@pytest.mark.parametrize("times", [1, 3])
async def test_an_upload_that_the_store_opens_for_a_cancelled_call_is_aborted(shaky, between, behind, times):
    """Outside of generation folders nothing would find it again."""
    reached, held = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(exchange: proxy.Exchange) -> None:
        whole = exchange.forward()
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        exchange.send(whole)

    between.once(hold, method="POST", query="uploads")
    task = asyncio.create_task(shaky.upload(f"left/c{times}", upload_id="t-34"))
    await reached.wait()
    assert open_uploads(behind, f"left/c{times}") == [f"left/c{times}"]
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_uploads(behind, f"left/c{times}") == []


async def test_a_cancelled_call_that_the_store_refuses_has_nothing_to_abort(shaky, between):
    reached, held = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(exchange: proxy.Exchange) -> None:
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        proxy.fail(exchange)

    between.once(hold, method="POST", query="uploads")
    task = asyncio.create_task(shaky.upload("left/d", upload_id="t-35"))
    await reached.wait()
    task.cancel()
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert between.requests("DELETE") == []


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
    assert not any(into)  # it saw the cancellation before the first slice, and nobody writes any more


# --- listing, keys, prefixes


async def test_listing_streams_by_pages_in_byte_order(make, between, behind, monkeypatch):
    monkeypatch.setattr(s3, "_PAGE", 4)
    keys = ["Z", "a", "b/1", "b/2", "b0", "k10", "k11", "k9", "k~", "kä", "kä/x"]
    for key in keys:
        behind.put_object(Bucket="lake", Key=f"many/in/{key}", Body=b"x")
    plane = make(between.endpoint, prefix="many/in")
    listing = plane.list()
    assert (await anext(listing)).key == "Z"
    assert len(between.requests("GET", "list-type=2")) == 1
    assert [info.key async for info in listing] == keys[1:]
    assert len(between.requests("GET", "list-type=2")) == 3
    assert [info.key async for info in plane.list("k1")] == ["k10", "k11"]
    assert [info.key async for info in plane.list("k", after="k9")] == ["k~", "kä", "kä/x"]
    assert (await anext(plane.list("k11"))).version == (await plane.stat("k11")).version


async def test_a_listing_loses_nothing_where_the_store_has_an_order_of_its_own(make, behind, monkeypatch):
    monkeypatch.setattr(s3, "_PAGE", 2)
    keys = {"a", "a-b", "a/b", "a/c", "a0", "b", "b/x", "b.x"}
    for key in keys:
        behind.put_object(Bucket="lake", Key=f"order/{key}", Body=b"x")
    found = [info.key async for info in make(prefix="order").list()]
    assert set(found) == keys
    assert len(found) == len(keys)


@pytest.mark.parametrize("key", ["a b+c%20&d?e#f=ü", "~t/x", "...", "a..b", "q'\"<>"])
async def test_odd_keys_are_keys(plane, key):
    await plane.put(f"odd/{key}", SMALL, upload_id="t-34")
    assert [info.key async for info in plane.list(f"odd/{key}")] == [f"odd/{key}"]
    await plane.copy(f"odd2/{key}", await ticket_of(plane, f"odd/{key}"), upload_id="t-35")
    assert await read(plane, f"odd2/{key}") == SMALL


@pytest.mark.parametrize("key", ["", "/a", "..", "../a", "a/../b", "a/.."])
async def test_keys_that_lead_out_are_refused(plane, key):
    ticket = await ticket_of(plane, "source/big")
    calls: list[Callable[[], Any]] = [
        lambda: plane.stat(key),
        lambda: plane.delete(key),
        lambda: plane.put(key, b"", upload_id="t"),
        lambda: plane.upload(key, upload_id="t"),
        lambda: plane.discard(key, "t"),
        lambda: plane.read(Extent(key, "", 0, 1), memoryview(bytearray(1))),
        lambda: plane.copy(key, ticket, upload_id="t"),
    ]
    for call in calls:
        with pytest.raises(PathEscapes):
            await call()


async def test_listing_outside_is_refused(plane):
    for prefix in ("/", "../"):
        with pytest.raises(PathEscapes):
            async for _ in plane.list(prefix):
                pass


# --- who asks, and errors in our words


async def test_tickets_carry_no_credential_and_fit_the_same_owner_only(make, store, between, monkeypatch):
    plane, info = make(), Info("a", 1, "e", None, {})  # type: ignore[arg-type] # no time needed
    ticket = plane.copy_ticket(info)
    assert ticket is not None
    assert store.access_key not in str(ticket)
    assert store.secret_key not in str(ticket)
    assert make(bucket="another").accepts(ticket)
    assert not make(between.endpoint).accepts(ticket)
    assert not make(region="eu-north-1").accepts(ticket)
    monkeypatch.setenv("ANOTHER", "AKother")
    assert not make(access_key={"env": "ANOTHER"}).accepts(ticket)
    assert not make(access_key=None, secret_key=None).accepts(ticket)


async def test_wrong_credentials_name_the_setting_to_correct_and_not_its_value(make, store, monkeypatch):
    monkeypatch.setenv("WRONG", "not-the-right-one")
    for setting, named in (("secret_key", "environment variable WRONG"), ("access_key", "environment variable WRONG")):
        plane = make(**{setting: {"env": "WRONG"}})
        calls: list[Callable[[], Any]] = [
            lambda plane=plane: plane.put("a", b"", upload_id="t"),
            lambda plane=plane: plane.stat("source/big"),
            lambda plane=plane: read(plane, "source/big", 0, 1),
        ]
        for call in calls:
            with pytest.raises(Refused, match=named) as caught:
                await call()
            assert caught.value.__cause__ is None  # the SDK's own exceptions hold what was signed
            shown = f"{caught.value!r} {caught.value.facts}"
            assert "cloud" in shown
            assert not any(secret in shown for secret in ("not-the-right-one", store.access_key, store.secret_key))


async def test_a_secret_that_is_not_there_is_refused(make, monkeypatch):
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(Refused, match="environment variable ABSENT"):
        await make(secret_key={"env": "ABSENT"}).stat("a")


async def test_settings_that_lead_nowhere_are_refused(make, tmp_path):
    for wrong in ({"ca": tmp_path / "absent.pem"}, {"endpoint": "http://no host"}):
        with pytest.raises(Refused, match="`endpoint` or `ca`"):
            await make(**wrong).stat("a")


async def test_a_missing_bucket_is_missing_for_every_call(make):
    plane = make(bucket="nowhere")
    ticket = await ticket_of(make(), "source/big")
    calls: list[Callable[[], Any]] = [
        lambda: plane.stat("a"),
        lambda: read(plane, "a", 0, 1),
        lambda: plane.put("a", b"", upload_id="t"),
        lambda: plane.upload("a", upload_id="t"),
        lambda: anext(plane.list()),
        lambda: plane.copy("a", ticket, upload_id="t"),
        lambda: plane.discard("~t/a", "t"),
    ]
    for call in calls:
        with pytest.raises(Missing, match="nowhere"):
            await call()


async def test_nobody_there_is_unavailable(make):
    (port,) = seaweedfs.free_ports(1)
    plane = make(f"http://127.0.0.1:{port}")
    for call in (lambda: plane.stat("a"), lambda: read(plane, "a", 0, 1)):
        with pytest.raises(Unavailable, match="cloud"):
            await call()


ANSWERS: list[tuple[int, str, type[Error]]] = [
    (503, "SlowDown", Throttled),
    (429, "TooManyRequests", Throttled),
    (503, "", Throttled),
    (500, "InternalError", Unavailable),
    (400, "RequestTimeout", Unavailable),
    (409, "OperationAborted", Unavailable),
    (403, "QuotaExceeded", Full),
    (507, "InsufficientStorage", Full),
    (403, "AccessDenied", Refused),
    (403, "RequestTimeTooSkewed", Refused),
    (400, "KeyTooLongError", Refused),
    (301, "PermanentRedirect", Refused),
    (501, "NotImplemented", Unsupported),
]


@pytest.mark.parametrize(("status", "code", "kind"), ANSWERS)
async def test_answers_are_translated_by_code_and_status(shaky, between, status, code, kind):
    between.once(proxy.answer(status, code), method="GET")
    with pytest.raises(Error) as caught:
        await read(shaky, "source/big", 0, 1)
    assert type(caught.value) is kind
    assert "source/big" in caught.value.message
    assert "Signature" not in caught.value.message


async def test_the_store_says_how_long_to_wait(shaky, between):
    between.once(proxy.slow_down)
    with pytest.raises(Throttled) as caught:
        await shaky.stat("source/big")
    assert caught.value.retry_after == 7


async def test_a_checksum_goes_with_a_payload_instead_of_a_hash(shaky, between):
    await shaky.put("sign/a", SMALL, upload_id="t-36")
    (put,) = between.requests("PUT")
    assert put.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert put.headers["x-amz-checksum-crc64nvme"] == checksum.to_s3(checksum.compute(SMALL))


async def test_payloads_that_nothing_else_guards_are_hashed(make, between, monkeypatch):
    monkeypatch.setattr(S3Settings, "hashes", property(lambda _: True))
    await make(between.endpoint, checksums="none").put("sign/b", SMALL, upload_id="t-37")
    (put,) = between.requests("PUT")
    assert put.headers["x-amz-content-sha256"] == hashlib.sha256(SMALL).hexdigest()
    assert not any(name.startswith("x-amz-checksum") for name in put.headers)


@pytest.mark.parametrize(
    ("endpoint", "checksums", "hashes"),
    [
        ("http://store:9000", "none", True),
        ("http://store:9000", "crc64nvme", False),
        ("https://store", "none", False),
        (None, "none", False),
        ("http://127.0.0.1:9000", "none", False),
        ("http://localhost:9000", "none", False),
    ],
)
def test_which_payloads_are_hashed(endpoint, checksums, hashes):
    assert S3Settings(bucket="lake", endpoint=endpoint, checksums=checksums).hashes is hashes


async def test_bytes_of_a_read_take_the_short_way(make, monkeypatch):
    def long_way(*_: object) -> None:
        pytest.fail("the SDK's own transport copies every byte twice more")

    monkeypatch.setattr(urllib3.response.HTTPResponse, "readinto", long_way)
    assert await read(make(), "source/big", 5, 10) == BODY[5:10]


# --- stores without checksums, and settings


@pytest.mark.parametrize("kind", ["crc64nvme", "crc32"])
async def test_what_a_store_is_sent_and_does_not_confirm_is_compared_with_nothing(shaky, between, kind, monkeypatch):
    """Whoever composes receipts takes their values for what the store has said."""
    monkeypatch.setattr(shaky._connection, "silent", False)
    assert shaky.capabilities.confirms

    def silence(answer: proxy.Answer) -> proxy.Answer:
        said = [(name, text) for name, text in answer.headers if not name.lower().startswith("x-amz-checksum")]
        return replace(answer, headers=tuple(said))

    between.always(proxy.change(silence), method="PUT")
    receipt = await shaky.put(f"silent/{kind}", SMALL, upload_id="t-50")
    assert (receipt.crc64nvme, receipt.compared) == (None, False)
    async with await shaky.upload(f"silent/up-{kind}", upload_id="t-51", kind=kind) as upload:
        step = await upload.put(1, 0, SMALL)
        own = None if kind == "crc64nvme" else checksum.compute(SMALL, kind=kind)
        assert (step.crc64nvme, step.other, step.compared) == (None, own, False)
        await upload.commit([step], len(SMALL), None)
    assert not shaky.capabilities.confirms
    assert await read(shaky, f"silent/up-{kind}") == SMALL


async def test_a_store_without_checksums_or_metadata_still_works(tmp_path, monkeypatch):
    monkeypatch.setenv("ANY", "any")
    with localbucket.running(tmp_path) as local:
        local.create_bucket("lake")
        given = {"bucket": "lake", "endpoint": local.endpoint, "checksums": "none"}
        keys = {"access_key": {"env": "ANY"}, "secret_key": {"env": "ANY"}}
        plane = S3Plane("plain", S3Settings.model_validate(given | keys))
        receipt = await plane.put("a", BODY, upload_id="t-38")
        assert (receipt.crc64nvme, receipt.compared) == (checksum.compute(BODY), False)
        async with await plane.upload("b", upload_id="t-39", kind="crc32") as upload:
            steps = [
                await upload.copy(1, 0, await ticket_of(plane, "a"), 1, BIG),
                await upload.put(2, BIG - 1, b"end"),
            ]
            made = await upload.commit(steps, BIG + 2, None)
        assert ([step.crc64nvme for step in steps], made.checksums) == ([None, checksum.compute(b"end")], {})
        assert [step.other for step in steps] == [None, None]
        assert await read(plane, "b") == BODY[1:] + b"end"
        await plane.copy("c", await ticket_of(plane, "a"), upload_id="t-40")
        assert await read(plane, "c") == BODY
        await plane.aclose()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"bucket": ""}, "bucket"),
        ({"prefix": "a/../b"}, "prefix"),
        ({"endpoint": "store:9000"}, "endpoint"),
        ({"put_size": "1MiB"}, "put_size"),
        ({"access_key": {"env": "AK"}}, "access_key and secret_key"),
        ({"session_token": {"env": "ST"}}, "session_token needs"),
        ({"buket": "x"}, "buket"),
    ],
)
def test_settings_that_cannot_work_are_refused(given, field):
    with pytest.raises(ValidationError, match=field):
        S3Settings.model_validate({"type": "s3", "bucket": "lake"} | given)


def test_settings_are_made_regular():
    made = S3Settings.model_validate(
        {"bucket": "b", "prefix": "/in", "endpoint": "https://store/", "put_size": "32MiB"}
    )
    assert (made.prefix, made.endpoint, made.put_size) == ("in/", "https://store", 32 * MIB)


async def test_a_token_is_plain_data(plane, store):
    async with await plane.upload("token/a", upload_id="t-41") as upload:
        assert set(json.loads(upload.token)) == {"key", "upload", "attempt", "replace", "kind"}
        assert store.access_key not in upload.token
        step = await plane.resume(upload.token).put(1, 0, SMALL)
        await plane.resume(upload.token).commit([step], len(SMALL), None)
    assert await read(plane, "token/a") == SMALL


async def test_the_way_through_a_proxy_of_the_environment_is_the_sdks(make, between, monkeypatch):
    monkeypatch.setenv("http_proxy", between.endpoint)
    monkeypatch.setenv("no_proxy", "")
    plane = make()
    assert await read(plane, "source/big", 5, 10) == BODY[5:10]
    assert [each.method for each in between.seen] == ["GET"]


def test_the_sdk_is_not_loaded_for_other_planes():
    import subprocess
    import sys

    code = "import sys, planes.settings, planes.plane, planes.pack; assert 'boto3' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
