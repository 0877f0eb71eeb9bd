"""The first records of a stream of bytes. Pure; a scan from the start, so it is exact whatever the data holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum

from fileserver.v1 import transfer_pb2 as wire

_BLANK = re.compile(rb"(?:[ \t]|\xef\xbb\xbf)*")


def first_records(pieces: Iterable[bytes], record: wire.Format, count: int) -> Iterator[bytes]:
    """The first `count` records, each with its terminator as it stands in the data.

    Args:
        pieces: the data from its start, cut anywhere; no more of it is asked for than needed.
        record: how records are told apart; unset tokens are the defaults of csv.
        count: records at most.

    Raises:
        ValueError: the format is not set.
    """
    match record.WhichOneof("kind"):
        case "fixed":
            yield from _fixed(pieces, record.fixed.record_size, count)
        case "csv":
            yield from _csv(pieces, record.csv, count)
        case _:
            msg = "the format of the file is not known"
            raise ValueError(msg)


def _fixed(pieces: Iterable[bytes], length: int, count: int) -> Iterator[bytes]:
    held = b""
    given = 0
    for piece in pieces:
        held += piece
        start = 0
        while given < count and len(held) - start >= length:
            yield held[start : start + length]
            start += length
            given += 1
        if given >= count:
            return
        held = held[start:]
    if held:
        yield held


def _csv(pieces: Iterable[bytes], csv: wire.Csv, count: int) -> Iterator[bytes]:
    scanner = _Scanner(csv)
    held = b""
    given = 0
    for piece in pieces:
        held += piece
        start = 0
        for end in scanner.ends(held, last=False):
            yield held[start:end]
            start = end
            given += 1
            if given >= count:
                return
        held = held[start:]
        scanner.forget(start)
    start = 0
    for end in scanner.ends(held, last=True):
        yield held[start:end]
        start = end
        given += 1
        if given >= count:
            return
    if held[start:]:
        yield held[start:]


class _In(Enum):
    """Where the scan stands."""

    START = "before a field"
    FIELD = "in an unquoted field"
    QUOTED = "between quotes"
    CLOSED = "right after a closing quote"


class _Scanner:
    """Finds the ends of records by the rules of the server's formats.

    At each position the longest token counts. A quote opens as the first thing of a field that is not blank, the
    same quote closes, doubled inside quotes it is data, and so it is anywhere else. An escape takes the next token
    or byte as data. A byte order mark is blank.
    """

    def __init__(self, csv: wire.Csv) -> None:
        separators = csv.separators or (b",",)
        self._terminators = frozenset(csv.terminators or (b"\n", b"\r\n"))
        self._quotes = frozenset(() if csv.no_quote else csv.quotes or (b'"',))
        self._escapes = frozenset(csv.escapes) - self._quotes
        tokens = {*separators, *self._terminators, *self._quotes, *self._escapes}
        longest_first = sorted(tokens, key=lambda token: (-len(token), token))
        self._token = re.compile(b"|".join(map(re.escape, longest_first)))
        self._longest = max(map(len, tokens))
        self._state = _In.START
        self._open = b""  # the quote that opened the field
        self._text = 0  # where the bytes after the last token begin
        self._position = 0  # no token begins between there and here

    def forget(self, size: int) -> None:
        """The first `size` bytes of what was scanned are gone."""
        self._text -= size
        self._position -= size

    def ends(self, held: bytes, *, last: bool) -> Iterator[int]:
        """Positions in `held` after each terminator from where the scan stands; `last` says that no more follows."""
        # A longer token may begin where a shorter one matches, so the last bytes wait for what follows them. Two
        # lengths, because an escape takes the token after it.
        edge = len(held) if last else len(held) - 2 * self._longest
        while self._position < edge:
            found = self._token.search(held, self._position)
            if found is None or found.start() >= edge:
                self._position = edge
                return
            self._meet_text(held[self._text : found.start()])
            self._position = found.end()
            ended = self._meet(found[0], held)
            self._text = self._position
            if ended:
                yield self._position

    def _meet_text(self, between: bytes) -> None:
        """Bytes that are no token: they begin a field unless they are blank; after a closing quote all do."""
        if between and (self._state is _In.CLOSED or (self._state is _In.START and not _BLANK.fullmatch(between))):
            self._state = _In.FIELD

    def _meet(self, token: bytes, held: bytes) -> bool:
        """A token that ends at the position; True if it ends a record."""
        if token in self._escapes:
            following = self._token.match(held, self._position)
            self._position = following.end() if following else min(self._position + 1, len(held))
            self._state = _In.QUOTED if self._state is _In.QUOTED else _In.FIELD
        elif self._state is _In.QUOTED:
            if token == self._open:
                self._state = _In.CLOSED
        elif token in self._quotes:
            if self._state is _In.START:
                self._state, self._open = _In.QUOTED, token
            elif self._state is _In.CLOSED and token == self._open:
                self._state = _In.QUOTED
            else:
                self._state = _In.FIELD
        else:
            self._state = _In.START
            return token in self._terminators
        return False
