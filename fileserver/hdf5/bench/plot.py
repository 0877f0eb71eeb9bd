"""A picture of a write test: bytes a second over its time, and who wrote when."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fileserver.hdf5.bench.field import Field
from fileserver.hdf5.bench.site import Rows, State
from planes.errors import Refused

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS: Final = 200  # of the line of bytes a second
_MOST_NAMED: Final = 40  # writers whose names have room beside the picture
_MB: Final = 1e6


def plot(field: Field, rows: Rows, path: Path) -> None:
    """Draw it as PNG; a file that is there is replaced, by a whole one.

    Raises:
        Refused: nothing is written yet, the file cannot be written, or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and takes a second to load
    except ModuleNotFoundError as error:
        msg = "a plot needs the package matplotlib: pip install 'cropduster[plot]'"
        raise Refused(msg, package="matplotlib", extra="plot") from error
    done = np.sort(rows[rows["state"] == State.DONE], order="start")
    if not len(done):
        msg = "there is nothing to plot: no block is written yet"
        raise Refused(msg)
    writers = sorted({bytes(name) for name in done["writer"]})
    figure = Figure(figsize=(10, 4 + 0.25 * min(len(writers), _MOST_NAMED)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    _rates(above, field, done)
    _spans(below, done, writers)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(draft, format="png", dpi=120)
        draft.replace(path)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise Refused(msg, path=str(path)) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def _rates(axes: Axes, field: Field, done: Rows) -> None:
    """Each block's bytes, spread evenly over the time of its write."""
    start, end = done["start"] - done["start"].min(), done["start"] + done["seconds"] - done["start"].min()
    sizes = np.array([field.block(int(number)).size for number in done["block"]])
    edges = np.linspace(0, max(float(end.max()), 1e-6), _STEPS + 1)
    width = edges[1]
    rates = sizes / np.maximum(end - start, 1e-6)
    moved = [
        float((rates * np.clip(np.minimum(end, edge + width) - np.maximum(start, edge), 0, None)).sum())
        for edge in edges[:-1]
    ]
    axes.stairs(np.array(moved) / width / _MB, edges, fill=True)
    whole = sizes.sum() / edges[-1] / _MB
    axes.axhline(whole, color="black", linewidth=1, linestyle="--", label=f"{whole:.1f} MB/s over all")
    axes.set_ylabel("MB/s")
    axes.legend(loc="lower right")
    axes.set_title(f"{field.rows} x {field.columns} f8 by {field.cut}, {len(done)} of {field.blocks} blocks")


def _spans(axes: Axes, done: Rows, writers: list[bytes]) -> None:
    """One bar a block, one line of them a writer."""
    first = done["start"].min()
    for line, writer in enumerate(writers):
        mine = done[done["writer"] == writer]
        spans = list(zip((mine["start"] - first).tolist(), mine["seconds"].tolist(), strict=True))
        axes.broken_barh(spans, (line - 0.4, 0.8), edgecolor="white", linewidth=0.3)
    if len(writers) <= _MOST_NAMED:
        axes.set_yticks(range(len(writers)), [writer.decode(errors="replace") for writer in writers], fontsize=7)
    axes.set_ylabel("writer")
    axes.set_xlabel("seconds")
