"""Two accounts of one service in one copy: each is asked with its own key, and only what it may give is copied."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from planes import checksum
from planes.azure import AzurePlane, AzureSettings
from planes.errors import Refused, Unsupported
from planes.plane import KIB, Extent, Ticket
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
