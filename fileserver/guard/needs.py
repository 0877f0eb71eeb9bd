"""What each call needs: a table from every method of every service to the names that a request has in it, resolved.

The one place that knows which right a call asks for. A method that is not in the table is for nobody from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, assert_never

from fileserver.auth import know_agent
from fileserver.catalogue.names import folder as generation_folder
from fileserver.catalogue.names import normalise
from fileserver.configured import AGENT, LOCAL
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds import address
from fileserver.rules import Thing, Verb
from fileserver.services.shapes import spec_of
from fileserver.transfer.spec import Copy, Despray, Ingest, Location, Replicate, Spray, Sync

_READ, _WRITE, _DELETE, _ADMIN = Verb.READ, Verb.WRITE, Verb.DELETE, Verb.ADMIN


@dataclass(frozen=True, slots=True)
class Need:
    """Something that the caller must be allowed to do with a thing."""

    verb: Verb
    thing: Thing


@dataclass(frozen=True, slots=True)
class Held:
    """Something that the server knows more about: who began a transfer, what a watch is about."""

    verb: Verb
    kind: Literal["transfer", "watch", "plane"]
    name: str


@dataclass(frozen=True, slots=True)
class Server:
    """What is everybody's: the caller must be an administrator."""

    what: str


Wants = Iterable[Need | Held | Server]
Row = Callable[[Any, str], Wants]
"""From a request and the name of the default plane to what it needs; raises InvalidSpec where names are none."""


def literal(key: str) -> tuple[str, bool]:
    """A key as far as it is plain text, and whether a wildcard follows: in its last element, as sources have it."""
    last = key.rpartition("/")[2]
    if not set(last) & set("*?"):
        return key, False
    plain = min(last.find(each) for each in "*?[" if each in last)
    return key[: len(key) - len(last) + plain], True


def _object(verb: Verb, plane: str, key: str, *, below: bool = False) -> Need:
    return Need(verb, Thing("planes", f"{plane}:{key.lstrip('/') if plane == LOCAL else key}", below))


def _folder(verb: Verb, at: Location) -> Need:
    key = at.key.strip("/")
    return _object(verb, at.plane, f"{key}/" if key else "", below=True)


def _source(at: Location) -> Need:
    plain, open_ended = literal(at.key)
    return _object(_READ, at.plane, plain, below=open_ended or plain in {"", "/"} or plain.endswith("/"))


def _file(verb: Verb, name: str) -> Need:
    return Need(verb, Thing("files", normalise(name)))


def _parts(name: str, plane: str) -> Need:
    """The folder of a logical file on a plane, in which all its generations lie."""
    return _object(_WRITE, plane, generation_folder(name, "").removesuffix("~"), below=True)


def _domain(verb: Verb, shown: str, *, below: bool = False) -> Need:
    path = address.show(address.parse(shown))
    return Need(verb, Thing("domains", f"{path.rstrip('/')}/" if below and path != address.SCHEME else path, below))


def _spec(request: Any, default: str) -> Iterator[Need]:
    know_agent(getattr(request, "agent_key", ""))  # whose machine is a plane of this caller's own: no rule is about it
    spec = spec_of(request.spec)
    verb = spec.verb
    match verb:
        case Spray():
            yield from (_source(each) for each in verb.sources if not each.plane.startswith(AGENT))
            yield _file(_WRITE, verb.file)
            yield _parts(verb.file, verb.plane or default)
        case Despray():
            yield from (_source(each) for each in verb.sources if not each.plane.startswith(AGENT))
            if verb.file:
                yield _file(_READ, verb.file)
            if not verb.target.plane.startswith(AGENT):
                yield _object(_WRITE, verb.target.plane, verb.target.key)
        case Copy():
            yield _file(_READ, verb.file)
            yield _file(_WRITE, verb.new_file)
            if not verb.plane:
                msg = "callers from outside say on which plane the copy is to lie: --plane"
                raise InvalidSpec(msg, {"spec.copy.plane": msg})
            yield _parts(verb.new_file, verb.plane)
        case Replicate():
            yield _file(_READ, verb.file)
            yield _file(_WRITE, verb.file)
            yield _parts(verb.file, verb.plane)
        case Sync():
            yield from _sync(verb)
        case Ingest():
            yield from map(_source, verb.sources)
            yield _domain(_WRITE, address.show(verb.domain.rstrip("/")), below=verb.domain.endswith("/"))
        case _:
            assert_never(verb)


def _sync(verb: Sync) -> Iterator[Need]:
    yield _folder(_READ, verb.source)
    if verb.names is not None:
        yield _object(_READ, verb.names.plane, verb.names.key)
    for right in (_READ, _WRITE, _DELETE) if verb.delete else (_READ, _WRITE):  # it tells what is there
        yield _folder(right, verb.target)


def _transfer(request: Any, _: str) -> Wants:
    return [Held(_READ, "transfer", request.name.removeprefix("transfers/"))]


def _watch(*verbs: Verb) -> Row:
    def wants(request: Any, _: str) -> Wants:
        name = request.watch if "watch" in request.DESCRIPTOR.fields_by_name else request.name
        return [Held(verb, "watch", name.removeprefix("watches/")) for verb in verbs]

    return wants


def _new_watch(request: Any, _: str) -> Wants:
    watch = request.watch
    source = Location(watch.source.plane, watch.source.key)
    return [
        _folder(_READ, source),
        _domain(_WRITE, watch.load.folder, below=True),
        Server("begin a watch, whose transfers are the server's own,"),
    ]


def _server(what: str) -> Row:
    return lambda request, _: [
        Server(f"{what} {getattr(request, 'name', '') or getattr(request, 'plane', '')}".strip())
    ]


def _nothing(_request: Any, _: str) -> Wants:
    """A list, which has only what the caller may see."""
    return ()


def _register(request: Any, _: str) -> Wants:
    return [*(_source(Location(each.plane, each.key)) for each in request.parts), _file(_WRITE, request.name)]


def _delete_file(request: Any, _: str) -> Wants:
    objects = [Server("destroy objects that Cropduster did not write, of")] if request.with_parts else []
    return [_file(_DELETE, request.name), *objects]


def _delete_domain(request: Any, _: str) -> Wants:
    below = [_domain(_DELETE, request.domain, below=True)] if request.recursive else []
    return [_domain(_DELETE, request.domain), *below]


def _hdf5(request: Any, _: str) -> Wants:
    return [_object(_READ, request.source.plane, request.source.key)]


_EXTERNAL: Final[Mapping[str, Mapping[str, Row]]] = {
    "TransferService": {
        "CreateTransfer": _spec,
        "PlanSync": _spec,
        "GetTransfer": _transfer,
        "ListTransfers": _nothing,
        "ListSegments": _transfer,
        "WatchTransfer": _transfer,
        "CancelTransfer": _transfer,
        "PauseTransfer": _transfer,
        "ResumeTransfer": _transfer,
    },
    "FileService": {
        "GetFile": lambda r, _: [_file(_READ, r.name)],
        "ListFiles": _nothing,
        "RegisterFile": _register,
        "RenameFile": lambda r, _: [_file(_READ, r.name), _file(_DELETE, r.name), _file(_WRITE, r.new_name)],
        "DeleteFile": _delete_file,
        "VerifyFile": lambda r, _: [_file(_READ, r.name)],
        "RebuildFiles": _server("rebuild the catalogue from plane"),
    },
    "PlaneService": {
        "ListPlanes": _nothing,
        "GetPlane": lambda r, _: [Held(_READ, "plane", r.name)],
        "CheckPlane": _server("check plane"),
        "UpdateLimits": _server("change the limits of plane"),
        "SweepPlane": _server("sweep plane"),
        "ListObjects": lambda r, _: [_object(_READ, r.plane, r.prefix, below=True)],
    },
    "DomainService": {
        "GetDomain": lambda r, _: [_domain(_READ, r.domain)],
        "ListDomains": lambda r, _: [_domain(_READ, r.folder, below=True)],
        "CreateFolder": lambda r, _: [_domain(_WRITE, r.folder)],
        "MoveDomain": lambda r, _: [
            _domain(_READ, r.domain),
            _domain(_DELETE, r.domain),
            _domain(_WRITE, r.new_domain),
        ],
        "DeleteDomain": _delete_domain,
        "GetAcl": lambda r, _: [_domain(_READ, r.domain)],
        "UpdateAcl": lambda r, _: [_domain(_WRITE, r.domain), Server("change the rights of domains in HSDS")],
    },
    "Hdf5Service": {
        "InspectFile": _hdf5,
        "ListChunks": _hdf5,
        "PlanIngest": _spec,
        "ReportIngest": _transfer,
    },
    "ExchangeService": {
        "CompareDomain": lambda r, _: [*_hdf5(r, _), _domain(_READ, r.domain)],
        "ExportDomain": lambda r, _: [_domain(_READ, r.domain), _object(_WRITE, r.file.plane, r.file.key)],
        "CopyDomain": lambda r, _: [_domain(_READ, r.domain), _domain(_WRITE, r.new_domain)],
        # HSDS follows what a domain links to with rights of its own.
        "RelinkDomain": lambda r, _: [_domain(_WRITE, r.domain), Server("change where domains have their data")],
    },
    "LandingService": {
        "CreateWatch": _new_watch,
        "GetWatch": _watch(_READ),
        "ListWatches": _nothing,
        "StopWatch": _watch(_READ, _WRITE),
        "DeleteWatch": _watch(_READ, _WRITE),
        "GetArrival": _watch(_READ),
        "ListArrivals": _watch(_READ),
        "RetryArrivals": _watch(_READ, _WRITE),
        "ResetArrivals": _watch(_READ, _WRITE),
        "MirrorArrivals": lambda r, _: [*_watch(_READ)(r, _), _domain(_WRITE, r.domain)],
    },
    # What an agent may do is said by the transfers of who started it, and by the grants that it gets for them.
    "AgentService": {"Work": _nothing},
}


def _segment(request: Any, _: str) -> Wants:
    return [Held(_WRITE, "transfer", request.segment.transfer.removeprefix("transfers/"))]


def _read(request: Any, _: str) -> Wants:
    return [_file(_READ, request.file) if request.file else _object(_READ, request.plane, request.key)]


_INTERNAL: Final[Mapping[str, Mapping[str, Row]]] = {
    "PartService": {
        "Partition": lambda r, _: [_object(_READ, each.plane, each.key) for each in r.sources],
        "Pull": _segment,
        "Push": _segment,
    },
    "DataService": {"Read": _read, "Write": _nothing, "QueryWrite": _nothing, "Sign": _nothing},
}
"""Never for callers from outside, whatever the rules say; here for the names that they have in them."""


def _by_method(table: Mapping[str, Mapping[str, Row]]) -> dict[str, Row]:
    return {f"/fileserver.v1.{service}/{name}": row for service, rows in table.items() for name, row in rows.items()}


OUTSIDE: Final = _by_method(_EXTERNAL)
"""What callers from outside may call, and what it needs."""
EVERYWHERE: Final = OUTSIDE | _by_method(_INTERNAL)
"""Every method of every service."""
