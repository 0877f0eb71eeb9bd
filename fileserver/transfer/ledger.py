"""What is known of transfers: rows written and read in pages. Statements on a connection; decides nothing.

A transfer has one row in `transfers`, its manifest in `sources` and `parts`, its work in `segments`, and what is
stored in `steps`. All of it survives the process, and none of it is ever held whole in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.catalogue import upsert
from fileserver.catalogue.files import PAGE
from fileserver.errors import InvalidSpec, TargetBusy, TransferNotFound
from fileserver.transfer.addresses import overlap
from fileserver.transfer.manifest import Part, Source, pieces_from_json, pieces_to_json
from fileserver.transfer.record import Done, PartRow, Plan, Progress, Record, Segment, StoredStep
from planes import checksum
from planes.plane import StepReceipt

_NAMES: Final = 500  # in one statement


def create(c: sa.Connection, record: Record, request_id: str, target: str) -> Record:
    """Enter a transfer and reserve its target, or return the one that the same request made before.

    Raises:
        TargetBusy: another transfer holds the target.
    """
    known = by_request(c, request_id)
    if known is not None:
        return known
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
            caller=record.caller,
        )
    )
    return record


def refuse_busy(c: sa.Connection, target: str) -> None:
    """Raise TargetBusy if a transfer holds the target ("file:…"), or what overlaps it ("object:…")."""
    kind, _, what = target.partition(":")
    r = t.reservations.c
    mine = r.target.startswith("object:") if kind == "object" else r.target == target
    for held, holder in c.execute(sa.select(r.target, r.transfer).where(mine)):
        if held != target and not overlap(held, target):
            continue
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


def unpublished(c: sa.Connection, transfer: str) -> bool:
    """Whether this is a transfer of ours that has not made anything visible: it runs, or was given up."""
    x = t.transfers.c
    return c.execute(sa.select(x.state).where(x.id == transfer)).scalar() not in {None, "SUCCEEDED"}


def listing(
    c: sa.Connection, before: tuple[float, str] | None, limit: int, *, active: bool, caller: str | None = None
) -> list[Record]:
    """Transfers, newest first, older than `before` (created, id); those that `caller` asked for, if that is given."""
    x = t.transfers.c
    query = sa.select(t.transfers)
    if active:
        query = query.where(x.ended.is_(None))
    if caller is not None:
        query = query.where(x.caller == caller)
    if before is not None:
        query = query.where(sa.tuple_(x.created, x.id) < sa.tuple_(*map(sa.literal, before)))
    return [_record(r) for r in c.execute(query.order_by(x.created.desc(), x.id.desc()).limit(limit))]


def update(c: sa.Connection, transfer: str, now: float, **values: Any) -> None:
    """Set columns of a transfer that has not ended."""
    x = t.transfers.c
    c.execute(t.transfers.update().where(x.id == transfer, x.ended.is_(None)).values(updated=now, **values))


def enter_state(c: sa.Connection, transfer: str, now: float, state: str) -> None:
    """Go on to a state, unless the user wished something else meanwhile."""
    x = t.transfers.c
    query = t.transfers.update().where(x.id == transfer, x.ended.is_(None), x.wish == "")
    c.execute(query.values(updated=now, state=state))


def ask(c: sa.Connection, transfer: str, wish: str, now: float) -> bool:
    """Note a wish ("cancel", "pause", or "" to go on); returns whether a new run has to be started for it.

    A cancel is final: no other wish takes its place.
    """
    record = get(c, transfer)
    if record.ended is not None or record.wish == "cancel" or (not wish and record.wish != "pause"):
        return _wake(c, record, "QUEUED", "", now) if not wish and record.state == "PAUSED" else False
    if record.state == "PAUSED":
        return wish == "cancel" and _wake(c, record, "CANCELLING", wish, now)
    state = {"cancel": "CANCELLING", "pause": "PAUSING", "": "RUNNING"}[wish]
    update(c, transfer, now, wish=wish, state=state)
    return False


def _wake(c: sa.Connection, record: Record, state: str, wish: str, now: float) -> bool:
    update(c, record.id, now, state=state, wish=wish, run=record.run + 1)
    return True


def stand_still(c: sa.Connection, transfer: str, now: float, progress: dict[str, int]) -> str:
    """Note that a transfer has stopped for a pause; returns what is wished now: "pause", "cancel" or "" (go on)."""
    record = get(c, transfer)
    if record.wish == "pause":
        update(c, transfer, now, state="PAUSED", wish="", progress=progress)
    elif not record.wish:
        _wake(c, record, "QUEUED", "", now)
    return record.wish


def run_again(c: sa.Connection, transfer: str, run: int, now: float, *, new: bool) -> Record | None:
    """The transfer, if a run of it should be at work, and still is its newest; None if it ended or stands still.

    `new` counts the run, which could not end well, so that the next one is another job for the engine.
    """
    record = get(c, transfer)
    if record.ended is not None or record.state == "PAUSED" or record.run != run:
        return None
    if new:
        _wake(c, record, record.state, record.wish, now)
    return get(c, transfer)


def take(c: sa.Connection, transfer: str, run: int, owner: str) -> bool:
    """Note which file server works on a transfer; False if the run is not its newest."""
    x = t.transfers.c
    done = c.execute(t.transfers.update().where(x.id == transfer, x.run == run).values(owner=owner))
    return done.rowcount == 1


def owner(c: sa.Connection, transfer: str) -> str:
    """The file server that works on a transfer, or did last; "" if none has."""
    return c.execute(sa.select(t.transfers.c.owner).where(t.transfers.c.id == transfer)).scalar() or ""


def end(c: sa.Connection, transfer: str, now: float, state: str, *, clean: bool = True, **values: Any) -> None:
    """End a transfer: its target is free, its work is forgotten; sources and outcome stay.

    Where the clean-up left something (not `clean`), parts, their tokens and receipts stay for a later one.
    """
    update(c, transfer, now, state=state, ended=now, wish="", **values)
    c.execute(t.reservations.delete().where(t.reservations.c.transfer == transfer))
    for table in (t.segments, t.steps, t.parts) if clean else (t.segments,):
        c.execute(table.delete().where(table.c.transfer == transfer))


def unclean(c: sa.Connection) -> list[Record]:
    """Ended transfers whose clean-up left something."""
    x = t.transfers.c
    left = sa.select(t.parts.c.transfer).distinct()
    return [_record(r) for r in c.execute(sa.select(t.transfers).where(x.ended.is_not(None), x.id.in_(left)))]


def forget_before(c: sa.Connection, moment: float) -> list[Record]:
    """Forget transfers that ended before a moment, and return them; sources of files that still exist stay."""
    x = t.transfers.c
    gone = [_record(r) for r in c.execute(sa.select(t.transfers).where(x.ended < moment).limit(PAGE))]
    for record in gone:
        c.execute(t.transfers.delete().where(x.id == record.id))
        if not c.execute(sa.select(t.files.c.name).where(t.files.c.transfer == record.id)).first():
            c.execute(t.sources.delete().where(t.sources.c.transfer == record.id))
    return gone


def save_sources(c: sa.Connection, transfer: str, sources: Sequence[Source]) -> None:
    """Replace the sources of a transfer."""
    c.execute(t.sources.delete().where(t.sources.c.transfer == transfer))
    numbered = enumerate(sources, 1)
    while page := [
        {
            "transfer": transfer,
            "number": number,
            "plane": s.plane,
            "key": s.key,
            "size": s.size,
            "version": s.version,
            "checksums": {kind: checksum.to_hex(value, kind) for kind, value in s.checksums.items()},
        }
        for number, s in islice(numbered, PAGE)
    ]:
        c.execute(t.sources.insert(), page)


def sources(c: sa.Connection, transfer: str, after: int = 0, limit: int = PAGE) -> list[Source]:
    """One page of a transfer's sources in order."""
    s = t.sources.c
    query = sa.select(t.sources).where(s.transfer == transfer, s.number > after).order_by(s.number).limit(limit)
    return [_source(r) for r in c.execute(query)]


def sources_of(c: sa.Connection, transfer: str, objects: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Source]:
    """The sources of a transfer that are among these objects, by plane and key."""
    by_plane: dict[str, list[str]] = {}
    for plane, key in objects:
        by_plane.setdefault(plane, []).append(key)
    s = t.sources.c
    found: dict[tuple[str, str], Source] = {}
    for plane, keys in by_plane.items():
        for at in range(0, len(keys), _NAMES):
            query = sa.select(t.sources).where(
                s.transfer == transfer, s.plane == plane, s.key.in_(keys[at : at + _NAMES])
            )
            found |= {(r.plane, r.key): _source(r) for r in c.execute(query)}
    return found


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
    blank = {"token": None, "crc64nvme": None, "other": None, "compared": False, "version": "", "done": False}
    c.execute(t.parts.update().where(t.parts.c.transfer == transfer).values(**blank))


def forget_steps(c: sa.Connection, transfer: str) -> None:
    """Forget which steps are stored."""
    c.execute(t.steps.delete().where(t.steps.c.transfer == transfer))


def forget_receipts(c: sa.Connection, transfer: str) -> None:
    """Forget what is stored of parts that are not committed: every segment has to be filled again."""
    forget_steps(c, transfer)
    c.execute(t.segments.update().where(t.segments.c.transfer == transfer).values(done=False))


def segment(c: sa.Connection, transfer: str, number: int) -> tuple[Segment, bool]:
    """A segment and whether it is done; raises InvalidSpec if the transfer has no such segment."""
    s = t.segments.c
    r = c.execute(sa.select(t.segments).where(s.transfer == transfer, s.number == number)).first()
    if r is None:
        msg = f"transfer {transfer} has no segment {number}"
        raise InvalidSpec(msg, {"segment.number": msg}, transfer=transfer)
    return Segment(r.number, r.first_part, r.last_part, r.first_step, r.last_step, r.size), r.done


def segment_begun(c: sa.Connection, transfer: str, number: int, server: str, now: float) -> None:
    """A file server takes a segment up."""
    s = t.segments.c
    values = {"server": server, "tries": s.tries + 1, "begun": now, "ended": None}
    c.execute(t.segments.update().where(s.transfer == transfer, s.number == number).values(**values))


def segment_done(c: sa.Connection, transfer: str, number: int, now: float) -> None:
    """All steps of the segment are stored."""
    s = t.segments.c
    c.execute(t.segments.update().where(s.transfer == transfer, s.number == number).values(done=True, ended=now))


def parts(c: sa.Connection, transfer: str, first: int = 1, last: int | None = None, limit: int = PAGE) -> list[PartRow]:
    """One page of parts first … last in order."""
    p = t.parts.c
    query = sa.select(t.parts).where(p.transfer == transfer, p.number >= first)
    if last is not None:
        query = query.where(p.number <= last)
    return [_part(r) for r in c.execute(query.order_by(p.number).limit(limit))]


def set_tokens(c: sa.Connection, transfer: str, tokens: dict[int, str]) -> None:
    """Record the uploads of parts before a byte moves."""
    _set_parts(c, transfer, [{"_number": number, "token": token} for number, token in tokens.items()])


def parts_done(c: sa.Connection, transfer: str, done: Sequence[Done]) -> None:
    """These parts are committed."""
    rows = [
        {
            "_number": d.number,
            "crc64nvme": _hex(d.crc64nvme),
            "other": _hex(d.other, 8),
            "compared": d.compared,
            "version": d.version,
            "done": True,
        }
        for d in done
    ]
    _set_parts(c, transfer, rows)


def parts_compared(c: sa.Connection, transfer: str, numbers: Sequence[int]) -> None:
    """These parts equal a value that did not come from the write."""
    _set_parts(c, transfer, [{"_number": number, "compared": True} for number in numbers])


def add_steps(c: sa.Connection, transfer: str, stored: Sequence[StoredStep]) -> None:
    """Record receipts; a step that was stored twice keeps the last."""
    rows = [
        {
            "transfer": transfer,
            "part": s.part,
            "number": s.receipt.number,
            "size": s.receipt.size,
            "crc64nvme": _hex(s.receipt.crc64nvme),
            "other": _hex(s.receipt.other, 8),
            "etag": s.receipt.etag,
            "compared": s.receipt.compared,
            "quotes": s.quotes,
        }
        for s in stored
    ]
    upsert.replace(c, t.steps, list({(r["part"], r["number"]): r for r in rows}.values()))


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
        receipt = StepReceipt(
            r.number, r.size, _number(r.crc64nvme), r.etag, compared=r.compared, other=_number(r.other)
        )
        stored = StoredStep(r.part, receipt, r.quotes)
        found.setdefault(r.part, []).append(stored)
    return found


def _set_parts(c: sa.Connection, transfer: str, rows: list[dict[str, Any]]) -> None:
    """Set columns of parts, the same of each; `_number` says which part a row is about."""
    if rows:
        p = t.parts.c
        values: dict[str, Any] = {name: sa.bindparam(name) for name in rows[0] if name != "_number"}
        c.execute(
            t.parts.update().where(p.transfer == transfer, p.number == sa.bindparam("_number")).values(**values), rows
        )


def _source(r: Any) -> Source:
    return Source(r.plane, r.key, r.size, r.version, {k: checksum.from_hex(v) for k, v in r.checksums.items()})


def _part(r: Any) -> PartRow:
    part = Part(r.number, r.key, pieces_from_json(r.pieces))
    return PartRow(part, r.token, _number(r.crc64nvme), _number(r.other), r.compared, r.version, r.done)


def _hex(value: int | None, digits: int = 16) -> str | None:
    return None if value is None else f"{value:0{digits}x}"


def _number(text: str | None) -> int | None:
    return None if text is None else checksum.from_hex(text)


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
        row.caller,
    )
