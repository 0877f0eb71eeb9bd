from __future__ import annotations

import socket

import pytest

from client import connection
from client.connection import Connection, Running
from client.errors import Exit, ServerError


@pytest.mark.parametrize(
    "address", ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", ":7300", "a:b"]
)
def test_an_address_is_host_and_port(address):
    with pytest.raises(ServerError, match="HOST:PORT") as caught:
        Running(address)
    assert caught.value.exit is Exit.BAD_REQUEST


@pytest.mark.parametrize("address", ["10.0.0.1:7300", "example.org:7300", "0.0.0.0:7300", "[2001:db8::1]:7300"])
def test_nothing_is_sent_in_the_clear_to_another_machine(address):
    with pytest.raises(ServerError, match="another machine"):
        Running(address)


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
