"""Any tokens: one regular expression a record, made so that at each place at most one alternative fits.

Slower than `exact` (some 20 MB/s), still native code. The expression takes up to 100 bytes of memory for a byte of
the record it looks at, so `max_record` bounds that. A scan joins its ranges one after the other and keeps what is left
of the last record. Groups are not repeated possessively: Python 3.11.0 to 3.11.4 do that wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from fileserver.formats.csv import BOM, Csv, escapes
from fileserver.formats.search import Span
from fileserver.formats.tally import Tally, summarise

_NOTHING: Final = b"(?!)"


class Grammar:
    """Where records end.

    Attributes:
        reach: how many bytes behind a record the decision of where it ends may look at.
    """

    def __init__(self, form: Csv) -> None:
        self.reach = 2 * max(map(len, (*_tokens(form), BOM)))
        self._limit = form.max_record + self.reach
        self._match = re.compile(_record(form), re.DOTALL).match

    def end(self, data: bytes, start: int, *, last: bool) -> int | None:
        """Where the record that begins at `data[start]` ends, its terminator included; None if `data` does not show it.

        At most `max_record` bytes are looked at, and what the decision needs behind them; `last` says that the
        source ends with `data`.
        """
        limit = start + self._limit
        found = self._match(data, start, limit)
        if found is None:
            return None
        end, size = found.end(), len(data)
        shown = size if last else size - self.reach
        return end if end <= min(shown, limit - self.reach) else None


def _tokens(form: Csv) -> tuple[bytes, ...]:
    return (*form.separators, *form.terminators, *form.quotes, *escapes(form))


def _record(form: Csv) -> bytes:
    """The expression. Alternatives exclude each other, so going back on a choice never finds another match."""
    tokens = _tokens(form)
    quote, separator = _one_of(form.quotes, tokens), _one_of(form.separators, tokens)
    blank = rb"(?:(?!%b)[ \t]|%b)" % (_one_of(tokens, tokens), re.escape(BOM))
    text = _stretch(tokens, [quote], form, tokens)
    plain = rb"[^ \t%b%b]" % (re.escape(BOM[:1]), _beginnings(tokens))
    bodies = [_quoted(form, one, tokens) + text for one in form.quotes]
    other = rb"(?!%b)%b*(?:%b)" % (plain, blank, b"|".join([*bodies, rb"(?!%b|%b)%b" % (quote, blank, text)]))
    field = rb"(?:%b%b|%b)" % (plain, text, other)
    return rb"%b(?:%b%b)*%b" % (field, separator, field, _one_of(form.terminators, tokens))


def _quoted(form: Csv, quote: bytes, tokens: tuple[bytes, ...]) -> bytes:
    """A field in quotes, up to the quote that closes it."""
    inner = (quote, *escapes(form))
    others = [token for token in tokens if token not in inner]
    known = {token[0] for token in inner}
    if any(known & {*token} for token in others):  # only then can it matter that other tokens are taken whole
        inner = tokens
    one = _one_of((quote,), tokens)
    taken = [one + one, _one_of([token for token in others if token in inner], tokens)]
    return one + _stretch(inner, taken, form, tokens) + rb"%b(?!%b)" % (one, one)


def _stretch(stops: tuple[bytes, ...], taken: list[bytes], form: Csv, tokens: tuple[bytes, ...]) -> bytes:
    """Bytes up to one of `stops`, going over escapes, over `taken`, and over bytes that only look like a stop."""
    easy = rb"[^%b]*+" % _beginnings(stops)
    any_token = _one_of(tokens, tokens)
    over = [some for some in taken if some != _NOTHING]
    if escapes(form):
        over.append(rb"%b(?:%b|(?!%b).|\Z)" % (_one_of(escapes(form), tokens), any_token, any_token))
    unsure = tuple(token for token in stops if token[:1] not in stops)
    if unsure:
        over.append(rb"(?!%b)[%b]" % (any_token, _beginnings(unsure)))
    return rb"%b(?:(?:%b)%b)*" % (easy, b"|".join(over), easy) if over else easy


def _beginnings(tokens: Iterable[bytes]) -> bytes:
    """The first bytes of tokens, for a set of an expression."""
    return re.escape(bytes(sorted({token[0] for token in tokens})))


def _one_of(some: Iterable[bytes], tokens: tuple[bytes, ...]) -> bytes:
    """An expression for tokens where they do not begin a longer one; matches nothing if there are none."""
    made = []
    for token in some:
        longer = [other[len(token) :] for other in tokens if other != token and other.startswith(token)]
        behind = b"(?!" + b"|".join(map(re.escape, longer)) + b")" if longer else b""
        made.append(re.escape(token) + behind)
    return b"(?:" + b"|".join(made) + b")" if made else _NOTHING


class WalkScan:
    """A scan like `exact.RangeScan`, for any tokens; all its work is in what `prepare` returns."""

    def __init__(self, form: Csv, size: int, begin: int, tally: Tally) -> None:
        self._grammar = Grammar(form)
        self._max_record = form.max_record
        self._size = size
        self._tally = tally
        self._known = begin
        self._start = begin
        self._left = b""

    def wanted(self, span: Span) -> Span:
        """The bytes of a range itself."""
        return span

    def prepare(self, span: Span, data: bytes) -> Callable[[], None]:
        """A function that finds the records of the range."""
        return lambda: self._join(span, data)

    def _join(self, span: Span, data: bytes) -> None:
        last = span[1] == self._size
        data = self._left + data
        place, starts = 0, []
        while (end := self._grammar.end(data, place, last=last)) is not None:
            place = end
            starts.append(self._start + place)
        known = span[1] if last else max(self._known, span[1] - self._grammar.reach)
        if last or known > self._known:
            covered = (self._known, known)
            targets = self._tally.within(covered)
            self._tally.add(covered, summarise(np.array(starts, np.intp), targets, self._max_record))
        self._known = known
        self._start += place
        self._left = data[place:]
