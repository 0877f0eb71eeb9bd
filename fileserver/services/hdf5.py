"""Hdf5Service: HDF5 files on planes, looked at without reading their data."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from fileserver.auth import allow
from fileserver.calls import Context
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec, from_record, refuse
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.needs import need_library
from fileserver.services.shapes import failure_message, location_of, spec_of
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.ingest_rows import File, Found, Told
from fileserver.transfer.spec import Ingest
from fileserver.v1 import hdf5_pb2, hdf5_pb2_grpc, transfer_pb2
from planes.errors import Error
from planes.posix import LOCAL

if TYPE_CHECKING:
    from fileserver.hdf5.inspect import Inspected, Page
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
        ingests: what is known of ingests.
    """

    def __init__(self, planes: Configured, ingests: IngestStages) -> None:
        self._planes = planes
        self._ingests = ingests

    async def InspectFile(self, request: hdf5_pb2.InspectFileRequest, context: Context) -> hdf5_pb2.InspectFileResponse:
        """One page of objects; raises InvalidSpec, PlaneNotFound, CallerDenied, NotFound, FormatMismatch, Changed."""
        wrong: dict[str, str] = {}
        plane, key = place_of(request.source, wrong)
        first, size = _page(request.page_token, request.page_size, OBJECTS, wrong)
        refuse(wrong)
        allow(plane)
        self._planes.refuse_hosts((plane,), "HDF5 files are read where a file server is")
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
        refuse(wrong)
        allow(plane)
        self._planes.refuse_hosts((plane,), "HDF5 files are read where a file server is")
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

    async def PlanIngest(
        self, request: hdf5_pb2.PlanIngestRequest, context: Context
    ) -> AsyncIterator[hdf5_pb2.PlanIngestResponse]:
        """Files with their objects; raises InvalidSpec, PlaneNotFound, CallerDenied, NotFound."""
        spec = spec_of(request.spec)
        if not isinstance(spec.verb, Ingest):
            msg = "only an ingest is planned here; plan other transfers by CreateTransfer with validate_only"
            raise InvalidSpec(msg, {"spec": msg})
        if spec.verb.aggregate:
            async for file, told, error in self._ingests.preview_joined(spec):
                yield _foreseen(file, told, error)
            return
        ways = {"bucket": self._ingests.writes_bucket(spec), "link": spec.verb.mode == "link"}
        async for found in self._ingests.preview(spec):
            source = transfer_pb2.Location(plane=found.plane, key=found.key)
            head = hdf5_pb2.PlanIngestResponse(source=source, size=found.size, domain=show(found.domain))
            if found.error is not None:
                head.error.CopyFrom(failure_message(from_record(found.error)))
                yield head
                continue
            try:
                async for page in self._planned(found, **ways):
                    head.objects.extend(map(_object, page.objects))
                    head.findings.extend(map(_finding, page.troubles))
                    yield head
                    head = hdf5_pb2.PlanIngestResponse(source=source, size=found.size, domain=head.domain)
            except Error as error:
                head.error.CopyFrom(failure_message(error))
                yield head

    async def _planned(self, found: Found, *, bucket: bool, link: bool) -> AsyncIterator[Page]:
        from fileserver.hdf5 import inspect
        from fileserver.hdf5.routes import Means
        from fileserver.hdf5.source import opened

        async with opened(self._planes.plane(found.plane), found.key) as source:
            first, total = 0, 1
            while first < total:
                page = await inspect.inspected(source, first, OBJECTS, Means(bucket=bucket, link=link))
                yield replace(page, troubles=() if first else page.troubles)
                first, total = first + OBJECTS, page.total

    async def ReportIngest(
        self, request: hdf5_pb2.ReportIngestRequest, context: Context
    ) -> AsyncIterator[hdf5_pb2.ReportIngestResponse]:
        """Files with what became of their objects; raises TransferNotFound, InvalidSpec."""
        async for file, told in self._ingests.report(request.name.removeprefix("transfers/")):
            message = hdf5_pb2.ReportIngestResponse(objects=(hdf5_pb2.IngestedObject(**asdict(each)) for each in told))
            if file is not None:
                message.file.CopyFrom(_ingested(file))
            yield message


def _foreseen(file: File, told: Sequence[Told], error: Error | None) -> hdf5_pb2.PlanIngestResponse:
    """A file that would be joined with others."""
    source = transfer_pb2.Location(plane=file.plane, key=file.key)
    made = hdf5_pb2.PlanIngestResponse(source=source, size=file.size, domain=show(file.domain))
    for each in told:
        if each.kind or not each.path:
            made.objects.add(
                path=each.path, kind=each.kind, route=each.route, stored_bytes=each.bytes, reason=each.reason
            )
        else:
            made.findings.add(path=each.path, what=each.result, reason=each.reason)
    if error is not None:
        made.error.CopyFrom(failure_message(error))
    return made


def _ingested(file: File) -> hdf5_pb2.IngestedFile:
    made = hdf5_pb2.IngestedFile(
        source=transfer_pb2.Location(plane=file.plane, key=file.key),
        size=file.size,
        version=file.version,
        domain=show(file.domain),
        state=file.state,
        tries=file.tries,
        verified=file.verified,
        bytes_through_us=file.through_us,
        bytes_native=file.native,
        seconds=(file.ended or 0.0) - (file.begun or 0.0) if file.ended and file.begun else 0.0,
        root=file.root,
    )
    if file.error is not None:
        made.error.CopyFrom(failure_message(from_record(file.error)))
    return made


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
