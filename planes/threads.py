"""Blocking calls in a plane's own threads, stopped and waited for when their awaiting task is cancelled.

asyncio's own pool is shared by the whole process and small; and it leaves a thread running when the task that awaits
it is cancelled. Here a cancelled call returns only after its thread has let go of files and buffers, so that an abort
never races with a writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from planes.errors import Error

T = TypeVar("T")


class Stopped(BaseException):
    """Raised in a thread whose task was cancelled; never seen outside of it."""


class Stop:
    """A flag that long blocking work looks at between two system calls."""

    def __init__(self) -> None:
        self._is_set = False  # no event: nobody waits for it, and to make one costs more than a short call

    def set(self) -> None:
        """Ask the work to end."""
        self._is_set = True

    def check(self) -> None:
        """End the work if that was asked for."""
        if self._is_set:
            raise Stopped


class Threads:
    """A pool of at most `count` threads; they start when they are needed."""

    def __init__(self, name: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[[Stop], T]) -> T:
        """Run `work` in a thread; when cancelled, tell it to stop and wait until it has."""
        stop = Stop()
        queued = self._pool.submit(work, stop)
        future = asyncio.wrap_future(queued)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            if not queued.cancel():
                await until_done(future)
                if not future.cancelled():
                    future.exception()  # looked at, so that asyncio does not report it as lost
            raise

    def close(self) -> None:
        """Let the threads go when they are done."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def until_done(future: asyncio.Future[T]) -> asyncio.CancelledError | None:
    """Wait, however often the waiting task is cancelled meanwhile, and give back the last such cancellation."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def cleaned_up(work: Coroutine[None, None, None]) -> None:
    """Do a clean-up whole, however often the task is cancelled meanwhile; that it failed is not what to report then."""
    task = asyncio.ensure_future(work)
    await until_done(task)
    with suppress(Error):
        task.result()
