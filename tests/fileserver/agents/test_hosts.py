"""Planes that belong to hosts: agents that stay, with folders of their own, and what is done with their files."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys

import pytest
import sqlalchemy as sa

from fileserver.agents.plane import AgentPlane
from fileserver.auth import Caller, set_caller
from fileserver.away import machine, program
from fileserver.away.work import Agent, Orders
from fileserver.callers import RuleSettings
from fileserver.catalogue import agents as rows
from fileserver.catalogue.files import Catalogue, now
from fileserver.catalogue.names import MANIFEST
from fileserver.errors import CallerDenied, InvalidSpec
from fileserver.rules import Rules, Verb
from fileserver.services.agent import AgentServicer, Share, must_be_of, wrong_planes
from fileserver.together import to_its_end
from fileserver.transfer import manifest_rows
from fileserver.transfer.custody import Custody
from fileserver.transfer.garbage import collect
from fileserver.transfer.live import PATIENCE
from fileserver.transfer.spec import Copy, Despray, Fixed, Location, Replicate, Spec, Spray, Sync
from fileserver.v1 import agent_pb2 as pb
from planes.errors import Corrupt, PathEscapes, Refused, Unavailable, Unsupported
from planes.plane import MIB, Extent
from tests.fileserver.agents.world import CSV, SLOW, noise, some_stored, table

IDLE = pytest.mark.parametrize("world", [False], indirect=True)
"""Where no transfer runs."""


def parts_on(world, host):
    return sorted(p.name for p in world.home(host).rglob("*") if p.is_file() and "_of_" in p.name)


def everything(world):
    return sorted(p.name for h in ("h1", "h2") for p in world.home(h).rglob("*") if p.is_file())


async def do(world, verb, **more):
    return await world.done((await world.jobs.create(Spec(verb, **more))).id)


def source(world, name, data):
    (world.folder.parent / "plane" / name).write_bytes(data)
    return Location("data", name)


async def spray(world, place, *, file="a::x", parts=4, form=CSV, plane="thor"):
    return await do(world, Spray((place,), file, plane, parts, 0, form))


async def despray(world, name, plane="data", file="a::x"):
    outcome = await do(world, Despray(file, Location(plane, name)))
    return outcome, (world.folder.parent / "plane" / name).read_bytes() if plane == "data" else b""


async def test_parts_lie_on_their_hosts_and_come_back(world):
    text = table(20_000)
    async with world.hosts():
        outcome = await spray(world, source(world, "x.csv", text))
        assert outcome["evidence"] == "compared"
        assert parts_on(world, "h1") == ["x._1_of_4", "x._3_of_4"]
        assert parts_on(world, "h2") == ["x._2_of_4", "x._4_of_4"]
        found = {p.name: p.read_bytes() for h in ("h1", "h2") for p in world.home(h).rglob("*_of_*")}
        assert b"".join(found[name] for name in sorted(found)) == text
        assert all(re.match(rb"\d+,", part) and part.endswith(b"\n") for part in found.values())
        outcome, back = await despray(world, "back.csv")
        assert back == text
        assert outcome["evidence"] == "compared"


async def test_large_parts_go_in_steps_and_each_host_carries_its_own(world, large, monkeypatch):
    data = noise(large - 300_001)  # so that no step ends by chance where a part does
    async with world.hosts():
        await spray(world, source(world, "x", data), form=Fixed(1), parts=2)
        read = await _payload_read(world, monkeypatch)
        assert (await despray(world, "back"))[1] == data
        assert not read  # but for samples nothing came past the hosts' own writes


async def _payload_read(world, monkeypatch):
    """Reads of files of hosts by the file server that are larger than samples."""
    from fileserver.agents.plane import AgentPlane

    found, usual = [], AgentPlane.read

    async def read(self, extent, into):
        if extent.size > 64 * 1024:
            found.append(extent)
        await usual(self, extent, into)

    monkeypatch.setattr(AgentPlane, "read", read)
    return found


async def test_a_file_moves_between_hosts_and_to_and_from_them(world, large):
    data = noise(large)
    async with world.hosts():
        await spray(world, source(world, "x", data), form=Fixed(1), parts=2, plane="data")
        await do(world, Replicate("a::x", "thor"))
        await do(world, Copy("a::x", "a::y", "thor", 3, 0))  # made of either copy
        await do(world, Copy("a::y", "a::z", "thor", 2, 0))  # from each host to each
        assert parts_on(world, "h1") == ["x._1_of_2", "y._1_of_3", "y._3_of_3", "z._1_of_2"]
        assert (await despray(world, "back", file="a::z"))[1] == data
        await do(world, Despray("a::z", Location("thor", "h2/out/z")))
        assert (world.home("h2") / "out" / "z").read_bytes() == data
        await do(world, Spray((Location("thor", "h2/out/*"),), "a::w", "data", 2, 0, Fixed(1)))
    assert (world.home("h2") / "out" / "z").read_bytes() == data


async def test_what_lies_on_hosts_is_read_listed_verified_and_deleted(world):
    text = table(3000)
    async with world.hosts():
        await spray(world, source(world, "x.csv", text))
        plane = world.planes.plane("thor")
        keys = [info.key async for info in plane.list()]
        assert len(keys) == 5  # four parts and their manifest
        assert keys == sorted(keys)
        assert [info.key async for info in plane.list("h2/")] == [key for key in keys if key.startswith("h2/")]
        assert [info.key async for info in plane.list("", keys[2])] == keys[3:]
        parts = await Catalogue(world.store).all_parts((await Catalogue(world.store).get("a::x")).generation)
        read = bytearray()
        for part in parts:
            await plane.stream(Extent(part.key, part.version, 0, part.size), read.extend)
        assert read == text
        with pytest.raises(Refused, match="its hosts are h1, h2"):
            await plane.stat("h3/x")
        with pytest.raises(PathEscapes, match="thor:HOST/PATH"):
            await plane.stat("x")
        with pytest.raises(PathEscapes):
            await plane.stat("h1/../../secret")
        custody = Custody(world.store, world.planes, retire_after=0.0)
        assert all(each.ok for each in await custody.verify("a::x", read=True))
        assert (await custody.rebuild("thor", validate_only=True)).present == ["a::x"]
        next(world.home("h2").rglob("*_of_*")).write_bytes(b"other")
        assert [each.ok for each in await custody.verify("a::x", read=False)].count(False) == 1
        await custody.delete("a::x", with_parts=False, validate_only=False)
        await collect(world.store, world.planes, now() + 1)
        assert everything(world) == []


async def test_a_spray_from_a_machine_of_neither_side(world):
    text = world.write("x.csv", table(3000))
    async with world.agent(writes=["back"]), world.hosts():
        await spray(world, world.here("x.csv"))
        await world.done(await world.despray("back"))
    assert (world.folder / "back").read_bytes() == text


async def test_an_agent_that_is_told_to_leave_ends_what_it_has_begun(world, large):
    data = noise(large)
    async with world.hosts(rates=SLOW) as agents:
        verb = Spray((source(world, "x", data),), "a::x", "thor", 2, 0, Fixed(1))
        transfer = (await world.jobs.create(Spec(verb))).id
        await some_stored(world, transfer)
        for each in agents:
            each.leave()
        assert await asyncio.wait_for(agents[0].task, 20)
        assert await asyncio.wait_for(agents[1].task, 20)
        done = await world.store.read(lambda c: manifest_rows.steps(c, transfer, 1, 2))
        assert sum(len(steps) for steps in done.values()) == large // MIB  # not committed yet: nobody is here
    async with world.hosts():
        await world.done(transfer)
        assert (await despray(world, "back"))[1] == data


async def test_a_cancelled_spray_leaves_nothing_on_any_host(world, large):
    async with world.hosts(rates=SLOW):
        verb = Spray((source(world, "x", noise(large)),), "a::x", "thor", 2, 0, Fixed(1))
        transfer = (await world.jobs.create(Spec(verb))).id
        await some_stored(world, transfer)
        await world.jobs.cancel(transfer)
        assert (await world.ended(transfer)).state == "CANCELLED"
        assert everything(world) == []


async def test_a_cancel_waits_for_what_a_host_is_writing_and_then_cleans_up(world, monkeypatch):
    begun, goes_on, put = asyncio.Event(), asyncio.Event(), machine.HomePlane.put

    async def slow(*words, **more):
        if not words[1].endswith(MANIFEST):
            return await put(*words, **more)

        async def late():
            await goes_on.wait()
            return await put(*words, **more)

        begun.set()
        receipts = []
        await to_its_end(late(), receipts.append)  # as a thread does that is in the middle of it
        return receipts[0]

    async def unwanted():
        return await world.store.read(lambda c: c.execute(sa.select(rows.assignments.c.stopping)).scalars().all())

    monkeypatch.setattr(machine.HomePlane, "put", slow)
    async with world.hosts():
        verb = Spray((source(world, "x", noise(1000)),), "a::x", "thor", 2, 0, Fixed(1))
        transfer = (await world.jobs.create(Spec(verb))).id
        await begun.wait()
        await world.jobs.cancel(transfer)
        while True not in await unwanted() and (await world.record(transfer)).ended is None:
            await asyncio.sleep(0.01)
        goes_on.set()
        assert (await world.ended(transfer)).state == "CANCELLED"
    assert everything(world) == []


def told_by(host, *answers):
    """The files of a host whose agent says this."""
    said = list(answers)

    class Told:
        async def ask(self, *_, **_more):
            return said.pop(0)

    return AgentPlane("thor", Told(), None, host)


def named(*keys, **more):
    return pb.Answer(files=[pb.FileInfo(key=key, size=1, version="v") for key in keys], **more)


@pytest.mark.parametrize("host", ["h1", ""])
async def test_an_agent_tells_of_what_it_was_asked_for_and_of_no_other_hosts_files(host):
    assert (await told_by(host, named("h1/x")).stat("h1/x")).key == "h1/x"
    for wrong in (named("h2/x"), named()):
        with pytest.raises(Corrupt, match="thor"):
            await told_by(host, wrong).stat("h1/x")
    pages = named("h1/a/1", "h1/a/2", more=True), named("h1/a/3")
    assert len([info async for info in told_by(host, *pages).list("h1/a/")]) == 3
    again = named("h1/a/1", more=True)
    for pages in ([named("h2/x")], [named("h1/b")], [again, again], [named(more=True)], [named("h1/a/2", "h1/a/1")]):
        with pytest.raises(Corrupt, match="thor"):
            assert [info async for info in told_by(host, *pages).list("h1/a/")]
    with pytest.raises(Corrupt, match="thor"):
        await told_by(host, pb.Answer()).resume("h1/t").commit([], 0, None)
    if host:
        for receipts in (
            told_by(host, pb.Answer()).put("h1/x", b"", upload_id="u"),
            told_by(host, pb.Answer()).step("h1/t", 1, 0, b""),
        ):
            with pytest.raises(Corrupt, match="thor"):
                await receipts
        with pytest.raises(Corrupt, match="thor"):
            assert [one async for one in told_by(host, named("h2/x")).unfinished("h1/")]


@IDLE
async def test_a_second_agent_of_a_host_takes_the_place_of_the_first(world):
    async with world.host("h1") as first, world.host("h1"):
        assert await asyncio.wait_for(first.task, 10) is False


async def test_what_needs_a_host_that_is_not_here_is_told_so_at_once(world):
    place = source(world, "x.csv", table(10))
    async with world.host("h1"):
        with pytest.raises(Unavailable, match="no agent of host h2 is connected: start `cropduster agent --host h2"):
            await spray(world, place)
        with pytest.raises(Unavailable, match="host h2"):
            await spray(world, Location("thor", "h2/x"), plane="data")
        with pytest.raises(Refused, match="no host h9"):
            await spray(world, Location("thor", "h9/x"), plane="data")
        async with world.host("h2"):
            await spray(world, place)
        with pytest.raises(Unavailable, match="host h2"):
            await despray(world, "back")
        assert not await world.jobs.listing(None, 10, active=True)
    with pytest.raises(Unsupported, match="belongs to hosts"):
        await world.jobs.create(Spec(Sync(Location("data", ""), Location("thor", "h1/"))))


@pytest.mark.parametrize("copies", [1, 2])
async def test_the_parts_of_the_other_hosts_are_looked_at_while_one_is_away(world, copies):
    async with world.hosts():
        await spray(world, source(world, "x.csv", table(100)), parts=20)
        if copies == 2:
            await do(world, Replicate("a::x", "data"))
    async with world.host("h1"):
        PATIENCE.set(0.1)  # of this test alone
        found = await Custody(world.store, world.planes, retire_after=0.0).verify("a::x", read=False)
    assert [v.verdict for v in found if v.plane == "thor"] == ["size", "away"] * 10


async def test_what_the_disk_of_a_machine_may_have_lost_that_was_started_anew_is_written_again(
    world, large, monkeypatch
):
    data, runs = noise(large), ["one"]
    monkeypatch.setattr(machine, "boot", lambda: runs[-1])
    async with world.hosts(rates=SLOW):
        verb = Spray((source(world, "x", data),), "a::x", "thor", 2, 0, Fixed(1))
        transfer = (await world.jobs.create(Spec(verb))).id
        await some_stored(world, transfer)
        for draft in [p for h in ("h1", "h2") for p in world.home(h).rglob(".cropduster-*")]:
            draft.write_bytes(bytes(MIB))  # what a disk has that did not get the rest
        runs.append("two")
        await world.done(transfer)
        assert (await despray(world, "back"))[1] == data
    assert not [name for name in everything(world) if name.startswith(".")]


@pytest.mark.parametrize(
    ("host", "planes", "why"),
    [
        ("h1", ["thor"], ""),
        ("h3", ["thor"], "plane thor has no host h3; its hosts are h1, h2"),
        ("h1", ["data"], "no plane data with hosts; those with hosts are thor"),
        ("h1", [], "say which planes"),
    ],
)
def test_an_agent_serves_what_the_configuration_gives_it(host, planes, why):
    said = wrong_planes(host, planes, {"thor": ["h1", "h2"]})
    assert why in said
    assert bool(why) == bool(said)


@pytest.mark.parametrize("folder", ["gone", "x" * 300, "nul\0", "file"])
def test_a_folder_that_is_none_is_told_of(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSpec, match="make it, or name another with --plane thor=FOLDER"):
        machine.Host("h1", {"thor": str(tmp_path / folder)})


@pytest.mark.parametrize("second", ["one", "one/deep", ".", "link/deep"])
def test_two_planes_of_a_host_have_folders_apart(tmp_path, second):
    (tmp_path / "one/deep").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    machine.Host("h1", {"a": str(tmp_path / "one"), "b": str(tmp_path / "two")})
    for names in ("ab", "ba"):
        folders = dict(zip(names, (str(tmp_path / "one"), str(tmp_path / second)), strict=True))
        with pytest.raises(InvalidSpec, match="give each a folder of its own"):
            machine.Host("h1", folders)


def test_nothing_that_a_file_server_says_steers_the_terminal_of_an_agent(monkeypatch, capsys):
    async def refuse(_agent):
        msg = "no\x1b]0;owned\x07\u202e plane\nthor, é"
        raise CallerDenied(msg)

    monkeypatch.setattr(Agent, "run", refuse)
    orders = json.dumps({"server": "x", "host": "h1"}).encode() + b"\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(orders)))
    assert program.main() == 3
    assert capsys.readouterr().err == "cropduster agent: no\\x1b]0;owned\\x07\\u202e plane\nthor, é\n"


@IDLE
async def test_a_host_is_served_by_whom_the_rules_have_for_it(world):
    orders = Orders(f"127.0.0.1:{world.port}", host="h3", planes={"thor": str(world.folder)})
    with pytest.raises(InvalidSpec, match="no host h3"):
        await Agent(orders).run()
    servicer = AgentServicer(world.agents, lambda _: False)
    rules = Rules([RuleSettings(who=("node1",), may=(Verb.SERVE,), hosts=("h1",)).rule()])
    set_caller(Caller(local=False, name="node1", rights=rules.of("node1", ()), outside=True))
    assert servicer.known(pb.Hello(host="h1", planes=["thor"])).served[0].name == "thor"
    with pytest.raises(CallerDenied, match=r"may: \[serve\] and hosts: \['h2'\]"):
        servicer.known(pb.Hello(host="h2", planes=["thor"]))
    set_caller(Caller(local=False, name="anybody", outside=True))  # with a token, and no rules are configured
    with pytest.raises(CallerDenied, match=r"may: \[serve\] and hosts: \['h1'\]"):
        servicer.known(pb.Hello(host="h1", planes=["thor"]))
    set_caller(Caller(local=False, name="spiffe://site/node1"))  # by its certificate, which `allow` has
    assert servicer.known(pb.Hello(host="h1", planes=["thor"])).served


@pytest.mark.parametrize(("part", "number"), [(2, 1), (1, 2), (1, 0), (4, 0), (5, 1)])
def test_receipts_are_of_what_was_handed_out(part, number):
    shares = {1: Share(frozenset([1, 3])), 4: Share(frozenset()), 5: Share(frozenset([1]), at_once=True)}
    must_be_of(shares, [pb.StepDone(part=1, number=3), pb.StepDone(part=4, number=9), pb.StepDone(part=5)])
    with pytest.raises(CallerDenied, match=f"step {number} of part {part} is of nothing"):
        must_be_of(shares, [pb.StepDone(part=part, number=number)])
