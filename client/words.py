"""The grammar of the command line: places, sizes, counts, tokens and formats. Pure; asks no server and no disk.

Every function raises `WordError` with one sentence that says what the word should have looked like, so that a
command can collect the sentences of all its words and show them at once.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Final

LOCAL: Final = "local"
"""The plane of the caller's own machine; its keys are absolute paths."""

STDIN: Final = "standard input"
"""What messages call it."""

LARGEST: Final = 2**63 - 1
"""Sizes travel as int64."""

MOST_PARTS: Final = 2**31 - 1
"""Counts travel as int32."""

FORMATS: Final = "'fixed:N' (records of N bytes each, like fixed:155) or 'csv' (delimited text)"
"""The formats there are, for messages and help."""

LOAD_MODES: Final = ("auto", "direct", "rest", "link")
"""How data of HDF5 files can travel to HSDS."""

_UNITS: Final = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for ending, base in (("b", 1000), ("ib", 1024))
}
_SIZE: Final = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?) ?([a-zA-Z]{0,3})")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)?")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", ",": ","}
_WRITTEN: Final = {byte: f"\\{letter}" for letter, text in _ESCAPES.items() for byte in text.encode()}


class WordError(ValueError):
    """A word of the command line that cannot be understood; the message says what it should look like."""


@dataclass(frozen=True, slots=True)
class Location:
    """An object, or as a source a wildcard: plane and key; for the plane `local` the key is an absolute path."""

    plane: str
    key: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """Records of one length in bytes."""

    record_size: int


@dataclass(frozen=True, slots=True)
class Csv:
    """Delimited text. Empty tuples and 0 leave the choice to the server; `quotes` None says that nothing quotes."""

    separators: tuple[bytes, ...] = ()
    terminators: tuple[bytes, ...] = ()
    quotes: tuple[bytes, ...] | None = ()
    escapes: tuple[bytes, ...] = ()
    max_record: int = 0
    split: str = ""
    """"deduce", "exact", "terminator" or empty."""


Format = Fixed | Csv


class Kind(Enum):
    """What a word can be before anybody is asked which planes there are."""

    STREAM = "-"
    LOCAL = "local"
    LOGICAL = "logical"
    MAYBE_PLANE = "maybe plane"


def kind_of(word: str) -> Kind:
    """What a word is by its looks alone: `-`, a path, `scope::name`, or perhaps `plane:key`."""
    if word == "-":
        return Kind.STREAM
    head, colon, tail = word.partition(":")
    if not colon or not head or word.startswith((".", "/")) or "/" in head:
        return Kind.LOCAL
    return Kind.LOGICAL if tail.startswith(":") else Kind.MAYBE_PLANE


def check_text(word: str) -> None:
    """Names and paths travel as UTF-8.

    Raises:
        WordError: the shell gave us bytes that are none.
    """
    try:
        word.encode()
    except UnicodeEncodeError:
        shown = _bytes(word).decode("utf-8", "backslashreplace")
        msg = f"'{shown}' is not valid UTF-8: names and paths must be, so rename it first"
        raise WordError(msg) from None


def is_descriptor(word: str) -> bool:
    """Whether a path means an open file of the process that asks: another one's, where a server asks for it."""
    path = posixpath.normpath(word)
    streams = {"/dev/stdin", "/dev/stdout", "/dev/stderr"}
    return path in streams or path.startswith(("/dev/fd/", "/proc/self/", "/proc/thread-self/"))


def split_plane(word: str) -> Location:
    """The two halves of `plane:key`."""
    plane, _, key = word.partition(":")
    return Location(plane, key)


def parse_count(text: str) -> int:
    """A number of things from 1 on.

    Raises:
        WordError: it is no whole number, or out of range.
    """
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= MOST_PARTS:
        msg = f"'{text}' is not a whole number between 1 and {MOST_PARTS}"
        raise WordError(msg)
    return int(text)


def parse_size(text: str) -> int:
    """Bytes from `4096`, `10MB` (10^6), `256MiB` (2^20), `1.5GiB`; at least 1.

    Raises:
        WordError: it is no size, no whole number of bytes, or beyond int64.
    """
    found = _SIZE.fullmatch(text.strip())
    factor = _UNITS.get(found[2].lower()) if found else None
    if found is None or factor is None:
        msg = f"'{text}' is not a size: write bytes (4096), or a number with KB, MB, GB, TB, KiB, MiB, GiB or TiB"
        raise WordError(msg)
    size = Decimal(found[1]) * factor
    if size != size.to_integral_value() or not 1 <= size <= LARGEST:
        msg = f"'{text}' is {size:f} bytes: it must be a whole number of bytes, from 1 to {LARGEST}"
        raise WordError(msg)
    return int(size)


def parse_seconds(text: str) -> float:
    """Seconds from `500ms`, `30s`, `5m`, `1.5h`, `1d`, or a bare number.

    Raises:
        WordError: it is no duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        msg = f"'{text}' is not a duration: write a number with ms, s, m, h or d, like 30s"
        raise WordError(msg)
    return float(found[1]) * _SECONDS[found[2] or "s"]


def parse_tokens(text: str) -> tuple[bytes, ...]:
    r"""The alternatives of a token option, in the order given; an empty text is no token.

    One character is itself. In longer values commas separate alternatives, `\,` is a comma, and `\n \r \t \\ \xHH`
    are understood. Characters beyond ASCII become their UTF-8 bytes.

    Raises:
        WordError: an alternative is empty, or a backslash stands before something else.
    """
    if len(text) <= 1:
        return (_bytes(text),) if text else ()
    tokens: list[bytes] = []
    current = bytearray()
    position = 0
    while position <= len(text):
        letter = text[position : position + 1]
        if letter in {"", ","}:
            if not current:
                msg = f"'{text}' holds an empty alternative: commas separate alternatives, \\, is a comma itself"
                raise WordError(msg)
            tokens.append(bytes(current))
            current.clear()
            position += 1
        elif letter == "\\":
            piece, position = _escape(text, position)
            current += piece
        else:
            current += _bytes(letter)
            position += 1
    return tuple(dict.fromkeys(tokens))


def _bytes(text: str) -> bytes:
    """The bytes that the shell gave us for this text, also where they are no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _escape(text: str, position: int) -> tuple[bytes, int]:
    """The byte that the backslash at `position` stands for, and the position after it."""
    letter = text[position + 1 : position + 2]
    if letter and letter in _ESCAPES:
        return _ESCAPES[letter].encode(), position + 2
    digits = text[position + 2 : position + 4]
    if letter == "x" and re.fullmatch(r"[0-9a-fA-F]{2}", digits):
        return bytes([int(digits, 16)]), position + 4
    msg = f"'{text}' has '\\{letter}', which means nothing: use \\n, \\r, \\t, \\\\, \\, or \\xHH"
    raise WordError(msg)


def write_tokens(tokens: Sequence[bytes]) -> str:
    r"""The text of which `parse_tokens` makes these tokens again; what is no printable ASCII is written as `\xHH`."""
    return ",".join("".join(_written(byte) for byte in token) for token in tokens)


def _written(byte: int) -> str:
    if byte in _WRITTEN:
        return _WRITTEN[byte]
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


def parse_format(text: str) -> Format:
    """The format that `fixed:N` or `csv` names; tokens are left to the server.

    Raises:
        WordError: it is neither; the sentence lists the formats.
    """
    name, _, rest = text.partition(":")
    if name == "csv" and text == "csv":
        return Csv()
    if name == "fixed":
        if re.fullmatch(r"[0-9]{1,19}", rest) and 1 <= int(rest) <= LARGEST:
            return Fixed(int(rest))
        msg = f"'{text}' does not say the length of a record: write fixed:155 for records of 155 bytes"
        raise WordError(msg)
    msg = f"'{text}' is not a format: there is {FORMATS}"
    raise WordError(msg)


def format_of_names(names: Iterable[str]) -> Csv | None:
    """The format that the endings of all names agree on: csv for .csv, csv with tabs for .tsv, else None."""
    endings = {name.lower().rpartition(".")[2] if "." in name else "" for name in names}
    if endings == {"csv"}:
        return Csv()
    return Csv(separators=(b"\t",)) if endings == {"tsv"} else None
