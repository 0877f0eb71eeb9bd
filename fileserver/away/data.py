"""The calls of DataService that an agent makes under its grants, driven from threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import grpc

from fileserver import codec
from fileserver.away.direct import Direct
from fileserver.calls import GRANT_KEY
from fileserver.errors import Cancelled, ServerBusy
from fileserver.status import from_call
from fileserver.v1 import data_pb2
from planes import checksum
from planes.direct import Address
from planes.errors import Corrupt, Error, OutOfRange, Throttled, Unavailable
from planes.plane import MIB, Take
from planes.threads import Stop, Threads

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")

MESSAGE: Final = MIB
"""Bytes of data in one message."""
SILENT: Final = 120.0
"""Seconds that a call for one step may take longer than its bytes need at the slowest rate that counts as alive."""
_SLOWEST: Final = 64 * 1024  # bytes a second
_READ: Final = "/fileserver.v1.DataService/Read"
_WRITE: Final = "/fileserver.v1.DataService/Write"
_SIGN: Final = "/fileserver.v1.DataService/Sign"
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
        encrypted: whether that is by TLS.
    """

    def __init__(self, channel: grpc.Channel, count: int, *, encrypted: bool) -> None:
        self._threads = Threads("data", count)
        self.direct = Direct(self._threads, count, encrypted=encrypted)
        read = channel.unary_stream(_READ, data_pb2.ReadRequest.SerializeToString, codec.decode_read)
        write = channel.stream_stream(_WRITE, codec.encode_write, data_pb2.WriteResponse.FromString)
        self._read, self._write = read, write
        self._query = channel.unary_unary(
            _QUERY, data_pb2.QueryWriteRequest.SerializeToString, data_pb2.QueryWriteResponse.FromString
        )
        self._sign = channel.unary_unary(
            _SIGN, data_pb2.SignRequest.SerializeToString, data_pb2.SignResponse.FromString
        )
        self._begun: set[str] = set()
        """Writes that broke, or are under way."""

    def close(self) -> None:
        """Let threads and connections go."""
        self._threads.close()
        self.direct.close()

    async def read(self, request: data_pb2.ReadRequest, grant: str, take: Take) -> None:
        """Hand over the bytes of a request in order; every message is held against its checksum.

        Raises:
            Corrupt: it differs, or more or less came than was asked for.
        """

        def work(_stop: Stop, keep: Callable[[Call], None]) -> None:
            call = self._read(request, timeout=_patience(request.length), metadata=((GRANT_KEY, grant),))
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
        return await self._ask(self._query, data_pb2.QueryWriteRequest(write_id=name), grant)

    async def sign(self, request: data_pb2.SignRequest, grant: str) -> Address:
        """A request that the holder of a grant makes to the store itself."""
        said = await self._ask(self._sign, request, grant)
        return Address(said.method, said.url, dict(said.headers), said.authorities)

    async def _ask(self, method: grpc.UnaryUnaryMultiCallable[Q, A], request: Q, grant: str) -> A:
        def work(_stop: Stop, keep: Callable[[Call], None]) -> A:
            call = method.future(request, timeout=SILENT, metadata=((GRANT_KEY, grant),))
            keep(call)
            return call.result()

        return await self._run(work)

    async def _send(
        self, first: codec.WriteRequest, data: memoryview, held: int, crc: int, grant: str
    ) -> data_pb2.WriteResponse:
        """Send what is behind the first `held` bytes of a step in one stream."""

        def work(_stop: Stop, keep: Callable[[Call], None]) -> data_pb2.WriteResponse:
            sent = _messages(first, data, held, crc)
            call = self._write(sent, timeout=_patience(data.nbytes - held), metadata=((GRANT_KEY, grant),))
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
        over = False

        def keep(call: Call) -> None:
            calls.append(call)
            if over:  # cancelled while it began
                call.cancel()

        running = asyncio.ensure_future(self._threads.run(lambda stop: work(stop, keep)))
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            over = True
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
