"""Requests in flight and bytes a second stay within their bounds; time is a number that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from planes.faulty import Fault, FaultyPlane, Hold
from planes.limited import Bucket, Gate, LimitedPlane
from planes.memory import MemoryPlane
from planes.plane import Extent
from planes.settings import PlaneLimits


class Clock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let every task that can run, run."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def hold() -> Hold:
    return Hold()


def held(hold: Hold, requests: int, verb: str = "stat") -> LimitedPlane:
    return LimitedPlane(FaultyPlane(MemoryPlane("m"), [Fault(verb, 0, hold)]), PlaneLimits(requests=requests))


async def test_no_more_requests_than_allowed_are_in_flight(hold):
    plane = held(hold, 3, "delete")
    tasks = [asyncio.create_task(plane.delete(f"{n}")) for n in range(10)]
    await turns()
    assert plane.inner.script.calls["delete"] == 3
    hold.gate.set()
    await asyncio.gather(*tasks)
    assert plane.inner.script.calls["delete"] == 10


async def test_bounds_change_while_requests_wait(hold):
    plane = held(hold, 1, "delete")
    tasks = [asyncio.create_task(plane.delete(f"{n}")) for n in range(10)]
    await turns()
    assert plane.inner.script.calls["delete"] == 1
    plane.change(PlaneLimits(requests=4))
    await turns()
    assert plane.inner.script.calls["delete"] == 4
    assert plane.bounds.requests == 4
    hold.gate.set()
    await asyncio.gather(*tasks)


async def test_a_narrower_gate_lets_those_inside_finish_first():
    gate, leave, inside = Gate(3), asyncio.Event(), []

    async def pass_through(n: int) -> None:
        async with gate.entered():
            inside.append(n)
            await leave.wait()

    first = [asyncio.create_task(pass_through(n)) for n in range(3)]
    await turns()
    gate.widen(1)
    late = [asyncio.create_task(pass_through(n)) for n in (3, 4)]
    await turns()
    assert inside == [0, 1, 2]
    leave.set()
    await asyncio.gather(*first, *late)
    assert inside == [0, 1, 2, 3, 4]
    assert gate.inside == 0


@pytest.mark.parametrize("after_turns", [0, 1, 5])
async def test_who_is_cancelled_while_waiting_takes_no_place(after_turns):
    gate, leave = Gate(1), asyncio.Event()

    async def pass_through() -> None:
        async with gate.entered():
            await leave.wait()

    tasks = [asyncio.create_task(pass_through()) for _ in range(4)]
    await turns()
    tasks[1].cancel()
    leave.set()
    await turns(after_turns)
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert gate.inside == 0
    async with gate.entered():
        assert gate.inside == 1


async def test_who_is_cancelled_at_the_moment_of_being_let_in_gives_the_place_back():
    gate = Gate(1)
    async with gate.entered():
        waiting = asyncio.create_task(gate.entered().__aenter__())
        await turns()
    waiting.cancel()  # its place was given to it a moment ago
    await asyncio.wait({waiting})
    assert gate.inside == 0


async def test_bytes_take_their_time():
    clock = Clock()
    bucket = Bucket(100, clock, clock.sleep)
    started = []
    for size in (50, 250, 10):
        await bucket.take(size)
        started.append(round(clock.now, 6))
    assert started == [0, 0.5, 3.0]


async def test_waiting_side_by_side_is_no_faster():
    clock = Clock()
    bucket = Bucket(1000, clock, clock.sleep)
    await asyncio.gather(*(bucket.take(500) for _ in range(11)))
    assert clock.now == pytest.approx(5.0)


async def test_a_pause_earns_nothing_for_later():
    clock = Clock()
    bucket = Bucket(100, clock, clock.sleep)
    clock.now = 1000.0
    for _ in range(3):
        await bucket.take(100)
    assert clock.now == pytest.approx(1002.0)


async def test_a_rate_that_is_lifted_frees_those_who_wait():
    clock = Clock()
    bucket = Bucket(1, clock, clock.sleep)
    await bucket.take(1_000_000)
    waiting = asyncio.create_task(bucket.take(1))
    await turns(3)
    bucket.rate = 0
    await waiting
    assert clock.now < 10


async def test_reads_puts_and_copies_are_paced_and_nothing_else():
    clock = Clock()
    plane = LimitedPlane(MemoryPlane("m"), PlaneLimits(), Bucket(10, clock, clock.sleep))

    async def cost(answer) -> float:
        """Seconds that the request after this one has to wait."""
        await answer
        before = clock.now
        await plane._bounds.bucket.take(0)
        return clock.now - before

    assert await cost(plane.put("f", b"x" * 100, upload_id="u")) == pytest.approx(10)
    info = await plane.stat("f")
    ticket = plane.copy_ticket(info)
    assert await cost(plane.read(Extent("f", info.version, 0, 50), memoryview(bytearray(50)))) == pytest.approx(5)
    assert await cost(plane.copy("g", ticket, upload_id="u")) == pytest.approx(10)
    upload = await plane.upload("h", upload_id="u")
    assert await cost(upload.put(1, 0, b"x" * 30)) == pytest.approx(3)
    assert await cost(upload.copy(2, 30, ticket, 0, 70)) == pytest.approx(7)
    assert await cost(upload.commit([], 100, None)) == 0
    assert await cost(plane.delete("h")) == 0
