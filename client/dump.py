"""An inventory as CSV or as an HDF5 file, row by row; its columns are those of the table that is mirrored into HSDS."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

from client.errors import Code, Reason, ServerError
from client.landing import seconds, state
from fileserver.v1.landing_pb2 import Arrival

COLUMNS: Final = (
    "filename",
    "loadstart",
    "loaddone",
    "loadstatus",
    "size",
    "tries",
    "loadpodname",
    "state",
    "version",
    "error",
)
"""Those of hsds-bucket-loader and more: times in seconds since 1970 (0: not yet), status -1 runs, 0 well, 1 failed."""

_NUMBERS: Final = {"loadstart": "i8", "loaddone": "i8", "loadstatus": "i4", "size": "i8", "tries": "i4"}
_STATUS: Final = {"running": -1, "failed": 1}
_ROWS: Final = 1000
_Row = tuple[int | str, ...]


def row(found: Arrival) -> _Row:
    """The values of an arrival in order of the columns."""
    status = _STATUS.get(state(found), 0)
    numbers = (seconds(found.start_time), seconds(found.end_time), status, found.size, found.tries)
    return (found.key, *numbers, found.transfer, state(found), found.version, found.error.message)


def to_csv(found: Iterable[Arrival], out: TextIO) -> int:
    """Write a line a row, below one of names; how many rows."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for count, each in enumerate(found, 1):  # noqa: B007  # the number of the last is the result
        writer.writerow(row(each))
    return count


def to_hdf5(found: Callable[[], Iterable[Arrival]], path: Path) -> int:
    """Write the dataset `inventory` into a new file, which takes the name when it is whole; how many rows.

    Args:
        found: gives all arrivals; asked twice, because texts are as long as the longest.
        path: of the file, which is replaced.

    Raises:
        ServerError: NOT_SUPPORTED where h5py is not installed.
    """
    try:
        import h5py  # noqa: PLC0415  # an extra
        import numpy as np  # noqa: PLC0415  # comes with it
    except ModuleNotFoundError as error:
        msg = f"an HDF5 file needs the package {error.name}: pip install 'cropduster[hdf5]', or dump as csv"
        raise ServerError(Reason.NOT_SUPPORTED, Code.UNIMPLEMENTED, msg, {"extra": "hdf5"}) from None
    longest = {name: 1 for name in COLUMNS if name not in _NUMBERS}
    for each in found():
        for name, value in zip(COLUMNS, row(each), strict=True):
            if isinstance(value, str):
                longest[name] = max(longest[name], len(value.encode()))
    kind = np.dtype([(name, _NUMBERS.get(name) or f"S{longest[name]}") for name in COLUMNS])
    draft, count, rest = path.with_name(f".{path.name}.{os.getpid()}"), 0, iter(found())
    try:
        with h5py.File(draft, "w") as file:
            table = file.create_dataset("inventory", (0,), kind, maxshape=(None,), chunks=(_ROWS,))
            while some := [_packed(row(each)) for each in islice(rest, _ROWS)]:
                table.resize((count + len(some),))
                table[count:] = np.array(some, dtype=kind)
                count += len(some)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _packed(values: _Row) -> tuple[int | bytes, ...]:
    """Texts as UTF-8."""
    return tuple(value.encode() if isinstance(value, str) else value for value in values)
