"""All objects of a file, and how each of them is to travel; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import h5py

from fileserver.hdf5 import ids, read, transcode
from fileserver.hdf5.model import Facts, Node, Outline, Trouble
from fileserver.hdf5.outline import BROKEN, Opened, keep, outline
from fileserver.hdf5.routes import Means, Plan, plan
from fileserver.hdf5.source import Source
from fileserver.hdf5.typing_rules import NotHeld


@dataclass(frozen=True, slots=True)
class Planned:
    """A dataset and how it travels."""

    node: Node
    facts: Facts
    plan: Plan


@dataclass(frozen=True, slots=True)
class Survey:
    """All objects of a file, how each dataset travels, and what stays behind."""

    outline: Outline
    datasets: tuple[Planned, ...]
    troubles: tuple[Trouble, ...]
    refused: frozenset[int]
    """Addresses of objects that stay behind."""


async def survey(source: Source, means: Means) -> Survey:
    """Look at all objects of a file; writes nothing."""
    return await source.run(partial(look, means=means))


def look(file: h5py.File, means: Means, opened: Opened | None = None) -> Survey:
    """The same in the thread of the file; objects that had to be opened are added to `opened`."""
    seen = outline(file, opened)
    datasets, troubles, refused = [], list(seen.troubles), set()
    for node in seen.nodes.values():
        try:
            if node.kind == "d":
                place = transcode.dataset(file, node.raw)
                keep(opened, node, place)
                facts = read.facts(place)
                datasets.append(Planned(node, facts, plan(facts, means)))
            elif node.kind == "t":
                read.datatype(file, node, read.pointing(file, {}), [])
        except NotHeld as error:
            troubles.append(Trouble(node.path, "refused", str(error)))
            refused.add(node.address)
        except BROKEN as error:
            troubles.append(Trouble(node.path, "failed", f"it cannot be read: {error}"))
            refused.add(node.address)
    return Survey(seen, tuple(datasets), tuple(troubles), frozenset(refused))


def leaving(found: Survey, behind: Mapping[str, str]) -> Survey:
    """The same, but that datasets whose data cannot be read, by their paths with the reasons, stay behind."""
    datasets = tuple(each for each in found.datasets if each.node.path not in behind)
    refused = {each.node.address for each in found.datasets if each.node.path in behind}
    troubles = (Trouble(path, "failed", reason) for path, reason in behind.items())
    return replace(found, datasets=datasets, troubles=(*found.troubles, *troubles), refused=found.refused | refused)


def names(found: Survey, root: str) -> dict[int, str]:
    """Ids of all objects that can arrive, by their address in the file."""
    return {
        node.address: root if node is found.outline.root else ids.object_id(root, node.kind, str(node.address))
        for node in found.outline.nodes.values()
        if node.address not in found.refused
    }
