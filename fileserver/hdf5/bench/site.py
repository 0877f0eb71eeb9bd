"""Where a write test takes place: a dataset, and a table with one row a block by which the writers agree.

The table lies beside the dataset, on HSDS as in a file, so that writers who share nothing else find it. Both kinds of
site change rows in one way: those that match, in one go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fileserver.errors import InvalidSpec
from fileserver.hdf5.bench.field import Block, Field, Values, checked

DATA: Final = "data"
TABLE: Final = "blocks"
ATTRIBUTE: Final = "cropduster_bench"
"""Of the root group: what the test is, as JSON. It is made last, so who has it is whole."""
_VERSION: Final = 1

WRITER_LENGTH: Final = 64
ROW: Final = np.dtype(
    [
        ("block", "<i4"),
        ("state", "<i4"),
        ("claims", "<i4"),
        ("beat", "<i4"),
        ("start", "<f8"),
        ("seconds", "<f8"),
        ("writer", f"S{WRITER_LENGTH}"),
    ]
)
"""`claims` counts how often the block was taken, `beat` signs of life of who has it, `start` is seconds since 1970 by
the writer's clock, `seconds` how long the write took."""

Cell: TypeAlias = "int | float | str"
Match: TypeAlias = Mapping[str, Cell]
"""Values that fields of a row must have."""
Rows: TypeAlias = "npt.NDArray[np.void]"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, see ROW."""

    block: int
    state: State
    claims: int
    beat: int
    start: float
    seconds: float
    writer: str


class State(IntEnum):
    """Of a block."""

    PENDING = 0
    TAKEN = 1
    DONE = 2


class Site(Protocol):
    """A made write test, opened by one writer or by who looks at it."""

    @property
    def field(self) -> Field:
        """What is written."""
        ...

    async def change(self, match: Match, values: Match, *, most: int = 0) -> int:
        """Give all rows that match (the first `most` of them) these values; how many matched."""
        ...

    async def rows(self, match: Match | None = None) -> Rows:
        """The rows that match, of type ROW in order of the blocks; all of them for None."""
        ...

    async def write(self, block: Block, values: Values) -> None:
        """Write a block of the dataset; not stored yet."""
        ...

    async def flush(self) -> None:
        """Return once all that was written is stored."""
        ...

    async def aclose(self) -> None:
        """Release files and connections."""
        ...


def each(rows: Rows) -> Iterator[Row]:
    """The rows one by one."""
    for block, state, claims, beat, start, seconds, writer in rows.tolist():
        yield Row(block, State(state), claims, beat, start, seconds, writer.decode(errors="replace"))


def fresh(field: Field) -> Rows:
    """The table of a test that nobody has begun."""
    rows = np.zeros(field.blocks, ROW)
    rows["block"] = np.arange(field.blocks)
    return rows


def to_text(field: Field) -> str:
    """What the attribute holds."""
    return json.dumps(
        {
            "version": _VERSION,
            "rows": field.rows,
            "columns": field.columns,
            "chunk": field.chunk,
            "tasks": field.cut,
            "seed": field.seed,
        }
    )


def from_text(text: str, where: str) -> Field:
    """What the attribute says; raises InvalidSpec for another version's, or a stranger's."""
    try:
        found = json.loads(text)
        if found["version"] != _VERSION:
            msg = f"{where} is a write test of another version of Cropduster: make it anew with --overwrite"
            raise InvalidSpec(msg, {"target": msg})
        down, across = found["chunk"]
        return checked(found["rows"], found["columns"], (down, across), found["tasks"], found["seed"])
    except (ValueError, KeyError, TypeError):
        raise no_test(where) from None


def no_test(where: str) -> InvalidSpec:
    """The error of a domain or a file that is no write test."""
    msg = f"{where} is no write test, or is only half made: name one that `cropduster bench hsds create` has made"
    return InvalidSpec(msg, {"target": msg})
