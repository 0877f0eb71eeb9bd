"""A plane of the file servers as the machine of an agent sees it: bytes of one segment, under its grants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from typing_extensions import Buffer

from fileserver import codec
from fileserver.away.data import Data
from fileserver.away.direct import Direct
from fileserver.away.paths import Paths
from fileserver.transfer.book import Page
from fileserver.transfer.manifest import Extent as Piece
from fileserver.v1 import data_pb2
from planes import checksum
from planes.direct import Address
from planes.errors import Corrupt, NotFound
from planes.plane import Capabilities, Extent, Info, Plane, StepReceipt, Take
from planes.wrapped import WrappedPlane, WrappedUpload


class RemotePlane(WrappedPlane):
    """What an executor asks of the plane at the other end, for the parts of one segment.

    Args:
        transfer: id of the transfer.
        inner: the agent's own plane, whose limits it has; nothing else of it is used.
        page: the segment.
        grants: by part.
        data: carries the bytes.
        paths: the stores that this machine reaches itself.
        shared: it is a store, which every file server reaches.
    """

    def __init__(
        self,
        transfer: str,
        inner: Plane,
        page: Page,
        grants: Mapping[int, str],
        data: Data,
        paths: Paths,
        *,
        shared: bool,
    ) -> None:
        super().__init__(inner)
        self._name = ""
        self._transfer = transfer
        self._page = page
        self._grants = grants
        self._data = data
        self._paths = paths
        self._shared = shared
        self._versions: dict[str, str] = {}

    def called(self, name: str) -> RemotePlane:
        """The same for the plane of this name, as the file servers have it."""
        other = RemotePlane(
            self._transfer, self.inner, self._page, self._grants, self._data, self._paths, shared=self._shared
        )
        other._name = name
        return other

    @property
    def name(self) -> str:
        """Name of the plane, as the file servers have it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What an executor has to know."""
        return Capabilities(checksums=frozenset(), atomic_create=True, shared=self._shared)

    async def stat(self, key: str) -> Info:
        """The version of what was just written at once."""
        if key not in self._versions:
            msg = f"{self._name}:{key} is not known here"
            raise NotFound(msg, plane=self._name, key=key)
        return Info(key, 0, self._versions[key], datetime.now(UTC))

    async def stream(self, extent: Extent, take: Take) -> None:
        """Hand over bytes of what a part is made of."""
        e = extent
        request = data_pb2.ReadRequest(
            plane=self._name, key=e.key, version=e.version, offset=e.start, length=e.end - e.start
        )
        grant = self._grants[self._part_of(e)]

        async def fetch(direct: Direct, address: Address) -> bool:
            await direct.fetch(address, e, take)
            return True

        asked = data_pb2.SignRequest(read=request)
        if not await self._paths.go(self._name, f"{e.key}:{e.start}", lambda: self._data.sign(asked, grant), fetch):
            await self._data.read(request, grant, take)

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` with bytes of what a part is made of."""
        at = 0

        def take(data: memoryview) -> None:
            nonlocal at
            into[at : at + data.nbytes] = data
            at += data.nbytes

        await self.stream(extent, take)

    async def put(
        self,
        key: str,
        data: Buffer,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> StepReceipt:
        """Have a part written at once."""
        del upload_id, replace, content_type, metadata  # the file server knows them
        part = next(row.part.number for row in self._page.rows if row.part.key == key)
        receipt = await self.send(part, 0, 0, memoryview(data))
        self._versions[key] = receipt.etag
        return receipt

    def resume(self, token: str) -> RemoteUpload:
        """The upload of a part, whose number is the token."""
        return RemoteUpload(self, int(token))

    async def send(self, part: int, number: int, offset: int, data: memoryview) -> StepReceipt:
        """Have a step of a part stored; 0 is the part at once."""
        crc, name = checksum.compute(data), f"{self._transfer}-{part}-{number}"
        asked = data_pb2.SignRequest(write_id=name, crc64nvme=checksum.to_hex(crc))
        receipt = await self._paths.go(
            self._name,
            name,
            lambda: self._data.sign(asked, self._grants[part]),
            lambda direct, address: direct.send(address, max(number, 1), data, crc),
        )
        if receipt is not None:
            return receipt
        first = codec.WriteRequest(write_id=name, offset=offset)
        answer = await self._data.write(first, data, crc, self._grants[part])
        if answer.crc64nvme != checksum.to_hex(crc):
            msg = (
                f"step {number} of part {part} has CRC64NVME {answer.crc64nvme} as stored, {checksum.to_hex(crc)} here"
            )
            raise Corrupt(msg, part=str(part))
        return StepReceipt(max(number, 1), data.nbytes, crc, answer.etag, compared=answer.compared)

    def _part_of(self, extent: Extent) -> int:
        for row in self._page.rows:
            for p in row.part.pieces:
                if isinstance(p, Piece) and (p.plane, p.key) == (self._name, extent.key) and _holds(p, extent):
                    return row.part.number
        msg = f"no part of this segment is made of bytes {extent.start} to {extent.end} of {extent.key}"
        raise NotFound(msg, key=extent.key)


def _holds(piece: Piece, extent: Extent) -> bool:
    return piece.start <= extent.start and extent.end <= piece.end


class RemoteUpload(WrappedUpload):
    """A part in the making at the other end."""

    def __init__(self, plane: RemotePlane, part: int) -> None:
        self._plane = plane
        self._part = part

    @property
    def token(self) -> str:
        """The number of the part."""
        return str(self._part)

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Have a step stored."""
        del crc64nvme
        return await self._plane.send(self._part, number, offset, memoryview(data))
