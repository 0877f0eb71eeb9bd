"""DataService: bytes of objects and logical files, in and out. Its messages go through `fileserver.codec`.

The number of streams is bounded, and with it the memory that their buffers take; one more is told to come back.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any, Final

import grpc
from grpc import aio

from fileserver import codec
from fileserver.auth import allow
from fileserver.calls import Context, Handler, about, send
from fileserver.catalogue.writes import Write, Writes
from fileserver.configured import LOCAL
from fileserver.errors import InvalidSpec, ServerBusy
from fileserver.services import reading, writing
from fileserver.transfer.survey import Planes
from fileserver.v1 import data_pb2
from planes import checksum
from planes.errors import Error
from planes.plane import MIB

SERVICE: Final = "fileserver.v1.DataService"
MESSAGE: Final = MIB
"""Bytes of data in one message."""
STREAMS: Final = 16
"""Reads and writes at once; each holds up to three buffers of a slice or step."""
ABANDONED: Final = 24 * 3600.0
"""Seconds after which a write that nobody went on with is removed, and a finished one forgotten."""

_WRITE_ID: Final = re.compile("[A-Za-z0-9-]{1,60}")


class DataServicer:
    """Bytes on the wire. Owns no plane and no record.

    Args:
        planes: the configured planes.
        files: the catalogue.
        writes: the records of writes.
        streams: reads and writes at once.
    """

    def __init__(self, planes: Planes, files: reading.Files, writes: Writes, streams: int = STREAMS) -> None:
        self._planes = planes
        self._files = files
        self._writes = writes
        self._free = streams
        self._writing: set[str] = set()

    def add_to(self, server: aio.Server) -> None:
        """Register the calls with a server, without those that need grants (`services.granted`)."""
        register(server, self.read, self.write, self.query_write)

    async def read(self, request: data_pb2.ReadRequest, _context: Context) -> AsyncGenerator[codec.ReadResponse, None]:
        """Stream a byte range; the same version of each object from the first byte to the last.

        Raises:
            InvalidSpec, OutOfRange, Changed, NotFound, FileNotFound, PlaneNotFound, CallerDenied, ServerBusy
        """
        _check_read(request)
        if not request.file:
            allow(request.plane)
        async with aclosing(self.stream(request)) as answers:
            async for answer in answers:
                yield answer

    async def stream(self, request: data_pb2.ReadRequest) -> AsyncGenerator[codec.ReadResponse, None]:
        """The same for a request that was found right."""
        offset = request.offset
        with self._stream():
            if request.file:
                runs = reading.file_runs(self._files, self._planes, request.file, offset, request.length)
            else:
                plane = self._planes.plane(request.plane)
                runs = reading.object_runs(
                    plane, _key(request.plane, request.key), request.version, offset, request.length
                )
            async with aclosing(reading.slices(runs)) as slices:
                async for view in slices:
                    for start in range(0, view.nbytes, MESSAGE):
                        data = view[start : start + MESSAGE]
                        yield codec.ReadResponse(offset, checksum.compute(data, 0, "crc32c"), data)
                        offset += data.nbytes

    async def write(self, requests: AsyncIterator[codec.WriteRequest], context: Context) -> None:
        """Take an object, tell how much of it is stored, and make it visible when finish is received.

        Raises:
            InvalidSpec, OutOfRange, Corrupt, AlreadyExists, PlaneNotFound, CallerDenied, ServerBusy
        """
        first = await anext(requests, None)
        if first is None:
            msg = "a Write begins with a message that names it"
            raise InvalidSpec(msg, {"write_id": msg})
        _check_write(first)
        about(f"write {first.plane}:{first.key}")
        allow(first.plane)
        with self._stream(), self._alone(first.write_id):
            write = await self._record(first)
            if not write.finished:
                plane = self._planes.plane(write.plane)
                steps = await self._writes.steps(write.id) if write.token else []
                stream = writing.Writing(plane, write, steps, self._writes, lambda size: _answer(context, size))
                finished = await stream.run(_from_first(first, requests))
                if finished is None:
                    return
                write = finished
            crc = checksum.to_hex(write.crc64nvme)
            await send(context, data_pb2.WriteResponse(persisted_size=write.size or 0, finished=True, crc64nvme=crc))

    async def query_write(self, request: data_pb2.QueryWriteRequest, _context: Context) -> data_pb2.QueryWriteResponse:
        """How much of a write is stored; nothing for an id that was never heard of."""
        _check_id(request.write_id)
        write = await self._writes.get(request.write_id)
        if write and write.finished:
            return data_pb2.QueryWriteResponse(persisted_size=write.size or 0, finished=True)
        steps = await self._writes.steps(request.write_id) if write and write.token else []
        return data_pb2.QueryWriteResponse(persisted_size=sum(s.size for s in steps))

    async def sweep(self, now: float | None = None) -> int:
        """Remove the writes that nobody went on with for `ABANDONED` seconds; how many."""
        since = (time.time() if now is None else now) - ABANDONED
        count, after = 0, ""
        while old := await self._writes.untouched(since, after):
            for write in old:
                if write.finished:
                    await self._writes.forget(write.id)
                elif write.id not in self._writing:
                    # Its plane may be away, or gone from the configuration: the next sweep tries again.
                    with suppress(Error):
                        await writing.discard(self._planes.plane(write.plane), write, self._writes)
            count, after = count + len(old), old[-1].id
        return count

    async def _record(self, first: codec.WriteRequest) -> Write:
        """What is known of the write, or a fresh record that is not stored yet."""
        fresh = Write(first.write_id, first.plane, _key(first.plane, first.key), first.overwrite)
        known = await self._writes.get(first.write_id)
        if known and (known.plane, known.key, known.overwrite) != (fresh.plane, fresh.key, fresh.overwrite):
            msg = f"write {first.write_id} goes to {known.plane}:{known.key}: choose a fresh id for another object"
            raise InvalidSpec(msg, {"write_id": msg}, write=first.write_id)
        return known or fresh

    @contextmanager
    def taken(self, name: str) -> Iterator[None]:
        """Count one stream of the write of this name, which must be the only one; raises ServerBusy."""
        with self._stream(), self._alone(name):
            yield

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if not self._free:
            msg = "this file server moves as many streams as it has memory for: call again in a moment"
            raise ServerBusy(msg, retry_after=1.0)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        if name in self._writing:
            msg = f"another stream of write {name} is still open: call again in a moment, or end that one"
            raise ServerBusy(msg, retry_after=1.0, write=name)
        self._writing.add(name)
        try:
            yield
        finally:
            self._writing.discard(name)


def register(
    server: aio.Server,
    read: Callable[..., Any],
    write: Callable[..., Any],
    query_write: Callable[..., Any],
    **others: Handler,
) -> None:
    """Have calls of DataService answered by these; their messages go through the codec."""
    handlers: dict[str, Handler] = {
        "Read": grpc.unary_stream_rpc_method_handler(read, data_pb2.ReadRequest.FromString, codec.encode_read),
        "Write": grpc.stream_stream_rpc_method_handler(
            write, codec.decode_write, data_pb2.WriteResponse.SerializeToString
        ),
        "QueryWrite": grpc.unary_unary_rpc_method_handler(
            query_write, data_pb2.QueryWriteRequest.FromString, data_pb2.QueryWriteResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers | others),))


async def _from_first(
    first: codec.WriteRequest, rest: AsyncIterator[codec.WriteRequest]
) -> AsyncIterator[codec.WriteRequest]:
    yield first
    async for request in rest:
        yield request


async def _answer(context: Context, size: int) -> None:
    await send(context, data_pb2.WriteResponse(persisted_size=size))


def _key(plane: str, key: str) -> str:
    """The key as its plane has it; a path of the caller's own machine may come with its leading slash."""
    return key.removeprefix("/") if plane == LOCAL else key


def _check_read(request: data_pb2.ReadRequest) -> None:
    violations: dict[str, str] = {}
    if bool(request.file) == bool(request.plane or request.key):
        violations["file"] = "name either a logical file, or a plane and a key"
    elif not request.file and not (request.plane and request.key):
        violations["key"] = "name the plane and the key of the object"
    if request.file and request.version:
        violations["version"] = "only an object has a version to pin; leave it out for a logical file"
    for field, value in (("offset", request.offset), ("length", request.length)):
        if value < 0:
            violations[field] = f"{value} is negative: bytes are counted from 0"
    _refuse("Read", violations)


def _check_write(first: codec.WriteRequest) -> None:
    violations = {
        name: "must not be empty in the first message" for name in ("plane", "key") if not getattr(first, name)
    }
    if not _WRITE_ID.fullmatch(first.write_id):
        violations["write_id"] = "is 1 to 60 letters, digits and -"
    _refuse("Write", violations)


def _check_id(name: str) -> None:
    _refuse("QueryWrite", {} if _WRITE_ID.fullmatch(name) else {"write_id": "is 1 to 60 letters, digits and -"})


def _refuse(call: str, violations: dict[str, str]) -> None:
    if violations:
        told = "; ".join(f"{field}: {what}" for field, what in violations.items())
        msg = f"{call} was asked wrong: {told}"
        raise InvalidSpec(msg, violations)
