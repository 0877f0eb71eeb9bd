"""`_manifest.json` beside the parts of a generation: what readers that do not ask us, and a rebuild, need to know.

It is made from the catalogue, a page at a time, and written last. A file that is renamed stays where it is, so its
manifest says both its name and the folder that it describes.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fileserver.catalogue import files
from fileserver.catalogue.files import Copy, FilePart, LogicalFile
from fileserver.catalogue.names import MANIFEST, folder, normalise
from fileserver.catalogue.store import Store
from fileserver.errors import InvalidSpec
from fileserver.formats import csv, fixed
from fileserver.transfer import manifest_rows
from fileserver.transfer.execute import upload_id
from fileserver.transfer.manifest import Source
from fileserver.transfer.spec import format_from_json, format_to_json
from planes import checksum
from planes.plane import Plane, StepReceipt

LARGEST: Final = 128 << 20
"""Bytes of a manifest that is still read: 100,000 parts made of 250,000 sources have less."""


# --- writing --------------------------------------------------------------------------------------------------------


async def write_manifest(
    store: Store, plane: Plane, file: LogicalFile, home: str, copy: Copy | None = None, *, hosted: bool = False
) -> None:
    """Write the manifest of a file whose parts and sources are in the catalogue into its folder; may run twice.

    One put if it is small, else an upload; no more than a step of it is held. `copy` is the one that lies there, if not
    that which the file began with. `hosted` says that keys begin with a host.
    """
    copy = copy or Copy(file.generation, file.generation, file.evidence, file.created)
    key, attempt = f"{home}/{MANIFEST}", upload_id(copy.id, 0)
    step = max(plane.limits.min_step, min(plane.limits.put_size, plane.limits.single_put))
    held = bytearray()
    text = _text(store, file, home, copy, hosted=hosted)
    async for piece in text:
        held += piece
        if len(held) > step:
            break
    else:
        await plane.put(key, held, upload_id=attempt, replace=True, content_type="application/json")
        return
    await plane.discard(key, attempt)  # what a crash in here may have left open
    async with await plane.upload(key, upload_id=attempt, replace=True, content_type="application/json") as upload:
        steps: list[StepReceipt] = []
        crc = size = 0
        while held:
            if len(held) <= step and (piece := await anext(text, b"")):
                held += piece
                continue
            now = bytes(held[:step])
            steps.append(await upload.put(len(steps) + 1, size, now))
            crc, size = checksum.compute(now, crc), size + len(now)
            del held[:step]
        await upload.commit(steps, size, crc)


async def _text(store: Store, file: LogicalFile, home: str, copy: Copy, *, hosted: bool) -> AsyncIterator[bytes]:
    """The manifest, one line a part and a source."""
    facts: dict[str, Any] = {
        "cropduster": 1,
        "name": file.name,
        "folder": home,
        "hosted": hosted,
        "generation": copy.id,
        "copy_of": copy.generation,
        "copied": copy.created,
        "created": file.created,
        "size": file.size,
        "format": file.format,
        "evidence": copy.evidence,
        "crc64nvme": None if file.crc64nvme is None else checksum.to_hex(file.crc64nvme),
    }
    yield json.dumps(facts, indent=1)[:-2].encode()
    before, after = ',\n "parts": [\n  ', 0
    while parts := await store.read(partial(files.parts, copy=copy.id, after=after)):
        yield (before + ",\n  ".join(map(_part_line, parts))).encode()
        before, after = ",\n  ", parts[-1].number
    before, after = '\n ],\n "sources": [\n  ', 0
    while sources := await store.read(partial(manifest_rows.sources, transfer=file.transfer, after=after)):
        yield (before + ",\n  ".join(map(_source_line, sources))).encode()
        before, after = ",\n  ", after + len(sources)
    yield (before if not after else "").encode() + b"\n ]\n}\n"


def _part_line(part: FilePart) -> str:
    values = {kind: checksum.to_hex(value, kind) for kind, value in part.checksums.items()}
    return json.dumps({"number": part.number, "key": part.key, "size": part.size, "checksum": values})


def _source_line(source: Source) -> str:
    return json.dumps({"plane": source.plane, "key": source.key, "size": source.size, "version": source.version})


# --- reading --------------------------------------------------------------------------------------------------------

_Size = Annotated[int, Field(ge=0, lt=2**63)]
_NO_FORMAT: Final = "its format is none that we know"


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class ManifestPart(_Strict):
    """A part as a manifest has it."""

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


class ManifestSource(_Strict):
    """A source as a manifest has it."""

    plane: str
    key: str
    size: _Size
    version: str


class ManifestFile(_Strict):
    """A manifest; what it says is checked, but for the place where it lies."""

    name: str
    folder: str = ""
    """Empty in those that were written before files were renamed: then it is made from the name."""
    hosted: bool = False
    """It lies on the first of some hosts, whose names its keys begin with; parts lie beside it, or so on another."""
    generation: Annotated[str, Field(pattern="^[0-9a-zA-Z]{1,64}$")]
    """The id of the copy that lies there."""
    copy_of: Annotated[str, Field(pattern="^[0-9a-zA-Z]{0,64}$")] = ""
    """The generation of which it is a copy; empty in manifests that were written before files could have several."""
    created: float
    copied: float = 0.0
    size: _Size
    format: dict[str, Any] | None
    evidence: Literal["compared", "pinned", "registered"]
    crc64nvme: str | None
    parts: Annotated[list[ManifestPart], Field(min_length=1)]
    sources: list[ManifestSource]

    @property
    def home(self) -> str:
        """The key of the folder that it describes, without a trailing slash."""
        return self.folder or folder(self.name, self.generation)

    @property
    def origin(self) -> str:
        """The generation of the file, which all its copies share."""
        return self.copy_of or self.generation

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
        if self.home.rpartition("/")[2] != f"~{self.generation}":
            msg = f"{self.home} is not the folder of its generation"
            raise ValueError(msg)
        if [p.number for p in self.parts] != list(range(1, len(self.parts) + 1)):
            msg = "its parts are not numbered 1, 2, …"
            raise ValueError(msg)
        keys = {p.key for p in self.parts}
        home = f"{self._on_host(self.home)}/"
        for key in keys:
            own = self._on_host(key)
            last = own.removeprefix(home)
            if not own.startswith(home) or last in {"", MANIFEST} or "/" in last:
                msg = f"{key} does not lie beside it"
                raise ValueError(msg)
        if len(keys) != len(self.parts) or sum(p.size for p in self.parts) != self.size:
            msg = "its parts do not make up the file"
            raise ValueError(msg)
        return self

    def _on_host(self, key: str) -> str:
        """A key as its host has it."""
        return key.partition("/")[2] if self.hosted else key

    def as_copy(self) -> Copy:
        """The copy that it describes."""
        return Copy(self.generation, self.origin, self.evidence, self.copied or self.created)

    def file(self) -> LogicalFile:
        """The entry of the catalogue that it describes."""
        crc = None if self.crc64nvme is None else checksum.from_hex(self.crc64nvme)
        own, facts = self.origin, (self.format, self.evidence, crc, len(self.parts))
        return LogicalFile(self.name, own, self.size, *facts, own, self.created)


def _check_hex(kind: str, text: str) -> None:
    width = checksum.WIDTH.get(kind)
    if width is None or not re.fullmatch(f"[0-9a-f]{{{2 * width}}}", text):
        msg = f"{text[:20]!r} is not a {kind[:20]} checksum"
        raise ValueError(msg)
