"""A proxy between an SDK and a real store: it records what travels, and misbehaves where a test says so.

    with proxy.before(store.endpoint) as between:
        between.once(proxy.drop_answer, method="POST", query="uploadId")
        ...  # use between.endpoint instead of store.endpoint
        assert between.seen[-1].method == "HEAD"

A fault is a function of an `Exchange`; the ones below are the usual, a test may write its own. Requests are passed on
as they came, signatures and the Host header included. Bodies are held in memory: for tests, not for benches.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from tests.doubles.authority import Trust

_PER_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


@dataclass(slots=True)
class Request:
    """One request that passed; sizes are of bodies, in bytes."""

    method: str
    path: str
    """Decoded, with the leading `/bucket/`."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    received: int
    """Bytes that the client sent."""
    sent: int = 0
    """Bytes that the client was sent."""
    status: int = 0
    """What the client was answered; 0 for nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: int | None = None
    """Content-Length to claim, if it is not that of the body (an answer to HEAD has one)."""

    def with_header(self, name: str, value: str) -> Answer:
        """The same with another value of one header."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=(*kept, (name, value)))


@dataclass(slots=True)
class Exchange:
    """One request in a fault's hands: forward it or not, send an answer or cut."""

    request: Request
    _body: bytes
    _raw_path: str
    _upstream: tuple[str, int]
    _handler: http.server.BaseHTTPRequestHandler
    _headers: list[tuple[str, str]]

    def forward(self) -> Answer:
        """Let the store do it; its whole answer."""
        connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.request.method, self._raw_path, skip_host=True, skip_accept_encoding=True)
            for name, value in self._headers:
                if name.lower() not in _PER_HOP:
                    connection.putheader(name, value)
            connection.endheaders(self._body or None)
            response = connection.getresponse()
            body = response.read()
            length = response.getheader("content-length") if self.request.method == "HEAD" else None
        headers = tuple(pair for pair in response.getheaders() if pair[0].lower() not in {*_PER_HOP, "content-length"})
        return Answer(response.status, headers, body, int(length) if length else None)

    def send(self, answer: Answer, *, only: int | None = None, piece: int = 1 << 30) -> None:
        """Send an answer, by pieces; with `only`, claim all of it and send that many bytes of its body."""
        handler, body = self._handler, answer.body if only is None else answer.body[:only]
        handler.send_response_only(answer.status)
        for name, value in answer.headers:
            handler.send_header(name, value)
        bodiless = answer.status in {204, 304}
        if not bodiless:
            handler.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
        handler.end_headers()
        self.request.status = answer.status
        if self.request.method != "HEAD" and not bodiless:
            for at in range(0, len(body), piece):
                handler.wfile.write(body[at : at + piece])
                handler.wfile.flush()
            self.request.sent += len(body)
        handler.wfile.flush()

    def wait_for_the_client(self) -> None:
        """Until the client hangs up."""
        with contextlib.suppress(OSError):
            self._handler.connection.recv(1)
        self._handler.close_connection = True

    def flip(self) -> None:
        """Turn the first bit of the request's body."""
        self._body = bytes([self._body[0] ^ 1]) + self._body[1:]

    def hang_up(self, *, reset: bool = False) -> None:
        """End the connection: politely, or with a reset."""
        self._handler.close_connection = True
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            self._handler.connection.shutdown(socket.SHUT_RDWR)


Fault = Callable[[Exchange], None]


def drop_answer(exchange: Exchange) -> None:
    """The store does it; the client hears nothing."""
    exchange.forward()
    exchange.hang_up(reset=True)


def refuse(exchange: Exchange) -> None:
    """The connection is reset before the store hears of it."""
    exchange.hang_up(reset=True)


def slow_down(exchange: Exchange) -> None:
    """503 SlowDown with Retry-After of 7 seconds; the store hears nothing."""
    exchange.send(_error(503, "SlowDown").with_header("Retry-After", "7"))


def fail(exchange: Exchange) -> None:
    """500 InternalError; the store hears nothing."""
    exchange.send(_error(500, "InternalError"))


def fail_after(exchange: Exchange) -> None:
    """The store does it; the client is told 500 InternalError."""
    exchange.forward()
    exchange.send(_error(500, "InternalError"))


def conflict(exchange: Exchange) -> None:
    """409 ConditionalRequestConflict, as if another conditional write were under way."""
    exchange.send(_error(409, "ConditionalRequestConflict"))


def error_in_200(exchange: Exchange) -> None:
    """200 with an error document in its body, as S3 answers copies and commits that fail late."""
    exchange.send(_error(200, "InternalError"))


def truncate(size: int) -> Fault:
    """Headers that promise all of the body, `size` bytes of it, then an orderly end of the connection."""

    def fault(exchange: Exchange) -> None:
        exchange.send(exchange.forward(), only=size)
        exchange.hang_up()

    return fault


def reset_after(size: int) -> Fault:
    """The same, but the connection is reset."""

    def fault(exchange: Exchange) -> None:
        exchange.send(exchange.forward(), only=size)
        exchange.hang_up(reset=True)

    return fault


def flip_sent(exchange: Exchange) -> None:
    """One bit of what the client sends is wrong when it reaches the store."""
    exchange.flip()
    exchange.send(exchange.forward())


def dribble(piece: int) -> Fault:
    """The store's answer in many small pieces: slow, and nothing is wrong with it."""
    return lambda exchange: exchange.send(exchange.forward(), piece=piece)


def stall(size: int) -> Fault:
    """Headers and `size` bytes of the body, and then nothing more until the client has had enough."""

    def fault(exchange: Exchange) -> None:
        exchange.send(exchange.forward(), only=size)
        exchange.wait_for_the_client()

    return fault


def twice(exchange: Exchange) -> None:
    """The network delivers the request twice; the client hears the second answer."""
    exchange.forward()
    exchange.send(exchange.forward())


def with_header(name: str, value: str) -> Fault:
    """The store's answer with another value of one header."""
    return change(lambda answer: answer.with_header(name, value))


def change(edit: Callable[[Answer], Answer]) -> Fault:
    """The store's answer, edited."""
    return lambda exchange: exchange.send(edit(exchange.forward()))


def after(action: Callable[[], None]) -> Fault:
    """Do something (overwrite the source, say), then let the request pass."""

    def fault(exchange: Exchange) -> None:
        action()
        exchange.send(exchange.forward())

    return fault


def answer(status: int, code: str) -> Fault:
    """An error document of the store's kind; the store hears nothing."""
    return lambda exchange: exchange.send(_error(status, code))


def _error(status: int, code: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>by a test</Message></Error>'
    return Answer(status, (("Content-Type", "application/xml"),), text.encode())


@dataclass(slots=True)
class _Rule:
    fault: Fault
    method: str
    query: str
    path: str
    header: str
    times: int

    def matches(self, request: Request) -> bool:
        return (
            self.times > 0
            and self.method in {"", request.method}
            and self.query in request.query
            and self.path in request.path
            and (not self.header or self.header in request.headers)
        )


@dataclass(slots=True)
class Proxy:
    """A running proxy: what it saw, and what it will do."""

    endpoint: str
    seen: list[Request] = field(default_factory=list)
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def once(
        self, fault: Fault, *, method: str = "", query: str = "", path: str = "", header: str = "", times: int = 1
    ) -> None:
        """Apply a fault to the next `times` requests of this method whose query and path contain these words.

        `header` asks that the request has a header of this name (in lower case).
        """
        with self._lock:
            self._rules.append(_Rule(fault, method, query, path, header, times))

    def always(self, fault: Fault, *, method: str = "", query: str = "", path: str = "", header: str = "") -> None:
        """Apply a fault to all such requests, until `clear`."""
        self.once(fault, method=method, query=query, path=path, header=header, times=sys.maxsize)

    def clear(self) -> None:
        """Forget what was seen, and the faults that were not used."""
        with self._lock:
            self.seen.clear()
            self._rules.clear()

    def requests(self, method: str = "", query: str = "") -> list[Request]:
        """What was seen of this kind."""
        return [each for each in self.seen if method in {"", each.method} and query in each.query]

    @property
    def payload(self) -> int:
        """Bytes of all bodies, both ways."""
        return sum(each.received + each.sent for each in self.seen)

    def _fault(self, request: Request) -> Fault:
        with self._lock:
            self.seen.append(request)
            for rule in self._rules:
                if rule.matches(request):
                    rule.times -= 1
                    return rule.fault
        return change(lambda answer: answer)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: object) -> None:
        """Close without the usual polite end, which would come before a reset."""
        self.close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up on faults; that is what they are for."""


@contextlib.contextmanager
def before(endpoint: str, trust: Trust | None = None) -> Iterator[Proxy]:
    """Run a proxy before the store at `endpoint` (http only); with `trust` it is spoken to by TLS."""
    url = urlsplit(endpoint)
    upstream = (str(url.hostname), url.port or 80)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, unquote(path), query, headers, len(body))
            exchange = Exchange(request, body, self.path, upstream, self, list(self.headers.items()))
            proxy._fault(request)(exchange)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 - the server's names

        def log_message(self, *_: object) -> None:
            """Be silent."""

    server = _Server(("127.0.0.1", 0), Handler)
    if trust:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(trust.certificate, trust.key)
        # The handshake is left to the thread of the connection: one that fails must not stop the server.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    proxy = Proxy(f"http{'s' if trust else ''}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
