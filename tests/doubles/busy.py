"""Stores that take only so much: faults for a proxy (`tests.doubles.proxy`) before a real one.

between.always(busy.Rate(100, burst=10))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.doubles import proxy

_SLOW_DOWN = proxy.answer(503, "SlowDown")


class Rate:
    """A store that takes so many requests a second, some of them at once, and asks the rest to slow down.

    `clock` counts seconds.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._left, self._since = float(burst), clock()
        self._lock = threading.Lock()
        self.taken = self.refused = 0

    def __call__(self, exchange: proxy.Exchange) -> None:
        """Let it pass, or not."""
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._since) * self._rate)
            self._since = now
            passes = self._left >= 1
            self._left -= passes
            self.taken += passes
            self.refused += not passes
        if passes:
            exchange.send(exchange.forward())
        else:
            _SLOW_DOWN(exchange)
