"""Two accounts of one service in one copy: each is asked with its own key, and only what it may give is copied."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
from pydantic import ValidationError

from planes import checksum
from planes.azure import AzurePlane, AzureSettings
from planes.direct import Address, Whole
from planes.errors import NotFound, Refused, Unsupported
from planes.plane import KIB, Extent, StepReceipt, Ticket
from tests.doubles import azurite, proxy

BODY = random.Random(5).randbytes(300 * KIB)


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    with azurite.running(tmp_path_factory.mktemp("azure")) as running:
        running.create_container("hers")
        running.another.create_container("his")
        yield running


@pytest.fixture
def between(account):
    with proxy.before(account.url) as running:
        yield running


@pytest.fixture
def make(account, between, monkeypatch):
    """Make the plane of an account, through the proxy."""
    made: list[AzurePlane] = []

    def plane(whose: azurite.Account, container: str, key: str = "", **more: Any) -> AzurePlane:
        variable = f"KEY{len(made)}"
        monkeypatch.setenv(variable, key or whose.key)
        url = f"{between.endpoint}/{whose.name}"
        given = {"container": container, "account_url": url, "account_key": {"env": variable}} | more
        made.append(AzurePlane(f"cloud{len(made)}", AzureSettings.model_validate(given)))
        return made[-1]

    yield plane
    for each in made:
        asyncio.run(each.aclose())


async def read(plane: AzurePlane, key: str) -> bytes:
    into = bytearray(len(BODY))
    await plane.read(Extent(key, "", 0, len(BODY)), memoryview(into))
    return bytes(into)


async def ticket_of(plane: AzurePlane, key: str) -> Ticket:
    ticket = plane.copy_ticket(await plane.stat(key))
    assert ticket is not None
    return ticket


async def test_accounts_that_do_not_reach_each_other_are_not_copied_between(make, account, between):
    one, two = make(account, "hers"), make(account.another, "his")
    await one.put("x", BODY, upload_id="a-1")
    ticket = await ticket_of(one, "x")
    assert one.accepts(ticket)
    assert not two.accepts(ticket)
    with pytest.raises(Unsupported):
        await two.copy("x", ticket, upload_id="a-2", url=partial(one.presign, ticket))
    await two.put("x", await read(one, "x"), upload_id="a-3")
    assert await read(two, "x") == BODY
    assert not [each for each in between.seen if "x-ms-copy-source" in each.headers]
    for each in between.seen:
        signed = each.headers.get("authorization", "").removeprefix("SharedKey ").partition(":")[0]
        assert signed in {"", each.path.split("/")[1]}, "the key of one account at the other"
    with pytest.raises(Refused):  # the keys really are two
        await make(account, "hers", key=account.another.key).stat("x")


async def test_a_copy_between_accounts_is_signed_by_the_owner_of_the_source(make, account, between):
    one = make(account, "hers")
    await one.put("y", BODY, upload_id="b-1", content_type="text/csv", metadata={"by": "her"})
    two = make(account.another, "his", pull_from=[f"{between.endpoint}/{account.name}"])
    ticket = await ticket_of(one, "y")
    assert two.accepts(ticket)
    with pytest.raises(Unsupported):  # nobody there to sign: its own key must not be tried
        await two.copy("y", ticket, upload_id="b-2")
    between.clear()
    async with await two.upload("ranges", upload_id="b-3") as upload:
        step = await upload.copy(1, 0, ticket, 100, len(BODY), partial(one.presign, ticket))
        await upload.commit([step], len(BODY) - 100, checksum.compute(BODY[100:]))
    (copied,) = [each for each in between.seen if "x-ms-copy-source" in each.headers]
    source = urlsplit(copied.headers["x-ms-copy-source"])
    assert copied.path == f"/{account.another.name}/his/ranges"
    assert copied.headers["authorization"].startswith(f"SharedKey {account.another.name}:")
    assert source.path == f"/{account.name}/hers/y"
    assert parse_qs(source.query)["sp"] == ["r"]
    await two.copy("y", ticket, upload_id="b-4", url=partial(one.presign, ticket))
    copy = await two.stat("y")
    assert (copy.content_type, copy.metadata["by"]) == ("text/csv", "her")
    assert await read(two, "y") == BODY


async def test_an_address_signed_with_the_wrong_key_is_refused_in_our_words(make, account, between):
    one = make(account, "hers")
    await one.put("z", BODY, upload_id="c-1")
    ticket = await ticket_of(one, "z")
    stranger = make(account, "hers", key=account.another.key)
    two = make(account.another, "his", pull_from=[f"{between.endpoint}/{account.name}"])
    with pytest.raises((Refused, Unsupported)):
        await two.copy("z", ticket, upload_id="c-2", url=partial(stranger.presign, ticket))
    assert [info.key async for info in two.list("z")] == []


def asked(address: Address, body: bytes = b"", **changed: Any) -> tuple[int, bytes]:
    headers = dict(address.headers) | changed.pop("headers", {})
    url = changed.pop("url", address.url)
    answer = urllib3.request(address.method, url, body=body or None, headers=headers, retries=False, timeout=30)
    return answer.status, answer.data


async def test_what_is_signed_for_a_node_is_for_one_blob_of_ours_and_one_thing(make, account):
    plane = make(account, "hers", direct=True, direct_endpoint=account.url)
    signing, crc = plane.signing(), checksum.compute(BODY)
    upload = await plane.upload("~1/steps", upload_id="d-1")
    step = await signing.step(upload.token, 1, len(BODY), crc)
    assert "sig=" not in repr(step)
    assert step.url.startswith(account.url)  # not where the plane itself goes
    assert asked(step, BODY[1:] + b"x")[0] == 400
    assert asked(step, BODY)[0] == 201
    assert asked(step, BODY, url=step.url.replace("steps", "other"))[0] == 403
    assert (await upload.commit([StepReceipt(1, len(BODY), crc)], len(BODY), crc)).checksums == {"crc64nvme": crc}
    info = await plane.stat("~1/steps")
    reading = await signing.read(Extent("~1/steps", info.version, 7, 77))
    assert asked(reading) == (206, BODY[7:77])
    assert asked(reading, headers={"if-match": '"0x1"'})[0] == 412
    assert asked(replace(step, url=reading.url + step.url[step.url.index("&comp=") :]), BODY)[0] == 403


async def test_a_blob_that_is_signed_for_a_node_is_written_once_and_none_outside_of_our_folders(make, account):
    plane = make(account, "hers", direct=True)
    signing, crc = plane.signing(), checksum.compute(BODY)
    put = await signing.put(Whole("~1/whole", "d-2", content_type="text/csv"), len(BODY), crc)
    assert asked(put, BODY[1:] + b"x")[0] == 400
    assert asked(put, BODY)[0] == 201
    assert asked(put, BODY)[0] in {403, 409}
    info = await plane.stat("~1/whole")
    assert (info.checksums["crc64nvme"], info.content_type) == (crc, "text/csv")
    await plane.discard("~1/whole", "d-2")
    with pytest.raises(NotFound):
        await plane.stat("~1/whole")
    with pytest.raises(Unsupported, match="not in a folder of ours"):
        await signing.put(Whole("theirs", "d-3"), len(BODY), crc)
    with pytest.raises(Unsupported, match="not in a folder of ours"):
        await signing.step((await plane.upload("theirs", upload_id="d-4")).token, 1, 1, 1)


async def test_a_plane_with_a_sas_cannot_sign_for_nodes(make, account):
    with pytest.raises(ValidationError, match="direct takes what can sign"):
        make(account, "hers", account_key=None, sas={"env": "KEY0"}, direct=True)


@pytest.mark.parametrize("key", ["a\\b", "a/./b", "./a/b"])
async def test_no_blob_is_written_whose_name_would_become_another_ones(make, account, key):
    plane = make(account, "hers", prefix="names/")
    done = await plane.put("a/b", b"plain", upload_id="t-1", replace=True)
    ticket = plane.copy_ticket(await plane.stat("a/b"))
    for write in (
        plane.put(key, b"odd", upload_id="t-2", replace=True),
        plane.upload(key, upload_id="t-2", replace=True),
        plane.copy(key, ticket, upload_id="t-2", replace=True, url=partial(plane.presign, ticket)),
    ):
        with pytest.raises(Refused, match="would become another name"):
            await write
    assert (await plane.stat("a/b")).version == done.etag
