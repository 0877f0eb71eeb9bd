"""What a transfer moves, and what of it is stored: its sources, parts, segments and steps, as rows.

They are written and read in pages, and none of it is ever held whole in memory. Statements on a connection; decides
nothing.
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
from fileserver.errors import InvalidSpec
from fileserver.transfer.manifest import Part, Source, pieces_from_json, pieces_to_json
from fileserver.transfer.record import Done, PartRow, Segment, Span, StoredStep
from planes import checksum
from planes.plane import StepReceipt

_NAMES: Final = 500  # in one statement


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


def sources(c: sa.Connection, transfer: str, after: int = 0) -> list[Source]:
    """One page of a transfer's sources in order."""
    s = t.sources.c
    query = sa.select(t.sources).where(s.transfer == transfer, s.number > after).order_by(s.number).limit(PAGE)
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


def begin_anew(c: sa.Connection, transfer: str, numbers: Iterable[int]) -> None:
    """Forget uploads and receipts of these parts, which are not committed: they are begun and filled again."""
    p, s, g = t.parts.c, t.steps.c, t.segments.c
    for number in numbers:
        c.execute(t.parts.update().where(p.transfer == transfer, p.number == number).values(token=None))
        c.execute(t.steps.delete().where(s.transfer == transfer, s.part == number))
        holds = sa.and_(g.first_part <= number, g.last_part >= number)
        c.execute(t.segments.update().where(g.transfer == transfer, holds).values(done=False))


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


def keep_timeline(c: sa.Connection, transfer: str) -> None:
    """Keep which segment ran where and when, before the segments are forgotten; may be done twice."""
    names = [column.name for column in t.timelines.columns]
    known = sa.select(t.timelines.c.number).where(t.timelines.c.transfer == transfer)
    s = t.segments.c
    rows = sa.select(*(s[name] for name in names)).where(
        s.transfer == transfer, s.begun.is_not(None), s.number.not_in(known)
    )
    c.execute(t.timelines.insert().from_select(names, rows))


def timeline(c: sa.Connection, transfer: str) -> list[Span]:
    """Which segment ran where and when, in order of their numbers, whether the transfer runs or has ended."""
    found = list[Span]()
    for table in (t.timelines, t.segments):
        query = (
            sa.select(table).where(table.c.transfer == transfer, table.c.begun.is_not(None)).order_by(table.c.number)
        )
        found += [
            Span(r.number, r.first_part, r.last_part, r.size, r.server, r.tries, r.begun, r.ended)
            for r in c.execute(query)
        ]
    return found


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
