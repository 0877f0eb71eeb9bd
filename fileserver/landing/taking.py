"""From settled arrivals to transfers and back: who takes which, exactly once, and how it ended. Statements.

Whoever takes an arrival changes its row from `settled` to `running` by one conditional statement, which also names its
batch, so two processes never take the same; then it has one transfer made of the batch, with a request id that follows
from that. If it dies before it has recorded the transfer, another process does the same after the lease, and gets the
same one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import landing as t
from fileserver.catalogue import tables
from fileserver.catalogue.clock import database_now
from fileserver.landing.arrivals import arrival_of
from fileserver.landing.states import ended
from fileserver.landing.watch import Arrival, Life, State, Watch
from fileserver.landing.watches import LEASE

_a: Final = t.arrivals.c
_SOME: Final = 100
LARGEST: Final = 100
"""Files of one transfer."""


def request_id(batch: str) -> str:
    """What the transfer of a batch is known by, whoever makes it."""
    return f"arrivals-{batch}"


def ready(c: sa.Connection) -> list[str]:
    """Active watches that have something to begin, by name."""
    w = t.watches.c
    query = sa.select(_a.watch).distinct().join(t.watches, w.name == _a.watch).where(w.state == Life.ACTIVE)
    query = query.where(_a.state == State.SETTLED, _a.not_before <= database_now())
    return list(c.execute(query.order_by(_a.watch)).scalars())


def take(c: sa.Connection, watch: Watch, owner: str, group: Callable[[Arrival], str]) -> list[list[Arrival]]:
    """Take what may begin now, the oldest first, in as many transfers as may run at once.

    What there is is dealt to all of them: few arrivals get a transfer each, many share them by their groups.
    """
    running = sa.select(sa.func.count(sa.distinct(_a.batch))).where(_a.watch == watch.name, _a.state == State.RUNNING)
    room = watch.options.at_once - c.execute(running).scalar_one()
    if room <= 0:
        return []
    is_ready = (_a.watch == watch.name, _a.state == State.SETTLED, _a.not_before <= database_now())
    oldest = sa.select(t.arrivals).where(*is_ready).order_by(_a.settled, _a.key).limit(room * LARGEST)
    found = [arrival_of(row) for row in c.execute(oldest)]
    by_group: dict[str, list[Arrival]] = {}
    for each in found:
        by_group.setdefault(group(each), []).append(each)
    size = -(-len(found) // room)
    parts = [some[n : n + size] for some in by_group.values() for n in range(0, len(some), size)]
    return [mine for some in parts[:room] if (mine := _begin(c, is_ready, some, owner))]


def _begin(c: sa.Connection, is_ready: Any, some: Sequence[Arrival], owner: str) -> list[Arrival]:
    """One batch of what nobody else has taken meanwhile."""
    batch = uuid.uuid4().hex
    values: dict[str, Any] = {"state": State.RUNNING, "taken": _a.version, "started": database_now(), "ended": None}
    values |= {"tries": _a.tries + 1, "batch": batch, "transfer": None, **_own(owner)}
    query = t.arrivals.update().where(*is_ready, _a.key.in_([each.key for each in some]))
    c.execute(query.values(**values))
    return _members(c, batch)


def _members(c: sa.Connection, batch: str) -> list[Arrival]:
    query = sa.select(t.arrivals).where(_a.batch == batch, _a.state == State.RUNNING).order_by(_a.key)
    return [arrival_of(row) for row in c.execute(query)]


def _is_abandoned() -> tuple[Any, ...]:
    """Rows that were taken by a process that has died before their transfer was recorded."""
    return (_a.state == State.RUNNING, _a.transfer.is_(None), _a.owned_until < database_now())


def abandoned(c: sa.Connection) -> list[str]:
    """Some of their batches."""
    return list(c.execute(sa.select(_a.batch).distinct().where(*_is_abandoned()).limit(_SOME)).scalars())


def adopt(c: sa.Connection, owner: str, batch: str) -> list[Arrival]:
    """Take over a batch, if it still is abandoned."""
    query = t.arrivals.update().where(*_is_abandoned(), _a.batch == batch)
    return _members(c, batch) if c.execute(query.values(**_own(owner))).rowcount else []


def made(c: sa.Connection, batch: str, transfer: str) -> None:
    """Record the transfer of a batch."""
    values = {"transfer": transfer, "owner": "", "owned_until": 0.0}
    c.execute(t.arrivals.update().where(_a.batch == batch, _a.state == State.RUNNING).values(**values))


def over(c: sa.Connection) -> list[tuple[Arrival, str]]:
    """Some running arrivals whose transfers have ended, or are forgotten, with their ids."""
    x = tables.transfers.c
    both = t.arrivals.outerjoin(tables.transfers, x.id == _a.transfer)
    query = sa.select(t.arrivals).select_from(both).where(_a.state == State.RUNNING, _a.transfer.is_not(None))
    rows = c.execute(query.where(sa.or_(x.ended.is_not(None), x.id.is_(None))).limit(_SOME))
    return [(arrival_of(row), row.transfer) for row in rows]


def end(c: sa.Connection, arrival: Arrival, most: int, error: dict[str, Any] | None, *, loaded: bool) -> State | None:
    """End a try; returns the state that follows, None if somebody else has ended it.

    Args:
        c: in a transaction that writes.
        arrival: as it was taken.
        most: tries that are allowed.
        error: why it failed, or, where it is `loaded`, what did not come along.
        loaded: it succeeded.
    """
    row = c.execute(sa.select(_a.version, _a.tries).where(*_this_try(arrival))).first()
    if row is None:
        return None
    found = ended(row.version, arrival.taken, row.tries, most, "" if loaded else str((error or {})["reason"]))
    values: dict[str, Any] = {"state": found.state, "ended": database_now(), "tries": found.tries, "owner": ""}
    values |= {"not_before": database_now() + found.pause, "owned_until": 0.0}
    values["error"] = error if row.version == arrival.taken else None
    if found.loaded:
        values |= {"loaded": arrival.taken, "tries": arrival.tries if found.state is State.DONE else 0}
    c.execute(t.arrivals.update().where(*_this_try(arrival)).values(**values))
    return found.state


def is_busy(c: sa.Connection) -> bool:
    """Whether something runs."""
    return c.execute(sa.select(_a.key).where(_a.state == State.RUNNING).limit(1)).first() is not None


def _this_try(arrival: Arrival) -> tuple[Any, ...]:
    same = (_a.watch == arrival.watch, _a.key == arrival.key, _a.batch == arrival.batch)
    return (*same, _a.state == State.RUNNING)


def _own(owner: str) -> dict[str, Any]:
    return {"owner": owner, "owned_until": database_now() + LEASE}
