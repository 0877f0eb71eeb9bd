"""A plane of the file servers as the machine of an agent sees it: bytes of one segment, under its grants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

import grpc
from typing_extensions import Buffer

from fileserver import codec
from fileserver.errors import Cancelled, ServerBusy
from fileserver.grants import METADATA_KEY
from fileserver.status import from_call
from fileserver.transfer.book import Page
from fileserver.transfer.manifest import Extent as Piece
from fileserver.v1 import data_pb2
from planes import checksum
from planes.errors import Corrupt, Error, NotFound, OutOfRange, Throttled, Unavailable
from planes.plane import MIB, Capabilities, Extent, Info, Plane, StepReceipt, Take
from planes.threads import Stop, Threads
from planes.wrapped import WrappedPlane, WrappedUpload

T = TypeVar("T")

MESSAGE: Final = MIB
"""Bytes of data in one message."""
SILENT: Final = 120.0
"""Seconds that a call for one step may take longer than its bytes need at the slowest rate that counts as alive."""
_SLOWEST: Final = 64 * 1024  # bytes a second
_READ: Final = "/fileserver.v1.DataService/Read"
_WRITE: Final = "/fileserver.v1.DataService/Write"
_QUERY: Final = "/fileserver.v1.DataService/QueryWrite"


class Call(Protocol):
    """A call under way, as far as it can be ended."""

    def cancel(self) -> object:
        """End it."""
        ...


class Data:
    """The calls that carry payload, driven from threads.

    Args:
        channel: to the file servers; ours to use, not to close.
        count: calls at once.
    """

    def __init__(self, channel: grpc.Channel, count: int) -> None:
        self._threads = Threads("data", count)
        read = channel.unary_stream(_READ, data_pb2.ReadRequest.SerializeToString, codec.decode_read)
        write = channel.stream_stream(_WRITE, codec.encode_write, data_pb2.WriteResponse.FromString)
        self._read, self._write = read, write
        self._query = channel.unary_unary(
            _QUERY, data_pb2.QueryWriteRequest.SerializeToString, data_pb2.QueryWriteResponse.FromString
        )
        self._begun: set[str] = set()
        """Writes that broke, or are under way."""

    def close(self) -> None:
        """Let the threads go."""
        self._threads.close()

    async def read(self, request: data_pb2.ReadRequest, grant: str, take: Take) -> None:
        """Hand over the bytes of a request in order; every message is held against its checksum.

        Raises:
            Corrupt: it differs, or more or less came than was asked for.
        """

        def work(_stop: Stop, keep: Callable[[Call], None]) -> None:
            call = self._read(request, timeout=_patience(request.length), metadata=((METADATA_KEY, grant),))
            keep(call)
            at, end = request.offset, request.offset + request.length
            for answer in call:
                data = memoryview(answer.data).cast("B")
                if answer.offset != at or at + data.nbytes > end:
                    msg = f"the file server sent bytes at {answer.offset} of {request.key} where {at} was due"
                    raise Corrupt(msg, key=request.key)
                if checksum.compute(data, 0, "crc32c") != answer.crc32c:
                    msg = f"{data.nbytes} bytes at {at} of {request.key} came with another checksum"
                    raise Corrupt(msg, key=request.key)
                take(data)
                at += data.nbytes
            if at != end:
                msg = f"the file server ended {request.key} at {at} where {end} was due"
                raise Corrupt(msg, key=request.key)

        await self._run(work)

    async def write(self, first: codec.WriteRequest, data: memoryview, crc: int, grant: str) -> data_pb2.WriteResponse:
        """Have a step stored, whose first message says which; one that broke goes on with what the server misses.

        The last answer.
        """
        name, held = first.write_id, 0
        if name in self._begun:
            asked = await self.query(name, grant)
            if asked.finished:
                self._begun.discard(name)
                return data_pb2.WriteResponse(
                    persisted_size=asked.persisted_size,
                    finished=True,
                    crc64nvme=asked.crc64nvme,
                    etag=asked.etag,
                    compared=asked.compared,
                )
            held = min(asked.persisted_size, data.nbytes)
        self._begun.add(name)
        try:
            answer = await self._send(first, data, held, crc, grant)
        except OutOfRange:
            if not held:
                raise
            answer = await self._send(first, data, 0, crc, grant)  # another file server has what that one held
        self._begun.discard(name)
        return answer

    async def query(self, name: str, grant: str) -> data_pb2.QueryWriteResponse:
        """How much of a write the file server holds."""

        def work(_stop: Stop, keep: Callable[[Call], None]) -> data_pb2.QueryWriteResponse:
            asked = data_pb2.QueryWriteRequest(write_id=name)
            call = self._query.future(asked, timeout=SILENT, metadata=((METADATA_KEY, grant),))
            keep(call)
            answer: data_pb2.QueryWriteResponse = call.result()
            return answer

        return await self._run(work)

    async def _send(
        self, first: codec.WriteRequest, data: memoryview, held: int, crc: int, grant: str
    ) -> data_pb2.WriteResponse:
        """Send what is behind the first `held` bytes of a step in one stream."""

        def work(_stop: Stop, keep: Callable[[Call], None]) -> data_pb2.WriteResponse:
            sent = _messages(first, data, held, crc)
            call = self._write(sent, timeout=_patience(data.nbytes - held), metadata=((METADATA_KEY, grant),))
            keep(call)
            answer = data_pb2.WriteResponse()
            for answer in call:  # noqa: B007  # the last one counts
                pass
            if not answer.finished or answer.persisted_size != data.nbytes:
                msg = f"the file server ended the write {first.write_id} without storing it"
                raise Unavailable(msg)
            return answer

        return await self._run(work)

    async def _run(self, work: Callable[[Stop, Callable[[Call], None]], T]) -> T:
        """Run a call in a thread; who is cancelled cancels it, and waits until its thread has let go."""
        calls: list[Call] = []
        running = asyncio.ensure_future(self._threads.run(lambda stop: work(stop, calls.append)))
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            for call in calls:
                call.cancel()
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()
            raise
        try:
            return running.result()
        except grpc.RpcError as failure:
            raise _told(failure) from None


def _messages(first: codec.WriteRequest, data: memoryview, begin: int, crc: int) -> Iterator[codec.WriteRequest]:
    """A step from its byte `begin` on."""
    message, at = first, begin
    while True:
        view = data[at : at + MESSAGE]
        last = at + MESSAGE >= data.nbytes
        yield replace(
            message,
            offset=first.offset + at,
            data=view,
            crc32c=checksum.compute(view, 0, "crc32c"),
            finish=last,
            crc64nvme=checksum.to_hex(crc) if last else "",
        )
        if last:
            return
        message, at = codec.WriteRequest(), at + MESSAGE


def _told(failure: grpc.RpcError) -> Error:
    """What a call ended with; busy is not broken, and a connection that broke may be there again."""
    error = from_call(failure)
    if isinstance(error, ServerBusy):
        return Throttled(error.message, retry_after=error.retry_after)
    if isinstance(error, Cancelled):  # by nobody here: the server, or what is between
        return Unavailable(error.message)
    return error


def _patience(size: int) -> float:
    return SILENT + size / _SLOWEST


class RemotePlane(WrappedPlane):
    """What an executor asks of the plane at the other end, for the parts of one segment.

    Args:
        transfer: id of the transfer.
        inner: the agent's own plane, whose limits it has; nothing else of it is used.
        page: the segment.
        grants: by part.
        data: carries the bytes.
        shared: it is a store, which every file server reaches.
    """

    def __init__(
        self, transfer: str, inner: Plane, page: Page, grants: Mapping[int, str], data: Data, *, shared: bool
    ) -> None:
        super().__init__(inner)
        self._name = ""
        self._transfer = transfer
        self._page = page
        self._grants = grants
        self._data = data
        self._shared = shared
        self._versions: dict[str, str] = {}

    def called(self, name: str) -> RemotePlane:
        """The same for the plane of this name, as the file servers have it."""
        other = RemotePlane(self._transfer, self.inner, self._page, self._grants, self._data, shared=self._shared)
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
        await self._data.read(request, self._grants[self._part_of(e)], take)

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
        crc = checksum.compute(data)
        first = codec.WriteRequest(write_id=f"{self._transfer}-{part}-{number}", offset=offset)
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
