"""An HDF5 file against a domain that is read through its server: every difference.

The file is compared as HSDS can hold it: what `fileserver.hdf5.typing_rules` maps is no difference. Objects are paired
by the names that lead to them, so that it does not matter who made the domain, nor with which ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from random import Random
from typing import Final

import h5py

from fileserver.hdf5 import differing, read
from fileserver.hdf5.compare_data import DataComparison, Depth, Tally
from fileserver.hdf5.declared import Declared, Unknown, declared
from fileserver.hdf5.differing import Difference
from fileserver.hdf5.elements import Pointing
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.model import Dataset, Datatype, Group, Link, Node, Outline, Trouble
from fileserver.hdf5.outline import BROKEN, outline
from fileserver.hdf5.source import Source
from fileserver.hdf5.typing_rules import NotHeld
from fileserver.together import side_by_side
from planes.errors import NotFound

__all__ = ["Depth", "Difference", "Tally", "differences"]

WIDTH: Final = 8
"""Requests to the server at a time."""
_BATCH: Final = 64  # objects that are held at a time


async def differences(
    source: Source,
    objects: Objects,
    root: str,
    depth: Depth = Depth.SAMPLE,
    *,
    without: Collection[str] = (),
    seed: int | None = None,
    tally: Tally | None = None,
) -> AsyncGenerator[Difference]:
    """All differences between a file and a domain; memory is bounded by the number of objects, not by their size.

    Args:
        source: the file.
        objects: of the domain.
        root: id of its root group.
        depth: how much of the data is compared.
        without: paths of objects, links and attributes (`/group/@name`) that are known to stay behind; data of
            datasets among them are not compared.
        seed: of the blocks that are chosen.
        tally: counts what was done.

    Raises:
        Changed: the file is not the version that was opened any more.
        Unavailable, Throttled, CallerDenied: the server does not answer, or not to us.
    """
    seen = await source.run(outline)
    ids: dict[int, str] = {}
    data = DataComparison(source, objects, ids, depth, Random(seed), tally or Tally())  # noqa: S311 -- no secret
    job = _Comparison(source, objects, seen, frozenset(without), data, ids)
    for trouble in seen.troubles:
        if trouble.what != "mapped" and trouble.path not in job.without:
            yield Difference(trouble.path, "link", trouble.reason, "")
    async for each in job.pair(root):
        yield each
    nodes = iter([node for address, node in seen.nodes.items() if address in job.ids])
    while batch := list(islice(nodes, _BATCH)):
        for each in await job.compare(batch):
            yield each
    await source.unchanged()


@dataclass(frozen=True, slots=True)
class _Here:
    """An object of the file, or why it cannot be compared; and what is wrong with its attributes."""

    held: Group | Dataset | Datatype | None
    troubles: Sequence[Trouble]
    reason: str = ""


@dataclass(slots=True)
class _Comparison:
    source: Source
    objects: Objects
    seen: Outline
    without: frozenset[str]
    data: DataComparison
    ids: dict[int, str]
    """Of objects that are in both, by address in the file."""
    addresses: dict[str, int] = field(default_factory=dict)
    told: dict[int, Declared] = field(default_factory=dict)
    """Groups that were asked for already with all that is to be known of them: the first ones, by address."""

    async def pair(self, root: str) -> AsyncGenerator[Difference]:
        """Go through both by the same names."""
        todo = deque([self.seen.root])
        self._meet(self.seen.root.address, root)
        while todo:
            level = [todo.popleft() for _ in range(min(len(todo), _BATCH))]
            links: dict[int, Declared | None] = {}

            is_early = len(self.ids) < _BATCH

            async def ask(node: Node, into: dict[int, Declared | None] = links, *, early: bool = is_early) -> None:
                into[node.address] = await self._group(node, early=early)

            await side_by_side(level, ask, WIDTH)
            for node in level:
                there = links[node.address]
                if there is None:  # `compare` says so
                    continue
                for each in self._links(node, there, todo):
                    yield each

    def _links(self, node: Node, there: Declared, todo: deque[Node]) -> Iterator[Difference]:
        theirs = {link.name: link for link in there.links}
        ours = {link.name: link for link in self.seen.links[node.address]}
        for name, link in ours.items():
            path = f"{node.path.rstrip('/')}/{name}"
            other = theirs.get(name)
            if other is None:
                if path not in self.without and not self._stays_behind(link):
                    yield Difference(path, "missing", self._named(link), "")
            elif link.kind != "hard" or other.kind != "hard":
                yield from differing.links(path, link, other)
            else:
                yield from self._hard(path, int(link.target), other.target, todo)
        for name in theirs.keys() - ours.keys():
            yield Difference(f"{node.path.rstrip('/')}/{name}", "added", "", theirs[name].kind)
        kept = [name for name in ours if name in theirs]
        if node.address in self.seen.ordered and [name for name in theirs if name in ours] != kept:
            yield Difference(node.path, "order of links", ", ".join(kept), ", ".join(theirs))

    def _stays_behind(self, link: Link) -> bool:
        """An object that is known to stay behind has no name anywhere."""
        return link.kind == "hard" and self.seen.nodes[int(link.target)].path in self.without

    def _named(self, link: Link) -> str:
        if link.kind != "hard":
            return f"{link.kind} link"
        return differing.KINDS[self.seen.nodes[int(link.target)].kind]

    def _hard(self, path: str, address: int, there: str, todo: deque[Node]) -> Iterator[Difference]:
        node = self.seen.nodes[address]
        if address in self.ids or there in self.addresses:
            if self.ids.get(address) != there:
                at = self.seen.nodes[self.addresses[there]].path if there in self.addresses else "another object"
                yield Difference(path, "object", node.path, at)
            return
        if node.kind != there[0]:
            yield Difference(path, "kind", differing.KINDS[node.kind], differing.KINDS.get(there[0], there))
            return
        self._meet(address, there)
        if node.kind == "g":
            todo.append(node)

    def _meet(self, address: int, there: str) -> None:
        self.ids[address] = there
        self.addresses[there] = address

    async def compare(self, nodes: Sequence[Node]) -> list[Difference]:
        """Attributes, types, spaces and data of some objects."""
        here = await self.source.run(partial(self._read, nodes=nodes))
        told: dict[int, Declared | None] = {}
        found: list[Difference] = []

        async def ask(node: Node) -> None:
            try:
                told[node.address] = self.told.pop(node.address, None) or await self._declared(node, attributes=True)
            except Unknown as unknown:
                found.append(Difference(node.path, "type", "", str(unknown)))

        await side_by_side(nodes, ask, WIDTH)
        datasets: list[Dataset] = []
        for node in nodes:
            if node.address not in told:
                continue
            there = told[node.address]
            found.extend(self._compared(node, here[node.address], there))
            held = here[node.address].held
            if isinstance(held, Dataset) and there is not None and self._same_elements(held, there):
                datasets.append(held)
        return found + await self.data.differences(datasets)

    async def _group(self, node: Node, *, early: bool) -> Declared | None:
        """A group with its links; of the first ones all that `compare` asks for, so that it need not ask again."""
        if early:
            try:
                there = await self._declared(node, links=True, attributes=True)
            except Unknown:
                pass  # which `compare` says
            else:
                if there is not None:
                    self.told[node.address] = there
                return there
        return await self._declared(node, links=True)

    async def _declared(self, node: Node, *, links: bool = False, attributes: bool = False) -> Declared | None:
        try:
            return await declared(self.objects, self.ids[node.address], links=links, attributes=attributes)
        except NotFound:
            return None

    def _read(self, file: h5py.File, nodes: Sequence[Node]) -> dict[int, _Here]:
        to = read.pointing(file, self.ids)
        return {node.address: self._one(file, node, to) for node in nodes}

    def _one(self, file: h5py.File, node: Node, to: Pointing) -> _Here:
        troubles: list[Trouble] = []
        try:
            if node.kind == "g":
                return _Here(read.group(file, self.seen, node, to, troubles), troubles)
            if node.kind == "t":
                return _Here(read.datatype(file, node, to, troubles), troubles)
            return _Here(read.dataset(file, node, to, troubles), troubles)
        except (NotHeld, *BROKEN) as error:
            return _Here(None, troubles, str(error))

    def _compared(self, node: Node, here: _Here, there: Declared | None) -> Iterator[Difference]:
        path, held = node.path, here.held
        if there is None:
            yield Difference(path, "missing", differing.KINDS[node.kind], "a name, with nothing behind it")
            return
        if held is None:
            yield Difference(path, "unreadable", here.reason, differing.KINDS[node.kind])
            return
        self.data.tally.objects += 1
        self.data.tally.attributes += len(held.attributes)
        if isinstance(held, Dataset):
            yield from differing.datasets(path, held.facts, there, self.ids)
        elif isinstance(held, Datatype) and there.type is not None and held.typed.stored != there.type.type:
            yield from differing.types(path, held.typed, there.type, {})
        ordered = not isinstance(held, Datatype) and held.ordered
        yield from differing.attributes(
            path, held.attributes, there.attributes, here.troubles, without=self.without, ordered=ordered
        )

    def _same_elements(self, here: Dataset, there: Declared) -> bool:
        """Whether there are elements to compare, and they can be."""
        facts = here.facts
        if self.data.depth is Depth.NONE or facts.dims is None or 0 in facts.dims or there.type is None:
            return False
        if here.node.path in self.without:
            return False
        return facts.dims == there.dims and facts.typed.stored == there.type.type
