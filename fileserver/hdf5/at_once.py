"""All objects of a small file in one trip to its thread, from bytes that are in memory already.

A small file costs what its trips between threads cost, not what its bytes do. What comes out is, byte for byte, what
a load makes that goes object by object (`fileserver.hdf5.load`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import h5py

from fileserver.hdf5 import blocks, fletcher, grid
from fileserver.hdf5.making import Making, data_size, decoded_size, slabs, unlike_its_checksum
from fileserver.hdf5.model import ChunkTable
from fileserver.hdf5.routes import Route
from fileserver.hdf5.storage import Piece
from fileserver.hdf5.survey import Planned, Survey
from planes.plane import MIB

_MOST: Final = 8 * MIB  # bytes of all chunks together


@dataclass(slots=True)
class Made:
    """Keys and bytes of all objects of a file that are not in the bucket yet."""

    chunks: list[tuple[str, bytes | memoryview]] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    """In the order in which they are to be written; behind the chunks."""
    kept: int = 0
    """Raw chunks that are there already."""


def suits(survey: Survey) -> bool:
    """Whether all data lie in the file itself, and are few enough to be held at once."""
    beside = any(p.facts.segments or p.facts.sources or p.facts.layout == "virtual" for p in survey.datasets)
    return not beside and sum(map(data_size, survey.datasets)) <= _MOST


def make(file: h5py.File, making: Making, data: bytes, has: Callable[[str], bool]) -> Made:
    """Everything, in the thread of the file.

    Args:
        file: open.
        making: what is known of it.
        data: all of its bytes.
        has: whether the bucket has an object.
    """
    return _Maker(file, making, memoryview(data), has).run()


@dataclass(slots=True)
class _Maker:
    file: h5py.File
    making: Making
    data: memoryview
    has: Callable[[str], bool]
    made: Made = field(default_factory=Made)

    def run(self) -> Made:
        small, others = self.making.together()
        self._place(small)
        for planned in others:
            with self.making.losing(planned.node):
                self._data(planned)
        self.making.forget_lost()
        self.made.bodies = self.making.bodies(self.file, self.making.described())
        return self.made

    def _data(self, planned: Planned) -> None:
        match planned.plan.route:
            case Route.SLAB:
                offset = planned.facts.offset or 0
                for s in slabs(planned):
                    key = self.making.key(planned, s.place)
                    self._cut(Piece(key, offset + s.start, offset + s.end, s.full))
            case Route.PLACE:
                self._place([planned])
            case Route.TRANSCODE | Route.MERGE:
                self._decode(planned, blocks.places(self.file, planned))
            case _:
                pass

    def _place(self, batch: Sequence[Planned]) -> None:
        tables = self.making.tables(self.file, batch)
        for planned, table in tables:
            with self.making.losing(planned.node):
                self._placed(planned, table)

    def _placed(self, planned: Planned, table: ChunkTable) -> None:
        size = decoded_size(planned) if planned.plan.level is not None else 0
        for piece in self.making.raw(planned, table):
            behind = self.data[piece.end : piece.end + piece.trailer]
            if piece.trailer and not fletcher.matches(self.data[piece.start : piece.end], behind):
                raise unlike_its_checksum(piece)
            if size and not _is_whole(self.data[piece.start : piece.end], size):
                msg = f"the chunk at byte {piece.start} cannot be decompressed to what a chunk holds: it is damaged"
                raise OSError(msg)  # as the library says of what it finds
            self._cut(piece)
        if again := self.making.not_raw(planned, table):
            self._decode(planned, again)

    def _cut(self, piece: Piece) -> None:
        if self.has(piece.key):
            self.made.kept += 1
            return
        part = self.data[piece.start : piece.end]
        full = part if len(part) >= piece.full else bytes(part).ljust(piece.full, b"\0")
        self.made.chunks.append((piece.key, full))

    def _decode(self, planned: Planned, places: Iterable[grid.Dims]) -> None:
        keys = {place: self.making.key(planned, place) for place in places}
        todo = [place for place, key in keys.items() if not self.has(key)]
        decoded = self.making.decode(self.file, planned, todo)
        self.made.chunks.extend((keys[place], data) for place, data in zip(todo, decoded, strict=True))


def _is_whole(data: memoryview, size: int) -> bool:
    """Whether bytes are those of a compressed chunk; of a small file that costs little, and nobody else may look."""
    unpacked = zlib.decompressobj()
    try:
        found = len(unpacked.decompress(data, size + 1))
    except zlib.error:
        return False
    return found == size and unpacked.eof
