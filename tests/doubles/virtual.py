"""An event loop whose time passes only when everybody sleeps: a test of minutes takes no time and has one outcome.

    virtual.run(main())         # asyncio.sleep and loop.time are virtual in it

For code that neither waits for threads nor for sockets.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _NoWait(selectors.SelectSelector):
    """Moves the clock on by as long as it would have waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """What is ready; a wait without end is a test that hangs."""
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for something that never happens"
            self.now += max(timeout, 0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _NoWait()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds since the begin."""
        return self._virtual.now


def now() -> float:
    """Virtual seconds since the begin of the running loop."""
    return asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
