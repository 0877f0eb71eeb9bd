"""Requests in flight and bytes a second stay within their bounds, which the operator and the provider move.

Time is a number that the test moves, or virtual (tests.doubles.virtual).
"""

from __future__ import annotations

import asyncio
import random

import pytest

from planes.bounds import Bucket, Gate
from planes.errors import Error, NotFound, Throttled, Unavailable
from planes.faulty import Fault, FaultyPlane, Hold, Raise
from planes.limited import LimitedPlane
from planes.memory import MemoryPlane
from planes.opening import decorated
from planes.plane import Extent
from planes.posix import PosixPlane, PosixSettings
from planes.retrying import Patience
from planes.settings import PlaneLimits
from planes.wrapped import WrappedPlane, find
from tests.doubles import virtual

SLOW = "slow down"


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
    assert plane.pace.limits.requests == 4
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
    plane = LimitedPlane(MemoryPlane("m"), PlaneLimits(bytes_per_second=10), clock=clock, sleep=clock.sleep)

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


# --- what the provider takes


def throttling(*errors: Error, requests: int = 64, verb: str = "stat") -> tuple[LimitedPlane, Clock]:
    """A plane in memory whose first calls of a verb fail like this; nothing retries."""
    clock = Clock()
    faults = [Fault(verb, number + 1, Raise(error)) for number, error in enumerate(errors)]
    inner = FaultyPlane(MemoryPlane("m"), faults)
    return LimitedPlane(inner, PlaneLimits(requests=requests), clock=clock, sleep=clock.sleep), clock


async def ask(plane: LimitedPlane, times: int = 1) -> list[str]:
    """Ask side by side; the names of the errors."""
    answers = await asyncio.gather(*(plane.stat(f"{n}") for n in range(times)), return_exceptions=True)
    return [type(answer).__name__ for answer in answers]


async def together(plane: LimitedPlane, hold: Hold, times: int) -> list[str]:
    """Ask side by side, and let nobody go before all are in flight."""
    asked = asyncio.create_task(ask(plane, times))
    await turns()
    hold.gate.set()
    return await asked


async def test_a_plane_that_asks_to_slow_down_is_asked_half_as_much(hold):
    plane, _ = throttling(*[Throttled(SLOW)] * 16)
    plane.inner.script.faults = [Fault("stat", 0, hold), *plane.inner.script.faults]
    assert plane.pace.requests == 16
    assert await together(plane, hold, 16) == ["Throttled"] * 16
    assert plane.pace.requests == 8
    assert plane.pace.limits.requests == 64


async def test_what_the_provider_answers_is_no_reason_to_slow_down(hold):
    plane, _ = throttling(Unavailable("reset"))
    plane.inner.script.faults = [Fault("stat", 0, hold), *plane.inner.script.faults]
    assert await together(plane, hold, 200) == ["Unavailable"] + ["NotFound"] * 199
    assert plane.pace.requests > 32


async def test_objects_of_a_listing_are_not_taken_for_answers():
    plane, _ = throttling()
    plane.change(PlaneLimits(requests=1))
    for number in range(20):
        await plane.inner.put(f"{number}", b"x", upload_id="u")
    refused = [Fault("stat", 1, Raise(Throttled(SLOW)))]
    plane.inner.script.faults = refused
    await ask(plane)
    width = plane._bounds.window.width
    assert len([info async for info in plane.list()]) == 20
    assert plane._bounds.window.width == width < 1


async def test_when_the_provider_says_how_long_nobody_sends_before():
    plane, clock = throttling(Throttled(SLOW, retry_after=7))
    assert await ask(plane) == ["Throttled"]
    assert plane.pace.waits == 7
    upload = plane._wrap(await plane.inner.upload("f", upload_id="u"))
    sent = []

    async def timed(answer) -> None:
        with pytest.raises(NotFound):
            await answer
        sent.append(clock.now)

    await asyncio.gather(timed(plane.stat("a")), timed(plane.stat("b")))
    assert min(sent) >= 7
    assert plane.pace.waits == 0
    plane._bounds.pause.ask_for(5)
    before = clock.now
    await upload.abort()
    assert clock.now >= before + 5


async def test_a_later_request_of_the_provider_puts_the_end_off():
    plane, clock = throttling()
    plane._bounds.pause.ask_for(2)
    waiting = asyncio.create_task(ask(plane))
    await asyncio.sleep(0)
    plane._bounds.pause.ask_for(10)
    plane._bounds.pause.ask_for(1)
    await waiting
    assert clock.now == pytest.approx(10, abs=0.5)


async def test_who_would_wait_for_more_than_a_minute_is_told_and_an_operator_may_lift_it():
    plane, clock = throttling(Throttled(SLOW, retry_after=10**9))
    await ask(plane)
    with pytest.raises(Throttled, match=r"'m'.*planes limits m") as caught:
        await plane.stat("a")
    assert caught.value.retry_after == 3600  # what an absurd answer costs
    assert plane.inner.script.calls["stat"] == 1
    plane.change(PlaneLimits())
    assert await ask(plane) == ["NotFound"]
    assert clock.now == 0


async def test_a_committed_upload_is_left_without_waiting():
    plane, clock = throttling()
    async with await plane.upload("f", upload_id="u") as upload:
        await upload.commit([await upload.put(1, 0, b"x")], 1, None)
        plane._bounds.pause.ask_for(5)
    assert clock.now == 0
    with pytest.raises(RuntimeError):
        async with plane._wrap(await plane.inner.upload("g", upload_id="u")):
            raise RuntimeError
    assert clock.now >= 5


async def test_steps_poured_from_the_plane_itself_do_not_wait_for_themselves(tmp_path):
    plane = decorated(PosixPlane("d", PosixSettings(path=tmp_path)), PlaneLimits(requests=1))
    await plane.put("a", b"x" * 100, upload_id="u")
    upload = await plane.upload("b", upload_id="v")
    stream = Extent("a", "", 0, 100)
    pours = (upload.pour(n + 1, 100 * n, 100, lambda take: plane.stream(stream, take)) for n in range(4))
    steps = await asyncio.wait_for(asyncio.gather(*pours), 30)
    assert (await upload.commit(steps, 400, None)).size == 400
    await plane.aclose()


async def test_a_source_that_is_away_does_not_narrow_the_plane_that_is_poured_into(tmp_path):
    clock = Clock()
    inner = PosixPlane("d", PosixSettings(path=tmp_path))
    plane = LimitedPlane(inner, PlaneLimits(), clock=clock, sleep=clock.sleep)

    async def broken(_) -> None:
        raise Throttled(SLOW, retry_after=9)

    async with await plane.upload("b", upload_id="v") as upload:
        with pytest.raises(Throttled):
            await upload.pour(1, 0, 100, broken)
    assert (plane.pace.requests, plane.pace.waits) == (16, 0)
    await plane.aclose()


class Busy(WrappedPlane):
    """Takes so many puts a second, `burst` of them at once, each in `seconds`; asks the rest to slow down."""

    def __init__(self, rate: float, seconds: float, burst: int = 10) -> None:
        super().__init__(MemoryPlane("m"))
        self._rate, self._seconds, self._burst = rate, seconds, burst
        self._left, self._since = float(burst), 0.0
        self.taken = self.refused = 0

    async def put(self, *args, **more):
        self._left = min(self._burst, self._left + (virtual.now() - self._since) * self._rate)
        self._since = virtual.now()
        if self._left < 1:
            self.refused += 1
            await asyncio.sleep(self._seconds / 4)
            raise Throttled(SLOW)
        self._left -= 1
        self.taken += 1
        await asyncio.sleep(self._seconds)
        return await self.inner.put(*args, **more)


@pytest.mark.parametrize("callers", [16, 200])
@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.05])
def test_it_converges_to_what_a_server_of_100_requests_a_second_takes(seconds, callers):
    count, rate = 2000, 100

    async def main() -> None:
        busy = Busy(rate, seconds)
        plane = decorated(busy, PlaneLimits(requests=64), Patience(clock=virtual.now, sleep=asyncio.sleep))
        window = find(plane, LimitedPlane)._bounds.window
        todo, widths = iter(range(count)), []

        async def caller() -> None:
            for number in todo:
                await plane.put(f"{number}", b"x", upload_id="u")
                widths.append(window.width)

        await asyncio.gather(*(caller() for _ in range(callers)))
        assert busy.taken == count == len([info async for info in plane.list()])
        takes = rate * seconds  # requests in flight that the server can hold
        settled = sorted(widths[count // 4 :])
        assert takes / 2.5 < settled[0]
        assert settled[-1] < takes * 2.5
        assert takes * 0.7 < settled[len(settled) // 2] < takes * 1.5
        assert busy.refused < count / 8
        assert virtual.now() < 1.15 * count / rate

    random.seed(1)  # of the pauses between two attempts
    virtual.run(main())


def test_a_server_that_takes_everything_is_given_all_that_the_operator_allows():
    async def main() -> None:
        busy = Busy(10**6, 0.1, 10**6)
        plane = decorated(busy, PlaneLimits(requests=64), Patience(clock=virtual.now, sleep=asyncio.sleep))
        await asyncio.gather(*(plane.put(f"{n}", b"x", upload_id="u") for n in range(6400)))
        assert find(plane, LimitedPlane).pace.requests == 64
        assert virtual.now() == pytest.approx(10, rel=0.05)  # 64 at once, but for the first two rounds

    virtual.run(main())
