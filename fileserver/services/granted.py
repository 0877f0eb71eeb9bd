"""DataService for who has a grant: the bytes that it names, no others. Without one, what `data` answers, or nothing.

Each call is looked at anew, in the store: the part must still be in the making, by the same upload, and its transfer
must not have ended nor be asked to stop. So a grant can be used again, and never afterwards.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import grpc
from grpc import aio

from fileserver import codec
from fileserver.auth import grant_in
from fileserver.calls import Context, Handler, about, send
from fileserver.catalogue.store import Store
from fileserver.errors import CallerDenied, InvalidSpec, TransferNotFound
from fileserver.grants import Direction, Grant, Keys, fingerprint
from fileserver.services import signing
from fileserver.services.data import DataServicer, register
from fileserver.services.halves import Due, Halves, Key, fill, following
from fileserver.together import to_its_end
from fileserver.transfer import ledger, manifest_rows, routes
from fileserver.transfer.described import described
from fileserver.transfer.execute import upload_id
from fileserver.transfer.manifest import Extent
from fileserver.transfer.record import PartRow, Plan
from fileserver.transfer.survey import Planes
from fileserver.v1 import data_pb2
from planes import checksum
from planes.errors import Unsupported
from planes.plane import StepReceipt

UNREAD: Final = 150.0
"""Seconds that one message may wait to be read; the holder of a grant counts a slower call as broken, too."""

_HEX: Final = re.compile("[0-9a-f]{16}")
_STEP: Final = re.compile(r"([0-9A-Za-z]{1,32})-([0-9]{1,9})-([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class _Open:
    """A part in the making that a grant is for."""

    grant: Grant
    plan: Plan
    row: PartRow


class GrantedData:
    """Bytes on the wire, in and out, under grants.

    Args:
        keys: tell grants from other text.
        store: where parts are looked up.
        planes: the configured planes.
        halves: the steps that are being received.
        data: answers reads, and on the internal address calls without a grant.
        inside: this is for the internal address.
    """

    def __init__(
        self, keys: Keys, store: Store, planes: Planes, halves: Halves, data: DataServicer, *, inside: bool
    ) -> None:
        self._keys = keys
        self._store = store
        self._planes = planes
        self._data = data
        self._inside = inside
        self._halves = halves

    def add_to(self, server: aio.Server) -> None:
        """Register the calls with a server."""
        sign: Handler = grpc.unary_unary_rpc_method_handler(
            self.sign, data_pb2.SignRequest.FromString, data_pb2.SignResponse.SerializeToString
        )
        register(server, self.read, self.write, self.query_write, Sign=sign)

    # --- calls --------------------------------------------------------------------------------------------------

    async def read(self, request: data_pb2.ReadRequest, context: Context) -> None:
        """Stream bytes of what the grant's part is made of.

        Raises:
            CallerDenied: they are of something else, or the part is done.
            ServerUnavailable: who has the grant does not read.
        """
        token = self._token(context)
        if token is not None:
            await self._readable(token, request)
        answers = self._data.stream(request) if token is not None else self._data.read(request, context)
        async with aclosing(answers):
            async for answer in answers:
                await send(context, answer, None if token is None else UNREAD)

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
        first = await following(requests)
        if first is None:
            msg = "a Write begins with a message that names its step"
            raise InvalidSpec(msg, {"write_id": msg})
        due = await asyncio.to_thread(_due, opened, first.write_id)
        key = _key(opened, due)
        await self._halves.broken_off(key)
        with self._data.taken(first.write_id):
            async with self._halves.take(key) as half:
                crc = await fill(half, due, first, requests)
                opened = await self._open(token, "write")  # that took a while
                # Whole bytes are stored even if the caller has gone meanwhile: it asks how that ended.
                put = self._put(opened, due, half.memory.view, crc)
                await to_its_end(put, lambda receipt: self._halves.store(key, _of_bytes(receipt, crc)))
        receipt = self._halves.stored(key)
        assert receipt is not None
        answer = data_pb2.WriteResponse(
            persisted_size=due.size,
            finished=True,
            crc64nvme=_hex(receipt.crc64nvme),
            etag=receipt.etag,
            compared=receipt.compared,
        )
        await send(context, answer)

    async def query_write(self, request: data_pb2.QueryWriteRequest, context: Context) -> data_pb2.QueryWriteResponse:
        """Whether a step is stored, and how much of it is held here if it is not; ends a stream that is still at it."""
        token = self._token(context)
        if token is None:
            return await self._data.query_write(request, context)
        opened = await self._open(token, "write")
        due = await asyncio.to_thread(_due, opened, request.write_id)
        key, part, number = _key(opened, due), opened.row.part.number, max(due.number, 1)
        await self._halves.broken_off(key)
        receipt = self._halves.stored(key)
        if receipt is None:
            have = await self._store.read(
                lambda c: manifest_rows.steps(c, opened.grant.transfer, part, part, number, number)
            )
            receipt = next((each.receipt for each in have.get(part, ())), None)
        if receipt is None:
            return data_pb2.QueryWriteResponse(persisted_size=self._halves.received(key))
        return data_pb2.QueryWriteResponse(
            persisted_size=due.size,
            finished=True,
            crc64nvme=_hex(receipt.crc64nvme),
            etag=receipt.etag,
            compared=receipt.compared,
        )

    async def sign(self, request: data_pb2.SignRequest, context: Context) -> data_pb2.SignResponse:
        """A request by which the grant's holder does at the store what a Write or a Read of the same words would.

        Raises:
            CallerDenied: it would not be allowed to.
            Unsupported: it does not reach that store, or a signature would be for more than that.
        """
        token = self._token(context)
        if token is None:
            msg = "requests are signed for the holders of grants alone"
            raise CallerDenied(msg, why="invalid")
        if request.HasField("read"):
            await self._readable(token, request.read)
            made = await signing.signed_read(self._planes, request.read)
        else:
            opened = await self._open(token, "write")
            due = await asyncio.to_thread(_due, opened, request.write_id)
            made = await signing.signed_write(
                self._planes, opened.plan, opened.grant.transfer, opened.row, due.number, due.size, _crc(request)
            )
        return data_pb2.SignResponse(
            method=made.method, url=made.url, headers=made.headers, authorities=made.authorities
        )

    # --- pieces of the above ------------------------------------------------------------------------------------

    def _token(self, context: Context) -> str | None:
        """The grant that came with a call; None where a call may do without."""
        found = grant_in(tuple(context.invocation_metadata() or ()))
        if found is not None or self._inside:
            return found
        msg = (
            "bytes are read and written at the internal address alone, and from outside with a grant, which comes with"
            " the work of an agent: `cropduster fetch` brings a file to your machine"
        )
        raise Unsupported(msg)

    async def _readable(self, token: str, request: data_pb2.ReadRequest) -> None:
        """See that a grant is for what a Read asks for."""
        opened = await self._open(token, "read")
        if not _within(opened.row, opened.grant, request):
            msg = f"part {opened.row.part.number} is not made of those bytes: its grant does not count for them"
            raise CallerDenied(msg, why="range")

    async def _open(self, token: str, direction: Direction) -> _Open:
        """The part that a grant is for, if it is still in the making.

        Raises:
            CallerDenied: it is not, or the grant is not for that.
        """
        grant = self._keys.check(token, direction)
        about(f"{direction} part {grant.part} of transfer {grant.transfer}")
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

    async def _put(self, opened: _Open, due: Due, buffer: memoryview, crc: int) -> StepReceipt:
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


def _due(opened: _Open, write_id: str) -> Due:
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
    due = Due(write_id, 0, 0, row.part.size)
    if number:
        steps = routes.steps(row.part, opened.plan)
        one = steps[number - 1] if number <= len(steps) else None
        due = Due(write_id, number, one.offset, one.size) if one else Due(write_id, number, 0, grant.size + 1)
    fits = grant.start <= due.offset and due.offset + due.size <= grant.end
    if (transfer, part) != (grant.transfer, grant.part) or not fits or bool(number) != bool(row.token):
        msg = f"a grant for part {grant.part} of transfer {grant.transfer} does not count for {write_id}"
        raise CallerDenied(msg, why="range")
    return due


def _key(opened: _Open, due: Due) -> Key:
    return Key(due.name, opened.grant.upload, due.offset, due.size)


def _of_bytes(receipt: StepReceipt, crc: int) -> StepReceipt:
    """A receipt with the checksum of what was sent, where the plane does not say one."""
    return receipt if receipt.crc64nvme is not None else replace(receipt, crc64nvme=crc)


def _crc(request: data_pb2.SignRequest) -> int:
    if not _HEX.fullmatch(request.crc64nvme):
        msg = "a step is signed for with its CRC64NVME, 16 hexadecimal digits"
        raise InvalidSpec(msg, {"crc64nvme": msg})
    return checksum.from_hex(request.crc64nvme)


def _hex(value: int | None) -> str:
    return "" if value is None else checksum.to_hex(value)
