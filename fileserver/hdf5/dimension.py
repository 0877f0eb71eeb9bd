"""Which datasets of a file lie along a dimension, and on which of their axes.

The dimension is asked for by a name, `time`, or by a path, `/grid/time`. The rule:

1. The dimension itself is every dataset of one axis that lies at this path, or whose last name this is, or that is a
   dimension scale with this name in it (`NAME`).
2. An axis of another dataset lies along it if such a dataset is attached to that axis as its dimension scale, or if
   the label of the axis is the name.

So a dataset that only happens to be as long as the dimension does not lie along it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import h5py
from h5py import h5a, h5d, h5ds, h5o

from fileserver.hdf5.model import Node
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.transcode import dataset
from fileserver.hdf5.typing_rules import readable

_SCALES: Final = b"DIMENSION_LIST"
_LABELS: Final = b"DIMENSION_LABELS"


class Misfit(Exception):
    """A file cannot be joined with others; the message says which dataset, and why.

    Args:
        message: without the file.
        number: of the file, from 0; None for the one at hand.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


class Damaged(Misfit):
    """Data of a file that would fit cannot be read, or HSDS does not hold them."""


@dataclass(frozen=True, slots=True)
class Along:
    """A dataset that lies along a dimension."""

    node: Node
    axis: int
    extent: int
    """Elements on that axis."""
    is_scale: bool = False


def along(file: h5py.File, nodes: Mapping[int, Node], dimension: str) -> dict[int, Along]:
    """The datasets among `nodes` that lie along a dimension, by their addresses; the dimension itself is among them.

    Raises:
        Misfit: none does; or one does with several axes, or is not as long as its scale.
        OSError, RuntimeError, KeyError, ValueError: the library cannot read something.
    """
    opened = {node.address: dataset(file, node.raw) for node in nodes.values() if node.kind == "d"}
    scales = {address: each for address, each in opened.items() if _is_scale(each, nodes[address].path, dimension)}
    found = {}
    for address, each in opened.items():
        if address in scales:
            found[address] = Along(nodes[address], 0, each.shape[0], is_scale=True)
            continue
        axes = list(_axes(each, nodes[address].path, scales, nodes, dimension))
        if len(axes) > 1:
            msg = f"{nodes[address].path} lies along {dimension} with {len(axes)} axes, and can grow along one alone"
            raise Misfit(msg)
        for axis in axes:
            found[address] = Along(nodes[address], axis, each.shape[axis])
    if not found:
        msg = (
            f"no dataset lies along {dimension}: there is none of one axis that is called so or has this name as a "
            "dimension scale, and no axis that is labelled so"
        )
        raise Misfit(msg)
    return found


def _is_scale(place: h5d.DatasetID, path: str, dimension: str) -> bool:
    if place.rank != 1:
        return False
    if path in {dimension, f"/{dimension}"} or ("/" not in dimension and path.rpartition("/")[2] == dimension):
        return True
    return h5ds.is_scale(place) and readable(h5ds.get_scale_name(place))[0] == dimension


def _axes(
    place: h5d.DatasetID, path: str, scales: Mapping[int, h5d.DatasetID], nodes: Mapping[int, Node], dimension: str
) -> Iterator[int]:
    if not place.rank:
        return
    has_scales, has_labels = h5a.exists(place, _SCALES), h5a.exists(place, _LABELS)
    for axis in range(place.rank if has_scales or has_labels else 0):
        attached = [address for address in (_attached(place, axis) if has_scales else ()) if address in scales]
        for address in attached:
            length = scales[address].shape[0]
            if length != place.shape[axis]:
                msg = (
                    f"{path} has {place.shape[axis]} elements along {dimension}, and {nodes[address].path}, its scale, "
                    f"{length}: joined with others they would not lie side by side"
                )
                raise Misfit(msg)
        if attached or (has_labels and _label(place, axis) == dimension):
            yield axis


def _attached(place: h5d.DatasetID, axis: int) -> list[int]:
    """Addresses of the scales of an axis, as the dataset itself says."""
    found: list[int] = []
    with suppress(*BROKEN):  # one is gone; those before it count
        h5ds.iterate(place, axis, lambda scale: found.append(h5o.get_info(scale).addr))
    return found


def _label(place: h5d.DatasetID, axis: int) -> str:
    return readable(h5ds.get_label(place, axis))[0]
