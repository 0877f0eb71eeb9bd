"""Transfers of files that no file server sees: an agent carries them, whatever breaks on the way."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from grpc import aio

from fileserver.agents import assignments, dispatch
from fileserver.away.fence import FencedPlane
from fileserver.catalogue import agents as rows
from fileserver.errors import CallerDenied
from fileserver.services.agent import _Stream
from fileserver.services.shapes import transfer_message
from fileserver.transfer import ledger
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Despray, Fixed, Location, Spec, Spray, spec_to_json
from fileserver.v1 import agent_pb2 as pb
from fileserver.v1.agent_pb2_grpc import AgentServiceStub
from planes.errors import AlreadyExists, Changed, NotFound, Unavailable
from planes.plane import MIB
from planes.posix import PosixPlane
from tests.doubles.cable import cable
from tests.fileserver.agents.world import CSV, KEY, PLANE, SLOW, noise, some_stored, stored, table


async def test_a_file_goes_there_and_comes_back(world):
    data = world.write("x.csv", table(20_000))
    async with world.agent(writes=["back.csv"]):
        outcome = await world.done(await world.spray("x.csv", form=CSV))
        assert outcome["evidence"] == "compared"
        parts = await world.content()
        assert b"".join(parts) == data
        assert len(parts) == 3
        assert all(re.match(rb"\d+,", part) and part.endswith(b"\n") for part in parts)  # no record is cut
        assert (await world.done(await world.despray("back.csv")))["evidence"] == "compared"
    assert (world.folder / "back.csv").read_bytes() == data
    assert sorted(p.name for p in world.folder.iterdir()) == ["back.csv", "x.csv"]


async def test_parts_in_steps_and_of_many_sources_in_their_order(world, large):
    data = [world.write(f"part{n}.bin", noise(size)) for n, size in ((2, large // 2), (10, 1), (11, large // 2))]
    async with world.agent(["part2.bin", "part1*.bin"], ["back"]):
        outcome = await world.done(await world.spray("part2.bin", "part1*.bin", parts=2))
        assert b"".join(await world.content()) == b"".join(data)
        assert outcome["evidence"] == "compared"
        await world.done(await world.despray("back"))
    assert (world.folder / "back").read_bytes() == b"".join(data)


@pytest.mark.parametrize("size", [0, 1])
async def test_nearly_nothing_goes_both_ways(world, size):
    data = world.write("x", noise(size))
    async with world.agent(writes=["back"]):
        await world.done(await world.spray("x"))
        await world.done(await world.despray("back"))
    assert (world.folder / "back").read_bytes() == data


async def test_a_transfer_waits_for_its_agent(world):
    world.write("x", noise(1000))
    transfer = await world.spray("x")
    await world.until(transfer, lambda record: record.state == "PLANNING")
    async with world.agent():
        await world.done(transfer)


async def test_errors_of_the_other_machine_are_the_transfers(world):
    world.write("x", noise(10))
    world.write("there", b"")
    async with world.agent(writes=["there"]):
        with pytest.raises(NotFound, match="is not there"):
            await world.done(await world.spray("nothing"))
        await world.done(await world.spray("x"))
        with pytest.raises(AlreadyExists, match="exists; --overwrite"):
            await world.done(await world.despray("there"))
    async with world.agent(writes=["there"], overwrite=True):
        await world.done(await world.despray("there", overwrite=True))
    assert (world.folder / "there").read_bytes() == (world.folder / "x").read_bytes()


async def test_a_file_that_changes_on_the_way_is_noticed(world, large):
    world.write("x", noise(large))
    async with world.agent(rates=SLOW):
        transfer = await world.spray("x", parts=1)
        await world.until(transfer, lambda record: record.plan is not None)
        world.write("x", noise(large))
        with pytest.raises(Changed):
            await world.done(transfer)
    assert await world.keys_there() == []


async def test_an_agent_that_is_killed_costs_what_was_in_flight(world, large):
    data = world.write("x", noise(large))
    async with world.agent(rates=SLOW) as agent:
        transfer = await world.spray("x", parts=1)
        await some_stored(world, transfer)
        agent.task.cancel()  # no goodbye
        with suppress(asyncio.CancelledError):
            await agent.task
    async with world.agent():
        before = await stored(world, transfer)
        outcome = await world.done(transfer)
    assert before
    assert outcome["evidence"] == "compared"
    assert b"".join(await world.content()) == data


async def test_a_connection_that_breaks_is_dialled_again_and_what_is_stored_is_not_sent_twice(world, large):
    data = world.write("x", noise(large))
    async with cable(world.port) as between, world.agent(port=between.port):
        transfer = await world.spray("x", parts=1)
        await world.until(transfer, lambda record: record.state == "RUNNING")
        between.cut_after(5 * MIB)
        await world.done(transfer)
        assert between.cuts
        assert between.carried < large + 9 * MIB  # steps that were in flight, eight at most
    assert b"".join(await world.content()) == data


async def test_a_step_that_a_break_has_cut_goes_on_where_it_was_cut(world, large, monkeypatch):
    steps = replace(world.plane.limits, put_size=large)
    monkeypatch.setattr(type(world.plane), "limits", steps)
    data, came = world.write("x", noise(large)), large // 2

    def held():
        return sum(half.at for half in world.halves._held.values())

    async with cable(world.port) as between, world.agent(port=between.port):
        between.stall_after(came + 3 * MIB)
        transfer = await world.spray("x", parts=1)
        async with asyncio.timeout(30):
            while held() < came:
                await asyncio.sleep(0.01)
        before = held()
        between.cut()
        await world.done(transfer)
        assert between.carried - (large - before) < came + 4 * MIB  # what came before the cut, and then only the rest
    assert b"".join(await world.content()) == data


async def test_the_same_on_the_way_down(world, large):
    data = world.write("x", noise(large))
    async with cable(world.port) as between, world.agent(port=between.port, writes=["back"]):
        await world.done(await world.spray("x", parts=3))
        between.cut_after(5 * MIB)
        await world.done(await world.despray("back"))
        assert between.cuts
    assert (world.folder / "back").read_bytes() == data


async def test_a_second_agent_takes_the_place_of_the_first_which_is_told(world):
    data = world.write("x", noise(100))
    async with world.agent() as first, world.agent():
        assert await asyncio.wait_for(first.task, 10) is False
        await world.done(await world.spray("x"))
    assert b"".join(await world.content()) == data


@pytest.mark.parametrize("world", [False], indirect=True)
async def test_nothing_is_kept_of_an_agent_that_has_gone(world):
    news = world.agents.assignments.news
    async with world.agent():
        while PLANE not in news._events:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        while PLANE in news._events:
            await asyncio.sleep(0.01)


async def test_a_file_becomes_a_plain_object_that_the_catalogue_does_not_know(world, large):
    data = world.write("x", noise(large))
    to = Location("data", "in/x")
    plain = Spec(Despray("", to, (world.here("x"),)))
    async with world.agent(rates=SLOW):
        transfer = (await world.jobs.create(plain)).id
        await some_stored(world, transfer)
        await world.jobs.cancel(transfer)
        assert (await world.ended(transfer)).state == "CANCELLED"
        assert not [p for p in (world.folder.parent / "plane").rglob("*") if p.is_file()]
    async with world.agent():
        assert (await world.done((await world.jobs.create(plain)).id))["evidence"] == "compared"
        assert await world.keys_there() == ["in/x"]
        assert (world.folder.parent / "plane/in/x").read_bytes() == data
        with pytest.raises(AlreadyExists, match="--overwrite"):
            await world.done((await world.jobs.create(plain)).id)
        with pytest.raises(CallerDenied, match="has not named it"):
            await world.done((await world.jobs.create(Spec(Despray("", to, (world.here("../y"),))))).id)


async def test_a_cancelled_transfer_leaves_nothing_at_either_end(world, large):
    world.write("x", noise(large))
    async with world.agent(writes=["back"], rates=SLOW):
        transfer = await world.spray("x", parts=1)
        await some_stored(world, transfer)
        await world.jobs.cancel(transfer)
        assert (await world.ended(transfer)).state == "CANCELLED"
        assert await world.keys_there() == []
        assert not [p for p in (world.folder.parent / "plane").rglob("*") if p.is_file()]
    async with world.agent():
        await world.done(await world.spray("x"))
    async with world.agent(writes=["back"], rates=SLOW):
        transfer = await world.despray("back")
        await some_stored(world, transfer)
        await world.jobs.cancel(transfer)
        assert (await world.ended(transfer)).state == "CANCELLED"
    assert [p.name for p in world.folder.iterdir()] == ["x"]


async def test_a_cancel_does_not_wait_for_an_agent_that_is_gone(world):
    world.write("x", noise(10))
    transfer = await world.spray("x")
    await world.until(transfer, lambda record: record.state == "PLANNING")
    await world.jobs.cancel(transfer)
    assert (await world.ended(transfer, 10)).state == "CANCELLED"


@pytest.mark.parametrize("path", ["secret", "../there/secret", "sub/x.csv"])
async def test_nothing_is_read_that_the_command_has_not_named(world, path):
    (world.folder / "sub").mkdir()
    world.write("sub/x.csv", b"1\n")
    world.write("secret", b"1\n")
    async with world.agent(reads=["x.csv", "*.csv"], writes=["back"]):
        with pytest.raises(CallerDenied, match="has not named it"):
            await world.done(await world.spray(path))
    assert await world.keys_there() == []


async def test_nothing_is_written_that_the_command_has_not_named(world):
    world.write("x", b"1\n")
    async with world.agent(reads=["x"], writes=["back"]):
        await world.done(await world.spray("x"))
        for name in ("other", "x"):
            with pytest.raises(CallerDenied, match="has not named it"):
                await world.done(await world.despray(name, overwrite=True))
        plane = world.agents.plane(PLANE)
        with pytest.raises(CallerDenied):
            await plane.delete(f"{world.folder}/x".lstrip("/"))
        with pytest.raises(CallerDenied):
            await plane.discard(f"{world.folder}/back".lstrip("/"), "../../x")
        with pytest.raises(CallerDenied):
            assert [info async for info in plane.list(f"{world.folder}/".lstrip("/"))]
    assert sorted(p.name for p in world.folder.iterdir()) == ["x"]


async def test_the_fence_has_no_gate_for_copies_and_listings(tmp_path):
    (tmp_path / "mine").write_bytes(b"1\n")
    (tmp_path / ".cropduster-other-1").write_bytes(b"")
    mine, theirs = (f"{tmp_path}/{name}".lstrip("/") for name in ("mine", "theirs"))
    local = PosixPlane.local()
    fenced = FencedPlane(local, [mine], [])
    info = await fenced.stat(mine)
    assert fenced.copy_ticket(info) is None
    ticket = local.copy_ticket(info)
    assert ticket is not None
    with pytest.raises(CallerDenied):
        await fenced.copy(theirs, ticket, upload_id="x-1")
    with pytest.raises(CallerDenied):
        assert not [one async for one in fenced.unfinished(f"{tmp_path}/".lstrip("/"))]
    assert not (tmp_path / "theirs").exists()
    await fenced.aclose()


async def test_nothing_that_was_there_is_replaced_or_deleted_without_overwrite(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    mine, made = (f"{tmp_path}/{name}".lstrip("/") for name in ("mine", "made"))
    fenced, local = FencedPlane(PosixPlane.local(), [], [mine, made]), PosixPlane.local()
    with pytest.raises(CallerDenied, match="--overwrite"):
        await fenced.upload(mine, upload_id="x", replace=True)
    token = (await local.upload(mine, upload_id="x", replace=True)).token
    with pytest.raises(CallerDenied, match="--overwrite"):
        fenced.resume(token)
    there = (tmp_path / "mine").stat()
    made_up = {"inode": there.st_ino, "device": there.st_dev, "word": "", "replace": False}
    assert await fenced.resume(json.dumps(json.loads(token) | made_up)).made() is not None
    with pytest.raises(CallerDenied, match="--overwrite"):
        await fenced.delete(mine)
    assert (tmp_path / "mine").read_bytes() == b"mine"
    for again in (False, True):  # by an agent that was started again
        token = (await fenced.upload(made, upload_id="y")).token
        await fenced.resume(token).commit([await fenced.resume(token).put(1, 0, b"made")], 4, None)
        if again:
            fenced = FencedPlane(PosixPlane.local(), [], [made])
            assert await fenced.resume(token).made() is not None
        await fenced.delete(made)
        assert not (tmp_path / "made").exists()
    await FencedPlane(PosixPlane.local(), [], [mine], overwrite=True).delete(mine)
    assert not (tmp_path / "mine").exists()


async def test_an_agent_that_ends_in_good_order_leaves_the_transfer_waiting(world, large):
    data = world.write("x", noise(large))
    async with world.agent(rates=SLOW):
        transfer = await world.spray("x", parts=1)
        await some_stored(world, transfer)
    assert not await world.agents.assignments.present(PLANE)
    assert (await world.record(transfer)).state == "RUNNING"
    async with world.agent():
        await world.done(transfer)
    assert b"".join(await world.content()) == data


async def test_a_transfer_whose_agent_stays_away_is_paused_and_goes_on_when_it_is_back(world, large, monkeypatch):
    monkeypatch.setattr(assignments, "AWAY", 0.5)
    monkeypatch.setattr(assignments.Assignments, "pause", 0.1)
    data = world.write("x", noise(large))
    early = await world.spray("x", file="a::early")
    await world.until(early, lambda record: record.state == "PAUSED")
    async with world.agent(rates=SLOW):
        late = await world.spray("x", parts=1)
        await some_stored(world, late)
    await world.until(late, lambda record: record.state == "PAUSED")
    told = transfer_message(await world.record(late)).warnings
    assert [words for words in told if "given again, that goes on" in words]
    await world.jobs.pause(early)
    async with world.agent():
        await world.done(late)
        assert (await world.record(early)).state == "PAUSED", "somebody asked for that"
        await world.jobs.resume(early)
        await world.done(early)
    assert b"".join(await world.content()) == data
    assert not transfer_message(await world.record(late)).warnings


async def test_a_segment_that_cannot_be_handed_out_now_is_handed_out_later(world, large, monkeypatch):
    data, handed = world.write("x", noise(large)), world.agents.handed
    failures = [Unavailable("the keys of the plane are not told now")]
    monkeypatch.setattr(dispatch, "_WAIT", 0.01)

    async def failing(*words):
        if failures:
            raise failures.pop()
        return await handed(*words)

    monkeypatch.setattr(world.agents, "handed", failing)
    async with world.agent():
        await world.done(await world.spray("x"))
    assert b"".join(await world.content()) == data


@pytest.mark.parametrize("world", [False], indirect=True)
async def test_what_is_answered_while_grants_are_renewed_is_not_handed_out_again(world, monkeypatch):
    for number in (1, 2):
        await world.store.write(lambda c, n=number: rows.put(c, f"t.{n}", PLANE, "t", n, b""))
    stream = _Stream(world.agents, lambda _: False, PLANE, 4)
    await stream.enter()

    async def handed(*_):
        return pb.FillWork()

    async def answered_meanwhile(*_):
        await stream._answer(pb.Answer(id=second))
        monkeypatch.setattr(world.agents, "handed", handed)
        return pb.FillWork()

    monkeypatch.setattr(world.agents, "handed", handed)
    first, second = (each.assignment.id for each in (await stream.due())[0])
    monkeypatch.setattr("fileserver.services.agent.LIFE", 0.0)
    monkeypatch.setattr(world.agents, "handed", answered_meanwhile)
    assert [each.assignment.id for each in (await stream.due())[0]] == [first]
    assert list(stream._held) == [first]


@pytest.mark.parametrize("world", [False], indirect=True)
async def test_receipts_of_work_that_was_taken_back_are_none(world, large):
    world.write("x", noise(large))
    spec = spec_to_json(Spec(Spray((world.here("x"),), "a::x", "data", 1, 0, Fixed(1))))
    record = Record("t1", spec, "PAUSED", "", 1, time.time(), time.time())
    await world.store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
    async with world.agent():
        await world.jobs.stages.plan("t1", Live(Progress()))
    await world.jobs.stages.open("t1", Live(Progress()))
    work, name = pb.Assignment(fill=pb.FillWork()), f"t1.1.{PLANE}"
    await world.store.write(lambda c: rows.put(c, name, PLANE, "t1", 1, work.SerializeToString()))
    step = pb.StepDone(part=1, number=1, size=MIB, crc64nvme="0" * 16)
    async with aio.insecure_channel(f"127.0.0.1:{world.port}") as channel:
        call = AgentServiceStub(channel).Work()
        await call.write(pb.WorkRequest(hello=pb.Hello(key=KEY)))
        assert (await call.read()).HasField("welcome")
        given = (await call.read()).assignment
        await world.store.write(lambda c: rows.remove(c, name, PLANE))  # it did not stop in time
        await call.write(pb.WorkRequest(report=pb.Report(id=given.id, stored=[step])))
        await call.write(pb.WorkRequest(answer=pb.Answer(id=given.id, stored=[step])))
        await call.done_writing()
        while await call.read():
            pass
    assert await stored(world, "t1") == 0
