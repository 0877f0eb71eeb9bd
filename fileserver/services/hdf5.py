"""Hdf5Service: HDF5 files on planes, looked at without reading their data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from fileserver.auth import allow
from fileserver.calls import Context
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from fileserver.services.shapes import location_of
from fileserver.v1 import hdf5_pb2, hdf5_pb2_grpc, transfer_pb2
from planes.errors import Refused
from planes.posix import LOCAL

if TYPE_CHECKING:
    from fileserver.hdf5.inspect import Inspected
    from fileserver.hdf5.model import Facts, Trouble

OBJECTS: Final = 100
CHUNKS: Final = 1000
LARGEST_PAGE: Final = 10_000

_KINDS: Final = {"g": "group", "d": "dataset", "t": "datatype"}

# The HDF5 library is loaded, and need be installed, for who has HDF5 files.
# ruff: noqa: PLC0415


class Hdf5Servicer(hdf5_pb2_grpc.Hdf5ServiceServicer):
    """HDF5 files on the wire.

    Args:
        planes: where the files are.
    """

    def __init__(self, planes: Configured) -> None:
        self._planes = planes

    async def InspectFile(self, request: hdf5_pb2.InspectFileRequest, context: Context) -> hdf5_pb2.InspectFileResponse:
        """One page of objects; raises InvalidSpec, PlaneNotFound, CallerDenied, NotFound, FormatMismatch, Changed."""
        wrong: dict[str, str] = {}
        plane, key = place_of(request.source, wrong)
        first, size = _page(request.page_token, request.page_size, OBJECTS, wrong)
        _refuse(wrong)
        allow(plane)
        need_library()
        from fileserver.hdf5 import inspect
        from fileserver.hdf5.source import opened

        async with opened(self._planes.plane(plane), key) as source:
            page = await inspect.inspected(source, first, size)
            await source.unchanged()
        after = first + len(page.objects)
        return hdf5_pb2.InspectFileResponse(
            objects=map(_object, page.objects),
            findings=[] if first else map(_finding, page.troubles),
            version=source.info.version,
            size=source.info.size,
            next_page_token=str(after) if after < page.total else "",
        )

    async def ListChunks(self, request: hdf5_pb2.ListChunksRequest, context: Context) -> hdf5_pb2.ListChunksResponse:
        """One page of chunks; raises InvalidSpec, PlaneNotFound, CallerDenied, NotFound, FormatMismatch, Changed."""
        wrong: dict[str, str] = {}
        plane, key = place_of(request.source, wrong)
        first, size = _page(request.page_token, request.page_size, CHUNKS, wrong)
        if not request.path.startswith("/"):
            wrong["path"] = "path is that of a dataset and begins with /"
        _refuse(wrong)
        allow(plane)
        need_library()
        from fileserver.hdf5 import inspect
        from fileserver.hdf5.source import opened

        async with opened(self._planes.plane(plane), key) as source:
            table = await inspect.chunks(source, request.path)
            await source.unchanged()
        rows, places = table.rows[first : first + size].tolist(), table.places[first : first + size].tolist()
        after = first + len(rows)
        return hdf5_pb2.ListChunksResponse(
            chunks=[
                hdf5_pb2.Hdf5Chunk(place=place, offset=offset, size=held, filter_mask=mask)
                for place, (offset, held, mask) in zip(places, rows, strict=True)
            ],
            next_page_token=str(after) if after < len(table.rows) else "",
        )


def place_of(source: transfer_pb2.Location, wrong: dict[str, str]) -> tuple[str, str]:
    """Plane and key of an HDF5 file; what is wrong with them is added to `wrong`."""
    found = location_of(source, "source", wrong)
    return found.plane, found.key.lstrip("/") if found.plane == LOCAL else found.key


def _page(token: str, size: int, usual: int, wrong: dict[str, str]) -> tuple[int, int]:
    if not 0 <= size <= LARGEST_PAGE:
        wrong["page_size"] = f"page_size is 0 (which means {usual}) to {LARGEST_PAGE}"
    if token and not (token.isascii() and token.isdigit()):
        wrong["page_token"] = "page_token is the next_page_token of the page before"  # noqa: S105 -- of a page
    return 0 if "page_token" in wrong or not token else int(token), size or usual


def _refuse(wrong: dict[str, str]) -> None:
    if wrong:
        raise InvalidSpec("; ".join(wrong.values()), wrong)


def need_library() -> None:
    """Raises Refused where the HDF5 library is not installed."""
    try:
        import h5py  # noqa: F401 -- only whether it is there
        import hdf5plugin  # noqa: F401 -- the same
    except ModuleNotFoundError as error:
        msg = f"HDF5 files need the package {error.name}: pip install 'cropduster[hdf5]'"
        raise Refused(msg, package=error.name or "", extra="hdf5") from error


def _object(found: Inspected) -> hdf5_pb2.Hdf5Object:
    made = hdf5_pb2.Hdf5Object(
        path=found.node.path,
        kind=_KINDS[found.node.kind],
        type="" if found.type is None else json.dumps(found.type),
        attributes=found.attributes,
        links=found.links,
        findings=map(_finding, found.troubles),
    )
    if found.facts is not None:
        _describe(made, found.facts)
    if found.plan is not None:
        made.route, made.reason = found.plan.route, found.plan.reason
        made.target_chunk.extend(found.plan.chunk)
    return made


def _describe(made: hdf5_pb2.Hdf5Object, facts: Facts) -> None:
    made.space = "null" if facts.dims is None else "simple" if facts.dims else "scalar"
    made.dims.extend(facts.dims or ())
    made.max_dims.extend(-1 if most is None else most for most in facts.maxdims or ())
    made.layout = facts.layout
    made.chunk.extend(facts.chunk or ())
    made.filters.extend(each.name or str(each.number) for each in facts.filters)
    made.stored_bytes = facts.stored


def _finding(trouble: Trouble) -> hdf5_pb2.Hdf5Finding:
    return hdf5_pb2.Hdf5Finding(path=trouble.path, what=trouble.what, reason=trouble.reason)
