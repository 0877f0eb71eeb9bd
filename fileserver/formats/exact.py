"""Ranges of a source scanned side by side, for tokens of one byte (`level.tokens`).

A range is cut into blocks that fit a processor's cache. Each is summarised for every state in which it can begin,
and the summaries are joined in order. Only the spaces and quotes that a block begins with need to know what came
before it; behind them a block is either inside quotes or outside, and `parity` or `turns` tells the rest for both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np

from fileserver.formats.csv import Csv
from fileserver.formats.level import CONTEXT, Tokens, level_escapes, level_marks, level_newlines
from fileserver.formats.parity import Parity, parity
from fileserver.formats.runs import Bytes, Places, left_of, positions
from fileserver.formats.search import Span
from fileserver.formats.tally import Starts, Tally, summarise
from fileserver.formats.turns import Turns

_BLOCK: Final = 256 * 1024

_CR: Final = 13
_LF: Final = 10


class State(IntEnum):
    """What came before a byte."""

    FIELD = 0
    """A field begins; spaces at most."""
    TEXT = 1
    """Text of a field, outside quotes."""
    QUOTED = 2
    """Inside quotes."""
    CLOSING = 3
    """Inside quotes, and a quote that closes unless another one follows."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a block does to each of the four states, and which records start in it."""

    span: Span
    entry: tuple[int, ...]
    """For each state at the start: whether the bytes behind the leading quotes are inside (1) or outside (0)."""
    exits: tuple[State, ...]
    """For each state at the start the state at the end."""
    starts: tuple[Starts, Starts]
    """Record starts if those bytes are outside, and if they are inside."""


class RangeScan:
    """A scan for record starts at or after `tally`'s targets.

    `prepare` may run in any thread, side by side; what it returns is called in the order of the ranges. So the
    caller holds as many ranges in memory as it wants to.
    """

    def __init__(self, form: Csv, simple: Tokens, size: int, tally: Tally, *, block: int = _BLOCK) -> None:
        self._max_record = form.max_record
        self._simple = simple
        self._size = size
        self._tally = tally
        self._block = block
        self._state = State.FIELD
        self._beyond = 0

    def wanted(self, span: Span) -> Span:
        """The bytes that `prepare` needs for a range: a little more on both sides."""
        return max(0, span[0] - CONTEXT), min(self._size, span[1] + CONTEXT)

    def prepare(self, span: Span, data: bytes) -> Callable[[], None]:
        """Summarise a range, of which `data` are the `wanted` bytes; the rest is done by the function returned."""
        summaries, beyond = self._summaries(span, data, 0)
        kept = data if self._simple.escapes else b""
        return lambda: self._join(span, kept, summaries, beyond)

    def _join(self, span: Span, data: bytes, summaries: list[Summary], beyond: int) -> None:
        if self._beyond:  # rare: an escape stands at the very edge
            summaries, beyond = self._summaries(span, data, self._beyond)
        for summary in summaries:
            self._tally.add(summary.span, summary.starts[summary.entry[self._state]])
            self._state = summary.exits[self._state]
        self._beyond = beyond

    def _summaries(self, span: Span, data: bytes, taken: int) -> tuple[list[Summary], int]:
        """The blocks of a range whose first `taken` bytes are escaped, and how many of the next range are."""
        offset = self.wanted(span)[0]
        begin, end = span[0] - offset, span[1] - offset
        level = level_marks(self._simple, data)
        if taken:
            level = level[:begin] + self._simple.text * taken + level[begin + taken :]
        level, beyond = level_escapes(self._simple, level, begin + taken, end)
        level = level_newlines(self._simple, level)
        edges = [*range(span[0], span[1], self._block), span[1]]
        blocks = pairwise(edges)
        found = [_summarise(self._simple, level, offset, b, self._tally.within(b), self._max_record) for b in blocks]
        return found, max(beyond, begin + taken - end)


def _summarise(simple: Tokens, level: bytes, offset: int, span: Span, targets: list[int], max_record: int) -> Summary:
    """The summary of a block in level bytes, of which the first is byte `offset` of the source."""
    begin, end = span[0] - offset, span[1] - offset
    indent, lead = _beginning(simple, level, begin, end)
    entry = tuple(_enter(state, indent, lead) for state in State)
    rest = begin + indent + lead
    data = np.frombuffer(level, np.uint8)[rest:end]
    quotes: Parity | Turns | None = None
    if simple.quoted and level.find(simple.quoted, rest, end) >= 0:
        quotes = parity(simple, data, level, rest) or Turns(simple, data)
    ends = _terminators(simple, level, data, rest)
    outside, inside = (
        summarise(_outside(quotes, state, ends) + (offset + rest + 1), targets, max_record) for state in (0, 1)
    )
    if data.size:
        ends_in = [_exit(simple, data, quotes, state) for state in (0, 1)]
        exits = tuple(ends_in[one] for one in entry)
    else:
        exits = tuple(_empty_exit(state, entry[state], indent, lead) for state in State)
    return Summary(span, entry, exits, (outside, inside))


def _outside(quotes: Parity | Turns | None, entry: int, places: Places) -> Places:
    """The places that are outside quotes, if the block begins so (`entry` 0) or inside (1)."""
    if quotes is None:
        return places[:0] if entry else places
    return places[~quotes.inside(entry, places)]


def _enter(state: State, indent: int, lead: int) -> int:
    """The state behind the leading run of `lead` quotes after `indent` spaces; before it if there is none."""
    odd = lead & 1
    match state:
        case State.FIELD:
            return odd
        case State.TEXT:
            return 0
        case State.QUOTED:
            return 1 - odd
        case State.CLOSING:
            return odd if indent == 0 else 0


def _empty_exit(state: State, entry: int, indent: int, lead: int) -> State:
    """The state behind a block that is nothing but `indent` spaces and then `lead` quotes."""
    if not lead:
        return State.TEXT if state is State.CLOSING else state
    dead = state is State.TEXT or (state is State.CLOSING and indent > 0)
    return State.TEXT if dead else _behind_quote(entry)


def _exit(simple: Tokens, data: Bytes, quotes: Parity | Turns | None, entry: int) -> State:
    """The state at the end of `data`, which is what comes behind the spaces and quotes that a block begins with."""
    behind = data.size - 1
    inside = _state(quotes, entry, behind)
    if data[-1] == simple.quote:
        first = len(data.tobytes().rstrip(simple.quoted))
        opens = simple.after[data[left_of(data, np.array([first]), simple.blank)]].all()
        return _behind_quote(inside) if opens or _state(quotes, entry, first - 1) else State.TEXT
    if inside:
        return State.QUOTED
    last = left_of(data, np.array([data.size]), simple.blank)
    return State.FIELD if last[0] >= 0 and simple.after[data[last]].all() else State.TEXT


def _state(quotes: Parity | Turns | None, entry: int, place: int) -> int:
    """Whether the byte behind a place is inside quotes."""
    return entry if quotes is None else int(quotes.inside(entry, np.array([place]))[0])


def _behind_quote(inside: int) -> State:
    """The state behind a quote that is more than text: one that leaves us outside may yet turn out to be doubled."""
    return State.QUOTED if inside else State.CLOSING


def _terminators(simple: Tokens, level: bytes, data: Bytes, begin: int) -> Places:
    """The last byte of each terminator, inside quotes or not; CR before its LF is not the last byte."""
    ends = positions(data, simple.terminators)
    if not simple.pair or _CR not in simple.terminators:
        return ends
    whole = np.frombuffer(level, np.uint8)
    following = whole.take(ends + begin + 1, mode="clip") == _LF
    whole_ones: Places = ends[(data[ends] != _CR) | ~following]
    return whole_ones


def _beginning(simple: Tokens, level: bytes, begin: int, end: int) -> tuple[int, int]:
    """How many spaces a block begins with, and how many quotes follow them."""
    found = _blanks_and_quotes(simple.spaces, simple.quoted).match(level, begin, end)
    return (len(found[1]), len(found[2])) if found else (0, 0)


@lru_cache(maxsize=64)
def _blanks_and_quotes(spaces: bytes, quoted: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"([%b]*)((?:%b)*)" % (re.escape(spaces), re.escape(quoted)))
