"""Plane pair x verb x fault: transfers of a real file server between real stores, with the faults in between.

What must come out of every cell is in `World.play`: the right bytes, and nothing else of it, or one error of a reason
that the fault's row names, and nothing at all; and the sources as they were.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fileserver.catalogue.files import Catalogue, FilePart
from fileserver.catalogue.names import folder
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.transfer.jobs import Jobs
from fileserver.transfer.record import Record
from fileserver.transfer.spec import Copy, Csv, Despray, Fixed, Location, Spec, Spray
from planes import checksum, faulty
from planes.azure import AzurePlane, AzureSettings
from planes.errors import Unavailable
from planes.opening import decorated
from planes.plane import KIB, MIB, Limits, Plane
from planes.posix import PosixPlane, PosixSettings
from planes.s3 import S3Plane, S3Settings
from planes.settings import PlaneLimits
from tests.doubles import proxy, seaweedfs
from tests.doubles.azure_pull import Puller
from tests.doubles.azurite import Account
from tests.planes import fault_table
from tests.planes.azure_site import says, wrong_checksum

KINDS = ("posix", "s3", "azure")
VERBS = ("spray", "despray", "replace", "copy")
"""`replace` is a despray over an object that is there."""
_LINE = b'%06d,"some text, quoted",67890\n'
SMALL = b"".join(_LINE % n for n in range(200 * KIB // len(_LINE % 0)))
LARGE = random.Random(4).randbytes(10 * MIB + 4321)
"""Makes two parts that S3 takes for steps."""
OLD = b"what was there before\n" * 100

OK = ""
UNAVAILABLE, THROTTLED, REFUSED, MISMATCH = (
    "PLANE_UNAVAILABLE",
    "PLANE_THROTTLED",
    "PLANE_REFUSED",
    "CHECKSUM_MISMATCH",
)


# --- faults


@dataclass(frozen=True, slots=True)
class Fault:
    """One row for planes of one kind: what goes wrong at which requests, and what may come of it.

    `once` and `always` are the reasons that a transfer may end with after the fault came once, or every time; none
    where that does not happen.
    """

    does: proxy.Fault | faulty.Trouble
    where: Mapping[str, str] | str
    """The arguments of `Proxy.once`, or the verb of a `FaultyPlane`."""
    always: frozenset[str]
    once: frozenset[str] = frozenset({OK})
    then: tuple[tuple[proxy.Fault, Mapping[str, str]], ...] = ()
    slow: bool = False
    """It takes real time: for the soak alone."""


def _any(*reasons: str) -> frozenset[str]:
    return frozenset(reasons)


def _flip_answered(answer: proxy.Answer) -> proxy.Answer:
    body = answer.body
    middle = len(body) // 2
    return replace(answer, body=body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]) if body else answer


def _flip_sent(exchange: proxy.Exchange) -> None:
    if exchange.request.received:
        exchange.flip()
    exchange.send(exchange.forward())


def _wrong_at_s3(answer: proxy.Answer) -> proxy.Answer:
    wrong = checksum.to_s3(5).encode()
    head, tag, rest = answer.body.partition(b"<ChecksumCRC64NVME>")
    body = head + tag + wrong + rest[len(wrong) :] if tag else answer.body
    name = "x-amz-checksum-crc64nvme"
    has = any(header.lower() == name for header, _ in answer.headers)
    changed = replace(answer, body=body)
    return changed.with_header(name, wrong.decode()) if has else changed


def _network(where: Mapping[str, str]) -> dict[str, Fault]:
    """What happens to requests on their way, whoever they go to."""
    return {
        "reset-before": Fault(proxy.refuse, where, _any(UNAVAILABLE)),
        "answer-lost": Fault(proxy.drop_answer, where, _any(OK, UNAVAILABLE)),
        "delivered-twice": Fault(proxy.twice, where, _any(OK)),
        "error-in-200": Fault(proxy.error_in_200, where, _any(UNAVAILABLE)),
    }


def _bodies(where: Mapping[str, str]) -> dict[str, Fault]:
    """What happens to answers with payload."""
    # What is read for split points and samples has no checksum beside it; what is moved has.
    return {
        "reset-before": Fault(proxy.refuse, where, _any(UNAVAILABLE)),
        "reset-in-body": Fault(proxy.reset_after(50), where, _any(UNAVAILABLE)),
        "truncated": Fault(proxy.truncate(50), where, _any(UNAVAILABLE)),
        "slow-body": Fault(proxy.dribble(16 * KIB), where, _any(OK)),
        "stalled-body": Fault(proxy.stall(50), where, _any(UNAVAILABLE), slow=True),
        "flipped-body": Fault(proxy.change(_flip_answered), where, _any(MISMATCH, OK), _any(MISMATCH, OK)),
        # Who copies from an address and believes the 200 is found out by what its copy adds up to.
        "error-in-200": Fault(proxy.error_in_200, where, _any(UNAVAILABLE, MISMATCH), _any(OK, MISMATCH)),
    }


_GET = {"method": "GET", "header": "range"}
_HEAD = {"method": "HEAD"}
_PUT = {"method": "PUT"}
_S3_COMMIT = {"method": "POST", "query": "uploadId"}
_AZURE_COMMIT = {"method": "PUT", "query": "comp=blocklist"}
_EITHER = _any(OK, REFUSED)
"""Where a provider refuses to copy, the bytes travel."""

S3_SOURCE = {
    **_bodies(_GET),
    "slow-down": Fault(proxy.slow_down, _GET, _any(THROTTLED)),
    "500": Fault(proxy.fail, _GET, _any(UNAVAILABLE)),
    "expired-token": Fault(proxy.answer(400, "ExpiredToken"), _GET, _any(REFUSED), _EITHER),
    "head-500": Fault(proxy.fail, _HEAD, _any(UNAVAILABLE)),
    "head-403": Fault(proxy.answer(403, "AccessDenied"), _HEAD, _any(REFUSED), _any(REFUSED)),
}
S3_TARGET = {
    **_network(_PUT),
    "slow-down": Fault(proxy.slow_down, _PUT, _any(THROTTLED)),
    "500": Fault(proxy.fail, _PUT, _any(UNAVAILABLE)),
    "500-though-done": Fault(proxy.fail_after, _PUT, _any(OK, UNAVAILABLE)),
    "expired-token": Fault(proxy.answer(400, "ExpiredToken"), _PUT, _any(REFUSED), _EITHER),
    "access-denied": Fault(proxy.answer(403, "AccessDenied"), _PUT, _any(REFUSED), _EITHER),
    "flipped-on-its-way": Fault(_flip_sent, _PUT, _any(OK, MISMATCH)),
    "wrong-checksum": Fault(proxy.change(_wrong_at_s3), _PUT, _any(OK, MISMATCH), _any(OK, MISMATCH)),
    "conflict": Fault(proxy.conflict, _PUT, _any(UNAVAILABLE)),
    "begin-lost": Fault(proxy.drop_answer, {"method": "POST", "query": "uploads"}, _any(UNAVAILABLE)),
    "commit-500": Fault(proxy.fail, _S3_COMMIT, _any(UNAVAILABLE)),
    "commit-slow-down": Fault(proxy.slow_down, _S3_COMMIT, _any(THROTTLED)),
    "commit-twice": Fault(proxy.twice, _S3_COMMIT, _any(OK)),
    "commit-error-in-200": Fault(proxy.error_in_200, _S3_COMMIT, _any(UNAVAILABLE)),
    "commit-conflict": Fault(proxy.conflict, _S3_COMMIT, _any(UNAVAILABLE)),
    "commit-lost": Fault(proxy.drop_answer, _S3_COMMIT, _any(OK)),
    "commit-lost-then-404": Fault(
        proxy.drop_answer,
        _S3_COMMIT,
        _any(OK),
        then=((proxy.fail, _HEAD), (proxy.answer(404, "NoSuchUpload"), _S3_COMMIT)),
    ),
}
AZURE_SOURCE = {
    **_bodies(_GET),
    "slow-down": Fault(says(503, "ServerBusy", after="7"), _GET, _any(THROTTLED)),
    "500": Fault(says(500, "InternalError"), _GET, _any(UNAVAILABLE)),
    "expired-token": Fault(says(403, "AuthenticationFailed"), _GET, _any(REFUSED), _EITHER),
    "head-500": Fault(says(500, "InternalError"), _HEAD, _any(UNAVAILABLE)),
    "head-403": Fault(says(403, "AuthenticationFailed"), _HEAD, _any(REFUSED), _any(REFUSED)),
}
AZURE_TARGET = {
    **_network(_PUT),
    "slow-down": Fault(says(503, "ServerBusy", after="7"), _PUT, _any(THROTTLED)),
    "500": Fault(says(500, "InternalError"), _PUT, _any(UNAVAILABLE)),
    "500-though-done": Fault(says(500, "OperationTimedOut", done=True), _PUT, _any(OK, UNAVAILABLE)),
    "expired-token": Fault(says(403, "AuthenticationFailed"), _PUT, _any(REFUSED), _EITHER),
    "source-refused": Fault(
        says(403, "CannotVerifyCopySource"), {**_PUT, "header": "x-ms-copy-source"}, _any(OK), _any(OK)
    ),
    "flipped-on-its-way": Fault(_flip_sent, {**_PUT, "query": "blockid="}, _any(OK, MISMATCH)),
    "wrong-checksum": Fault(
        proxy.change(wrong_checksum), {**_PUT, "query": "blockid="}, _any(MISMATCH), _any(OK, MISMATCH)
    ),
    "commit-500": Fault(says(500, "InternalError"), _AZURE_COMMIT, _any(UNAVAILABLE)),
    "commit-slow-down": Fault(says(503, "ServerBusy", after="7"), _AZURE_COMMIT, _any(THROTTLED)),
    "commit-twice": Fault(proxy.twice, _AZURE_COMMIT, _any(OK)),
    "commit-lost": Fault(proxy.drop_answer, _AZURE_COMMIT, _any(OK)),
    "commit-lost-then-no-blocks": Fault(
        proxy.drop_answer,
        _AZURE_COMMIT,
        _any(OK),
        then=((proxy.fail, _HEAD), (says(400, "InvalidBlockList"), _AZURE_COMMIT)),
    ),
    "commit-lost-then-409": Fault(
        proxy.drop_answer,
        _AZURE_COMMIT,
        _any(OK),
        then=((proxy.fail, _HEAD), (says(409, "BlobAlreadyExists"), _AZURE_COMMIT)),
    ),
    "commit-lost-then-404": Fault(
        proxy.drop_answer,
        _AZURE_COMMIT,
        _any(OK),
        then=((proxy.fail, _HEAD), (says(404, "BlobNotFound"), {"method": "GET", "query": "comp=blocklist"})),
    ),
}
_GONE = faulty.Raise(Unavailable("the disk does not answer"))
POSIX_SOURCE = {
    "read-fails": Fault(_GONE, "read", _any(UNAVAILABLE)),
    "stat-fails": Fault(_GONE, "stat", _any(UNAVAILABLE)),
    "breaks-off": Fault(faulty.Break(50), "read", _any(UNAVAILABLE, OK)),  # OK: what is not streamed does not break
}
POSIX_TARGET = {
    "begin-fails": Fault(_GONE, "upload", _any(UNAVAILABLE)),
    "begin-lost": Fault(faulty.LoseAnswer(), "upload", _any(UNAVAILABLE)),
    "put-fails": Fault(_GONE, "put", _any(UNAVAILABLE)),
    "put-lost": Fault(faulty.LoseAnswer(), "put", _any(UNAVAILABLE, OK)),
    "step-fails": Fault(_GONE, "upload.put", _any(UNAVAILABLE)),
    "step-lost": Fault(faulty.LoseAnswer(), "upload.put", _any(UNAVAILABLE)),
    "copy-fails": Fault(_GONE, "upload.copy", _any(UNAVAILABLE)),
    "copy-lost": Fault(faulty.LoseAnswer(), "upload.copy", _any(UNAVAILABLE)),
    "commit-fails": Fault(_GONE, "upload.commit", _any(UNAVAILABLE)),
    "commit-lost": Fault(faulty.LoseAnswer(), "upload.commit", frozenset()),
}
FAULTS: Mapping[tuple[str, str], Mapping[str, Fault]] = {
    ("posix", "source"): POSIX_SOURCE,
    ("posix", "target"): POSIX_TARGET,
    ("s3", "source"): S3_SOURCE,
    ("s3", "target"): S3_TARGET,
    ("azure", "source"): AZURE_SOURCE,
    ("azure", "target"): AZURE_TARGET,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix."""

    source: str
    target: str
    verb: str
    side: str
    name: str
    always: bool

    def __str__(self) -> str:
        much = "always" if self.always else "once"
        return f"{self.source}-{self.target}-{self.verb}-{self.side}-{self.name}-{much}"

    @property
    def kind(self) -> str:
        """Of the plane that misbehaves."""
        return self.source if self.side == "source" else self.target

    @property
    def row(self) -> tuple[str, str, str]:
        """Where its fault stands."""
        return self.kind, self.side, self.name

    @property
    def can_meet(self) -> bool:
        """Whether the route asks for what fails.

        One call writes a small part: into a directory, and of a directory into Azure. An upload writes any other
        object, inside a directory by copying ranges; and only a store's objects are a source that Azure can refuse.
        """
        is_part = self.verb in {"spray", "copy"}
        match self.kind, self.side, self.name.split("-")[0]:
            case "posix", "target", "step":
                return not is_part and self.source != "posix"
            case "posix", "target", call:
                return (call == "put") == is_part
            case "azure", "target", "source":
                return self.source != "posix"
            case "azure", "target", "commit" | "flipped" | "wrong":
                return (self.source, self.verb) != ("posix", "copy")
        return True

    @property
    def may_leave_an_upload(self) -> bool:
        """Whether the provider offers no way to find or to drop what nobody sees."""
        if self.target == "s3":  # which does not say whose an upload is: outside of our folders it may be a stranger's
            return self.name == "begin-lost" and self.verb in {"despray", "replace"}
        return self.target == "azure" and self.verb == "replace"  # blocks at a blob that is there go with its next one

    @property
    def fault(self) -> Fault:
        """Its row."""
        return FAULTS[self.kind, self.side][self.name]

    @property
    def allowed(self) -> frozenset[str]:
        """How the transfer may end if the fault was met."""
        ends = self.fault.always if self.always else self.fault.once
        if (self.source, self.target, self.verb, self.side) == ("azure", "azure", "copy", "source"):
            return ends | {OK}  # all that is read is a byte, to see who may; Azure copies what there is
        return ends


CELLS = tuple(
    Cell(source, target, verb, side, name, always)
    for source in KINDS
    for target in KINDS
    for verb in VERBS
    for side, kind in (("source", source), ("target", target))
    for name in FAULTS[kind, side]
    for always in (False, True)
    if not always or FAULTS[kind, side][name].always
)


def chosen() -> list[Cell]:
    """Every fault of every provider, and every pair by every verb; not each with each.

    Verb and mode change from row to row.
    """
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in CELLS:
        if not cell.fault.slow and cell.can_meet:
            found.setdefault((cell.source, cell.target, cell.side, cell.name), []).append(cell)
    rows: set[tuple[str, ...]] = set()
    pairs: set[tuple[str, ...]] = set()
    kept: list[Cell] = []
    for number, cells in enumerate(found.values()):
        cell = cells[3 * number % len(cells)]
        pair = (cell.source, cell.target, cell.verb)
        if cell.row not in rows or pair not in pairs:
            rows.add(cell.row)
            pairs.add(pair)
            kept.append(cell)
    return kept


# --- places


class Site(Protocol):
    """A provider, seen from behind what misbehaves."""

    plane: Plane

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies there, hidden things too."""
        ...

    def open_uploads(self, prefix: str) -> list[str]:
        """Keys of what nobody has finished."""
        ...

    def marks(self, prefix: str) -> dict[str, object]:
        """What tells of every object whether somebody has touched it."""
        ...


class PosixSite:
    """A directory; its faults are those of a `FaultyPlane`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plane: Plane = PosixPlane("posix", PosixSettings(path=path))

    def objects(self, prefix: str) -> dict[str, bytes]:
        """All files, hidden ones too."""
        found = {str(each.relative_to(self.path)): each for each in self.path.rglob("*") if each.is_file()}
        return {key: each.read_bytes() for key, each in found.items() if key.startswith(prefix)}

    def open_uploads(self, prefix: str) -> list[str]:
        """Directories in which nothing is."""
        empty = [each for each in self.path.rglob("*") if each.is_dir() and not any(each.iterdir())]
        return [key for each in empty if (key := str(each.relative_to(self.path))).startswith(prefix)]

    def marks(self, prefix: str) -> dict[str, object]:
        """Identity and time of change."""
        found = {str(each.relative_to(self.path)): each.stat() for each in self.path.rglob("*") if each.is_file()}
        return {key: (s.st_ino, s.st_size, s.st_ctime_ns) for key, s in found.items() if key.startswith(prefix)}


class _SmallS3(S3Plane):
    """An S3 plane whose small objects are uploads and are copied from: as large ones are elsewhere."""

    @property
    def limits(self) -> Limits:
        return replace(super().limits, single_put=32 * KIB, min_copy_source=0)


class S3Site:
    """A bucket."""

    def __init__(self, store: seaweedfs.Store, between: proxy.Proxy, keys: Path) -> None:
        (keys / "ak").write_text(store.access_key)
        (keys / "sk").write_text(store.secret_key)
        pair = {"access_key": {"file": keys / "ak"}, "secret_key": {"file": keys / "sk"}}
        settings = {"bucket": "lake", "endpoint": between.endpoint, "put_size": 5 * MIB, "copy_size": 5 * MIB} | pair
        self.plane: Plane = _SmallS3("s3", S3Settings.model_validate(settings))
        self.behind: Any = store.client()

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies there."""
        found = self.behind.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", [])
        bodies = {each["Key"]: self.behind.get_object(Bucket="lake", Key=each["Key"])["Body"] for each in found}
        return {key: body.read() for key, body in bodies.items()}

    def open_uploads(self, prefix: str) -> list[str]:
        """Keys of open uploads."""
        found = self.behind.list_multipart_uploads(Bucket="lake", Prefix=prefix).get("Uploads", [])
        return [each["Key"] for each in found]

    def marks(self, prefix: str) -> dict[str, object]:
        """ETag and time of change."""
        found = self.behind.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", [])
        return {each["Key"]: (each["ETag"], each["LastModified"]) for each in found}


class AzureSite:
    """A container, whose service fetches from S3 too."""

    def __init__(self, account: Account, between: proxy.Proxy, keys: Path, s3: str) -> None:
        (keys / "key").write_text(account.key)
        url = f"{between.endpoint}/{account.name}"
        settings = {"container": "lake", "account_url": url, "account_key": {"file": keys / "key"}, "pull_from": [s3]}
        sizes = {"put_size": 64 * KIB, "copy_size": 64 * KIB}
        self.plane: Plane = AzurePlane("azure", AzureSettings.model_validate(settings | sizes))
        self.behind: Any = account.client().get_container_client("lake")

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies there, what an abort leaves for a moment too."""
        names = [each.name for each in self.behind.list_blobs(prefix)]
        return {name: self.behind.download_blob(name).readall() for name in names}

    def open_uploads(self, prefix: str) -> list[str]:
        """Names of blobs at which blocks wait."""
        names = [each.name for each in self.behind.list_blobs(prefix, include=["uncommittedblobs"])]
        return [name for name in names if self.behind.get_blob_client(name).get_block_list("uncommitted")[1]]

    def marks(self, prefix: str) -> dict[str, object]:
        """ETags."""
        return {each.name: each.etag for each in self.behind.list_blobs(prefix)}


@dataclass(slots=True)
class _Pulled:
    """An exchange whose forwarding is a pull, so that a fault can come around it."""

    exchange: proxy.Exchange
    puller: Puller
    _answers: list[proxy.Answer] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.exchange, name)

    def forward(self) -> proxy.Answer:
        """Let Azure fetch."""
        taking = _Taking(self.exchange)
        self.puller(taking)  # type: ignore[arg-type]
        return taking.answers[-1]


@dataclass(slots=True)
class _Taking:
    """An exchange that keeps what it is to send."""

    exchange: proxy.Exchange
    answers: list[proxy.Answer] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.exchange, name)

    def send(self, answer: proxy.Answer) -> None:
        """Keep it."""
        self.answers.append(answer)


# --- the world


class Planes(Configured):
    """Planes handed in as they are; other ones for every cell."""

    def __init__(self, sites: Mapping[str, Site]) -> None:
        super().__init__({kind: PosixSettings(path=Path("/")) for kind in sites}, "posix")
        self._sites = sites
        self.renew()

    def renew(self, faults: Sequence[tuple[str, faulty.Fault]] = ()) -> dict[str, faulty.FaultyPlane]:
        """Fresh layers: what went wrong in one cell is not remembered in the next."""
        bare = {
            kind: faulty.FaultyPlane(site.plane, [fault for of, fault in faults if of == kind])
            for kind, site in self._sites.items()
        }
        limits, patience = PlaneLimits(), fault_table.patience
        self._open = {kind: decorated(plane, limits, patience()) for kind, plane in bare.items()}
        return bare


class World:
    """One file server with three planes, and the proxies before two of them."""

    def __init__(self, sites: Mapping[str, Site], between: Mapping[str, proxy.Proxy], puller: Puller, state: Path):
        self.sites = sites
        self.between = between
        self.puller = puller
        self.planes = Planes(sites)
        self.store = Store(state)
        self.jobs = Jobs(self.store, self.planes, retire_after=0.0)
        self.met: Counter[tuple[str, str, str]] = Counter()
        self.played: Counter[tuple[str, str, str]] = Counter()
        """How often a fault came, by row."""
        self._number = 0
        self._sources: dict[str, dict[str, object]] = {}

    async def begin(self) -> None:
        """Put the sources in their places: an object, and the same as a logical file of four parts."""
        self._rest()
        for kind in KINDS:
            for name, data, parts in (("small", SMALL, 4), ("large", LARGE, 2)):
                if name == "large" and kind != "s3":
                    continue
                await self._put(kind, f"src/{name}", data)
                spray = Spray((Location(kind, f"src/{name}"),), f"src::{kind}_{name}", kind, parts, 0, _FORM[name])
                record = await self.transfer(Spec(spray))
                assert record.state == "SUCCEEDED", record.error
            self._sources[kind] = self.sites[kind].marks("src/")

    async def _put(self, kind: str, key: str, data: bytes) -> None:
        plane = self.planes.plane(kind)
        async with await plane.upload(key, upload_id=f"setup-{os.urandom(4).hex()}") as upload:
            step = await upload.put(1, 0, data)
            await upload.commit([step], len(data), checksum.compute(data))

    async def transfer(self, spec: Spec) -> Record:
        """A transfer to its end."""
        made = await self.jobs.create(spec)
        async for record, _ in self.jobs.watch(made.id):
            made = record
        return made

    def _rest(self) -> None:
        """No fault, but pulls."""
        for each in self.between.values():
            each.clear()
        self.between["azure"].always(self.puller, header="x-ms-copy-source")

    @contextlib.contextmanager
    def trouble(self, cell: Cell):
        """The fault of a cell is there."""
        fault, met = cell.fault, Counter[Cell]()
        if isinstance(fault.where, str):
            assert not callable(fault.does)
            script = faulty.Fault(fault.where, 0 if cell.always else 1, fault.does)
            bare = self.planes.renew([(cell.kind, script)])[cell.kind]
            try:
                yield met
            finally:
                met[cell] = bare.script.calls[fault.where]
                self.planes.renew()
            return
        assert callable(fault.does)
        self.planes.renew()
        between = self.between[cell.kind]
        between.clear()
        (between.always if cell.always else between.once)(self._counted(fault.does, cell, met), **fault.where)
        if cell.kind == "azure":
            between.always(self.puller, header="x-ms-copy-source")
        try:
            yield met
        finally:
            self._rest()
            self.planes.renew()

    def _counted(self, does: proxy.Fault, cell: Cell, met: Counter[Cell]) -> proxy.Fault:
        def counted(exchange: proxy.Exchange) -> None:
            met[cell] += 1
            if met[cell] == 1:  # what follows happens to the same object
                for then, where in cell.fault.then:
                    self.between[cell.kind].once(then, path=exchange.request.path, **where)
            is_pull = cell.kind == "azure" and "x-ms-copy-source" in exchange.request.headers
            does(_Pulled(exchange, self.puller) if is_pull else exchange)  # type: ignore[arg-type]

        return counted

    async def play(self, cell: Cell) -> None:
        """Play one cell.

        Fails where bytes are wrong, something is left behind, a source is not what it was, or the error is another.
        """
        self._number += 1
        name = f"c{self._number}"
        spec, home, data = self._spec(cell, name)
        site = self.sites[cell.target]
        before = {}
        if cell.verb == "replace":
            await self._put(cell.target, home, OLD)
            before = {home: OLD}
        with self.trouble(cell) as met:
            record = await self.transfer(spec)
        if any("could not be removed" in note for note in record.warnings):  # the plane is back: what it left goes
            await self.jobs.stages.clean_again()
        found = site.objects(home)
        if record.state == "SUCCEEDED":
            await self._check(cell, record, spec, found, data)
        else:
            assert record.state == "FAILED", record
            assert found == before, (record.error, sorted(found), record.warnings)
        left = site.open_uploads(home)
        assert left == [] or (set(left) == {home} and cell.may_leave_an_upload), record.error
        assert self.sites[cell.source].marks("src/") == self._sources[cell.source]
        self.met[cell.row] += met[cell]
        self.played[cell.row] += 1
        allowed = cell.allowed if met[cell] else {OK}
        assert (record.error["reason"] if record.error else OK) in allowed, record.error

    def _spec(self, cell: Cell, name: str) -> tuple[Spec, str, bytes]:
        """What is asked, the prefix below which it appears, and its bytes."""
        large = (cell.source, cell.target) == ("s3", "s3") and cell.verb in {"despray", "replace"}
        size, data = ("large", LARGE) if large else ("small", SMALL)
        if cell.verb == "spray":
            verb: Any = Spray((Location(cell.source, "src/small"),), f"m::{name}", cell.target, 3, 0, Csv())
        elif cell.verb == "copy":
            verb = Copy(f"src::{cell.source}_{size}", f"m::{name}", cell.target)
        else:
            verb = Despray(f"src::{cell.source}_{size}", Location(cell.target, f"out/{name}/x"))
            return Spec(verb, overwrite=cell.verb == "replace"), f"out/{name}/x", data
        return Spec(verb), folder(f"m::{name}", "").removesuffix("~"), data

    async def _check(self, cell: Cell, record: Record, spec: Spec, found: dict[str, bytes], data: bytes) -> None:
        """Bytes, records of them, and nothing else."""
        assert record.outcome is not None
        assert record.outcome["crc64nvme"] in {None, checksum.compute(data)}
        if isinstance(spec.verb, Despray):
            assert found == {spec.verb.target.key: data}
            return
        catalogue = Catalogue(self.store)
        file = await catalogue.get(record.outcome["file"])
        parts: list[FilePart] = await catalogue.all_parts(file.generation)
        assert b"".join(found[part.key] for part in parts) == data
        assert len(found) == len(parts) + 1, "and the manifest"
        for part in parts:
            body = found[part.key]
            assert cell.verb != "spray" or body.endswith(b"\n"), "no record is cut"
            assert len(body) == part.size
            for kind, value in part.checksums.items():
                assert checksum.compute(body, kind=kind) == value
        assert len(parts) == {"spray": 3, "copy": 4}[cell.verb]


_FORM = {"small": Csv(), "large": Fixed(1)}
