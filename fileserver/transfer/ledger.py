"""What is known of transfers: rows written and read in pages. Statements on a connection; decides nothing.

A transfer has one row in `transfers`, its manifest in `sources` and `parts`, its work in `segments`, and what is
stored in `steps`. All of it survives the process, and none of it is ever held whole in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.catalogue.files import PAGE
from fileserver.errors import TargetBusy, TransferNotFound
from fileserver.transfer.manifest import Part, Source, pieces_from_json, pieces_to_json
from planes import checksum
from planes.plane import Limits, StepReceipt

ENDED: Final = ("SUCCEEDED", "FAILED", "CANCELLED")
"""States that stay."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is; bytes, as in the wire's Progress."""

    bytes_total: int = 0
    bytes_done: int = 0
    bytes_through_us: int = 0
    bytes_native: int = 0
    bytes_checked: int = 0
    parts_total: int = 0
    parts_done: int = 0

    def forward(self, other: Progress) -> Progress:
        """The farther of both in every number: progress never goes backwards."""
        mine, its = asdict(self), asdict(other)
        return Progress(**{name: max(mine[name], its[name]) for name in mine})


def plain(progress: Progress) -> dict[str, int]:
    """Plain data for the store."""
    return asdict(progress)


@dataclass(frozen=True, slots=True)
class Plan:
    """What planning decided, beside the manifest; small, read whole.

    `limits` are the target's at planning: packing again gives the same steps whatever the configuration says later.
    `native` tells for each source plane "" (the target copies by itself) or why not.
    """

    plane: str
    file: str
    format: dict[str, Any] | None
    split: str
    size: int
    parts: int
    limits: Limits
    native: dict[str, str]
    overwrite: bool
    windows: int = 0
    opened: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The inverse of `to_json`."""
        return cls(**{**data, "limits": Limits(**data["limits"])})


@dataclass(frozen=True, slots=True)
class Record:
    """One transfer as it stands."""

    id: str
    spec: dict[str, Any]
    state: str
    wish: str
    run: int
    created: float
    updated: float
    ended: float | None = None
    plan: Plan | None = None
    progress: Progress = field(default_factory=Progress)
    error: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part of the manifest with what is known of it."""

    part: Part
    token: str | None
    crc64nvme: int | None
    compared: bool
    version: str
    done: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of whole small parts (`last_step` 0), or steps first … last of one large part."""

    number: int
    first_part: int
    last_part: int
    first_step: int
    last_step: int
    size: int


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step's receipt with the quotes that were counted on the way (None: its bytes did not pass through us)."""

    part: int
    receipt: StepReceipt
    quotes: int | None = None


def create(c: sa.Connection, record: Record, request_id: str, target: str) -> Record:
    """Enter a transfer and reserve its target.

    Raises:
        TargetBusy: another transfer holds the target.
    """
    refuse_busy(c, target)
    c.execute(t.reservations.insert().values(target=target, transfer=record.id))
    c.execute(
        t.transfers.insert().values(
            id=record.id,
            request_id=request_id,
            spec=record.spec,
            state=record.state,
            wish="",
            run=1,
            progress=asdict(record.progress),
            warnings=[],
            created=record.created,
            updated=record.updated,
        )
    )
    return record


def refuse_busy(c: sa.Connection, target: str) -> None:
    """Raise TargetBusy if a transfer holds the target ("file:…" or "object:…")."""
    holder = c.execute(sa.select(t.reservations.c.transfer).where(t.reservations.c.target == target)).scalar()
    if holder is not None:
        what = target.split(":", 1)[1]
        msg = f"{what} is being written by transfer {holder}; `cropduster transfers watch {holder}` shows how far it is"
        raise TargetBusy(msg, target=what, transfer=holder)


def by_request(c: sa.Connection, request_id: str) -> Record | None:
    """The transfer that a request id made, if any."""
    row = c.execute(sa.select(t.transfers).where(t.transfers.c.request_id == request_id)).first()
    return None if row is None else _record(row)


def get(c: sa.Connection, transfer: str) -> Record:
    """One transfer; raises TransferNotFound."""
    row = c.execute(sa.select(t.transfers).where(t.transfers.c.id == transfer)).first()
    if row is None:
        msg = f"no transfer is called {transfer}; see `cropduster transfers list` (ended ones are kept for 30 days)"
        raise TransferNotFound(msg, transfer=transfer)
    return _record(row)


def listing(c: sa.Connection, before: tuple[float, str] | None, limit: int, *, active: bool) -> list[Record]:
    """Transfers, newest first, older than `before` (created, id)."""
    x = t.transfers.c
    query = sa.select(t.transfers)
    if active:
        query = query.where(x.ended.is_(None))
    if before is not None:
        query = query.where(sa.tuple_(x.created, x.id) < sa.tuple_(*map(sa.literal, before)))
    return [_record(r) for r in c.execute(query.order_by(x.created.desc(), x.id.desc()).limit(limit))]


def update(c: sa.Connection, transfer: str, now: float, **values: Any) -> None:
    """Set columns of a transfer that has not ended."""
    x = t.transfers.c
    c.execute(t.transfers.update().where(x.id == transfer, x.ended.is_(None)).values(updated=now, **values))


def end(c: sa.Connection, transfer: str, now: float, state: str, **values: Any) -> None:
    """End a transfer: its target is free, its work is forgotten; sources and outcome stay."""
    update(c, transfer, now, state=state, ended=now, wish="", **values)
    c.execute(t.reservations.delete().where(t.reservations.c.transfer == transfer))
    for table in (t.steps, t.segments, t.parts):
        c.execute(table.delete().where(table.c.transfer == transfer))


def forget_before(c: sa.Connection, moment: float) -> None:
    """Forget transfers that ended before a moment; sources of files that still exist stay."""
    x = t.transfers.c
    c.execute(t.transfers.delete().where(x.ended < moment))
    kept = sa.select(x.id).union(sa.select(t.files.c.transfer))
    c.execute(t.sources.delete().where(t.sources.c.transfer.not_in(kept)))


def save_sources(c: sa.Connection, transfer: str, sources: Sequence[Source]) -> None:
    """Replace the sources of a transfer."""
    c.execute(t.sources.delete().where(t.sources.c.transfer == transfer))
    rows = [
        {
            "transfer": transfer,
            "number": number,
            "plane": s.plane,
            "key": s.key,
            "size": s.size,
            "version": s.version,
            "checksums": {kind: checksum.to_hex(value, kind) for kind, value in s.checksums.items()},
        }
        for number, s in enumerate(sources, 1)
    ]
    if rows:
        c.execute(t.sources.insert(), rows)


def sources(c: sa.Connection, transfer: str, after: int = 0, limit: int = PAGE) -> list[Source]:
    """One page of a transfer's sources in order."""
    s = t.sources.c
    query = sa.select(t.sources).where(s.transfer == transfer, s.number > after).order_by(s.number).limit(limit)
    return [
        Source(r.plane, r.key, r.size, r.version, {k: checksum.from_hex(v) for k, v in r.checksums.items()})
        for r in c.execute(query)
    ]


def clear_manifest(c: sa.Connection, transfer: str) -> None:
    """Forget parts, segments and receipts: planning begins anew."""
    for table in (t.steps, t.segments, t.parts):
        c.execute(table.delete().where(table.c.transfer == transfer))


def add_parts(c: sa.Connection, transfer: str, parts: Iterable[Part]) -> None:
    """Add a page of the manifest."""
    rows = [
        {"transfer": transfer, "number": p.number, "key": p.key, "size": p.size, "pieces": pieces_to_json(p.pieces)}
        for p in parts
    ]
    if rows:
        c.execute(t.parts.insert(), rows)


def add_segments(c: sa.Connection, transfer: str, segments: Iterable[Segment]) -> None:
    """Add a page of segments."""
    rows = [{"transfer": transfer, "done": False, **asdict(s)} for s in segments]
    if rows:
        c.execute(t.segments.insert(), rows)


def clear_segments(c: sa.Connection, transfer: str) -> None:
    """Forget segments, receipts and tokens: the same manifest is packed anew."""
    for table in (t.steps, t.segments):
        c.execute(table.delete().where(table.c.transfer == transfer))
    c.execute(t.parts.update().where(t.parts.c.transfer == transfer).values(token=None))


def segment(c: sa.Connection, transfer: str, number: int) -> tuple[Segment, bool]:
    """A segment and whether it is done."""
    s = t.segments.c
    r = c.execute(sa.select(t.segments).where(s.transfer == transfer, s.number == number)).one()
    return Segment(r.number, r.first_part, r.last_part, r.first_step, r.last_step, r.size), r.done


def segment_done(c: sa.Connection, transfer: str, number: int) -> None:
    """All steps of the segment are stored."""
    s = t.segments.c
    c.execute(t.segments.update().where(s.transfer == transfer, s.number == number).values(done=True))


def parts(c: sa.Connection, transfer: str, first: int = 1, last: int | None = None, limit: int = PAGE) -> list[PartRow]:
    """One page of parts first … last in order."""
    p = t.parts.c
    query = sa.select(t.parts).where(p.transfer == transfer, p.number >= first)
    if last is not None:
        query = query.where(p.number <= last)
    return [_part(r) for r in c.execute(query.order_by(p.number).limit(limit))]


def set_tokens(c: sa.Connection, transfer: str, tokens: dict[int, str]) -> None:
    """Record the uploads of parts before a byte moves."""
    for number, token in tokens.items():
        _set_part(c, transfer, number, token=token)


def part_done(c: sa.Connection, transfer: str, number: int, *, crc: int | None, compared: bool, version: str) -> None:
    """A part is committed."""
    text = None if crc is None else checksum.to_hex(crc)
    _set_part(c, transfer, number, crc64nvme=text, compared=compared, version=version, done=True)


def parts_done(c: sa.Connection, transfer: str, done: Sequence[dict[str, Any]]) -> None:
    """These parts are committed; rows as the arguments of `part_done`."""
    for row in done:
        part_done(c, transfer, **row)


def parts_compared(c: sa.Connection, transfer: str, numbers: Sequence[int]) -> None:
    """These parts equal a value that did not come from the write."""
    for number in numbers:
        _set_part(c, transfer, number, compared=True)


def add_steps(c: sa.Connection, transfer: str, stored: Sequence[StoredStep]) -> None:
    """Record receipts; a step that was stored twice keeps the last."""
    rows = [
        {
            "transfer": transfer,
            "part": s.part,
            "number": s.receipt.number,
            "size": s.receipt.size,
            "crc64nvme": None if s.receipt.crc64nvme is None else checksum.to_hex(s.receipt.crc64nvme),
            "etag": s.receipt.etag,
            "compared": s.receipt.compared,
            "quotes": s.quotes,
        }
        for s in stored
    ]
    if rows:
        c.execute(t.steps.insert().prefix_with("OR REPLACE"), rows)


def steps(
    c: sa.Connection, transfer: str, first_part: int, last_part: int, first: int = 1, last: int = 0
) -> dict[int, list[StoredStep]]:
    """Receipts by part, each in order: steps first … last (0: all) of parts first_part … last_part."""
    s = t.steps.c
    query = sa.select(t.steps).where(s.transfer == transfer, s.part.between(first_part, last_part), s.number >= first)
    if last:
        query = query.where(s.number <= last)
    found: dict[int, list[StoredStep]] = {}
    for r in c.execute(query.order_by(s.part, s.number)):
        crc = None if r.crc64nvme is None else checksum.from_hex(r.crc64nvme)
        stored = StoredStep(r.part, StepReceipt(r.number, r.size, crc, r.etag, r.compared), r.quotes)
        found.setdefault(r.part, []).append(stored)
    return found


def _set_part(c: sa.Connection, transfer: str, number: int, **values: Any) -> None:
    p = t.parts.c
    c.execute(t.parts.update().where(p.transfer == transfer, p.number == number).values(**values))


def _part(r: Any) -> PartRow:
    crc = None if r.crc64nvme is None else checksum.from_hex(r.crc64nvme)
    return PartRow(Part(r.number, r.key, pieces_from_json(r.pieces)), r.token, crc, r.compared, r.version, r.done)


def _record(row: Any) -> Record:
    return Record(
        row.id,
        row.spec,
        row.state,
        row.wish,
        row.run,
        row.created,
        row.updated,
        row.ended,
        None if row.plan is None else Plan.from_json(row.plan),
        Progress(**row.progress),
        row.error,
        row.outcome,
        tuple(row.warnings),
    )
