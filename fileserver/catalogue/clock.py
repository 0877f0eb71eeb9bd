"""The database's clock as an expression: the one clock that all file servers of a database share."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class database_now(FunctionElement[float]):  # noqa: N801 - written like the functions of SQL
    """Seconds since 1970 (UTC) by the database's clock, to a millisecond; leases and schedules count by it alone."""

    type = sa.Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _of_sqlite(_element: database_now, _compiler: Any, **_more: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # what every SQLite has; unixepoch('subsec') is of 3.42


@compiles(database_now, "postgresql")
def _of_postgresql(_element: database_now, _compiler: Any, **_more: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


def moment(c: sa.Connection) -> float:
    """What the database's clock says now."""
    return float(c.execute(sa.select(database_now())).scalar_one())
