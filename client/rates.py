"""How fast a command may carry files, by the hour: `20MiB`, or `8:00-18:00=5MiB,200MiB`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from client.words import WordError, parse_size

_HOURS: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a second from one minute of the day to another; past midnight if it begins after it ends."""

    begin: int
    end: int
    bytes_per_second: int


def parse_rates(text: str) -> tuple[Rate, ...]:
    """The rates that a text names, of which the first that fits an hour counts; at all other hours there is none.

    Raises:
        WordError: it is none.
    """
    return tuple(_one(each) for each in text.split(","))


def _one(text: str) -> Rate:
    hours, separator, size = text.strip().rpartition("=")
    if not separator:
        return Rate(0, DAY, parse_size(size))
    found = _HOURS.fullmatch(hours.strip())
    begin, end = (int(found[i]) * 60 + int(found[i + 1]) for i in (1, 3)) if found else (DAY + 1, 0)
    if found is None or max(begin, end) > DAY or int(found[2]) > 59 or int(found[4]) > 59 or begin == end:
        msg = f"'{hours}' are no hours of a day: write them like 8:00-18:00=5MiB or 22:00-6:00=200MiB"
        raise WordError(msg)
    return Rate(begin, end, parse_size(size))
