"""Logical files held against their planes: register, verify, delete, rebuild. Moves no payload."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fileserver.catalogue import files
from fileserver.catalogue.files import Catalogue, FilePart, LogicalFile, now
from fileserver.catalogue.names import MANIFEST, folder, normalise
from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.transfer import ledger, survey
from fileserver.transfer.manifest import Source
from fileserver.transfer.spec import Format, Location, format_to_json
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
        """
        file = await self.catalogue.get(name)
        parts = await self.catalogue.all_parts(file.generation)
        gone = [p for p in parts if p.owned or with_parts]
        kept = [p for p in parts if not (p.owned or with_parts)]
        if validate_only:
            return gone, kept

        def work(c: Any) -> None:
            ledger.refuse_busy(c, f"file:{file.name}")
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

        Of several generations of one name the youngest counts.
        """
        self._planes.settings(plane)
        found: dict[str, dict[str, Any]] = {}
        skipped: list[str] = []
        async for info in self._planes.plane(plane).list():
            if info.key.endswith(f"/{MANIFEST}") and "/~" in info.key:
                manifest = await self._manifest(plane, info, skipped)
                known = found.get(manifest["name"]) if manifest else None
                if manifest and (known is None or known["created"] < manifest["created"]):
                    found[manifest["name"]] = manifest
        restored, present = [], []
        for name, manifest in sorted(found.items()):
            if await self._store.read(lambda c, name=name: files.taken(c, name)):  # type: ignore[misc]
                present.append(name)
                continue
            wrong = await self._restore(plane, manifest, validate_only=validate_only)
            if wrong:
                skipped.append(f"{name}: {wrong}")
            else:
                restored.append(name)
        return Rebuilt(restored, present, skipped)

    async def _manifest(self, plane: str, info: Info, skipped: list[str]) -> dict[str, Any] | None:
        """A manifest that lies where it says it belongs, or None with a reason."""
        try:
            if info.size > _LARGEST_MANIFEST:
                skipped.append(f"{info.key}: {info.size} bytes are too large for a manifest")
                return None
            buffer = bytearray(info.size)
            await self._planes.plane(plane).read(Extent(info.key, "", 0, info.size), memoryview(buffer))
            manifest: dict[str, Any] = json.loads(buffer)
            parts = [int(p["number"]) for p in manifest["parts"]]
            home = folder(normalise(manifest["name"]), manifest["generation"])
            if info.key != f"{home}/{MANIFEST}" or parts != list(range(1, len(parts) + 1)):
                skipped.append(f"{info.key}: does not describe the files beside it")
                return None
            float(manifest["created"])
        except (ValueError, KeyError, TypeError, Error) as error:
            skipped.append(f"{info.key}: not a readable manifest ({type(error).__name__})")
            return None
        return manifest

    async def _restore(self, plane: str, manifest: dict[str, Any], *, validate_only: bool) -> str:
        """Enter one file; returns what is wrong with it, "" if nothing is."""
        name, generation = manifest["name"], manifest["generation"]
        parts: list[FilePart] = []
        for p in manifest["parts"]:
            try:
                info = await self._planes.plane(plane).stat(p["key"])
            except NotFound:
                return f"{p['key']} is not there"
            if info.size != p["size"]:
                return f"{p['key']} has {info.size} bytes instead of {p['size']}"
            values = {kind: checksum.from_hex(text) for kind, text in p["checksum"].items()}
            parts.append(FilePart(p["number"], plane, p["key"], p["size"], info.version, values, owned=True))
        if validate_only:
            return ""
        crc = manifest["crc64nvme"]
        file = LogicalFile(
            name,
            generation,
            sum(p.size for p in parts),
            manifest["format"],
            manifest["evidence"],
            None if crc is None else checksum.from_hex(crc),
            len(parts),
            generation,
            manifest["created"],
        )
        sources = [Source(s["plane"], s["key"], s["size"], s["version"], {}) for s in manifest["sources"]]

        def work(c: Any) -> None:
            files.enter_parts(c, generation, parts)
            ledger.save_sources(c, generation, sources)
            files.forget_garbage(c, [(p.plane, p.key) for p in parts])
            files.publish(c, file, overwrite=False, retire_at=0.0)

        await self._store.write(work, durable=True)
        return ""


def _compared(kind: str, found: int, known: int, word: str) -> tuple[str, str]:
    if found == known:
        return word, ""
    return "different", f"{kind} is {checksum.to_hex(found, kind)}, catalogued is {checksum.to_hex(known, kind)}"
