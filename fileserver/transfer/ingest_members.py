"""Which files a domain was joined of. Statements on a connection; decides nothing.

Rows belong to the root group of a domain, which is another one whenever files come to it: so they are of exactly what
is there, and what somebody else has put in its place has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.transfer.ingest_rows import File


def known(c: sa.Connection, root: str) -> dict[tuple[str, str], str]:
    """Versions of the files that a domain was joined of, by plane and key; empty if that is not known."""
    m = t.joined_files.c
    rows = c.execute(sa.select(m.plane, m.key, m.version).where(m.root == root))
    return {(row.plane, row.key): row.version for row in rows}


def enter(c: sa.Connection, root: str, files: Sequence[File], replaced: str, *, extends: bool) -> None:
    """A domain with this root was joined of these files.

    Args:
        c: the connection.
        root: of the domain.
        files: in their order.
        replaced: root of the domain that it replaces; empty if there was none.
        extends: that one's files are in this one, before these; those among these that were are not there twice.
    """
    m = t.joined_files
    if c.execute(sa.select(sa.func.count()).where(m.c.root == root)).scalar():
        return  # recorded before a crash
    before = known(c, replaced) if extends else {}
    if before:
        c.execute(m.update().where(m.c.root == replaced).values(root=root))
    else:
        c.execute(m.delete().where(m.c.root == replaced))
    fresh = (each for each in files if (each.plane, each.key) not in before)
    rows = [
        {"root": root, "number": number, "plane": each.plane, "key": each.key, "version": each.version}
        for number, each in enumerate(fresh, len(before) + 1)
    ]
    if rows:
        c.execute(m.insert(), rows)
