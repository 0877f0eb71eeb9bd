"""DataService Read and Write against a bare gRPC stream of the same bytes with the same codec.

    python tests/bench/data_stream.py [MIB] [FOLDER]

The server is a process of its own, asyncio as in production; the client is a synchronous stub in a thread. "Bare"
sends one prepared message again and again, or throws away what it receives: no plane, no checksum. Five rounds, each
with the bare stream right before the real one; a ratio is bare seconds over real seconds, so 1.0 is "as fast". The
plane `null` keeps and reads nothing, so its ratio is the service alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
from grpc import aio

from fileserver import codec
from fileserver.catalogue.store import Store
from fileserver.catalogue.writes import Writes, metadata
from fileserver.server import OPTIONS
from fileserver.services.data import DataServicer
from fileserver.status import ErrorInterceptor
from fileserver.v1 import data_pb2
from planes import checksum
from planes.memory import MemoryPlane, MemorySettings
from planes.plane import MIB, Info, StepReceipt
from planes.posix import PosixPlane, PosixSettings
from planes.wrapped import WrappedPlane, WrappedUpload

ROUNDS = 5
PIECE = os.urandom(MIB)
CRC = checksum.compute(PIECE, 0, "crc32c")


class NullUpload(WrappedUpload):
    async def put(self, number, _offset, data, crc64nvme=None):
        return StepReceipt(number, memoryview(data).nbytes, crc64nvme)

    async def commit(self, _steps, _size, _crc64nvme):
        await self.inner.abort()


class NullPlane(WrappedPlane):
    """Keeps and reads nothing: what is left is the service itself."""

    def _wrap(self, upload):
        return NullUpload(upload)

    async def stat(self, key):
        return Info(key, self.size, "1", datetime.now(UTC))

    async def read(self, extent, into): ...


class Planes:
    def __init__(self, folder: Path, size: int) -> None:
        null = NullPlane(MemoryPlane("null", MemorySettings()))
        null.size = size
        self._planes = {
            "null": null,
            "memory": MemoryPlane("memory", MemorySettings()),
            "posix": PosixPlane("posix", PosixSettings(path=folder, durability="os")),
        }

    def plane(self, name):
        return self._planes[name]


class Bare(grpc.GenericRpcHandler):
    def __init__(self, count: int) -> None:
        self._count = count

    def service(self, details):
        async def read(_request, _context):
            for number in range(self._count):
                yield codec.ReadResponse(number * MIB, CRC, PIECE)

        async def write(requests, context):
            size = 0
            async for request in requests:
                size += memoryview(request.data).nbytes
            await context.write(data_pb2.WriteResponse(persisted_size=size, finished=True))

        return {
            "/bare/Read": grpc.unary_stream_rpc_method_handler(
                read, data_pb2.ReadRequest.FromString, codec.encode_read
            ),
            "/bare/Write": grpc.stream_stream_rpc_method_handler(
                write, codec.decode_write, data_pb2.WriteResponse.SerializeToString
            ),
        }.get(details.method)


async def _serve(count: int, folder: Path, pipe: Connection) -> None:
    store = Store(folder)
    metadata.create_all(store.engine)
    (folder / "plane").mkdir()
    server = aio.server(interceptors=[ErrorInterceptor()], options=OPTIONS)
    planes = Planes(folder / "plane", count * MIB)
    DataServicer(planes, None, Writes(store)).add_to(server)
    server.add_generic_rpc_handlers((Bare(count),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await asyncio.to_thread(pipe.recv)
    await server.stop(0)
    store.close()


def serve(count: int, folder: Path, pipe: Connection) -> None:
    asyncio.run(_serve(count, folder, pipe))


def read(channel: grpc.Channel, bare: bool, plane: str, count: int) -> float:
    call = codec.read_call(channel)
    if bare:
        call = channel.unary_stream("/bare/Read", data_pb2.ReadRequest.SerializeToString, codec.decode_read)
    begun, size = time.perf_counter(), 0
    for message in call(data_pb2.ReadRequest(plane=plane, key="object")):
        size += memoryview(message.data).nbytes
    assert size == count * MIB
    return time.perf_counter() - begun


def messages(plane: str, count: int):
    for number in range(count):
        first = (
            {} if number else {"write_id": f"b-{time.time_ns()}", "plane": plane, "key": "object", "overwrite": True}
        )
        yield codec.WriteRequest(offset=number * MIB, crc32c=CRC, data=PIECE, **first)
    yield codec.WriteRequest(offset=count * MIB, finish=True)


def write(channel: grpc.Channel, bare: bool, plane: str, count: int) -> float:
    call = codec.write_call(channel)
    if bare:
        call = channel.stream_stream("/bare/Write", codec.encode_write, data_pb2.WriteResponse.FromString)
    begun = time.perf_counter()
    for answer in call(messages(plane, count)):
        last = answer
    assert last.finished
    assert last.persisted_size == count * MIB
    return time.perf_counter() - begun


def in_thread(function, *arguments) -> float:
    result: list[float] = []
    thread = threading.Thread(target=lambda: result.append(function(*arguments)))
    thread.start()
    thread.join()
    return result[0]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        server = context.Process(target=serve, args=(count, Path(folder), theirs), daemon=True)
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{ours.recv()}", options=OPTIONS) as channel:
            print(f"{count} MiB, server and client on {os.cpu_count()} cores, five rounds")
            for plane in ("null", "memory", "posix"):
                for name, verb in (("Write", write), ("Read", read)):
                    ratios, rates = [], []
                    for _ in range(ROUNDS):
                        bare = in_thread(verb, channel, True, plane, count)
                        real = in_thread(verb, channel, False, plane, count)
                        ratios.append(bare / real)
                        rates.append(count / 1024 / real)
                    told = " ".join(f"{r:.2f}" for r in ratios)
                    print(
                        f"{name:5} {plane:6} of bare: {told}   GiB/s: {' '.join(f'{r:.2f}' for r in rates)}", flush=True
                    )
        ours.send("end")
        server.join()


if __name__ == "__main__":
    main()
