"""Which bytes of a block are inside quotes, by numpy on runs of quotes: slower than `parity`, for any data.

A maximal run of k quotes, whose left neighbour (space and tab skipped) says whether it *opens* a field, acts on the
state before it in one of three ways.

| | k odd | k even |
| --- | --- | --- |
| opens | inside ⇄ outside | as it was |
| does not | outside, whatever was before | as it was |

So the state behind each run is the parity of the opening odd runs since the last odd run that does not open, and
numpy finds it for all runs at once.
"""

from __future__ import annotations

import numpy as np

from fileserver.formats.level import Tokens
from fileserver.formats.runs import Bytes, Flags, Places, left_of, positions, runs


class Turns:
    """The state behind each byte of a block, for both states before its first.

    The block does not begin with a quote, nor with spaces before one.
    """

    def __init__(self, simple: Tokens, data: Bytes) -> None:
        first, last = runs(positions(data, simple.quoted))
        odd = (last - first) & 1 == 0
        self._places = first[odd]
        left = left_of(data, self._places, simple.blank)
        opens = (left >= 0) & simple.after[data.take(left, mode="clip")]
        count = np.cumsum(opens)
        base = np.maximum.accumulate(np.where(opens, 0, count)) if count.size else count
        outside = (count - base) & 1
        resets = np.flatnonzero(~opens)
        inside = outside.copy()
        inside[: resets[0] if resets.size else None] ^= 1
        self._behind = np.concatenate(([0], outside)), np.concatenate(([1], inside))

    def inside(self, entry: int, places: Places) -> Flags:
        """Whether the byte behind each place is inside quotes, if the block's first byte is (`entry` 1) or not (0)."""
        inside: Flags = self._behind[entry][np.searchsorted(self._places, places, side="right")] == 1
        return inside
