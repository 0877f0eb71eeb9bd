"""A domain's objects once more, under another root, inside of the bucket.

A server keeps what it has read of a domain for an hour, so nothing of one that it knows is ever changed in its bucket.
Instead its objects are written again under a fresh root, which then takes the name of the old one (see
`fileserver.hdf5.hsds.publish`). Ids of a domain's objects share their first 16 digits: another root means other digits
in the same places, in JSON and in references alike.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fileserver.hdf5 import ids
from fileserver.hdf5.types import Json
from fileserver.together import side_by_side
from planes.errors import Refused
from planes.plane import Extent, Info, Plane

_WIDTH: Final = 8
_BATCH: Final = 1000  # keys that are held at a time
_SKIPPED: Final = (".info.json", ".summary.json")  # what the server counted; it counts anew
_REFERENCE: Final = '"H5T_REFERENCE"'
_SHUFFLE: Final = "H5Z_FILTER_SHUFFLE"


@dataclass(slots=True)
class Carrying:
    """Carries one domain to another root.

    Args:
        bucket: the plane that is the server's bucket.
        old: root of the domain.
        new: root that its objects get.
        load: a text that no other load has, of letters, digits, / and -.
        has: whether an object is there already, by its key.
    """

    bucket: Plane
    old: str
    new: str
    load: str
    has: Callable[[str], bool] = lambda _: False
    carried: int = 0
    """Bytes that went through us."""
    copied: int = 0
    """Bytes that the provider copied."""
    _references: dict[str, bool] = field(default_factory=dict)
    """Folders of datasets whose data hold ids, and whether their bytes are shuffled."""

    def swap(self, data: bytes) -> bytes:
        """Ids and keys of the old root's objects as those of the new one's; of the same length."""
        return swapped(data, old=self.old, new=self.new)

    async def descriptions(self, change: Callable[[str, bytes], bytes]) -> None:
        """Write all that describes objects; `change` gets a key and what was there, both with the old ids."""
        found = [i async for i in self.bucket.list(ids.folder(self.old)) if i.key.endswith(".json")]

        async def one(info: Info) -> None:
            data = await self._bytes(info)
            if info.key.endswith(".dataset.json"):
                self._look(info.key.rpartition("/")[0], json.loads(data))
            await self._put(info, self.swap(change(info.key, data)))

        await side_by_side([info for info in found if not info.key.endswith(_SKIPPED)], one, _WIDTH)

    async def data(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Write all chunks, behind the descriptions, which tell which of them hold references.

        Raises:
            Refused: some hold references that cannot be rewritten.
        """
        batch: list[Info] = []
        async for info in self.bucket.list(ids.folder(self.old)):
            if not info.key.endswith(".json") and wanted(info.key) and not self.has(self._key(info)):
                batch.append(info)
            if len(batch) == _BATCH:
                await side_by_side(batch, self._chunk, _WIDTH)
                batch = []
        await side_by_side(batch, self._chunk, _WIDTH)

    def _look(self, folder: str, body: dict[str, Json]) -> None:
        if _REFERENCE in json.dumps(body["type"]):
            self._references[folder] = _SHUFFLE in json.dumps(body.get("creationProperties"))

    async def _chunk(self, info: Info) -> None:
        if info.key.rpartition("/")[0] in self._references:
            await self._put(info, self._rewritten(info, await self._bytes(info)))
            return
        ticket = self.bucket.copy_ticket(info)
        if ticket is not None and info.size <= self.bucket.limits.whole_copy and ticket.kind != "posix":
            await self.bucket.copy(self._key(info), ticket, upload_id=self._attempt(info), replace=True)
            self.copied += info.size
        else:
            await self._put(info, await self._bytes(info))

    def _rewritten(self, info: Info, data: bytes) -> bytes:
        is_shuffled = self._references[info.key.rpartition("/")[0]]
        try:
            plain, packed = zlib.decompress(data), True
        except zlib.error:  # it is not compressed, or by something else
            plain, packed = data, False
        found = self.swap(plain)
        if any(plain) and (is_shuffled or (found == plain and not packed)):
            msg = f"{info.key} in {self.bucket.name} holds references that cannot be rewritten: ingest the file again"
            raise Refused(msg, plane=self.bucket.name, key=info.key)
        return zlib.compress(found) if packed else found

    async def _put(self, info: Info, data: bytes) -> None:
        await self.bucket.put(self._key(info), data, upload_id=self._attempt(info), replace=True)
        self.carried += len(data)

    def _key(self, info: Info) -> str:
        return self.swap(info.key.encode()).decode()

    def _attempt(self, info: Info) -> str:
        return f"{self.load.replace('/', '-')}-{zlib.crc32(info.key.encode()):08x}"

    async def _bytes(self, info: Info) -> bytes:
        data = bytearray(info.size)
        await self.bucket.read(Extent(info.key, info.version, 0, info.size), memoryview(data))
        return bytes(data)


def swapped(data: bytes, *, old: str, new: str) -> bytes:
    """Ids of the old root's objects, and keys, as those of the new one's; of the same length."""
    data = data.replace(old[2:].encode(), new[2:].encode())
    for joint in ("-", "/"):  # in ids; in keys
        data = data.replace(f"{old[2:19]}{joint}".encode(), f"{new[2:19]}{joint}".encode())
    return data
