"""How often one caller may call: a bucket of tokens each, which fill up again (RFC 2697 calls it so, too)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fileserver.auth import caller
from fileserver.calls import HEALTH, Metadata
from fileserver.errors import ServerBusy

MOST: Final = 10_000
"""Callers that are remembered; of more, those who were quiet longest begin anew."""


class Rates:
    """Counts the calls of each caller by its name.

    Args:
        per_second: calls that may be made for ever.
        burst: calls at once after a pause.
        clock: monotonic seconds.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def check(self, method: str, _metadata: Metadata) -> None:
        """Let a call through, if its caller has not called too often; health checks don't count.

        Raises:
            ServerBusy: it has; when the next call may come.
        """
        if not method.startswith(HEALTH):
            self.take(caller().name)

    def take(self, name: str) -> None:
        """Count one call; raises ServerBusy."""
        now = self._clock()
        left, then = self._left.pop(name, (float(self._burst), now))
        left = min(float(self._burst), left + (now - then) * self._per_second)
        enough = left >= 1
        self._left[name] = (left - 1 if enough else left, now)
        if len(self._left) > MOST:
            self._left.popitem(last=False)
        if not enough:
            msg = f"{name or 'this caller'} calls more than {self._per_second:g} times a second: slower"
            raise ServerBusy(msg, retry_after=(1 - left) / self._per_second)
