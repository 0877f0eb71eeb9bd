"""From a sync to its items: list both ends, let the database compare them. Moves nothing."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from fileserver.catalogue.files import PAGE
from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.errors import InvalidSpec
from fileserver.together import side_by_side
from fileserver.transfer import sync_guard, sync_rows
from fileserver.transfer.addresses import address, in_generation, overlap
from fileserver.transfer.filters import wanted
from fileserver.transfer.spec import Location, Sync
from fileserver.transfer.survey import key_of
from fileserver.transfer.sync_rows import Listed, Totals
from planes.errors import Error, NotFound, Refused
from planes.left_out import LeftOut
from planes.plane import MIB, Extent

_LEFT: Final = "they belong to logical files and were left out"
_SECOND: Final = timedelta(microseconds=999_999)
_SHOWN: Final = 3
"""Names that a warning tells, of those that were left out."""
_LONGEST: Final = 64 * 1024  # bytes of a name


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison found."""

    totals: Totals
    warnings: tuple[str, ...]


class SyncPlanner:
    """Lists and compares."""

    def __init__(self, planes: Configured, store: Store) -> None:
        self._planes = planes
        self._store = store

    async def compare(self, sync: Sync, transfer: str) -> Compared:
        """Make the items of a sync.

        Raises:
            NotFound: nothing is below the source: a mistyped folder must not empty the target.
        """
        await self._store.write(lambda c: sync_rows.clear(c, transfer))
        test, source, target = wanted(sync.include, sync.exclude), _End("source"), _End("target")
        both = [
            self._listed(sync.source, transfer, test, source),
            self._listed(sync.target, transfer, test, target),
        ]
        if sync.names is not None:
            both.append(self._names(sync.names, transfer, test))
        await side_by_side(both, _run, len(both))
        if not source.found:
            raise await self._nothing(sync.source)
        options = {"named": sync.names is not None, "checksum": sync.checksum, "delete": sync.delete}
        vain, shown = await self._store.read(lambda c: sync_rows.in_neither(c, transfer, _SHOWN))
        totals = await self._store.write(lambda c: sync_rows.compare(c, transfer, **options))
        notes = [*source.odd.notes(sync.source), *target.odd.notes(sync.target)]
        if sync.delete and vain:
            notes.append(f"{vain} of the names in the list are in neither end: {_some(shown, vain)}")
        if source.markers:
            notes.append(f"{source.markers} keys that end in / (folders, not files) were left out")
        if source.parts or target.parts:
            count = f"{source.parts} objects of the source and {target.parts} of the target"
            notes.append(f"{count} lie in generation folders (~…/): {_LEFT}")
        if sync.delete and (spared := await self._spare(sync, transfer)):
            totals = replace(totals, delete=totals.delete - spared)
            notes.append(f"{spared} objects of the target stay, because logical files or transfers need them")
        if (refused := too_many(sync, totals)) is not None:
            notes.append(refused.message)
        return Compared(totals, tuple(notes))

    async def _nothing(self, location: Location) -> NotFound:
        """The error of a source that is empty, or no folder."""
        key = folder(location).rstrip("/")
        with suppress(Error):
            await self._planes.plane(location.plane).stat(key)
            msg = f"{where(location.plane, key)} is no folder: sync the one that it is in, with --include for its name"
            return NotFound(msg, plane=location.plane, key=location.key)
        msg = f"nothing is below {where(location.plane, folder(location))}, so there is nothing to sync"
        return NotFound(msg, plane=location.plane, key=location.key)

    async def _listed(self, location: Location, transfer: str, test: Callable[[str], bool], end: _End) -> None:
        """Enter what is below a folder."""

        async def enter(side: str, listed: list[Listed]) -> None:
            await self._store.write(partial(sync_rows.enter, transfer=transfer, side=side, listed=listed))

        async for page, count in self._pages(location, test, end.side, end.odd):
            end.found += count
            if end.side == "source" and (unnamed := end.odd.unnamed()):
                end.found += len(unnamed)
                await enter("unnamed", unnamed)
            plain = [each for each in page if not in_generation(each.key)]
            folders = [each for each in plain if each.key.endswith("/")]
            if end.side == "source" and (data := [each for each in folders if each.size]):
                await enter("folder", data)
            end.markers += sum(1 for each in folders if not each.size)
            end.parts += len(page) - len(plain)
            await enter(end.side, [each for each in plain if not each.key.endswith("/")])

    async def _pages(
        self, location: Location, test: Callable[[str], bool], side: str, odd: _Odd
    ) -> AsyncIterator[tuple[list[Listed], int]]:
        """Pages of what is below a folder, keys relative to it, and how many objects were looked at for each."""
        prefix, page, count = folder(location), list[Listed](), 0
        plane = self._planes.plane(location.plane)
        is_store = plane.capabilities.metadata > 0

        def left_out(each: LeftOut) -> None:
            name = each.name.removeprefix(prefix)
            if test(name):
                odd.add(replace(each, name=name))

        async for info in plane.list(prefix, left_out=left_out):
            key, count = info.key[len(prefix) :], count + 1
            if key and test(key):
                latest = _latest(info.modified) if side == "source" and is_store else info.modified
                page.append(Listed(key, info.size, info.version, latest.timestamp()))
            if count == PAGE:
                yield page, count
                page, count = [], 0
        yield page, count

    async def _spare(self, sync: Sync, transfer: str) -> int:
        """Take back deletions of what somebody needs; returns how many."""
        at, after, count = await self.shared(sync), 0, 0
        while items := await self._store.read(partial(sync_rows.deletions, transfer=transfer, after=after)):
            needed = await self._store.read(partial(sync_guard.named, items=items, at=at))
            await self._store.write(partial(sync_rows.drop, transfer=transfer, numbers=needed))
            after, count = items[-1].number, count + len(needed)
        return count

    async def shared(self, sync: Sync) -> dict[str, tuple[str, str]]:
        """Planes by which somebody may need objects of the target; see `sync_guard.places`."""
        names = await self._store.read(sync_guard.known_planes)
        target = await address(self._planes, sync.target.plane, folder(sync.target))
        return await sync_guard.places(self._planes, names, target)

    async def _names(self, location: Location, transfer: str, test: Callable[[str], bool]) -> None:
        """Enter the names of a list that `test` wants; the mark of its byte order, if it has one, is no name."""
        plane, key = self._planes.plane(location.plane), key_of(location)
        info = await plane.stat(key)
        rest = b""
        for start in range(0, info.size, MIB):
            end = min(start + MIB, info.size)
            buffer = bytearray(end - start)
            await plane.read(Extent(key, info.version, start, end), memoryview(buffer))
            text = (rest + buffer).removeprefix(codecs.BOM_UTF8 if start == 0 else b"")
            *lines, rest = text.split(b"\n")
            listed = _listed([*lines, rest] if end == info.size else lines, location)
            await self._enter_names(transfer, [each for each in listed if test(each.key)])
            if len(rest) > _LONGEST:
                raise _not_names(location)

    async def _enter_names(self, transfer: str, listed: list[Listed]) -> None:
        for at in range(0, len(listed), PAGE):
            page = listed[at : at + PAGE]
            await self._store.write(partial(sync_rows.enter, transfer=transfer, side="name", listed=page))
            await asyncio.sleep(0)


class _Odd:
    """What a listing of one end left out; told of it by other threads."""

    def __init__(self) -> None:
        self._unnamed: list[LeftOut] = []
        self._shown: dict[bool, list[str]] = {False: [], True: []}
        self._count: dict[bool, int] = {False: 0, True: 0}

    def add(self, each: LeftOut) -> None:
        """Something that was left out."""
        self._count[each.has_data] += 1
        if each.has_data:
            self._unnamed.append(each)
        if len(self._shown[each.has_data]) < _SHOWN:
            self._shown[each.has_data].append(f"{each.name} ({each.why})")

    def unnamed(self) -> list[Listed]:
        """What has come since and may hold data, though no key can be its name."""
        taken, self._unnamed = self._unnamed, []
        return [Listed(each.name) for each in taken]

    def notes(self, location: Location) -> list[str]:
        """What to tell of it."""
        said = {True: "have names that no key can be", False: "are no files, and were left out"}
        what = where(location.plane, folder(location))
        return [
            f"{self._count[kind]} below {what} {said[kind]}: {_some(shown, self._count[kind])}"
            for kind, shown in self._shown.items()
            if shown
        ]


@dataclass(slots=True)
class _End:
    """What was found at one end: objects, those that are named like folders, and parts of logical files."""

    side: str
    found: int = 0
    markers: int = 0
    parts: int = 0
    odd: _Odd = field(default_factory=_Odd)


def _latest(modified: datetime) -> datetime:
    """The last moment that a store can mean, which tells whole seconds.

    Else an object that is overwritten in the very second in which it was copied would never again be newer.
    """
    return modified if modified.microsecond else modified + _SECOND


async def _run(work: Awaitable[None]) -> None:
    await work


def folder(location: Location) -> str:
    """The prefix of a folder's keys: empty, or with a `/` at its end."""
    key = key_of(location).strip("/")
    return f"{key}/" if key else ""


def too_many(sync: Sync, totals: Totals) -> Refused | None:
    """The error of a sync that would delete more than was allowed."""
    most = sync.max_delete
    if totals.delete <= most:
        return None
    target = where(sync.target.plane, folder(sync.target))
    msg = (
        f"--delete would remove {totals.delete} objects below {target}, more than the {most} that --max-delete allows;"
        " nothing was copied or deleted: look at them with --dry-run, and allow that many"
    )
    return Refused(msg, plane=sync.target.plane, objects=str(totals.delete), allowed=str(most))


async def target_of(sync: Sync, planes: Configured) -> str:
    """The folder that a sync reserves, after what can be told at once.

    Raises:
        PlaneNotFound: there is no such plane.
        InvalidSpec: one of the folders lies in the other, by whichever names; or the target is a generation folder.
    """
    for location in filter(None, (sync.source, sync.target, sync.names)):
        planes.plane(location.plane)
    one, other = folder(sync.source), folder(sync.target)
    if sync.delete and in_generation(other):
        msg = f"{where(sync.target.plane, other)} is of a logical file (~…/): nothing can be deleted there by --delete"
        raise InvalidSpec(msg, {"spec.sync.target": msg})
    here, there = [await address(planes, end.plane, folder(end)) for end in (sync.source, sync.target)]
    if overlap(here, there):
        msg = f"one of {where(sync.source.plane, one)} and {where(sync.target.plane, other)} lies in the other"
        raise InvalidSpec(msg, {"spec.sync.target": msg})
    return f"object:{there}"


def _some(shown: Sequence[str], count: int) -> str:
    """Some names of `count`."""
    return ", ".join(shown) + (", …" if count > len(shown) else "")


def _listed(lines: Sequence[bytes], location: Location) -> list[Listed]:
    """The names in lines of a list, each once.

    Raises:
        InvalidSpec: that is no text.
    """
    try:
        names = [line.decode().removesuffix("\r").removeprefix("./").lstrip("/") for line in lines]
    except UnicodeDecodeError:
        raise _not_names(location) from None
    if any("\0" in name for name in names):
        raise _not_names(location)
    return [Listed(name) for name in dict.fromkeys(names) if name]


def _not_names(location: Location) -> InvalidSpec:
    msg = f"{where(location.plane, key_of(location))} is not a list of names, one a line, in UTF-8"
    return InvalidSpec(msg, {"spec.sync.names": msg})
