"""Rows that replace those of the same key, in the words of either database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def replace(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; one whose primary key is taken takes the place of the old one, with defaults where it says nothing.

    No two of them may have the same key.
    """
    if rows:
        c.execute(_insert(c, table), [dict(row) for row in rows])


def replace_from(c: sa.Connection, table: sa.Table, names: Sequence[str], rows: sa.Select[Any]) -> None:
    """The same with what a statement finds, which must have a WHERE (SQLite takes `ON CONFLICT` for a join else)."""
    c.execute(_insert(c, table, names, rows))


def _insert(c: sa.Connection, table: sa.Table, names: Sequence[str] = (), rows: sa.Select[Any] | None = None) -> Any:
    # Two dialects, one grammar: SQLAlchemy has no common word for it.
    statement: Any = (postgresql if c.dialect.name == "postgresql" else sqlite).insert(table)
    if rows is not None:
        statement = statement.from_select(list(names), rows)
    keys = [column.name for column in table.primary_key]
    new = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=new)
