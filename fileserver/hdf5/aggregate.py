"""Many files into one dataset along one dimension: which chunks are taken as they are, and which are put together.

Members lie one behind the other in the order in which they are given. Where a chunk of the whole is just one chunk of
a member, its bytes can be placed without decoding them; where it begins or ends inside of one, it is put together from
parts of members. Members that come later begin behind those that are there, and the chunk that was the last one is
made anew if it was not full.

Only arithmetic: a row is all chunks that have the same place along the dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fileserver.hdf5.model import Facts


@dataclass(frozen=True, slots=True)
class Member:
    """One file's dataset: its extent along the dimension, and whether its chunks can be placed as they are."""

    extent: int
    placeable: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """Row `row` of the whole is row `source_row` of a member."""

    row: int
    member: int
    source_row: int


@dataclass(frozen=True, slots=True)
class Part:
    """Elements [start, stop) of a member along the dimension, which begin `at` elements into the row."""

    member: int
    start: int
    stop: int
    at: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A row that is put together from parts of members; what they do not reach is beyond the end of the whole."""

    row: int
    parts: tuple[Part, ...]


Row: TypeAlias = Placed | Cut


def rows(members: Sequence[Member], chunk: int, there: int = 0) -> Iterator[Row]:
    """The rows to be written, in order.

    Args:
        members: all, those that are there already among them.
        chunk: extent of a chunk of the whole along the dimension, in elements.
        there: so many of the members are in the whole already; rows that they filled are left out.

    Raises:
        ValueError: the chunk has no extent.
    """
    if chunk < 1:
        msg = f"a chunk of {chunk} elements along the dimension"
        raise ValueError(msg)
    starts = offsets(members)
    first = starts[there] // chunk  # the row that members which are there did not fill, or the first new one
    number = 0
    for row in range(first, -(-starts[-1] // chunk)):
        low, high = row * chunk, min((row + 1) * chunk, starts[-1])
        while starts[number + 1] <= low:
            number += 1
        yield _row(members, starts, chunk, row, number, low, high)


def offsets(members: Sequence[Member]) -> list[int]:
    """Where each member begins along the dimension, and at last where the whole ends."""
    found = [0]
    for member in members:
        found.append(found[-1] + member.extent)
    return found


def agrees(first: Facts, other: Facts, axis: int) -> str:
    """Why a dataset cannot continue another one along `axis`; empty if it can."""
    if first.dims is None or other.dims is None or not 0 <= axis < len(first.dims):
        return f"it has no dimension {axis}"
    if first.typed.stored != other.typed.stored:
        return "its elements are of another type"
    if len(first.dims) != len(other.dims):
        return f"it has {len(other.dims)} dimensions, not {len(first.dims)}"
    for i, (a, b) in enumerate(zip(first.dims, other.dims, strict=True)):
        if i != axis and a != b:
            return f"its dimension {i} has {b} elements, not {a}"
    if (first.fill, first.fill_unheld) != (other.fill, other.fill_unheld):
        return "it has another fill value"
    return ""


def _row(
    members: Sequence[Member], starts: Sequence[int], chunk: int, row: int, number: int, low: int, high: int
) -> Row:
    """The row of elements [low, high), which begins in member `number`."""
    inside = low - starts[number]
    if members[number].placeable and inside % chunk == 0 and high <= starts[number + 1]:
        return Placed(row, number, inside // chunk)
    parts = []
    for i in range(number, len(members)):
        if starts[i] >= high:
            break
        begin, end = max(low, starts[i]), min(high, starts[i + 1])
        if begin < end:
            parts.append(Part(i, begin - starts[i], end - starts[i], begin - low))
    return Cut(row, tuple(parts))
