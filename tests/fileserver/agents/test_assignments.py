"""What is asked of an agent at one file server, whose stream another one holds."""

from __future__ import annotations

import asyncio

import pytest

from fileserver.agents.assignments import Assignments
from fileserver.catalogue import agents as rows
from fileserver.catalogue import databases
from fileserver.catalogue.store import Store
from fileserver.errors import FormatMismatch
from fileserver.v1 import agent_pb2 as pb
from planes.errors import NotFound, Unavailable
from tests.doubles import postgres

PLANE = "@a"
STAT = pb.Assignment(stat=pb.StatWork(key="x"))


@pytest.fixture(scope="module")
def server():
    with postgres.running() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request, tmp_path):
    """The stores of who asks and of who holds the stream."""
    if request.param == "sqlite":
        one = other = Store(tmp_path)
    else:
        url = request.getfixturevalue("server").database()
        databases.migrate(url)
        one, other = Store(tmp_path, url), Store(tmp_path, url)
    yield one, other
    one.close()
    other.close()


async def lease(store, stream="s1", segments=1, calls=1):
    """Take one thing that waits."""
    while not (taken := await store.write(lambda c: rows.lease(c, PLANE, stream, segments, calls))):
        await asyncio.sleep(0.01)
    return taken


async def answer(store, one, said, stream="s1"):
    await store.write(lambda c: rows.answer(c, one.id, stream, said.SerializeToString()))


async def test_an_answer_comes_back_and_nothing_of_it_is_left(both):
    asking, holding = both
    assignments = Assignments(asking)
    task = asyncio.create_task(assignments.ask(PLANE, STAT))
    (one,) = await lease(holding)
    assert pb.Assignment.FromString(one.request) == STAT
    await answer(holding, one, pb.Answer(token="t"), "another stream")
    await answer(holding, one, pb.Answer(token="u"))
    assignments.news.tell(one.id)
    assert (await task).token == "u"
    assert await asking.read(lambda c: rows.look(c, one.id)) is None


async def test_an_error_is_raised_as_what_it_was(both):
    asking, holding = both
    assignments = Assignments(asking)
    for reason, kind in (("OBJECT_NOT_FOUND", NotFound), ("FORMAT_MISMATCH", FormatMismatch)):
        task = asyncio.create_task(assignments.ask(PLANE, STAT))
        (one,) = await lease(holding)
        await answer(holding, one, pb.Answer(error=pb.AgentError(reason=reason, message="m", facts={"key": "x"})))
        assignments.news.tell(one.id)
        with pytest.raises(kind, match="m") as raised:
            await task
        assert raised.value.facts == {"key": "x"}


async def test_two_streams_never_take_the_same_and_a_lost_one_frees_what_it_held(both, monkeypatch):
    asking, holding = both
    for name in ("t.1", "t.2", "t.3"):
        await asking.write(lambda c, n=name: rows.put(c, n, PLANE, "t", int(n[-1]), b""))
    first = await lease(holding, "s1", segments=2)
    second = await lease(holding, "s2", segments=2)
    assert [one.id for one in first + second] == ["t.1", "t.2", "t.3"]
    assert await holding.write(lambda c: rows.lease(c, PLANE, "s2", 2, 2)) == []
    real = rows.moment
    monkeypatch.setattr(rows, "moment", lambda c: real(c) + rows.LEASE + 1)
    again = await lease(holding, "s3", segments=9)
    assert [(one.id, one.attempt) for one in again] == [("t.1", 2), ("t.2", 2), ("t.3", 2)]


async def test_a_stream_that_lives_keeps_what_it_holds_until_another_takes_its_place(both, monkeypatch):
    asking, holding = both
    await holding.write(lambda c: rows.enter(c, PLANE, "s1"))
    await asking.write(lambda c: rows.put(c, "t.1", PLANE, "t", 1, b""))
    await lease(holding)
    real, later = rows.moment, 0.0
    monkeypatch.setattr(rows, "moment", lambda c: real(c) + later)
    for later in (20.0, 40.0):  # noqa: B007  # the clock of the database goes on
        assert await holding.write(lambda c: rows.renew(c, PLANE, "s1"))
        assert await holding.write(lambda c: rows.lease(c, PLANE, "s1", 1, 1)) == []
    await asking.write(lambda c: rows.enter(c, PLANE, "s2"))
    assert not await holding.write(lambda c: rows.renew(c, PLANE, "s1"))
    assert await holding.write(lambda c: rows.lease(c, PLANE, "s1", 1, 1)) == []  # it has not noticed yet
    assert [one.id for one in await lease(asking, "s2")] == ["t.1"]
    later = 80.0
    assert not await asking.read(lambda c: rows.present(c, PLANE))


async def test_who_is_not_patient_hears_that_the_agent_is_away(both):
    asking, _ = both
    with pytest.raises(Unavailable, match="not connected"):
        await Assignments(asking).ask(PLANE, STAT, patient=False)
    assert await asking.write(lambda c: rows.lease(c, PLANE, "s", 9, 9)) == []


async def test_the_same_segment_asked_again_after_a_crash_finds_its_answer(both):
    asking, holding = both
    assignments, work = Assignments(asking), pb.Assignment(fill=pb.FillWork())
    task = asyncio.create_task(assignments.ask(PLANE, work, transfer="t", segment=1, keep=lambda: True))
    (one,) = await lease(holding)
    task.cancel()
    await asyncio.wait({task})
    await answer(holding, one, pb.Answer(token="done meanwhile"))
    assert (await assignments.ask(PLANE, work, transfer="t", segment=1)).token == "done meanwhile"


async def test_who_stops_waits_until_the_agent_has_ended(both):
    asking, holding = both
    assignments = Assignments(asking)
    await holding.write(lambda c: rows.enter(c, PLANE, "s1"))
    task = asyncio.create_task(assignments.ask(PLANE, pb.Assignment(fill=pb.FillWork()), transfer="t", segment=1))
    (one,) = await lease(holding)
    task.cancel()
    while not await holding.read(lambda c: rows.unwanted(c, PLANE, {one.id})):
        await asyncio.sleep(0.01)
    assert not task.done()
    await answer(holding, one, pb.Answer())
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
