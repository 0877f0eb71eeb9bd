"""Agents that reach the store by themselves: bytes go past the file server, and round by it where they cannot."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from fileserver.agents.plane import AgentPlane
from fileserver.transfer.routes import DIRECT, STREAMED
from fileserver.transfer.spec import Spec, Spray
from planes.azure import AzureSettings
from planes.opening import open_plane
from planes.plane import KIB, MIB
from planes.posix import LIMITS
from planes.s3 import S3Settings
from tests.doubles import authority, azurite, proxy, seaweedfs
from tests.doubles.cable import cable
from tests.fileserver.agents.world import World, noise

LITTLE = 100 * KIB
"""More than all that is said beside the bytes."""


@pytest.fixture(scope="module")
def weed(tmp_path_factory):
    with seaweedfs.running(tmp_path_factory.mktemp("s3")) as running:
        running.create_bucket("lake")
        yield running


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with azurite.running(tmp_path_factory.mktemp("azure")) as running:
        running.create_container("lake")
        yield running


@pytest.fixture
def make(store, tmp_path, monkeypatch):
    """A world with a plane at a store that agents reach where `seen` says."""

    @asynccontextmanager
    async def made(settings, seen):
        prefix = tmp_path.name
        plane = open_plane("data", settings.model_copy(update={"prefix": f"{prefix}/", "direct_endpoint": seen}))
        (tmp_path / "there").mkdir()
        try:
            async with World(store, plane, tmp_path / "there") as world:
                yield world
        finally:
            await plane.aclose()

    monkeypatch.setattr(AgentPlane, "limits", replace(LIMITS, put_size=MIB))
    return made


@pytest.fixture
def s3(weed, monkeypatch):
    monkeypatch.setenv("DIRECT_ACCESS", weed.access_key)
    monkeypatch.setenv("DIRECT_SECRET", weed.secret_key)
    keys = {"access_key": {"env": "DIRECT_ACCESS"}, "secret_key": {"env": "DIRECT_SECRET"}}
    given = {"bucket": "lake", "endpoint": weed.endpoint, "put_size": 5 * MIB, "direct": True}
    return S3Settings.model_validate(given | keys)


@pytest.fixture
def blobs(azure, monkeypatch):
    monkeypatch.setenv("DIRECT_KEY", azure.key)
    given = {"container": "lake", "account_url": azure.url, "account_key": {"env": "DIRECT_KEY"}, "direct": True}
    return AzureSettings.model_validate(given | {"put_size": 64 * KIB})


def routes(outcome):
    return {each["route"]: each["why"] for each in outcome["routes"]}


@pytest.mark.parametrize(("which", "size"), [("s3", 11 * MIB), ("blobs", 150 * KIB)])
async def test_bytes_go_past_the_file_server_both_ways_and_no_signature_or_grant_stays_anywhere(
    request, make, which, size, caplog
):
    caplog.set_level(logging.DEBUG)
    settings = request.getfixturevalue(which)
    with capture_logs() as said:
        records, grants = await both_ways(make, settings, size)
    assert records
    assert grants
    for word in ("X-Amz-Signature", "X-Amz-Credential", "sig=", "partNumber=", "comp=block", *grants):
        assert word not in caplog.text
        assert word not in repr(said)
        assert word.encode() not in records


def two(world, size):
    """A file that one request writes, one that takes steps, and what is asked: each is a part."""
    small, large = world.write("small", noise(50 * KIB)), world.write("large", noise(size))
    places = world.here("small"), world.here("large")
    return small, large, Spec(Spray(places, "a::x", "data", 2, 0, None, no_split=True))


async def both_ways(make, settings, size):
    """All that the server has on record after two files went there and back, past it; and the grants for that."""
    grants = []
    async with make(settings, None) as world, cable(world.port) as between:
        mint = world.keys.mint
        world.keys.mint = lambda grant: grants.append(mint(grant)) or grants[-1]
        small, large, both = two(world, size)
        async with world.agent(writes=["back"], port=between.port):
            up = await world.done((await world.jobs.create(both)).id)
            assert await world.content() == [small, large]  # one by one request, one in steps
            down = await world.done(await world.despray("back"))
        for outcome in (up, down):
            assert routes(outcome).keys() == {DIRECT}
            assert outcome["evidence"] == "compared"
        assert (world.folder / "back").read_bytes() == small + large
        assert between.carried < LITTLE < len(large)
        return b"".join(path.read_bytes() for path in world.folder.parent.rglob("*.db*")), grants


async def test_a_store_that_is_not_reached_gets_its_bytes_from_the_file_server_and_why_is_on_record(make, s3, weed):
    why = "403 AccessDenied"
    with proxy.before(weed.endpoint) as between:
        between.always(proxy.answer(403, "AccessDenied"))
        async with make(s3, between.endpoint) as world, world.agent(writes=["back"]):
            data = world.write("x", noise(11 * MIB))
            transfer = await world.spray("x", parts=1)
            outcome = await world.done(transfer)
            assert why in routes(outcome)[STREAMED]
            assert outcome["evidence"] == "compared"
            assert why in "".join((await world.record(transfer)).warnings)
            assert b"".join(await world.content()) == data
            assert (await world.done(await world.despray("back")))["evidence"] == "compared"
            assert (world.folder / "back").read_bytes() == data
        assert len(between.seen) < 6  # not once for every step


async def test_what_goes_wrong_on_the_way_to_the_store_is_tried_again_there(make, s3, weed):
    with proxy.before(weed.endpoint) as between:
        async with make(s3, between.endpoint) as world, world.agent(writes=["back"]):
            small, large, both = two(world, 11 * MIB)
            for fault, number in ((proxy.flip_sent, 1), (proxy.fail, 2), (proxy.drop_answer, 3)):
                between.once(fault, method="PUT", query=f"partNumber={number}")
            between.once(proxy.drop_answer, method="PUT", path="_1_of_2")  # and 412, the second time
            outcome = await world.done((await world.jobs.create(both)).id)
            assert routes(outcome).keys() == {DIRECT}
            assert sorted(each.status for each in between.requests("PUT")) == [0, 0, 200, 200, 200, 400, 412, 500]
            between.once(proxy.reset_after(MIB), method="GET")
            outcome = await world.done(await world.despray("back"))
            assert routes(outcome).keys() == {DIRECT}
        assert (world.folder / "back").read_bytes() == small + large


async def test_a_store_whose_certificate_the_site_has_signed_is_reached_by_nodes_that_know_no_such_authority(
    make, s3, weed, tmp_path
):
    trust = authority.make(tmp_path / "pki")
    with proxy.before(weed.endpoint, trust) as between:
        settings = s3.model_copy(update={"endpoint": between.endpoint, "ca": trust.ca})
        async with make(settings, None) as world, world.agent(writes=["back"]):
            data = world.write("x", noise(KIB))
            up = await world.done(await world.spray("x", parts=1))
            down = await world.done(await world.despray("back"))
        assert [routes(each).keys() for each in (up, down)] == [{DIRECT}, {DIRECT}]
        assert (world.folder / "back").read_bytes() == data
