"""A DataService behind a real connection, with planes and a catalogue to its liking."""

import asyncio
import os

import grpc
import pytest
from grpc import aio

from fileserver import codec
from fileserver.catalogue.files import Copy, FilePart, LogicalFile
from fileserver.catalogue.writes import Writes
from fileserver.errors import FileNotFound, PlaneNotFound
from fileserver.services.data import DataServicer
from fileserver.status import ErrorInterceptor, from_call
from fileserver.v1 import data_pb2, data_pb2_grpc
from planes import checksum
from planes.plane import MIB, Extent

BYTES = os.urandom(5 * MIB + 12345)


class Planes:
    def __init__(self, **planes):
        self.planes = planes

    def plane(self, name):
        if name not in self.planes:
            raise PlaneNotFound(name, plane=name)
        return self.planes[name]


class Files:
    """A catalogue of one page of two parts at a time."""

    def __init__(self):
        self.files = {}

    def enter(self, name, parts):
        size = sum(p.size for p in parts)
        file = LogicalFile(name, f"g-{name}", size, None, "pinned", None, len(parts), "t", 0.0)
        self.files[name] = (file, parts)

    async def get(self, name):
        if name not in self.files:
            raise FileNotFound(name, file=name)
        return self.files[name][0]

    async def copies(self, generation):
        return [Copy(generation, generation, "pinned", 0.0)]

    async def parts(self, generation, after=0):
        _, parts = next(f for f in self.files.values() if f[0].generation == generation)
        return [p for p in parts if p.number > after][:2]


class Serving:
    """A DataService behind a real connection."""

    def __init__(self, plane, files, store, streams=4):
        self.planes = Planes(data=plane)
        self.servicer = DataServicer(self.planes, files, Writes(store), streams)
        self.server = aio.server(interceptors=[ErrorInterceptor()])
        self.servicer.add_to(self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def __aenter__(self):
        await self.server.start()
        self.channel = aio.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = data_pb2_grpc.DataServiceStub(self.channel)
        return self

    async def __aexit__(self, *_):
        await self.channel.close()
        await self.server.stop(0)

    async def read(self, **request):
        """All bytes of a Read, each message checked; through the generated classes, as a foreign client does."""
        taken, position = bytearray(), request.get("offset", 0)
        async for message in self.stub.Read(data_pb2.ReadRequest(**request)):
            assert message.offset == position + len(taken)
            assert 0 < len(message.data) <= MIB
            assert checksum.compute(message.data, 0, "crc32c") == message.crc32c
            taken += message.data
        return bytes(taken)

    async def refused(self, call):
        with pytest.raises(grpc.RpcError) as caught:
            await call
        return from_call(caught.value)

    async def write(self, messages, *, generated=False):
        """All answers to a Write, sent from a thread as bulk streams are."""

        def sent():
            with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
                call = data_pb2_grpc.DataServiceStub(channel).Write if generated else codec.write_call(channel)
                return list(call(iter(messages)))

        return await asyncio.to_thread(sent)

    def talk(self):
        """A Write whose messages are sent and answers read one by one."""
        return self.channel.stream_stream(codec.WRITE, codec.encode_write, data_pb2.WriteResponse.FromString)()


async def put(plane, key, data, replace=False):
    async with await plane.upload(key, upload_id="u", replace=replace) as upload:
        steps = []
        size = plane.limits.put_size
        for number, start in enumerate(range(0, max(1, len(data)), size), 1):
            steps.append(await upload.put(number, start, data[start : start + size]))
        return await upload.commit(steps, len(data), None)


async def content(plane, key):
    info = await plane.stat(key)
    buffer = bytearray(info.size)
    await plane.read(Extent(key, info.version, 0, info.size), memoryview(buffer))
    return bytes(buffer)


def message(offset, data, **more):
    return codec.WriteRequest(offset=offset, data=data, crc32c=checksum.compute(data, 0, "crc32c"), **more)


def messages(write_id, key, data, *, start=0, size=MIB, finish=True, **more):
    """The messages of one write from byte `start` on."""
    first = {"write_id": write_id, "plane": "data", "key": key} | {k: v for k, v in more.items() if k == "overwrite"}
    last = {k: v for k, v in more.items() if k == "crc64nvme"}
    for offset in range(start, len(data), size):
        yield message(offset, data[offset : offset + size], **first)
        first = {}
    if finish:
        yield codec.WriteRequest(offset=len(data), finish=True, **first, **last)


def parts_of(sizes):
    return [FilePart(n, "data", f"p{n}", size, "", {}, owned=True) for n, size in enumerate(sizes, 1)]
