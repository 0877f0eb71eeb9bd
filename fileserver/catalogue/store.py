"""The one database of a file server: opened, migrated, and used in short transactions off the event loop.

SQLite in the state directory (the embedded form). The job engine shares the SQLAlchemy engine, so its legacy
transaction control is kept (`isolation_level="IMMEDIATE"`): a transaction that will write says so from the start,
else two writers that both read first would fail instead of waiting.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from planes.errors import Refused
from planes.threads import Threads

T = TypeVar("T")

HEAD: Final = "0007"
"""Revision of the newest migration; a house test compares it with the scripts."""

_PRAGMAS: Final = ("journal_mode=WAL", "busy_timeout=30000", "foreign_keys=ON")


def _sqlite_module() -> Any:
    """The SQLite binding: the standard one, or the newer pysqlite3 where the job engine needs it.

    On Python 3.12 and later the engine uses `unixepoch('subsec')`, which SQLite has since 3.42.
    """
    import sys  # noqa: PLC0415 - only this decision needs it

    if sys.hexversion < 0x030C0000 or sqlite3.sqlite_version_info >= (3, 42):
        return sqlite3
    try:
        import pysqlite3  # noqa: PLC0415 - an optional wheel
    except ImportError:
        version = sqlite3.sqlite_version
        msg = f"Python {sys.version.split()[0]} with SQLite {version} cannot keep jobs: pip install pysqlite3-binary"
        raise Refused(msg, sqlite=version) from None
    return pysqlite3


def _engine(path: Path, synchronous: str) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", module=_sqlite_module(), connect_args={"check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in (*_PRAGMAS, f"synchronous={synchronous}"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _create(connection: sa.Connection) -> None:
    """A new database, as the migrations would leave it (a test compares both)."""
    import fileserver.catalogue.landing  # noqa: PLC0415 - its tables belong to the same metadata
    import fileserver.catalogue.writes  # noqa: F401, PLC0415 - the same
    from fileserver.catalogue.tables import metadata  # noqa: PLC0415 - with it

    metadata.create_all(connection)
    connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    connection.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


class Store:
    """The database of one state directory.

    `read` and `write` run a function of a connection as one transaction in a thread; what the function returns is
    returned. Functions that take a connection are the vocabulary of `catalogue` and can be joined in one transaction.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "state.db"
        self.engine = _engine(path, "NORMAL")
        self._durable = _engine(path, "FULL")
        self._threads = Threads("store", 4)
        self._migrate()

    def _migrate(self) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if not sa.inspect(connection).has_table("alembic_version"):
                _create(connection)
                return
            if connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == HEAD:
                return
        # Alembic is slow to import: only an upgrade pays for it.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction that only reads."""
        return await self._threads.run(lambda _: self._reading(work))

    async def write(self, work: Callable[[sa.Connection], T], *, durable: bool = False) -> T:
        """Run `work` in a transaction that writes; `durable` waits until the disk has it.

        A call that is cancelled returns when its transaction has ended, one way or the other.
        """
        engine = self._durable if durable else self.engine
        return await self._threads.run(lambda _: self._writing(work, engine))

    def _reading(self, work: Callable[[sa.Connection], T]) -> T:
        with self.engine.connect() as connection:
            return work(connection)

    def _writing(self, work: Callable[[sa.Connection], T], engine: sa.Engine) -> T:
        with engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return work(connection)

    def close(self) -> None:
        """Close all connections; a running transaction ends first."""
        self._threads.close()
        self.engine.dispose()
        self._durable.dispose()
