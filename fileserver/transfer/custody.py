"""Logical files held against their planes: register, verify, delete, rebuild. Moves no payload."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fileserver.catalogue import files
from fileserver.catalogue.files import Catalogue, FilePart, LogicalFile, now
from fileserver.catalogue.names import MANIFEST, folder, normalise
from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.errors import InvalidSpec, TargetChanged
from fileserver.formats import csv, fixed
from fileserver.transfer import ledger, survey
from fileserver.transfer.manifest import Source
from fileserver.transfer.spec import Format, Location, format_from_json, format_to_json
from planes import checksum
from planes.errors import AlreadyExists, Error, NotFound
from planes.plane import MIB, Extent, Info

_SLICE: Final = 8 * MIB
_AT_ONCE: Final = 8
_LARGEST_MANIFEST: Final = 64 * MIB


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found for one part: "read", "stored", "size", "missing" or "different"."""

    number: int
    key: str
    verdict: str
    detail: str = ""
    bytes_read: int = 0

    @property
    def ok(self) -> bool:
        """The part is what the catalogue says."""
        return self.verdict in {"read", "stored", "size"}


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a search for manifests found."""

    restored: list[str]
    present: list[str]
    skipped: list[str]


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
            NotFound: an object is not there.
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
            for part in parts:
                owner = files.owner(c, part.plane, part.key)
                if owner is not None:
                    msg = f"{where(part.plane, part.key)} is a part of {owner} already: copy or rename that"
                    raise InvalidSpec(msg, {f"parts[{part.number - 1}]": msg}, plane=part.plane, key=part.key)
            files.enter_parts(c, generation, parts)
            files.publish(c, file, overwrite=False, retire_at=0.0)

        await self._store.write(work, durable=True)
        return file

    async def rename(self, name: str, new_name: str) -> LogicalFile:
        """Give a file another name; raises FileNotFound, AlreadyExists, TargetBusy."""

        def work(c: Any) -> LogicalFile:
            ledger.refuse_busy(c, f"file:{normalise(name)}")
            ledger.refuse_busy(c, f"file:{normalise(new_name)}")
            return files.rename(c, name, new_name)

        return await self._store.write(work, durable=True)

    async def delete(
        self, name: str, *, with_parts: bool, validate_only: bool
    ) -> tuple[list[FilePart], list[FilePart]]:
        """Drop a file; returns the parts that go and those that stay because they are not ours.

        Owned parts are retired: their bytes go after the time of grace. With `with_parts` the others are deleted now.

        Raises:
            FileNotFound, TargetBusy: as they say.
            TargetChanged: the file was replaced since its parts were listed.
        """
        file = await self.catalogue.get(name)
        parts = await self.catalogue.all_parts(file.generation)
        gone = [p for p in parts if p.owned or with_parts]
        kept = [p for p in parts if not (p.owned or with_parts)]
        if validate_only:
            return gone, kept

        def work(c: Any) -> None:
            ledger.refuse_busy(c, f"file:{file.name}")
            if files.get(c, name).generation != file.generation:
                msg = f"{file.name} was replaced while it was to be deleted; look at it, and try again"
                raise TargetChanged(msg, file=file.name)
            files.drop(c, name, now() + self._retire_after)

        await self._store.write(work, durable=True)
        for part in gone:
            if not part.owned:
                await self._planes.plane(part.plane).delete(part.key)
        return gone, kept

    # --- verify -------------------------------------------------------------------------------------------------

    async def verify(self, name: str, *, read: bool) -> list[Verdict]:
        """Compare every part with the catalogue, by stored values, or (read) by reading every byte."""
        file = await self.catalogue.get(name)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(part: FilePart) -> Verdict:
            async with gate:
                return await self._verify(part, read=read)

        return list(await asyncio.gather(*map(one, await self.catalogue.all_parts(file.generation))))

    async def _verify(self, part: FilePart, *, read: bool) -> Verdict:
        try:
            info = await self._planes.plane(part.plane).stat(part.key)
        except NotFound:
            return Verdict(part.number, part.key, "missing", f"{where(part.plane, part.key)} is not there")
        if info.size != part.size:
            return Verdict(
                part.number, part.key, "different", f"{info.size} bytes are there, {part.size} are catalogued"
            )
        kind = next(iter(part.checksums), "")
        if read:
            return await self._verify_by_reading(part, info, kind or "crc64nvme")
        for known, value in part.checksums.items():
            if known in info.checksums:
                return Verdict(part.number, part.key, *_compared(known, info.checksums[known], value, "stored"))
        if part.version and info.version != part.version:
            detail = "it was touched since it was written; --read tells whether its bytes are the same"
            return Verdict(part.number, part.key, "touched", detail)
        return Verdict(part.number, part.key, "size", "the plane stores no checksum; --read compares the bytes")

    async def _verify_by_reading(self, part: FilePart, info: Info, kind: str) -> Verdict:
        plane, value, buffer = self._planes.plane(part.plane), 0, bytearray(min(_SLICE, max(part.size, 1)))
        for start in range(0, part.size, len(buffer)):
            view = memoryview(buffer)[: min(len(buffer), part.size - start)]
            await plane.read(Extent(part.key, info.version, start, start + len(view)), view)
            value = checksum.compute(view, value, kind)
        known = part.checksums.get(kind)
        if known is None:
            return Verdict(part.number, part.key, "read", "the catalogue has no checksum to compare", part.size)
        return Verdict(part.number, part.key, *_compared(kind, value, known, "read"), bytes_read=part.size)

    # --- rebuild ------------------------------------------------------------------------------------------------

    async def rebuild(self, plane: str, *, validate_only: bool) -> Rebuilt:
        """Enter every whole file again whose manifest lies on a plane and whose name is free.

        Of several generations of one name the youngest counts. A generation that is catalogued under any name is
        present; one that is garbage was deleted on purpose and is skipped.
        """
        self._planes.settings(plane)
        found: dict[str, _Manifest] = {}
        present: set[str] = set()
        skipped: list[str] = []
        async for info in self._planes.plane(plane).list():
            if not (info.key.endswith(f"/{MANIFEST}") and "/~" in info.key):
                continue
            try:
                manifest = await self._manifest(plane, info)
            except (ValueError, Error) as error:
                skipped.append(f"{info.key}: {_reason(error)}")
                continue
            name, wrong = await self._store.read(lambda c, m=manifest: _standing(c, plane, m))  # type: ignore[misc]
            if wrong:
                skipped.append(f"{info.key}: {wrong}")
            elif name:
                present.add(name)
            elif manifest.name not in found or found[manifest.name].created < manifest.created:
                found[manifest.name] = manifest
        restored = []
        for name, manifest in sorted(found.items()):
            try:
                wrong = await self._restore(plane, manifest, validate_only=validate_only)
            except Error as error:
                wrong = _reason(error)
            if wrong:
                skipped.append(f"{name}: {wrong}")
            else:
                restored.append(name)
        return Rebuilt(restored, sorted(present), skipped)

    async def _manifest(self, plane: str, info: Info) -> _Manifest:
        """The manifest of an object, if it lies where it says it belongs; raises ValueError, Error."""
        if info.size > _LARGEST_MANIFEST:
            msg = f"{info.size} bytes are too large for a manifest"
            raise ValueError(msg)
        buffer = bytearray(info.size)
        await self._planes.plane(plane).read(Extent(info.key, "", 0, info.size), memoryview(buffer))
        manifest = _Manifest.model_validate_json(bytes(buffer))
        if info.key != f"{manifest.home}/{MANIFEST}":
            msg = f"is the manifest of another place, {manifest.home}"
            raise ValueError(msg)
        return manifest

    async def _restore(self, plane: str, manifest: _Manifest, *, validate_only: bool) -> str:
        """Enter one file; returns what is wrong with it, "" if nothing is."""
        parts: list[FilePart] = []
        for p in manifest.parts:
            try:
                info = await self._planes.plane(plane).stat(p.key)
            except NotFound:
                return f"{p.key} is not there"
            values = {kind: checksum.from_hex(text) for kind, text in p.checksum.items()}
            part = FilePart(p.number, plane, p.key, p.size, info.version, values, owned=True)
            if why := survey.unlike(part, info):
                return f"{p.key} {why}"
            parts.append(part)
        if validate_only:
            return ""
        sources = [Source(s.plane, s.key, s.size, s.version, {}) for s in manifest.sources]

        def work(c: Any) -> str:
            name, wrong = _standing(c, plane, manifest)
            if wrong or name:
                return wrong or f"{name} was made meanwhile"
            files.enter_parts(c, manifest.generation, parts)
            ledger.save_sources(c, manifest.generation, sources)
            files.publish(c, manifest.file(), overwrite=False, retire_at=0.0)
            return ""

        return await self._store.write(work, durable=True)


def _standing(c: Any, plane: str, manifest: _Manifest) -> tuple[str, str]:
    """The name by which a file is in the catalogue, "" if by none, and why it may not come back, "" if it may."""
    name = files.by_generation(c, manifest.generation)
    if name is not None:
        return name, ""
    if files.discarded(c, plane, manifest.home):
        return "", "was deleted or replaced on purpose, and its objects are about to go"
    return manifest.name if files.taken(c, manifest.name) else "", ""


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"not a readable manifest: {'.'.join(map(str, wrong['loc']))} {wrong['msg']}".replace(":  ", ": ")
    return error.message if isinstance(error, Error) else str(error)


# --- the manifest beside the parts, as `finish` writes it -----------------------------------------------------------

_Size = Annotated[int, Field(ge=0, lt=2**63)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _Part(_Strict):
    number: int
    key: str
    size: _Size
    checksum: dict[str, str]

    @field_validator("checksum")
    @classmethod
    def _hex(cls, values: dict[str, str]) -> dict[str, str]:
        for kind, text in values.items():
            _check_hex(kind, text)
        return values


class _Source(_Strict):
    plane: str
    key: str
    size: _Size
    version: str


class _Manifest(_Strict):
    name: str
    generation: Annotated[str, Field(pattern="^[0-9a-zA-Z]{1,64}$")]
    created: float
    size: _Size
    format: dict[str, Any] | None
    evidence: Literal["compared", "pinned", "registered"]
    crc64nvme: str | None
    parts: Annotated[list[_Part], Field(min_length=1)]
    sources: list[_Source]

    @property
    def home(self) -> str:
        """The key of the folder that it describes, without a trailing slash."""
        return folder(self.name, self.generation)

    @field_validator("name")
    @classmethod
    def _normal(cls, name: str) -> str:
        try:
            normal = normalise(name)
        except InvalidSpec as error:
            raise ValueError(error.message) from error
        if normal != name:
            msg = f"{name!r} is not spelled as logical names are"
            raise ValueError(msg)
        return name

    @field_validator("crc64nvme")
    @classmethod
    def _hex(cls, text: str | None) -> str | None:
        if text is not None:
            _check_hex("crc64nvme", text)
        return text

    @field_validator("format")
    @classmethod
    def _format(cls, form: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            made = format_from_json(form)
            wrong = made is not None and (csv.problems(made) if isinstance(made, csv.Csv) else fixed.problems(made))
            same = format_to_json(made) == form
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(_NO_FORMAT) from error
        if wrong or not same:
            raise ValueError(_NO_FORMAT)
        return form

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Only objects beside the manifest are parts: what it says makes no foreign object ours."""
        if [p.number for p in self.parts] != list(range(1, len(self.parts) + 1)):
            msg = "its parts are not numbered 1, 2, …"
            raise ValueError(msg)
        home, keys = f"{self.home}/", {p.key for p in self.parts}
        for key in keys:
            last = key.removeprefix(home)
            if not key.startswith(home) or last in {"", MANIFEST} or "/" in last:
                msg = f"{key} does not lie beside it"
                raise ValueError(msg)
        if len(keys) != len(self.parts) or sum(p.size for p in self.parts) != self.size:
            msg = "its parts do not make up the file"
            raise ValueError(msg)
        return self

    def file(self) -> LogicalFile:
        """The entry of the catalogue that it describes."""
        crc = None if self.crc64nvme is None else checksum.from_hex(self.crc64nvme)
        own, facts = self.generation, (self.format, self.evidence, crc, len(self.parts))
        return LogicalFile(self.name, own, self.size, *facts, own, self.created)


_NO_FORMAT: Final = "its format is none that we know"


def _check_hex(kind: str, text: str) -> None:
    width = checksum.WIDTH.get(kind)
    if width is None or not re.fullmatch(f"[0-9a-f]{{{2 * width}}}", text):
        msg = f"{text[:20]!r} is not a {kind[:20]} checksum"
        raise ValueError(msg)


def _compared(kind: str, found: int, known: int, word: str) -> tuple[str, str]:
    if found == known:
        return word, ""
    return "different", f"{kind} is {checksum.to_hex(found, kind)}, catalogued is {checksum.to_hex(known, kind)}"
