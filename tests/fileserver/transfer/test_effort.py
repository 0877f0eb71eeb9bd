"""What is asked for every few objects costs what it finds, not what there is."""

import pytest
import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.transfer import sync_guard, sync_rows
from fileserver.transfer.sync_rows import Ended, Item

MANY = 5000


@pytest.fixture(scope="module")
def engine():
    made = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    t.metadata.create_all(made)
    with made.begin() as c:
        part = {"plane": "p", "size": 1, "version": "v", "checksums": {}, "owned": True}
        c.execute(t.file_parts.insert(), [part | {"generation": "g", "number": n, "key": f"k{n}"} for n in range(MANY)])
        item = {"transfer": "x", "action": "copy", "why": "missing", "size": 1, "version": "v"}
        c.execute(t.sync_items.insert(), [item | {"number": n, "key": f"k{n}"} for n in range(MANY)])
        sync_rows.enter_ended(c, "x", [Ended(n, "failed" if n % 500 == 0 else "copied") for n in range(MANY)])
    yield made
    made.dispose()


def effort(c, ask):
    """What a question answers, and the tens of steps of the database's machine that it took."""
    tens = []
    raw = c.connection.driver_connection
    raw.set_progress_handler(lambda: tens.append(1), 10)
    try:
        return ask(c), len(tens)
    finally:
        raw.set_progress_handler(None, 0)


def test_whether_somebody_needs_an_object(engine):
    items = [Item(n, "delete", "extra", key, 1, "v") for n, key in enumerate(["k7", "k4711", "none"])]
    with engine.connect() as c:
        found, tens = effort(c, lambda c: sync_guard.named(c, items, {"p": ("", "")}))
    assert found == {0, 1}
    assert tens < MANY / 50


def test_how_many_objects_have_failed(engine):
    with engine.connect() as c:
        found, tens = effort(c, lambda c: sync_rows.failed(c, "x", 1000))
        assert sync_rows.failed(c, "x", 3) == 3
    assert found == 10
    assert tens < MANY / 50
