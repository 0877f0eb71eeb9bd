"""What bytes tell of their records as they pass: quotes, encoding, a last terminator. Finds no split point."""

from __future__ import annotations

from typing import Final

import numpy as np
from typing_extensions import Buffer

from fileserver.formats import csv
from fileserver.formats.csv import BOM, Csv
from fileserver.formats.faults import Mismatch, excerpt

LOOK: Final = 4096
"""How many bytes of the start of a source `look` wants."""


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
