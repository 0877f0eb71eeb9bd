"""Agents and what they are to do: rows and statements on a connection. Leases count by the database's clock alone."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, String, Table

from fileserver.catalogue import upsert
from fileserver.catalogue.clock import moment
from fileserver.catalogue.tables import metadata, transfers

CHANNEL = "cropduster_agents"
"""Of PostgreSQL's notifications: the plane or the assignment of which something was written."""
LEASE = 30.0
"""Seconds that an agent's stream may be silent before what it holds is free again."""

agents = Table(
    "agents",
    metadata,
    Column("plane", String(64), primary_key=True),
    Column("stream", String(96), nullable=False),
    Column("lease_until", Float, nullable=False),
)
"""One row a plane that is an agent's files: the stream by which the agent is reached."""

assignments = Table(
    "assignments",
    metadata,
    Column("id", String(96), primary_key=True),
    Column("plane", String(64), nullable=False),
    Column("transfer", String(64), nullable=False),
    Column("segment", Integer, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("answer", LargeBinary),
    Column("report", LargeBinary),
    Column("stream", String(96), nullable=False, server_default=""),
    Column("lease_until", Float, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("stopping", Boolean, nullable=False, server_default=sa.false()),
    Column("created", Float, nullable=False),
    Index("assignments_by_plane", "plane", "created"),
)
"""What an agent is to do and what came of it; `segment` 0 is no segment. Grants are never in here."""

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)
"""What all file servers of this database know, and nobody else: keys are drawn of it."""


@dataclass(frozen=True, slots=True)
class Leased:
    """An assignment that a stream has taken."""

    id: str
    transfer: str
    segment: int
    request: bytes
    attempt: int


@dataclass(frozen=True, slots=True)
class Seen:
    """How an assignment stands."""

    answer: bytes | None
    report: bytes | None


def secret(engine: sa.Engine, name: str) -> str:
    """The secret of a name; made by whoever asks first."""
    asked = sa.select(secrets.c.value).where(secrets.c.name == name)
    with engine.connect() as c:
        found = c.execute(asked).scalar()
    if found is None:
        with suppress(sa.exc.IntegrityError), engine.begin() as c:  # somebody else was first
            c.execute(secrets.insert().values(name=name, value=token_hex(32)))
        with engine.connect() as c:
            found = c.execute(asked).scalar_one()
    return str(found)


def _tell(c: sa.Connection, name: str) -> None:
    """Let other file servers know, once this is committed, that there is something new of a plane or an assignment."""
    if c.dialect.name == "postgresql":
        c.execute(sa.select(sa.func.pg_notify(CHANNEL, name)))


def enter(c: sa.Connection, plane: str, stream: str) -> None:
    """An agent is here, by this stream; what another stream of it held is free, for nobody can answer there now."""
    upsert.replace(c, agents, [{"plane": plane, "stream": stream, "lease_until": moment(c) + LEASE}])
    a = assignments.c
    c.execute(assignments.update().where(a.plane == plane, a.answer.is_(None)).values(stream="", lease_until=0.0))
    _tell(c, plane)


def glance(c: sa.Connection, plane: str, stream: str) -> tuple[bool, bool]:
    """Whether the stream is the plane's still, and whether something waits that nobody holds."""
    mine = c.execute(sa.select(agents.c.stream).where(agents.c.plane == plane)).scalar() == stream
    waits = sa.select(assignments.c.id).where(_free(plane, moment(c))).limit(1)
    return mine, c.execute(waits).first() is not None


def _free(plane: str, now: float) -> sa.ColumnElement[bool]:
    a = assignments.c
    return sa.and_(a.plane == plane, a.answer.is_(None), a.stopping.is_(sa.false()), a.lease_until < now)


def renew(c: sa.Connection, plane: str, stream: str) -> bool:
    """The stream lives, and so does what it holds; False if another has taken its place."""
    until, a = moment(c) + LEASE, assignments.c
    found = c.execute(
        agents.update().where(agents.c.plane == plane, agents.c.stream == stream).values(lease_until=until)
    )
    c.execute(assignments.update().where(a.plane == plane, a.stream == stream).values(lease_until=until))
    return found.rowcount == 1


def leave(c: sa.Connection, plane: str, stream: str) -> None:
    """An agent said that it goes: what it held is free at once."""
    a = assignments.c
    c.execute(agents.delete().where(agents.c.plane == plane, agents.c.stream == stream))
    c.execute(assignments.update().where(a.plane == plane, a.stream == stream).values(stream="", lease_until=0.0))


def present(c: sa.Connection, plane: str) -> bool:
    """Whether an agent is here whose lease runs."""
    until = c.execute(sa.select(agents.c.lease_until).where(agents.c.plane == plane)).scalar()
    return until is not None and until > moment(c)


def put(c: sa.Connection, name: str, plane: str, transfer: str, segment: int, request: bytes) -> None:
    """Enter an assignment; one of that name that is there already stays, with its answer if it has one."""
    a = assignments.c
    if c.execute(sa.select(a.id).where(a.id == name)).first() is None:
        row = {"id": name, "plane": plane, "transfer": transfer, "segment": segment, "request": request}
        c.execute(assignments.insert().values(**row, created=moment(c)))
    else:  # whoever asked before had it stopped, and asks again
        c.execute(assignments.update().where(a.id == name).values(stopping=False))
    _tell(c, plane)


def lease(c: sa.Connection, plane: str, stream: str, segments: int, calls: int) -> list[Leased]:
    """Take what waits, the oldest first: so many segments at most, and so many of everything else.

    A stream whose place another has taken gets nothing: nobody would do it until its lease is over.
    """
    a, now = assignments.c, moment(c)
    taken: list[Leased] = []
    here = c.execute(sa.select(agents.c.stream).where(agents.c.plane == plane).with_for_update()).scalar()
    if here not in {None, stream}:
        return taken
    for which, most in ((a.segment == 0, calls), (a.segment > 0, segments)):
        if most > 0:
            query = sa.select(assignments).where(_free(plane, now), which).order_by(a.created, a.id).limit(most)
            rows = c.execute(query.with_for_update(skip_locked=True)).all()
            taken += [Leased(r.id, r.transfer, r.segment, r.request, r.attempt + 1) for r in rows]
    values = {"stream": stream, "lease_until": now + LEASE, "attempt": a.attempt + 1}
    for one in taken:
        c.execute(assignments.update().where(a.id == one.id).values(**values))
    return taken


def unwanted(c: sa.Connection, plane: str, held: set[str]) -> set[str]:
    """Which of these nobody waits for any more."""
    a = assignments.c
    wanted = sa.select(a.id).where(a.plane == plane, a.stopping.is_(sa.false()))
    return held - {row.id for row in c.execute(wanted)}


def answer(c: sa.Connection, name: str, stream: str, said: bytes) -> bool:
    """Keep an answer, if the stream still holds the assignment; whether it does."""
    a = assignments.c
    kept = c.execute(assignments.update().where(a.id == name, a.stream == stream).values(answer=said))
    _tell(c, name)
    return kept.rowcount == 1


def report(c: sa.Connection, name: str, stream: str, said: bytes) -> bool:
    """Keep how far an assignment is; whether the stream still holds it."""
    a = assignments.c
    kept = c.execute(assignments.update().where(a.id == name, a.stream == stream).values(report=said))
    _tell(c, name)
    return kept.rowcount == 1


def look(c: sa.Connection, name: str) -> Seen | None:
    """How an assignment stands; None if there is none of that name."""
    a = assignments.c
    row = c.execute(sa.select(a.answer, a.report).where(a.id == name)).first()
    return None if row is None else Seen(row.answer, row.report)


def stop(c: sa.Connection, name: str, plane: str) -> None:
    """Nobody wants it any more, but whoever works on it may still write: it stays until that has answered."""
    c.execute(assignments.update().where(assignments.c.id == name).values(stopping=True))
    _tell(c, plane)


def remove(c: sa.Connection, name: str, plane: str) -> None:
    """Forget an assignment."""
    c.execute(assignments.delete().where(assignments.c.id == name))
    _tell(c, plane)


def forget(c: sa.Connection, before: float, known: Collection[str] = ()) -> None:
    """Forget what nobody can be waiting for: assignments of ended transfers, agents that were lost long ago.

    Those of `known` stay: their files are still asked for, and whoever watches must go on seeing that they are lost.
    """
    a, x = assignments.c, transfers.c
    ended = sa.select(x.id).where(x.ended.is_not(None))
    c.execute(assignments.delete().where(sa.or_(a.transfer.in_(ended), sa.and_(a.transfer == "", a.created < before))))
    c.execute(agents.delete().where(agents.c.lease_until < before, agents.c.plane.not_in(known)))
