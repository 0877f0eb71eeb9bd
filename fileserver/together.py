"""Several pieces of work at once, and how they end: the one place that takes groups of exceptions apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from itertools import chain, islice
from typing import TypeVar

from planes.threads import until_done

T = TypeVar("T")


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf: the others are its echoes or would say the same."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner


async def side_by_side(items: Iterable[T], work: Callable[[T], Awaitable[object]], width: int) -> None:
    """Await `work` for all items, `width` at a time; the first failure cancels the rest and is raised alone."""
    left = iter(items)
    first = list(islice(left, width))
    todo = chain(first, left)  # one iterator for all workers

    async def worker() -> None:
        for item in todo:
            await work(item)

    try:
        if len(first) < 2:  # one needs no tasks, nor has `width` 1 any beside it
            await worker()
            return
        async with asyncio.TaskGroup() as group:
            for _ in first:
                group.create_task(worker())
    except BaseExceptionGroup as failed:
        raise first_of(failed) from None


async def heard_within(event: asyncio.Event, seconds: float) -> None:
    """Return at the news, or after so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def to_its_end(work: Coroutine[None, None, T], then: Callable[[T], object] = lambda _: None) -> None:
    """Run `work` and hand on its result; a caller that is cancelled waits for that before it goes."""
    task = asyncio.ensure_future(work)
    cancelled = await until_done(task)
    if cancelled is None or task.exception() is None:
        then(task.result())
    if cancelled is not None:
        raise cancelled
