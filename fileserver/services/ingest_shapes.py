"""The messages of an ingest from our values and back, beside `shapes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fileserver.auth import allow
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds import address
from fileserver.transfer.spec import Ingest, Location
from fileserver.v1 import transfer_pb2 as pb

_MODES: Final = {"auto": pb.Ingest.MODE_UNSPECIFIED, "direct": pb.Ingest.MODE_DIRECT}
_MODES.update({"rest": pb.Ingest.MODE_REST, "link": pb.Ingest.MODE_LINK})
_LEVELS: Final = {"auto": pb.Ingest.VERIFY_UNSPECIFIED, "none": pb.Ingest.VERIFY_NONE}
_LEVELS.update({"metadata": pb.Ingest.VERIFY_METADATA, "sample": pb.Ingest.VERIFY_SAMPLE})
_LEVELS["full"] = pb.Ingest.VERIFY_FULL


def ingest_of(message: pb.Ingest, wrong: dict[str, str]) -> Ingest:
    """An ingest; what is wrong with it is added to `wrong`."""
    here = "spec.ingest"
    if not message.sources:
        wrong[f"{here}.sources"] = "nothing to ingest: name at least one HDF5 file"
    dimension = message.aggregate.dimension
    if message.HasField("aggregate") and not dimension:
        wrong[f"{here}.aggregate"] = "name the dimension along which the files are joined"
    if dimension and message.domain.endswith("/"):
        wrong[f"{here}.domain"] = f"{message.domain} is a folder, and files that are joined become one domain: name it"
    return Ingest(
        _sources(message.sources, here, wrong),
        _domain(message.domain, f"{here}.domain", wrong),
        message.target,
        {number: name for name, number in _MODES.items()}.get(message.mode, "auto"),
        {number: name for name, number in _LEVELS.items()}.get(message.verify, "auto"),
        message.no_folders,
        message.public_read,
        dimension,
        message.aggregate.skip_bad,
    )


def _sources(messages: Sequence[pb.Location], here: str, wrong: dict[str, str]) -> tuple[Location, ...]:
    """Keys may be empty: that is all of a plane."""
    for i, message in enumerate(messages):
        if not message.plane:
            wrong[f"{here}.sources[{i}]"] = "a source needs a plane"
        allow(message.plane)
    return tuple(Location(each.plane, each.key) for each in messages)


def _domain(asked: str, field: str, wrong: dict[str, str]) -> str:
    """A path; "/" at its end says that it is a folder."""
    try:
        path = address.parse(asked, field)
    except InvalidSpec as error:
        wrong[field] = error.message
        return ""
    is_folder = asked.endswith("/")
    if path == "/" or (address.parent(path) == "/" and not is_folder):
        wrong[field] = f"{asked} would lie beside the folders of users: name a domain like hdf5://home/user/name"
    return f"{path.rstrip('/')}/" if is_folder else path


def ingest_message(ingest: Ingest) -> pb.Ingest:
    """An ingest for the wire."""
    joined = pb.Aggregate(dimension=ingest.aggregate, skip_bad=ingest.skip_bad)
    return pb.Ingest(
        sources=[pb.Location(plane=each.plane, key=each.key) for each in ingest.sources],
        domain=address.show(ingest.domain),
        target=ingest.target,
        mode=_MODES[ingest.mode],
        verify=_LEVELS[ingest.verify],
        no_folders=ingest.no_folders,
        public_read=ingest.public_read,
        aggregate=joined if ingest.aggregate else None,
    )
