"""What a server reads of a domain against the file that was loaded into it: all through the server, as users do.

metadata  structure, links, shapes, types and attributes of every object
sample    the same, and some blocks of each dataset
full      the same, and all data
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Final

import h5py

from fileserver.hdf5 import blocks, describe, read
from fileserver.hdf5.alike import same
from fileserver.hdf5.bodies import body
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import JSON, Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.load import Loaded, Planned
from fileserver.hdf5.model import Node
from fileserver.hdf5.source import Source
from fileserver.together import side_by_side
from planes.errors import Corrupt, NotFound

SAMPLED: Final = 3
"""Blocks of a dataset that a sample reads."""
_BATCH: Final = 64  # objects that one trip to the file's thread describes
_WIDTH: Final = 4  # requests at once for one file


async def verify(source: Source, connection: Connection, path: str, loaded: Loaded, level: str) -> None:
    """Compare the domain at `path` with the file.

    Raises:
        Corrupt: they differ; says where first.
        Changed: the file is another by now.
    """
    if level == "none":
        return
    there = _There(source, connection, path, loaded, level)
    await there.compare()
    await source.unchanged()


class _There:
    def __init__(self, source: Source, connection: Connection, path: str, loaded: Loaded, level: str) -> None:
        self._source = source
        self._objects = Objects(connection, path, loaded.root)
        self._loaded = loaded
        self._level = level
        self._domain = f"{show(path)} on HSDS '{connection.name}'"
        self._plans = {planned.node.address: planned.plan for planned in loaded.survey.datasets}

    async def compare(self) -> None:
        nodes = (node for node in self._loaded.survey.outline.nodes.values() if node.address in self._loaded.ids)
        while batch := list(islice(nodes, _BATCH)):
            expected = await self._source.run(partial(self._described, nodes=batch))
            await side_by_side(expected, lambda pair: self._object(*pair), _WIDTH)
        if self._level == "metadata":
            return
        there = (p for p in self._loaded.survey.datasets if p.node.address in self._loaded.ids)
        await side_by_side((p for p in there if p.facts.dims is not None and 0 not in p.facts.dims), self._data, _WIDTH)

    def _described(self, file: h5py.File, nodes: list[Node]) -> list[tuple[Node, bytes]]:
        frame = describe.Frame(self._loaded.root, self._loaded.created, self._loaded.ids)
        to, outline = read.pointing(file, self._loaded.ids), self._loaded.survey.outline
        return [(node, body(file, frame, outline, node, self._plans.get(node.address), to, [])) for node in nodes]

    async def _object(self, node: Node, described: bytes) -> None:
        wanted = json.loads(described)
        try:
            found = await self._objects.raw(wanted["id"], links=node.kind == "g")
        except NotFound as error:
            raise self._differs(node, "it is not there") from error
        for name in ("type", "shape"):
            if name in wanted and not same(wanted[name], found.get(name)):
                raise self._differs(node, f"its {name} is {found.get(name)}, that of the file {wanted[name]}")
        for name in ("attributes", "links") if node.kind == "g" else ("attributes",):
            self._compare_named(node, name, wanted[name], found.get(name))

    def _compare_named(self, node: Node, what: str, wanted: Mapping[str, JSON], found: JSON) -> None:
        there = found if isinstance(found, dict) else {}
        if set(wanted) != set(there):
            names = sorted(set(wanted) ^ set(there))
            raise self._differs(node, f"its {what} are not those of the file: {', '.join(names[:5])}")
        for name, one in wanted.items():
            if not same(one, there[name]):
                raise self._differs(node, f"{what[:-1]} {name} is {there[name]}, in the file {one}")

    async def _data(self, planned: Planned) -> None:
        chance = random.Random(f"{self._loaded.root} {planned.node.path}")  # noqa: S311 -- a sample, no secret
        wanted = blocks.every(planned) if self._level == "full" else blocks.some(planned, SAMPLED, chance)
        dataset = self._loaded.ids[planned.node.address]
        async with blocks.data(self._source, planned, dict(self._loaded.ids)) as data:
            for block in wanted:
                found = await self._objects.read(dataset, block.slabs)
                if await data.block(block) != found:
                    where = ",".join(f"{slab.start}:{slab.stop}" for slab in block.slabs)
                    raise self._differs(planned.node, f"its data [{where}] are not those of the file")

    def _differs(self, node: Node, what: str) -> Corrupt:
        key = self._source.info.key
        msg = f"{node.path} of {self._domain}, loaded from {key}, reads back otherwise than it was: {what[:600]}"
        return Corrupt(msg, key=key, path=node.path)
