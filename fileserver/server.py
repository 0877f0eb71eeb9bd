"""The server: listeners, what surrounds a call, health, and an end in good order. Knows no verb.

Up: the addresses, everything that a call may need, then the listeners, then health says SERVING. Down: health says
NOT_SERVING, new calls are sent elsewhere, streams end, transfers stop at their next step, planes and store close. The
state directory is held from before the first to after the last of this (`fileserver.state.hold`), by whoever runs a
server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fileserver.admission import Admission
from fileserver.calls import LARGEST, Around, Calls, Gate, Interceptor
from fileserver.errors import InvalidSpec
from fileserver.status import ErrorInterceptor
from planes.plane import MIB

OPTIONS: Final = (
    # Data travels in messages of 1 MiB, and most else is small. But a spray of many sources and a registered file name
    # each object, and a plan or a file with its parts names every part: some 60,000 of them are more than the usual
    # 4 MiB. What callers send is held before they are known, so that limit is the lower one.
    ("grpc.max_receive_message_length", 16 * MIB),
    ("grpc.max_send_message_length", LARGEST),
    ("grpc.http2.lookahead_bytes", 16 * MIB),
    # Agents and other file servers ask every ten seconds whether we are still there, also where nothing else is said
    # for minutes. The usual rule takes that for abuse, and breaks the connection off with all that is under way on it.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),  # a second server on one port is a mistake that must be told
)
SPREAD: Final = (("grpc.max_connection_age_ms", 300_000), ("grpc.max_connection_age_grace_ms", 3_600_000))
"""For one of many servers: connections end after a while, so that callers find those that were added since."""
OUTSIDE: Final = (
    # A machine that was switched off says nothing. What its agent holds goes to others once it is missed, and a place
    # that nobody needs any more is free. Whoever calls at home may be stopped for a while, and goes on.
    ("grpc.keepalive_time_ms", 10_000),
    # Behind what is under way on a slow line an answer takes a while. The second is what gRPC 1.85 goes by.
    ("grpc.keepalive_timeout_ms", 60_000),
    ("grpc.http2.ping_timeout_ms", 60_000),
    ("grpc.http2.max_pings_without_data", 0),  # else two, and no more until something is said
)
"""For callers from other machines."""
GRACE: Final = 10.0
"""Seconds that transfers and calls have to stop in good order."""
PACKAGE: Final = "fileserver.v1."
_LOOK: Final = 0.05  # seconds between two looks whether nobody needs us any more
REFLECTION: Final = "grpc.reflection.v1alpha.ServerReflection"

_log = structlog.stdlib.get_logger(__name__)


class Jobs(Protocol):
    """The transfers, as far as a server starts and stops them."""

    async def start(self) -> None:
        """Begin to work, also on what an earlier process left."""
        ...

    async def stop(self) -> None:
        """Stop at the next step; what is unfinished goes on at the next start."""
        ...

    def unfinished(self) -> int:
        """Transfers that have not ended."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """One service and how it is registered."""

    name: str
    """Without its package: `DataService`."""
    add_to: Callable[[aio.Server], object]
    external: bool = True
    """Also offered to callers from outside."""
    internal: bool = True
    """Also offered to the server's own kind and user."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Addresses that are guarded alike."""

    addresses: Sequence[str]
    """`unix:/path` or `host:port`."""
    around: Sequence[Around | Gate]
    """What finds out who calls, and whether that may be, the outermost first."""
    internal: bool = True
    """Every service answers, not only those for callers from outside."""
    reflect: bool = True
    """Callers may ask which services there are."""
    only_health: bool = False
    """No service answers but the one that tells whether the server serves."""
    credentials: grpc.ServerCredentials | None = None
    """Of TLS; None is in the clear."""


class Server:
    """One file server process.

    Args:
        services: what it offers.
        jobs: what it works on.
        listeners: where it answers, and whom.
        many: it is one of many.
    """

    def __init__(
        self, services: Sequence[Service], jobs: Jobs, listeners: Sequence[Listener], *, many: bool = False
    ) -> None:
        self.calls = Calls()
        self._admission = Admission()
        self._many = many
        self._services = services
        self._jobs = jobs
        self._health = health.aio.HealthServicer()
        self._wanted = listeners
        self._listeners: list[aio.Server] = []
        self._sockets: list[Path] = []
        self._working = False

    async def start(self) -> list[str]:
        """Open the listeners and begin to work; the addresses, with the port that the kernel chose for port 0.

        Raises:
            InvalidSpec: an address can't be listened on.
        """
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        bound: list[str] = []
        for wanted in self._wanted:
            listener = self._listener(wanted)
            self._listeners.append(listener)
            bound += [self._bind(listener, address, wanted.credentials) for address in wanted.addresses]
        self._working = True  # what fails on its way up is stopped, too
        await self._jobs.start()
        for listener in self._listeners:
            await listener.start()
        for name in ("", *(PACKAGE + s.name for s in self._services)):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return bound

    def _listener(self, wanted: Listener) -> aio.Server:
        services = [
            s for s in self._services if not wanted.only_health and (s.internal if wanted.internal else s.external)
        ]
        around = (self.calls.around, *wanted.around, self._admission.around)
        guards = (a if isinstance(a, Gate) else Interceptor(a) for a in around)
        interceptors = [ErrorInterceptor(), *guards]
        others = wanted.credentials is not None or not wanted.internal
        options = OPTIONS + (SPREAD if self._many else ()) + (OUTSIDE if others else ())
        listener = aio.server(interceptors=interceptors, options=options)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, listener)
        for service in services:
            service.add_to(listener)
        if wanted.reflect:
            names = [PACKAGE + s.name for s in services] + [health.SERVICE_NAME, REFLECTION]
            listener.add_generic_rpc_handlers((_Reflection(names),))
        return listener

    def _bind(self, listener: aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
        path = Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
        port = None
        if not (path and _answers(path)):  # gRPC would silently take a living server's socket over
            with suppress(RuntimeError):
                if credentials is None:
                    port = listener.add_insecure_port(address)
                else:
                    port = listener.add_secure_port(address, credentials)
        if port is None:
            msg = f"can't listen on {address}: it is in use, or this user may not; name another with --listen"
            raise InvalidSpec(msg, {"listen": msg}, address=address)
        if path is None:
            return f"{address.rpartition(':')[0]}:{port}"
        self._sockets.append(path)
        path.chmod(0o600)
        return address

    async def idle(self, seconds: float) -> None:
        """Return once nobody has called and no transfer has been unfinished for so many seconds."""
        while True:
            if not self.calls.active and self.calls.idle >= seconds:
                if not self._jobs.unfinished():
                    return
                self.calls.touch()
            await asyncio.sleep(max(_LOOK, seconds - self.calls.idle))

    async def stop(self, grace: float = GRACE) -> None:
        """End in good order; the listeners' sockets are gone on return."""
        await self._health.enter_graceful_shutdown()
        self.calls.drain()
        if self._working:
            await self._stop_jobs(grace)
        for listener in self._listeners:
            await listener.stop(grace)
        self._listeners.clear()
        for path in self._sockets:  # gRPC leaves the socket of a listener that was never started
            path.unlink(missing_ok=True)

    async def _stop_jobs(self, grace: float) -> None:
        """Wait for the transfers; a step that hangs is done again at the next start."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._jobs.stop()
        except Exception:  # noqa: BLE001  # listeners that nobody stops must not stay, whatever went wrong here
            _log.exception("transfers did not stop in good order")


def _answers(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class _Reflection(grpc.GenericRpcHandler):
    """Server reflection, loaded at the first question: most servers are never asked."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._handlers: Mapping[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The method that answers, or None if the call is about something else."""
        method = f"/{REFLECTION}/ServerReflectionInfo"
        if handler_call_details.method != method:
            return None
        if method not in self._handlers:
            from grpc_reflection.v1alpha import reflection, reflection_pb2  # noqa: PLC0415 - see above

            answers = reflection.aio.ReflectionServicer(self._names)
            self._handlers = {
                method: grpc.stream_stream_rpc_method_handler(
                    answers.ServerReflectionInfo,
                    reflection_pb2.ServerReflectionRequest.FromString,
                    reflection_pb2.ServerReflectionResponse.SerializeToString,
                )
            }
        return self._handlers[method]


async def first(*waits: Awaitable[object]) -> None:
    """Return when one of them does; the others are cancelled."""
    tasks = [asyncio.ensure_future(w) for w in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
