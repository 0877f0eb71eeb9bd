"""What one object of a sync proves: both ends compared, by stored checksums or by reading. Writes nothing."""

from __future__ import annotations

from typing import Final

from typing_extensions import Buffer

from fileserver.configured import Configured, where
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.live import Live
from fileserver.transfer.spec import Sync
from fileserver.transfer.sync_plan import folder
from fileserver.transfer.sync_rows import Item
from planes import checksum
from planes.errors import Changed, Corrupt
from planes.plane import KIB, MIB, Extent, Info, Plane, StepReceipt

_SAMPLE: Final = 4 * KIB
_READ: Final = 8 * MIB


class Held:
    """The two ends of one sync, held against each other object by object."""

    def __init__(self, planes: Configured, buffers: Buffers, sync: Sync, live: Live, *, verify_read: bool) -> None:
        self._source, self._target = planes.plane(sync.source.plane), planes.plane(sync.target.plane)
        self._from, self._to = folder(sync.source), folder(sync.target)
        self._origin, self._name = sync.source.plane, sync.target.plane
        self._checksum = sync.checksum
        self._buffers = buffers
        self._live = live
        self._verify = verify_read

    async def unchanged(self, item: Item) -> Info:
        """The facts of the source.

        Whatever is overwritten between its last byte was read and it is seen at the target looks older than its copy to
        the next sync, so it is looked at once more.

        Raises:
            Changed: it is not of the version that was listed any more.
        """
        info = await self._source.stat(self._from + item.key)
        if info.version.split(" ")[0] != item.version.split(" ")[0]:
            msg = f"{where(self._origin, info.key)} has changed since it was listed"
            raise Changed(msg, plane=self._origin, key=info.key)
        return info

    async def is_as_stored(self, item: Item, data: Buffer, info: Info | None) -> bool:
        """Whether all bytes of an object, as read, are what was stored with it before; False where nothing was.

        `info` are its facts if they are known: a small object whose version is its MD5 needs none.

        Raises:
            Corrupt: they are not.
        """
        if not item.size or not self._source.capabilities.checksums:
            return False
        if info is None:
            if item.size <= MIB and checksum.is_digest(item.version, data):
                return True
            info = await self.unchanged(item)
        kind = next((kind for kind in checksum.WIDTH if kind in info.checksums), "")
        if not kind:
            return False
        mine, its = checksum.compute(data, kind=kind), info.checksums[kind]
        if mine != its:
            read, stored = checksum.to_hex(mine, kind), checksum.to_hex(its, kind)
            words = f"{kind} {read} as read, {stored} as stored with it; run the sync again"
            msg = f"{where(self._origin, info.key)}: {words}"
            raise Corrupt(msg, plane=self._origin, key=info.key, read=read, stored=stored)
        return True

    async def is_source(self, item: Item, receipt: StepReceipt) -> bool:
        """Whether what a provider says of its copy equals what was stored with the source before."""
        if receipt.crc64nvme is None or not self._source.capabilities.checksums:
            return False
        info = await self._source.stat(self._from + item.key)
        if info.version.split(" ")[0] != item.version.split(" ")[0]:
            return False
        return self.hold_against(info, receipt, self._to + item.key)

    def hold_against(self, info: Info, receipt: StepReceipt, key: str) -> bool:
        """Whether a source's stored checksum could be compared with what was written as `key`.

        Raises:
            Corrupt: it differs.
        """
        mine, its = receipt.crc64nvme, info.checksums.get("crc64nvme")
        if mine is not None and its is not None and mine != its:
            raise self._differs(key, checksum.to_hex(mine), checksum.to_hex(its))
        return self._target.capabilities.confirms and mine is not None and its is not None

    async def same(self, item: Item) -> bool:
        """Whether both ends hold the same bytes, by checksums: stored ones, else of the bytes that lie nearer."""
        here = await self._source.stat(self._from + item.key)
        there = await self._target.stat(self._to + item.key)
        if here.size != there.size:
            return False
        kinds = [kind for kind in checksum.WIDTH if kind in here.checksums or kind in there.checksums]
        kinds.sort(key=lambda kind: not (kind in here.checksums and kind in there.checksums))
        if not kinds and not self._checksum:
            return False
        kind = kinds[0] if kinds else "crc64nvme"
        mine = here.checksums.get(kind)
        its = there.checksums.get(kind)
        mine = await self._sum(self._source, here, kind) if mine is None else mine
        its = await self._sum(self._target, there, kind) if its is None else its
        return mine == its

    async def look(self, item: Item) -> bool:
        """Compare the first and last 4 KiB of both ends, or all of them; whether it was all.

        Raises:
            Corrupt: they differ.
        """
        size = item.size
        there = await self._target.stat(self._to + item.key)
        here = Info(self._from + item.key, size, item.version, there.modified)
        if there.size != size:
            raise self._differs(there.key, f"{there.size} bytes", f"{size} bytes")
        whole = self._verify or size <= 2 * _SAMPLE
        ranges = [(0, size)] if whole else [(0, _SAMPLE), (size - _SAMPLE, size)]
        for start, end in ranges:
            mine = await self._sum(self._target, there, "crc64nvme", start, end)
            its = await self._sum(self._source, here, "crc64nvme", start, end)
            if mine != its:
                raise self._differs(there.key, checksum.to_hex(mine), checksum.to_hex(its))
        return whole

    async def _sum(self, plane: Plane, info: Info, kind: str, start: int = 0, end: int | None = None) -> int:
        """The checksum of bytes [start, end) of an object, read for that alone."""
        total, end = 0, info.size if end is None else end
        for low in range(start, end, _READ):
            high = min(low + _READ, end)
            async with self._buffers.take(high - low) as buffer:
                await plane.read(Extent(info.key, info.version, low, high), buffer)
                total = checksum.compute(buffer, total, kind)
            self._live.checked += high - low
        return total

    def _differs(self, key: str, written: str, source: str) -> Corrupt:
        msg = f"{where(self._name, key)}: {written} as written, {source} as the source says; run the sync again"
        return Corrupt(msg, key=key, written=written, source=source)
