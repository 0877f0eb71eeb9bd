"""What other file servers of one PostgreSQL have written for agents, or of them, heard at once (LISTEN, NOTIFY).

It is a hint and nothing more: what was missed while the connection was away is found by the next look at the rows.
"""

from __future__ import annotations

import asyncio
from typing import Final

import psycopg
import sqlalchemy as sa
import structlog

from fileserver.agents.assignments import Assignments
from fileserver.catalogue.agents import CHANNEL

_AGAIN: Final = 2.0
"""Seconds until a lost connection is tried again; meanwhile everybody looks by himself."""

_log = structlog.get_logger(__name__)


async def listen(assignments: Assignments) -> None:
    """Wake those in this process who wait for what another one has written; until cancelled."""
    url = sa.make_url(assignments.store.url).set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                url, autocommit=True, connect_timeout=10, keepalives_idle=5, keepalives_interval=2, keepalives_count=3
            ) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                assignments.hears(listens=True)
                async for told in connection.notifies():
                    assignments.news.tell(told.payload)
        except psycopg.Error as failure:
            _log.debug("what other file servers write is not heard", why=type(failure).__name__)
        finally:
            assignments.hears(listens=False)
        await asyncio.sleep(_AGAIN)
