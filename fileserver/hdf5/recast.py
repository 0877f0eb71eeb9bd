"""A linked domain whose sources have moved: the same domain once more, under another root, with other links.

A server keeps what it has read of a domain for an hour, so nothing of one that it knows is ever changed in its bucket.
Instead its objects are written again under a fresh root, which then takes the name of the old one (see
`fileserver.hdf5.hsds.publish`). Ids of a domain's objects share their first 16 digits: another root means other digits
in the same places, in JSON and in references alike.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import uuid4

from fileserver.hdf5 import describe, ids
from fileserver.hdf5.hsds import acls, domains, publish
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.types import Json
from fileserver.hdf5.unpublished import forget
from fileserver.together import side_by_side
from planes.errors import Refused
from planes.plane import Extent, Info, Plane

_WIDTH: Final = 8
_NAMED: Final = 3  # links that an error names
_SKIPPED: Final = (".info.json", ".summary.json")  # what the server counted; it counts anew
_REFERENCE: Final = b'"H5T_REFERENCE"'


@dataclass(frozen=True, slots=True)
class Relinked:
    """A domain that leads to other files now."""

    root: str
    datasets: int
    """Whose links are others now."""


@dataclass(slots=True)
class Relinking:
    """One domain.

    Args:
        connection: to the server.
        bucket: the plane that is its bucket.
        old: how the links begin that are to change, like `s3://bucket/folder/`.
        new: how they begin afterwards.
    """

    connection: Connection
    bucket: Plane
    old: str
    new: str
    datasets: int = 0
    kept: set[str] = field(default_factory=set)
    """Links that do not begin so."""
    _references: set[str] = field(default_factory=set)
    """Folders of datasets whose data hold ids."""

    async def run(self, path: str, created: float) -> Relinked:
        """Let the domain at `path` lead to other files; readers see the old links or the new ones, never both.

        Raises:
            Refused: no link begins so; or data hold compressed references, which cannot be rewritten.
        """
        there = await domains.stat(self.connection, path)
        await domains.flush(self.connection, path)
        load = uuid4().hex
        root, staging = ids.root_id(load), f"{path}.relinking-{load[:8]}"
        try:
            await self._copy(there.root, root, load)
            self._changed(path)
            entries = {user: _stored(each) for user, each in (await acls.read(self.connection, path)).items()}
            body = describe.domain_json(root, there.owner, created, entries)
            await self.bucket.put(f"{staging[1:]}/.domain.json", body, upload_id=f"{load}-staging")
            plan = await publish.prepare(self.connection, path, staging, overwrite=True)
            await publish.publish(self.connection, plan)
        except BaseException:
            await forget(self.connection, self.bucket, path, root, staging, replaces=True)
            raise
        return Relinked(root, self.datasets)

    async def _copy(self, old: str, new: str, load: str) -> None:
        """Descriptions first: they tell which data hold references."""
        swap = partial(_swapped, old=old, new=new)
        found = [info async for info in self.bucket.list(ids.folder(old))]
        described = [i for i in found if i.key.endswith(".json") and not i.key.endswith(_SKIPPED)]
        data = [info for info in found if not info.key.endswith(".json")]

        async def description(info: Info) -> None:
            await self._put(info, self._described(info, swap(await self._bytes(info))), swap, load)

        async def chunk(info: Info) -> None:
            await self._chunk(info, swap, load)

        await side_by_side(described, description, _WIDTH)
        if self.datasets:
            await side_by_side(data, chunk, _WIDTH)

    def _described(self, info: Info, data: bytes) -> bytes:
        if _REFERENCE in data:
            self._references.add(info.key.rpartition("/")[0])
        if not info.key.endswith(".dataset.json"):
            return data
        body: dict[str, Json] = json.loads(data)
        layout = _layout(body)
        uri = layout.get("file_uri") if layout is not None else None
        if layout is None or not isinstance(uri, str):
            return data
        if not uri.startswith(self.old):
            self.kept.add(uri)
            return data
        layout["file_uri"] = self.new + uri.removeprefix(self.old)
        self.datasets += 1
        return json.dumps(body).encode()

    async def _chunk(self, info: Info, swap: partial[bytes], load: str) -> None:
        if info.key.rpartition("/")[0] in self._references:
            await self._put(info, self._rewritten(info, await self._bytes(info), swap), swap, load)
            return
        ticket = self.bucket.copy_ticket(info)
        if ticket is not None and info.size <= self.bucket.limits.whole_copy and ticket.kind != "posix":
            key, attempt = swap(info.key.encode()).decode(), f"{load}-{zlib.crc32(info.key.encode()):08x}"
            await self.bucket.copy(key, ticket, upload_id=attempt, replace=True)
        else:
            await self._put(info, await self._bytes(info), swap, load)

    def _rewritten(self, info: Info, data: bytes, swap: partial[bytes]) -> bytes:
        try:
            return zlib.compress(swap(zlib.decompress(data)))
        except zlib.error:
            pass  # it is not compressed, or by something else
        found = swap(data)
        if found == data and any(data):
            msg = f"{info.key} in {self.bucket.name} holds references that cannot be rewritten: ingest the file again"
            raise Refused(msg, plane=self.bucket.name, key=info.key)
        return found

    async def _put(self, info: Info, data: bytes, swap: partial[bytes], load: str) -> None:
        key, attempt = swap(info.key.encode()).decode(), f"{load}-{zlib.crc32(info.key.encode()):08x}"
        await self.bucket.put(key, data, upload_id=attempt, replace=True)

    async def _bytes(self, info: Info) -> bytes:
        data = bytearray(info.size)
        await self.bucket.read(Extent(info.key, info.version, 0, info.size), memoryview(data))
        return bytes(data)

    def _changed(self, path: str) -> None:
        if not self.datasets:
            known = ", ".join(sorted(self.kept)[:_NAMED]) or "it has no links at all"
            msg = f"no link of {show(path)} begins with {self.old} (there are: {known})"
            raise Refused(msg, hsds=self.connection.name, domain=show(path))


def _stored(each: acls.Permissions) -> Mapping[str, bool]:
    """Permissions as HSDS stores them."""
    return {
        "create": each.create,
        "read": each.read,
        "update": each.update,
        "delete": each.delete,
        "readACL": each.read_acl,
        "updateACL": each.update_acl,
    }


def _layout(body: dict[str, Json]) -> dict[str, Json] | None:
    properties = body.get("creationProperties")
    layout = properties.get("layout") if isinstance(properties, dict) else None
    return layout if isinstance(layout, dict) else None


def _swapped(data: bytes, *, old: str, new: str) -> bytes:
    """Ids of the old root's objects, and keys, as those of the new one's; of the same length."""
    data = data.replace(old[2:].encode(), new[2:].encode())
    for joint in ("-", "/"):  # in ids; in keys
        data = data.replace(f"{old[2:19]}{joint}".encode(), f"{new[2:19]}{joint}".encode())
    return data
