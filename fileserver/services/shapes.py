"""The wire's messages from our values and back; the one place where both are known. Validates, decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from fileserver.auth import allow
from fileserver.catalogue.files import Copy as FileCopy
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.catalogue.names import normalise
from fileserver.configured import LOCAL, is_beside
from fileserver.errors import InvalidSpec, from_record, refuse
from fileserver.hosts import what_waits
from fileserver.services.format_shapes import format_message, format_of
from fileserver.services.ingest_shapes import ingest_message, ingest_of
from fileserver.services.sync_shapes import sync_message, sync_of
from fileserver.status import code
from fileserver.transfer import routes
from fileserver.transfer.manifest import Extent, Source
from fileserver.transfer.planning import Drawing
from fileserver.transfer.record import Record
from fileserver.transfer.spec import (
    Copy,
    Despray,
    Ingest,
    Location,
    Replicate,
    Spec,
    Spray,
    Sync,
    Verb,
    format_from_json,
    spec_from_json,
)
from fileserver.transfer.turns import FIRST, LAST, USUAL
from fileserver.v1 import file_pb2, transfer_pb2
from planes import checksum
from planes.errors import Error


def moment(seconds: float | None) -> Timestamp | None:
    """A time for the wire."""
    if seconds is None:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp


# --- what was asked ---------------------------------------------------------------------------------------------


def spec_of(message: transfer_pb2.TransferSpec) -> Spec:
    """A validated spec.

    Raises:
        InvalidSpec: with every violation at once.
        CallerDenied: it names the plane `local` and the caller is not the server's own user.
    """
    wrong: dict[str, str] = {}
    kind = message.WhichOneof("verb")
    if kind == "spray":
        verb: Verb = _spray(message.spray, wrong)
    elif kind == "despray":
        verb = _despray(message.despray, wrong)
    elif kind == "copy":
        verb = _copy(message.copy, wrong)
    elif kind == "replicate":
        verb = _replicate(message.replicate, wrong)
    elif kind == "sync":
        verb = sync_of(message.sync, wrong)
    elif kind == "ingest":
        verb = ingest_of(message.ingest, wrong)
    else:
        msg = "the spec names no verb: spray, despray, copy, replicate, sync or ingest"
        raise InvalidSpec(msg, {"spec": msg})
    if message.priority and not FIRST <= message.priority <= LAST:
        wrong["spec.priority"] = f"a priority is a number from {FIRST} (goes first) to {LAST}; {USUAL} is the usual one"
    refuse(wrong)
    return Spec(verb, message.overwrite, message.verify_read, message.priority)


def _spray(message: transfer_pb2.Spray, wrong: dict[str, str]) -> Spray:
    where = "spec.spray"
    if not message.sources:
        wrong[f"{where}.sources"] = "nothing to spray: name at least one source"
    _counts(message.parts, message.part_size, where, wrong)
    return Spray(
        tuple(location_of(s, f"{where}.sources[{i}]", wrong) for i, s in enumerate(message.sources)),
        _name(message.file, f"{where}.file", wrong),
        message.plane,
        message.parts,
        message.part_size,
        format_of(message.format, f"{where}.format", wrong),
        message.order == transfer_pb2.Spray.ORDER_NATURAL,
        message.no_split,
    )


def _despray(message: transfer_pb2.Despray, wrong: dict[str, str]) -> Despray:
    where = "spec.despray"
    target = location_of(message.target, f"{where}.target", wrong)
    if not message.sources:
        return Despray(_name(message.file, f"{where}.file", wrong), target)
    if message.file:
        wrong[f"{where}.sources"] = "give a logical file or sources, not both"
    sources = (location_of(s, f"{where}.sources[{i}]", wrong) for i, s in enumerate(message.sources))
    return Despray("", target, tuple(sources))


def _copy(message: transfer_pb2.Copy, wrong: dict[str, str]) -> Copy:
    where = "spec.copy"
    _counts(message.parts, message.part_size, where, wrong)
    old, new = _name(message.file, f"{where}.file", wrong), _name(message.new_file, f"{where}.new_file", wrong)
    return Copy(old, new, message.plane, message.parts, message.part_size)


def _replicate(message: transfer_pb2.Replicate, wrong: dict[str, str]) -> Replicate:
    where = "spec.replicate"
    if not message.plane:
        wrong[f"{where}.plane"] = "name the plane of the new copy"
    elif message.plane == LOCAL:
        wrong[f"{where}.plane"] = "a copy lies on a plane of the configuration; despray writes files of this machine"
    return Replicate(_name(message.file, f"{where}.file", wrong), message.plane)


def _counts(parts: int, part_size: int, where: str, wrong: dict[str, str]) -> None:
    if parts < 0:
        wrong[f"{where}.parts"] = f"{parts} parts cannot be made; ask for 1 or more"
    if part_size < 0:
        wrong[f"{where}.part_size"] = f"a part cannot have {part_size} bytes; ask for 1 or more"
    if parts and part_size:
        wrong[f"{where}.parts"] = "give a number of parts or a part size, not both"


def _name(name: str, where: str, wrong: dict[str, str]) -> str:
    try:
        return normalise(name)
    except InvalidSpec as error:
        wrong[where] = error.message
        return ""


def location_of(message: transfer_pb2.Location, where: str, wrong: dict[str, str]) -> Location:
    """A location; what is wrong with it is added to `wrong`."""
    if not message.plane or not message.key:
        wrong[where] = "a location needs a plane and a key"
    allow(message.plane)
    return Location(message.plane, message.key)


# --- what is shown ----------------------------------------------------------------------------------------------


def spec_message(spec: Spec) -> transfer_pb2.TransferSpec:
    """A spec for the wire."""
    verb = spec.verb
    message = transfer_pb2.TransferSpec(overwrite=spec.overwrite, verify_read=spec.verify_read, priority=spec.priority)
    if isinstance(verb, Spray):
        order = transfer_pb2.Spray.ORDER_NATURAL if verb.natural_order else transfer_pb2.Spray.ORDER_UNSPECIFIED
        message.spray.CopyFrom(
            transfer_pb2.Spray(
                sources=[transfer_pb2.Location(plane=s.plane, key=s.key) for s in verb.sources],
                file=verb.file,
                plane=verb.plane,
                parts=verb.parts,
                part_size=verb.part_size,
                format=format_message(verb.format),
                order=order,
                no_split=verb.no_split,
            )
        )
    elif isinstance(verb, Despray):
        target = transfer_pb2.Location(plane=verb.target.plane, key=verb.target.key)
        sources = [transfer_pb2.Location(plane=s.plane, key=s.key) for s in verb.sources]
        message.despray.CopyFrom(transfer_pb2.Despray(file=verb.file, target=target, sources=sources))
    elif isinstance(verb, Replicate):
        message.replicate.CopyFrom(transfer_pb2.Replicate(file=verb.file, plane=verb.plane))
    elif isinstance(verb, Sync):
        message.sync.CopyFrom(sync_message(verb))
    elif isinstance(verb, Ingest):
        message.ingest.CopyFrom(ingest_message(verb))
    else:
        message.copy.CopyFrom(
            transfer_pb2.Copy(
                file=verb.file, new_file=verb.new_file, plane=verb.plane, parts=verb.parts, part_size=verb.part_size
            )
        )
    return message


def transfer_message(record: Record, rate: float = 0.0, *, brief: bool = False) -> transfer_pb2.Transfer:
    """A transfer for the wire; `brief` leaves out which parts took which route: a list of transfers must fit."""
    p = record.progress
    left = max(0, p.bytes_total - p.bytes_done)
    message = transfer_pb2.Transfer(
        name=f"transfers/{record.id}",
        spec=spec_message(spec_from_json(record.spec)),
        state=transfer_pb2.Transfer.State.Value(f"STATE_{record.state}"),
        progress=transfer_pb2.Progress(
            bytes_total=p.bytes_total,
            bytes_done=p.bytes_done,
            bytes_through_us=p.bytes_through_us,
            bytes_native=p.bytes_native,
            bytes_checked=p.bytes_checked,
            parts_total=p.parts_total,
            parts_done=p.parts_done,
            rate=rate,
            eta=left / rate if rate > 0 else 0.0,
        ),
        create_time=moment(record.created),
        update_time=moment(record.updated),
        end_time=moment(record.ended),
        warnings=_warnings(record),
    )
    if record.state == "FAILED" and record.error is not None:
        message.error.CopyFrom(failure_message(from_record(record.error)))
    if record.outcome is not None:
        message.outcome.CopyFrom(_outcome(record.outcome, brief=brief))
    return message


def _warnings(record: Record) -> list[str]:
    waits = [what_waits(record.waits_for)] if record.state == "PAUSED" and record.waits_for else []
    return [*record.warnings, *waits]


def _outcome(o: Mapping[str, Any], *, brief: bool) -> transfer_pb2.Outcome:
    crc = "" if o["crc64nvme"] is None else checksum.to_hex(o["crc64nvme"])
    taken = o.get("routes", [])  # a sync has none, nor has a record of an older version
    message = transfer_pb2.Outcome(**{**o, "crc64nvme": crc, "routes": []})
    for each in taken:
        runs = [] if brief else [transfer_pb2.PartRange(first=first, last=last) for first, last in each["parts"]]
        message.routes.add(**{**each, "parts": runs})
    return message


def failure_message(error: Error) -> transfer_pb2.Failure:
    """An error for the wire, as what became of something."""
    number = code(error).value[0]
    return transfer_pb2.Failure(code=number, reason=error.reason, message=error.message, metadata=error.facts)


def plan_message(drawing: Drawing) -> transfer_pb2.Plan:
    """A dry run for the wire: the parts with their extents and routes, and what would travel."""
    plan, through, native_bytes = drawing.plan, drawing.plan.windows, 0
    message = transfer_pb2.Plan(
        sources=map(source_message, drawing.sources), warnings=drawing.warnings, split=plan.split
    )

    for part in drawing.parts():
        way = routes.way_of(part, plan)
        through, native_bytes = through + way.through_us, native_bytes + way.native
        key = _shown(plan.plane, part.key)
        planned = message.parts.add(number=part.number, size=part.size, route=way.route, why=way.why, key=key)
        for piece in part.pieces:
            if isinstance(piece, Extent):
                planned.extents.add(
                    plane=piece.plane, key=_shown(piece.plane, piece.key), start=piece.start, end=piece.end
                )
            else:
                planned.extents.add(literal=piece.data)
    message.bytes_through_us, message.bytes_native = through, native_bytes
    return message


def source_message(source: Source) -> transfer_pb2.Source:
    """A pinned source for the wire."""
    key = _shown(source.plane, source.key)
    return transfer_pb2.Source(plane=source.plane, key=key, size=source.size, version=source.version)


def _shown(plane: str, key: str) -> str:
    """A key as callers write it: local ones are absolute paths."""
    return f"/{key}" if is_beside(plane) else key


def file_message(
    file: LogicalFile,
    parts: list[FilePart] | None = None,
    sources: list[Source] | None = None,
    uris: dict[int, str] | None = None,
) -> file_pb2.LogicalFile:
    """A logical file for the wire."""
    return file_pb2.LogicalFile(
        name=file.name,
        size=file.size,
        format=format_message(format_from_json(file.format)),
        evidence=file.evidence,
        crc64nvme="" if file.crc64nvme is None else checksum.to_hex(file.crc64nvme),
        parts=[part_message(p, (uris or {}).get(p.number, "")) for p in parts or []],
        part_count=file.part_count,
        sources=map(source_message, sources or []),
        transfer=f"transfers/{file.transfer}" if file.transfer else "",
        create_time=moment(file.created),
        expire_time=moment(file.expires),
    )


def replica_message(copy: FileCopy, parts: Sequence[FilePart], uri: Callable[[FilePart], str]) -> file_pb2.Replica:
    """A further copy of a file for the wire, with these of its parts."""
    return file_pb2.Replica(
        plane=parts[0].plane if parts else "",
        evidence=copy.evidence,
        transfer=f"transfers/{copy.id}",
        create_time=moment(copy.created),
        parts=[part_message(p, uri(p)) for p in parts],
    )


def part_message(part: FilePart, uri: str = "") -> file_pb2.Part:
    """A part of a logical file for the wire."""
    values = {kind: checksum.to_hex(value, kind) for kind, value in part.checksums.items()}
    return file_pb2.Part(
        number=part.number,
        plane=part.plane,
        key=part.key,
        size=part.size,
        owned=part.owned,
        checksum=values,
        uri=uri,
    )
