"""Many files into one domain along a dimension: looked at, loaded past the server or by requests.

All files are looked at before anything is written: one that does not fit means that nothing is joined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from fileserver.hdf5 import blocks, load, rest, stretches
from fileserver.hdf5.dimension import Damaged, Misfit
from fileserver.hdf5.files import OPEN, Files
from fileserver.hdf5.fitting import First, Fitted, first, fitted
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.ids import root_id
from fileserver.hdf5.joining import Joining, naming
from fileserver.hdf5.joint import Joint, described, joints
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.reading_back import Cut, here, paths, slabs
from fileserver.hdf5.source import Source
from fileserver.hdf5.storage import Bucket, Written
from fileserver.together import side_by_side
from planes.bulk import settle
from planes.errors import Error
from planes.plane import Plane

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
    except BROKEN as error:
        return Looked(None, (), {0: _broken(error)})
    fitting, wrong = dict[int, Fitted](), dict[int, Misfit | Error]()

    async def measure(number: int) -> None:
        try:
            async with files.open(number) as source:
                fitting[number] = await fitted(source, one, dimension)
        except (Misfit, Error) as error:
            wrong[number] = error
        except BROKEN as error:
            wrong[number] = _broken(error)

    await side_by_side(range(1, len(files.places)), measure, OPEN)
    return Looked(one, [fitting[number] for number in sorted(fitting)], wrong)


def _broken(error: Exception) -> Misfit:
    """What the library says of a damaged file where nobody awaits it."""
    return Misfit(f"it cannot be read: {type(error).__name__}: {error}")


def whole(looked: Looked) -> Whole:
    """What files that fit are joined to."""
    shares = [looked.first.shares, *(each.shares for each in looked.others)]
    return Whole(looked.first, looked.others, joints(looked.first, shares))


async def fill(files: Files, made: Whole, bucket: Plane, name: str, created: float, did: Did = _nothing) -> Loaded:
    """Write all objects of the whole into a bucket, durably; `name` and `created` as for `fileserver.hdf5.load.load`.

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
    await settle(bucket)
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
    carried = await send_data(files, made.joints, objects, names, did)
    return replace(loaded, written=_sum(Written(carried=carried), loaded.written))


async def send_data(files: Files, joints: Sequence[Joint], objects: Objects, names: Mapping[str, str], did: Did) -> int:
    """Send what all files have of what is joined to where it belongs; how many bytes. Raises as `send`."""
    carried = 0
    for number in range(len(files.places)):
        async with files.open(number) as source:
            for joint in joints:
                carried += await _sent(source, joint, number, objects, names)
            await source.unchanged()
        did(number)
    return carried


async def _sent(source: Source, joint: Joint, number: int, objects: Objects, names: Mapping[str, str]) -> int:
    """Send what a file has of a dataset; how many bytes."""
    carried = 0
    with naming(joint, number):
        planned, known_ = await source.run(partial(here, joint=joint, names=names))
        async with stretches.contents(source, planned.node, planned.facts) as held:

            async def one(block: Cut) -> None:
                nonlocal carried
                values = await held.stored(stretches.Block(block.start, block.count), known_)
                await objects.write(names[joint.path], values, slabs(block, joint.axis, joint.offset(number)))
                carried += len(values)

            await side_by_side(await blocks.stored(source, planned), one, _WIDTH)
    return carried


async def damaged(files: Files, joints: Sequence[Joint]) -> dict[int, Damaged]:
    """Read all data that are joined; the files of which some cannot be read, by their numbers from 0, and why.

    Raises:
        Changed: a file is not the version that was listed.
    """
    found: dict[int, Damaged] = {}

    async def one(number: int) -> None:
        async with files.open(number) as source:
            try:
                for joint in joints:
                    await _readable(source, joint, number)
            except Damaged as error:
                found[number] = error

    await side_by_side(range(len(files.places)), one, OPEN)
    return found


async def _readable(source: Source, joint: Joint, number: int) -> None:
    with naming(joint, number):
        planned, _ = await source.run(partial(here, joint=joint, names={}))
        async with stretches.contents(source, planned.node, planned.facts) as held:
            for block in await blocks.stored(source, planned):
                await held.stored(block, {})


def _sum(one: Written, other: Written) -> Written:
    return Written(
        one.objects + other.objects, one.copied + other.copied, one.carried + other.carried, one.kept + other.kept
    )
