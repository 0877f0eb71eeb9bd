"""Logical files held against their planes: register, rename, delete, verify. Moves no payload."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from fileserver.catalogue import files, waste
from fileserver.catalogue.files import Catalogue, FilePart, LogicalFile, now
from fileserver.catalogue.names import normalise
from fileserver.catalogue.store import Store
from fileserver.catalogue.waste import Garbage
from fileserver.configured import Configured, where
from fileserver.errors import InvalidSpec, TargetChanged
from fileserver.together import side_by_side
from fileserver.transfer import garbage, ledger, survey
from fileserver.transfer.rebuild import Rebuild, Rebuilt
from fileserver.transfer.renamed import PATIENCE, rewrite
from fileserver.transfer.spec import Format, Location, format_to_json
from fileserver.transfer.verdict import Verdict, verdicts
from planes.errors import AlreadyExists, NotFound

_AT_ONCE: Final = 8
_SOON: Final = 5.0  # seconds that a rename waits for the manifest: its plane may be down


class Custody:
    """The catalogue together with the planes."""

    def __init__(self, store: Store, planes: Configured, *, retire_after: float) -> None:
        self._store = store
        self._planes = planes
        self._retire_after = retire_after
        self.catalogue = Catalogue(store)

    async def register(
        self, name: str, locations: Sequence[Location], form: Format | None, *, natural: bool
    ) -> LogicalFile:
        """Enter existing objects as the parts of a file, in the order given; they are not owned.

        Raises:
            AlreadyExists: the name is taken.
            InvalidSpec: an object is a part that we wrote for a file: it would have two owners.
            NotFound: an object is not there, or was deleted with a file and is about to go.
        """
        name = normalise(name)
        if await self._store.read(lambda c: files.taken(c, name)):
            msg = f"the logical file {name} exists; delete it first, or choose another name"
            raise AlreadyExists(msg, file=name)
        sources = await survey.pin(self._planes, locations, natural=natural)
        generation = uuid.uuid4().hex[:12]
        parts = [
            FilePart(number, s.plane, s.key, s.size, s.version, dict(s.checksums), owned=False)
            for number, s in enumerate(sources, 1)
        ]
        size, crc = sum(s.size for s in sources), survey.composed(sources)
        file = LogicalFile(name, generation, size, format_to_json(form), "registered", crc, len(parts), "", now())

        def work(c: Any) -> None:
            _must_be_free(c, parts)
            files.enter_parts(c, generation, parts)
            files.publish(c, file, overwrite=False, retire_at=0.0)

        await self._store.write(work, durable=True)
        return file

    async def rename(self, name: str, new_name: str) -> LogicalFile:
        """Give a file another name; raises FileNotFound, AlreadyExists, TargetBusy.

        The manifests of its copies are written anew behind that. If one cannot be written now, `Upkeep` tries until it
        can.
        """

        def work(c: Any) -> tuple[LogicalFile, list[str]]:
            ledger.refuse_busy(c, f"file:{normalise(name)}")
            ledger.refuse_busy(c, f"file:{normalise(new_name)}")
            file = files.rename(c, name, new_name)
            return file, files.note_stale_manifests(c, file, now() + PATIENCE)

        file, copies = await self._store.write(work, durable=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_SOON):
                for copy in copies:
                    await rewrite(self._store, self._planes, copy)
        return file

    async def delete(
        self, name: str, *, with_parts: bool, validate_only: bool
    ) -> tuple[list[FilePart], list[FilePart]]:
        """Drop a file with all its copies; returns the parts that go and those that stay because they are not ours.

        Owned parts are retired: their bytes go after the time of grace. With `with_parts` the others go now, in the
        version that is there now; whatever dies in between, they are garbage from the same moment on.

        Raises:
            FileNotFound, TargetBusy: as they say.
            TargetChanged: the file was replaced since its parts were listed.
            Error: the plane of a part that is not ours does not answer (then nothing happened), or does not delete it
                (then it will be tried again).
        """
        file = await self.catalogue.get(name)
        parts = [part for copy in await self.catalogue.all_copies(file.generation) for part in copy]
        gone = [p for p in parts if p.owned or with_parts]
        kept = [p for p in parts if not (p.owned or with_parts)]
        if validate_only:
            return gone, kept
        doomed = await self._as_they_are([p for p in gone if not p.owned])

        def work(c: Any) -> None:
            ledger.refuse_busy(c, f"file:{file.name}")
            if files.get(c, name).generation != file.generation:
                msg = f"{file.name} was replaced while it was to be deleted; look at it, and try again"
                raise TargetChanged(msg, file=file.name)
            files.drop(c, name, now() + self._retire_after)
            waste.doom(c, doomed, now())

        await self._store.write(work, durable=True)
        left = await garbage.destroy(self._store, self._planes, doomed)
        if left:
            msg = (
                f"{file.name} is deleted, but {len(left)} of its objects that are not ours could not be destroyed yet,"
                f" which will be tried again: {left[0].message}"
            )
            raise type(left[0])(msg, retry_after=None, **left[0].facts)
        return gone, kept

    async def _as_they_are(self, parts: Sequence[FilePart]) -> list[Garbage]:
        """The objects of parts that are there, each with its version of now."""
        found: list[Garbage] = []

        async def look(part: FilePart) -> None:
            try:
                info = await self._planes.plane(part.plane).stat(part.key)
            except NotFound:
                return
            found.append(Garbage(part.plane, part.key, info.version))

        await side_by_side(parts, look, _AT_ONCE)
        return found

    # --- verify -------------------------------------------------------------------------------------------------

    async def verify(self, name: str, *, read: bool) -> list[Verdict]:
        """Compare every part of every copy with the catalogue, by stored values, or (read) by reading every byte.

        What was read and is the same, though it was written again, is the part from then on: its version is noted.

        Raises:
            Error: the only plane or host that has any of it does not answer; of several the others are looked at.
        """
        file = await self.catalogue.get(name)
        copies = await self.catalogue.parts_by_copy(file.generation)
        rows = [(copy, part) for copy, parts in copies.items() for part in parts]
        places = {self._planes.place(part.plane, part.key) for _, part in rows}
        found = await verdicts(self._planes, [part for _, part in rows], read=read, patient=len(places) > 1)
        same = [
            (copy, part, verdict.version)
            for (copy, part), verdict in zip(rows, found, strict=True)
            if verdict.version not in {"", part.version}
        ]
        if same:
            await self._store.write(lambda c: files.pin_again(c, same))
        return found

    async def rebuild(self, plane: str, *, validate_only: bool) -> Rebuilt:
        """Enter every whole file again whose manifest lies on a plane and whose name is free."""
        return await Rebuild(self._store, self._planes, plane).run(validate_only=validate_only)


def _must_be_free(c: Any, parts: Sequence[FilePart]) -> None:
    """Raise what `Custody.register` says of objects that are ours already; plane by plane, many at a time."""
    for plane in dict.fromkeys(part.plane for part in parts):
        numbers = {part.key: part.number for part in parts if part.plane == plane}
        keys = list(numbers)
        for at in range(0, len(keys), waste.MOST_KEYS):
            page = keys[at : at + waste.MOST_KEYS]
            going = waste.among(c, plane, page)
            owners = files.owners(c, plane, page)
            for key in page:
                if key in going:
                    msg = f"{where(plane, key)} was deleted with its file, and is about to go"
                    raise NotFound(msg, plane=plane, key=key)
                if key in owners:
                    msg = f"{where(plane, key)} is a part of {owners[key]} already: copy or rename that"
                    raise InvalidSpec(msg, {f"parts[{numbers[key] - 1}]": msg}, plane=plane, key=key)
