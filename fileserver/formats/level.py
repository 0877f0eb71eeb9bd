r"""Tokens of one byte (and the pair \r\n): the usual case, for which numpy is fast.

Bytes are made *level* before they are looked at: what needs a memory of more than one byte (a byte order mark,
an escaped token, a \n that is no terminator without its \r) is replaced by as many bytes that need none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fileserver.formats.csv import BOM, Csv, escapes

CONTEXT: Final = 2  # bytes on either side of a range that its own bytes depend on: a byte order mark is three

Table = NDArray[np.bool_]
"""256 truth values, indexed by byte."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a format, each byte of a field being one token; `quote` is -1 for none."""

    separators: bytes
    terminators: bytes
    """Bytes that end a terminator; \\n is here if \\r\\n is a terminator."""
    pair: bool
    """\\r\\n is one terminator."""
    lone: bool
    """\\n without \\r is a terminator."""
    quote: int
    quoted: bytes
    """The same as bytes, of which there are none for none."""
    escapes: bytes
    spaces: bytes
    """Space and tab where they are no tokens; if both are, a byte that stands for a byte order mark alone."""
    borrowed: bool
    """`spaces` is such a byte."""
    text: bytes
    """One byte that is no token."""
    after: Table = field(repr=False, compare=False)
    """Bytes after which a field begins."""
    blank: Table = field(repr=False, compare=False)
    """Spaces."""
    plain: Table = field(repr=False, compare=False)
    """Neither token nor space."""


@lru_cache(maxsize=64)
def tokens(form: Csv) -> Tokens | None:
    """The tokens in this form, or None if they do not fit it."""
    pair = b"\r\n" in form.terminators
    single = [token for token in form.terminators if token != b"\r\n"]
    escaping = escapes(form)
    others = (*form.separators, *form.quotes, *escaping)
    if len(form.quotes) > 1 or any(len(token) != 1 for token in (*single, *others)):
        return None
    if pair and (b"\r" in others or b"\n" in others):
        return None
    lone = b"\n" in single
    ends = b"".join(single) + (b"\n" if pair and not lone else b"")
    taken = {*ends, *b"".join(others)}
    spaces = bytes({*b" \t"} - taken)
    text, spare = [bytes([value]) for value in range(0x21, 0x80) if value not in taken][:2]
    separators = b"".join(form.separators)
    return Tokens(
        separators=separators,
        terminators=ends,
        pair=pair,
        lone=lone or not pair,
        quote=form.quotes[0][0] if form.quotes else -1,
        quoted=form.quotes[0] if form.quotes else b"",
        escapes=b"".join(escaping),
        spaces=spaces or spare,
        borrowed=not spaces,
        text=text,
        after=_table(separators + ends),
        blank=_table(spaces or spare),
        plain=~_table(bytes(taken) + (spaces or spare)),
    )


def _table(members: bytes) -> Table:
    table = np.zeros(256, np.bool_)
    table[list(members)] = True
    return table


def level_marks(form: Tokens, data: bytes) -> bytes:
    """`data` with byte order marks made spaces."""
    if form.borrowed:
        data = data.replace(form.spaces, form.text)
    if b"\xef" not in data:  # looking for one byte is much faster than looking for three
        return data
    return data.replace(BOM, form.spaces[:1] * len(BOM))


def level_escapes(form: Tokens, data: bytes, start: int, end: int) -> tuple[bytes, int]:
    """`data` with escapes, and what they escape, made text, from `start` on, which is not escaped.

    Returns also how many bytes beyond `end` the last escape that begins before it takes. `CONTEXT` bytes beyond
    `end` must be in `data`, if the source has them.
    """
    if not any(data.find(token, start, end) >= 0 for token in form.escapes):
        return data, 0
    single, double = _escaped(form.escapes)
    if form.pair and double.search(data, start, end + CONTEXT):
        return _level_one_by_one(form, data, start, end)
    body = single.sub(form.text * 2, data[start:end])
    beyond = int(body[-1] in form.escapes)  # all that have a byte behind them are gone
    if beyond:
        body = body[:-1] + form.text
    return data[:start] + body + data[end:], beyond


def _level_one_by_one(form: Tokens, data: bytes, start: int, end: int) -> tuple[bytes, int]:
    """`level_escapes` where an escape may take two bytes."""
    made, beyond, place = bytearray(data), 0, start
    while (place := _find(form.escapes, made, place, end)) >= 0:
        size = 3 if made.startswith(b"\r\n", place + 1) else 2
        stop = min(place + size, len(made))
        made[place:stop] = form.text * (stop - place)
        beyond, place = max(0, place + size - end), stop
    return bytes(made), beyond


def _find(members: bytes, data: bytearray, start: int, end: int) -> int:
    found = [place for value in members if (place := data.find(value, start, end)) >= 0]
    return min(found, default=-1)


@lru_cache(maxsize=64)
def _escaped(members: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """An escape with one byte, and what may be one that takes two."""
    escape = b"[" + re.escape(members) + b"]"
    return re.compile(escape + b".", re.DOTALL), re.compile(escape + b"\r\n")


def level_newlines(form: Tokens, data: bytes) -> bytes:
    """`data` with each LF that is no terminator for want of its CR made text."""
    if form.lone or data.count(b"\n") == data.count(b"\r\n"):
        return data
    return re.sub(rb"(?<!\r)\n", form.text, data)
