"""Split points over several sources: drives the searches of `fileserver.formats`, which read nothing themselves.

The sources, in order, are one stream of records. Each begins at a record start and ends a record at its end, with a
terminator or without. Positions are byte offsets in their concatenation.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Protocol

from fileserver import errors
from fileserver.configured import where
from fileserver.formats import csv, deduce, faults, fixed, records, terminator
from fileserver.formats.csv import Csv
from fileserver.formats.exact import RangeScan
from fileserver.formats.fixed import Fixed
from fileserver.formats.grammar import WalkScan
from fileserver.formats.level import tokens
from fileserver.formats.search import Search, Span
from fileserver.formats.tally import Tally
from fileserver.together import side_by_side
from fileserver.transfer.manifest import Source

Read = Callable[[int, int, int], Awaitable[bytes | memoryview]]
"""Bytes [start, end) of the source with this index."""

_SEARCHES: Final = 8  # side by side
_WINDOWS: Final = 64 * 1024 * 1024  # bytes that all windows together may hold
_RANGE: Final = 4 * 1024 * 1024
_RANGES: Final = 3  # of one source in memory
_SCANS: Final = 4  # sources scanned side by side
_TAIL: Final = 4096
_INLINE: Final = 1024 * 1024  # larger windows are looked at in a thread


@dataclass(frozen=True, slots=True)
class Points:
    """Split points, ascending; equal ones leave a part empty."""

    points: tuple[int, ...]
    bytes_read: int
    split: str
    """"fixed", "deduce", "exact" or "terminator"."""
    warnings: tuple[str, ...] = ()


def targets(total: int, parts: int) -> tuple[int, ...]:
    """Where the parts of `total` bytes would begin if there were no records: k·⌊T/N⌋, or ⌊k·T/N⌋ if T < N."""
    if total < parts:
        return tuple(k * total // parts for k in range(parts))
    return tuple(k * (total // parts) for k in range(parts))


async def partition(sources: Sequence[Source], form: Fixed | Csv, targets: Sequence[int], read: Read) -> Points:
    """The first record start at or after each target (`fixed`: at or before).

    Args:
        sources: pinned, in order.
        form: how records are told apart.
        targets: ascending offsets in the concatenation.
        read: called side by side, at most about ten times at once.

    Raises:
        InvalidSpec: the format itself makes no sense.
        FormatMismatch, RecordTooLong: the data is not what the format says.
    """
    wrong = fixed.problems(form) if isinstance(form, Fixed) else csv.problems(form)
    if wrong:
        message = "the format makes no sense: " + "; ".join(f"{name}: {why}" for name, why in wrong.items())
        raise errors.InvalidSpec(message, {f"format.{name}": why for name, why in wrong.items()})
    if isinstance(form, Fixed):
        for source in sources:
            try:
                fixed.check(form, source.size)
            except faults.Fault as fault:
                raise _error(fault, source) from fault
        return Points(tuple(fixed.start(form, target) for target in targets), 0, "fixed")
    return await _Partition(sources, form, read).points(targets)


async def last_terminated(source: Source, form: Csv, read: Callable[[int, int], Awaitable[bytes | memoryview]]) -> bool:
    """Whether a source ends with a terminator, so that another may follow; `read` gives its bytes [start, end).

    True for a source without any record (empty, or a byte order mark alone): nothing lacks a terminator.
    """
    length = _TAIL
    while True:
        start = max(0, source.size - length)
        tail = bytes(await read(start, source.size)) if source.size else b""
        answer = records.terminated(form, tail, whole=start == 0)
        if answer is not None:
            return answer
        length *= 16


class _Scan(Protocol):
    def wanted(self, span: Span) -> Span: ...
    def prepare(self, span: Span, data: bytes) -> Callable[[], None]: ...


@dataclass(slots=True)
class _Asked:
    """A target inside a source, and its answer there."""

    place: int
    source: int
    target: int
    answer: int | None = None


class _Partition:
    """One call of `partition` for csv."""

    def __init__(self, sources: Sequence[Source], form: Csv, read: Read) -> None:
        self._sources = sources
        self._form = form
        self._read = read
        self._bytes_read = 0
        self._pool = ThreadPoolExecutor(min(_RANGES + 1, os.cpu_count() or 1), "partition")

    async def points(self, targets: Sequence[int]) -> Points:
        split, warning = csv.strategy(self._form)
        warnings = [warning] if warning else []
        try:
            await side_by_side(range(len(self._sources)), self._look, _SEARCHES)
            starts = [0, *accumulate(source.size for source in self._sources)]
            asked = list(self._asked(starts, targets))
            if split != "exact":
                await side_by_side(asked, self._search(split), self._width())
            open_ones = [one for one in asked if one.answer is None]
            if open_ones:
                await side_by_side(self._groups(asked), self._scan, _SCANS)
            if split == "deduce" and open_ones:
                warnings.append(self._fallback(open_ones))
                split = "exact" if len(open_ones) == len(asked) else split
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
        found = [min(target, starts[-1]) for target in targets]
        for one in asked:
            found[one.place] = starts[one.source] + (one.answer or 0)
        self._ascending(found, starts)
        return Points(tuple(found), self._bytes_read, split, tuple(warnings))

    def _asked(self, starts: Sequence[int], targets: Sequence[int]) -> Iterator[_Asked]:
        """The targets that lie strictly inside a source: where one begins or ends is a record start."""
        for place, target in enumerate(targets):
            source = bisect_right(starts, target) - 1
            if target < starts[-1] and target > starts[source]:
                yield _Asked(place, source, target - starts[source])

    def _width(self) -> int:
        return max(1, min(_SEARCHES, _WINDOWS // (2 * self._form.max_record)))

    async def _fetch(self, source: int, span: Span) -> bytes:
        self._bytes_read += span[1] - span[0]
        return bytes(await self._read(source, *span))

    async def _look(self, source: int) -> None:
        """Refuse a source that is not in an ASCII-compatible encoding."""
        head = min(records.LOOK, self._sources[source].size)
        if head:
            with_head = await self._fetch(source, (0, head))
            try:
                records.look(self._form, with_head)
            except faults.Fault as fault:
                raise await self._told(source, fault) from fault

    def _search(self, split: str) -> Callable[[_Asked], Awaitable[None]]:
        kind = terminator.search if split == "terminator" else deduce.search

        async def search(one: _Asked) -> None:
            found = kind(self._form, self._sources[one.source].size, one.target)
            try:
                one.answer = await self._answer(one.source, found)
            except faults.Fault as fault:
                raise await self._told(one.source, fault) from fault

        return search

    async def _answer(self, source: int, search: Search) -> int | None:
        span, answer = _step(search, None)
        while span is not None:
            data = await self._fetch(source, span)
            if self._form.max_record > _INLINE:
                span, answer = await asyncio.get_running_loop().run_in_executor(self._pool, _step, search, data)
            else:
                span, answer = _step(search, data)
        return answer

    def _groups(self, asked: Iterable[_Asked]) -> Iterator[tuple[int, list[_Asked]]]:
        """What is still open, by the proved record start before it, from which one scan answers all of them."""
        groups: dict[tuple[int, int], list[_Asked]] = defaultdict(list)
        source, begin = -1, 0
        for one in asked:
            if one.source != source:
                source, begin = one.source, 0
            if one.answer is None:
                groups[source, begin].append(one)
            else:
                begin = one.answer
        for (_, start), group in groups.items():
            yield start, group

    async def _scan(self, group: tuple[int, list[_Asked]]) -> None:
        """Answer targets of one source by a scan from a record start."""
        begin, asked = group
        source = asked[0].source
        size = self._sources[source].size
        form = csv.unquoted(self._form) if self._form.split == "terminator" else self._form
        tally = Tally(size, begin, [one.target for one in asked], form.max_record)
        simple = tokens(form)
        scan: _Scan = RangeScan(form, simple, size, tally) if simple else WalkScan(form, size, begin, tally)
        try:
            await self._drive(source, scan, tally, begin)
        except faults.Fault as fault:
            raise await self._told(source, fault) from fault
        for one, answer in zip(asked, tally.points, strict=True):
            one.answer = answer

    async def _drive(self, source: int, scan: _Scan, tally: Tally, begin: int) -> None:
        """Read and prepare a few ranges at once, join them in order."""
        size, loop = self._sources[source].size, asyncio.get_running_loop()
        ahead: deque[asyncio.Task[Callable[[], None]]] = deque()

        async def prepared(span: Span) -> Callable[[], None]:
            data = await self._fetch(source, scan.wanted(span))
            return await loop.run_in_executor(self._pool, scan.prepare, span, data)

        start = begin
        try:
            while not tally.done:
                while start < size and len(ahead) < _RANGES and (start < tally.horizon or not ahead):
                    # Behind the last target only the end of its record is wanted.
                    goal = tally.horizon + _TAIL if start < tally.horizon else start + 4 * _TAIL
                    span = start, min(size, start + _RANGE, goal)
                    ahead.append(asyncio.create_task(prepared(span)))
                    start = span[1]
                await loop.run_in_executor(self._pool, await ahead.popleft())
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    def _fallback(self, open_ones: Sequence[_Asked]) -> str:
        first = open_ones[0]
        source = self._sources[first.source]
        return (
            f"the quotes around {len(open_ones)} of the split points (the first near byte {first.target} of "
            f"{where(source.plane, source.key)}) prove nothing, so the bytes before them were scanned"
        )

    def _ascending(self, found: Sequence[int], starts: Sequence[int]) -> None:
        for before, after in pairwise(found):
            if after < before:
                source = self._sources[bisect_right(starts, after) - 1]
                fault = faults.Mismatch(
                    "split points come out in the wrong order: quotes here contradict those elsewhere",
                    after - starts[bisect_right(starts, after) - 1],
                    hint="use --split exact, or check --quote and --separator",
                )
                raise _error(fault, source)

    async def _told(self, source: int, fault: faults.Fault) -> errors.RecordTooLong | errors.FormatMismatch:
        """The fault as an error of ours, with the bytes around it."""
        if not fault.around:
            start = max(0, fault.offset - records.LOOK)
            end = min(self._sources[source].size, fault.offset + records.LOOK)
            fault.around = faults.excerpt(await self._fetch(source, (start, end)), fault.offset - start)
        return _error(fault, self._sources[source])


def _step(search: Search, data: bytes | None) -> tuple[Span | None, int | None]:
    """Send bytes to a search: the range it wants next, or its answer."""
    try:
        return (next(search) if data is None else search.send(data)), None
    except StopIteration as end:
        return None, end.value


def _error(fault: faults.Fault, source: Source) -> errors.RecordTooLong | errors.FormatMismatch:
    kind = errors.RecordTooLong if isinstance(fault, faults.TooLong) else errors.FormatMismatch
    record = f", record {fault.record}" if fault.record else ""
    message = f"{where(source.plane, source.key)}, byte {fault.offset}{record}: {fault.why}; {fault.hint}"
    if fault.around:
        message += f"\n{fault.around}"
    return kind(message, plane=source.plane, key=source.key, offset=str(fault.offset))
