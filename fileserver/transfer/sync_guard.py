"""What the deletions of a sync must not touch: what the catalogue, the garbage or a running transfer names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.configured import Configured
from fileserver.errors import PlaneNotFound
from fileserver.transfer.addresses import address, overlap
from fileserver.transfer.sync_rows import Item


async def places(planes: Configured, named: Sequence[str], target: str) -> dict[str, tuple[str, str]]:
    """Of the planes `named`, those that share objects with the folder at address `target`.

    Each with what has to be taken off a key relative to `target`, and what then put before it, to make it a key of
    that plane.
    """
    found = {}
    for name in named:
        try:
            root = await address(planes, name, "")
        except PlaneNotFound:  # not configured any more
            continue
        if overlap(root, target):
            found[name] = (root.removeprefix(target), "") if root.startswith(target) else ("", target[len(root) :])
    return found


def known_planes(c: sa.Connection) -> list[str]:
    """The planes that hold objects which somebody needs, or will delete himself."""
    names = set[str]()
    for table in (t.file_parts, t.garbage, t.sources):
        names |= set(c.execute(sa.select(table.c.plane).distinct()).scalars())
    return sorted(names | {plane for _, plane in _running(c) if plane})


def _running(c: sa.Connection) -> list[tuple[str, str]]:
    """Transfers that have not ended, and the planes that they write to ("" if not known yet)."""
    x = t.transfers.c
    rows = c.execute(sa.select(x.id, x.plan).where(x.ended.is_(None)))
    return [(row.id, (row.plan or {}).get("plane", "")) for row in rows]


def named(c: sa.Connection, items: Sequence[Item], at: Mapping[str, tuple[str, str]]) -> set[int]:
    """Numbers of those items that the catalogue, the garbage or a running transfer names; `at` is of `places`."""
    found, running = set[int](), _running(c)
    for plane, (less, more) in at.items():
        numbers = {more + i.key.removeprefix(less): i.number for i in items if i.key.startswith(less)}
        for query in _queries(plane, running):
            found |= {numbers[row[0]] for row in c.execute(query, {"keys": list(numbers)})}
    return found


def _queries(plane: str, running: Sequence[tuple[str, str]]) -> Iterator[sa.Select[Any]]:
    keys = sa.bindparam("keys", expanding=True, type_=sa.Text)
    for table in (t.file_parts, t.garbage):
        yield sa.select(table.c.key).where(table.c.plane == plane, table.c.key.in_(keys))
    s, p = t.sources.c, t.parts.c
    yield sa.select(s.key).where(s.plane == plane, s.transfer.in_([id_ for id_, _ in running]), s.key.in_(keys))
    writing = [id_ for id_, into in running if into == plane]
    yield sa.select(p.key).where(p.transfer.in_(writing), p.key.in_(keys))
