"""Objects that nobody needs any more: the statements of the table `garbage`, on a connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.catalogue import upsert

PAGE = 1000
MOST_KEYS: Final = 10_000
"""Keys that one statement may name; SQLite takes 32,766."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """An object that nobody needs any more; with a `version` it is a stranger's, and that version alone is meant."""

    plane: str
    key: str
    version: str = ""


def discard(c: sa.Connection, plane: str, keys: Sequence[str], not_before: float) -> None:
    """Enter objects of ours that nobody needs from a moment on; one that is entered already gets the new moment."""
    rows = [{"plane": plane, "key": key, "not_before": not_before} for key in keys]
    upsert.replace(c, t.garbage, rows)


def doom(c: sa.Connection, objects: Sequence[Garbage], not_before: float) -> None:
    """Enter objects of strangers that the user asked to destroy, each with the version that was meant."""
    rows = [{"plane": g.plane, "key": g.key, "version": g.version, "not_before": not_before} for g in objects]
    upsert.replace(c, t.garbage, rows)


def discard_all(c: sa.Connection, rows: sa.Select[Any]) -> None:
    """Enter what a statement finds: plane, key, and the moment from which nobody needs it."""
    upsert.replace_from(c, t.garbage, ["plane", "key", "not_before"], rows)


def due(c: sa.Connection, now: float, planes: Sequence[str], after: tuple[str, str] = ("", "")) -> list[Garbage]:
    """A page of garbage on `planes` that may be deleted, in order of plane and key, beginning after `after`.

    Its time has come, and no running transfer reads it.
    """
    g, s = t.garbage.c, t.sources.c
    running = (
        sa.select(s.transfer)
        .join(t.transfers, t.transfers.c.id == s.transfer)
        .where(s.plane == g.plane, s.key == g.key, t.transfers.c.ended.is_(None))
    )
    query = sa.select(g.plane, g.key, g.version).where(
        g.plane.in_(planes), sa.tuple_(g.plane, g.key) > sa.tuple_(*map(sa.literal, after)), g.not_before <= now
    )
    query = query.where(~running.exists()).order_by(g.plane, g.key).limit(PAGE)
    return [Garbage(row.plane, row.key, row.version) for row in c.execute(query)]


def among(c: sa.Connection, plane: str, keys: Sequence[str]) -> set[str]:
    """Those of up to `MOST_KEYS` objects that are about to be deleted."""
    g = t.garbage.c
    return set(c.execute(sa.select(g.key).where(g.plane == plane, g.key.in_(keys))).scalars())


def discarded(c: sa.Connection, plane: str, home: str) -> bool:
    """Whether an object of a folder (its key without a trailing slash) is garbage."""
    g = t.garbage.c
    inside = sa.select(g.key).where(g.plane == plane, g.key > f"{home}/", g.key < f"{home}0")  # 0 comes after /
    return c.execute(inside.limit(1)).first() is not None


def forget_garbage(c: sa.Connection, objects: Sequence[Garbage]) -> None:
    """Objects that are deleted now."""
    g = t.garbage.c
    if objects:
        query = t.garbage.delete().where(g.plane == sa.bindparam("_plane"), g.key == sa.bindparam("_key"))
        c.execute(query, [{"_plane": one.plane, "_key": one.key} for one in objects])


def dead(c: sa.Connection) -> list[str]:
    """Copies that nobody can read any more: no file, no running transfer and no garbage of theirs is left."""
    p, g = t.file_parts.c, t.garbage.c
    needed = sa.select(t.copies.c.id).union(sa.select(t.transfers.c.id).where(t.transfers.c.ended.is_(None)))
    gone = c.execute(sa.select(p.generation).distinct().where(p.generation.not_in(needed))).scalars().all()
    left = sa.select(g.key).join(t.file_parts, sa.and_(p.plane == g.plane, p.key == g.key))
    return [one for one in gone if c.execute(left.where(p.generation == one).limit(1)).first() is None]


def forget_parts(c: sa.Connection, copies: Sequence[str]) -> None:
    """Forget the parts of copies that are dead."""
    for copy in copies:
        c.execute(t.file_parts.delete().where(t.file_parts.c.generation == copy))
