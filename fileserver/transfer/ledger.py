"""What is known of transfers: a row each, from its creation until it is forgotten, and the target that it holds.

Statements on a connection; decides nothing. What a transfer moves is in `fileserver.transfer.manifest_rows`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from fileserver.catalogue import agents
from fileserver.catalogue import tables as t
from fileserver.catalogue.files import PAGE
from fileserver.errors import TargetBusy, TransferNotFound
from fileserver.hdf5.hsds import address
from fileserver.transfer import manifest_rows
from fileserver.transfer.addresses import overlap
from fileserver.transfer.record import Plan, Progress, Record


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
    hsds, _, path = what.partition(":")  # of a domain
    r = t.reservations.c
    mine = r.target.startswith("object:") if kind == "object" else r.target == target
    for held, holder in c.execute(sa.select(r.target, r.transfer).where(mine)):
        if held != target and not overlap(held, target):
            continue
        shown = f"{address.show(path)} on HSDS '{hsds}'" if kind == "domain" else what
        msg = (
            f"{shown} is being written by transfer {holder}; `cropduster transfers watch {holder}` shows how far it is"
        )
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


def ask(c: sa.Connection, transfer: str, wish: str, now: float, waits_for: str = "") -> bool:
    """Note a wish ("cancel", "pause", or "" to go on); returns whether a new run has to be started for it.

    A cancel is final: no other wish takes its place. A pause that nobody asked for says which agent it `waits_for`.
    """
    record = get(c, transfer)
    if record.ended is not None or record.wish == "cancel" or (not wish and record.wish != "pause"):
        return _wake(c, record, "QUEUED", "", now) if not wish and record.state == "PAUSED" else False
    if record.state == "PAUSED":
        if wish == "pause":  # by somebody, from now on
            update(c, transfer, now, waits_for="")
        return wish == "cancel" and _wake(c, record, "CANCELLING", wish, now)
    state = {"cancel": "CANCELLING", "pause": "PAUSING", "": "RUNNING"}[wish]
    if record.state == "QUEUED":  # nobody works at it yet, perhaps for long: a run of its own does as wished
        return _wake(c, record, state, wish, now)
    update(c, transfer, now, wish=wish, state=state, waits_for=waits_for)
    return False


def _wake(c: sa.Connection, record: Record, state: str, wish: str, now: float) -> bool:
    update(c, record.id, now, state=state, wish=wish, run=record.run + 1, waits_for="")
    return True


def met(c: sa.Connection, transfer: str, now: float) -> Record | None:
    """The transfer, woken, if it stands still for an agent that is back; None if not."""
    record = get(c, transfer)
    if record.state != "PAUSED" or not record.waits_for or not agents.present(c, record.waits_for):
        return None
    _wake(c, record, "QUEUED", "", now)
    return get(c, transfer)


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
    """Note which file server works on a transfer, which so waits no more; False if the run is not its newest."""
    x = t.transfers.c
    state = sa.case((x.state == "QUEUED", "PLANNING"), else_=x.state)
    done = c.execute(t.transfers.update().where(x.id == transfer, x.run == run).values(owner=owner, state=state))
    return done.rowcount == 1


def owner(c: sa.Connection, transfer: str) -> str:
    """The file server that works on a transfer, or did last; "" if none has."""
    return c.execute(sa.select(t.transfers.c.owner).where(t.transfers.c.id == transfer)).scalar() or ""


def end(c: sa.Connection, transfer: str, now: float, state: str, *, clean: bool = True, **values: Any) -> None:
    """End a transfer: its target is free, its work is forgotten; sources, outcome and timeline stay.

    Where the clean-up left something (not `clean`), parts, their tokens and receipts stay for a later one.
    """
    update(c, transfer, now, state=state, ended=now, wish="", **values)
    c.execute(t.reservations.delete().where(t.reservations.c.transfer == transfer))
    manifest_rows.keep_timeline(c, transfer)
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
        c.execute(t.timelines.delete().where(t.timelines.c.transfer == record.id))
        if not c.execute(sa.select(t.files.c.name).where(t.files.c.transfer == record.id)).first():
            c.execute(t.sources.delete().where(t.sources.c.transfer == record.id))
    return gone


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
        row.waits_for,
    )
