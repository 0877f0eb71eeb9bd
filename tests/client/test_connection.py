from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from client import connection
from client.connection import Connection, Running
from client.credentials import Credentials
from client.errors import Exit, ServerError
from tests.doubles import authority
from tests.doubles.cable import cable


@pytest.mark.parametrize(
    "address", ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", ":7300", "a:b"]
)
def test_an_address_is_host_and_port(address):
    with pytest.raises(ServerError, match="HOST:PORT") as caught:
        Running(address)
    assert caught.value.exit is Exit.BAD_REQUEST


@pytest.mark.parametrize("address", ["10.0.0.1:7300", "example.org:7300", "0.0.0.0:7300", "[2001:db8::1]:7300"])
def test_nothing_is_sent_in_the_clear_to_another_machine(address):
    for shown in (None, Credentials(token="t"), Credentials(token_file="/t")):
        with pytest.raises(ServerError, match="another machine"):
            Running(address, shown)
    for encrypted in (Running(f"https://{address}"), Running(address, Credentials(ca="/ca.pem"))):
        assert encrypted.target == address
        assert encrypted.is_encrypted


@pytest.mark.parametrize("address", ["http://10.0.0.1:7300", "https://x", "https://x:1/y", "https:///x:1", "unix:/x:1"])
def test_other_addresses_are_none(address):
    with pytest.raises(ServerError, match="HOST:PORT"):
        Running(address, Credentials(ca="/ca.pem"))


def test_a_token_is_read_anew_when_it_is_not_taken_any_more(tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    made = Connection(Running("127.0.0.1:1", Credentials(token_file=str(path))))
    made.open()
    assert made.metadata == (("authorization", "Bearer first"),)
    assert not made.learn("")
    path.write_text("second\n")
    assert made.learn("")
    assert made.metadata == (("authorization", "Bearer second"),)
    made.close()


def test_a_server_that_speaks_only_when_it_is_spoken_to_is_spoken_to(tmp_path):
    trust, heard = authority.make(tmp_path), []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trust.certificate, trust.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with context.wrap_socket(listener.accept()[0], server_side=True) as opened:
                heard.append(opened.recv(24))
                opened.sendall(bytes(9))

        serving = threading.Thread(target=serve)
        serving.start()
        Credentials(ca=str(trust.ca)).shake_hands("127.0.0.1", listener.getsockname()[1], "x")
        serving.join()
    assert heard == [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]


@pytest.fixture
def served(tmp_path):
    """The address of a server that shows a certificate and serves, and who signed that."""
    trust, server = authority.make(tmp_path), grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)
    pair = (trust.key.read_bytes(), trust.certificate.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield f"127.0.0.1:{port}", Credentials(ca=str(trust.ca))
    server.stop(None).wait()


def test_addresses_of_a_name_that_are_dead_do_not_keep_from_the_server_that_serves(served, monkeypatch):
    def dead(*_, **__):
        raise TimeoutError  # as the first address of a name does, whose server is gone

    monkeypatch.setattr(socket, "create_connection", dead)
    made = Connection(Running(*served))
    assert made.channel
    made.close()


def test_a_name_that_is_not_resolved_is_told_as_that(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    trust = authority.make(tmp_path)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0)
    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(ServerError, match=r"name 127.0.0.1 is not resolved \(Temporary failure") as caught:
        assert Connection(Running("127.0.0.1:1", Credentials(ca=str(trust.ca)))).channel
    assert caught.value.exit is Exit.UNAVAILABLE


def test_no_cookie_of_this_machine_is_sent_to_another(tmp_path):
    path = tmp_path / "cookie"
    path.write_text("c0" * 32)
    path.chmod(0o600)
    assert Connection(Running("127.0.0.1:1")).learn(str(path))
    assert not Connection(Running("https://10.0.0.1:1")).learn(str(path))


def test_a_token_is_in_no_text_of_what_holds_it():
    assert "hush" not in repr(Credentials(token="hush"))


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "\x00", "é", "x" * 8000])
def test_what_no_header_can_hold_is_no_token(token):
    with pytest.raises(ServerError, match="no token") as caught:
        Credentials(token=token).bearer()
    assert token not in caught.value.message


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.5.5.5:1", "localhost:1", "[::1]:1"])
def test_loopback_addresses(address):
    assert Running(address).target == address


def test_nobody_there_is_an_error_that_says_how_to_start_one(monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(ServerError, match=f"cropduster serve --listen {address}") as caught:
            _ = Connection(Running(address)).channel
    assert caught.value.exit is Exit.UNAVAILABLE


def test_a_server_that_listens_and_has_much_to_do_is_waited_for(monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0)
    answers = iter([b"\x08\x02", b"\x08\x02"])  # not serving
    health = grpc.unary_unary_rpc_method_handler(lambda _request, _context: next(answers, b"\x08\x01"))
    handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health})
    server = grpc.server(ThreadPoolExecutor(1), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    made = Connection(Running(f"127.0.0.1:{port}"))
    assert made.channel
    assert next(answers, None) is None
    made.close()
    server.stop(None)


async def test_a_server_whose_machine_is_gone_without_a_word_is_missed(tmp_path, monkeypatch):
    soon = tuple((name, 1000 if name.endswith("_ms") else value) for name, value in connection._FAR)
    monkeypatch.setattr(connection, "_FAR", soon)
    trust = authority.make(tmp_path)

    async def quiet(_request, _context):
        yield b"first"
        await asyncio.Event().wait()

    server = aio.server()
    handlers = {"quiet": grpc.unary_stream_rpc_method_handler(quiet)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    pair = trust.key.read_bytes(), trust.certificate.read_bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    async with cable(port) as between:
        made = Connection(Running(f"127.0.0.1:{between.port}", Credentials(ca=str(trust.ca))))
        made.open()
        call = made.channel.unary_stream("/t.T/quiet")(b"")
        assert await asyncio.to_thread(next, call) == b"first"
        between.stall_after(1)
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            await asyncio.wait_for(asyncio.to_thread(next, call), 20)
        made.close()
    await server.stop(0)
