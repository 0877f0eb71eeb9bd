"""What is in an HDF5 file, and what a load into HSDS would make of it; reads no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import h5py

from fileserver.errors import InvalidSpec
from fileserver.hdf5 import read, transcode
from fileserver.hdf5.model import ChunkTable, Facts, Node, Outline, Trouble
from fileserver.hdf5.outline import BROKEN, outline
from fileserver.hdf5.routes import Means, Plan, plan
from fileserver.hdf5.source import Source
from fileserver.hdf5.types import Json, to_json
from fileserver.hdf5.typing_rules import NotHeld
from planes.errors import NotFound


@dataclass(frozen=True, slots=True)
class Inspected:
    """One object; `facts` and `plan` are of datasets that HSDS can hold."""

    node: Node
    facts: Facts | None
    plan: Plan | None
    type: Json
    attributes: int
    links: int
    troubles: tuple[Trouble, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects of a file, and how many there are in all."""

    objects: tuple[Inspected, ...]
    total: int
    troubles: tuple[Trouble, ...]


_BUCKET: Final = Means()


async def inspected(source: Source, first: int, count: int, means: Means = _BUCKET) -> Page:
    """Up to `count` objects of a file, from the `first` on in the order in which they are found."""
    return await source.run(partial(_page, first=first, count=count, means=means))


async def chunks(source: Source, path: str) -> ChunkTable:
    """Where the chunks of one dataset lie.

    Raises:
        NotFound: there is no such dataset.
        InvalidSpec: it is not chunked.
    """
    return await source.run(partial(_chunks, path=path))


def _page(file: h5py.File, first: int, count: int, means: Means) -> Page:
    seen = outline(file)
    nodes = list(seen.nodes.values())
    found = tuple(_inspected(file, seen, node, means) for node in nodes[first : first + count])
    return Page(found, len(nodes), tuple(seen.troubles))


def _inspected(file: h5py.File, seen: Outline, node: Node, means: Means) -> Inspected:
    troubles: list[Trouble] = []
    facts: Facts | None = None
    how: Plan | None = None
    kind: Json = None
    attributes = links = 0
    to = read.pointing(file, {address: each.path for address, each in seen.nodes.items()})
    try:
        if node.kind == "g":
            links = len(seen.links[node.address])
            attributes = len(read.group(file, seen, node, to, troubles).attributes)
        elif node.kind == "t":
            committed = read.datatype(file, node, to, troubles)
            kind, attributes = to_json(committed.typed.stored), len(committed.attributes)
        else:
            dataset = read.dataset(file, node, to, troubles)
            facts, attributes = dataset.facts, len(dataset.attributes)
            kind = to_json(facts.typed.stored)
            how = plan(facts, means)
    except NotHeld as error:
        troubles.append(Trouble(node.path, "refused", str(error)))
    except BROKEN as error:
        troubles.append(Trouble(node.path, "failed", f"it cannot be read: {error}"))
    return Inspected(node, facts, how, kind, attributes, links, tuple(troubles))


def _chunks(file: h5py.File, path: str) -> ChunkTable:
    nodes: Sequence[Node] = list(outline(file).nodes.values())
    raw = next((node.raw for node in nodes if node.path == path and node.kind == "d"), path.encode())
    try:
        place = transcode.dataset(file, raw)
    except BROKEN as error:
        msg = f"there is no dataset {path} in this file"
        raise NotFound(msg, path=path) from error
    layout = place.get_create_plist()
    if layout.get_layout() != h5py.h5d.CHUNKED:
        msg = f"{path} is not chunked"
        raise InvalidSpec(msg, {"path": msg})
    return read.chunk_table(file, Node(0, "d", path, raw), tuple(layout.get_chunk()))
