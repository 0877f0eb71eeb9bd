"""What keeps a server from starting is told in one sentence, with the way out."""

from __future__ import annotations

import os
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from fileserver import serve
from fileserver.catalogue.store import Store
from fileserver.errors import InvalidSpec


def no_database(path):
    path.write_bytes(b"this is no database " * 100)


def spoiled(path):
    Store(path.parent).close()
    whole = bytearray(path.read_bytes())
    whole[100:4096] = os.urandom(3996)
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("spoil", "way_out"),
    [(no_database, "files rebuild"), (spoiled, "files rebuild"), (os.mkdir, "yours to write")],
    ids=["no database", "spoiled", "a folder"],
)
def test_a_database_that_is_none_is_told_with_its_place(tmp_path, spoil, way_out):
    path = tmp_path / "state.db"
    spoil(path)
    with pytest.raises(InvalidSpec) as caught:
        serve._store(tmp_path)
    assert str(path) in caught.value.message
    assert way_out in caught.value.message
    assert "--state" in caught.value.message


def test_a_locked_database_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("fileserver.catalogue.databases._PRAGMAS", ("busy_timeout=1",))
    with sqlite3.connect(tmp_path / "state.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InvalidSpec, match="locked"):
            serve._store(tmp_path)


def test_a_mistake_of_ours_in_a_sound_database_stays_a_bug(tmp_path):
    with sqlite3.connect(tmp_path / "state.db") as made:
        made.execute("CREATE TABLE alembic_version (other TEXT)")
    with pytest.raises(OperationalError, match="no such column"):
        serve._store(tmp_path)


def test_a_sound_database_is_opened(tmp_path):
    serve._store(tmp_path).close()
    serve._store(tmp_path).close()


def test_a_database_of_a_newer_version_is_told(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as later:
        later.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InvalidSpec, match=r"state\.db is of another version.*9999.*--state"):
        serve._store(tmp_path)
