"""What the objects of a domain are made of, one file in the thread of that file: pieces, decoded chunks, JSON.

An object that HSDS cannot hold, or that cannot be read, stays behind with a reason, and the rest goes on. References
and links to it lead nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal, TypeAlias

import h5py
import numpy as np

from fileserver.hdf5 import describe, grid, ids, read, transcode
from fileserver.hdf5.beside import STAND_IN, Assembly
from fileserver.hdf5.bodies import body
from fileserver.hdf5.model import ChunkTable, Node, Trouble
from fileserver.hdf5.outline import BROKEN, Opened
from fileserver.hdf5.routes import Route
from fileserver.hdf5.storage import Piece
from fileserver.hdf5.survey import Planned, Survey
from fileserver.hdf5.typing_rules import NotHeld
from planes.plane import MIB

_SMALL: Final = 1 * MIB  # datasets up to this size are placed together
_ITEM: Final = 64  # bytes that an element of variable length is taken for
_FILL: Final = "HSDS holds no fill value of this type: chunks that were never written are written out"

Lost: TypeAlias = Literal["refused", "failed"]
"""Why an object stays behind: HSDS cannot hold it, or it cannot be read."""


@dataclass(slots=True)
class Making:
    """The objects of one file in the making; `size` is the file's, `lost` are objects that stay behind after all.

    `opened` are objects that are open already, of whoever stays in the thread of the file till all is made.
    """

    frame: describe.Frame
    survey: Survey
    size: int
    troubles: list[Trouble]
    lost: set[int] = field(default_factory=set)
    opened: Opened | None = None

    def losing(self, node: Node) -> AbstractContextManager[None]:
        """What goes wrong with the data of one object leaves that object behind, and no other."""
        return losing(partial(self._lose, node))

    def _lose(self, node: Node, what: Lost, reason: str) -> None:
        self.troubles.append(Trouble(node.path, what, reason))
        self.lost.add(node.address)

    def forget_lost(self) -> None:
        """From now on, nothing refers to what stays behind."""
        there = {address: name for address, name in self.frame.ids.items() if address not in self.lost}
        self.frame = replace(self.frame, ids=there)

    # --- data ---------------------------------------------------------------------------------------------------

    def together(self) -> tuple[list[Planned], list[Planned]]:
        """Datasets whose chunks are placed together, and all others."""
        small = [p for p in self.survey.datasets if p.plan.route is Route.PLACE and p.facts.stored <= _SMALL]
        alone = {id(planned) for planned in small}
        return small, [planned for planned in self.survey.datasets if id(planned) not in alone]

    def key(self, planned: Planned, place: Sequence[int]) -> str:
        """The key of a chunk by its place in the grid."""
        return ids.chunk_key(self.frame.ids[planned.node.address], self.frame.root, place)

    def tables(self, file: h5py.File, batch: Sequence[Planned]) -> list[tuple[Planned, ChunkTable]]:
        """Where the chunks of datasets lie; a dataset whose index is damaged stays behind."""
        found = []
        for planned in batch:
            with self.losing(planned.node):
                table = read.chunk_table(file, planned.node, planned.plan.chunk, self.opened)
                ends = table.rows["offset"] + table.rows["size"]
                if len(ends) and int(ends.max()) > self.size:
                    msg = "a chunk reaches past the end of the file: its index of chunks is damaged"
                    raise OSError(msg)  # as the library says of damage that it finds
                found.append((planned, table))
        return found

    def raw(self, planned: Planned, table: ChunkTable) -> Iterator[Piece]:
        """Chunks that went through all filters, in the order in which they lie in the file."""
        raw = np.flatnonzero(table.rows["mask"] == 0)
        for i in raw[np.argsort(table.rows["offset"][raw], kind="stable")]:
            start, held = int(table.rows["offset"][i]), int(table.rows["size"][i])
            key, trailer = self.key(planned, table.places[i].tolist()), planned.plan.trailer
            yield Piece(key, start, start + held - trailer, trailer=trailer)

    def lose_broken(self, placed: Sequence[Planned], pieces: Sequence[Piece]) -> None:
        """Leave behind datasets of which these chunks do not have the checksum that lies behind them."""
        first = {folder_of(piece.key): piece for piece in reversed(pieces)}
        for planned in placed:
            piece = first.get(folder_of(self.key(planned, (0,))))
            if piece is not None:
                with self.losing(planned.node):
                    raise unlike_its_checksum(piece)

    def not_raw(self, planned: Planned, table: ChunkTable) -> list[grid.Dims]:
        """Places of chunks that have to be decoded all the same, or written out because there are none."""
        skipped = np.flatnonzero(table.rows["mask"] != 0)
        again = [tuple(place) for place in table.places[skipped].tolist()]
        if planned.facts.fill_unheld:
            there = {tuple(place) for place in table.places.tolist()}
            every = grid.places(planned.facts.dims or (), planned.plan.chunk)
            again.extend(place for place in every if place not in there)
            self.troubles.append(Trouble(planned.node.path, "mapped", _FILL))
        return again

    def decode(
        self, file: h5py.File, planned: Planned, places: Sequence[grid.Dims], made: Assembly | None = None
    ) -> list[bytes]:
        """Chunks of a dataset; of a virtual one from the stand-in that was `made` for it."""
        place = transcode.dataset(made.made[0], STAND_IN) if made else transcode.dataset(file, planned.node.raw)
        to = read.pointing(file, self.frame.ids)
        return [transcode.chunk_bytes(place, planned.facts, planned.plan, at, to) for at in places]

    # --- what describes them ------------------------------------------------------------------------------------

    def described(self) -> list[Node]:
        """What arrives: datasets and types first, then groups; the root, which is the first node, is the last."""
        nodes = [n for n in self.survey.outline.nodes.values() if n.address in self.frame.ids]
        root = self.survey.outline.root
        return sorted(nodes, key=lambda node: (node.kind == "g", node is root))

    def bodies(self, file: h5py.File, nodes: Sequence[Node]) -> list[tuple[str, bytes]]:
        """Keys and JSON of objects."""
        to = read.pointing(file, self.frame.ids)
        datasets = {planned.node.address: planned for planned in self.survey.datasets}
        found = []
        for node in nodes:
            planned = datasets.get(node.address)
            if planned is None:
                data = body(file, self.frame, self.survey.outline, node, None, to, self.troubles, self.opened)
            else:
                known = read.dataset(file, node, to, self.troubles, planned.facts, self.opened)
                data = describe.dataset_json(self.frame, known, planned.plan)
            found.append((ids.key(self.frame.ids[node.address], root=self.frame.root), data))
        return found


def folder_of(key: str) -> str:
    """What the keys of all chunks of one dataset begin with."""
    return key.rpartition("/")[0]


def unlike_its_checksum(piece: Piece) -> OSError:
    """Damage that is found in a chunk; as the library says of what it finds."""
    msg = f"the chunk at byte {piece.start} does not match the checksum (fletcher32) behind it: it is damaged"
    return OSError(msg)


@contextmanager
def losing(lose: Callable[[Lost, str], None]) -> Iterator[None]:
    """What goes wrong with the data of one object is told to `lose`, with the reason."""
    try:
        yield
    except NotHeld as error:
        lose("refused", str(error))
    except BROKEN as error:
        lose("failed", f"its data cannot be read: {error}")


def slabs(planned: Planned) -> Iterator[grid.Slab]:
    """The chunks of contiguous data, by offsets in that data."""
    facts, item = planned.facts, planned.facts.item or 1
    return grid.slabs(facts.dims, planned.plan.chunk, item) if facts.dims else iter([grid.Slab((), 0, item, item)])


def decoded_size(planned: Planned) -> int:
    """Bytes of one chunk of a dataset, decoded; a guess where elements have no size of their own."""
    return max(1, math.prod(planned.plan.chunk) * (planned.facts.item or _ITEM))


def data_size(planned: Planned) -> int:
    """Bytes that the chunks of a dataset have together, at most."""
    facts, route = planned.facts, planned.plan.route
    if route is Route.NONE:
        return 0
    if route is Route.PLACE and not facts.fill_unheld:
        return facts.stored
    return grid.count(facts.dims or (), planned.plan.chunk) * decoded_size(planned)
