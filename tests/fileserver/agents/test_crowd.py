"""Streams of agents: how many one caller has, how long one may say nothing, what of theirs others get, what is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from fileserver.auth import Caller, set_caller
from fileserver.callers import RuleSettings
from fileserver.calls import Call
from fileserver.catalogue import agents as rows
from fileserver.catalogue.counts import count
from fileserver.configured import agent_plane
from fileserver.errors import CallerDenied, ServerBusy, ServerUnavailable
from fileserver.guard.audit import Audits
from fileserver.rules import Rules
from fileserver.services import agent
from fileserver.services.agent import AgentServicer
from fileserver.v1 import agent_pb2 as pb

pytestmark = pytest.mark.parametrize("world", [False], indirect=True)


async def said(*hellos):
    """What an agent says, which then stays."""
    for hello in hellos:
        yield pb.WorkRequest(hello=hello)
    await asyncio.Event().wait()


def keyed(letter):
    return pb.Hello(key=letter * 32)


async def begun(servicer, inside, requests):
    """The first answer to a stream that stays open."""
    answers = await inside.enter_async_context(aclosing(servicer.Work(requests, None)))
    return await anext(answers)


async def test_a_caller_has_so_many_streams_and_no_more_and_others_have_their_own(world):
    servicer = AgentServicer(world.agents, lambda _: False, each=2)
    set_caller(Caller(local=False, name="alice", outside=True))
    async with AsyncExitStack() as inside:
        await begun(servicer, inside, said(keyed("a")))
        silent = asyncio.ensure_future(begun(servicer, inside, said()))  # one that does not say who it is counts
        await asyncio.sleep(0)
        with pytest.raises(ServerBusy, match="has 2 agents of commands of alice at work already") as told:
            await begun(servicer, inside, said(keyed("c")))
        assert told.value.retry_after
        set_caller(Caller(local=False, name="bob", outside=True))
        await begun(servicer, inside, said(keyed("b")))
        set_caller(Caller(local=False, name="alice", outside=True))
        silent.cancel()
        await asyncio.wait({silent})
        await begun(servicer, inside, said(keyed("c")))
    assert not len(servicer._places)  # nothing is kept of who has gone


async def test_agents_of_hosts_do_not_take_the_places_of_commands(world):
    servicer = AgentServicer(world.agents, lambda _: False, each=1)
    rules = Rules([RuleSettings(who=("site",), may=("serve",), hosts=("*",)).rule()])
    set_caller(Caller(local=False, name="site", rights=rules.of("site", ()), outside=True))
    async with AsyncExitStack() as inside:
        for host in ("h1", "h2"):
            welcome = await begun(servicer, inside, said(pb.Hello(host=host, planes=["thor"])))
            assert welcome.welcome.served[0].name == "thor"
        await begun(servicer, inside, said(keyed("a")))


async def test_who_does_not_say_who_it_is_is_sent_away(world, monkeypatch):
    monkeypatch.setattr(agent, "HELLO", 0.01)
    servicer = AgentServicer(world.agents, lambda _: False)
    with pytest.raises(ServerUnavailable, match="who it is: call again"):
        await anext(servicer.Work(said(), None))


async def lines_of(world, hello, error=None):
    with capture_logs() as lines:
        call = Call("/fileserver.v1.AgentService/Work", True, SimpleNamespace(peer=lambda: "ipv4:10.0.0.9:5"))
        async with AsyncExitStack() as inside:
            if error is not None:
                inside.enter_context(pytest.raises(error))
            await inside.enter_async_context(Audits("external", lambda: "").around(call))
            await begun(AgentServicer(world.agents, lambda _: False), inside, said(hello))
    found = [each for each in lines if each["event"] == "call"]
    return [each["result"] for each in found], found[-1]


async def test_the_audit_names_the_host_and_its_planes_and_no_key(world):
    results, found = await lines_of(world, pb.Hello(host="h1", planes=["thor"]))
    assert results == ["BEGUN", "OK"]  # it may be months between them
    assert found["named"] == ["serve host h1: thor"]
    set_caller(Caller(local=False, name="eve", rights=Rules([]).of("eve", ()), outside=True))
    results, found = await lines_of(world, pb.Hello(host="h1\x1b[2J", planes=["thor"]), CallerDenied)
    assert (results, found["who"], found["named"]) == (["CALLER_DENIED"], "eve", ["serve host h1\\x1b[2J: thor"])
    _, found = await lines_of(world, keyed("k"))
    assert found["named"] == [f"agent of a command, {agent_plane('k' * 32)}"]


async def test_a_host_that_was_lost_long_ago_is_still_lost_as_long_as_the_configuration_has_it(world):
    away = [{"plane": f"host:{name}", "stream": "s", "lease_until": 1.0} for name in ("h1", "gone")]
    away.append({"plane": agent_plane("k" * 32), "stream": "s", "lease_until": 1.0})
    await world.store.write(lambda c: c.execute(rows.agents.insert(), away))
    await world.agents.sweep()
    found = await world.store.read(count)
    assert found.hosts == {"here": 0, "lost": 1}
    assert await world.store.read(lambda c: c.execute(sa.select(rows.agents.c.plane)).scalars().all()) == ["host:h1"]


async def test_work_that_is_handed_out_anew_is_stopped_where_it_was_before(world, monkeypatch):
    async def handed(*_):
        return pb.FillWork()

    async def due(stream):
        told, goes_on = await stream.due()
        return [(each.WhichOneof("told"), each.stop.id or each.assignment.id) for each in told], goes_on

    monkeypatch.setattr(world.agents, "handed", handed)
    plane, a = agent_plane("k" * 32), rows.assignments.c
    await world.store.write(lambda c: rows.put(c, "t.1", plane, "t", 1, b""))
    first, second = (agent._Stream(world.agents, lambda _: False, plane, 4) for _ in range(2))
    await first.enter()
    ((_, before),), _ = await due(first)
    # Its lease has run out, as where the database was away; what it does of that time counts no more.
    await world.store.write(lambda c: c.execute(rows.assignments.update().values(lease_until=1.0)))
    ((stopped, name), (given, after)), _ = await due(first)
    assert (stopped, name, given) == ("stop", before, "assignment")
    assert before.partition("#")[0] == after.partition("#")[0] == "t.1"
    assert before != after
    await second.enter()  # at another file server, perhaps
    assert await due(first) == ([("replaced", "")], False)
    ((given, last),), _ = await due(second)
    assert last not in {before, after}
    await first._answer(pb.Answer(id=after))  # which comes too late
    assert await world.store.read(lambda c: c.execute(sa.select(a.answer, a.stream)).all()) == [(None, second._name)]
