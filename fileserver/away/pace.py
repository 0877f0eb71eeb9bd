"""How fast an agent may work, by the hour of its own machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from planes.limited import LimitedPlane
from planes.plane import Plane
from planes.settings import PlaneLimits
from planes.wrapped import find

LOOK = 20.0
"""Seconds between two looks at the clock."""

Rates = Sequence[tuple[int, int, int]]
"""From a minute of the day to another, past midnight if the first is the later, and the bytes a second meanwhile."""


def rate_at(rates: Rates, minute: int) -> int:
    """The first that fits a minute of the day; 0 is no limit."""
    for begin, end, rate in rates:
        if begin <= minute < end or (begin > end and not end <= minute < begin):
            return rate
    return 0


async def keep(plane: Plane, rates: Rates, now: Callable[[], datetime] = datetime.now, pause: float = LOOK) -> None:
    """Hold a plane to its rates, for ever."""
    limited = find(plane, LimitedPlane)
    assert limited is not None
    held = limited.pace.limits.bytes_per_second
    while True:
        moment = now()
        wanted = rate_at(rates, moment.hour * 60 + moment.minute)
        if wanted != held:
            limited.change(PlaneLimits(bytes_per_second=wanted))
            held = wanted
        await asyncio.sleep(pause)
