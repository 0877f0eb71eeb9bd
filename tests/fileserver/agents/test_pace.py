import asyncio
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.away.pace import keep, rate_at
from planes.limited import LimitedPlane
from planes.memory import MemoryPlane
from planes.opening import decorated
from planes.settings import PlaneLimits
from planes.wrapped import find

DAY = [(480, 1080, 5)]
NIGHT = [(1320, 360, 7)]


@pytest.mark.parametrize(("hour", "day", "night"), [(0, 0, 7), (5, 0, 7), (6, 0, 0), (8, 5, 0), (18, 0, 0), (22, 0, 7)])
def test_the_hour_says_the_rate(hour, day, night):
    assert rate_at(DAY, hour * 60) == day
    assert rate_at(NIGHT, hour * 60) == night
    assert rate_at([*DAY, (0, 1440, 9)], hour * 60) == (day or 9)


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439))
def test_a_period_and_the_rest_of_the_day_have_no_minute_in_common_and_none_between_them(begin, end, minute):
    if begin != end:
        assert bool(rate_at([(begin, end, 1)], minute)) != bool(rate_at([(end, begin, 1)], minute))


async def test_a_plane_is_held_to_the_rate_of_the_hour():
    plane = decorated(MemoryPlane("m"), PlaneLimits())
    limited = find(plane, LimitedPlane)
    hours = iter([7, 8, 12, 18])

    def now():
        hour = next(hours, None)
        if hour is None:
            raise asyncio.CancelledError
        seen.append(limited.pace.limits.bytes_per_second)
        return datetime(2026, 1, 1, hour)  # noqa: DTZ001 - the hour of a machine

    seen = []
    with pytest.raises(asyncio.CancelledError):
        await keep(plane, DAY, now, 0.0)
    assert [*seen, limited.pace.limits.bytes_per_second] == [0, 0, 5, 5, 0]
