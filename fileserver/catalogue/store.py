"""The one database of a file server, used in short transactions off the event loop."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from fileserver.catalogue.databases import Database, Postgres, Sqlite, Work
from planes.threads import Threads

T = TypeVar("T")

_AT_ONCE = 4  # transactions; SQLite has one writer anyway


class Store:
    """What a file server knows for good: in its state directory, or in a PostgreSQL that others share.

    `read` and `write` run a function of a connection as one transaction in a thread; what the function returns is
    returned. Functions that take a connection are the vocabulary of `catalogue` and can be joined in one transaction.
    They may be run again, so they change nothing but the database.

    Args:
        directory: of the state; unused if there is a url.
        url: of a PostgreSQL database.
    """

    def __init__(self, directory: Path, url: str = "") -> None:
        self._database: Database = Postgres(url) if url else Sqlite(directory / "state.db")
        self.url = url
        self.me = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        """The name of this process, which no other ever had."""
        self._threads = Threads("store", _AT_ONCE)

    @property
    def engine(self) -> sa.Engine:
        """For the job engine, which keeps its own tables beside ours."""
        return self._database.engine

    @property
    def shared(self) -> bool:
        """Whether other file servers work on the same rows."""
        return self.url != ""

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a transaction that only reads."""
        return await self._threads.run(lambda stop: self._database.read(work, stop))

    async def write(self, work: Work[T], *, durable: bool = False) -> T:
        """Run `work` in a transaction that writes; `durable` waits until the disk has it.

        A call that is cancelled returns when its transaction has ended, one way or the other.
        """
        return await self._threads.run(lambda stop: self._database.write(work, stop, durable=durable))

    def close(self) -> None:
        """Close all connections; a running transaction ends first."""
        self._threads.close()
        self._database.close()
