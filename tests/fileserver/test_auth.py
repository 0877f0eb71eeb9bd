"""Who may call: the cookie opens the server, health needs none, and the caller's own files need the caller."""

import grpc
import pytest
from grpc import StatusCode, aio

from fileserver.auth import METADATA_KEY, Cookies, allow, caller
from fileserver.calls import Interceptor
from fileserver.errors import CallerDenied, CallerUnknown
from fileserver.status import ErrorInterceptor, from_call

COOKIE = "c0" * 32


class Whoami(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        async def unary(_request, _context):
            allow("local")
            return str(caller().local).encode()

        async def stream(_request, _context):
            yield str(caller().local).encode()

        if handler_call_details.method.endswith("Stream"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


@pytest.fixture
async def channel(tmp_path):
    server = aio.server(
        interceptors=[ErrorInterceptor(), Interceptor(Cookies(COOKIE, tmp_path / "cookie").around)],
    )
    server.add_generic_rpc_handlers((Whoami(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(0)


async def test_the_cookie_makes_the_caller_local(channel):
    metadata = ((METADATA_KEY, COOKIE),)
    assert await channel.unary_unary("/fileserver.v1.T/Who")(b"", metadata=metadata) == b"True"
    assert [a async for a in channel.unary_stream("/fileserver.v1.T/Stream")(b"", metadata=metadata)] == [b"True"]


async def test_where_many_servers_share_a_cookie_no_file_of_a_caller_is_within_reach(tmp_path):
    cookies = Cookies(COOKIE, tmp_path / "cookie", local=False)
    server = aio.server(interceptors=[ErrorInterceptor(), Interceptor(cookies.around)])
    server.add_generic_rpc_handlers((Whoami(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        with pytest.raises(aio.AioRpcError) as caught:
            await opened.unary_unary("/fileserver.v1.T/Who")(b"", metadata=((METADATA_KEY, COOKIE),))
        assert type(from_call(caught.value)) is CallerDenied
    await server.stop(0)


@pytest.mark.parametrize("metadata", [(), ((METADATA_KEY, "c0" * 31 + "c1"),), ((METADATA_KEY, ""),)])
@pytest.mark.parametrize("method", ["Who", "Stream"])
async def test_without_it_the_caller_is_told_where_it_is(channel, metadata, method, tmp_path):
    if method == "Who":
        call = channel.unary_unary("/fileserver.v1.T/Who")(b"", metadata=metadata)
    else:
        call = anext(aiter(channel.unary_stream("/fileserver.v1.T/Stream")(b"", metadata=metadata)))
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is StatusCode.UNAUTHENTICATED
    error = from_call(caught.value)
    assert type(error) is CallerUnknown
    assert error.facts == {"cookie": str(tmp_path / "cookie")}
    assert COOKIE not in str(caught.value)


async def test_health_needs_no_cookie_and_makes_nobody_local(channel):
    answers = [a async for a in channel.unary_stream("/grpc.health.v1.Health/Stream")(b"")]
    assert answers == [b"False"]


async def test_local_files_are_refused_to_everybody_else(channel):
    with pytest.raises(aio.AioRpcError) as caught:
        await channel.unary_unary("/grpc.health.v1.Health/Who")(b"")
    error = from_call(caught.value)
    assert type(error) is CallerDenied
    assert error.message == "that server cannot see files of this machine: use `cropduster push`, or name a plane"


def test_other_planes_are_open_to_strangers():
    allow("data")
    with pytest.raises(CallerDenied):
        allow("local")
