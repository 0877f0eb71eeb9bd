"""A channel to the server, the cookie that it asks for, and how to have both again after a break.

Plain connections go to this machine only: to the socket of the embedded server, or to a loopback address. A server
proves who calls by a file that only its own user can read: it answers the first call with the path of its cookie,
and who can read that file sends what it holds with every further call.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
import time
from pathlib import Path
from typing import Final, Protocol

import grpc

from client.embedded import EmbeddedServer
from client.errors import as_call, invalid, unavailable

COOKIE_KEY: Final = "cropduster-cookie"
CONNECT_SECONDS: Final = 5.0

_COOKIE: Final = re.compile(rb"[0-9A-Za-z+/=_-]{32,128}")
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment must not come between this machine and itself
    # A plan or a file of 100,000 parts is one message, and so is a request with as many sources: more than the usual
    # 4 MiB. Both as the server has them; data travels in messages of 1 MiB.
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.http2.lookahead_bytes", 16 << 20),
)
_SERVING: Final = 1  # grpc.health.v1.HealthCheckResponse.ServingStatus

Metadata = tuple[tuple[str, str], ...]


class Route(Protocol):
    """Where a server is, and how to make sure that it answers."""

    @property
    def target(self) -> str:
        """Its address for gRPC."""
        ...

    def prepare(self, connection: Connection) -> None:
        """Return once the server answers; raises ServerError when it does not in time."""
        ...

    def leave(self) -> None:
        """The server is not needed any more; idempotent."""
        ...


class Loopback:
    """A server that somebody runs on a loopback address.

    Args:
        address: HOST:PORT.

    Raises:
        ServerError: INVALID_SPEC, the address is none, or not of this machine.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            msg = f"the server '{address}' is not HOST:PORT: write for example 127.0.0.1:7300"
            raise invalid(msg, server=address)
        self._host = host.strip("[]")
        self._port = int(port)
        if not _is_loopback(self._host):
            msg = (
                f"the server {address} is on another machine, and this version does not encrypt what it sends: "
                "forward a port of this machine to it, and name that as 127.0.0.1:PORT"
            )
            raise invalid(msg, server=address)
        self.target = address

    def prepare(self, connection: Connection) -> None:
        """Wait at most `CONNECT_SECONDS` until somebody listens there and serves."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            if self._listens():
                connection.open()
                if connection.serving():
                    return
            if time.monotonic() > deadline:
                msg = (
                    f"no server answers at {self.target}: start one with "
                    f"'cropduster serve --listen {self.target}', or leave out --server"
                )
                raise unavailable(msg, server=self.target)
            time.sleep(0.1)

    def leave(self) -> None:
        """It is somebody else's server, and stays."""

    def _listens(self) -> bool:
        try:
            socket.create_connection((self._host, self._port), timeout=1).close()
        except OSError:
            return False
        return True


class Embedded:
    """The server that we start for ourselves when it does not run."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self.target = server.target

    def prepare(self, connection: Connection) -> None:
        """Make sure that the right embedded server serves."""

        def serving() -> bool:
            # The cookie is made by the server before it listens, and may be a new one since the last time.
            connection.cookie = read_cookie(self._server.cookie)
            connection.open()
            return connection.serving()

        self._server.ensure(serving)

    def leave(self) -> None:
        """Commands with another configuration may have their own server now."""
        self._server.leave()


class Connection:
    """One channel at a time to one server; not for several threads that reconnect."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._channel: grpc.Channel | None = None
        self.cookie: str | None = None
        self.state: Path | None = None
        """The server's state directory, where it is not ours to know beforehand; known once it has asked who calls."""

    @property
    def target(self) -> str:
        """The server's address for gRPC."""
        return self._route.target

    @property
    def channel(self) -> grpc.Channel:
        """The channel; connects at the first use. Raises ServerError when no server answers."""
        if self._channel is None:
            self._route.prepare(self)
        assert self._channel is not None, "a route that is prepared has opened the channel"
        return self._channel

    @property
    def metadata(self) -> Metadata:
        """What every call carries."""
        return ((COOKIE_KEY, self.cookie),) if self.cookie else ()

    def open(self) -> None:
        """Make a fresh channel, because gRPC waits longer and longer before it tries a broken one again."""
        self._drop()
        self._channel = grpc.insecure_channel(self._route.target, options=_OPTIONS)

    def serving(self) -> bool:
        """Ask the standard health service; a server that wants to know first who calls is alive, too.

        The two messages are two bytes together, which spares the client another distribution.
        """
        if self._channel is None:
            return False
        ask = self._channel.unary_unary("/grpc.health.v1.Health/Check", _identity, _identity)
        try:
            answer = ask(b"", timeout=2, metadata=self.metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            return as_call(error).code() is grpc.StatusCode.UNAUTHENTICATED
        return answer == bytes([0x08, _SERVING])

    def learn_cookie(self, path: str) -> bool:
        """Take the cookie from the file that the server names; False if that gives none, or the same as before."""
        found = read_cookie(Path(path))
        if found is None or found == self.cookie:
            return False
        self.cookie = found
        self.state = Path(path).parent
        return True

    def close(self) -> None:
        """Release the channel and the server; the next use connects again."""
        self._drop()
        self._route.leave()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def read_cookie(path: Path) -> str | None:
    """The cookie in a file, if the file is ours alone and holds nothing else.

    The path comes from whoever answers at a port, so it is not trusted to name a cookie: a file with another name,
    of another owner, open to others or with other contents is never read out to the server.
    """
    if path.name != "cookie" or not path.is_absolute():
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            return None
        held = os.read(descriptor, 1024).strip()
    finally:
        os.close(descriptor)
    return held.decode("ascii") if _COOKIE.fullmatch(held) else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _identity(data: bytes) -> bytes:
    return data
