"""hdf5 inspect: what is in an HDF5 file, and how it would travel into HSDS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.places import Problems, check_places, find_all
from client.session import Session, command

if TYPE_CHECKING:
    from fileserver.v1.hdf5_pb2 import Hdf5Chunk, Hdf5Finding, Hdf5Object


def enter(app: typer.Typer) -> None:
    """Enter the command of this module."""
    command(app, "inspect")(inspect)


def inspect(
    session: Session,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="An HDF5 file: a path or PLANE:KEY.", show_default=False)
    ],
    *,
    chunks: Annotated[
        str, typer.Option(metavar="PATH", help="Show where the chunks of this dataset lie instead.", show_default=False)
    ] = "",
) -> None:
    """Show what is in an HDF5 file, and by which route each dataset would travel into HSDS; reads no data."""
    problems = Problems()
    check_places("SOURCE", [source], problems, "an HDF5 file")
    problems.check()
    from client.hdf5 import Hdf5Files, chunk_shape, shape  # noqa: PLC0415  # protobuf, not for help

    [place] = find_all(session, [source])
    file = Hdf5Files(session.client, place)
    if chunks:
        columns = ("place", "offset", "bytes", "filters left out")
        session.show.listing("chunks", file.chunks(chunks), chunk_shape, columns, _chunk)
    else:
        headers = ("route", "size", "storage", "extents", "path", "why")
        session.show.listing("objects", file.objects(), shape, headers, _cells)


def _cells(found: Hdf5Object | Hdf5Finding) -> tuple[str, ...]:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help
    from client.hdf5 import extents  # noqa: PLC0415  # the same
    from fileserver.v1.hdf5_pb2 import Hdf5Finding  # noqa: PLC0415  # the same

    if isinstance(found, Hdf5Finding):
        return found.what, "", "link", "", found.path, found.reason
    notes = "; ".join(f"{each.what}: {each.path} {each.reason}" for each in found.findings)
    if found.kind != "dataset":
        links = phrases.count(found.links, "link") if found.kind == "group" else ""
        return "", "", found.kind, links, found.path, notes
    storage = ", ".join([found.layout or "-", *found.filters])
    shown = extents(found.dims) or found.space
    if found.chunk:
        shown += f" in {extents(found.chunk)}"
    why = "; ".join(filter(None, (found.reason, notes)))
    return found.route or "-", phrases.size(found.stored_bytes), storage, shown, found.path, why


def _chunk(found: Hdf5Chunk) -> tuple[str, ...]:
    return ", ".join(map(str, found.place)), str(found.offset), str(found.size), f"{found.filter_mask:b}"
