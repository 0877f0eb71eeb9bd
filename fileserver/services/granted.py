"""DataService for who has a grant: the bytes that it names, no others. Without one, what `data` answers, or nothing.

Each call is looked at anew, in the store: the part must still be in the making, by the same upload, and its transfer
must not have ended nor be asked to stop. So a grant can be used again, and never afterwards.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import grpc
from grpc import aio

from fileserver import codec
from fileserver.calls import Context, Handler, send
from fileserver.catalogue.store import Store
from fileserver.errors import CallerDenied, InvalidSpec, TransferNotFound
from fileserver.grants import METADATA_KEY, Direction, Grant, Keys, fingerprint
from fileserver.services.data import SERVICE, DataServicer
from fileserver.transfer import ledger, manifest_rows, routes
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.described import described
from fileserver.transfer.execute import upload_id
from fileserver.transfer.manifest import Extent
from fileserver.transfer.record import PartRow, Plan
from fileserver.transfer.survey import Planes
from fileserver.v1 import data_pb2
from planes import checksum
from planes.errors import Corrupt, OutOfRange, Unavailable, Unsupported
from planes.plane import StepReceipt

SILENT: Final = 60.0
"""Seconds between two messages of a write, after which its memory is wanted for others."""

_STEP: Final = re.compile(r"([0-9A-Za-z]{1,32})-([0-9]{1,9})-([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class _Open:
    """A part in the making that a grant is for."""

    grant: Grant
    plan: Plan
    row: PartRow


@dataclass(frozen=True, slots=True)
class _Due:
    """A step that is to be written."""

    name: str
    number: int
    """0: the part whole, by one put."""
    offset: int
    size: int


class GrantedData:
    """Bytes on the wire, in and out, under grants.

    Args:
        keys: tell grants from other text.
        store: where parts are looked up.
        planes: the configured planes.
        buffers: the memory for steps.
        data: answers reads, and on the internal address calls without a grant.
        inside: this is for the internal address.
    """

    def __init__(
        self, keys: Keys, store: Store, planes: Planes, buffers: Buffers, data: DataServicer, *, inside: bool
    ) -> None:
        self._keys = keys
        self._store = store
        self._planes = planes
        self._buffers = buffers
        self._data = data
        self._inside = inside

    def add_to(self, server: aio.Server) -> None:
        """Register the calls with a server."""
        handlers: dict[str, Handler] = {
            "Read": grpc.unary_stream_rpc_method_handler(self.read, data_pb2.ReadRequest.FromString, codec.encode_read),
            "Write": grpc.stream_stream_rpc_method_handler(
                self.write, codec.decode_write, data_pb2.WriteResponse.SerializeToString
            ),
            "QueryWrite": grpc.unary_unary_rpc_method_handler(
                self.query_write, data_pb2.QueryWriteRequest.FromString, data_pb2.QueryWriteResponse.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    # --- calls --------------------------------------------------------------------------------------------------

    async def read(self, request: data_pb2.ReadRequest, context: Context) -> AsyncGenerator[codec.ReadResponse, None]:
        """Stream bytes of what the grant's part is made of.

        Raises:
            CallerDenied: they are of something else, or the part is done.
        """
        token = self._token(context)
        if token is not None:
            opened = await self._open(token, "read")
            if not _within(opened.row, opened.grant, request):
                msg = f"part {opened.row.part.number} is not made of those bytes: its grant does not count for them"
                raise CallerDenied(msg, why="range")
        answers = self._data.stream(request) if token is not None else self._data.read(request, context)
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    async def write(self, requests: AsyncIterator[codec.WriteRequest], context: Context) -> None:
        """Store one step of the grant's part, and answer when it is stored.

        Raises:
            CallerDenied: it is of another part or range, or the part is done.
            OutOfRange, Corrupt: bytes are missing, or came wrong; nothing of the step is stored.
        """
        token = self._token(context)
        if token is None:
            await self._data.write(requests, context)
            return
        opened = await self._open(token, "write")
        first = await _next(requests)
        if first is None:
            msg = "a Write begins with a message that names its step"
            raise InvalidSpec(msg, {"write_id": msg})
        due = await asyncio.to_thread(_due, opened, first.write_id)
        with self._data.taken(first.write_id):
            async with self._buffers.take(due.size) as buffer:
                crc = await _fill(buffer, due, first, requests)
                opened = await self._open(token, "write")  # that took a while
                receipt = await self._put(opened, due, buffer, crc)
        value = receipt.crc64nvme if receipt.crc64nvme is not None else crc
        answer = data_pb2.WriteResponse(
            persisted_size=due.size,
            finished=True,
            crc64nvme=checksum.to_hex(value),
            etag=receipt.etag,
            compared=receipt.compared,
        )
        await send(context, answer)

    async def query_write(self, request: data_pb2.QueryWriteRequest, context: Context) -> data_pb2.QueryWriteResponse:
        """Whether a step is stored and recorded."""
        token = self._token(context)
        if token is None:
            return await self._data.query_write(request, context)
        opened = await self._open(token, "write")
        due = await asyncio.to_thread(_due, opened, request.write_id)
        part = opened.row.part.number
        have = await self._store.read(
            lambda c: manifest_rows.steps(c, opened.grant.transfer, part, part, max(due.number, 1), max(due.number, 1))
        )
        for each in have.get(part, ()):
            value = "" if each.receipt.crc64nvme is None else checksum.to_hex(each.receipt.crc64nvme)
            etag = each.receipt.etag
            return data_pb2.QueryWriteResponse(persisted_size=due.size, finished=True, crc64nvme=value, etag=etag)
        return data_pb2.QueryWriteResponse()

    # --- pieces of the above ------------------------------------------------------------------------------------

    def _token(self, context: Context) -> str | None:
        """The grant that came with a call; None where a call may do without."""
        for key, value in context.invocation_metadata() or ():
            if key == METADATA_KEY:
                return value if isinstance(value, str) else value.decode("ascii", "replace")
        if self._inside:
            return None
        msg = (
            "bytes are read and written at the internal address alone, and from outside with a grant, which comes with"
            " the work of an agent: `cropduster fetch` brings a file to your machine"
        )
        raise Unsupported(msg)

    async def _open(self, token: str, direction: Direction) -> _Open:
        """The part that a grant is for, if it is still in the making.

        Raises:
            CallerDenied: it is not, or the grant is not for that.
        """
        grant = self._keys.check(token, direction)
        try:
            record = await self._store.read(lambda c: ledger.get(c, grant.transfer))
        except TransferNotFound:
            raise _over(grant, "there is no such transfer") from None
        if record.ended is not None or record.wish or record.error is not None or record.plan is None:
            raise _over(grant, "the transfer has ended, or is being stopped")
        rows = await self._store.read(lambda c: manifest_rows.parts(c, grant.transfer, grant.part, grant.part))
        if not rows or rows[0].done:
            raise _over(grant, "the part is committed")
        if rows[0].part.size != grant.size or fingerprint(rows[0].token) != grant.upload:
            raise _over(grant, "the part is being made by another upload")
        return _Open(grant, record.plan, rows[0])

    async def _put(self, opened: _Open, due: _Due, buffer: memoryview, crc: int) -> StepReceipt:
        plane, row = self._planes.plane(opened.plan.plane), opened.row
        if due.number:
            assert row.token
            return await plane.resume(row.token).put(due.number, due.offset, buffer, crc)
        said = await described(self._planes.plane, plane, row.part)
        receipt = await plane.put(
            row.part.key,
            buffer,
            upload_id=upload_id(opened.grant.transfer, row.part.number),
            replace=opened.plan.overwrite,
            content_type=said.content_type,
            metadata=said.metadata,
        )
        if not plane.capabilities.shared:  # a directory keeps no checksum: the version tells of a later write
            receipt = replace(receipt, etag=(await plane.stat(row.part.key)).version)
        return receipt


def _over(grant: Grant, why: str) -> CallerDenied:
    msg = f"this grant for part {grant.part} of transfer {grant.transfer} does not count any more: {why}"
    return CallerDenied(msg, why="over", transfer=grant.transfer, part=str(grant.part))


def _within(row: PartRow, grant: Grant, request: data_pb2.ReadRequest) -> bool:
    """Whether bytes are of what a part is made of, within the grant's range of the part."""
    if request.file or request.length <= 0 or request.offset < 0:
        return False
    at, begin, end = 0, request.offset, request.offset + request.length
    for piece in row.part.pieces:
        if isinstance(piece, Extent) and (piece.plane, piece.key) == (request.plane, request.key):
            low, high = at + begin - piece.start, at + end - piece.start
            inside = piece.start <= begin and end <= piece.end and grant.start <= low and high <= grant.end
            if inside and piece.version == request.version:
                return True
        at += piece.size
    return False


def _due(opened: _Open, write_id: str) -> _Due:
    """The step of a write's name.

    Raises:
        InvalidSpec: there is no such name.
        CallerDenied: it is of another part, or of bytes that the grant is not for.
    """
    found, grant, row = _STEP.fullmatch(write_id), opened.grant, opened.row
    if not found:
        msg = f"'{write_id[:80]}' is not TRANSFER-PART-STEP, as a write under a grant is called"
        raise InvalidSpec(msg, {"write_id": msg})
    transfer, part, number = found[1], int(found[2]), int(found[3])
    due = _Due(write_id, 0, 0, row.part.size)
    if number:
        steps = routes.steps(row.part, opened.plan)
        one = steps[number - 1] if number <= len(steps) else None
        due = _Due(write_id, number, one.offset, one.size) if one else _Due(write_id, number, 0, grant.size + 1)
    fits = grant.start <= due.offset and due.offset + due.size <= grant.end
    if (transfer, part) != (grant.transfer, grant.part) or not fits or bool(number) != bool(row.token):
        msg = f"a grant for part {grant.part} of transfer {grant.transfer} does not count for {write_id}"
        raise CallerDenied(msg, why="range")
    return due


async def _fill(
    buffer: memoryview, due: _Due, first: codec.WriteRequest, rest: AsyncIterator[codec.WriteRequest]
) -> int:
    """Take in all bytes of a step, in order; their CRC64NVME."""
    at, request = 0, first
    while True:
        data = memoryview(request.data).cast("B")
        if request.offset != due.offset + at or at + data.nbytes > due.size:
            msg = f"write {due.name} is at offset {due.offset + at} of {due.offset + due.size}: begin the step again"
            raise OutOfRange(msg, write=due.name, offset=str(due.offset + at), sent=str(request.offset))
        if data.nbytes and checksum.compute(data, 0, "crc32c") != request.crc32c:
            msg = f"{data.nbytes} bytes at offset {due.offset + at} of write {due.name} came with another checksum"
            raise Corrupt(msg, write=due.name, offset=str(due.offset + at))
        buffer[at : at + data.nbytes] = data
        at += data.nbytes
        if request.finish:
            break
        following = await _next(rest)
        if following is None:
            msg = f"write {due.name} ended after {at} of {due.size} bytes: begin the step again"
            raise OutOfRange(msg, write=due.name, offset=str(due.offset + at))
        request = following
    if at != due.size:
        msg = f"write {due.name} has {due.size} bytes, and {at} came: begin the step again"
        raise OutOfRange(msg, write=due.name, offset=str(due.offset + at))
    crc = checksum.compute(buffer)
    if request.crc64nvme and request.crc64nvme != checksum.to_hex(crc):
        msg = f"write {due.name} has CRC64NVME {checksum.to_hex(crc)} and not {request.crc64nvme}: send it again"
        raise Corrupt(msg, write=due.name)
    return crc


async def _next(requests: AsyncIterator[codec.WriteRequest]) -> codec.WriteRequest | None:
    """The next message; None after the last. Raises Unavailable for a caller that is silent."""
    try:
        async with asyncio.timeout(SILENT):
            return await anext(requests, None)
    except TimeoutError:
        msg = f"nothing came for {SILENT:.0f} seconds: begin the step again"
        raise Unavailable(msg) from None
