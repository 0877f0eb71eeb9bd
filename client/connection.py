"""A channel to the server, what it asks of its callers, and how to have both again after a break.

Plain connections go to this machine only: to the socket of the embedded server, or to a loopback address. Such a server
proves who calls by a file that only its own user can read: it answers the first call with the path of its cookie,
and who can read that file sends what it holds with every further call. Connections to other machines are encrypted, the
server shows a certificate, and no cookie is sent there; a token may be, over either.
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

from client.credentials import Credentials
from client.embedded import EmbeddedServer
from client.errors import ServerError, as_call, invalid, unavailable

COOKIE_KEY: Final = "cropduster-cookie"
TOKEN_KEY: Final = "authorization"  # noqa: S105 - the name of a header
CONNECT_SECONDS: Final = 5.0
"""Until somebody listens."""
ANSWER_SECONDS: Final = 15.0
"""Until who listens serves: a server to which hundreds come at once takes that long."""

_COOKIE: Final = re.compile(rb"[0-9A-Za-z+/=_-]{32,128}")
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment must not come between this machine and itself
    # A plan or a file of 100,000 parts is one message, and so is a request with as many sources: more than the usual
    # 4 MiB. Both as the server has them; data travels in messages of 1 MiB.
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.http2.lookahead_bytes", 16 << 20),
)
_FAR: Final = (
    # Where a name stands for many servers, all of them are called in turn.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    # A machine that went away without a word is noticed by pings that nobody answers; else one would watch it for ever.
    # Behind what is under way on a slow line an answer takes a while. The second is what gRPC 1.85 goes by.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 60_000),
    ("grpc.http2.ping_timeout_ms", 60_000),
    ("grpc.http2.max_pings_without_data", 0),  # else one a minute, from the third on
)
"""For servers of other machines."""
_SERVING: Final = 1  # grpc.health.v1.HealthCheckResponse.ServingStatus

Metadata = tuple[tuple[str, str], ...]


class Route(Protocol):
    """Where a server is, and how to make sure that it answers."""

    @property
    def target(self) -> str:
        """Its address for gRPC."""
        ...

    @property
    def credentials(self) -> Credentials | None:
        """What it is shown; None is a connection in the clear, and nothing but a cookie."""
        ...

    @property
    def is_encrypted(self) -> bool:
        """Whether it has to show a certificate, and nobody else can read what is said."""
        ...

    def prepare(self, connection: Connection) -> None:
        """Return once the server answers; raises ServerError when it does not in time."""
        ...

    def leave(self) -> None:
        """The server is not needed any more; idempotent."""
        ...


class Running:
    """A server that somebody runs.

    Args:
        address: HOST:PORT; behind `https://` the connection is encrypted.
        credentials: what it is shown; with `ca` or `cert` the connection is encrypted, too.

    Raises:
        ServerError: INVALID_SPEC, the address is none, or that of another machine without encryption.
    """

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        self.credentials = credentials or Credentials()
        bare = address.removeprefix("https://").removesuffix("/") if address.startswith("https://") else address
        host, _, port = bare.rpartition(":")
        if not host or "/" in host or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            msg = f"the server '{address}' is not HOST:PORT: write for example 127.0.0.1:7300"
            raise invalid(msg, server=address)
        self._host = host.strip("[]")
        self._port = int(port)
        self.is_encrypted = bare != address or bool(self.credentials.ca or self.credentials.cert)
        self.is_here = _is_loopback(self._host)
        if not self.is_here and not self.is_encrypted:
            msg = (
                f"the server {address} is on another machine, and nothing is sent there in the clear: say who signed "
                f"its certificate with --ca FILE, or write https://{address} if the machine's authorities did"
            )
            raise invalid(msg, server=address)
        self.target = bare

    def prepare(self, connection: Connection) -> None:
        """Wait until somebody listens there and serves: `CONNECT_SECONDS` for the one, `ANSWER_SECONDS` for both."""
        begun = time.monotonic()
        while True:
            # A name may stand for servers that are gone: gRPC calls all of them at once, and what is tried below one
            # after the other is only to say what is wrong with them. A machine's own address is one, and soon tried.
            failure = None if self.is_encrypted else self._failure()
            if failure is None:
                connection.open()
                if connection.serving(patient=not self.is_encrypted):
                    return
                failure = self._failure()
            if time.monotonic() > begun + (CONNECT_SECONDS if failure else ANSWER_SECONDS):
                raise self._nobody(failure)
            time.sleep(0.1)

    def _nobody(self, failure: OSError | None) -> ServerError:
        """The error of a server that does not serve; without a failure something listens there."""
        if isinstance(failure, socket.gaierror):
            way_out = f"the name {self._host} is not resolved ({failure.strerror}): check it, and the machine's DNS"
        elif not self.is_here:
            way_out = "check the address, and whether a firewall lets you through"
        elif failure is None and not self.is_encrypted:
            way_out = (
                "something listens there: try again if it has much to do; if that is its encrypted address, say who "
                "signed its certificate with --ca"
            )
        else:
            way_out = f"start one with 'cropduster serve --listen {self.target}', or leave out --server"
        return unavailable(f"no server answers at {self.target}: {way_out}", server=self.target)

    def leave(self) -> None:
        """It is somebody else's server, and stays."""

    def _failure(self) -> OSError | None:
        """Why nobody can be reached there; None where something listens."""
        try:
            if self.is_encrypted:
                self.credentials.shake_hands(self._host, self._port, self.target)
            else:
                socket.create_connection((self._host, self._port), timeout=1).close()
        except OSError as error:
            return error
        return None


class Embedded:
    """The server that we start for ourselves when it does not run."""

    credentials: Final = None
    is_encrypted: Final = False

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
        self._token = ""
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
        if self._token:
            return ((TOKEN_KEY, f"Bearer {self._token}"),)
        return ((COOKIE_KEY, self.cookie),) if self.cookie else ()

    @property
    def shown(self) -> Credentials | None:
        """What an encrypted connection shows; None for one in the clear."""
        return self._route.credentials if self._route.is_encrypted else None

    @property
    def token_file(self) -> str:
        """Where the token is found anew when it was renewed; "" where it stands in no file."""
        shown = self._route.credentials
        return shown.token_file if shown else ""

    def open(self) -> None:
        """Make a fresh channel, because gRPC waits longer and longer before it tries a broken one again."""
        self._drop()
        shown = self._route.credentials
        self._token = shown.bearer() if shown else ""
        if shown and self._route.is_encrypted:
            self._channel = grpc.secure_channel(self._route.target, shown.channel(), options=_OPTIONS + _FAR)
        else:
            self._channel = grpc.insecure_channel(self._route.target, options=_OPTIONS)

    def serving(self, *, patient: bool = True) -> bool:
        """Ask the standard health service; a server that wants to know first who calls is alive, too.

        The two messages are two bytes together, which spares the client another distribution.

        Args:
            patient: wait up to two seconds for a server that cannot be reached; else that is an answer.
        """
        if self._channel is None:
            return False
        ask = self._channel.unary_unary("/grpc.health.v1.Health/Check", _identity, _identity)
        try:
            answer = ask(b"", timeout=2, metadata=self.metadata, wait_for_ready=patient)
        except grpc.RpcError as error:
            return as_call(error).code() is grpc.StatusCode.UNAUTHENTICATED
        return answer == bytes([0x08, _SERVING])

    def learn(self, path: str) -> bool:
        """Take a token that was renewed, or the cookie from the file that the server names, if it is of this machine.

        False if that gives nothing, or the same as before.
        """
        shown = self._route.credentials
        token = shown.bearer() if shown else ""
        if token:
            renewed, self._token = token != self._token, token
            return renewed
        if self._route.is_encrypted:  # whoever answers there must not have a cookie of this machine
            return False
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
