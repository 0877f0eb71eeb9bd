"""Reads for searches and scans from bytes in memory, in ranges as small as a test wants."""

from fileserver.formats.csv import Csv
from fileserver.formats.exact import RangeScan
from fileserver.formats.grammar import WalkScan
from fileserver.formats.level import tokens
from fileserver.formats.search import Search
from fileserver.formats.tally import Tally


def answer(search: Search, data: bytes) -> int | None:
    try:
        span = next(search)
        while True:
            start, end = span
            assert 0 <= start < end <= len(data)
            span = search.send(data[start:end])
    except StopIteration as end:
        return end.value


def scan(
    form: Csv, data: bytes, targets: list[int], step: int, begin: int = 0, *, walk: bool = False, block: int = 1 << 18
) -> list[int]:
    """All ranges prepared first, as if side by side, then joined in order."""
    tally = Tally(len(data), begin, targets, form.max_record)
    simple = tokens(form)
    assert walk or simple is not None
    made = WalkScan(form, len(data), begin, tally) if walk else RangeScan(form, simple, len(data), tally, block=block)
    spans = [(start, min(start + step, len(data))) for start in range(begin, len(data), step)]
    joins = [made.prepare(span, data[slice(*made.wanted(span))]) for span in spans]
    for join in joins:
        join()
    assert tally.done
    return tally.points
