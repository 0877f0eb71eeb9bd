"""Ingests: what one would do and what one did, object by object, and what that looks like as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from client.api import Client
from client.phrases import location
from client.shapes import JSON
from fileserver.v1 import hdf5_pb2
from fileserver.v1.hdf5_pb2_grpc import Hdf5ServiceStub
from fileserver.v1.transfer_pb2 import TransferSpec


@dataclass(frozen=True, slots=True)
class Planned:
    """An object that an ingest would load, or a file or link that it could not (`kind` "file" or "link")."""

    source: str
    domain: str
    path: str
    kind: str
    route: str
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of an object; of a whole file where `kind` is "file"."""

    source: str
    domain: str
    path: str
    kind: str
    result: str
    route: str
    size: int
    reason: str


def plan(client: Client, spec: TransferSpec) -> Iterator[Planned]:
    """What an ingest would do."""
    request = hdf5_pb2.PlanIngestRequest(spec=spec)
    for page in client.stream(lambda c: Hdf5ServiceStub(c).PlanIngest, request):
        source = location(page.source)
        if page.HasField("error"):
            reason = f"{page.error.reason}: {page.error.message}"
            yield Planned(source, page.domain, "", "file", "-", page.size, reason)
        for each in page.objects:
            notes = [f"{note.what}: {note.path} {note.reason}" for note in each.findings]
            reason = "; ".join(filter(None, [each.reason, *notes]))
            yield Planned(source, page.domain, each.path, each.kind, each.route, each.stored_bytes, reason)
        for note in page.findings:
            yield Planned(source, page.domain, note.path, "link", "-", 0, f"{note.what}: {note.reason}")


def report(client: Client, name: str) -> Iterator[Reported]:
    """What an ingest did."""
    source = domain = ""
    for page in client.stream(lambda c: Hdf5ServiceStub(c).ReportIngest, hdf5_pb2.ReportIngestRequest(name=name)):
        if page.HasField("file"):
            file = page.file
            source, domain = location(file.source), file.domain
            reason = f"{file.error.reason}: {file.error.message}" if file.HasField("error") else ""
            yield Reported(source, domain, "", "file", file.state, "", file.size, reason)
        for each in page.objects:
            yield Reported(source, domain, each.path, each.kind, each.result, each.route, each.bytes, each.reason)


def planned_shape(found: Planned) -> dict[str, JSON]:
    """An object of a plan."""
    return dict[str, JSON](asdict(found))


def reported_shape(found: Reported) -> dict[str, JSON]:
    """An object of a report."""
    return dict[str, JSON](asdict(found))
