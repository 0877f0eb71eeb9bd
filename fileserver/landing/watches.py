"""Rows of watches, and whose turn it is to look. Statements on a connection; the clock is the database's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import landing as t
from fileserver.catalogue.clock import database_now
from fileserver.errors import TargetBusy, WatchNotFound
from fileserver.landing import arrivals
from fileserver.landing.watch import PENDING, Life, Load, State, Watch, is_same, options_from_json
from planes.errors import AlreadyExists

LEASE: Final = 10.0
"""Seconds for which a process that works at something has it for itself; it says every second that it still does."""

_w: Final = t.watches.c


def create(c: sa.Connection, watch: Watch) -> Watch:
    """Enter a watch, or let one that asks for the same go on; returns it as it stands.

    One that has ended looks once more, and tries again what has failed.

    Raises:
        AlreadyExists: one of that name asks for something else.
    """
    there = find(c, watch.name)
    if there is None:
        values = {
            "name": watch.name,
            "plane": watch.plane,
            "prefix": watch.prefix,
            "options": asdict(watch.options),
            "action": asdict(watch.action),
        }
        c.execute(t.watches.insert().values(**values, state=Life.ACTIVE, created=database_now(), next_look=0.0))
    elif is_same(there, watch):
        if there.state is Life.ENDED:
            arrivals.retry_failed(c, watch.name)
        if there.state is not Life.ACTIVE:
            _steer(c, watch.name, Life.ACTIVE)
    else:
        msg = (
            f"there is a watch {watch.name} already, of {there.where} or with other options; "
            f"`cropduster inventory show {watch.name}` tells them: name another with --name, or remove that one first"
        )
        raise AlreadyExists(msg, watch=watch.name)
    return get(c, watch.name)


def find(c: sa.Connection, name: str) -> Watch | None:
    """A watch, if there is one of the name."""
    row = c.execute(sa.select(t.watches).where(_w.name == name)).first()
    return None if row is None else _watch(row)


def get(c: sa.Connection, name: str) -> Watch:
    """A watch; raises WatchNotFound."""
    found = find(c, name)
    if found is None:
        msg = f"no watch is called {name}; `cropduster inventory list` names them"
        raise WatchNotFound(msg, watch=name)
    return found


def listing(c: sa.Connection, after: str, limit: int, *, active: bool = False) -> list[Watch]:
    """Watches by name, behind `after`."""
    query = sa.select(t.watches).where(_w.name > after)
    if active:
        query = query.where(_w.state == Life.ACTIVE)
    return [_watch(r) for r in c.execute(query.order_by(_w.name).limit(limit))]


def stop(c: sa.Connection, name: str) -> Watch:
    """Look no more, and begin nothing; raises WatchNotFound."""
    found = get(c, name)
    if found.state is Life.ACTIVE:
        _steer(c, name, Life.STOPPED)
    return get(c, name)


def remove(c: sa.Connection, name: str) -> None:
    """Forget a watch and its inventory; what was loaded stays.

    Raises:
        WatchNotFound: there is none.
        TargetBusy: a transfer of it runs.
    """
    get(c, name)
    a = t.arrivals.c
    running = c.execute(sa.select(a.transfer).where(a.watch == name, a.state == State.RUNNING).limit(1)).first()
    if running is not None:
        msg = (
            f"the watch {name} is loading something (transfer {running.transfer or 'about to begin'}): "
            f"`cropduster inventory stop {name}`, and remove it when that has ended"
        )
        raise TargetBusy(msg, watch=name)
    c.execute(t.arrivals.delete().where(a.watch == name))
    c.execute(t.watches.delete().where(_w.name == name))


def _steer(c: sa.Connection, name: str, state: Life) -> None:
    """Another state; who looks meanwhile finds that it may not."""
    values: dict[str, Any] = {"state": state, "looker": "", "look_until": 0.0, "next_look": 0.0, "error": None}
    c.execute(t.watches.update().where(_w.name == name).values(**values))


# --- looks ----------------------------------------------------------------------------------------------------------


def claim(c: sa.Connection, name: str, looker: str) -> float | None:
    """Take the next look if it is due and nobody is at it; returns when it begins, None where it is not ours."""
    free = sa.or_(_w.looker == "", _w.look_until < database_now())
    ours = (_w.name == name, _w.state == Life.ACTIVE, _w.next_look <= database_now(), free)
    values = {"looker": looker, "look_until": database_now() + LEASE, "looking": database_now()}
    if not c.execute(t.watches.update().where(*ours).values(**values)).rowcount:
        return None
    return float(c.execute(sa.select(_w.looking).where(_w.name == name)).scalar_one())


def renew(c: sa.Connection, name: str, looker: str) -> bool:
    """Keep a look; returns whether it is still ours."""
    query = t.watches.update().where(_w.name == name, _w.looker == looker)
    return bool(c.execute(query.values(look_until=database_now() + LEASE)).rowcount)


def release(c: sa.Connection) -> None:
    """Take all leases back, of looks and of arrivals: for who knows that no other process is there."""
    c.execute(t.watches.update().where(_w.looker != "").values(looker=""))
    c.execute(t.arrivals.update().where(t.arrivals.c.owned_until > 0.0).values(owned_until=0.0))


def is_looking(c: sa.Connection, name: str, looker: str) -> bool:
    """Whether a look is ours: what another process sees meanwhile is newer."""
    return c.execute(sa.select(_w.name).where(_w.name == name, _w.looker == looker)).first() is not None


def looked(
    c: sa.Connection, watch: Watch, looker: str, error: dict[str, Any] | None = None, *, whole: bool = False
) -> bool:
    """End a look that saw all that can be seen (`whole`) or broke off, with what is to be told of it.

    Returns whether it was ours until the end.
    """
    values: dict[str, Any] = {"looker": "", "error": error, "next_look": database_now() + watch.options.every}
    if whole:
        values["looked"] = _w.looking
    query = t.watches.update().where(_w.name == watch.name, _w.looker == looker)
    return bool(c.execute(query.values(**values)).rowcount)


def end_if_done(c: sa.Connection, watch: Watch) -> bool:
    """End a watch that was to look once, if it could not or nothing of what it saw is pending; whether it did.

    What has only its marker to wait for is not: that may never come, and is for another watch.
    """
    a = t.arrivals.c
    has_looked = (_w.name == watch.name, _w.state == Life.ACTIVE, _w.looker == "", _w.next_look > 0.0)
    pending = sa.exists().where(a.watch == watch.name, a.state.in_(PENDING))
    if watch.options.marker:
        pending = pending.where(sa.or_(a.state != State.SEEN, a.changed > _w.looked - watch.options.settle))
    broke_off = sa.or_(_w.looked.is_(None), _w.looked < _w.looking)
    over = sa.or_(broke_off, ~pending)
    return bool(c.execute(t.watches.update().where(*has_looked, over).values(state=Life.ENDED)).rowcount)


def due(c: sa.Connection) -> list[Watch]:
    """Active watches whose next look is due and that nobody looks at."""
    free = sa.or_(_w.looker == "", _w.look_until < database_now())
    query = sa.select(t.watches).where(_w.state == Life.ACTIVE, _w.next_look <= database_now(), free)
    return [_watch(r) for r in c.execute(query.order_by(_w.next_look))]


def _watch(row: Any) -> Watch:
    return Watch(
        row.name,
        row.plane,
        row.prefix,
        options_from_json(row.options),
        Load(**row.action),
        Life(row.state),
        row.created,
        row.looked,
        row.error,
    )
