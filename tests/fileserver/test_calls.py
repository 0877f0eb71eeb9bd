"""Calls whose callers are silent: they do not read, or are gone without a word. At the wire."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc import aio

from fileserver import server as module
from fileserver.calls import send
from fileserver.errors import ServerUnavailable
from fileserver.server import Listener, Server, Service
from fileserver.status import from_call
from planes.plane import MIB
from tests.doubles.cable import cable


class Jobs:
    """No transfers."""

    async def start(self):
        pass

    async def stop(self):
        pass

    def unfinished(self):
        return 0


class Streams(grpc.GenericRpcHandler):
    """`/t.T/flood` streams for ever to who reads, `/t.T/quiet` says one word and stays, `/t.T/who` says who calls."""

    def __init__(self):
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    def service(self, handler_call_details):
        async def flood(_request, context):
            try:
                while True:
                    await send(context, bytes(MIB), 0.5)
            finally:
                self.ended.set()

        async def quiet(_request, _context):
            yield b"first"
            self.begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.set()

        async def who(_request, context):
            yield context.peer().encode()

        made = {"/t.T/flood": flood, "/t.T/quiet": quiet, "/t.T/who": who}.get(handler_call_details.method)
        return made and grpc.unary_stream_rpc_method_handler(made)


@asynccontextmanager
async def serving(*, many=False):
    """Streams at an address for callers from outside, and its port."""
    streams = Streams()
    services = [Service("Streams", lambda made: made.add_generic_rpc_handlers((streams,)))]
    made = Server(services, Jobs(), [Listener(["127.0.0.1:0"], [], internal=False)], many=many)
    try:
        (address,) = await made.start()
        yield streams, int(address.rpartition(":")[2])
    finally:
        await made.stop(0)


async def test_a_call_that_nobody_reads_ends_and_who_reads_later_is_told():
    async with serving() as (streams, port), aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        flood = channel.unary_stream("/t.T/flood")(b"")
        await flood.read()
        await asyncio.wait_for(streams.ended.wait(), 10)

        async def rest():
            while await flood.read():
                pass

        with pytest.raises(aio.AioRpcError) as told:
            await rest()
        assert type(from_call(told.value)) is ServerUnavailable


async def test_one_of_many_servers_lets_connections_go_after_a_while_and_no_call(monkeypatch):
    (age, _), grace = module.SPREAD
    monkeypatch.setattr(module, "SPREAD", ((age, 300), grace))
    async with serving(many=True) as (_, port), aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def who():
            return await channel.unary_stream("/t.T/who")(b"").read()

        quiet = channel.unary_stream("/t.T/quiet")(b"")
        assert await quiet.read() == b"first"
        connection = await who()
        async with asyncio.timeout(20):
            while await who() == connection:  # no call fails meanwhile
                await asyncio.sleep(0.05)
        waits = asyncio.ensure_future(quiet.read())
        assert not (await asyncio.wait({waits}, timeout=0.1))[0]
        quiet.cancel()


async def test_a_caller_whose_machine_is_gone_without_a_word_is_noticed(monkeypatch):
    monkeypatch.setattr(
        module, "OUTSIDE", tuple((name, 1000 if name.endswith("_ms") else value) for name, value in module.OUTSIDE)
    )
    async with (
        serving() as (streams, port),
        cable(port) as between,
        aio.insecure_channel(f"127.0.0.1:{between.port}") as channel,
    ):
        quiet = channel.unary_stream("/t.T/quiet")(b"")
        await quiet.read()
        await streams.begun.wait()
        between.stall_after(1)
        await asyncio.wait_for(streams.ended.wait(), 20)
