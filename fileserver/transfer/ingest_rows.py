"""What is known of the files of ingests: rows written and read in pages. Statements on a connection; decides nothing.

Rows stay as long as the transfer is remembered: they are its report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import tables as t
from fileserver.catalogue.files import PAGE
from fileserver.errors import InvalidSpec, to_record
from fileserver.transfer import manifest_rows
from fileserver.transfer.record import Segment
from planes.errors import AlreadyExists
from planes.plane import GIB

BATCH: Final = 250
"""Files of a segment, unless there are very many."""
OPEN: Final = ("waiting", "loading", "publishing")
"""States of files that have not ended."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is to become a domain."""

    plane: str
    key: str
    size: int
    version: str
    domain: str
    state: str = "waiting"
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file of an ingest as it stands; see `tables.ingest_files`."""

    transfer: str
    number: int
    plane: str
    key: str
    size: int
    version: str
    domain: str
    state: str = "waiting"
    tries: int = 0
    begun: float | None = None
    ended: float | None = None
    publication: dict[str, Any] | None = None
    owed: bool = False
    root: str = ""
    objects: int = 0
    through_us: int = 0
    native: int = 0
    verified: str = ""
    error: dict[str, Any] | None = None
    resumed: int = 0

    @property
    def load(self) -> str:
        """A text that no other load has, for `fileserver.hdf5.load`."""
        return f"{self.transfer}/{self.number}/{self.tries}"


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one object of a file."""

    path: str
    kind: str
    route: str
    bytes: int
    result: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a file ended: loaded, partly or failed; with the row as it is then, and its report."""

    file: File
    told: Sequence[Told] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """How files have ended, and what arrived of them."""

    loaded: int
    partly: int
    failed: int
    size: int
    """Bytes of the files that were published."""
    objects: int
    native: int
    through_us: int


def enter(c: sa.Connection, transfer: str, first: int, found: Iterable[Found]) -> None:
    """Enter a page of files, numbered from `first` on."""
    rows = [{"transfer": transfer, "number": number, **asdict(each)} for number, each in enumerate(found, first)]
    if rows:
        c.execute(t.ingest_files.insert(), rows)


def clear(c: sa.Connection, transfer: str) -> None:
    """Forget all files of an ingest."""
    for table in (t.ingest_files, t.ingest_reports):
        c.execute(table.delete().where(table.c.transfer == transfer))


def forgotten(c: sa.Connection) -> None:
    """Forget files of transfers that are forgotten."""
    known = sa.select(t.transfers.c.id)
    for table in (t.ingest_files, t.ingest_reports):
        c.execute(table.delete().where(table.c.transfer.not_in(known)))


def refuse_doubles(c: sa.Connection, transfer: str, error: dict[str, Any]) -> int:
    """End files whose domain an earlier one has already; returns how many."""
    f, other = t.ingest_files, t.ingest_files.alias("other")
    firsts = sa.select(sa.func.min(other.c.number)).where(other.c.transfer == transfer).group_by(other.c.domain)
    query = f.update().where(f.c.transfer == transfer, f.c.number.not_in(firsts))
    return c.execute(query.values(state="failed", error=error)).rowcount


def page(
    c: sa.Connection, transfer: str, first: int, last: int | None = None, *, pending: bool = True, limit: int = PAGE
) -> list[File]:
    """A page of the files first … last in order; `pending`: only those that have not ended."""
    f = t.ingest_files.c
    query = sa.select(t.ingest_files).where(f.transfer == transfer, f.number >= first)
    query = query if last is None else query.where(f.number <= last)
    query = query.where(f.state.in_(OPEN)) if pending else query
    return [File(**row._mapping) for row in c.execute(query.order_by(f.number).limit(limit))]  # noqa: SLF001 -- public


def owing(c: sa.Connection, transfer: str, after: int = 0) -> list[File]:
    """A page of the files behind number `after` whose loads may have left something in the server."""
    f = t.ingest_files.c
    query = sa.select(t.ingest_files).where(f.transfer == transfer, f.owed, f.number > after)
    return [File(**row._mapping) for row in c.execute(query.order_by(f.number).limit(PAGE))]  # noqa: SLF001 -- public


def unclean(c: sa.Connection) -> list[str]:
    """Transfers that have ended, and whose loads may have left something."""
    f, x = t.ingest_files.c, t.transfers.c
    ended = sa.select(x.id).where(x.ended.is_not(None))
    return list(c.execute(sa.select(f.transfer).distinct().where(f.owed, f.transfer.in_(ended))).scalars())


def update(c: sa.Connection, transfer: str, number: int, **values: Any) -> None:
    """Set columns of one file."""
    f = t.ingest_files
    c.execute(f.update().where(f.c.transfer == transfer, f.c.number == number).values(**values))


def begin(c: sa.Connection, files: Sequence[File], now: float) -> None:
    """These are about to be loaded."""
    f, r = t.ingest_files, t.ingest_reports
    again = [{"of": each.transfer, "at": each.number} for each in files if each.tries > 1]
    if again:  # what was said of an earlier attempt
        c.execute(r.delete().where(r.c.transfer == sa.bindparam("of"), r.c.number == sa.bindparam("at")), again)
    rows = [{"of": each.transfer, "at": each.number, "tries_": each.tries} for each in files]
    query = f.update().where(f.c.transfer == sa.bindparam("of"), f.c.number == sa.bindparam("at"))
    if rows:
        c.execute(query.values(state="loading", tries=sa.bindparam("tries_"), begun=now, owed=True), rows)


def resume(c: sa.Connection, files: Sequence[File]) -> None:
    """These, which another run has begun, are taken up again."""
    for each in files:
        update(c, each.transfer, each.number, resumed=each.resumed)


def stand_still(c: sa.Connection, transfer: str, first: int, last: int) -> None:
    """Their run ends in good order: that these are taken up again by the next does not count."""
    f = t.ingest_files
    these = (f.c.transfer == transfer, f.c.number.between(first, last), f.c.state == "loading")
    c.execute(f.update().where(*these).values(resumed=f.c.resumed - 1))


def enter_ended(c: sa.Connection, transfer: str, ended: Sequence[Ended]) -> None:
    """Record how files ended; what is recorded is not done again."""
    f = t.ingest_files
    query = f.update().where(f.c.transfer == transfer, f.c.number == sa.bindparam("at"))
    rows = [{"at": each.file.number} | {f"{name}_": getattr(each.file, name) for name in _AT_THE_END} for each in ended]
    if rows:
        c.execute(query.values({name: sa.bindparam(f"{name}_", type_=f.c[name].type) for name in _AT_THE_END}), rows)
        _reports(c, transfer, [(each.file.number, each.told) for each in ended])


def end_joined(c: sa.Connection, head: File) -> None:
    """The other files of a domain that is published end as is recorded of each, with the first."""
    f = t.ingest_files
    others = (f.c.transfer == head.transfer, f.c.number != head.number, f.c.state.in_(OPEN))
    rows = c.execute(sa.select(f.c.number, f.c.publication).where(*others)).all()
    ends = [{"at": row.number, "ends": (row.publication or {}).get("ends", "loaded")} for row in rows]
    query = f.update().where(f.c.transfer == head.transfer, f.c.number == sa.bindparam("at"))
    values = {"ended": head.ended, "begun": head.begun, "root": head.root, "verified": head.verified}
    if ends:
        c.execute(query.values(state=sa.bindparam("ends"), **values), ends)


def settle(c: sa.Connection, file: File) -> None:
    """Record what became of a file whose load had left something."""
    update(c, file.transfer, file.number, state=file.state, owed=file.owed, root=file.root)


_AT_THE_END: Final = ("state", "ended", "owed", "root", "objects", "through_us", "native", "verified", "error")


def report(c: sa.Connection, transfer: str, number: int, told: Sequence[Told]) -> None:
    """Replace the report of one file."""
    _reports(c, transfer, [(number, told)])


def _reports(c: sa.Connection, transfer: str, told: Sequence[tuple[int, Sequence[Told]]]) -> None:
    r = t.ingest_reports
    old = r.delete().where(r.c.transfer == transfer, r.c.number == sa.bindparam("at"))
    c.execute(old, [{"at": number} for number, _ in told])
    rows = [
        {"transfer": transfer, "number": number, "page": i, "objects": [_plain(each) for each in some]}
        for number, all_ in told
        for i, some in enumerate(all_[at : at + PAGE] for at in range(0, len(all_), PAGE))
    ]
    if rows:
        c.execute(r.insert(), rows)


def _plain(told: Told) -> dict[str, Any]:
    return {name: getattr(told, name) for name in _TOLD}


_TOLD: Final = tuple(each.name for each in fields(Told))


def told(c: sa.Connection, transfer: str, number: int, number_of_page: int) -> list[Told]:
    """One page of the report of a file; empty behind the last."""
    r = t.ingest_reports.c
    query = sa.select(r.objects).where(r.transfer == transfer, r.number == number, r.page == number_of_page)
    return [Told(**each) for each in c.execute(query).scalar() or ()]


def tally(c: sa.Connection, transfer: str) -> Tally:
    """What has been done so far."""
    f = t.ingest_files.c
    sums = [sa.func.coalesce(sa.func.sum(each), 0) for each in (f.size, f.objects, f.native, f.through_us)]
    query = sa.select(f.state, sa.func.count(), *sums).where(f.transfer == transfer).group_by(f.state)
    found = {row[0]: [int(n) for n in row[1:]] for row in c.execute(query)}
    nothing = [0] * 5
    well, partly, failed = (found.get(state, nothing) for state in ("loaded", "partly", "failed"))
    size, objects = (well[i] + partly[i] for i in (1, 2))
    native, through = (well[i] + partly[i] + failed[i] for i in (3, 4))
    return Tally(well[0], partly[0], failed[0], size, objects, native, through)


def levels(c: sa.Connection, transfer: str) -> dict[str, int]:
    """How many of the files that arrived were verified in which way."""
    f = t.ingest_files.c
    arrived = (f.transfer == transfer, f.state.in_(("loaded", "partly")))
    query = sa.select(f.verified, sa.func.count()).where(*arrived).group_by(f.verified).order_by(f.verified)
    return {row[0]: int(row[1]) for row in c.execute(query)}


def failures(c: sa.Connection, transfer: str, limit: int) -> list[File]:
    """The first files that failed, or did not arrive whole."""
    f = t.ingest_files.c
    query = sa.select(t.ingest_files).where(f.transfer == transfer, f.state.in_(("failed", "partly")))
    rows = c.execute(query.order_by(f.state, f.number).limit(limit))
    return [File(**row._mapping) for row in rows]  # noqa: SLF001 -- public


def by_key(c: sa.Connection, transfer: str, plane: str, keys: Sequence[str]) -> dict[str, File]:
    """Some files of a plane by their keys; of a transfer that is no ingest none."""
    f = t.ingest_files.c
    mine = (f.transfer == transfer, f.plane == plane, f.key.in_(keys))
    rows = c.execute(sa.select(t.ingest_files).where(*mine))
    return {row.key: File(**row._mapping) for row in rows}  # noqa: SLF001 -- public


def cut(c: sa.Connection, transfer: str) -> tuple[int, int]:
    """Store the segments of the files to load; returns how many files and bytes those are."""
    f = t.ingest_files.c
    mine = (f.transfer == transfer, f.state == "waiting")
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(f.size), 0)).where(*mine)
    count, size = map(int, c.execute(query).one())
    rows = c.execute(sa.select(f.number, f.size).where(*mine).order_by(f.number).execution_options(yield_per=PAGE))
    segments = _segments(((row.number, row.size) for row in rows), count, size)
    while some := list(islice(segments, PAGE)):
        manifest_rows.add_segments(c, transfer, some)
    return count, size


def arrange(c: sa.Connection, transfer: str, *, together: bool) -> tuple[int, int]:
    """Store the segments of the files to load, of one alone if they become one domain `together`.

    Returns how many files and bytes those are; of others those that would become the same domain are refused.

    Raises:
        InvalidSpec: a file is twice among those that become one domain.
    """
    if together:
        return _together(c, transfer)
    msg = "another file of this ingest has the same name, and would become the same domain: give it another folder"
    refuse_doubles(c, transfer, to_record(AlreadyExists(msg)))
    return cut(c, transfer)


def _together(c: sa.Connection, transfer: str) -> tuple[int, int]:
    f = t.ingest_files.c
    mine = f.transfer == transfer
    twice = sa.select(f.plane, f.key).where(mine).group_by(f.plane, f.key).having(sa.func.count() > 1).limit(1)
    if (same := c.execute(twice).first()) is not None:
        msg = f"{same.plane}:{same.key} is named twice, and would be in the domain twice"
        raise InvalidSpec(msg, {"spec.ingest.sources": msg})
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(f.size), 0)).where(mine)
    count, size = map(int, c.execute(query).one())
    manifest_rows.add_segments(c, transfer, [Segment(1, 1, count, 0, 0, size)])
    return count, size


def _segments(files: Iterable[tuple[int, int]], count: int, size: int) -> Iterator[Segment]:
    """Segments of files (number, size): up to 250 and 1 GiB, more if there would be more than a thousand of them."""
    most, largest = max(BATCH, -(-count // 1000)), max(GIB, size // 1000)
    number = held = 0
    run: list[int] = []
    for file, bytes_ in files:
        if run and (len(run) == most or held + bytes_ > largest):
            number += 1
            yield Segment(number, run[0], run[-1], 0, 0, held)
            run, held = [], 0
        run.append(file)
        held += bytes_
    if run:
        yield Segment(number + 1, run[0], run[-1], 0, 0, held)
