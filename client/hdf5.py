"""HDF5 files on planes: one method a call, and what they look like as JSON and for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from client.api import Client
from client.calls import pages
from client.shapes import JSON
from client.specs import location
from client.words import Location
from fileserver.v1 import hdf5_pb2
from fileserver.v1.hdf5_pb2_grpc import Hdf5ServiceStub


class Hdf5Files:
    """The calls of Hdf5Service.

    Args:
        client: of the file server.
        source: the file.
    """

    def __init__(self, client: Client, source: Location) -> None:
        self._call = client.call
        self._source = location(source)

    def objects(self) -> Iterator[hdf5_pb2.Hdf5Object | hdf5_pb2.Hdf5Finding]:
        """All objects of the file, and what is wrong with links to them."""

        def page(token: str) -> hdf5_pb2.InspectFileResponse:
            request = hdf5_pb2.InspectFileRequest(source=self._source, page_size=1000, page_token=token)
            return self._call(lambda c: Hdf5ServiceStub(c).InspectFile, request, timeout=None)

        return pages(page, lambda answer: [*answer.objects, *answer.findings])

    def chunks(self, path: str) -> Iterator[hdf5_pb2.Hdf5Chunk]:
        """Where the chunks of a dataset lie."""

        def page(token: str) -> hdf5_pb2.ListChunksResponse:
            request = hdf5_pb2.ListChunksRequest(source=self._source, path=path, page_size=10_000, page_token=token)
            return self._call(lambda c: Hdf5ServiceStub(c).ListChunks, request, timeout=None)

        return pages(page, lambda answer: answer.chunks)


def shape(found: hdf5_pb2.Hdf5Object | hdf5_pb2.Hdf5Finding) -> dict[str, JSON]:
    """An object, or a link that is none."""
    if isinstance(found, hdf5_pb2.Hdf5Finding):
        return {"path": found.path, "kind": "link", "findings": [_finding(found)]}
    body: dict[str, JSON] = {"path": found.path, "kind": found.kind, "attributes": found.attributes}
    if found.kind == "group":
        body["links"] = found.links
    else:
        body["type"] = json.loads(found.type) if found.type else None
    if found.kind == "dataset":
        body |= {
            "space": found.space,
            "dims": list(found.dims),
            "max_dims": [None if most < 0 else most for most in found.max_dims] or None,
            "layout": found.layout,
            "chunk": list(found.chunk) or None,
            "filters": list(found.filters),
            "stored_bytes": found.stored_bytes,
            "route": found.route or None,
            "reason": found.reason,
            "target_chunk": list(found.target_chunk) or None,
        }
    return body | {"findings": [_finding(each) for each in found.findings]}


def chunk_shape(found: hdf5_pb2.Hdf5Chunk) -> dict[str, JSON]:
    """Where one chunk lies."""
    return {
        "place": list(found.place),
        "offset": found.offset,
        "size": found.size,
        "filter_mask": found.filter_mask,
    }


def extents(dims: Iterable[int]) -> str:
    """Extents for people: `7168 x 7168`."""
    return " x ".join(map(str, dims))


def _finding(found: hdf5_pb2.Hdf5Finding) -> dict[str, JSON]:
    return {"path": found.path, "what": found.what, "reason": found.reason}
