"""A lost catalogue restored from the manifests on a plane. Moves no payload, and makes no foreign object ours."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

from fileserver.catalogue import files, waste
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.catalogue.names import MANIFEST
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.together import side_by_side
from fileserver.transfer import ledger, manifest_rows, survey
from fileserver.transfer.manifest import Source
from fileserver.transfer.manifest_file import LARGEST, ManifestFile, ManifestPart
from planes import checksum
from planes.errors import Error, NotFound
from planes.plane import Extent, Info

_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a search for manifests found."""

    restored: list[str]
    present: list[str]
    skipped: list[str]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """The youngest manifest of a name so far; where it lies, not what it holds."""

    key: str
    size: int
    created: tuple[float, float]
    """Of the file, and of this copy."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the catalogue says of a manifest, or "" each.

    By which name it has it, of which file it is another copy, and why it may not come back.
    """

    present: str = ""
    copy_of: str = ""
    wrong: str = ""


class Rebuild:
    """One search on one plane."""

    def __init__(self, store: Store, planes: Configured, plane: str) -> None:
        self._store = store
        self._name = plane
        planes.settings(plane)
        self._plane = planes.plane(plane)
        self._hosted = bool(planes.hosts(plane))

    async def run(self, *, validate_only: bool) -> Rebuilt:
        """Enter every whole file again whose manifest lies on the plane and whose name is free.

        Of several generations of one name the youngest counts. What is another copy of a catalogued file is entered as
        that. A copy that is catalogued under any name is present; one that is garbage was deleted on purpose and is
        skipped, and so is what a transfer of ours is making, or has given up and will remove.
        """
        found: dict[str, _Candidate] = {}
        present: set[str] = set()
        skipped: list[str] = []
        async for info in self._plane.list(left_out=lambda _: None):  # ours have names that keys can have
            if not (info.key.endswith(f"/{MANIFEST}") and "/~" in info.key):
                continue
            try:
                manifest = await self._manifest(info.key, info.size)
            except (ValueError, Error) as error:
                skipped.append(f"{info.key}: {_reason(error)}")
                continue
            standing = await self._store.read(partial(self._standing, manifest=manifest))
            name = standing.copy_of or manifest.name
            if standing.wrong:
                skipped.append(f"{info.key}: {standing.wrong}")
            elif standing.present:
                present.add(standing.present)
            elif name not in found or found[name].created < (manifest.created, manifest.copied):
                found[name] = _Candidate(info.key, info.size, (manifest.created, manifest.copied))
        restored = []
        for name, candidate in sorted(found.items()):
            try:
                manifest = await self._manifest(candidate.key, candidate.size)
                wrong = await self._restore(manifest, validate_only=validate_only)
            except (ValueError, Error) as error:
                wrong = _reason(error)
            if wrong:
                skipped.append(f"{name}: {wrong}")
            else:
                restored.append(name)
        return Rebuilt(restored, sorted(present), skipped)

    async def _manifest(self, key: str, size: int) -> ManifestFile:
        """The manifest of an object, if it lies where it says it belongs; raises ValueError, Error."""
        if size > LARGEST:
            msg = f"{size} bytes are too large for a manifest"
            raise ValueError(msg)
        buffer = bytearray(size)
        await self._plane.read(Extent(key, "", 0, size), memoryview(buffer))
        manifest = await asyncio.to_thread(ManifestFile.model_validate_json, buffer)
        if manifest.hosted != self._hosted:
            msg = f"is of a plane that {'has' if manifest.hosted else 'has no'} hosts"
            raise ValueError(msg)
        if key != f"{manifest.home}/{MANIFEST}":
            msg = f"is the manifest of another place, {manifest.home}"
            raise ValueError(msg)
        return manifest

    def _standing(self, c: Any, manifest: ManifestFile) -> _Standing:
        """What the catalogue says of a manifest."""
        known = files.by_copy(c, manifest.generation)
        if known is not None:
            return _Standing(present=known[0].name)
        file = files.by_generation(c, manifest.origin)
        if wrong := self._wrong(c, manifest, file):
            return _Standing(wrong=wrong)
        if file is None:
            return _Standing(present=manifest.name if files.taken(c, manifest.name) else "")
        return _Standing(copy_of=file.name)

    def _wrong(self, c: Any, manifest: ManifestFile, file: LogicalFile | None) -> str:
        """Why what a manifest describes may not come back; `file` is the one of which it says to be another copy."""
        if waste.discarded(c, self._name, manifest.home):
            return "was deleted or replaced on purpose, and its objects are about to go"
        if ledger.unpublished(c, manifest.generation):
            return f"the transfer {manifest.generation} has not published it: what it left goes with it"
        if file is None:
            return ""
        if (file.size, file.part_count) != (manifest.size, len(manifest.parts)):
            return f"is not a copy of {file.name}, though it says so"
        if any(files.planes_of(c, copy.id) == [self._name] for copy in files.copies(c, file.generation)):
            return f"{file.name} has another copy on this plane"
        return ""

    async def _restore(self, manifest: ManifestFile, *, validate_only: bool) -> str:
        """Enter one file; returns what is wrong with it, "" if nothing is."""
        parts: dict[int, FilePart] = {}
        wrongs: dict[int, str] = {}

        async def look(p: ManifestPart) -> None:
            if wrongs:
                return
            found = await self._part(p)
            if isinstance(found, FilePart):
                parts[p.number] = found
            else:
                wrongs[p.number] = found

        await side_by_side(manifest.parts, look, _AT_ONCE)
        if wrongs:
            return wrongs[min(wrongs)]
        if validate_only:
            return ""
        sources = [Source(s.plane, s.key, s.size, s.version, {}) for s in manifest.sources]

        def work(c: Any) -> str:
            standing = self._standing(c, manifest)
            if standing.wrong or standing.present:
                return standing.wrong or f"{standing.present} was made meanwhile"
            if standing.copy_of and (other := _cut_elsewhere(c, manifest)):
                return f"is not a copy of {standing.copy_of}, though it says so: part {other} is another"
            files.enter_parts(c, manifest.generation, [parts[p.number] for p in manifest.parts])
            if standing.copy_of:
                files.publish_copy(c, manifest.as_copy(), 0.0)
                return ""
            manifest_rows.save_sources(c, manifest.origin, sources)
            files.publish(c, manifest.file(), overwrite=False, retire_at=0.0, copy=manifest.as_copy())
            return ""

        return await self._store.write(work, durable=True)

    async def _part(self, p: ManifestPart) -> FilePart | str:
        """A part as it lies there, or what is wrong with it."""
        try:
            info: Info = await self._plane.stat(p.key)
        except NotFound:
            return f"{p.key} is not there"
        values = {kind: checksum.from_hex(text) for kind, text in p.checksum.items()}
        part = FilePart(p.number, self._name, p.key, p.size, info.version, values, owned=True)
        why = survey.unlike(part, info)
        return f"{p.key} {why}" if why else part


def _cut_elsewhere(c: Any, manifest: ManifestFile) -> int:
    """The first part that is not that of the file, by size or checksum; 0 if there is none.

    Parts of one number are read in each other's place.
    """
    known, *_ = files.copies(c, manifest.origin)
    for one, p in zip(files.parts(c, known.id, limit=None), manifest.parts, strict=True):
        values = {kind: checksum.to_hex(value, kind) for kind, value in one.checksums.items()}
        if one.size != p.size or any(p.checksum.get(kind, text) != text for kind, text in values.items()):
            return p.number
    return 0


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"not a readable manifest: {'.'.join(map(str, wrong['loc']))} {wrong['msg']}".replace(":  ", ": ")
    return error.message if isinstance(error, Error) else str(error)
