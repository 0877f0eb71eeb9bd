"""Places of calls: first come, first served, as many as there are, and nobody takes those of another class."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from fileserver.admission import Admission, Slots
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
    admission = Admission(control=(1, 0), watching=(1, 0), agents=(1, 0))
    async with AsyncExitStack() as inside:
        watch, ask = call("TransferService/WatchTransfer", streams=True), call("TransferService/GetTransfer")
        work = call("AgentService/Work", streams=True)
        for each in (watch, ask, work):
            await inside.enter_async_context(admission.around(each))
        for each in (watch, ask, work):
            with pytest.raises(ServerBusy):
                await inside.enter_async_context(admission.around(each))
        for method in ("PartService/Pull", "DataService/Read"):  # they count for themselves
            await inside.enter_async_context(admission.around(call(method, streams=True)))
        health = Call("/grpc.health.v1.Health/Check", streams=False, context=cast("Any", None))
        await inside.enter_async_context(admission.around(health))
    async with admission.around(ask):
        pass
