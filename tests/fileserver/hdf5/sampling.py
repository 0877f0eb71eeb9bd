"""The table of sample files: how an entry is made, and how files are written from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
from h5py import h5d, h5p, h5s, h5t

Fill = Callable[[h5py.File], None]


@dataclass(frozen=True)
class Sample:
    """How to make one file, and what stays behind when it is loaded: paths of objects that HSDS cannot hold."""

    name: str
    fill: Fill
    opening: Mapping[str, Any] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    mapped: frozenset[str] = frozenset()


SAMPLES: dict[str, Sample] = {}


def sample(refused: tuple[str, ...] = (), mapped: tuple[str, ...] = (), **opening: Any) -> Callable[[Fill], Fill]:
    """Enter a function into the table."""

    def enter(fill: Fill) -> Fill:
        name = fill.__name__.strip("_")
        SAMPLES[name] = Sample(name, fill, opening, frozenset(refused), frozenset(mapped))
        return fill

    return enter


def make(name: str, folder: Path) -> Path:
    """Write one sample and return its path."""
    path = folder / f"{name}.h5"
    with h5py.File(path, "w", **SAMPLES[name].opening) as file:
        SAMPLES[name].fill(file)
    return path


def make_all(folder: Path) -> list[Path]:
    """Write all samples."""
    return [make(name, folder) for name in SAMPLES]


def low(file: h5py.File, name: str, kind: h5t.TypeID, shape: tuple[int, ...], plist: Any = None) -> h5d.DatasetID:
    return h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), dcpl=plist)


def chunked_plist(shape: tuple[int, ...], level: int = 0) -> h5p.PropDCID:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk(shape)
    if level:
        plist.set_deflate(level)
    return plist
