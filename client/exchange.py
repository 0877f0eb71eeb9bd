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

COMPARISONS: Final = {
    "none": exchange_pb2.COMPARISON_NONE,
    "metadata": exchange_pb2.COMPARISON_METADATA,
    "sample": exchange_pb2.COMPARISON_SAMPLE,
    "full": exchange_pb2.COMPARISON_FULL,
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
        comparison = COMPARISONS["metadata" if data == "none" else data]
        request = exchange_pb2.CompareDomainRequest(
            source=location(source), domain=domain, target=self._target, comparison=comparison
        )
        self._ready()
        yield from self._client.stream(lambda c: ExchangeServiceStub(c).CompareDomain, request)

    def export(
        self, domain: str, file: Location, *, verify: str, overwrite: bool
    ) -> Iterator[exchange_pb2.ExportDomainResponse]:
        """A domain into a file; `verify` is one of `COMPARISONS`. The last answer says what became of it."""
        request = exchange_pb2.ExportDomainRequest(
            domain=domain,
            target=self._target,
            file=location(file),
            overwrite=overwrite,
            comparison=COMPARISONS[verify],
        )
        self._ready()
        yield from self._client.stream(lambda c: ExchangeServiceStub(c).ExportDomain, request)

    def copy(
        self, domain: str, new_domain: str, *, new_target: str, verify: str, overwrite: bool
    ) -> Iterator[exchange_pb2.CopyDomainResponse]:
        """A domain to another place; `verify` is one of `COMPARISONS`. The last answer says what became of it."""
        request = exchange_pb2.CopyDomainRequest(
            domain=domain,
            target=self._target,
            new_domain=new_domain,
            new_target=new_target,
            overwrite=overwrite,
            comparison=COMPARISONS[verify],
        )
        self._ready()
        yield from self._client.stream(lambda c: ExchangeServiceStub(c).CopyDomain, request)

    def relink(self, domain: str, old: str, new: str) -> exchange_pb2.RelinkDomainResponse:
        """Links that begin with `old` begin with `new` afterwards."""
        request = exchange_pb2.RelinkDomainRequest(domain=domain, target=self._target, old_prefix=old, new_prefix=new)
        return self._client.call(lambda c: ExchangeServiceStub(c).RelinkDomain, request, timeout=None, again=False)

    def _ready(self) -> None:
        """Wait for the server, and learn its cookie: a stream cannot be begun anew."""
        self._client.list_planes()


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


def exported(found: exchange_pb2.ExportDomainResponse) -> dict[str, JSON]:
    """A file that was made of a domain."""
    made = found.exported
    return {
        "size": made.size,
        "version": made.version,
        "objects": found.objects_done,
        "data_bytes": found.bytes,
        **_outcome(made),
    }


def copied(found: exchange_pb2.CopyDomainResponse) -> dict[str, JSON]:
    """A domain that was copied."""
    made = found.copied
    return {"root": made.root, "objects": found.objects_done, "data_bytes": found.bytes, **_outcome(made)}


def _outcome(made: exchange_pb2.Exported | exchange_pb2.Copied) -> dict[str, JSON]:
    return {
        "exceptions": [{"path": e.path, "what": e.what, "reason": e.reason} for e in made.exceptions],
        "compared": compared(made.compared) if made.HasField("compared") else None,
    }
