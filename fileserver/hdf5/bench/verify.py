"""What users read of a write test, compared with what belongs there: through h5pyd, or h5py for a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from fileserver.hdf5.bench.field import Block, Field, Values
from fileserver.hdf5.bench.site import DATA
from fileserver.hdf5.hsds.settings import HsdsSettings
from planes.errors import Refused


@dataclass(frozen=True, slots=True)
class Difference:
    """A block that is not what it must be."""

    number: int
    row: int
    column: int
    """The first place that differs."""
    expected: float
    found: float


class _Dataset(Protocol):
    def __getitem__(self, place: tuple[slice, slice]) -> Values: ...


async def compare_file(path: Path, field: Field, blocks: Sequence[int]) -> list[Difference]:
    """Read blocks of a file and compare them.

    Raises:
        Refused: the file cannot be read.
    """

    @contextmanager
    def opened() -> Iterator[_Dataset]:
        with h5py.File(path) as file:
            yield file[DATA]

    return await asyncio.to_thread(_compare, opened(), field, blocks)


async def compare_domain(settings: HsdsSettings, path: str, field: Field, blocks: Sequence[int]) -> list[Difference]:
    """Read blocks of a domain as users do and compare them.

    Raises:
        Refused: h5pyd is not installed, or cannot read the domain.
    """

    @contextmanager
    def opened() -> Iterator[_Dataset]:
        import h5pyd  # noqa: PLC0415 - it loads much that only this needs

        who = {"username": settings.username or None, "bucket": settings.bucket or None}
        secret = {
            "password": settings.password.resolve() if settings.password else None,
            "api_key": settings.token.resolve() if settings.token else None,
        }
        with h5pyd.File(path, "r", endpoint=settings.endpoint, **who, **secret) as file:
            yield file[DATA]

    return await asyncio.to_thread(_compare, opened(), field, blocks)


def _compare(opened: AbstractContextManager[_Dataset], field: Field, blocks: Sequence[int]) -> list[Difference]:
    found = []
    try:
        with opened as data:
            for number in blocks:
                block = field.block(number)
                if difference := _first(number, block, field.values(block), data):
                    found.append(difference)
    except OSError as error:
        msg = f"the data cannot be read back: {error.strerror or error}"
        raise Refused(msg) from error
    return found


def _first(number: int, block: Block, expected: Values, data: _Dataset) -> Difference | None:
    read = data[block.row : block.row + block.rows, block.column : block.column + block.columns]
    if np.array_equal(read, expected):
        return None
    i, j = (int(at[0]) for at in np.nonzero(read != expected))
    return Difference(number, block.row + i, block.column + j, float(expected[i, j]), float(read[i, j]))
