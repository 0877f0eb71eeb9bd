"""Payload takes no more memory than it may, however many ask for it at once, and everybody gets some in the end."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.transfer.buffers import Buffers

MIB = 1 << 20


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@given(
    sizes=st.lists(st.integers(1, 130), max_size=60),
    cancelled=st.sets(st.integers(0, 59)),
    seed=st.integers(0, 99),
)
async def test_the_budget_holds_whatever_is_asked_for_at_once(sizes, cancelled, seed):
    buffers, order = Buffers(100), random.Random(seed)
    inside = served = 0

    async def use(number: int, size: int) -> None:
        nonlocal inside, served
        async with buffers.take(size) as view:
            inside += size
            try:
                assert len(view) == size
                assert buffers.held <= max(100, size)
                assert size <= 100 or inside == size  # too large for the budget: alone
                mark = bytes([number]) * size
                view[:] = mark
                for _ in range(order.randrange(4)):
                    await asyncio.sleep(0)
                assert view == mark  # nobody else has it
                served += 1
            finally:
                inside -= size

    tasks = [asyncio.create_task(use(number, size)) for number, size in enumerate(sizes)]
    await turns(order.randrange(6))
    gone = [tasks[n].cancel() for n in cancelled if n < len(tasks)]
    if tasks:
        await asyncio.wait(tasks)
    assert [t for t in tasks if not t.cancelled() and t.exception()] == []
    assert served >= len(tasks) - len(gone)
    assert buffers.held <= 100
    async with asyncio.timeout(10), buffers.take(100):  # and all of it can be had again
        pass


async def test_who_needs_much_is_not_passed_by_for_ever():
    buffers, took = Buffers(100), []

    async def use(name: str, size: int, until: asyncio.Event) -> None:
        async with buffers.take(size):
            took.append(name)
            await until.wait()

    first, rest = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(use("first", 60, first)), asyncio.create_task(use("large", 90, rest))]
    tasks += [asyncio.create_task(use(f"small {n}", 10, rest)) for n in range(3)]
    await turns()
    assert took == ["first"]
    first.set()
    await turns()
    assert took == ["first", "large", "small 0"]
    rest.set()
    await asyncio.gather(*tasks)


async def test_those_behind_one_who_gives_up_are_served():
    buffers = Buffers(100)
    async with buffers.take(60):
        large = asyncio.create_task(buffers.take(90).__aenter__())
        small = asyncio.create_task(buffers.take(10).__aenter__())
        await turns()
        assert not small.done()
        large.cancel()
        assert len(await small) == 10


@pytest.mark.parametrize(
    ("sizes", "held"),
    [
        ([50, 50], 50),
        ([50, 20], 50),
        ([50, 10], 60),  # 50 for 10 would be a waste
        ([60, 100], 100),  # makes room first
        ([300, 10], 10),  # what is beyond the budget is not kept
    ],
)
async def test_free_buffers_are_used_again_and_count(sizes, held):
    buffers = Buffers(100 * MIB)
    for size in sizes:
        async with buffers.take(size * MIB):
            pass
    assert buffers.held == held * MIB
