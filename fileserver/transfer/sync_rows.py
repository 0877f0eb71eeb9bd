"""What is known of syncs: objects listed at both ends, compared by the database, and what to do with each.

Statements on a connection; decides only what "different" means. Rows go in and out in pages, so that no end of a sync
is ever held whole in memory, and listings need no order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.catalogue import upsert
from fileserver.catalogue.files import PAGE
from fileserver.transfer import manifest_rows
from fileserver.transfer.record import Segment
from fileserver.transfer.routes import Taken, by_cost
from planes.plane import GIB

BATCH: Final = 500
"""Objects of a segment, unless there are very many."""

_ENDED: Final = ("result", "compared", "error", "token", "route", "because")

_MISSING: Final = {
    "reason": "OBJECT_NOT_FOUND",
    "message": "the list of names has it, but the source has not",
    "facts": {},
}
_UNNAMED: Final = {
    "reason": "PLANE_REFUSED",
    "message": "its name is not UTF-8, so that no key can be that name: rename it, or exclude it",
    "facts": {},
}
_FOLDER: Final = {
    "reason": "PLANE_REFUSED",
    "message": "its name ends in /, as those of folders do, but it holds data: copy it to another name, or exclude it",
    "facts": {},
}
_HOPELESS: Final = ("list", "name", "folder")
"""Why objects cannot be copied that are never tried."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as one end lists it; `modified` in seconds since 1970."""

    key: str
    size: int = 0
    version: str = ""
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class Item:
    """An object to be copied or deleted; `token` is an upload of it that a crash has left.

    `result` is of `Ended`; empty for what has still to be done.
    """

    number: int
    action: str
    why: str
    key: str
    size: int
    version: str
    token: str | None = None
    result: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an item ended: "copied", "equal", "deleted", "kept" (it is in the source after all) or "failed".

    `token` is an upload of it that could not be aborted.
    """

    number: int
    result: str
    compared: bool = False
    error: dict[str, Any] | None = None
    token: str | None = None
    route: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is to do; objects, and bytes to copy. `compare`: those of them that may turn out to be equal.

    `fail`: objects that are known to fail, which are not counted elsewhere.
    """

    copy: int
    copy_bytes: int
    delete: int
    equal: int
    compare: int = 0
    compare_bytes: int = 0
    fail: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """How much has been done; objects, and bytes copied. `compared`: every object that was copied is."""

    copied: int
    copied_bytes: int
    equal: int
    deleted: int
    failed: int
    compared: bool


def enter(c: sa.Connection, transfer: str, side: str, listed: Iterable[Listed]) -> None:
    """Enter a page of a listing; a key that a listing has twice counts once."""
    rows = [
        {
            "transfer": transfer,
            "side": side,
            "key": each.key,
            "size": each.size,
            "version": each.version,
            "modified": each.modified,
        }
        for each in listed
    ]
    upsert.replace(c, t.sync_objects, rows)


def clear(c: sa.Connection, transfer: str) -> None:
    """Forget all of a sync."""
    for table in (t.sync_objects, t.sync_items, t.steps):
        c.execute(table.delete().where(table.c.transfer == transfer))


def strays(c: sa.Connection, living: Sequence[str]) -> None:
    """Forget plans that belong to no transfer and that nobody is making: a crash ended their dry run."""
    known = sa.select(t.transfers.c.id)
    for table in (t.sync_objects, t.sync_items):
        x = table.c.transfer
        c.execute(table.delete().where(x.not_in(known), x.not_in(living)))


def compare(c: sa.Connection, transfer: str, *, named: bool, checksum: bool, delete: bool) -> Totals:
    """Make items of what was listed, and forget the listings.

    An object is to be copied if the target has none of its key (why: "missing"), one of another size ("size"), an
    older one ("newer"), or any at all if `checksum`: the last two are looked at once more before they are copied.
    `named` leaves only what the list of names has; a name without an object is a failure, unless `delete` asks for the
    target to have none either. Failures are an object without a name (side "unnamed"), and one with data whose name is
    a folder's (side "folder").
    """
    if named:
        _keep_named(c, transfer)
    source, target = _side("source", transfer), _side("target", transfer)
    both = source.outerjoin(target, source.c.key == target.c.key)
    why = sa.case(
        (target.c.key.is_(None), "missing"),
        (target.c.size != source.c.size, "size"),
        (source.c.modified > target.c.modified, "newer"),
        else_="checksum" if checksum else "",
    )
    listed = c.execute(sa.select(sa.func.count()).select_from(source)).scalar_one()
    _insert(c, transfer, "copy", sa.select(source, why.label("why")).select_from(both).where(why != ""))
    if named and not delete:
        lacking = _lacking(transfer, "source", "folder").add_columns(sa.literal("list").label("why"))
        _insert(c, transfer, "copy", lacking, result="failed", error=_MISSING)
    for side, word, error in (("unnamed", "name", _UNNAMED), ("folder", "folder", _FOLDER)):
        hopeless = sa.select(_side(side, transfer), sa.literal(word).label("why"))
        _insert(c, transfer, "copy", hopeless, result="failed", error=error)
    if delete:
        extra = target.outerjoin(source, source.c.key == target.c.key)
        query = sa.select(target, sa.literal("extra").label("why")).select_from(extra)
        _insert(c, transfer, "delete", query.where(source.c.key.is_(None)))
    c.execute(t.sync_objects.delete().where(t.sync_objects.c.transfer == transfer))
    return _totals(c, transfer, listed)


def _side(side: str, transfer: str) -> sa.Subquery:
    o = t.sync_objects.c
    return sa.select(o.key, o.size, o.version, o.modified).where(o.transfer == transfer, o.side == side).subquery(side)


def in_neither(c: sa.Connection, transfer: str, limit: int) -> tuple[int, list[str]]:
    """How many names of the list neither end has, and the first of them; to be asked before `compare`."""
    names = _lacking(transfer, "source", "folder", "target").subquery("lacking")
    total = c.execute(sa.select(sa.func.count()).select_from(names)).scalar_one()
    return total, list(c.execute(sa.select(names.c.key).order_by(names.c.key).limit(limit)).scalars())


def _lacking(transfer: str, *sides: str) -> sa.Select[Any]:
    """The names of the list that none of these sides has."""
    names, o = _side("name", transfer), t.sync_objects.alias("held")
    held = sa.exists().where(o.c.transfer == transfer, o.c.side.in_(sides), o.c.key == names.c.key)
    return sa.select(names).where(~held)


def _keep_named(c: sa.Connection, transfer: str) -> None:
    o, name = t.sync_objects, t.sync_objects.alias("named")
    same = (name.c.transfer == transfer, name.c.side == "name", name.c.key == o.c.key)
    is_named = sa.exists().where(*same).correlate(o)
    c.execute(o.delete().where(o.c.transfer == transfer, o.c.side != "name", ~is_named))


def _insert(c: sa.Connection, transfer: str, action: str, query: Any, result: str = "", error: Any = None) -> None:
    """Number what a query finds, behind the items that are there."""
    i = t.sync_items.c
    last = c.execute(sa.select(sa.func.coalesce(sa.func.max(i.number), 0)).where(i.transfer == transfer)).scalar_one()
    found = query.subquery("found")
    rows = sa.select(
        sa.literal(transfer),
        sa.func.row_number().over(order_by=found.c.key) + last,
        sa.literal(action),
        found.c.why,
        found.c.key,
        found.c.size,
        found.c.version,
        sa.literal(result),
        sa.literal(error, i.error.type),
    )
    names = ["transfer", "number", "action", "why", "key", "size", "version", "result", "error"]
    c.execute(t.sync_items.insert().from_select(names, rows, include_defaults=False))


def _totals(c: sa.Connection, transfer: str, listed: int) -> Totals:
    i = t.sync_items.c
    query = sa.select(i.action, sa.func.count(), sa.func.sum(i.size)).where(i.transfer == transfer, i.result == "")
    found = {row[0]: (row[1], int(row[2])) for row in c.execute(query.group_by(i.action))}
    copy, size = found.get("copy", (0, 0))
    doubtful = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(i.size), 0))
    compared = c.execute(doubtful.where(i.transfer == transfer, i.result == "", i.why == "checksum")).one()
    deletions, fail = found.get("delete", (0, 0))[0], tally(c, transfer).failed
    return Totals(copy, size, deletions, listed - copy, compared[0], int(compared[1]), fail)


def page(c: sa.Connection, transfer: str, first: int, last: int | None = None, *, pending: bool = True) -> list[Item]:
    """A page of the items first … last in order; `pending`: only those that have not ended."""
    i = t.sync_items.c
    query = sa.select(t.sync_items).where(i.transfer == transfer, i.number >= first)
    query = query if last is None else query.where(i.number <= last)
    query = query.where(i.result == "") if pending else query
    rows = c.execute(query.order_by(i.number).limit(PAGE))
    return [Item(r.number, r.action, r.why, r.key, r.size, r.version, r.token, r.result) for r in rows]


def deletions(c: sa.Connection, transfer: str, after: int) -> list[Item]:
    """A page of the deletions behind item `after` that have not ended."""
    i = t.sync_items.c
    query = sa.select(i.number).where(i.transfer == transfer, i.action == "delete", i.result == "", i.number > after)
    first = c.execute(query.order_by(i.number).limit(1)).scalar()
    return [] if first is None else page(c, transfer, first)


def drop(c: sa.Connection, transfer: str, numbers: Iterable[int]) -> None:
    """Take items back that are not to be done."""
    i = t.sync_items
    rows = [{"item": number} for number in numbers]
    if rows:
        c.execute(i.delete().where(i.c.transfer == transfer, i.c.number == sa.bindparam("item")), rows)


def enter_ended(c: sa.Connection, transfer: str, ended: Sequence[Ended]) -> None:
    """Record how items ended; what is recorded is not done again."""
    if not ended:
        return
    i = t.sync_items.c
    query = t.sync_items.update().where(i.transfer == transfer, i.number == sa.bindparam("item"))
    values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in _ENDED}
    rows = [
        {
            "item": e.number,
            "new_result": e.result,
            "new_compared": e.compared,
            "new_error": e.error,
            "new_token": e.token,
            "new_route": e.route,
            "new_because": e.because,
        }
        for e in ended
    ]
    c.execute(query.values(**values), rows)


def routes_taken(c: sa.Connection, transfer: str) -> list[Taken]:
    """Which routes the copied objects took and why, cheapest first; their numbers are not told."""
    i = t.sync_items.c
    query = sa.select(i.route, i.because, sa.func.sum(i.size), sa.func.count()).where(i.transfer == transfer)
    rows = c.execute(query.where(i.result == "copied", i.route != "").group_by(i.route, i.because))
    return by_cost(Taken(row[0], row[1], int(row[2]), row[3], ()) for row in rows)


def set_token(c: sa.Connection, transfer: str, number: int, token: str | None) -> None:
    """Record the upload of an item before a byte moves, or that it is gone; it has no stored steps yet."""
    i, s = t.sync_items.c, t.steps.c
    c.execute(t.steps.delete().where(s.transfer == transfer, s.part == number))
    c.execute(t.sync_items.update().where(i.transfer == transfer, i.number == number).values(token=token))


def opened(c: sa.Connection, transfer: str, after: int = 0) -> list[Item]:
    """A page of the items behind `after` that have an upload."""
    i = t.sync_items.c
    query = sa.select(t.sync_items).where(i.transfer == transfer, i.token.is_not(None), i.number > after)
    rows = c.execute(query.order_by(i.number).limit(PAGE))
    return [Item(r.number, r.action, r.why, r.key, r.size, r.version, r.token) for r in rows]


def tally(c: sa.Connection, transfer: str) -> Tally:
    """What has been done so far."""
    i = t.sync_items.c
    compared = sa.func.sum(sa.case((i.compared, 1), else_=0))
    query = sa.select(i.result, sa.func.count(), sa.func.sum(i.size), compared).where(i.transfer == transfer)
    found = {row[0]: (row[1], int(row[2]), int(row[3])) for row in c.execute(query.group_by(i.result))}
    nothing = (0, 0, 0)
    copied, size, well = found.get("copied", nothing)
    equal, deleted, failed = (found.get(result, nothing)[0] for result in ("equal", "deleted", "failed"))
    return Tally(copied, size, equal, deleted, failed, well == copied)


def failed(c: sa.Connection, transfer: str, most: int) -> int:
    """How many objects were tried in vain so far, counted up to `most`: asked after every segment."""
    i = t.sync_items.c
    tried = (i.transfer == transfer, i.action == "copy", i.result == "failed", i.why.not_in(_HOPELESS))
    some = sa.select(i.number).where(*tried).limit(most)
    return c.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one()


def failures(c: sa.Connection, transfer: str, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """The first items that failed: key and error."""
    i = t.sync_items.c
    query = sa.select(i.key, i.error).where(i.transfer == transfer, i.result == "failed")
    return [(row.key, row.error) for row in c.execute(query.order_by(i.number).limit(limit))]


def unclean(c: sa.Connection) -> list[str]:
    """Ended transfers that have left an upload."""
    i, x = t.sync_items.c, t.transfers.c
    query = sa.select(i.transfer).distinct().join(t.transfers, x.id == i.transfer)
    return list(c.execute(query.where(x.ended.is_not(None))).scalars())


def cut(c: sa.Connection, transfer: str, totals: Totals) -> None:
    """Store the segments of the objects to copy."""
    i = t.sync_items.c
    query = sa.select(i.number, i.size).where(i.transfer == transfer, i.action == "copy", i.result == "")
    rows = c.execute(query.order_by(i.number).execution_options(yield_per=PAGE))
    segments = batches(((row.number, row.size) for row in rows), totals)
    while some := list(islice(segments, PAGE)):
        manifest_rows.add_segments(c, transfer, some)


def segment_count(c: sa.Connection, transfer: str) -> int:
    """How many segments a transfer has."""
    s = t.segments
    return c.execute(sa.select(sa.func.count()).select_from(s).where(s.c.transfer == transfer)).scalar_one()


def batches(items: Iterable[tuple[int, int]], totals: Totals) -> Iterator[Segment]:
    """Segments of objects (number, size): up to 500 and 1 GiB, more if there would be more than a thousand of them."""
    most, largest = max(BATCH, -(-totals.copy // 1000)), max(GIB, totals.copy_bytes // 1000)
    number = count = first = last = held = 0
    for item, size in items:
        if count and (count == most or held + size > largest):
            number += 1
            yield Segment(number, first, last, 0, 0, held)
            count = held = 0
        first = first if count else item
        count, held, last = count + 1, held + size, item
    if count:
        yield Segment(number + 1, first, last, 0, 0, held)
