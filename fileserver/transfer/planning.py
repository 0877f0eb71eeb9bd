"""From a spec to a manifest: look at the sources, find split points, decide the route. Writes nothing.

The same drawing serves a transfer and `--dry-run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from fileserver.catalogue.files import Catalogue, FilePart
from fileserver.catalogue.names import normalise, part_key
from fileserver.catalogue.store import Store
from fileserver.configured import AGENT, Configured, where
from fileserver.errors import InvalidSpec
from fileserver.formats.csv import Csv, shown
from fileserver.hosts import below, place
from fileserver.together import side_by_side
from fileserver.transfer import plan, routes, survey
from fileserver.transfer.manifest import Part, Source
from fileserver.transfer.record import Plan
from fileserver.transfer.spec import (
    Copy,
    Despray,
    Format,
    Ingest,
    Replicate,
    Spec,
    Spray,
    Sync,
    format_from_json,
    format_to_json,
)
from fileserver.transfer.verdict import whole
from planes.errors import AlreadyExists, Error, NotFound
from planes.plane import Extent, Info, Ticket

if TYPE_CHECKING:  # brings numpy, which a server should not load before the first file is split
    from fileserver.transfer.partition import Points, Read

MOST_PARTS: Final = 100_000

_NOTES: Final = 20  # sources that are named one by one

HEADERS: Final = "a header line stays where it is: only the part that holds the start of a source has it"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A manifest that nobody has stored yet; `parts` can be walked once more for every call."""

    sources: Sequence[Source]
    plan: Plan
    parts: Callable[[], Iterator[Part]]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the parts go: a logical file of a plane, or one object."""

    plane: str
    file: str
    key: Callable[[int, int], str]


@runtime_checkable
class Splits(Protocol):
    """A plane that finds split points by itself, next to the data."""

    async def partition(self, sources: Sequence[Source], form: Format, targets: Sequence[int]) -> Points | None:
        """Split points of pinned sources of this plane; None where they are not at one place of it.

        Raises as `transfer.partition` does.
        """
        ...


class Planner:
    """Draws the manifests of all verbs."""

    def __init__(self, planes: Configured, store: Store) -> None:
        self._planes = planes
        self._catalogue = Catalogue(store)

    async def draw(self, spec: Spec, transfer: str) -> Drawing:
        """The manifest of a spec; raises whatever is wrong with the sources, the data or the target."""
        verb = spec.verb
        if isinstance(verb, Spray):
            return await self._spray(verb, spec, transfer)
        if isinstance(verb, Despray):
            return await self._despray(verb, spec)
        if isinstance(verb, Replicate):
            return await self._replicate(verb, spec, transfer)
        assert not isinstance(verb, Sync | Ingest), "a sync and an ingest have no manifest"
        return await self._copy(verb, spec, transfer)

    async def _spray(self, verb: Spray, spec: Spec, transfer: str) -> Drawing:
        plane = verb.plane or self._planes.default
        target = self._file_target(verb.file, plane, transfer)
        sources = await survey.pin(self._planes, verb.sources, natural=verb.natural_order)
        endings, notes = await self._endings(sources, verb.format)
        stream = plan.Stream(sources, endings)
        count = self._count(stream.size, verb.parts, verb.part_size, plane)
        if verb.no_split:
            return await self._dealt(spec, target, stream, count, verb.format, notes)
        if verb.format is None:
            msg = "no format: add --format fixed:<record size> or --format csv, or deal whole files with --no-split"
            raise InvalidSpec(msg, {"spec.spray.format": msg})
        if isinstance(verb.format, Csv) and (count > 1 or len(sources) > 1):
            notes = (*notes, HEADERS)
        return await self._split(spec, target, stream, verb.format, count, notes)

    async def _despray(self, verb: Despray, spec: Spec) -> Drawing:
        file = await self._catalogue.get(verb.file)
        copies = self._by_cost(await self._catalogue.all_copies(file.generation), verb.target.plane)
        sources = await survey.pin_parts(self._planes, copies)
        key = survey.key_of(verb.target)
        theirs = [Source(p.plane, p.key, p.size, p.version, {}) for parts in copies for p in parts]
        await self._check_object(verb.target.plane, key, [*sources, *theirs], overwrite=spec.overwrite)
        target = _Target(verb.target.plane, "", lambda _number, _count: key)
        stream = plan.Stream(sources, [b""] * len(sources))
        return await self._drawn(spec, target, stream, lambda: iter([plan.join(sources, key)]), 1)

    async def _copy(self, verb: Copy, spec: Spec, transfer: str) -> Drawing:
        file = await self._catalogue.get(verb.file)
        copies = await self._catalogue.all_copies(file.generation)
        plane = verb.plane or self._usual_plane(copies[0])
        target = self._file_target(verb.new_file, plane, transfer)
        sources = await survey.pin_parts(self._planes, self._by_cost(copies, plane))
        stream = plan.Stream(sources, [b""] * len(sources))
        form = format_from_json(file.format)
        if not verb.parts and not verb.part_size:
            return await self._dealt(spec, target, stream, len(sources), form, ())
        if form is None:
            msg = f"{file.name} has no format, so its records cannot be told apart; copy it without --parts"
            raise InvalidSpec(msg, {"spec.copy.parts": msg}, file=file.name)
        count = self._count(stream.size, verb.parts, verb.part_size, plane)
        return await self._split(spec, target, stream, form, count, ())

    async def _replicate(self, verb: Replicate, spec: Spec, transfer: str) -> Drawing:
        file = await self._catalogue.get(verb.file)
        target = self._file_target(file.name, verb.plane, transfer)
        copies = await self._catalogue.parts_by_copy(file.generation)
        stale = [id_ for id_, parts in copies.items() if await self._is_replaced(file.name, parts, verb.plane, spec)]
        # What is to be replaced is the last place to read from: what is wrong with it may show only at the end.
        others = self._by_cost([parts for id_, parts in copies.items() if id_ not in stale], verb.plane)
        sources = await survey.pin_parts(self._planes, [*others, *(copies[id_] for id_ in stale)])
        stream = plan.Stream(sources, [b""] * len(sources))
        form = format_from_json(file.format)
        made = await self._dealt(spec, target, stream, len(sources), form, ())
        return replace(made, plan=replace(made.plan, copy_of=file.generation, instead_of=tuple(stale)))

    async def _is_replaced(self, name: str, parts: Sequence[FilePart], plane: str, spec: Spec) -> bool:
        """Whether another copy on a plane takes the place of this one, which lies there with all of its parts or some.

        Raises:
            AlreadyExists: all of it lies there, it is whole, and nobody said that it is to be made anew.
        """
        on = {part.plane for part in parts}
        if plane not in on or spec.overwrite:
            return plane in on
        try:
            is_whole = await whole(self._planes, parts)
        except Error:
            if on == {plane}:
                raise
            return False  # a plane that does not answer says nothing of what is on it
        if is_whole and on == {plane}:
            msg = f"{plane} holds a whole copy of {name}; --overwrite makes it anew"
            raise AlreadyExists(msg, file=name, plane=plane)
        return not is_whole

    async def partition(self, sources: Sequence[Source], form: Format, wanted: Sequence[int]) -> Points:
        """Split points of pinned sources, found where they are."""
        homes = {source.plane for source in sources}
        if len(homes) == 1:
            plane = self._planes.plane(homes.pop())
            if isinstance(plane, Splits):
                found = await plane.partition(sources, form, wanted)
                if found is not None:
                    return found
        from fileserver.transfer.partition import partition  # noqa: PLC0415 - see above

        return await partition(sources, form, wanted, self._reader(sources))

    # --- pieces of the above ------------------------------------------------------------------------------------

    async def _split(
        self, spec: Spec, target: _Target, stream: plan.Stream, form: Format, count: int, notes: tuple[str, ...]
    ) -> Drawing:
        """Parts that begin at split points."""
        from fileserver.transfer.partition import targets  # noqa: PLC0415 - see above

        points = await self.partition(stream.sources, form, targets(stream.size, count))
        made = await self._drawn(
            spec,
            target,
            stream,
            lambda: plan.split(stream, points.points, lambda n: target.key(n, count)),
            count,
            form=form,
            warnings=(*notes, *points.warnings),
        )
        return replace(made, plan=replace(made.plan, split=points.split, windows=points.bytes_read))

    async def _dealt(
        self,
        spec: Spec,
        target: _Target,
        stream: plan.Stream,
        count: int,
        form: Format | None,
        notes: tuple[str, ...],
    ) -> Drawing:
        """Whole sources, dealt to parts."""

        def parts() -> Iterator[Part]:
            return plan.deal(stream, count, lambda n: target.key(n, count))

        return await self._drawn(spec, target, stream, parts, count, form=form, warnings=notes)

    async def _drawn(
        self,
        spec: Spec,
        target: _Target,
        stream: plan.Stream,
        parts: Callable[[], Iterator[Part]],
        count: int,
        *,
        form: Format | None = None,
        warnings: tuple[str, ...] = (),
    ) -> Drawing:
        """The manifest whose parts are walked by `parts`; sizes are checked in a thread, for there may be many."""

        def work() -> Drawing:
            sources = stream.sources
            made = Plan(
                plane=target.plane,
                file=target.file,
                format=format_to_json(form),
                split="none",
                size=stream.size + sum(map(len, stream.endings)),
                parts=count,
                limits=limits,
                native=native,
                whole=dict(native),
                means=means,
                overwrite=spec.overwrite,
                kind=survey.common_kind(sources),
                hosts=self._planes.hosts(target.plane) if target.file else (),
                apart=tuple(sorted(name for name in native if self._planes.hosts(name))),
            )
            for part in parts():
                if part.size > limits.max_object:
                    msg = (
                        f"part {part.number} would have {part.size} bytes, but an object of {target.plane} can have"
                        f" {limits.max_object} at most; ask for more parts"
                    )
                    raise InvalidSpec(msg, {"spec.parts": msg}, plane=target.plane)
            return Drawing(sources, made, parts, warnings)

        limits = self._planes.plane(target.plane).limits
        native, means = self._native(target.plane, stream.sources)
        return await asyncio.to_thread(work)

    def _native(self, target: str, sources: Sequence[Source]) -> tuple[dict[str, str], dict[str, str]]:
        """For each source plane why the target cannot copy by itself, "" where it can; and what its copies are."""
        found: dict[str, str] = {}
        means: dict[str, str] = {}
        into = self._planes.plane(target)
        for s in sources:
            if s.plane not in found:
                info = Info(s.key, s.size, s.version, datetime.now(UTC))
                ticket = self._planes.plane(s.plane).copy_ticket(info)
                can = ticket is not None and into.accepts(ticket)
                there, here = ("the caller's machine" if name.startswith(AGENT) else name for name in (s.plane, target))
                found[s.plane] = "" if can else f"{here} cannot fetch from {there} by itself"
                mine = into.copy_ticket(info)
                if can and ticket is not None and mine is not None:
                    means[s.plane] = routes.between(ticket.kind, mine.kind)
        return found, means

    def _by_cost(self, copies: Sequence[Sequence[FilePart]], target: str) -> list[Sequence[FilePart]]:
        """Copies of a file in the order in which a target should read them: those that it copies by itself first."""

        def travels(parts: Sequence[FilePart]) -> bool:
            first = parts[0]
            try:
                native, _ = self._native(target, [Source(first.plane, first.key, first.size, first.version, {})])
            except Error:  # a plane that is not configured any more, or cannot be opened
                return True
            return bool(native[first.plane])

        return sorted(copies, key=travels)

    def _reader(self, sources: Sequence[Source]) -> Read:
        async def read(index: int, start: int, end: int) -> bytes:
            source = sources[index]
            buffer = bytearray(end - start)
            extent = Extent(source.key, source.version, start, end)
            await self._planes.plane(source.plane).read(extent, memoryview(buffer))
            return bytes(buffer)

        return read

    async def _endings(self, sources: Sequence[Source], form: Format | None) -> tuple[list[bytes], tuple[str, ...]]:
        """A terminator for every source that lacks one and is not the last that holds anything."""
        endings = [b""] * len(sources)
        filled = [i for i, s in enumerate(sources) if s.size]
        if not isinstance(form, Csv):
            return endings, ()
        from fileserver.transfer.partition import last_terminated  # noqa: PLC0415 - see above

        read = self._reader(sources)

        async def look(i: int) -> None:
            if not await last_terminated(sources[i], form, partial(read, i)):
                endings[i] = form.terminators[0]

        await side_by_side(filled[:-1], look, survey.AT_ONCE)
        lacking = [i for i, ending in enumerate(endings) if ending]
        named = ((where(sources[i].plane, sources[i].key), shown(endings[i])) for i in lacking[:_NOTES])
        notes = [f"{source} ends without a terminator; {ending} is added after it" for source, ending in named]
        if len(lacking) > _NOTES:
            notes.append(f"{len(lacking) - _NOTES} more sources end without a terminator, and get one")
        return endings, tuple(notes)

    async def _check_object(self, plane: str, key: str, sources: Sequence[Source], *, overwrite: bool) -> None:
        """Refuse a target that exists, or that is one of the sources under any name."""
        try:
            info = await self._planes.plane(plane).stat(key)
        except NotFound:
            return
        into = self._planes.plane(plane)
        ticket = into.copy_ticket(info)
        for s in sources:
            same = s.plane == plane and s.key == key
            if not same and ticket is not None and s.version == info.version and s.size == info.size:
                other = self._planes.plane(s.plane).copy_ticket(replace(info, key=s.key))
                same = other is not None and (other.kind, _store(other)) == (ticket.kind, _store(ticket))
                same = same and (ticket.kind == "posix" or other is None or other.location == ticket.location)
            if same:
                msg = f"{where(plane, key)} is a part of the file itself; choose another target"
                raise InvalidSpec(msg, {"spec.despray.target": msg}, plane=plane, key=key)
        if not overwrite:
            msg = f"{where(plane, key)} exists; --overwrite replaces it"
            raise AlreadyExists(msg, plane=plane, key=key)

    def _file_target(self, name: str, plane: str, transfer: str) -> _Target:
        file = normalise(name)
        self._planes.settings(plane)
        hosts = self._planes.hosts(plane)
        return _Target(plane, file, lambda n, count: below(place(hosts, n), part_key(file, transfer, n, count)))

    def _usual_plane(self, parts: Sequence[FilePart]) -> str:
        return parts[0].plane if parts and parts[0].plane in self._planes.names else self._planes.default

    def _count(self, size: int, parts: int, part_size: int, plane: str) -> int:
        count = parts or (max(1, -(-size // part_size)) if part_size else self._planes.settings(plane).default_parts)
        if count > MOST_PARTS:
            msg = f"{count} parts are more than the {MOST_PARTS} that a file may have; choose larger parts"
            raise InvalidSpec(msg, {"spec.parts": msg})
        return count


def _store(ticket: Ticket) -> str:
    """Where the object lies, whoever asks: a scope begins with it, and may go on with who that is."""
    return ticket.scope.partition(" ")[0]
