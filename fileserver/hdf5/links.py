"""Link mode: a domain that says where the chunks of a file lie, instead of having them.

HSDS 1.0.2 reads through three layouts: H5D_CHUNKED_REF, which holds the place of each chunk; H5D_CHUNKED_REF_INDIRECT,
which names another dataset of the domain as a table of them; and H5D_CONTIGUOUS_REF. It reads the file with its own
rights, from the storage of its own bucket. What it cannot read so is ingested (see `fileserver.hdf5.routes`); so are
datasets of which single chunks skipped a filter: the server answers 500 to who reads those through a link.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import h5py
import numpy as np
import numpy.typing as npt

from fileserver.configured import where
from fileserver.hdf5 import grid, ids, read
from fileserver.hdf5.model import ChunkTable, Trouble
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.routes import Means, Route, plan
from fileserver.hdf5.source import Source
from fileserver.hdf5.storage import Bucket
from fileserver.hdf5.types import Json
from planes.errors import Refused
from planes.plane import Info, Plane, Ticket

if TYPE_CHECKING:
    from fileserver.hdf5.survey import Planned

FEW: Final = 1000
"""So many chunks are listed in the JSON of their dataset; more get a table of their own."""
_BATCH: Final = 16  # datasets whose chunk tables are held at a time
_ROW: Final = np.dtype([("offset", "<i8"), ("size", "<i4")])
_ROW_JSON: Final[Json] = {
    "class": "H5T_COMPOUND",
    "fields": [
        {"name": "offset", "type": {"class": "H5T_INTEGER", "base": "H5T_STD_I64LE"}},
        {"name": "size", "type": {"class": "H5T_INTEGER", "base": "H5T_STD_I32LE"}},
    ],
}


@dataclass(frozen=True, slots=True)
class Table:
    """Where the chunks of one dataset lie, as a dataset of its own; without an entry they have size 0."""

    id: str
    rows: npt.NDArray[np.void]

    @property
    def chunk(self) -> grid.Dims:
        """Extents of its own chunks."""
        return grid.slabs_of(self.rows.shape, _ROW.itemsize)

    def body(self, root: str, created: float) -> dict[str, Json]:
        """Its JSON as HSDS stores it."""
        return {
            "id": self.id,
            "root": root,
            "created": created,
            "lastModified": created,
            "attributes": {},
            "type": _ROW_JSON,
            "shape": {"class": "H5S_SIMPLE", "dims": list(self.rows.shape)},
            "creationProperties": {"layout": {"class": "H5D_CHUNKED", "dims": list(self.chunk)}},
        }

    def chunk_bytes(self, place: grid.Dims) -> bytes:
        """One of its chunks, filled up where it reaches beyond the table."""
        full = np.zeros(self.chunk, _ROW)
        start = tuple(i * n for i, n in zip(place, self.chunk, strict=True))
        part = self.rows[tuple(slice(a, a + n) for a, n in zip(start, self.chunk, strict=True))]
        full[tuple(slice(n) for n in part.shape)] = part
        return full.tobytes()


async def uri(plane: Plane, info: Info, storage: Plane | None) -> str:
    """The name by which the server reads a file itself.

    Args:
        plane: that the file is on.
        info: of the file.
        storage: the plane that is the server's bucket, if we know it.

    Raises:
        Refused: the server cannot read it there.
    """
    ticket = plane.copy_ticket(info)
    kind = ticket.kind if ticket else ""
    if ticket is None or kind not in {"posix", "s3", "azure"}:
        raise _unreadable(plane, info, "a server reads files of a file system, of S3 and of Azure")
    if kind == "posix":
        return await asyncio.to_thread(_below_root, plane, info, ticket, storage)
    if storage is not None and not storage.accepts(ticket):
        raise _unreadable(plane, info, f"it is not in the store that the server's bucket ({storage.name}) is in")
    if kind == "s3":
        return f"s3://{ticket.location['bucket']}/{ticket.location['key']}"
    return f"{ticket.scope.rstrip('/')}/{ticket.location['container']}/{ticket.location['blob']}"


async def linked(
    source: Source, datasets: Sequence[Planned], file_uri: str, root: str, keep: Callable[[Table], Awaitable[None]]
) -> tuple[tuple[Planned, ...], tuple[Trouble, ...]]:
    """The same datasets, those that travel by link with the layout for it, and what else is to be said of them.

    Args:
        source: the file.
        datasets: as they were planned with `Means(link=True)`.
        file_uri: see `uri`.
        root: id of the root group.
        keep: stores the table of a dataset of many chunks.
    """
    found: list[Planned] = []
    troubles: list[Trouble] = []
    left = iter(datasets)
    while batch := list(islice(left, _BATCH)):
        tables = await source.run(partial(_tables, datasets=batch))
        for planned, table in zip(batch, tables, strict=True):
            if planned.plan.route is not Route.LINK:
                found.append(planned)
            elif isinstance(table, str):
                found.append(replace(planned, plan=plan(planned.facts, Means())))
                troubles.append(Trouble(planned.node.path, "mapped", f"ingested, not linked: {table}"))
            else:
                name = ids.object_id(root, "d", f"chunks of {planned.node.address}")
                layout, more = _layout(planned, table, file_uri, name)
                if more is not None:
                    await keep(more)
                found.append(replace(planned, plan=replace(planned.plan, link=layout)))
    return tuple(found), tuple(troubles)


async def put(bucket: Bucket, root: str, created: float, table: Table) -> None:
    """Write a table past the server, its chunks first."""
    for place in grid.places(table.rows.shape, table.chunk):
        key = ids.chunk_key(table.id, root, place)
        if not bucket.has(key):
            await bucket.put(key, table.chunk_bytes(place))
    await bucket.put(ids.key(table.id, root), json.dumps(table.body(root, created)).encode())


def _tables(file: h5py.File, datasets: Sequence[Planned]) -> list[ChunkTable | str]:
    """The chunk table of each, or why it cannot be linked to."""
    found: list[ChunkTable | str] = []
    for planned in datasets:
        if planned.plan.route is not Route.LINK or planned.facts.layout != "chunked":
            found.append(ChunkTable(np.zeros(0, np.void), np.zeros(0, np.int64)))
            continue
        try:
            table = read.chunk_table(file, planned.node, planned.plan.chunk)
            skipped = int(np.count_nonzero(table.rows["mask"]))
            large = bool(len(table.rows)) and int(table.rows["size"].max()) >= 1 << 31
            why = "chunks of 2 GiB" if large else f"{skipped} of its chunks skipped a filter" if skipped else ""
            found.append(why or table)
        except BROKEN as error:
            found.append(f"its chunks cannot be found: {error}")
    return found


def _layout(planned: Planned, table: ChunkTable, file_uri: str, name: str) -> tuple[Json, Table | None]:
    facts, chunk = planned.facts, planned.plan.chunk
    if facts.layout == "contiguous":
        data: dict[str, Json] = {"file_uri": file_uri, "offset": facts.offset, "size": facts.stored}
        return {"class": "H5D_CONTIGUOUS_REF", **data}, None
    head: dict[str, Json] = {"file_uri": file_uri, "dims": list(chunk)}
    if len(table.rows) <= FEW:
        places = zip(table.places.tolist(), table.rows["offset"].tolist(), table.rows["size"].tolist(), strict=True)
        chunks: Json = {"_".join(map(str, place)): [offset, size] for place, offset, size in places}
        return {"class": "H5D_CHUNKED_REF", **head, "chunks": chunks}, None
    counts = tuple(-(-extent // step) for extent, step in zip(facts.dims or (), chunk, strict=True))
    rows = np.zeros(counts, _ROW)
    at = tuple(table.places.T)
    rows["offset"][at], rows["size"][at] = table.rows["offset"], table.rows["size"]
    return {"class": "H5D_CHUNKED_REF_INDIRECT", **head, "chunk_table": name}, Table(name, rows)


def _below_root(plane: Plane, info: Info, ticket: Ticket, storage: Plane | None) -> str:
    """On POSIX storage the server reads what lies below its root, whose folders are its buckets."""
    own = storage.copy_ticket(Info("x", 0, "", datetime.now(UTC))) if storage else None
    if own is None or own.kind != "posix":
        raise _unreadable(plane, info, "name the plane that is the server's bucket as `storage` of that server")
    root = os.path.dirname(os.path.realpath(own.location["root"]))  # noqa: PTH120 -- text in, text out
    path = os.path.realpath(os.path.join(ticket.location["root"], ticket.location["key"]))  # noqa: PTH118 -- the same
    inside = os.path.relpath(path, root)
    if inside.startswith("..") or os.sep not in inside:
        raise _unreadable(plane, info, f"it does not lie in a folder of {root}, where the server has its buckets")
    return inside


def _unreadable(plane: Plane, info: Info, why: str) -> Refused:
    msg = f"HSDS cannot read {where(plane.name, info.key)} through a link: {why}; or ingest it"
    return Refused(msg, plane=plane.name, key=info.key)
