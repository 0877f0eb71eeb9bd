"""What a server reads of a domain that was joined of many files, against those files."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, Protocol

import h5py

from fileserver.hdf5 import differing, grid, read, stretches, transcode
from fileserver.hdf5.compare import Depth, differences
from fileserver.hdf5.declared import declared
from fileserver.hdf5.files import OPEN, Files
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects, Slab
from fileserver.hdf5.joining import known, naming
from fileserver.hdf5.joint import Joint
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.source import Source
from fileserver.hdf5.survey import Planned, Survey
from fileserver.hdf5.survey import names as names_of
from fileserver.together import side_by_side
from planes.errors import Corrupt, NotFound

DEPTHS: Final[Mapping[str, Depth]] = {"metadata": Depth.NONE, "sample": Depth.SAMPLE, "full": Depth.FULL}
"""How much is compared, by the words of an ingest."""
_SAMPLED: Final = 3  # blocks of a file's dataset that are looked at, where its chunks were put together
_WHOLE: Final = frozenset({"extents", "limits"})  # of what is joined, those of the file are not those of the domain


async def check(
    files: Files, joints: Sequence[Joint], connection: Connection, path: str, loaded: Loaded, level: str
) -> None:
    """Compare the domain at `path` with all files, through the server: with the first as a domain of its own is.

    Of what is joined `sample` reads of each file a block of every dataset, some more where chunks were put together;
    `full` reads all.

    Raises:
        Corrupt: they differ; says where first.
        Changed: a file is another by now.
        Misfit: the data of one cannot be read.
    """
    if level == "none":
        return
    objects, names = Objects(connection, path, loaded.root), paths(loaded.survey, loaded.root)
    back = Back(objects, f"{show(path)} on HSDS '{connection.name}'", joints, names, level)
    mine = {joint.path for joint in joints}
    without = mine | {each.path for each in loaded.troubles if each.what != "mapped"}
    async with (
        files.open(0) as source,
        aclosing(differences(source, objects, loaded.root, DEPTHS[level], without=without)) as found,
    ):
        async for each in found:
            if each.path not in mine or each.what not in _WHOLE:
                what = f"{each.what}: {each.right or 'nothing'}, in the file {each.left or 'nothing'}"
                raise back.differs(each.path, source.info.key, what)
    await back.extents()
    await back.compare(files)


class Back:
    """Reads back what was joined.

    Args:
        objects: of the domain.
        domain: its name.
        joints: the datasets.
        names: their ids by their paths.
        level: metadata, sample or full.
    """

    def __init__(
        self, objects: Objects, domain: str, joints: Sequence[Joint], names: Mapping[str, str], level: str
    ) -> None:
        self._objects = objects
        self._domain = domain
        self._joints = joints
        self._names = names
        self._level = level

    async def extents(self) -> None:
        """How far the datasets reach, and how far they may; raises Corrupt."""
        for joint in self._joints:
            wanted = joint.planned.plan.whole
            assert wanted is not None, "it is joined"
            try:
                found = await declared(self._objects, self._names[joint.path], attributes=False)
            except NotFound as error:
                raise self.differs(joint.path, "", "it is not there") from error
            if (found.dims, found.maxdims) != (wanted.dims, wanted.maxdims):
                raise self.differs(joint.path, "", f"its extents are {found.dims}, not {wanted.dims}")

    async def compare(self, files: Files) -> None:
        """The data of all files.

        Raises:
            Corrupt: some differ.
            Changed: a file is another by now.
            Misfit: the data of one cannot be read.
        """

        async def one(number: int) -> None:
            async with files.open(number) as source:
                await self._file(source, number)

        if self._level != "metadata":
            await side_by_side(range(len(files.places)), one, OPEN)

    async def _file(self, source: Source, number: int) -> None:
        for joint in self._joints:
            planned, known_ = await source.run(partial(here, joint=joint, names=self._names))
            if planned.facts.dims is None or 0 in planned.facts.dims:
                continue
            async with stretches.contents(source, planned.node, planned.facts) as held:
                for block in self._blocks(joint, planned, number):
                    where = slabs(block, joint.axis, joint.offset(number))
                    with naming(joint, number):  # before the server finds it out: chunks are placed undecoded
                        ours = await held.stored(block, known_)
                    theirs = await self._objects.read(self._names[joint.path], where)
                    start, kind = tuple(slab.start for slab in where), planned.facts.typed.stored
                    unequal = differing.elements(kind, start, block.count, ours, theirs)
                    if unequal is not None:
                        what = f"[{', '.join(map(str, unequal.place))}] is {unequal.right}, in the file {unequal.left}"
                        raise self.differs(joint.path, source.info.key, what)
        await source.unchanged()

    def _blocks(self, joint: Joint, planned: Planned, number: int) -> Sequence[stretches.Block]:
        dims, facts = planned.facts.dims or (), planned.facts
        if self._level == "full":
            return list(stretches.blocks(dims, stretches.step_of(facts, stretches.WHOLE)))
        chance = random.Random(f"{self._names[joint.path]} {number}")  # noqa: S311 -- a sample, no secret
        found = list(stretches.some(dims, stretches.step_of(facts, stretches.SAMPLE), _SAMPLED, chance))
        is_placed = joint.takes(joint.shares[number]) and not joint.offset(number) % joint.chunk
        return [chance.choice(found)] if is_placed else found

    def differs(self, path: str, key: str, what: str) -> Corrupt:
        """That something reads back otherwise than it was."""
        of = f", loaded from {key}," if key else ""
        return Corrupt(f"{path} of {self._domain}{of} reads back otherwise than it was: {what}", key=key, path=path)


class Cut(Protocol):
    """A hyperslab without gaps."""

    @property
    def start(self) -> grid.Dims:
        """Where it begins, by dimension."""

    @property
    def count(self) -> grid.Dims:
        """How many elements it has, by dimension."""


def slabs(block: Cut, axis: int = 0, offset: int = 0) -> list[Slab]:
    """A block of a file where it is in the whole, as the server is asked for it."""
    found = [Slab(first, first + number) for first, number in zip(block.start, block.count, strict=True)]
    if offset:
        found[axis] = Slab(found[axis].start + offset, found[axis].stop + offset)
    return found


def paths(found: Survey, root: str) -> dict[str, str]:
    """Ids of a domain's objects by their paths."""
    names = names_of(found, root)
    return {node.path: names[address] for address, node in found.outline.nodes.items() if address in names}


def here(file: h5py.File, joint: Joint, names: Mapping[str, str]) -> tuple[Planned, dict[int, str]]:
    """A dataset as it is in one of the files, with the chunks of the whole; and ids for its references."""
    facts = read.facts(transcode.dataset(file, joint.planned.node.raw))
    return Planned(joint.planned.node, facts, joint.planned.plan), known(file, facts.typed.stored, names)
