"""Data of small datasets, decoded together: a trip to the thread of a file costs more than what it fetches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import h5py

from fileserver.hdf5 import stretches
from fileserver.hdf5.model import Facts, Node
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.stretches import Block
from fileserver.hdf5.typing_rules import NotHeld
from planes.plane import MIB

MOST: Final = 1 * MIB
"""Bytes that are held at once."""

Wanted: TypeAlias = tuple[Node, Facts, Callable[[], Iterable[Block]]]
Held: TypeAlias = dict[int, list[tuple[Block, bytes]]]
"""Blocks with their bytes, by the address of their dataset."""


def fits(facts: Facts) -> bool:
    """Whether all data of a dataset may be at hand: they lie in the file itself, and their size is known."""
    return facts.layout != "external" and not facts.sources and size(facts) <= MOST


def size(facts: Facts) -> int:
    """Bytes of the data of a dataset; more than any, if that cannot be known."""
    if facts.item is None:
        return MOST + 1
    found = facts.item
    for extent in facts.dims or ():
        found *= extent
    return found


def decoded(file: h5py.File, wanted: Iterable[Wanted], ids: Mapping[int, str]) -> Held:
    """The data of those datasets that can be read, as long as there is room, in the thread of the file.

    What cannot be read is left out: whoever asks for it alone is told why.
    """
    found: Held = {}
    left = MOST
    for node, facts, blocks in wanted:
        left -= size(facts)
        if left < 0:
            break
        try:
            found[node.address] = [(each, stretches.decoded(file, node, facts, each, ids)) for each in blocks()]
        except (NotHeld, *BROKEN):
            continue
    return found
