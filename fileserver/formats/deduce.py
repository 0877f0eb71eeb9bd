"""A search that proves from the quotes around the target whether it is inside quotes; for `csv.deducible` tokens.

It is exact for every source whose quotes stand only around fields (doubled inside them) and none of whose records
is longer than `max_record`. In such a source every quote turns outside into inside and back, so if the state is
known at one place of a window, it is known at all. What proves it:

- The start of the source is outside.
- A run of k quotes, space and tab skipped on both sides. Text before it: inside before the run, so after it inside
  if k is even and outside if k is odd. Text behind it: inside after the run. Both, and unequal: Mismatch. A run that
  touches the right edge of the window proves nothing, unless that is the end of the source.
- `max_record` bytes without a quote are outside: inside, their record would be too long.

Proofs that contradict each other are a Mismatch too. Windows grow from 16 KiB to `max_record`; if that proves
nothing, the search returns None and the source has to be scanned.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import numpy as np

from fileserver.formats.csv import Csv
from fileserver.formats.faults import Mismatch, TooLong, counted, excerpt
from fileserver.formats.level import Tokens, level_marks, tokens
from fileserver.formats.runs import NOWHERE, Bytes, Flags, Places, left_of, positions, right_of, runs
from fileserver.formats.search import FIRST_WINDOW, Search, Span, Window
from fileserver.formats.terminator import no_end

_CR: Final = 13
_LF: Final = 10
_MARK_TAIL: Final = b"\xbb\xbf"
_HINT: Final = (
    "if quotes also stand inside unquoted fields, use --split exact; if they mean nothing here, --quote ''; "
    "else check --quote and --separator"
)


def search(form: Csv, size: int, target: int, first_window: int = FIRST_WINDOW) -> Search:
    """The first record start at or after `target`; `size` if there is none, None if the windows prove nothing.

    Raises:
        Mismatch: quotes contradict the data.
        TooLong: no record ends within `max_record` bytes.
        ValueError: the tokens are not `csv.deducible`.
    """
    simple = tokens(form)
    if simple is None:
        msg = "these tokens cannot be deduced"
        raise ValueError(msg)
    if target <= 0 or target >= size:
        return max(0, min(target, size))
    window = Window(size, target)
    inside = yield from _state(form, simple, window, target, first_window)
    if inside is None:
        return None
    limit = min(size, target + form.max_record)
    width = first_window // 2
    while True:
        found = _first_start(simple, window, target, inside)
        if found is not None and found < target + form.max_record:
            return found
        if window.end >= min(size, limit + 1):
            return no_end(form, window, target)
        yield from window.cover(window.start, min(limit + 1, target + width))
        width *= 2


def _state(form: Csv, simple: Tokens, window: Window, target: int, width: int) -> Generator[Span, bytes, int | None]:
    """Whether the window's first byte is inside quotes (1) or not (0), None if unknown; grows the window."""
    most = max(width, form.max_record)
    while True:
        yield from window.around(target, width)
        inside = _proof(form, simple, window)
        if inside is not None or width == most:
            return inside
        width = min(width * 2, most)


def _view(simple: Tokens, window: Window) -> Bytes:
    """The window's bytes made level; the rest of a byte order mark at its left edge counts as spaces, too."""
    data = level_marks(simple, window.data)
    for tail in (_MARK_TAIL, _MARK_TAIL[1:]):
        if window.start and data.startswith(tail):
            data = simple.spaces[:1] * len(tail) + data[len(tail) :]
    return np.frombuffer(data, np.uint8)


def _proof(form: Csv, simple: Tokens, window: Window) -> int | None:
    """What the quotes in the window say of its first byte: 1 inside, 0 outside, None nothing."""
    data, start = _view(simple, window), window.start
    quotes = positions(data, simple.quoted)
    places, votes = _votes(simple, window, data, quotes)
    if start == 0:
        places, votes = np.concatenate(([0], places)), np.concatenate(([0], votes))
    if votes.size and (votes != votes[0]).any():
        at = start + int(places[np.flatnonzero(votes != votes[0])[0]])
        why = "this quote contradicts the quotes before it: text stands where a field would have to begin or end"
        raise Mismatch(why, at, hint=_HINT, around=excerpt(window.data, at - window.start))
    edges = np.concatenate(([-1], quotes, [data.size]))
    gaps = np.flatnonzero(np.diff(edges) > form.max_record)
    votes = np.concatenate((votes, gaps & 1))  # so many quotes come before the stretch, which is outside
    if (votes[places.size :] != votes[:1]).any():
        at = start + max(0, int(edges[gaps[votes[places.size :] != votes[0]][0]]))
        why = f"a quoted field has no end within {counted(form.max_record, 'byte')}"
        hint = "raise --max-record, or check --quote and --separator"
        raise TooLong(why, at, hint=hint, around=excerpt(window.data, at - window.start))
    return int(votes[0]) if votes.size else None


def _votes(simple: Tokens, window: Window, data: Bytes, quotes: Places) -> tuple[Places, Places]:
    """The runs that prove something, and what each says of the first byte of `data`."""
    first, last = runs(quotes)
    if last.size and last[-1] == data.size - 1 and not window.at_end:
        first, last = first[:-1], last[:-1]
    if not first.size:
        return NOWHERE, NOWHERE
    left, right = left_of(data, first, simple.blank), right_of(data, last, simple.blank)
    left_text = (left >= 0) & simple.plain[data[left]]
    right_text = _text_behind(simple, data, right)
    odd = (last - first) & 1 == 0
    both = left_text & right_text & odd
    if both.any():
        at = window.start + int(first[np.flatnonzero(both)[0]])
        why = "a quote inside an unquoted field, or text behind a quoted one"
        raise Mismatch(why, at, hint=_HINT, around=excerpt(window.data, at - window.start))
    after = np.where(right_text, 1, np.where(odd, 0, 1))
    seen = np.searchsorted(quotes, last, side="right")
    known = left_text | right_text
    return first[known], (after ^ (seen & 1))[known]


def _text_behind(simple: Tokens, data: Bytes, right: Places) -> Flags:
    """Whether text stands at `right`. A carriage return is text only if the next byte is there and no newline."""
    there = right < data.size
    text: Flags = there & simple.plain[data.take(right, mode="clip")]
    if simple.pair:
        returns = np.flatnonzero(text & (data.take(right, mode="clip") == _CR))
        following = right[returns] + 1
        proved = (following < data.size) & (data.take(following, mode="clip") != _LF)
        text[returns] = proved
    return text


def _first_start(simple: Tokens, window: Window, target: int, inside: int) -> int | None:
    """The first record start at or after the target that the window shows."""
    data, start = _view(simple, window), window.start
    begin = target - 1 - start
    ends = positions(data[begin:], simple.terminators) + begin
    if simple.pair:
        followed = (ends + 1 < data.size) & (data.take(ends + 1, mode="clip") == _LF)
        undecided = (ends + 1 == data.size) & (not window.at_end)
        ends = ends[(data[ends] != _CR) | ~(followed | undecided)]
    quotes = positions(data, simple.quoted)
    outside = np.flatnonzero((np.searchsorted(quotes, ends) + inside) & 1 == 0)
    return start + int(ends[outside[0]]) + 1 if outside.size else None
