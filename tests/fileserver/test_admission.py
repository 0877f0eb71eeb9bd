"""Places of calls: first come, first served, as many as there are, and nobody takes those of another class."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from fileserver.admission import Admission, Slots
from fileserver.auth import Caller, know_holder, set_caller
from fileserver.calls import Call
from fileserver.errors import ServerBusy


def call(method: str, *, streams: bool = False) -> Call:
    return Call(f"/fileserver.v1.{method}", streams, cast("Any", None))


async def test_who_finds_no_place_waits_in_turn_and_one_too_many_is_told_when_to_come_again():
    slots, order, leave = Slots("calls", 1, 2, retry_after=0.25), [], asyncio.Event()

    async def caller(number: int) -> None:
        async with slots.one():
            order.append(number)
            await leave.wait()

    callers = [asyncio.create_task(caller(number)) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ServerBusy, match="1 calls at work") as told:
        await caller(3)
    assert told.value.retry_after == 0.25
    callers[1].cancel()  # its place among those that wait is free again
    await asyncio.wait({callers[1]})
    callers.append(asyncio.create_task(caller(4)))
    await asyncio.sleep(0)
    assert order == [0]
    leave.set()
    await asyncio.gather(*callers, return_exceptions=True)
    assert order == [0, 2, 4]


async def test_classes_of_calls_do_not_wait_for_each_other():
    admission = Admission(control=(1, 0), watching=(1, 0), beside=(1, 0), agents=(1, 0))
    async with AsyncExitStack() as inside:
        watch, ask = call("TransferService/WatchTransfer", streams=True), call("TransferService/GetTransfer")
        work = call("AgentService/Work", streams=True)
        stored = call("DataService/QueryWrite")
        for each in (watch, ask, work, stored):
            await inside.enter_async_context(admission.around(each))
        for each in (watch, ask, work, stored):
            with pytest.raises(ServerBusy):
                await inside.enter_async_context(admission.around(each))
        for method in ("PartService/Pull", "DataService/Read"):  # they count for themselves
            await inside.enter_async_context(admission.around(call(method, streams=True)))
        health = Call("/grpc.health.v1.Health/Check", streams=False, context=cast("Any", None))
        await inside.enter_async_context(admission.around(health))
    async with admission.around(ask):
        pass


async def test_one_caller_from_outside_leaves_places_to_others_and_waits_among_its_own():
    admission = Admission(control=(4, 2), watching=(4, 0), each=(2, 1), each_watching=(1, 0))
    ask, watch = call("FileService/VerifyFile"), call("TransferService/WatchTransfer", streams=True)
    order: list[str] = []

    async def asks(name: str, method: Call, leave: asyncio.Event) -> None:
        set_caller(Caller(local=False, name=name, outside=True))
        async with admission.around(method):
            order.append(name)
            await leave.wait()

    leave = asyncio.Event()
    tasks = [asyncio.create_task(asks("alice", each, leave)) for each in (ask, ask, ask, watch)]
    await asyncio.sleep(0)
    for one_more, what in ((ask, "2 calls of alice"), (watch, "1 watchers of alice")):
        with pytest.raises(ServerBusy, match=what) as told:
            await asks("alice", one_more, leave)
        assert told.value.retry_after
    assert order == ["alice", "alice", "alice"]  # two that ask, and one that watches
    set_caller(Caller(local=False, name="ops"))  # at home
    done = asyncio.Event()
    done.set()
    for each in (ask, watch):
        await asks("bob", each, done)
    set_caller(Caller(local=False))
    async with AsyncExitStack() as inside, asyncio.timeout(5):
        for _ in range(2):  # that of alice's which waits has none of these places
            await inside.enter_async_context(admission.around(ask))
    leave.set()
    await asyncio.gather(*tasks)
    assert order.count("alice") == 4
    assert not len(admission._calls_of) + len(admission._watchers_of)


async def test_grants_of_one_transfer_leave_places_to_those_of_others():
    admission = Admission(beside=(2, 1), each_beside=(1, 1))
    sign, leave = call("DataService/Sign"), asyncio.Event()

    async def asks(transfer: str) -> None:
        know_holder(transfer)
        async with admission.around(sign):
            await leave.wait()

    tasks = [asyncio.create_task(asks("t1")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ServerBusy, match="1 questions about parts of transfer t1") as told:
        await asyncio.create_task(asks("t1"))
    assert told.value.retry_after
    async with asyncio.timeout(5), admission.around(sign):  # of the server's own kind: it has no grant
        pass
    tasks += [asyncio.create_task(asks(each)) for each in ("t2", "t3")]  # and all of the places are taken
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    with pytest.raises(ServerBusy, match="2 questions about parts at work"):
        await asyncio.create_task(asks("t4"))
    leave.set()
    await asyncio.gather(*tasks)
    assert not len(admission._beside_of)
