"""A search where every terminator ends a record: no quotes, or terminators never stand inside them."""

from __future__ import annotations

import re

from fileserver.formats.csv import Csv
from fileserver.formats.faults import TooLong, counted, excerpt
from fileserver.formats.search import FIRST_WINDOW, Search, Window


def search(form: Csv, size: int, target: int, first_window: int = FIRST_WINDOW) -> Search:
    """The first record start at or after `target` of a source of `size` bytes; `size` if there is none.

    For tokens that are `csv.synchronous`. Raises TooLong if no terminator stands within `max_record` bytes.
    """
    if target <= 0 or target >= size:
        return max(0, min(target, size))
    longest = max(map(len, form.terminators))
    pattern = re.compile(b"|".join(map(re.escape, sorted(form.terminators, key=len, reverse=True))))
    window = Window(size, target)
    limit = min(size, target + form.max_record)
    width = first_window // 2
    while True:
        yield from window.cover(target - longest, min(limit, target + width) + longest)
        for found in pattern.finditer(window.data):
            place = window.start + found.end()
            sure = window.at_end or found.start() + longest <= len(window.data)
            if place >= target and sure and place < target + form.max_record:
                return place
        if target + width >= limit:
            break
        width *= 2
    return no_end(form, window, target)


def no_end(form: Csv, window: Window, target: int) -> int:
    """The end of the source, after no record end was seen within `max_record` bytes of `target`; else TooLong."""
    if target + form.max_record > window.size:
        return window.size
    why = f"no record ends within {counted(form.max_record, 'byte')}"
    hint = "raise --max-record, or check --terminator and --quote"
    raise TooLong(why, target, hint=hint, around=excerpt(window.data, target - window.start))
