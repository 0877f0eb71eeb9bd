"""Rows of arrivals: what looks see, what settles, and what is asked for by hand. Statements on a connection.

Objects come in pages and in any order (not every store lists in byte order), so a look marks what it sees with the
moment at which it began, and what has an older mark at its end is gone. Nothing is held whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import landing as t
from fileserver.catalogue.files import PAGE
from fileserver.errors import WatchNotFound
from fileserver.landing.states import is_marker, marker_of, noticed
from fileserver.landing.watch import Arrival, Listed, State, Watch

_NAMES: Final = 500  # in one statement
_a: Final = t.arrivals.c
_FRESH: Final[dict[str, Any]] = {"settled": None, "not_before": 0.0, "tries": 0, "error": None}
"""What is forgotten with the version that it was about."""


def see(c: sa.Connection, watch: Watch, look: float, page: Iterable[Listed]) -> None:
    """Enter what a look that began at `look` has listed; a key that is listed twice counts once."""
    listed = {each.key: each for each in page}
    known = {row.key: row for keys in _split(list(listed)) for row in _rows(c, watch.name, keys)}
    same, new = [], []
    for key, each in listed.items():
        row = known.get(key)
        if row is None:
            new.append(_new(watch, look, each))
            continue
        found = noticed(State(row.state), row.version, row.loaded, each.version)
        if found.state == row.state and not found.fresh and row.version == each.version:
            same.append(key)
            continue
        values: dict[str, Any] = {"version": each.version, "size": each.size, "modified": each.modified}
        values |= {"state": found.state, "last_seen": look}
        if found.fresh:
            values |= {"changed": look}
        if found.state is not State.RUNNING:
            values |= _FRESH
        _update(c, watch.name, [key], values)
    if new:
        c.execute(t.arrivals.insert(), new)
    _update(c, watch.name, same, {"last_seen": look})


def settle(c: sa.Connection, watch: Watch, look: float) -> int:
    """Mark as settled what a look has seen unchanged for long enough, and with its marker; returns how many."""
    seen = (_a.watch == watch.name, _a.state == State.SEEN, _a.last_seen == look)
    ripe = (*seen, _a.changed <= look - watch.options.settle)
    values = {"state": State.SETTLED, "settled": look, "not_before": 0.0}
    if not watch.options.marker:
        return c.execute(t.arrivals.update().where(*ripe).values(**values)).rowcount
    count, after = 0, ""
    while True:
        query = sa.select(_a.key, _a.modified).where(*ripe, _a.key > after).order_by(_a.key).limit(_NAMES)
        rows = {row.key: row.modified for row in c.execute(query)}
        if not rows:
            return count
        after = list(rows)[-1]
        marked = _marked(c, watch, rows)
        _update(c, watch.name, marked, values)
        count += len(marked)


def vanish(c: sa.Connection, watch: Watch, look: float) -> int:
    """Mark as gone what a look that saw everything has not seen; returns how many."""
    unseen = (_a.watch == watch.name, _a.last_seen < look)
    c.execute(t.arrivals.delete().where(*unseen, _a.state == State.MARKER))
    others = _a.state.not_in([State.RUNNING, State.GONE])
    return c.execute(t.arrivals.update().where(*unseen, others).values(state=State.GONE, error=None)).rowcount


def _marked(c: sa.Connection, watch: Watch, rows: dict[str, float]) -> list[str]:
    """Those of the keys (with their times) whose marker is there and not of an earlier version."""
    of = {key: marker_of(watch.options.marker, key) for key in rows}
    query = sa.select(_a.key, _a.modified).where(_a.watch == watch.name, _a.state == State.MARKER)
    pages = (c.execute(query.where(_a.key.in_(keys))) for keys in _split(list(of.values())))
    times = {row.key: row.modified for page in pages for row in page}
    return [key for key, modified in rows.items() if times.get(of[key], -1.0) >= modified]


def _new(watch: Watch, look: float, each: Listed) -> dict[str, Any]:
    state = State.MARKER if is_marker(watch.options.marker, each.key) else State.SEEN
    seen = {"first_seen": look, "last_seen": look, "changed": look}
    facts = {"version": each.version, "size": each.size, "modified": each.modified}
    return {"watch": watch.name, "key": each.key, "state": state, **facts, **seen}


# --- for people -----------------------------------------------------------------------------------------------------


def get(c: sa.Connection, watch: str, key: str) -> Arrival:
    """One arrival; raises WatchNotFound."""
    row = c.execute(sa.select(t.arrivals).where(_a.watch == watch, _a.key == key)).first()
    if row is None or row.state == State.MARKER:
        msg = (
            f"nothing called {key} has arrived at the watch {watch}; `cropduster inventory list {watch}` shows what has"
        )
        raise WatchNotFound(msg, watch=watch, key=key)
    return arrival_of(row)


def listing(
    c: sa.Connection, watch: str, after: str = "", limit: int = PAGE, states: Sequence[State] = ()
) -> list[Arrival]:
    """A page of arrivals in order of their keys, behind `after`; of all states if none is named."""
    query = sa.select(t.arrivals).where(_a.watch == watch, _a.key > after, _a.state != State.MARKER)
    query = query.where(_a.state.in_(states)) if states else query
    return [arrival_of(row) for row in c.execute(query.order_by(_a.key).limit(limit))]


def counts(c: sa.Connection, watch: str) -> dict[State, int]:
    """How many arrivals there are by state."""
    query = sa.select(_a.state, sa.func.count()).where(_a.watch == watch, _a.state != State.MARKER)
    return {State(state): count for state, count in c.execute(query.group_by(_a.state))}


def retry(c: sa.Connection, watch: str, keys: Sequence[str]) -> int:
    """Let those of the keys that have failed, or wait for another try, be tried at once; returns how many."""
    values = {"state": State.SETTLED, **_FRESH}
    return _update(c, watch, keys, values, (State.FAILED, State.SETTLED))


def retry_failed(c: sa.Connection, watch: str) -> int:
    """The same for all that has failed."""
    query = t.arrivals.update().where(_a.watch == watch, _a.state == State.FAILED)
    return c.execute(query.values(state=State.SETTLED, **_FRESH)).rowcount


def reset(c: sa.Connection, watch: str, keys: Sequence[str]) -> int:
    """Let those of the keys that do not run begin anew, as if just seen, and forget what is gone; how many."""
    values = {"state": State.SEEN, "started": None, "ended": None, "transfer": None, **_FRESH}
    others = (State.SEEN, State.SETTLED, State.DONE, State.FAILED)
    count = _update(c, watch, keys, values, others)
    for some in _split(keys):
        query = t.arrivals.delete().where(_a.watch == watch, _a.key.in_(some), _a.state == State.GONE)
        count += c.execute(query).rowcount
    return count


def matching(
    c: sa.Connection, watch: str, states: Sequence[State], test: Callable[[str], bool], after: str
) -> tuple[list[str], str]:
    """A page of keys in these states that pass a test, and where the next page begins; "" where there is none."""
    page = listing(c, watch, after, PAGE, states)
    return [each.key for each in page if test(each.key)], page[-1].key if page else ""


def arrival_of(row: Any) -> Arrival:
    """The arrival of a row."""
    return Arrival(
        row.watch,
        row.key,
        row.version,
        row.size,
        State(row.state),
        row.first_seen,
        row.last_seen,
        row.changed,
        row.settled,
        row.not_before,
        row.started,
        row.ended,
        row.tries,
        row.batch,
        row.taken,
        row.loaded,
        row.transfer,
        row.error,
    )


def _rows(c: sa.Connection, watch: str, keys: Sequence[str]) -> Iterable[Any]:
    query = sa.select(_a.key, _a.version, _a.state, _a.loaded)
    return c.execute(query.where(_a.watch == watch, _a.key.in_(keys)))


def _update(
    c: sa.Connection, watch: str, keys: Sequence[str], values: dict[str, Any], states: Sequence[State] = ()
) -> int:
    count = 0
    for some in _split(keys):
        query = t.arrivals.update().where(_a.watch == watch, _a.key.in_(some))
        query = query.where(_a.state.in_(states)) if states else query
        count += c.execute(query.values(**values)).rowcount
    return count


def _split(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _NAMES):
        yield keys[start : start + _NAMES]
