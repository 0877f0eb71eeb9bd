"""The chunks of datasets that are joined of many files, into a bucket: those that fit as they are, others put together.

Chunks that an earlier attempt has written are not written again, so a load that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

import h5py
import numpy as np
import numpy.typing as npt

from fileserver.hdf5 import grid, ids, read, transcode
from fileserver.hdf5.aggregate import Cut, Part
from fileserver.hdf5.dimension import Damaged
from fileserver.hdf5.elements import Pointing, to_bytes
from fileserver.hdf5.files import Files
from fileserver.hdf5.fletcher import TRAILER
from fileserver.hdf5.joint import Joint
from fileserver.hdf5.making import folder_of, unlike_its_checksum
from fileserver.hdf5.model import FLETCHER, Facts
from fileserver.hdf5.outline import BROKEN, outline
from fileserver.hdf5.source import Source
from fileserver.hdf5.storage import Bucket, Piece
from fileserver.hdf5.types import Reference, Type, Values, parts
from fileserver.hdf5.typing_rules import NotHeld
from fileserver.together import side_by_side
from planes.plane import MIB

_DECODED: Final = 8 * MIB  # bytes of chunks that are put together at a time
_FILES: Final = 2  # of which chunks are placed at a time
_ROWS: Final = 2  # rows that are put together at a time
_GUESS: Final = 64  # bytes of an element of variable length
_NOTHING: Final = b"\0\0\0\0"  # an element of variable length without content

Elements: TypeAlias = npt.NDArray[np.void | np.object_]
"""Elements as HSDS stores them, each as its bytes."""
There: TypeAlias = Callable[[Joint, grid.Dims, grid.Dims], Awaitable[Elements]]
"""Elements of what the domain has already: of a dataset, from a place on, so many."""


@dataclass(slots=True)
class Joining:
    """Writes the chunks of one domain.

    Args:
        bucket: of the server, for one load.
        files: that are joined.
        names: ids of the domain's objects by their paths.
        joints: the datasets.
        there: reads what the domain has already, where it has something.
        did: told of each file whose own chunks are there.
    """

    bucket: Bucket
    files: Files
    names: Mapping[str, str]
    joints: Sequence[Joint]
    there: There | None = None
    did: Callable[[int], None] = lambda _: None

    async def run(self) -> None:
        """Write them all.

        Raises:
            Changed: a file is not the version that was listed.
            Damaged: data of one cannot be read, or HSDS does not hold them.
        """
        placed = [(joint, joint.placed()) for joint in self.joints]

        async def place(number: int) -> None:
            todo = [(joint, found[number]) for joint, found in placed if found.get(number)]
            if todo:
                await self._place(number, todo)
            self.did(number)

        await side_by_side(range(len(self.files.places)), place, _FILES)
        cuts = ((joint, cut) for joint in self.joints for cut in joint.cuts())
        await side_by_side(cuts, lambda one: self._cut(*one), _ROWS)

    def _key(self, joint: Joint, place: Sequence[int]) -> str:
        return ids.chunk_key(self.names[joint.path], self.bucket.root, place)

    # --- as they are --------------------------------------------------------------------------------------------

    async def _place(self, number: int, todo: Sequence[tuple[Joint, Mapping[int, int]]]) -> None:
        async with self.files.open(number) as source:
            pieces: list[Piece] = []
            for joint, moved in todo:
                with naming(joint, number):
                    found = partial(self._found, joint=joint, moved=moved, size=source.info.size)
                    raw, skipped = await source.run(found)
                pieces += raw
                for place in skipped:
                    at = grid.with_axis(place, joint.axis, moved[place[joint.axis]])
                    part = Part(number + 1, place[joint.axis] * joint.chunk, _end(joint, place, number), 0)
                    await self._together(joint, [at], [part], source)
            largest = max((piece.end - piece.start for piece in pieces), default=0)
            self._need_whole(await self.bucket.place(source, pieces, largest), [joint for joint, _ in todo], number)
            await source.unchanged()

    def _need_whole(self, broken: Sequence[Piece], placed: Sequence[Joint], number: int) -> None:
        """Raise Damaged if chunks of a file do not have the checksum that lies behind them."""
        for piece in broken[:1]:
            folders = {folder_of(self._key(joint, (0,))): joint for joint in placed}
            with naming(folders[folder_of(piece.key)], number):
                raise unlike_its_checksum(piece)

    def _found(
        self, file: h5py.File, joint: Joint, moved: Mapping[int, int], size: int
    ) -> tuple[list[Piece], list[grid.Dims]]:
        """Raw chunks of one file that lie in rows which are moved, and places of those that skipped a filter."""
        facts = read.facts(transcode.dataset(file, joint.planned.node.raw))
        table = read.chunk_table(file, joint.planned.node, joint.planned.plan.chunk)
        if len(table.rows) and int((table.rows["offset"] + table.rows["size"]).max()) > size:
            msg = f"a chunk of {joint.path} reaches past the end of the file: its index of chunks is damaged"
            raise OSError(msg)  # as the library says of damage that it finds
        trailer = TRAILER if facts.filters and facts.filters[-1].number == FLETCHER else 0
        pieces, skipped = [], []
        for i in np.argsort(table.rows["offset"], kind="stable"):
            place = tuple(table.places[i].tolist())
            if place[joint.axis] not in moved:
                continue
            if table.rows["mask"][i]:
                skipped.append(place)
                continue
            start, held = int(table.rows["offset"][i]), int(table.rows["size"][i])
            key = self._key(joint, grid.with_axis(place, joint.axis, moved[place[joint.axis]]))
            pieces.append(Piece(key, start, start + held - trailer, trailer=trailer))
        return pieces, skipped

    # --- put together -------------------------------------------------------------------------------------------

    async def _cut(self, joint: Joint, cut: Cut) -> None:
        how = joint.planned.plan
        size = max(1, math.prod(how.chunk) * (joint.planned.facts.item or _GUESS))
        places = _row(joint, cut.row)
        todo = (place for place in places if not self.bucket.has(self._key(joint, place)))
        while batch := list(islice(todo, max(1, _DECODED // size))):
            await self._together(joint, batch, cut.parts)

    async def _together(
        self, joint: Joint, places: Sequence[grid.Dims], made_of: Sequence[Part], source: Source | None = None
    ) -> None:
        """Chunks of one row out of parts of members, at the same places in all of them but along the dimension.

        Of one file alone that is open already, where it is given.
        """
        chunks: list[Elements] = []
        encoded: list[bytes] = []
        for part in made_of:
            windows = [_window(joint, place, part) for place in places]
            if not part.member:
                assert self.there is not None, "there is something"
                _paste(joint, chunks, part, [await self.there(joint, *window) for window in windows], _NOTHING)
                continue
            async with nullcontext(source) if source else self.files.open(part.member - 1) as opened:
                with naming(joint, part.member - 1):
                    work = partial(_elements, joint=joint, windows=windows, names=self.names)
                    found, nothing = await opened.run(work)
                _paste(joint, chunks, part, found, nothing)
                if part is made_of[-1]:  # in a thread that waits for nothing else
                    encoded = await opened.run(lambda _: [_encoded(joint, chunk) for chunk in chunks])
                await opened.unchanged()
        for place, data in zip(places, encoded or [_encoded(joint, chunk) for chunk in chunks], strict=True):
            await self.bucket.put(self._key(joint, place), data)


@contextmanager
def naming(joint: Joint, number: int) -> Iterator[None]:
    """What is wrong with data of a file is told with its number and the dataset."""
    try:
        yield
    except (NotHeld, *BROKEN) as error:
        msg = f"the data of {joint.path} cannot be read: {error}"
        raise Damaged(msg, number) from error


def _row(joint: Joint, row: int) -> Iterator[grid.Dims]:
    """The places of one row of chunks of the whole."""
    how = joint.planned.plan
    dims = joint.planned.facts.dims or ()
    one, steps = grid.with_axis(dims, joint.axis, 1), grid.with_axis(how.chunk, joint.axis, 1)
    return (grid.with_axis(place, joint.axis, row) for place in grid.places(one, steps))


def _end(joint: Joint, place: grid.Dims, number: int) -> int:
    return min((place[joint.axis] + 1) * joint.chunk, joint.shares[number].extent)


def _window(joint: Joint, place: grid.Dims, part: Part) -> tuple[grid.Dims, grid.Dims]:
    """Where a member's part of a chunk begins, and how many elements it has."""
    how, dims = joint.planned.plan, joint.planned.facts.dims or ()
    start = [i * step for i, step in zip(place, how.chunk, strict=True)]
    count = [min(step, extent - first) for step, extent, first in zip(how.chunk, dims, start, strict=True)]
    start[joint.axis], count[joint.axis] = part.start, part.stop - part.start
    return tuple(start), tuple(count)


def _elements(
    file: h5py.File, joint: Joint, windows: Sequence[tuple[grid.Dims, grid.Dims]], names: Mapping[str, str]
) -> tuple[list[Elements], bytes]:
    """Some blocks of elements, and what stands for one that is not there."""
    place = transcode.dataset(file, joint.planned.node.raw)
    facts = read.facts(place)
    kind = facts.typed.stored
    to = read.pointing(file, known(file, kind, names))
    found, nothing = list[Elements](), _NOTHING
    for start, count in windows:
        values = transcode.read(place, facts, start, count)
        found.append(split(facts, values, count, to))
        if facts.item is None:
            nothing = to_bytes(kind, np.zeros((1, *values.shape[len(count) :]), values.dtype), to)
    return found, nothing


def known(file: h5py.File, kind: Type, names: Mapping[str, str]) -> dict[int, str]:
    """Ids of objects by their address in this file, where elements of a type point to some."""
    if not any(isinstance(each, Reference) for each in parts(kind)):
        return {}
    return {node.address: names[node.path] for node in outline(file).nodes.values() if node.path in names}


def split(facts: Facts, values: Values, count: grid.Dims, to: Pointing) -> Elements:
    """Elements as their bytes."""
    kind = facts.typed.stored
    if facts.item is not None:
        return np.frombuffer(to_bytes(kind, values, to), np.dtype((np.void, facts.item))).reshape(count)
    found = np.empty(count, object)
    for at in np.ndindex(count):
        found[at] = to_bytes(kind, values[tuple(slice(i, i + 1) for i in at)], to)
    return found


def _paste(joint: Joint, chunks: list[Elements], part: Part, found: Sequence[Elements], nothing: bytes) -> None:
    """Put a part of a member into each of the chunks, which are made with the first part."""
    if not chunks:
        chunks.extend(_blank(joint, each, nothing) for each in found)
    for into, each in zip(chunks, found, strict=True):
        where = [slice(n) for n in each.shape]
        where[joint.axis] = slice(part.at, part.at + each.shape[joint.axis])
        into[tuple(where)] = each


def _blank(joint: Joint, like: Elements, nothing: bytes) -> Elements:
    """A chunk without elements."""
    if joint.planned.facts.item is not None:
        return np.zeros(joint.planned.plan.chunk, like.dtype)
    made = np.empty(joint.planned.plan.chunk, object)
    made.fill(nothing)  # numpy.full takes the zeros at the end of bytes away
    return made


def _encoded(joint: Joint, chunk: Elements) -> bytes:
    data = b"".join(chunk.reshape(-1)) if chunk.dtype == object else chunk.tobytes()
    return transcode.compressed(data, joint.planned.plan, joint.planned.facts.item or 1)
