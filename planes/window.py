"""How many requests a provider takes at once, found out by asking: additive increase, multiplicative decrease.

The rules are those of TCP's congestion control (RFC 5681), with requests for segments. Only arithmetic: no clock, no
waiting, no requests; `planes.bounds` acts on it.

- Up to the first refusal, and then up to half of what was in flight at the last one, every answer makes room for one
  more (the width doubles with each round of answers); beyond that a whole round of answers does, or several if the
  width is small.
- A refusal halves what is in flight. Many that are in flight fail together, so only a request that began after the
  last decrease can cause the next one.
- One lost answer says nothing about load, a quarter of a round does.
- The width grows only while it is what holds requests back: what was never tried is not known to be too little.

Where one request at a time is still too fast for the provider, the width goes below 1: one request at a time, and
between two of them a rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

START: Final = 16
"""Requests at once before anything is known: what one transfer asks for."""
LEAST: Final = 1 / 256

_FEW: Final = 2  # lost answers that are never taken for overload, unless they are a quarter of the round
_LOST: Final = 1 / 4
_LARGEST_STEP: Final = 1 / 16  # of the width: below 4, one more a round would be too coarse
_SMOOTH: Final = 1 / 8  # weight of the newest duration, as of TCP's round trip times (RFC 6298)


@dataclass(slots=True)
class Window:
    """The width of one plane.

    A request calls `begin` when it is sent and hands the result to `answered`, `refused` or `lost`.
    """

    bound: int
    """Requests at once that the operator allows."""
    width: float = field(init=False)
    _doubling_to: float = math.inf
    _round: int = 0
    _answers: int = 0
    _lost: int = 0
    _answered_since: bool = True
    _took: float = 0.0

    def __post_init__(self) -> None:
        self.width = min(START, self.bound)

    @property
    def places(self) -> int:
        """Requests at once now; never less than one."""
        return max(1, int(self.width))

    @property
    def rest(self) -> float:
        """Seconds to leave between the end of one request and the begin of the next; 0 but for a width below 1."""
        return self._took * (1 / self.width - 1) if self.width < 1 else 0.0

    def allow(self, bound: int) -> None:
        """Another bound from now on; a wider one is grown into, from the start unless the provider has refused."""
        self.bound = bound
        begin = START if self._doubling_to == math.inf else self.width
        self.width = min(max(self.width, begin), bound)

    def begin(self) -> int:
        """The round that a request belongs to which is sent now."""
        return self._round

    def answered(self, begun: int, *, full: bool, seconds: float) -> None:
        """An answer, after so many `seconds`; `full` if requests are held back by the width."""
        self._took = seconds if not self._took else self._took + _SMOOTH * (seconds - self._took)
        if begun != self._round:
            return
        self._answered_since = True
        if full:
            self.width = min(self.bound, self.width + self._step())
        self._count()

    def _step(self) -> float:
        if self.width < self._doubling_to:
            return min(1.0, self.width, self._doubling_to - self.width)
        return min(1 / self.width, self.width * _LARGEST_STEP)

    def refused(self, begun: int, in_flight: int, *, seconds: float) -> None:
        """The provider asks to slow down, when so many requests were `in_flight`, this one among them."""
        self._took = self._took or seconds  # better than nothing to rest by
        if begun == self._round:
            self._decrease(in_flight)

    def lost(self, begun: int, in_flight: int) -> None:
        """No proper answer came: many of these in one round are taken for a refusal."""
        if begun != self._round:
            return
        self._lost += 1
        if self._lost >= max(_FEW, self.width * _LOST):
            self._decrease(in_flight)
        else:
            self._count()

    def _count(self) -> None:
        self._answers += 1
        if self._answers >= self.width:
            self._answers = self._lost = 0

    def _decrease(self, in_flight: int) -> None:
        half = max(LEAST, min(self.width, in_flight) / 2)
        # Without an answer since the last time this is the same trouble, not news about the width that works.
        if self._answered_since:
            self._doubling_to = half
        self.width = half
        self._round += 1
        self._answers = self._lost = 0
        self._answered_since = False
