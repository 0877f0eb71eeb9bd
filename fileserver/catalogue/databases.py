"""The two databases that a file server may keep its state in, and how each is opened, written and upgraded.

SQLite in the state directory is the embedded form: one process. The job engine shares the SQLAlchemy engine, so its
legacy transaction control is kept (`isolation_level="IMMEDIATE"`): a transaction that will write says so from the
start, else two writers that both read first would fail instead of waiting.

PostgreSQL is for replicas. There a writing transaction is SERIALIZABLE: what it read still holds when it commits, as
under SQLite's one writer; one that met another is refused and run again, which is why work must be repeatable.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from planes.errors import Refused
from planes.threads import Stop

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

HEAD: Final = "0014"
"""Revision of the newest migration; a house test compares it with the scripts."""

_PRAGMAS: Final = ("journal_mode=WAL", "busy_timeout=30000", "foreign_keys=ON")
_MET_ANOTHER: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock: "retry the transaction"
_AWAY: Final = frozenset({"57P01", "57P02", "57P03"})  # the server is told to end, crashed, or is starting
_PATIENCE: Final = 120.0  # seconds that a database may be away before a call fails
_LONGEST_WAIT: Final = 1.0


class Database(Protocol):
    """Where rows are kept."""

    engine: sa.Engine

    def read(self, work: Work[T], stop: Stop) -> T:
        """Run `work` in a transaction that only reads."""
        ...

    def write(self, work: Work[T], stop: Stop, *, durable: bool) -> T:
        """Run `work` in a transaction that writes; it may be run again if another came in between."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Sqlite:
    """A file of one file server; made and upgraded when it is opened."""

    def __init__(self, path: Path) -> None:
        self.engine = _sqlite(path, "NORMAL")
        self._durable = _sqlite(path, "FULL")
        with self.engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            fresh = not has_tables(connection)
            if fresh:
                create(connection)
            current = fresh or revision(connection) == HEAD
        if not current:
            with self.engine.begin() as connection:
                upgrade(connection)

    def read(self, work: Work[T], stop: Stop) -> T:
        """Run `work`; every statement sees what is committed."""
        del stop
        with self.engine.connect() as connection:
            return work(connection)

    def write(self, work: Work[T], stop: Stop, *, durable: bool) -> T:
        """Run `work` as the one writer; `durable` waits until the disk has it."""
        del stop
        with (self._durable if durable else self.engine).begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return work(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        self._durable.dispose()


class Postgres:
    """A database that many file servers share. Never upgraded by opening it: `cropduster migrate` does that.

    A database that is away (a restart, a failover) is waited for, up to two minutes: what was under way is run again.

    Raises:
        Refused: its tables are missing, or of another version.
    """

    def __init__(self, url: str) -> None:
        self.engine = postgres(url)
        self._writing = self.engine.execution_options(isolation_level="SERIALIZABLE")
        found = self.read(lambda c: revision(c) if has_tables(c) else "", Stop())
        if found != HEAD:
            self.close()
            state = f"is at revision {found}" if found else "has no tables yet"
            msg = f"the database {state}, and this version of Cropduster works with {HEAD}: run `cropduster migrate`"
            raise Refused(msg, revision=found, expected=HEAD)

    def read(self, work: Work[T], stop: Stop) -> T:
        """Run `work`; every statement sees what is committed."""

        def once() -> T:
            with self.engine.connect() as connection:
                return work(connection)

        return _patiently(once, stop)

    def write(self, work: Work[T], stop: Stop, *, durable: bool) -> T:
        """Run `work` as if it were alone; what is not `durable` may be lost with the database's machine."""

        def once() -> T:
            with self._writing.begin() as connection:
                if not durable:
                    connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
                return work(connection)

        return _patiently(once, stop)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def postgres(url: str) -> sa.Engine:
    """An engine for a PostgreSQL URL, over psycopg 3, that notices a dead server within some ten seconds."""
    alive = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "connect_timeout": 10}
    return sa.create_engine(postgres_url(url), pool_pre_ping=True, connect_args=alive)


def postgres_url(url: str) -> str:
    """The same URL with the driver that we bring; raises ArgumentError if it is none."""
    return sa.make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _patiently(once: Callable[[], T], stop: Stop) -> T:
    """Run a transaction until it is through: again at once if it met another, and while the database is away."""
    deadline, wait = time.monotonic() + _PATIENCE, 0.005
    while True:
        try:
            return once()
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None)
            away = error.connection_invalidated or state in _AWAY or _cannot_connect(error)
            if not (away or state in _MET_ANOTHER) or time.monotonic() > deadline:
                raise
        stop.check()
        time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - so that two that met do not meet again
        wait = min(2 * wait, _LONGEST_WAIT)


def _cannot_connect(error: DBAPIError) -> bool:
    """Whether not even a connection came about; psycopg tells no SQLSTATE then."""
    return isinstance(error, sa.exc.OperationalError) and getattr(error.orig, "sqlstate", None) is None


def has_tables(connection: sa.Connection) -> bool:
    """Whether the database was ever set up."""
    return sa.inspect(connection).has_table("alembic_version")


def revision(connection: sa.Connection) -> str:
    """The migration that the tables are at."""
    return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")))


def create(connection: sa.Connection) -> None:
    """A new database, as the migrations would leave it (a test compares both)."""
    import fileserver.catalogue.agents  # noqa: PLC0415 - its tables belong to the same metadata
    import fileserver.catalogue.landing  # noqa: PLC0415 - the same
    import fileserver.catalogue.writes  # noqa: F401, PLC0415 - the same
    from fileserver.catalogue.tables import metadata  # noqa: PLC0415 - with it

    metadata.create_all(connection)
    connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    connection.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def upgrade(connection: sa.Connection, to: str = "head") -> None:
    """Run the migrations that are missing, in the transaction of a connection."""
    # Alembic is slow to import: only an upgrade pays for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def migrate(url: str) -> str:
    """Make or upgrade the tables of a PostgreSQL database, once, whoever else tries; the revision that it was at."""
    engine = postgres(url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('cropduster migrate'))")
            if not has_tables(connection):
                create(connection)
                return ""
            before = revision(connection)
            if before != HEAD:
                upgrade(connection)
            return before
    finally:
        engine.dispose()


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


def _sqlite(path: Path, synchronous: str) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", module=_sqlite_module(), connect_args={"check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in (*_PRAGMAS, f"synchronous={synchronous}"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
