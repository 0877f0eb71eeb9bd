"""How long the client waits for a server that is busy or gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 2.0


class Patience:
    """How long a call that cannot be answered is still tried, and how long the next wait is, in seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Something was answered: begin anew."""
        self._end = self._clock() + self._seconds
        self._next = _FIRST_WAIT

    def wait(self, asked: float | None) -> float | None:
        """Seconds until the next try: what the server asked for, else twice the last; None if patience ends."""
        chosen = self._next if asked is None else max(asked, _FIRST_WAIT)
        self._next = min(self._next * 2, _LONGEST_WAIT)
        return chosen if self._clock() + chosen <= self._end else None
