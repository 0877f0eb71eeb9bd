"""PostgreSQL as the store: writers that meet, a database that goes away, who lives, and rows that replace others."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from fileserver.catalogue import counts, databases, upsert
from fileserver.catalogue import tables as t
from fileserver.catalogue.agents import agents
from fileserver.catalogue.store import Store
from fileserver.transfer.liveness import Liveness
from planes.errors import Refused
from tests.doubles import postgres


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.running() as running:
        yield running


@pytest.fixture
def url(server: postgres.Server) -> str:
    made = server.database()
    databases.migrate(made)
    return made


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(Path(), url)
    yield opened
    opened.close()


async def test_writers_that_read_first_do_not_lose_each_other(store, url):
    other = Store(Path(), url)
    await store.write(lambda c: c.exec_driver_sql("CREATE TABLE n (n INTEGER)").close())
    await store.write(lambda c: c.exec_driver_sql("INSERT INTO n VALUES (0)").close())

    def add(c: sa.Connection) -> None:
        value = c.exec_driver_sql("SELECT n FROM n").scalar_one()
        c.exec_driver_sql(f"UPDATE n SET n = {value + 1}")

    writers = (store, other) * 10
    await asyncio.gather(*(each.write(add, durable=i % 2 == 0) for i, each in enumerate(writers)))
    assert await store.read(lambda c: c.exec_driver_sql("SELECT n FROM n").scalar_one()) == len(writers)
    other.close()


async def test_a_database_that_goes_away_is_waited_for(store, server):
    """In the middle of a transaction, too: it is run again, as a whole."""
    begun, tries = threading.Event(), []

    def enter(c: sa.Connection) -> None:
        tries.append(1)
        c.execute(t.reservations.insert().values(target=f"file:a::{len(tries)}", transfer="t1"))
        begun.set()
        c.exec_driver_sql("SELECT pg_sleep(1)" if len(tries) == 1 else "SELECT 1")

    writing = asyncio.create_task(store.write(enter))
    await asyncio.to_thread(begun.wait)
    await asyncio.to_thread(server.stop)
    reading = asyncio.create_task(store.read(lambda c: c.scalar(sa.text("SELECT 1"))))
    await asyncio.to_thread(server.start)
    await writing
    assert await reading == 1
    held = await store.read(lambda c: c.execute(sa.select(t.reservations.c.target)).scalars().all())
    assert held == [f"file:a::{len(tries)}"]


async def test_what_is_wrong_with_a_statement_is_not_tried_again(store):
    def twice(c: sa.Connection) -> None:
        for _ in range(2):
            c.execute(t.reservations.insert().values(target="file:a::x", transfer="t1"))

    with pytest.raises(IntegrityError):
        await store.write(twice)


def test_a_database_is_set_up_by_command_only_and_once(server):
    empty = server.database()
    with pytest.raises(Refused, match="cropduster migrate"):
        Store(Path(), empty)
    assert databases.migrate(empty) == ""
    assert databases.migrate(empty) == databases.HEAD
    engine = databases.postgres(empty)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    with pytest.raises(Refused, match="revision 0001"):
        Store(Path(), empty)


def test_of_many_that_upgrade_a_database_one_does(server):
    url = server.database()
    engine = databases.postgres(url)
    with engine.begin() as connection:  # the oldest, so that every migration runs here
        databases.upgrade(connection, "0001")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(databases.migrate, [url] * 4))
    assert sorted(found) == ["0001", *[databases.HEAD] * 3]
    with engine.connect() as connection:
        assert set(t.metadata.tables) <= set(sa.inspect(connection).get_table_names())
    engine.dispose()


async def test_names_sort_by_their_bytes(store):
    names = ["b", "a-b", "B", "a/b", "aa", "ä"]
    rows = [{"target": name, "transfer": "t1"} for name in names]
    await store.write(lambda c: upsert.replace(c, t.reservations, rows))
    query = sa.select(t.reservations.c.target).order_by(t.reservations.c.target)
    assert await store.read(lambda c: c.execute(query).scalars().all()) == sorted(names, key=str.encode)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_row_takes_the_place_of_the_one_with_its_key(kind, tmp_path, request):
    store = Store(tmp_path) if kind == "sqlite" else request.getfixturevalue("store")
    assert store.engine.dialect.name == kind
    first = {"plane": "p", "key": "k", "version": "v", "not_before": 1.0}
    await store.write(lambda c: upsert.replace(c, t.garbage, [first]))
    await store.write(lambda c: upsert.replace(c, t.garbage, [{"plane": "p", "key": "k", "not_before": 2.0}]))
    assert await store.read(lambda c: c.execute(sa.select(t.garbage)).all()) == [("p", "k", 2.0, "")]
    more = sa.select(t.garbage.c.plane, t.garbage.c.key, sa.literal(3.0)).where(t.garbage.c.plane == "p")
    await store.write(lambda c: upsert.replace_from(c, t.garbage, ["plane", "key", "not_before"], more))
    assert await store.read(lambda c: c.execute(sa.select(t.garbage)).all()) == [("p", "k", 3.0, "")]


def test_a_server_is_dead_when_its_lock_is_free_three_times(store):
    one, two = Liveness(store.engine, "one"), Liveness(store.engine, "two")
    one.hold()
    two.hold()
    assert (one.keeper, two.keeper) == (True, False)
    assert [two.dead(["one", "two"]) for _ in range(4)] == [[]] * 4
    one.release()
    looks = [two.dead(["one"])]
    while not looks[-1]:  # the database hears of the end of a connection in a moment of its own
        assert len(looks) < 10_000
        looks.append(two.dead(["one"]))
    assert len(looks) >= 3
    two.hold()
    assert two.keeper
    one.hold()
    assert two.dead(["one"]) == []
    one.release()
    two.release()


def test_a_restart_of_the_database_kills_nobody(store, server):
    one, two = Liveness(store.engine, "one"), Liveness(store.engine, "two")
    one.hold()
    two.hold()
    server.stop()
    server.start()
    assert two.dead(["one"]) == []  # it has lost its lock as well, and gets it back with its next look
    assert one.dead(["two"]) == []
    assert [two.dead(["one"]) for _ in range(4)] == [[]] * 4
    assert one.keeper != two.keeper
    one.release()
    two.release()


def test_a_restart_of_the_database_in_the_middle_of_a_look_is_got_over(store, server, monkeypatch):
    one = Liveness(store.engine, "one")
    one.hold()
    monkeypatch.setattr(
        one, "hold", lambda: (server.stop(signal.SIGINT), server.start())
    )  # after it has found all well
    with pytest.raises(DBAPIError):
        one.dead(["two"])
    monkeypatch.undo()
    one.hold()
    assert one.keeper
    two = Liveness(store.engine, "two")
    assert [two.dead(["one"]) for _ in range(4)] == [[]] * 4
    one.release()
    two.release()


async def test_what_there_is_is_counted(store):
    row = {"id": "a", "request_id": "a", "state": "RUNNING", "spec": {"kind": "spray"}, "progress": {}, "warnings": []}
    places = dict.fromkeys(("first_part", "last_part", "first_step", "last_step", "size"), 0)
    statements = [
        t.transfers.insert().values(**row, created=5.0, updated=5.0),
        t.segments.insert().values(transfer="a", number=1, done=False, begun=6.0, **places),
        t.segments.insert().values(transfer="a", number=2, done=False, **places),
        *(agents.insert().values(plane=f"host:h{until}", stream="s", lease_until=until) for until in (1, 2, 2**40)),
        agents.insert().values(plane="@a", stream="s", lease_until=1),  # that of a command
    ]
    await store.write(lambda c: [c.execute(each) for each in statements])
    found = await store.read(counts.count)
    segments = {"waiting": 1, "taken": 1, "done": 0, "paused": 0}
    assert found == counts.Counts({("RUNNING", "spray"): 1}, 5.0, segments, 0, 0, {"here": 1, "lost": 2})
