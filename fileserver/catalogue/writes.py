"""Writes in progress: what a DataService.Write has stored, so that it goes on after a broken connection or a crash."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text

from fileserver.catalogue import upsert
from fileserver.catalogue.store import Store
from fileserver.catalogue.tables import Ordered, metadata
from planes import checksum

writes = Table(
    "writes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("plane", String(64), nullable=False),
    Column("key", Ordered, nullable=False),
    Column("overwrite", Boolean, nullable=False),
    Column("token", Text, nullable=False),
    Column("updated", Float, nullable=False),
    Column("size", BigInteger),
    Column("crc64nvme", String(16)),
    Index("writes_by_age", "updated"),
)
"""One row a write; `token` is "" until its upload is open, `size` is set once its object is visible."""

write_steps = Table(
    "write_steps",
    metadata,
    Column("write", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("crc64nvme", String(16), nullable=False),
    Column("reported", String(16)),
    Column("etag", Text, nullable=False),
)
"""Stored steps; `crc64nvme` is of the bytes that were received, `reported` what the plane said, if it says."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write, begun or finished."""

    id: str
    plane: str
    key: str
    overwrite: bool
    token: str = ""
    """Of its upload; "" if none is open, or if the process died while it was being opened."""
    size: int | None = None
    """Bytes of the finished object; None while it is in the making."""
    crc64nvme: int = 0
    """Of the finished object."""

    @property
    def finished(self) -> bool:
        """The object is visible."""
        return self.size is not None


@dataclass(frozen=True, slots=True)
class WriteStep:
    """One stored step; sizes in bytes."""

    number: int
    size: int
    crc64nvme: int
    reported: int | None
    etag: str


class Writes:
    """The table of writes. Every method is one transaction in the store's threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, name: str) -> Write | None:
        """The write of an id, or None."""
        return await self._store.read(lambda c: _get(c, name))

    async def steps(self, name: str) -> list[WriteStep]:
        """The stored steps from the first to the one before the first gap, in order."""
        return await self._store.read(lambda c: _steps(c, name))

    async def put(self, write: Write) -> None:
        """Enter a write, or replace what was known of it; its steps stay."""
        row = {
            "id": write.id,
            "plane": write.plane,
            "key": write.key,
            "overwrite": write.overwrite,
            "token": write.token,
            "updated": time.time(),
            "size": write.size,
            "crc64nvme": checksum.to_hex(write.crc64nvme) if write.finished else None,
        }
        await self._store.write(lambda c: upsert.replace(c, writes, [row]))

    async def stored(self, name: str, step: WriteStep) -> None:
        """Record a step that the plane has stored; a step of the same number is replaced."""
        row = {
            "write": name,
            "number": step.number,
            "size": step.size,
            "crc64nvme": checksum.to_hex(step.crc64nvme),
            "reported": None if step.reported is None else checksum.to_hex(step.reported),
            "etag": step.etag,
        }

        def work(c: sa.Connection) -> None:
            upsert.replace(c, write_steps, [row])
            c.execute(writes.update().where(writes.c.id == name).values(updated=time.time()))

        await self._store.write(work)

    async def forget(self, name: str) -> None:
        """Drop a write and its steps."""

        def work(c: sa.Connection) -> None:
            c.execute(write_steps.delete().where(write_steps.c.write == name))
            c.execute(writes.delete().where(writes.c.id == name))

        await self._store.write(work)

    async def untouched(self, since: float, after: str = "", limit: int = 100) -> list[Write]:
        """Writes, finished or not, to which nothing happened after `since` (seconds since 1970); those behind an id."""
        w = writes.c
        query = sa.select(writes).where(w.updated < since, w.id > after).order_by(w.id).limit(limit)
        return await self._store.read(lambda c: [_write(row) for row in c.execute(query)])


def _get(c: sa.Connection, name: str) -> Write | None:
    row = c.execute(sa.select(writes).where(writes.c.id == name)).first()
    return _write(row) if row else None


def _steps(c: sa.Connection, name: str) -> list[WriteStep]:
    query = sa.select(write_steps).where(write_steps.c.write == name).order_by(write_steps.c.number)
    found: list[WriteStep] = []
    for row in c.execute(query):
        if row.number != len(found) + 1:
            break
        reported = None if row.reported is None else checksum.from_hex(row.reported)
        found.append(WriteStep(row.number, row.size, checksum.from_hex(row.crc64nvme), reported, row.etag))
    return found


def _write(row: Any) -> Write:
    crc = checksum.from_hex(row.crc64nvme) if row.crc64nvme else 0
    return Write(row.id, row.plane, row.key, row.overwrite, row.token, row.size, crc)
