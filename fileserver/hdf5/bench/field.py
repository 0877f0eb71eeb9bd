"""What is written: a dataset of f8 cut into blocks, and its values, which follow from seed, row and column. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fileserver.errors import InvalidSpec
from planes.plane import MIB

Cut: TypeAlias = Literal["block", "row", "column"]
Values: TypeAlias = npt.NDArray[np.float64]

DTYPE: Final = np.dtype("<f8")
MOST_BLOCKS: Final = 100_000
"""They are one table of one HDF5 chunk, which the server looks through at every claim."""
_LARGEST: Final = 64 * MIB
"""Bytes of a chunk and of a block: HSDS takes requests of at most 100 MiB, and holds some of them at once."""
_MOST: Final = 2**31 - 1  # rows or columns

# SplitMix64's constants (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of the dataset."""

    row: int
    column: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.columns * DTYPE.itemsize


@dataclass(frozen=True, slots=True)
class Field:
    """The dataset and how it is cut."""

    rows: int
    columns: int
    chunk: tuple[int, int]
    cut: Cut
    """`block` follows the chunks; `row` and `column` are bands of about a chunk's bytes, which cut through chunks,
    so that the server has to put what several writers send into one."""
    seed: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.columns * DTYPE.itemsize

    @property
    def step(self) -> tuple[int, int]:
        """Rows and columns of a block that touches no far edge."""
        area = self.chunk[0] * self.chunk[1]
        if self.cut == "row":
            return min(self.rows, max(1, area // self.columns)), self.columns
        if self.cut == "column":
            return self.rows, min(self.columns, max(1, area // self.rows))
        return self.chunk

    @property
    def blocks(self) -> int:
        """How many."""
        down, across = self.step
        return -(-self.rows // down) * -(-self.columns // across)

    def block(self, number: int) -> Block:
        """A block by its number, row by row from 0."""
        down, across = self.step
        i, j = divmod(number, -(-self.columns // across))
        row, column = i * down, j * across
        return Block(row, column, min(down, self.rows - row), min(across, self.columns - column))

    def values(self, block: Block) -> Values:
        """What belongs there, in [0, 1): a hash of seed, row and column, so that no two places are alike."""
        rows = np.arange(block.row, block.row + block.rows, dtype=np.uint64)[:, None]
        columns = np.arange(block.column, block.column + block.columns, dtype=np.uint64)[None, :]
        start = _mixed(np.asarray([self.seed], np.uint64))
        mixed = _mixed(start + (rows << np.uint64(32) | columns))
        return ((mixed >> np.uint64(11)) * 2.0**-53).astype(DTYPE, copy=False)


def _mixed(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = state * _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def checked(rows: int, columns: int, chunk: tuple[int, int], cut: Cut, seed: int) -> Field:
    """A field that can be made; a chunk beyond the dataset is cut to it.

    Raises:
        InvalidSpec: an extent, a chunk or a block that is too small or too large, all said at once.
    """
    wrong = {}
    for name, extent in (("rows", rows), ("columns", columns)):
        if not 1 <= extent <= _MOST:
            wrong[name] = f"{extent} is not between 1 and {_MOST}"
    if min(chunk) < 1:
        wrong["chunk"] = "a chunk has one row and one column at least, like 500x1000"
    if not 0 <= seed < 2**63:
        wrong["seed"] = f"{seed} is not between 0 and 2^63-1"
    if not wrong:
        made = Field(rows, columns, (min(chunk[0], rows), min(chunk[1], columns)), cut, seed)
        if made.chunk[0] * made.chunk[1] * DTYPE.itemsize > _LARGEST:
            wrong["chunk"] = f"{chunk[0]}x{chunk[1]} of f8 is more than 64 MiB, which HSDS does not take: smaller ones"
        elif made.block(0).size > _LARGEST:
            wrong["tasks"] = f"one {cut} is more than 64 MiB, which HSDS does not take in one request: use block"
        elif made.blocks > MOST_BLOCKS:
            wrong["chunk"] = f"{made.blocks} blocks are more than {MOST_BLOCKS}: use larger chunks"
        else:
            return made
    raise InvalidSpec("; ".join(f"{name}: {why}" for name, why in wrong.items()), wrong)
