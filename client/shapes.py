"""Messages of the wire as JSON: sizes are numbers, checksums lower-case hex, times RFC 3339, what is unset null.

protobuf's own converter writes int64 as text and leaves out what is zero, so the shapes are written out here: they
are the contract of `--json`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypeAlias

from client import phrases
from client.errors import ServerError, rename
from client.moments import moment
from fileserver.v1 import file_pb2, plane_pb2
from fileserver.v1 import transfer_pb2 as wire

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

_SPLITS = {wire.Csv.SPLIT_EXACT: "exact", wire.Csv.SPLIT_TERMINATOR: "terminator"}


def failure(error: ServerError) -> dict[str, JSON]:
    """The one object on stderr."""
    shape: dict[str, JSON] = {
        "reason": error.reason,
        "message": error.message,
        "metadata": dict[str, JSON](error.metadata),
    }
    if error.violations:
        shape["violations"] = dict[str, JSON](error.violations)
    return {"error": shape}


def transfer(message: wire.Transfer) -> dict[str, JSON]:
    """A transfer; `outcome` is null until it has succeeded, `error` unless it has failed."""
    return {
        "name": message.name,
        "id": message.name.removeprefix("transfers/"),
        "verb": phrases.verb(message),
        "state": phrases.state(message.state),
        "spec": spec(message.spec),
        "progress": progress(message.progress),
        "outcome": outcome(message.outcome) if message.HasField("outcome") else None,
        "error": stored_failure(message) if message.HasField("error") else None,
        "warnings": list[JSON](phrases.warnings(message)),
        "create_time": moment(message.create_time),
        "update_time": moment(message.update_time),
        "end_time": moment(message.end_time),
    }


def spec(message: wire.TransferSpec) -> dict[str, JSON]:
    """What was asked, without what the verb has no use for."""
    asked: dict[str, JSON]
    match message.WhichOneof("verb"):
        case "spray":
            spray = message.spray
            asked = {
                "sources": [location(s) for s in spray.sources],
                "file": spray.file,
                "plane": spray.plane,
                "parts": spray.parts,
                "part_size": spray.part_size,
                "format": format_name(spray.format),
                "format_options": format_options(spray.format),
                "order": "natural" if spray.order == wire.Spray.ORDER_NATURAL else "bytes",
                "no_split": spray.no_split,
            }
        case "despray":
            asked = {"file": message.despray.file, "target": location(message.despray.target)}
            if message.despray.sources:
                asked["sources"] = [location(s) for s in message.despray.sources]
        case "copy":
            copy = message.copy
            asked = {
                "file": copy.file,
                "new_file": copy.new_file,
                "plane": copy.plane,
                "parts": copy.parts,
                "part_size": copy.part_size,
            }
        case "replicate":
            asked = {"file": message.replicate.file, "plane": message.replicate.plane}
        case "sync":
            sync = message.sync
            asked = {
                "source": location(sync.source),
                "target": location(sync.target),
                "include": list[JSON](sync.include),
                "exclude": list[JSON](sync.exclude),
                "files_from": location(sync.names) if sync.HasField("names") else None,
                "delete": sync.delete,
                "max_delete": 0 if sync.refuse_delete else sync.max_delete or None,
                "checksum": sync.checksum,
            }
        case "ingest":
            ingest = message.ingest
            asked = {
                "sources": [location(s) for s in ingest.sources],
                "domain": ingest.domain,
                "target": ingest.target,
                "mode": or_auto(phrases.named(wire.Ingest.Mode.Name, ingest.mode)),
                "verify": or_auto(phrases.named(wire.Ingest.Verify.Name, ingest.verify)),
                "no_folders": ingest.no_folders,
                "public_read": ingest.public_read,
                "aggregate": ingest.aggregate.dimension,
                "skip_bad": ingest.aggregate.skip_bad,
            }
        case _:
            asked = {}
    asked = {**asked, "overwrite": message.overwrite, "verify_read": message.verify_read}
    return {**asked, "priority": message.priority} if message.priority else asked


def or_auto(name: str) -> str:
    """What a name of the wire is called here, like rest for MODE_REST; unspecified is auto."""
    return (name.partition("_")[2] or name).lower().replace("unspecified", "auto")


def progress(message: wire.Progress) -> dict[str, JSON]:
    """How far a transfer is; bytes, bytes a second, seconds."""
    return {
        "bytes_total": message.bytes_total,
        "bytes_done": message.bytes_done,
        "bytes_through_us": message.bytes_through_us,
        "bytes_native": message.bytes_native,
        "bytes_checked": message.bytes_checked,
        "parts_total": message.parts_total,
        "parts_done": message.parts_done,
        "rate": message.rate,
        "eta": message.eta,
    }


def outcome(message: wire.Outcome) -> dict[str, JSON]:
    """What a finished transfer proved; of a sync and an ingest also what they did."""
    shape: dict[str, JSON] = {
        "size": message.size,
        "evidence": message.evidence,
        "route": message.route,
        "seconds": message.seconds,
        "crc64nvme": message.crc64nvme.lower(),
        "file": message.file,
        "routes": [
            {
                "route": taken.route,
                "why": taken.why,
                "size": taken.size,
                "part_count": taken.part_count,
                "parts": [{"first": run.first, "last": run.last} for run in taken.parts],
            }
            for taken in message.routes
        ],
    }
    if message.HasField("sync"):
        done = message.sync
        exceptions: list[JSON] = [{"key": e.key, "reason": e.reason, "message": e.message} for e in done.exceptions]
        counts: dict[str, JSON] = {name: getattr(done, name) for name in ("copied", "equal", "deleted", "failed")}
        shape["objects"] = counts | {"exceptions": exceptions}
    if message.HasField("ingest"):
        loaded = message.ingest
        wrong: list[JSON] = [{"key": e.key, "reason": e.reason, "message": e.message} for e in loaded.exceptions]
        numbers: dict[str, JSON] = {name: getattr(loaded, name) for name in ("loaded", "partly", "failed")}
        shape["files"] = numbers | {"objects": loaded.objects, "verified": loaded.verified, "exceptions": wrong}
    return shape


def sync_totals(message: wire.SyncTotals) -> dict[str, JSON]:
    """How much a sync would do."""
    return {
        "copy": message.copy,
        "copy_bytes": message.copy_bytes,
        "delete": message.delete,
        "equal": message.equal,
        "compare": message.compare,
        "compare_bytes": message.compare_bytes,
        "fail": message.fail,
    }


def planned_object(message: wire.PlannedObject) -> dict[str, JSON]:
    """An object that a sync would touch."""
    return {"key": message.key, "size": message.size, "action": message.action, "why": message.why}


def stored_failure(message: wire.Transfer) -> dict[str, JSON]:
    """The error that is stored in a transfer."""
    error = message.error
    text = rename(error.message, phrases.names(message))
    return {"reason": error.reason, "message": text, "metadata": dict[str, JSON](error.metadata)}


def location(message: wire.Location) -> dict[str, JSON]:
    """Where an object is."""
    return {"plane": message.plane, "key": message.key}


def format_name(message: wire.Format) -> str | None:
    """The format as the CLI takes it: `fixed:155`, `csv`; None where nobody knows."""
    match message.WhichOneof("kind"):
        case "fixed":
            return f"fixed:{message.fixed.record_size}"
        case "csv":
            return "csv"
        case _:
            return None


def format_options(message: wire.Format) -> dict[str, JSON]:
    """The options of a format with its defaults filled in; bytes that are no UTF-8 are written in hex."""
    if message.WhichOneof("kind") != "csv":
        return {}
    csv = message.csv
    quotes = [] if csv.no_quote else list(csv.quotes) or [b'"']
    return {
        "separator": _tokens(list(csv.separators) or [b","]),
        "terminator": _tokens(list(csv.terminators) or [b"\n", b"\r\n"]),
        "quote": _tokens(quotes),
        "escape": _tokens(list(csv.escapes)),
        "max_record": csv.max_record or 131072,
        "split": _SPLITS.get(csv.split, "deduce"),
    }


def _tokens(tokens: Sequence[bytes]) -> list[JSON]:
    return [token.decode("utf-8", "backslashreplace") for token in tokens]


def plan(message: wire.Plan) -> dict[str, JSON]:
    """What a transfer would do, part by part."""
    return {
        "parts": [
            {
                "number": part.number,
                "size": part.size,
                "route": part.route,
                "why": part.why,
                "key": part.key,
                "extents": [_extent(extent) for extent in part.extents],
            }
            for part in message.parts
        ],
        "sources": [source(s) for s in message.sources],
        "bytes_through_us": message.bytes_through_us,
        "bytes_native": message.bytes_native,
        "split": message.split,
        "warnings": list[JSON](message.warnings),
    }


def _extent(message: wire.PlannedExtent) -> JSON:
    if not message.plane:
        return {"literal": base64.b64encode(message.literal).decode("ascii")}
    return {"plane": message.plane, "key": message.key, "start": message.start, "end": message.end}


def source(message: wire.Source) -> dict[str, JSON]:
    """A source object and the version that it was pinned to."""
    return {"plane": message.plane, "key": message.key, "size": message.size, "version": message.version}


def file(message: file_pb2.LogicalFile, *, parts: bool = True) -> dict[str, JSON]:
    """A logical file; listings leave out its parts and sources."""
    shape: dict[str, JSON] = {
        "name": message.name,
        "size": message.size,
        "format": format_name(message.format),
        "format_options": format_options(message.format),
        "evidence": message.evidence,
        "crc64nvme": message.crc64nvme.lower(),
        "part_count": message.part_count,
        "transfer": message.transfer,
        "create_time": moment(message.create_time),
        "expire_time": moment(message.expire_time),
    }
    if parts:
        shape["parts"] = [part(p) for p in message.parts]
        shape["sources"] = [source(s) for s in message.sources]
        shape["replicas"] = [replica(r) for r in message.replicas]
    return shape


def replica(message: file_pb2.Replica) -> dict[str, JSON]:
    """A further copy of a file."""
    return {
        "plane": message.plane,
        "evidence": message.evidence,
        "transfer": message.transfer,
        "create_time": moment(message.create_time),
        "parts": [part(p) for p in message.parts],
    }


def part(message: file_pb2.Part) -> dict[str, JSON]:
    """One part; `uri` only where it was asked for."""
    shape: dict[str, JSON] = {
        "number": message.number,
        "plane": message.plane,
        "key": message.key,
        "size": message.size,
        "owned": message.owned,
        "checksum": {kind: value.lower() for kind, value in sorted(message.checksum.items())},
    }
    if message.uri:
        shape["uri"] = message.uri
    return shape


def deletion(message: file_pb2.DeleteFileResponse, *, dry_run: bool) -> dict[str, JSON]:
    """Which parts were, or would be, deleted."""
    return {
        "dry_run": dry_run,
        "deleted": [part(p) for p in message.deleted],
        "kept": [part(p) for p in message.kept],
    }


def verdicts(name: str, message: file_pb2.VerifyFileResponse) -> dict[str, JSON]:
    """What a verification found."""
    return {
        "name": name,
        "ok": message.ok,
        "bytes_read": message.bytes_read,
        "parts": [
            {"number": p.number, "plane": p.plane, "key": p.key, "verdict": p.verdict, "detail": p.detail}
            for p in message.parts
        ],
    }


def rebuilt(message: file_pb2.RebuildFilesResponse, *, dry_run: bool) -> dict[str, JSON]:
    """What a rebuild restored."""
    return {
        "dry_run": dry_run,
        "restored": list[JSON](message.restored),
        "present": list[JSON](message.present),
        "skipped": list[JSON](message.skipped),
    }


def plane(message: plane_pb2.Plane, default: str = "") -> dict[str, JSON]:
    """A plane as seen from outside."""
    return {
        "name": message.name,
        "type": message.type,
        "category": message.category,
        "location": message.location,
        "default": message.name == default,
        "default_parts": message.default_parts,
        "requests": message.requests,
        "requests_now": message.requests_now,
        "wait_seconds": message.wait.ToMilliseconds() / 1000,
        "bytes_per_second": message.bytes_per_second,
        "checksums": list[JSON](message.checksums),
        "native_copy": message.native_copy,
    }


def check(name: str, message: plane_pb2.CheckPlaneResponse) -> dict[str, JSON]:
    """What was tried on a plane, and what it can do."""
    return {
        "plane": name,
        "ok": message.ok,
        "results": [{"check": r.check, "ok": r.ok, "detail": r.detail} for r in message.results],
        "facts": [{"fact": f.fact, "found": f.found, "costs": f.costs} for f in message.facts],
    }


def swept(name: str, message: plane_pb2.SweepPlaneResponse, *, dry_run: bool) -> dict[str, JSON]:
    """Which open uploads were ended, or would be; `left` says why one is still there."""
    return {
        "plane": name,
        "dry_run": dry_run,
        "uploads": [{"key": u.key, "transfer": u.transfer, "left": u.left} for u in message.uploads],
    }


def stored_object(message: plane_pb2.Object) -> dict[str, JSON]:
    """An object of a plane."""
    return {
        "key": message.key,
        "size": message.size,
        "modify_time": moment(message.modify_time),
        "version": message.version,
    }


def left_out(message: plane_pb2.LeftOut) -> dict[str, JSON]:
    """What is there and is no object."""
    return {"name": message.name, "why": message.why, "has_data": message.has_data}
