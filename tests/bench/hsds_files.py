"""The HDF5 files that the HSDS bench loads, always the same; `scale` makes them smaller, to try a bench out."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

SIDE = 7168
SMALL_FILES = 200
MONTHS = 84
MONTH = (75, 89, 186)
MONTH_CHUNK = (25, 89, 186)


def big(path: Path, scale: float, *, gzip: bool) -> Path:
    """205 MB of float32 in chunks of 1 MiB: a smooth field with noise, which shuffle and gzip bring to two thirds."""
    side = max(512, round(SIDE * scale**0.5) // 512 * 512)
    filters = {"shuffle": True, "compression": "gzip", "compression_opts": 4} if gzip else {}
    noise = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (side, side), "<f4", chunks=(512, 512), **filters)
        along = np.sin(np.arange(side) / 300)[None, :]
        for row in range(0, side, 512):
            down = np.cos(np.arange(row, row + 512) / 200)[:, None]
            data[row : row + 512] = 280 + 20 * down * along + 16 * noise.standard_normal((512, side))
        data.attrs["units"] = "K"
    return path


def small(folder: Path, scale: float) -> list[Path]:
    """200 files of 116 KB: a group, three datasets, two attributes each."""
    folder.mkdir()
    noise = np.random.default_rng(2)
    made = []
    for number in range(max(2, round(SMALL_FILES * scale))):
        path = folder / f"s{number:04}.h5"
        with h5py.File(path, "w") as file:
            file.attrs["title"] = f"small file {number}"
            group = file.create_group("measured")
            group.attrs["number"] = number
            group["temperature"] = noise.standard_normal((100, 100)).astype("<f4")
            group["pressure"] = noise.standard_normal((100, 100)).astype("<f4")
            group["time"] = np.arange(4000, dtype="<f8") + number
        made.append(path)
    return made


def months(folder: Path, scale: float) -> list[Path]:
    """84 files of one dataset of 75 x 89 x 186 float32 with a dimension scale `time`: NREL's model, 1/100,000."""
    folder.mkdir()
    noise = np.random.default_rng(3)
    made = []
    for number in range(max(3, round(MONTHS * scale))):
        path = folder / f"m{number:03}.h5"
        with h5py.File(path, "w") as file:
            time = file.create_dataset("time", (MONTH[0],), "<i8", chunks=(MONTH[0],), maxshape=(None,))
            time[:] = np.arange(MONTH[0]) + number * MONTH[0]
            time.make_scale("time")
            data = file.create_dataset(
                "wind",
                MONTH,
                "<f4",
                chunks=MONTH_CHUNK,
                maxshape=(None, *MONTH[1:]),
                shuffle=True,
                compression="gzip",
                compression_opts=4,
            )
            data[...] = np.round(8 + 3 * noise.standard_normal(MONTH), 2)
            data.dims[0].attach_scale(time)
        made.append(path)
    return made


def size(files: list[Path]) -> int:
    """Bytes of all."""
    return sum(path.stat().st_size for path in files)
