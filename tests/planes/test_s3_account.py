"""Who asks a store, under which address, whom it trusts, and how it is told to encrypt; seen at the wire."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import Any

import pytest
import urllib3
from pydantic import ValidationError

from planes import checksum
from planes.direct import Address, Whole
from planes.errors import Error, NotFound, Refused, Unsupported
from planes.plane import KIB, MIB, Extent, Info, StepReceipt, Ticket
from planes.s3 import S3Plane, S3Settings
from planes.s3_copy import Copier
from planes.s3_small import SOON
from planes.s3_small import _connect as connect
from planes.s3_wire import Wire
from tests.doubles import authority, localbucket, proxy, seaweedfs

BIG = random.Random(3).randbytes(5 * MIB + 321)
SMALL = BIG[: 10 * KIB]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with seaweedfs.running(tmp_path_factory.mktemp("s3"), seaweedfs.WRITABLE_IAM) as running:
        for bucket in ("lake", "hers", "his"):
            running.create_bucket(bucket)
        yield running


@pytest.fixture
def between(store):
    with proxy.before(store.endpoint) as running:
        yield running


@pytest.fixture
def make(store, monkeypatch):
    """Make a plane: by default of the owner of the store, at the bucket `lake`."""
    made: list[S3Plane] = []

    def plane(endpoint: str, keys: tuple[str, str] = (store.access_key, store.secret_key), **more: Any) -> S3Plane:
        number = len(made)
        monkeypatch.setenv(f"AK{number}", keys[0])
        monkeypatch.setenv(f"SK{number}", keys[1])
        named = {"access_key": {"env": f"AK{number}"}, "secret_key": {"env": f"SK{number}"}}
        given = {"bucket": "lake", "endpoint": endpoint} | named | more
        soon = given.pop("soon", SOON)
        made.append(S3Plane(f"cloud{number}", S3Settings.model_validate(given), soon=soon))
        return made[-1]

    yield plane
    for each in made:
        asyncio.run(each.aclose())


async def read(plane: S3Plane, key: str) -> bytes:
    info = await plane.stat(key)
    into = bytearray(info.size)
    await plane.read(Extent(key, info.version, 0, info.size), memoryview(into))
    return bytes(into)


async def ticket_of(plane: S3Plane, key: str) -> Ticket:
    ticket = plane.copy_ticket(await plane.stat(key))
    assert ticket is not None
    return ticket


async def write_in_every_way(plane: S3Plane, folder: str) -> None:
    """Put, upload with a put and a copied step, copy whole by both of the store's ways."""
    await plane.put(f"{folder}/source", BIG, upload_id=f"{folder}-1")
    ticket = await ticket_of(plane, f"{folder}/source")
    async with await plane.upload(f"{folder}/steps", upload_id=f"{folder}-2") as upload:
        first = await upload.put(1, 0, BIG)
        steps = [first, await upload.copy(2, len(BIG), ticket, 5, 5 * MIB)]
        await upload.commit(steps, sum(step.size for step in steps), None)
    await plane.copy(f"{folder}/copy", ticket, upload_id=f"{folder}-3")


# --- encryption

NAMES = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")


def encrypted(seen: list[proxy.Request]) -> dict[str, set[tuple[str, ...]]]:
    """By kind of request: what it said of encryption."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for each in seen:
        copied = "copy" if "x-amz-copy-source" in each.headers else ""
        if each.method == "PUT":
            kind = f"{copied or 'put'} {'step' if 'partNumber' in each.query else 'object'}"
        else:
            kind = {"POST": "commit" if "uploadId" in each.query else "begin"}.get(each.method, each.method)
        found.setdefault(kind, set()).add(tuple(each.headers[name] for name in NAMES if name in each.headers))
    return found


async def test_sse_s3_is_asked_for_where_objects_begin_and_nowhere_else(make, between, store):
    plane = make(between.endpoint, sse={"type": "AES256"})
    await write_in_every_way(plane, "sse")
    said, plain = {("AES256",)}, {()}
    seen = encrypted(between.seen)
    begun = {"put object": said, "copy object": said, "begin": said}
    assert seen == begun | {"put step": plain, "copy step": plain, "commit": plain, "HEAD": plain}
    with contextlib.closing(store.client()) as client:
        for key in ("source", "steps", "copy"):
            assert client.head_object(Bucket="lake", Key=f"sse/{key}")["ServerSideEncryption"] == "AES256"
    assert await read(plane, "sse/copy") == BIG
    assert await read(plane, "sse/steps") == BIG + BIG[5 : 5 * MIB]
    both = checksum.compute(BIG[5 : 5 * MIB], checksum.compute(BIG))
    assert (await plane.stat("sse/steps")).checksums == {"crc64nvme": both}, "the evidence is of what is read"


async def test_a_copy_of_a_source_without_a_checksum_is_encrypted_too(make, between, store):
    with contextlib.closing(store.client()) as client:
        client.put_object(Bucket="lake", Key="theirs", Body=SMALL)
    plane = make(between.endpoint, sse={"type": "AES256"})
    await plane.copy("sse/theirs", await ticket_of(plane, "theirs"), upload_id="theirs-1")
    assert {each.headers.get(NAMES[0]) for each in between.requests("POST", "uploads")} == {"AES256"}
    with contextlib.closing(store.client()) as client:
        assert client.head_object(Bucket="lake", Key="sse/theirs")["ServerSideEncryption"] == "AES256"


@pytest.mark.parametrize("key", [None, "arn:aws:kms:us-east-1:1:key/k"])
async def test_sse_kms_names_its_key(make, tmp_path, key):
    with localbucket.running(tmp_path) as lax, proxy.before(lax.endpoint) as between:  # it takes any header
        lax.create_bucket("lake")
        sse = {"type": "aws:kms"} | ({"key": key} if key else {})
        plane = make(between.endpoint, checksums="none", sse=sse)
        await write_in_every_way(plane, "kms")
        assert await read(plane, "kms/copy") == BIG
        said, plain = {("aws:kms", key) if key else ("aws:kms",)}, {()}
        seen = encrypted(between.seen)
        begun = {"put object": said, "copy object": said, "begin": said}
        assert seen == begun | {"put step": plain, "copy step": plain, "commit": plain, "HEAD": plain, "GET": plain}


@pytest.mark.parametrize("key", [None, "arn:aws:kms:us-east-1:1:key/k"])
async def test_small_objects_are_encrypted_like_all_others(make, tmp_path, key):
    with localbucket.running(tmp_path) as lax, proxy.before(lax.endpoint) as between:
        lax.create_bucket("lake")
        sse = {"type": "aws:kms"} | ({"key": key} if key else {})
        plane = make(between.endpoint, checksums="none", sse=sse, soon=0)
        await plane.put("small", SMALL, upload_id="s-1")
        await plane.copy("copy", await ticket_of(plane, "small"), upload_id="s-2", replace=True)
        assert await read(plane, "copy") == SMALL
        said = ("aws:kms", key) if key else ("aws:kms",)
        assert {"put object": {said}, "copy object": {said}}.items() <= encrypted(between.seen).items()
        assert not encrypted(between.requests("GET"))["GET"] - {()}
        by_others = [each for each in between.requests("PUT") if "boto" not in each.headers["user-agent"].lower()]
        assert len(by_others) == 2, "both went the short way"


async def test_small_objects_go_to_a_store_with_an_authority_of_its_own(make, store, tmp_path):
    trust = authority.make(tmp_path)
    with proxy.before(store.endpoint, trust) as between:
        plane = make(between.endpoint, ca=trust.ca, soon=0)
        for n in range(3):
            await plane.put(f"tls-small/{n}", SMALL, upload_id=f"tls-{n}")
            assert await read(plane, f"tls-small/{n}") == SMALL
        assert [each for each in between.seen if "boto" not in each.headers["user-agent"].lower()]


async def test_nothing_is_said_of_encryption_unless_it_is_configured(make, between):
    await write_in_every_way(make(between.endpoint), "bare")
    assert set().union(*encrypted(between.seen).values()) == {()}


@pytest.mark.parametrize(
    "sse", [{"type": "AES256", "key": "k"}, {"type": "none"}, {}, {"type": "aws:kms", "kye": "k"}, "AES256"]
)
def test_encryption_that_cannot_work_is_refused(sse):
    with pytest.raises(ValidationError) as refused:
        S3Settings.model_validate({"bucket": "lake", "sse": sse})
    assert {each["loc"][0] for each in refused.value.errors()} == {"sse"}


# --- two accounts of one store


def signers(between: proxy.Proxy) -> dict[str, set[str]]:
    """By bucket: the access keys of the requests that were sent to it."""
    found: dict[str, set[str]] = {}
    for each in between.seen:
        key = each.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        found.setdefault(each.path.split("/")[1], set()).add(key)
    return found


async def test_two_accounts_of_one_store_never_ask_with_each_others_key(make, between, store):
    hers, his = store.create_user("she", "hers"), store.create_user("he", "his")
    one = make(between.endpoint, hers, bucket="hers")
    two = make(between.endpoint, his, bucket="his")
    await one.put("x", BIG, upload_id="a-1")
    ticket = await ticket_of(one, "x")
    assert one.accepts(ticket)
    assert not two.accepts(ticket)
    with pytest.raises(Unsupported):
        await two.copy("x", ticket, upload_id="a-2")
    async with await two.upload("x", upload_id="a-3") as upload:
        with pytest.raises(Unsupported):
            await upload.copy(1, 0, ticket, 0, len(BIG))
        step = await upload.put(1, 0, await read(one, "x"))
        await upload.commit([step], len(BIG), step.crc64nvme)
    assert await read(two, "x") == BIG
    assert signers(between) == {"hers": {hers[0]}, "his": {his[0]}}
    assert not [each for each in between.seen if "x-amz-copy-source" in each.headers]
    with pytest.raises(Refused):  # the accounts really are two
        await make(between.endpoint, his, bucket="hers").stat("x")


async def test_the_same_account_under_two_names_copies_natively(make, between):
    one, two = make(between.endpoint, bucket="hers"), make(between.endpoint, bucket="his")
    await one.put("natively", SMALL, upload_id="n-1")
    ticket = await ticket_of(one, "natively")
    assert two.accepts(ticket)
    await two.copy("natively", ticket, upload_id="n-2")
    assert await read(two, "natively") == SMALL


# --- addresses


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "https://store.example:8333/lake/in/x"),
        ({"path_style": True}, "https://store.example:8333/lake/in/x"),
        ({"path_style": False}, "https://lake.store.example:8333/in/x"),
        ({"endpoint": None}, "https://lake.s3.amazonaws.com/in/x"),
        ({"endpoint": None, "path_style": True}, "https://s3.amazonaws.com/lake/in/x"),
    ],
)
async def test_the_bucket_stands_in_the_path_or_in_the_hosts_name(make, given, address):
    plane = make(**{"endpoint": "https://store.example:8333", "prefix": "in"} | given)
    ticket = plane.copy_ticket(Info("x", 1, "etag", None))  # type: ignore[arg-type] # when is of no interest
    assert (await plane.presign(ticket)).partition("?")[0] == address


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        ({"endpoint": "https://store.example:8333"}, {}, "https://store.example:8333/lake/"),
        ({"endpoint": "https://store.example/s3", "path_style": False}, {}, "https://lake.store.example/s3/"),
        ({"region": "eu-north-1"}, {}, "https://lake.s3.eu-north-1.amazonaws.com/"),
        ({"region": "cn-north-1"}, {}, "https://lake.s3.cn-north-1.amazonaws.com.cn/"),
        ({"bucket": "la.ke", "region": "eu-north-1"}, {}, "https://s3.eu-north-1.amazonaws.com/la.ke/"),
        ({}, {"AWS_ENDPOINT_URL_S3": "https://vpce.example"}, "https://lake.vpce.example/"),
        (
            {"region": "us-gov-west-1"},
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            "https://lake.s3-fips.us-gov-west-1.amazonaws.com/",
        ),
    ],
)
async def test_small_requests_go_where_the_sdk_sends_all_others(make, given, environment, address, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sent, stores = [], []

    def request(_wire: Wire, method: str, url: str, headers: Any) -> tuple[int, bytes]:
        sent.append((method, url))
        return 404, b""

    monkeypatch.setattr(Wire, "request", request)
    monkeypatch.setattr("obstore.store.S3Store", lambda *_, config, **__: stores.append(config))
    connection = make(**{"endpoint": None} | given)._connection
    location = {"bucket": connection.bucket, "key": "x"}
    assert await Copier(connection).copy("to/x y", Ticket("s3", connection.scope, location, "e", 1)) is None
    assert sent == [("PUT", f"{address}to/x%20y")]
    connect(connection)
    in_host = connection.bucket in address.split("/")[2].split(".")
    assert stores[0]["virtual_hosted_style_request"] == in_host
    assert stores[0]["endpoint"] == address.removesuffix("/" if in_host else f"/{connection.bucket}/")


async def test_every_request_goes_to_the_host_that_is_named_after_the_bucket(make, between, monkeypatch):
    resolve = socket.getaddrinfo

    def loopback(host: Any, *more: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return resolve("127.0.0.1" if name.endswith("store.example") else name, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", loopback)
    between.always(proxy.answer(404, "NoSuchKey"))
    plane = make(between.endpoint.replace("127.0.0.1", "store.example"), path_style=False)
    port = between.endpoint.rpartition(":")[2]
    for call in (
        plane.put("folder/x", b"1", upload_id="p-1"),
        plane.read(Extent("folder/x", "", 0, 1), memoryview(bytearray(1))),
        plane.stat("folder/x"),
    ):
        with pytest.raises(Error, match="cloud0"):
            await call
    assert {each.headers["host"] for each in between.seen} == {f"lake.store.example:{port}"}
    assert {each.path for each in between.seen} <= {"/folder/x", "/"}


# --- authorities


async def test_a_store_behind_an_authority_of_its_own_is_trusted_by_ca(make, store, tmp_path, monkeypatch):
    trust = authority.make(tmp_path)
    with proxy.before(store.endpoint, trust) as between:
        plane = make(between.endpoint, ca=trust.ca)
        await write_in_every_way(plane, "tls")
        assert await read(plane, "tls/copy") == BIG
        assert {each.method for each in between.seen} == {"PUT", "POST", "HEAD", "GET"}
        by_environment = make(between.endpoint)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(trust.ca))
        assert await read(by_environment, "tls/copy") == BIG


async def test_a_store_that_is_not_trusted_is_refused_and_says_what_to_set(make, store, tmp_path):
    trust, other = authority.make(tmp_path), authority.make(tmp_path / "other")
    with proxy.before(store.endpoint, trust) as between:
        for plane in (make(between.endpoint), make(between.endpoint, ca=other.ca)):
            for call in (
                plane.put("x", b"1", upload_id="u-1"),
                plane.read(Extent("x", "", 0, 1), memoryview(bytearray(1))),
            ):
                with pytest.raises(Refused, match=r"is not trusted: name its authority in `ca`"):
                    await call
        assert not between.seen


def asked(address: Address, body: bytes = b"", **changed: Any) -> tuple[int, dict[str, str], bytes]:
    """A request as signed, but for what is changed of it; a header of None is left out."""
    headers = {name: text for name, text in ({**address.headers} | changed.pop("headers", {})).items() if text}
    url = changed.pop("url", address.url)
    answer = urllib3.request(address.method, url, body=body or None, headers=headers, retries=False, timeout=30)
    return answer.status, {name.lower(): text for name, text in answer.headers.items()}, answer.data


async def test_a_step_that_is_signed_for_a_node_is_of_these_bytes_alone(make, store):
    plane = make("http://127.0.0.1:1", direct=True, direct_endpoint=store.endpoint)  # only nodes see it there
    behind = make(store.endpoint)
    body, crc = BIG[: 5 * MIB], checksum.compute(BIG[: 5 * MIB])
    upload = await behind.upload("~1/step", upload_id="d-1")
    address = await plane.signing().step(upload.token, 2, len(body), crc)
    assert "Signature" not in repr(address)
    assert asked(address, BIG[1:][: len(body)])[0] == 400
    assert asked(address, BIG, headers={"content-length": str(len(BIG))})[0] == 403
    assert asked(address, body, headers={"x-amz-checksum-crc64nvme": None})[0] == 403
    assert asked(address, body, url=address.url.replace("partNumber=2", "partNumber=1"))[0] == 403
    status, said, _ = asked(address, body)
    assert (status, said["x-amz-checksum-crc64nvme"]) == (200, checksum.to_s3(crc))
    receipt = StepReceipt(2, len(body), crc, said["etag"].strip('"'))
    assert (await upload.commit([receipt], len(body), crc)).checksums == {"crc64nvme": crc}


async def test_an_object_and_a_range_that_are_signed_for_a_node_are_those_alone(make, store):
    plane = make(store.endpoint, direct=True)
    signing, crc = plane.signing(), checksum.compute(SMALL)
    whole = Whole("~1/whole", "d-2", content_type="text/csv", metadata={"by": "her"})
    address = await signing.put(whole, len(SMALL), crc)
    assert asked(address, BIG[1:][: len(SMALL)])[0] == 400
    assert asked(address, SMALL, headers={"if-none-match": None})[0] == 403
    assert asked(address, SMALL)[0] == 200
    assert asked(address, SMALL)[0] == 412  # it is there
    info = await plane.stat("~1/whole")
    assert (info.checksums["crc64nvme"], info.content_type, info.metadata["by"]) == (crc, "text/csv", "her")
    await plane.discard("~1/whole", "d-3")  # of another attempt
    reading = await signing.read(Extent("~1/whole", info.version, 10, 30))
    assert asked(reading)[::2] == (206, SMALL[10:30])
    assert asked(reading, headers={"range": "bytes=0-9"})[0] == 403
    assert asked(reading, headers={"range": None})[0] == 403
    await plane.discard("~1/whole", "d-2")
    with pytest.raises(NotFound):
        await plane.stat("~1/whole")


async def test_nothing_is_signed_for_nodes_that_a_store_would_not_hold_against_a_checksum(make, store):
    plain = make(store.endpoint, direct=True, checksums="none")
    with pytest.raises(Unsupported, match="checksum"):
        await plain.signing().put(Whole("~1/x", "d-4"), 1, 1)
    other = await make(store.endpoint).upload("~1/x", upload_id="d-5", kind="crc32")
    with pytest.raises(Unsupported, match="checksum"):
        await make(store.endpoint, direct=True).signing().step(other.token, 1, 1, 1)
    await other.abort()
    with pytest.raises(ValidationError, match="direct: true"):
        make(store.endpoint, direct_endpoint=store.endpoint)
