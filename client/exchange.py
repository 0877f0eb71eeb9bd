"""Between HDF5 files and domains of HSDS: one method a call, and what its answers look like as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from client.api import Client
from client.shapes import JSON
from client.specs import location
from client.words import Location
from fileserver.v1 import exchange_pb2
from fileserver.v1.exchange_pb2_grpc import ExchangeServiceStub

_DATA: Final = {
    "none": exchange_pb2.CompareDomainRequest.DATA_NONE,
    "sample": exchange_pb2.CompareDomainRequest.DATA_SAMPLE,
    "full": exchange_pb2.CompareDomainRequest.DATA_FULL,
}


class Exchange:
    """The calls of ExchangeService.

    Args:
        client: of the file server.
        target: the HSDS server; empty is the first that is configured.
    """

    def __init__(self, client: Client, target: str = "") -> None:
        self._client = client
        self._target = target

    def compare(self, source: Location, domain: str, data: str) -> Iterator[exchange_pb2.CompareDomainResponse]:
        """Differences, as they are found; `data` is none, sample or full. The last answer says what was compared."""
        request = exchange_pb2.CompareDomainRequest(
            source=location(source), domain=domain, target=self._target, data=_DATA[data]
        )
        self._client.list_planes()  # waits for the server, and learns its cookie: a stream cannot be begun anew
        yield from self._client.stream(lambda c: ExchangeServiceStub(c).CompareDomain, request)


def shape(found: exchange_pb2.Difference) -> dict[str, JSON]:
    """One difference."""
    return {"path": found.path, "what": found.what, "left": found.left, "right": found.right}


def compared(found: exchange_pb2.Compared) -> dict[str, JSON]:
    """What was compared."""
    return {
        "objects": found.objects,
        "attributes": found.attributes,
        "datasets": found.datasets,
        "bytes": found.bytes,
    }
