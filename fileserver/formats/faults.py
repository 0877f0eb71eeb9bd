"""What can be wrong with data of a format. The caller knows which object it is and says so in its own error."""

from __future__ import annotations

from typing import Final

_REACH: Final = 30  # bytes shown on each side of the place


class Fault(Exception):
    """The data is not what its format says.

    Args:
        why: what is wrong, without the place.
        offset: the byte of the source where it shows.
        record: 1-based number of the record in the source, 0 where it is not known.
        hint: the option to try.
    """

    def __init__(self, why: str, offset: int, *, record: int = 0, hint: str = "", around: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.offset = offset
        self.record = record
        self.hint = hint
        self.around = around
        """Two lines, the bytes around the offset and a caret below; empty where the bytes were not at hand."""


class TooLong(Fault):
    """No record ends within the limit."""


class Mismatch(Fault):
    """Tokens or sizes contradict the data."""


def counted(number: int, noun: str) -> str:
    """`1 byte`, `155 bytes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def excerpt(data: bytes, at: int) -> str:
    """About 60 characters around `data[at]` and a caret below that byte.

    Control characters are shown by their pictures and what is not ASCII as a dot, so that a byte is one column.
    """
    start, end = max(0, at - _REACH), min(len(data), at + _REACH)
    shown = "".join(_picture(value) for value in data[start:end])
    return f"{shown}\n{' ' * (at - start)}^"


def _picture(value: int) -> str:
    if value < 0x20:
        return chr(0x2400 + value)
    return chr(value) if value < 0x7F else "·"
