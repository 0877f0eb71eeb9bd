"""How much of what there is: for whoever watches a file server. Functions of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.catalogue.agents import agents
from fileserver.catalogue.clock import moment
from fileserver.hosts import AGENT_OF


@dataclass(frozen=True, slots=True)
class Counts:
    """One look at the database, which may be that of many file servers."""

    transfers: Mapping[tuple[str, str], int]
    """By state and verb, as long as they are remembered."""
    oldest: float
    """When the oldest transfer that has not ended was accepted, in seconds since 1970; 0 if there is none."""
    segments: Mapping[str, int]
    """Of transfers that have not ended: "waiting", "taken" and "done"; "paused" are those that a paused one lacks."""
    garbage: int
    """Objects that are to be deleted once nobody can need them."""
    files: int
    """Logical files."""
    hosts: Mapping[str, int]
    """By what became of their agents: "here", or "lost" without a word of leave.

    Those that the configuration does not have are forgotten after a day.
    """


def count(c: sa.Connection) -> Counts:
    """Look once."""
    x, s = t.transfers.c, t.segments.c
    kind = x.spec["kind"].as_string()
    transfers = c.execute(sa.select(x.state, kind, sa.func.count()).group_by(x.state, kind))
    at = sa.case((s.done, "done"), (x.state == "PAUSED", "paused"), (s.begun.is_not(None), "taken"), else_="waiting")
    of_transfers = t.segments.outerjoin(t.transfers, s.transfer == x.id)
    segments = dict.fromkeys(("waiting", "taken", "done", "paused"), 0)
    for state, many in c.execute(sa.select(at.label("at"), sa.func.count()).select_from(of_transfers).group_by("at")):
        segments[state] = many
    return Counts(
        {(state, str(verb)): many for state, verb, many in transfers},
        c.execute(sa.select(sa.func.min(x.created)).where(x.ended.is_(None))).scalar() or 0.0,
        segments,
        _rows(c, t.garbage),
        _rows(c, t.files),
        _hosts(c),
    )


def _hosts(c: sa.Connection) -> Mapping[str, int]:
    a = agents.c
    lives, of_host = a.lease_until > moment(c), a.plane.startswith(AGENT_OF, autoescape=True)
    found = {"here": 0, "lost": 0}
    for here, many in c.execute(sa.select(lives, sa.func.count()).where(of_host).group_by(lives)):
        found["here" if here else "lost"] = many
    return found


def _rows(c: sa.Connection, table: sa.Table) -> int:
    return int(c.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
