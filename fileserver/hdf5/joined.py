"""Many files into one domain along a dimension: looked at, loaded past the server or by requests, and read back.

All files are looked at before anything is written: one that does not fit means that nothing is joined.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

import h5py

from fileserver.hdf5 import blocks, load, read, rest, transcode, verify
from fileserver.hdf5.dimension import Misfit
from fileserver.hdf5.files import OPEN, Files
from fileserver.hdf5.fitting import First, Fitted, first, fitted
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects, Slab
from fileserver.hdf5.ids import root_id
from fileserver.hdf5.joining import Joining, known, naming
from fileserver.hdf5.joint import Joint, described, joints
from fileserver.hdf5.load import Loaded, Planned
from fileserver.hdf5.source import Source
from fileserver.hdf5.storage import Bucket, Written
from fileserver.together import side_by_side
from planes.errors import Corrupt, Error
from planes.plane import MIB, Plane

_WIDTH: Final = 3  # blocks of one file that are sent at once


@dataclass(frozen=True, slots=True)
class Whole:
    """What files are joined to."""

    one: First
    others: Sequence[Fitted]
    """The files behind the first."""
    joints: Sequence[Joint]


Did: TypeAlias = Callable[[int], None]
"""Told of files that are done, by their numbers from 0."""
Wrong: TypeAlias = Mapping[int, Misfit | Error]
"""What is wrong with files that do not fit, by their numbers from 0."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found in files."""

    one: First | None
    """None if the first cannot be joined with anything."""
    others: Sequence[Fitted]
    wrong: Wrong

    @property
    def first(self) -> First:
        """The first file, where all fit."""
        assert self.one is not None, "it fits"
        return self.one


def _nothing(_: int) -> None:
    return None


async def look(files: Files, dimension: str) -> Looked:
    """Look at all files, and measure them by the first. Writes nothing.

    Raises:
        Throttled, Unavailable: a plane does not answer.
    """
    try:
        async with files.open(0) as source:
            one = await first(source, dimension)
    except (Misfit, Error) as error:
        return Looked(None, (), {0: error})
    fitting, wrong = dict[int, Fitted](), dict[int, Misfit | Error]()

    async def measure(number: int) -> None:
        try:
            async with files.open(number) as source:
                fitting[number] = await fitted(source, one, dimension)
        except (Misfit, Error) as error:
            wrong[number] = error

    await side_by_side(range(1, len(files.places)), measure, OPEN)
    return Looked(one, [fitting[number] for number in sorted(fitting)], wrong)


def whole(looked: Looked) -> Whole:
    """What files that fit are joined to."""
    shares = [looked.first.shares, *(each.shares for each in looked.others)]
    return Whole(looked.first, looked.others, joints(looked.first, shares))


async def fill(files: Files, made: Whole, bucket: Plane, name: str, created: float, did: Did = _nothing) -> Loaded:
    """Write all objects of the whole into a bucket; `name` and `created` as for `fileserver.hdf5.load.load`.

    `did` is told of each file whose own chunks are there.

    Raises:
        Changed: a file is not the version that was listed.
        Misfit: data of a file cannot be read.
    """
    root = root_id(name)
    survey = described(made.one.survey, made.joints)
    to = Bucket(bucket, root, name)
    await to.resume()
    await Joining(to, files, paths(survey, root), made.joints, did=did).run()
    async with files.open(0) as source:
        loaded = await load.load(source, bucket, name, created, found=survey)
    return replace(loaded, written=_sum(to.written, loaded.written))


async def send(
    files: Files, made: Whole, to: tuple[Connection, str], name: str, created: float, did: Did = _nothing
) -> Loaded:
    """Make a domain by requests `to` a server at a path, as `fileserver.hdf5.rest.load` does; again over itself, too.

    `did` is told of each file that was sent.

    Raises:
        Changed: a file is not the version that was listed.
        Misfit: data of a file cannot be read.
    """
    connection, path = to
    survey = described(made.one.survey, made.joints, bucket=False)
    async with files.open(0) as source:
        loaded = await rest.load(source, connection, path, name, created, found=survey)
    for joint in made.joints:
        if joint.planned.node.address not in loaded.ids:
            why = next((each.reason for each in loaded.troubles if each.path == joint.path), "it did not arrive")
            msg = f"{joint.path} cannot be joined: {why}"
            raise Misfit(msg, 0)
    objects, names = Objects(connection, path, loaded.root), paths(survey, loaded.root)
    sent = Written()
    for number in range(len(files.places)):
        async with files.open(number) as source:
            for joint in made.joints:
                with naming(joint, number):
                    sent.carried += await _sent(source, joint, joint.offset(number), objects, names)
            await source.unchanged()
        did(number)
    return replace(loaded, written=_sum(sent, loaded.written))


async def _sent(source: Source, joint: Joint, offset: int, objects: Objects, names: Mapping[str, str]) -> int:
    planned, known_ = await source.run(partial(_here, joint=joint, names=names))
    carried = 0
    async with blocks.data(source, planned, known_) as data:

        async def one(block: blocks.Block) -> None:
            nonlocal carried
            values = await data.block(block)
            await objects.write(names[joint.path], values, moved(block, joint.axis, offset))
            carried += len(values)

        await side_by_side(await blocks.stored(source, planned), one, _WIDTH)
    return carried


async def check(files: Files, made: Whole, connection: Connection, path: str, loaded: Loaded, level: str) -> None:
    """Compare the domain at `path` with all files, through the server: the first wholly as `verify.verify` does.

    Of each other file `sample` reads a block of every dataset that is joined, and the first one too where chunks were
    put together; `full` reads all.

    Raises:
        Corrupt: they differ; says where first.
        Changed: a file is another by now.
    """
    if level == "none":
        return
    async with files.open(0) as source:
        await verify.verify(source, connection, path, loaded, level)
    if level == "metadata":
        return
    back = Back(connection, path, loaded.root, made.joints, paths(loaded.survey, loaded.root), level)

    async def one(number: int) -> None:
        async with files.open(number) as source:
            await back.compare(source, number)

    await side_by_side(range(1, len(files.places)), one, OPEN)


class Back:
    """Reads back what was joined.

    Args:
        connection: to the server.
        path: of the domain.
        root: its root group.
        joints: the datasets.
        names: their ids by their paths.
        level: sample or full.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        root: str,
        joints: Sequence[Joint],
        names: Mapping[str, str],
        level: str,
    ) -> None:
        self._objects = Objects(connection, path, root)
        self._domain = f"{show(path)} on HSDS '{connection.name}'"
        self._joints = joints
        self._names = names
        self._level = level
        self._root = root

    async def compare(self, source: Source, number: int) -> None:
        """One file, by its number; raises Corrupt, Changed."""
        for joint in self._joints:
            planned, known_ = await source.run(partial(_here, joint=joint, names=self._names))
            if planned.facts.dims is None or 0 in planned.facts.dims:
                continue
            async with blocks.data(source, planned, known_) as data:
                for block in self._blocks(joint, planned, number):
                    slabs = moved(block, joint.axis, joint.offset(number))
                    if await self._objects.read(self._names[joint.path], slabs) != await data.block(block):
                        raise self._differs(joint, source, slabs)
        await source.unchanged()

    def _blocks(self, joint: Joint, planned: Planned, number: int) -> Sequence[blocks.Block]:
        if self._level == "full":
            return list(blocks.every(planned))
        chance = random.Random(f"{self._root} {joint.path} {number}")  # noqa: S311 -- a sample, no secret
        found = list(blocks.some(planned, 1, chance))
        if joint.takes(joint.shares[number]) and not joint.offset(number) % joint.chunk:
            return found
        dims = planned.facts.dims or ()
        count = tuple(map(min, blocks.shape(planned, MIB), dims))
        return [blocks.Block((0,) * len(dims), count), *found]

    def _differs(self, joint: Joint, source: Source, slabs: Sequence[Slab]) -> Corrupt:
        where = ",".join(f"{slab.start}:{slab.stop}" for slab in slabs)
        key = source.info.key
        data = f"its data [{where}] are not those of {key}"
        msg = f"{joint.path} of {self._domain} reads back otherwise than it was: {data}"
        return Corrupt(msg, key=key, path=joint.path)


def moved(block: blocks.Block, axis: int, offset: int) -> list[Slab]:
    """A block of a file where it is in the whole."""
    return [Slab(slab.start + offset, slab.stop + offset) if i == axis else slab for i, slab in enumerate(block.slabs)]


def paths(found: load.Survey, root: str) -> dict[str, str]:
    """Ids of a domain's objects by their paths."""
    names = load.names(found, root)
    return {node.path: names[address] for address, node in found.outline.nodes.items() if address in names}


def _here(file: h5py.File, joint: Joint, names: Mapping[str, str]) -> tuple[Planned, dict[int, str]]:
    """A dataset as it is in one of the files, with the chunks of the whole; and ids for its references."""
    facts = read.facts(transcode.dataset(file, joint.planned.node.raw))
    return Planned(joint.planned.node, facts, joint.planned.plan), known(file, facts.typed.stored, names)


def _sum(one: Written, other: Written) -> Written:
    return Written(
        one.objects + other.objects, one.copied + other.copied, one.carried + other.carried, one.kept + other.kept
    )
