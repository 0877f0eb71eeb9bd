"""Receipts outlive a database that does not take them at once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time

import pytest
import sqlalchemy as sa

from fileserver.catalogue.files import Catalogue
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress, Record
from fileserver.transfer.spec import Fixed, Location, Spec, Spray, spec_to_json
from fileserver.transfer.stages import Stages
from planes.faulty import Fault, FaultyPlane, Hold
from planes.memory import MemoryPlane
from tests.fileserver.given import Planes

DATA = os.urandom(3 << 20)  # three steps

LOCKED = sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))


class Locked:
    """Stands in for `manifest_rows.add_steps`: fails as a locked database does, so many times."""

    def __init__(self, monkeypatch, times: int) -> None:
        self.left, self.work = times, manifest_rows.add_steps
        self.failed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        monkeypatch.setattr("fileserver.transfer.store_book.manifest_rows.add_steps", self)
        monkeypatch.setattr("fileserver.transfer.execute._FLUSH", 0.0)

    def __call__(self, c, transfer, stored) -> None:
        if self.left and stored:
            self.left -= 1
            self._loop.call_soon_threadsafe(self.failed.set)
            raise LOCKED
        self.work(c, transfer, stored)


@pytest.fixture
async def begun(store):
    """Stages with an open transfer, whose last step is held back, and the number of its segments."""
    source, hold = MemoryPlane("source"), Hold()
    target = FaultyPlane(MemoryPlane("target"), [Fault("upload.put", 3, hold)])
    stages, live = Stages(Planes(source=source, target=target), store, Buffers(1 << 22), 0.0), Live(Progress())
    await source.put("x", DATA, upload_id="setup")
    spec = Spec(Spray((Location("source", "x"),), "a::x", "target", 1, 0, Fixed(1)))
    record = Record("t1", spec_to_json(spec), "QUEUED", "", 1, time.time(), time.time())
    await store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
    assert await stages.plan("t1", live) == 1
    await stages.open("t1", live)
    return stages, live, hold


async def test_receipts_that_the_database_did_not_take_are_recorded_a_moment_later(begun, store, monkeypatch):
    stages, live, hold = begun
    locked = Locked(monkeypatch, 1)
    fill = asyncio.create_task(stages.fill("t1", 1, live))
    await locked.failed.wait()
    await hold.reached.wait()
    hold.gate.set()
    await fill
    await stages.commit("t1", live)
    await stages.publish("t1", live)
    assert (await Catalogue(store).get("a::x")).size == len(DATA)


async def test_a_segment_whose_receipts_are_not_stored_is_not_done(begun, store, monkeypatch):
    stages, live, hold = begun
    Locked(monkeypatch, -1)
    hold.gate.set()
    with pytest.raises(sa.exc.OperationalError):
        await stages.fill("t1", 1, live)
    assert not (await store.read(lambda c: manifest_rows.segment(c, "t1", 1)))[1]


async def test_a_recorder_that_breaks_ends_its_segment(begun, monkeypatch):
    stages, live, _ = begun
    monkeypatch.setattr("fileserver.transfer.execute._FLUSH", 0.0)

    def broken(*_) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fileserver.transfer.store_book.manifest_rows.add_steps", broken)
    with pytest.raises(ZeroDivisionError):  # although one step of it never ends
        await stages.fill("t1", 1, live)
