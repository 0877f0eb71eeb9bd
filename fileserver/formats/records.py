"""Records one by one from the beginning of a source, and what else is told from bytes as they pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from typing_extensions import Buffer

from fileserver.formats import csv, fixed
from fileserver.formats.csv import BOM, Csv
from fileserver.formats.faults import Mismatch, TooLong, excerpt
from fileserver.formats.fixed import Fixed
from fileserver.formats.grammar import Grammar

LOOK: Final = 4096
"""How many bytes of the start of a source `look` wants."""


class Reader:
    """Cuts a source into records as its bytes arrive; a record has its terminator.

    Raises, as do its methods:
        TooLong: no record ends within `max_record` bytes.
        Mismatch: the source ends inside a record of fixed length.
    """

    def __init__(self, form: Fixed | Csv) -> None:
        self._form = csv.unquoted(form) if isinstance(form, Csv) and form.split == "terminator" else form
        self._grammar = Grammar(self._form) if isinstance(self._form, Csv) else None
        self._left = b""
        self._offset = 0
        self._number = 1
        self._worth = 0

    def feed(self, data: Buffer) -> Iterator[bytes]:
        """The records that end in the next bytes of the source."""
        self._left += bytes(data)
        if len(self._left) >= self._worth:
            yield from self._cut(last=False)

    def close(self) -> Iterator[bytes]:
        """The rest, when the source has ended."""
        yield from self._cut(last=True)
        if self._left:
            if isinstance(self._form, Fixed):
                fixed.check(self._form, self._offset + len(self._left))
            yield self._left

    def _cut(self, *, last: bool) -> Iterator[bytes]:
        place = 0
        while (end := self._end(place, last=last)) is not None:
            yield self._left[place:end]
            self._number += 1
            place = end
        self._left, self._offset = self._left[place:], self._offset + place
        # An open record is looked at again only when there is twice as much of it.
        self._worth = 2 * len(self._left) if isinstance(self._form, Csv) else 0

    def _end(self, place: int, *, last: bool) -> int | None:
        form, rest = self._form, len(self._left) - place
        if isinstance(form, Fixed):
            return place + form.record_size if rest >= form.record_size else None
        assert self._grammar is not None
        end = self._grammar.end(self._left, place, last=last)
        if end is None and rest > form.max_record + (0 if last else self._grammar.reach):
            why = f"a record that begins here does not end within {form.max_record} bytes"
            hint = "raise --max-record, or check --quote and --terminator"
            around = excerpt(self._left[place : place + LOOK], 0)
            raise TooLong(why, self._offset + place, record=self._number, hint=hint, around=around)
        return end


def records(form: Fixed | Csv, buffers: Iterable[Buffer]) -> Iterator[bytes]:
    """The records of a source whose bytes, from its beginning to its end, are `buffers`; raises as `Reader`."""
    reader = Reader(form)
    for buffer in buffers:
        yield from reader.feed(buffer)
    yield from reader.close()


def count_quotes(form: Csv, data: Buffer) -> int:
    """How many quotes of one byte `data` holds; adds up over buffers, and is odd for a part that cuts a field."""
    view = np.frombuffer(memoryview(data), np.uint8)
    return sum(int(np.count_nonzero(view == quote[0])) for quote in form.quotes if len(quote) == 1)


def look(form: Csv, head: bytes) -> None:
    """Raise Mismatch if the first `LOOK` bytes of a source do not look like an ASCII-compatible encoding."""
    tokens = (*form.separators, *form.terminators, *form.quotes, *form.escapes)
    at = -1 if any(b"\0" in token for token in tokens) else head[:LOOK].find(b"\0")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        at = 0
    if at < 0:
        return
    why = "this looks like UTF-16 (a byte order mark of it, or a NUL byte)"
    hint = "convert it to UTF-8 first: iconv -f UTF-16 -t UTF-8 OLD > NEW"
    raise Mismatch(why, at, hint=hint, around=excerpt(head, at))


def terminated(form: Csv, tail: bytes, *, whole: bool) -> bool | None:
    """Whether a source that ends with `tail` ends with a terminator; None if a longer tail is needed to tell.

    `whole` says that `tail` is the whole source. A source without any record (empty, or a byte order mark alone)
    lacks no terminator: True. Quotes are not looked at: a source that ends inside quotes is broken in any case.
    """
    if whole and tail in {b"", BOM}:
        return True
    ends = [token for token in form.terminators if tail.endswith(token)]
    if not ends:
        return False if whole or len(tail) >= max(map(len, form.terminators)) else None
    rest = tail[: -max(map(len, ends))]
    escaped = False
    escapes = csv.escapes(form)
    while token := next((some for some in escapes if rest.endswith(some)), None):
        rest, escaped = rest[: -len(token)], not escaped
    undecided = bool(escapes) and not rest and not whole
    return None if undecided else not escaped
