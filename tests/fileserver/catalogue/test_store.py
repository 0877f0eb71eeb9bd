"""The database: a new one equals a migrated one, and writers wait for each other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from fileserver.catalogue import databases as module
from fileserver.catalogue.databases import HEAD
from fileserver.catalogue.store import Store


def schema(engine: sa.Engine) -> dict[str, object]:
    inspector = sa.inspect(engine)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"], c["primary_key"]) for c in inspector.get_columns(table)],
            sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(table)),
            sorted(tuple(u["column_names"]) for u in inspector.get_unique_constraints(table)),
        )
        for table in inspector.get_table_names()
    }


def test_a_new_database_equals_a_migrated_one(tmp_path):
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD
    migrated = sa.create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with migrated.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    (tmp_path / "new").mkdir()
    new = Store(tmp_path / "new")
    assert schema(new.engine) == schema(migrated)
    new.close()
    Store(tmp_path / "new").close()


async def test_writers_that_read_first_do_not_lose_each_other(tmp_path):
    store = Store(tmp_path)
    await store.write(lambda c: c.exec_driver_sql("CREATE TABLE n (n INTEGER)").close())
    await store.write(lambda c: c.exec_driver_sql("INSERT INTO n VALUES (0)").close())

    def add(c: sa.Connection) -> None:
        value = c.exec_driver_sql("SELECT n FROM n").scalar_one()
        c.exec_driver_sql(f"UPDATE n SET n = {value + 1}")

    await asyncio.gather(*(store.write(add, durable=i % 2 == 0) for i in range(40)))
    assert await store.read(lambda c: c.exec_driver_sql("SELECT n FROM n").scalar_one()) == 40
    store.close()
