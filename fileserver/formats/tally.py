"""What a scan has found so far: the open record, and for each target the first record start at or after it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fileserver.formats.faults import TooLong, counted
from fileserver.formats.runs import Places
from fileserver.formats.search import Span


@dataclass(frozen=True, slots=True)
class Starts:
    """The record starts in (start, end] of a range, in the little that later ranges need; -1 is none."""

    count: int
    first: int
    last: int
    long: int
    """The first start whose record, known to end in this range, is longer than the limit."""
    long_index: int
    """How many starts of the range come before that one."""
    hits: tuple[int, ...]
    """For each target in (start, end] the first start at or after it."""


def summarise(starts: Places, targets: Sequence[int], max_record: int) -> Starts:
    """`starts` (ascending offsets in the source) as `Starts`, for targets of the same range."""
    if not starts.size:
        return Starts(0, -1, -1, -1, -1, (-1,) * len(targets))
    long = np.flatnonzero(np.diff(starts) > max_record)
    index = int(long[0]) if long.size else -1
    found = np.searchsorted(starts, np.asarray(targets, np.int64)) if targets else ()
    hits = tuple(int(starts[i]) if i < starts.size else -1 for i in found)
    return Starts(
        count=starts.size,
        first=int(starts[0]),
        last=int(starts[-1]),
        long=int(starts[index]) if long.size else -1,
        long_index=index,
        hits=hits,
    )


class Tally:
    """Takes the `Starts` of adjacent ranges in order.

    Args:
        size: length of the source in bytes.
        begin: a record start, where the scan begins.
        targets: ascending offsets in the source.
        max_record: a longer record that begins before the last target is TooLong.
    """

    def __init__(self, size: int, begin: int, targets: Sequence[int], max_record: int) -> None:
        self._size = size
        self._targets = [min(t, size) for t in targets]
        self._max_record = max_record
        self._record = begin
        self._number = 1
        self._waiting = 0
        self._exact_numbers = begin == 0
        self.points = [begin] * bisect_right(self._targets, begin)
        """The answers to the first targets, as far as they are known."""

    @property
    def horizon(self) -> int:
        """The last target."""
        return self._targets[-1] if self._targets else 0

    @property
    def done(self) -> bool:
        """Every target has its answer."""
        return len(self.points) == len(self._targets)

    def within(self, span: Span) -> list[int]:
        """The targets in (start, end] of a range."""
        return self._targets[bisect_right(self._targets, span[0]) : bisect_right(self._targets, span[1])]

    def add(self, span: Span, starts: Starts) -> None:
        """Take the next range; raises TooLong."""
        self._check(starts.first if starts.count else span[1], self._record, 0)
        if starts.count:
            self._check(starts.long + self._max_record + 1, starts.long, 1 + starts.long_index)
            self.points += [starts.first] * self._waiting
            self._waiting = 0
            self._record, self._number = starts.last, self._number + starts.count
        self._check(span[1], self._record, 0)
        for hit in starts.hits:
            if hit < 0:
                self._waiting += 1
            else:
                self.points.append(hit)
        if span[1] == self._size:
            self.points += [self._size] * self._waiting
            self._waiting = 0

    def _check(self, end: int, record: int, later: int) -> None:
        if 0 <= record < self.horizon and end - record > self._max_record:
            number = self._number + later if self._exact_numbers else 0
            why = f"a record that begins here does not end within {counted(self._max_record, 'byte')}"
            raise TooLong(why, record, record=number, hint="raise --max-record, or check --quote and --terminator")
