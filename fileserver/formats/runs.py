"""Runs of quotes and their neighbours, by numpy. Places are indices into the bytes given."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.intp]
Flags = NDArray[np.bool_]
NOWHERE: Final[Places] = np.empty(0, np.intp)
_STEPS: Final = 8  # spaces skipped one by one before all of them are looked for at once


def positions(data: Bytes, members: bytes) -> Places:
    """Where bytes of `members` stand, ascending."""
    if not members:
        return NOWHERE
    found = data == members[0]
    for value in members[1:]:
        found |= data == value
    return np.flatnonzero(found)


def runs(quotes: Places) -> tuple[Places, Places]:
    """First and last place of each maximal run of adjacent places."""
    if not quotes.size:
        return NOWHERE, NOWHERE
    breaks = np.flatnonzero(np.diff(quotes) != 1)
    if breaks.size == quotes.size - 1:
        return quotes, quotes
    first = quotes[np.concatenate(([0], breaks + 1))]
    last = quotes[np.concatenate((breaks, [quotes.size - 1]))]
    return first, last


def left_of(data: Bytes, places: Places, blank: Flags) -> Places:
    """For each place the nearest one before it whose byte is not blank; -1 for none."""
    return _skip(data, places - 1, blank, -1)


def right_of(data: Bytes, places: Places, blank: Flags) -> Places:
    """For each place the nearest one after it whose byte is not blank; the length of the data for none."""
    return _skip(data, places + 1, blank, 1)


def _skip(data: Bytes, places: Places, blank: Flags, step: int) -> Places:
    """`places` (changed in place), moved on while they stand on blanks; long stretches cost one look at all bytes."""
    moving = np.flatnonzero(_on_blank(data, places, blank))
    for _ in range(_STEPS):
        if not moving.size:
            return places
        places[moving] += step
        moving = moving[_on_blank(data, places[moving], blank)]
    if moving.size:
        solid = np.concatenate(([-1], np.flatnonzero(~blank[data]), [data.size]))
        side = np.searchsorted(solid, places[moving])
        places[moving] = solid[side if step > 0 else side - 1]
    return places


def _on_blank(data: Bytes, places: Places, blank: Flags) -> Flags:
    if not data.size:
        return np.zeros(places.size, np.bool_)
    inside: Flags = (places >= 0) & (places < data.size)
    found: Flags = blank[data.take(places, mode="clip")] & inside
    return found
