"""Logical files: publish, look up, rename, forget. Statements on a connection; the store makes the transactions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.catalogue.names import MANIFEST, normalise
from fileserver.catalogue.store import Store
from fileserver.errors import FileNotFound
from planes import checksum
from planes.errors import AlreadyExists, Changed

PAGE = 1000


@dataclass(frozen=True, slots=True)
class FilePart:
    """One object of a logical file; `checksums` by kind, `version` as its plane pins it ("" if unknown)."""

    number: int
    plane: str
    key: str
    size: int
    version: str
    checksums: dict[str, int]
    owned: bool


@dataclass(frozen=True, slots=True)
class LogicalFile:
    """An entry of the catalogue without its parts."""

    name: str
    generation: str
    size: int
    format: dict[str, Any] | None
    evidence: str
    crc64nvme: int | None
    part_count: int
    transfer: str
    created: float
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Garbage:
    """An object that nobody needs any more; with a `version` it is a stranger's, and that version alone is meant."""

    plane: str
    key: str
    version: str = ""


def get(c: sa.Connection, name: str) -> LogicalFile:
    """The file of a name; raises FileNotFound."""
    row = c.execute(sa.select(t.files).where(t.files.c.name == normalise(name))).first()
    if row is None:
        msg = f"no logical file is called {normalise(name)}; see `cropduster files list`"
        raise FileNotFound(msg, file=normalise(name))
    return _file(row)


def owner(c: sa.Connection, plane: str, key: str) -> str | None:
    """The name of the file that owns an object, or None: an object of no file, or one that is only registered."""
    p = t.file_parts.c
    owning = sa.select(t.files.c.name).join(t.file_parts, t.files.c.generation == p.generation)
    return c.execute(owning.where(p.plane == plane, p.key == key, p.owned)).scalar()


def taken(c: sa.Connection, name: str) -> bool:
    """Whether a logical file has this normalised name."""
    return c.execute(sa.select(t.files.c.name).where(t.files.c.name == name)).first() is not None


def listing(c: sa.Connection, mask: str, after: str, limit: int) -> list[LogicalFile]:
    """Files whose name matches a mask of `*` and `?` and is greater than `after`, in order of names."""
    like = mask.strip().lower() or "*"
    for special in ("\\", "%", "_"):
        like = like.replace(special, "\\" + special)
    like = like.replace("*", "%").replace("?", "_")
    query = sa.select(t.files).where(t.files.c.name.like(like, escape="\\"), t.files.c.name > after)
    return [_file(row) for row in c.execute(query.order_by(t.files.c.name).limit(limit))]


def parts(c: sa.Connection, generation: str, after: int = 0, limit: int = PAGE) -> list[FilePart]:
    """One page of a file's parts in order; limit -1 is all."""
    p = t.file_parts.c
    query = sa.select(t.file_parts).where(p.generation == generation, p.number > after).order_by(p.number).limit(limit)
    return [
        FilePart(r.number, r.plane, r.key, r.size, r.version, _checksums(r.checksums), r.owned)
        for r in c.execute(query)
    ]


def publish(c: sa.Connection, file: LogicalFile, *, overwrite: bool, retire_at: float) -> None:
    """Make a file visible whose parts are already entered; what had the name before is retired.

    May run twice for one generation.

    Raises:
        AlreadyExists: another generation has the name and `overwrite` is not set.
    """
    old = c.execute(sa.select(t.files.c.generation).where(t.files.c.name == file.name)).scalar()
    if old == file.generation:
        return
    if old is not None:
        if not overwrite:
            msg = f"the logical file {file.name} exists; --overwrite replaces it"
            raise AlreadyExists(msg, file=file.name)
        c.execute(t.files.delete().where(t.files.c.name == file.name))
        retire(c, old, retire_at)
    c.execute(
        t.files.insert().values(
            name=file.name,
            generation=file.generation,
            size=file.size,
            format=file.format,
            evidence=file.evidence,
            crc64nvme=None if file.crc64nvme is None else checksum.to_hex(file.crc64nvme),
            part_count=file.part_count,
            transfer=file.transfer,
            created=file.created,
            expires=file.expires,
        )
    )


def enter_parts(c: sa.Connection, generation: str, rows: Iterable[FilePart]) -> None:
    """Enter parts of a generation that is not published yet; entering a part again replaces it."""
    values: list[dict[str, Any]] = [
        {
            "generation": generation,
            "number": p.number,
            "plane": p.plane,
            "key": p.key,
            "size": p.size,
            "version": p.version,
            "checksums": {kind: checksum.to_hex(v, kind) for kind, v in p.checksums.items()},
            "owned": p.owned,
        }
        for p in rows
    ]
    if values:
        f = t.file_parts.c
        numbers = [v["number"] for v in values]
        c.execute(t.file_parts.delete().where(f.generation == generation, f.number.between(min(numbers), max(numbers))))
        c.execute(t.file_parts.insert(), values)


def rename(c: sa.Connection, name: str, new_name: str) -> LogicalFile:
    """Give a file another name; raises FileNotFound, AlreadyExists."""
    old, new = get(c, name), normalise(new_name)
    if new != old.name:
        if taken(c, new):
            msg = f"the logical file {new} exists; delete it first, or choose another name"
            raise AlreadyExists(msg, file=new)
        c.execute(t.files.update().where(t.files.c.name == old.name).values(name=new))
    return get(c, new)


def note_stale_manifest(c: sa.Connection, file: LogicalFile, not_before: float) -> None:
    """The manifest of a renamed file has to be written again; until a moment the caller is at it."""
    row = {"generation": file.generation, "name": file.name, "not_before": not_before}
    c.execute(t.stale_manifests.insert().prefix_with("OR REPLACE"), row)


def stale_manifests(c: sa.Connection, moment: float) -> list[str]:
    """A page of generations whose manifest says an old name, and at which nobody is."""
    s = t.stale_manifests.c
    return list(c.execute(sa.select(s.generation).where(s.not_before <= moment).limit(PAGE)).scalars())


def forget_stale_manifest(c: sa.Connection, generation: str, name: str | None) -> None:
    """A manifest says this name now (None: there is no such file any more); one renamed since stays noted."""
    s = t.stale_manifests.c
    query = t.stale_manifests.delete().where(s.generation == generation)
    c.execute(query if name is None else query.where(s.name == name))


def drop(c: sa.Connection, name: str, retire_at: float) -> LogicalFile:
    """Take a file out of the catalogue and retire the parts that we own; raises FileNotFound."""
    file = get(c, name)
    c.execute(t.files.delete().where(t.files.c.name == file.name))
    retire(c, file.generation, retire_at)
    return file


def retire(c: sa.Connection, generation: str, not_before: float) -> None:
    """Move the owned objects of a generation, parts and manifest, to the garbage.

    The rows of its parts stay for those who read it now, until `forget_parts`.
    """
    p = t.file_parts.c
    mine = sa.and_(p.generation == generation, p.owned)
    _discard(c, sa.select(p.plane, p.key, sa.literal(not_before)).where(mine))
    first = c.execute(sa.select(p.plane, p.key).where(mine).order_by(p.number).limit(1)).first()
    if first is not None:
        home = first.key.rpartition("/")[0]  # not made from the name: a rename leaves objects where they are
        discard(c, first.plane, [f"{home}/{MANIFEST}"], not_before)


def discard(c: sa.Connection, plane: str, keys: Sequence[str], not_before: float) -> None:
    """Enter objects of ours that nobody needs from a moment on; one that is entered already gets the new moment."""
    rows = [{"plane": plane, "key": key, "not_before": not_before} for key in keys]
    if rows:
        c.execute(t.garbage.insert().prefix_with("OR REPLACE"), rows)


def doom(c: sa.Connection, objects: Sequence[Garbage], not_before: float) -> None:
    """Enter objects of strangers that the user asked to destroy, each with the version that was meant."""
    rows = [{"plane": g.plane, "key": g.key, "version": g.version, "not_before": not_before} for g in objects]
    if rows:
        c.execute(t.garbage.insert().prefix_with("OR REPLACE"), rows)


def _discard(c: sa.Connection, rows: sa.Select[Any]) -> None:
    c.execute(t.garbage.insert().prefix_with("OR REPLACE").from_select(["plane", "key", "not_before"], rows))


def due(c: sa.Connection, now: float, planes: Sequence[str], after: tuple[str, str] = ("", "")) -> list[Garbage]:
    """A page of garbage on `planes` that may be deleted, in order of plane and key, beginning after `after`.

    Its time has come, and no running transfer reads it.
    """
    g, s = t.garbage.c, t.sources.c
    running = (
        sa.select(s.transfer)
        .join(t.transfers, t.transfers.c.id == s.transfer)
        .where(s.plane == g.plane, s.key == g.key, t.transfers.c.ended.is_(None))
    )
    query = sa.select(g.plane, g.key, g.version).where(
        g.plane.in_(planes), sa.tuple_(g.plane, g.key) > sa.tuple_(*map(sa.literal, after)), g.not_before <= now
    )
    query = query.where(~running.exists()).order_by(g.plane, g.key).limit(PAGE)
    return [Garbage(row.plane, row.key, row.version) for row in c.execute(query)]


def is_garbage(c: sa.Connection, plane: str, key: str) -> bool:
    """Whether an object is about to be deleted."""
    g = t.garbage.c
    return c.execute(sa.select(g.key).where(g.plane == plane, g.key == key)).first() is not None


def discarded(c: sa.Connection, plane: str, home: str) -> bool:
    """Whether an object of a folder (its key without a trailing slash) is garbage."""
    g = t.garbage.c
    inside = sa.select(g.key).where(g.plane == plane, g.key > f"{home}/", g.key < f"{home}0")  # 0 comes after /
    return c.execute(inside.limit(1)).first() is not None


def forget_garbage(c: sa.Connection, objects: Sequence[Garbage]) -> None:
    """Objects that are deleted now."""
    g = t.garbage.c
    if objects:
        query = t.garbage.delete().where(g.plane == sa.bindparam("_plane"), g.key == sa.bindparam("_key"))
        c.execute(query, [{"_plane": one.plane, "_key": one.key} for one in objects])


def dead(c: sa.Connection) -> list[str]:
    """Generations that nobody can read any more: no file, no running transfer and no garbage of theirs is left."""
    p, g = t.file_parts.c, t.garbage.c
    needed = sa.select(t.files.c.generation).union(sa.select(t.transfers.c.id).where(t.transfers.c.ended.is_(None)))
    gone = c.execute(sa.select(p.generation).distinct().where(p.generation.not_in(needed))).scalars().all()
    left = sa.select(g.key).join(t.file_parts, sa.and_(p.plane == g.plane, p.key == g.key))
    return [one for one in gone if c.execute(left.where(p.generation == one).limit(1)).first() is None]


def forget_parts(c: sa.Connection, generations: Sequence[str]) -> None:
    """Forget the parts of generations that are dead."""
    for generation in generations:
        c.execute(t.file_parts.delete().where(t.file_parts.c.generation == generation))


def by_generation(c: sa.Connection, generation: str) -> LogicalFile | None:
    """The file of a generation, if it is in the catalogue."""
    row = c.execute(sa.select(t.files).where(t.files.c.generation == generation)).first()
    return None if row is None else _file(row)


class Catalogue:
    """The catalogue as services read it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def get(self, name: str) -> LogicalFile:
        """The file of a name; raises FileNotFound."""
        return await self.store.read(lambda c: get(c, name))

    async def parts(self, generation: str, after: int = 0) -> list[FilePart]:
        """One page of a file's parts in order."""
        return await self.store.read(lambda c: parts(c, generation, after))

    async def all_parts(self, generation: str) -> list[FilePart]:
        """All parts of a file in order; raises Changed if they are not all there any more."""
        return await self.store.read(lambda c: _all_parts(c, generation))


def replaced(name: str) -> Changed:
    """The error of a reader whose file went away under its hands."""
    msg = f"{name} was replaced while it was read; try again"
    return Changed(msg, file=name)


def _all_parts(c: sa.Connection, generation: str) -> list[FilePart]:
    found = parts(c, generation, limit=-1)  # one statement sees one moment
    file = c.execute(sa.select(t.files.c.name, t.files.c.part_count).where(t.files.c.generation == generation)).first()
    if not found or (file is not None and file.part_count != len(found)):
        raise replaced("the file" if file is None else file.name)
    return found


def now() -> float:
    """Seconds since 1970 (UTC)."""
    return time.time()


def _checksums(stored: dict[str, str]) -> dict[str, int]:
    return {kind: checksum.from_hex(text) for kind, text in stored.items()}


def _file(row: Any) -> LogicalFile:
    crc = None if row.crc64nvme is None else checksum.from_hex(row.crc64nvme)
    return LogicalFile(
        row.name,
        row.generation,
        row.size,
        row.format,
        row.evidence,
        crc,
        row.part_count,
        row.transfer,
        row.created,
        row.expires,
    )
