"""Logical files: publish, look up, rename, forget. Statements on a connection; the store makes the transactions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.catalogue import upsert, waste
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
class Copy:
    """One copy of the parts of a generation; the first one has the id of the generation itself."""

    id: str
    generation: str
    evidence: str
    created: float


def get(c: sa.Connection, name: str) -> LogicalFile:
    """The file of a name; raises FileNotFound."""
    row = c.execute(sa.select(t.files).where(t.files.c.name == normalise(name))).first()
    if row is None:
        msg = f"no logical file is called {normalise(name)}; see `cropduster files list`"
        raise FileNotFound(msg, file=normalise(name))
    return _file(row)


def owners(c: sa.Connection, plane: str, keys: Sequence[str]) -> dict[str, str]:
    """The files that own some of at most `waste.MOST_KEYS` objects, by key; what is only registered has no owner."""
    p = t.file_parts.c
    copied = sa.select(p.key, t.files.c.name).join(t.copies, t.copies.c.id == p.generation)
    owning = copied.join(t.files, t.files.c.generation == t.copies.c.generation)
    return {row.key: row.name for row in c.execute(owning.where(p.plane == plane, p.owned, p.key.in_(keys)))}


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


def copies(c: sa.Connection, generation: str) -> list[Copy]:
    """The copies of a generation, the oldest first."""
    x = t.copies.c
    query = sa.select(t.copies).where(x.generation == generation).order_by(x.created, x.id)
    return [Copy(r.id, r.generation, r.evidence, r.created) for r in c.execute(query)]


def by_copy(c: sa.Connection, copy: str) -> tuple[LogicalFile, Copy] | None:
    """The file of which this is a copy, if it is in the catalogue."""
    x = t.copies.c
    row = c.execute(sa.select(x.generation).where(x.id == copy)).first()
    file = None if row is None else by_generation(c, row.generation)
    return None if file is None else (file, next(each for each in copies(c, file.generation) if each.id == copy))


def planes_of(c: sa.Connection, copy: str) -> list[str]:
    """The planes that the parts of a copy lie on: one, but for files that were registered."""
    p = t.file_parts.c
    return sorted(c.execute(sa.select(p.plane).where(p.generation == copy).distinct()).scalars())


def parts(c: sa.Connection, copy: str, after: int = 0, limit: int | None = PAGE) -> list[FilePart]:
    """One page of the parts of a copy in order; limit None is all."""
    p = t.file_parts.c
    query = sa.select(t.file_parts).where(p.generation == copy, p.number > after).order_by(p.number).limit(limit)
    return [
        FilePart(r.number, r.plane, r.key, r.size, r.version, _checksums(r.checksums), r.owned)
        for r in c.execute(query)
    ]


def publish(
    c: sa.Connection, file: LogicalFile, *, overwrite: bool, retire_at: float, copy: Copy | None = None
) -> None:
    """Make a file visible whose parts are already entered; what had the name before is retired.

    May run twice for one generation. Its parts are entered under the id of `copy`, or else of the generation.

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
    _add_copy(c, copy or Copy(file.generation, file.generation, file.evidence, file.created))


def publish_copy(c: sa.Connection, copy: Copy, retire_at: float, instead_of: Sequence[str] = ()) -> None:
    """Make another copy of a file visible whose parts are already entered; others on its plane are retired.

    So are those that it is made `instead_of`: a copy that was registered may lie there with some of its parts only.

    The evidence of the file is then that of the oldest that is left. May run twice for one copy.

    Raises:
        Changed: there is no file of that generation any more.
    """
    file = by_generation(c, copy.generation)
    if file is None:
        raise gone(copy.generation)
    known = copies(c, copy.generation)
    if copy.id in {each.id for each in known}:
        return
    here = planes_of(c, copy.id)
    for other in known:
        if other.id in instead_of or planes_of(c, other.id) == here:
            _retire_copy(c, other.id, retire_at)
    _add_copy(c, copy)
    oldest = copies(c, copy.generation)[0]
    c.execute(t.files.update().where(t.files.c.generation == copy.generation).values(evidence=oldest.evidence))


def _add_copy(c: sa.Connection, copy: Copy) -> None:
    row = {"id": copy.id, "generation": copy.generation, "evidence": copy.evidence, "created": copy.created}
    upsert.replace(c, t.copies, [row])


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


def pin_again(c: sa.Connection, rows: Sequence[tuple[str, FilePart, str]]) -> None:
    """Note that parts, each of a copy, have another version now; what has changed since it was looked at stays."""
    p = t.file_parts.c
    known = (p.generation == sa.bindparam("copy"), p.number == sa.bindparam("part"))
    same = (p.plane == sa.bindparam("on"), p.key == sa.bindparam("at"), p.version == sa.bindparam("old"))
    c.execute(
        t.file_parts.update().where(*known, *same).values(version=sa.bindparam("new")),
        [
            {"copy": copy, "part": part.number, "on": part.plane, "at": part.key, "old": part.version, "new": version}
            for copy, part, version in rows
        ],
    )


def rename(c: sa.Connection, name: str, new_name: str) -> LogicalFile:
    """Give a file another name; raises FileNotFound, AlreadyExists."""
    old, new = get(c, name), normalise(new_name)
    if new != old.name:
        if taken(c, new):
            msg = f"the logical file {new} exists; delete it first, or choose another name"
            raise AlreadyExists(msg, file=new)
        c.execute(t.files.update().where(t.files.c.name == old.name).values(name=new))
    return get(c, new)


def note_stale_manifests(c: sa.Connection, file: LogicalFile, not_before: float) -> list[str]:
    """The manifests of a renamed file have to be written again; until a moment the caller is at it.

    Returns the copies that have one: what we did not write has none.
    """
    p = t.file_parts.c
    found = []
    for copy in copies(c, file.generation):
        if c.execute(sa.select(p.number).where(p.generation == copy.id, p.owned).limit(1)).first() is not None:
            row = {"generation": copy.id, "name": file.name, "not_before": not_before}
            upsert.replace(c, t.stale_manifests, [row])
            found.append(copy.id)
    return found


def stale_manifests(c: sa.Connection, moment: float) -> list[str]:
    """A page of copies whose manifest says an old name, and at which nobody is."""
    s = t.stale_manifests.c
    return list(c.execute(sa.select(s.generation).where(s.not_before <= moment).limit(PAGE)).scalars())


def forget_stale_manifest(c: sa.Connection, copy: str, name: str | None) -> None:
    """A manifest says this name now (None: there is no such file any more); one renamed since stays noted."""
    s = t.stale_manifests.c
    query = t.stale_manifests.delete().where(s.generation == copy)
    c.execute(query if name is None else query.where(s.name == name))


def drop(c: sa.Connection, name: str, retire_at: float) -> LogicalFile:
    """Take a file out of the catalogue and retire the parts that we own; raises FileNotFound."""
    file = get(c, name)
    c.execute(t.files.delete().where(t.files.c.name == file.name))
    retire(c, file.generation, retire_at)
    return file


def retire(c: sa.Connection, generation: str, not_before: float) -> None:
    """Move the owned objects of all copies of a generation, parts and manifests, to the garbage.

    The rows of its parts stay for those who read it now, until `forget_parts`.
    """
    for copy in [each.id for each in copies(c, generation)] or [generation]:
        _retire_copy(c, copy, not_before)


def _retire_copy(c: sa.Connection, copy: str, not_before: float) -> None:
    c.execute(t.copies.delete().where(t.copies.c.id == copy))
    p = t.file_parts.c
    mine = sa.and_(p.generation == copy, p.owned)
    waste.discard_all(c, sa.select(p.plane, p.key, sa.literal(not_before)).where(mine))
    first = c.execute(sa.select(p.plane, p.key).where(mine).order_by(p.number).limit(1)).first()
    if first is not None:
        home = first.key.rpartition("/")[0]  # not made from the name: a rename leaves objects where they are
        waste.discard(c, first.plane, [f"{home}/{MANIFEST}"], not_before)


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

    async def copies(self, generation: str) -> list[Copy]:
        """The copies of a generation, the oldest first; raises Changed if there is none any more."""
        return await self.store.read(lambda c: _copies(c, generation))

    async def parts(self, copy: str, after: int = 0) -> list[FilePart]:
        """One page of the parts of a copy in order."""
        return await self.store.read(lambda c: parts(c, copy, after))

    async def all_parts(self, copy: str) -> list[FilePart]:
        """All parts of a copy in order; raises Changed if they are not all there any more."""
        return await self.store.read(lambda c: _all_parts(c, copy))

    async def all_copies(self, generation: str) -> list[list[FilePart]]:
        """All parts of each copy, as of one moment; raises Changed if they are not all there any more."""
        return list((await self.parts_by_copy(generation)).values())

    async def parts_by_copy(self, generation: str) -> dict[str, list[FilePart]]:
        """The same by the ids of the copies, the oldest first."""
        return await self.store.read(lambda c: {copy.id: _all_parts(c, copy.id) for copy in _copies(c, generation)})


def gone(name: str) -> Changed:
    """The error of a transfer that makes another copy of what is not there any more."""
    msg = f"{name} was deleted or replaced while another copy of it was made; look at it, and try again"
    return Changed(msg, file=name)


def replaced(name: str = "the file") -> Changed:
    """The error of a reader whose file went away under its hands."""
    msg = f"{name} was replaced while it was read; try again"
    return Changed(msg, file=name)


def _copies(c: sa.Connection, generation: str) -> list[Copy]:
    found = copies(c, generation)
    if not found:
        raise replaced()
    return found


def _all_parts(c: sa.Connection, copy: str) -> list[FilePart]:
    found = parts(c, copy, limit=None)  # one statement sees one moment
    known = by_copy(c, copy)
    if not found or (known is not None and known[0].part_count != len(found)):
        raise replaced() if known is None else replaced(known[0].name)
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
