"""Which bytes of a block are inside quotes, by numpy on words of 64 bytes a bit each.

In ordinary data the parity of the quotes so far says it. It is wrong from the first run of quotes on that should
open a field and cannot: outside, of odd length, and not first in its field. There the other parity takes over (a
*flip*). So both states at the start of a block cost one pass, and a flip or two for the wrong one of them. Where
flips are frequent, `turns` is faster.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fileserver.formats.level import Tokens
from fileserver.formats.runs import Bytes, Flags, Places

Words = NDArray[np.uint64]
"""A bit for each byte of a block, the first byte being the lowest bit of the first word."""

_SPACES: Final = 64  # more spaces than this before a quote are left to `turns`
_FLIPS: Final = 64
_ONE: Final = np.uint64(1)
_TOP: Final = np.uint64(63)
_ALL: Final = np.uint64(2**64 - 1)


class Parity:
    """The state behind each byte of a block, for both states before its first."""

    def __init__(self, quoted: Words, flips: tuple[Places, Places]) -> None:
        self._bytes = quoted.view(np.uint8)
        self._flips = flips

    def inside(self, entry: int, places: Places) -> Flags:
        """Whether the byte behind each place is inside quotes, if the block's first byte is (`entry` 1) or not (0)."""
        found = self._bytes[places >> 3] >> (places & 7).astype(np.uint8) & 1
        flips = self._flips[entry]
        if flips.size:
            found = found ^ (np.searchsorted(flips, places, side="right") & 1).astype(np.uint8)
        inside: Flags = found != entry
        return inside


def parity(simple: Tokens, data: Bytes, level: bytes, begin: int) -> Parity | None:
    """The states of a block, `data`, which is `level` from `begin` on; None if that is a case for `turns`.

    The block does not begin with a quote, nor with spaces before one.
    """
    is_quote = data == simple.quote
    quotes = _words(is_quote)
    quoted = _prefix_parity(quotes)
    opening = _after_blanks(_shifted(_words(_any(data, simple.separators + simple.terminators))), simple, data)
    if opening is None:
        return None
    wrong = quotes & ~_shifted(quotes) & ~opening
    doubtful = (wrong & quoted, wrong & ~quoted)
    flips = [_flips(doubtful, entry, simple, level, begin, begin + data.size) for entry in (0, 1)]
    if flips[0] is None or flips[1] is None:
        return None
    return Parity(quoted, (flips[0], flips[1]))


def _any(data: Bytes, members: bytes) -> Flags:
    found: Flags = data == members[0]
    for value in members[1:]:
        found |= data == value
    return found


def _words(flags: Flags) -> Words:
    packed = np.zeros(-(-flags.size // 64) * 8, np.uint8)
    bits = np.packbits(flags, bitorder="little")
    packed[: bits.size] = bits
    return packed.view("<u8")


def _shifted(words: Words) -> Words:
    """The bits moved to the next byte."""
    moved = words << _ONE
    moved[1:] |= words[:-1] >> _TOP
    return moved


def _prefix_parity(words: Words) -> Words:
    """Each bit the parity of all bits up to it."""
    made = words.copy()
    for step in (1, 2, 4, 8, 16, 32):
        made ^= made << np.uint64(step)
    carry = np.bitwise_xor.accumulate(made >> _TOP)
    made[1:] ^= carry[:-1] * _ALL
    return made


def _after_blanks(behind: Words, simple: Tokens, data: Bytes) -> Words | None:
    """The bits of `behind`, carried on over spaces; None if there are too many of them."""
    blank = _words(_any(data, simple.spaces))
    more = behind & blank
    for _ in range(_SPACES):
        if not more.any():
            return behind
        more = _shifted(more)
        behind |= more
        more &= blank
    return None


def _flips(
    doubtful: tuple[Words, Words], entry: int, simple: Tokens, level: bytes, begin: int, end: int
) -> Places | None:
    """Where the other parity takes over, if the block begins in state `entry`; None if that is often."""
    run = re.compile(re.escape(simple.quoted) + b"+")
    flips: list[int] = []
    place, parity_of = -1, entry
    for _ in range(_FLIPS):
        place = _next(doubtful[parity_of], place + 1)
        if place < 0:
            return np.array(flips, np.intp)
        found = run.match(level, begin + place, end)
        if found and len(found[0]) & 1:
            flips.append(place)
            parity_of ^= 1
    return None


def _next(words: Words, place: int) -> int:
    """The first bit that is set at or behind `place`, -1 for none."""
    index, bit = place >> 6, place & 63
    if index >= words.size:
        return -1
    word = int(words[index]) >> bit << bit
    if not word:
        later = words[index + 1 :] != 0
        if not later.any():
            return -1
        index += 1 + int(later.argmax())
        word = int(words[index])
    return (index << 6) + (word & -word).bit_length() - 1
