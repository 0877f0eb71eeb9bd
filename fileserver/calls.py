"""What surrounds every call: one way to wrap a method of any kind, and the count of calls in progress.

An interceptor here is an async context manager around the call. A generator method is turned into a writing one on
the way, so that a cancelled call ends inside the context manager and not whenever its generator is collected.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import grpc
from grpc import aio

from fileserver.errors import ServerUnavailable
from planes.plane import MIB

HEALTH: Final = "/grpc.health."
"""Methods that begin so are asked by machines: they need no cookie and keep no server awake."""

GRANT_KEY: Final = "cropduster-grant"
"""Header of the calls that an agent makes for its payload; what it holds: `fileserver.grants`."""

LARGEST: Final = 64 * MIB
"""Bytes of an answer that servers send and callers take."""

# The types are generic for type checkers alone.
Context: TypeAlias = "aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Call:
    """One call as an interceptor sees it."""

    method: str
    """As on the wire: `/fileserver.v1.DataService/Read`."""
    streams: bool
    """It answers with a stream."""
    context: Context
    request: Any = None
    """What was asked; None where it comes as a stream."""


Around = Callable[[Call], AbstractAsyncContextManager[None]]


class Told(Protocol):
    """Is told of a call while it goes on."""

    def about(self, what: str) -> None:
        """It is about this."""
        ...

    def begun(self) -> None:
        """It goes on for long from now."""
        ...


_told: ContextVar[Told | None] = ContextVar("told", default=None)


def hear(told: Told) -> None:
    """Have this told of the call that begins here."""
    _told.set(told)


def about(what: str) -> None:
    """Say what the call in progress is about, where that is in no request: it came in a stream, or with a grant."""
    if (told := _told.get()) is not None:
        told.about(what)


def begun() -> None:
    """Say that the call in progress may be, and that its caller stays."""
    if (told := _told.get()) is not None:
        told.begun()


class Interceptor(aio.ServerInterceptor):
    """Puts an async context manager around every call of a server."""

    def __init__(self, around: Around) -> None:
        self._around = around

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method that was asked for, wrapped; None (which gRPC answers itself) for an unknown one."""
        handler = await continuation(handler_call_details)
        return wrap(handler, handler_call_details.method, self._around) if handler else None


def wrap(handler: Handler, method: str, around: Around) -> Handler:
    """The same method of the same kind within `around`."""
    streams = bool(handler.response_streaming)
    behaviour: Any = next(  # a coroutine or generator function: the stubs know synchronous servers alone
        b for b in (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream) if b
    )

    def told(request: Any) -> Any:
        return None if handler.request_streaming else request

    async def answering(request: Any, context: Context) -> Any:
        async with around(Call(method, streams, context, told(request))):
            return await behaviour(request, context)

    async def generating(request: Any, context: Context) -> None:
        async with (
            around(Call(method, streams, context, told(request))),
            aclosing(behaviour(request, context)) as responses,
        ):
            async for response in responses:
                await send(context, response)

    kinds: dict[tuple[bool, bool], Callable[..., Handler]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return kinds[bool(handler.request_streaming), streams](
        generating if inspect.isasyncgenfunction(behaviour) else answering,
        handler.request_deserializer,
        handler.response_serializer,
    )


Metadata: TypeAlias = "Sequence[tuple[str, str | bytes]]"


class Gate(aio.ServerInterceptor):
    """Asks who calls before anything of what is asked is taken in: strangers' requests take no memory.

    Args:
        checks: of a method and its metadata; each raises an Error of ours to refuse the call.
    """

    def __init__(self, *checks: Callable[[str, Metadata], Awaitable[None]]) -> None:
        self._checks = checks

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method that was asked for, or one that answers with the refusal and reads nothing."""
        try:
            for check in self._checks:
                await check(handler_call_details.method, handler_call_details.invocation_metadata or ())
        except Exception as refused:  # noqa: BLE001 - told as errors of the call itself are, bugs too, not by gRPC
            return _refusing(refused)
        return await continuation(handler_call_details)


def _refusing(error: Exception) -> Handler:
    async def refuse(_requests: Any, _context: Context) -> None:
        raise error

    return grpc.stream_stream_rpc_method_handler(refuse)  # the kind whose requests are read by itself: that reads none


class CallerGone(Exception):
    """The caller hung up in the middle: an ordinary end of a call, which nobody is there to be told."""


async def send(context: Context, response: object, seconds: float | None = None) -> None:
    """Write one answer of a stream, whole even if the call is cancelled meanwhile by us.

    gRPC forgets to end a call whose last write was broken off: the caller would wait for ever.

    Args:
        context: of the call.
        response: the answer.
        seconds: that it may wait for a caller who does not read; None is for ever.

    Raises:
        CallerGone: the caller hung up while this was under way.
        ServerUnavailable: it did not read for so long.
    """
    sending = asyncio.ensure_future(context.write(response))
    sending.add_done_callback(_nobody_wants_to_know)
    try:
        done, _ = await asyncio.wait([sending], timeout=seconds)
    except asyncio.CancelledError:
        await asyncio.wait([sending], timeout=seconds)
        raise
    if not done:
        msg = f"nothing of this answer was read for {seconds:g} seconds: its place is given to others, ask again"
        raise ServerUnavailable(msg)
    try:
        sending.result()
    except aio.InternalError:
        raise CallerGone from None


def _nobody_wants_to_know(sending: asyncio.Future[None]) -> None:
    """How a write ended that nobody waits for any more."""
    if not sending.cancelled():
        sending.exception()


class Calls:
    """Counts the calls in progress, and ends them when the server drains."""

    def __init__(self) -> None:
        self.active = 0
        self._last = time.monotonic()
        self._streams: set[asyncio.Task[Any]] = set()
        self._cut: set[asyncio.Task[Any]] = set()
        self._draining = False

    @property
    def idle(self) -> float:
        """Seconds since the last call ended; 0 while there is one."""
        return 0.0 if self.active else time.monotonic() - self._last

    def touch(self) -> None:
        """Begin to count idle seconds anew."""
        self._last = time.monotonic()

    def drain(self) -> None:
        """Refuse new calls and end all streams; calls with one answer may finish."""
        self._draining = True
        self._cut |= self._streams
        for task in self._streams:
            task.cancel()

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Count this call; health checks don't count.

        Raises:
            ServerUnavailable: the server drains; another replica, or the next server, takes the call.
        """
        if call.method.startswith(HEALTH):
            yield
            return
        if self._draining:
            raise _leaving()
        task = asyncio.current_task()
        assert task is not None
        self.active += 1
        if call.streams:
            self._streams.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._cut:
                raise
            task.uncancel()
            raise _leaving() from None
        finally:
            self._streams.discard(task)
            self._cut.discard(task)
            self.active -= 1
            self.touch()


def _leaving() -> ServerUnavailable:
    return ServerUnavailable(
        "this file server is shutting down: call again, another replica or the next server answers",
        retry_after=0.5,
        server="draining",
    )
