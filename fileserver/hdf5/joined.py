"""Many files into one domain along a dimension: looked at, loaded past the server or by requests, and read back.

All files are looked at before anything is written: one that does not fit means that nothing is joined.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol, TypeAlias

import h5py

from fileserver.hdf5 import blocks, differing, grid, load, read, rest, stretches, transcode
from fileserver.hdf5.compare import Depth, differences
from fileserver.hdf5.declared import declared
from fileserver.hdf5.dimension import Misfit
from fileserver.hdf5.files import OPEN, Files
from fileserver.hdf5.fitting import First, Fitted, first, fitted
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects, Slab
from fileserver.hdf5.ids import root_id
from fileserver.hdf5.joining import Joining, known, naming
from fileserver.hdf5.joint import Joint, described, joints
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.source import Source
from fileserver.hdf5.storage import Bucket, Written
from fileserver.hdf5.survey import Planned, Survey
from fileserver.hdf5.survey import names as names_of
from fileserver.together import side_by_side
from planes.errors import Corrupt, Error, NotFound
from planes.plane import Plane

DEPTHS: Final[Mapping[str, Depth]] = {"metadata": Depth.NONE, "sample": Depth.SAMPLE, "full": Depth.FULL}
"""How much is compared, by the words of an ingest."""
_WIDTH: Final = 3  # blocks of one file that are sent at once
_SAMPLED: Final = 3  # blocks of a file's dataset that are looked at, where its chunks were put together
_WHOLE: Final = frozenset({"extents", "limits"})  # of what is joined, those of the file are not those of the domain


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
    more = Written()
    for number in range(len(files.places)):
        async with files.open(number) as source:
            for joint in made.joints:
                more.carried += await sent(source, joint, number, objects, names)
            await source.unchanged()
        did(number)
    return replace(loaded, written=_sum(more, loaded.written))


async def sent(source: Source, joint: Joint, number: int, objects: Objects, names: Mapping[str, str]) -> int:
    """Send what a file has of a dataset to where it belongs; how many bytes.

    Raises:
        Misfit: they cannot be read.
    """
    carried = 0
    with naming(joint, number):
        planned, known_ = await source.run(partial(_here, joint=joint, names=names))
        async with stretches.contents(source, planned.node, planned.facts) as held:

            async def one(block: Cut) -> None:
                nonlocal carried
                values = await held.stored(stretches.Block(block.start, block.count), known_)
                await objects.write(names[joint.path], values, slabs(block, joint.axis, joint.offset(number)))
                carried += len(values)

            await side_by_side(await blocks.stored(source, planned), one, _WIDTH)
    return carried


async def check(files: Files, made: Whole, connection: Connection, path: str, loaded: Loaded, level: str) -> None:
    """Compare the domain at `path` with all files, through the server: with the first as a domain of its own is.

    Of what is joined `sample` reads of each file a block of every dataset, some more where chunks were put together;
    `full` reads all.

    Raises:
        Corrupt: they differ; says where first.
        Changed: a file is another by now.
    """
    if level == "none":
        return
    objects, names = Objects(connection, path, loaded.root), paths(loaded.survey, loaded.root)
    back = Back(objects, f"{show(path)} on HSDS '{connection.name}'", made.joints, names, level)
    mine = {joint.path for joint in made.joints}
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
        """The data of all files; raises Corrupt, Changed."""

        async def one(number: int) -> None:
            async with files.open(number) as source:
                await self._file(source, number)

        if self._level != "metadata":
            await side_by_side(range(len(files.places)), one, OPEN)

    async def _file(self, source: Source, number: int) -> None:
        for joint in self._joints:
            planned, known_ = await source.run(partial(_here, joint=joint, names=self._names))
            if planned.facts.dims is None or 0 in planned.facts.dims:
                continue
            async with stretches.contents(source, planned.node, planned.facts) as held:
                for block in self._blocks(joint, planned, number):
                    where = slabs(block, joint.axis, joint.offset(number))
                    theirs = await self._objects.read(self._names[joint.path], where)
                    ours = await held.stored(block, known_)
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


def _here(file: h5py.File, joint: Joint, names: Mapping[str, str]) -> tuple[Planned, dict[int, str]]:
    """A dataset as it is in one of the files, with the chunks of the whole; and ids for its references."""
    facts = read.facts(transcode.dataset(file, joint.planned.node.raw))
    return Planned(joint.planned.node, facts, joint.planned.plan), known(file, facts.typed.stored, names)


def _sum(one: Written, other: Written) -> Written:
    return Written(
        one.objects + other.objects, one.copied + other.copied, one.carried + other.carried, one.kept + other.kept
    )
