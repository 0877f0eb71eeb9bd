"""How calls are made: a busy server and a broken connection are waited out, a missing cookie is learnt.

A call that is answered twice does no harm unless it says so; streams are never begun anew here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, Self, TypeVar

import grpc

from client.connection import Connection
from client.errors import Code, ServerError, broken, from_rpc, unavailable
from client.patience import Patience

PATIENCE_SECONDS: Final = 60.0
LOOKUP_SECONDS: Final = 60.0
"""Deadline of calls that only ask the store; calls that ask a plane take as long as the plane does."""

_ELSEWHERE: Final = frozenset({"plane", "hsds"})
"""Facts of errors that are about what lies behind the server, which has waited long enough itself."""
_BUSY: Final = frozenset({Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE})

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")
_Page = TypeVar("_Page", bound="_Paged")


class _Paged(Protocol):
    @property
    def next_page_token(self) -> str: ...


class Calls:
    """Calls over one connection. Not for several threads at once.

    Args:
        connection: to the server; closed with the client.
        told: gets a sentence when the client waits for the server, once a call.
        patience: seconds for which a busy or missing server is waited for.
        sleep: waits so many seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        told: Callable[[str], None] = lambda _: None,
        patience: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._told = told
        self._seconds = patience
        self._sleep = sleep
        self._clock = clock
        self._was_connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()

    def call(
        self,
        method: Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Asked, _Answer]],
        request: _Asked,
        *,
        timeout: float | None = LOOKUP_SECONDS,
        again: bool = True,
    ) -> _Answer:
        """Make a call until it is answered; `again` says that twice does no harm."""
        patience = self.patience()
        while True:
            try:
                return method(self._channel())(request, timeout=timeout, metadata=self._connection.metadata)
            except grpc.RpcError as error:
                failure = from_rpc(error)
            except ServerError as error:
                failure = error
            self.recover(failure, patience, again=again)

    def stream(
        self, method: Callable[[grpc.Channel], grpc.UnaryStreamMultiCallable[_Asked, _Answer]], request: _Asked
    ) -> Iterator[_Answer]:
        """The answers of one call, which is cancelled when the iterator is closed."""
        try:
            call = method(self._channel())(request, metadata=self._connection.metadata)
            try:
                yield from call
            finally:
                call.cancel()
        except grpc.RpcError as error:
            raise from_rpc(error) from None

    def _channel(self) -> grpc.Channel:
        """The connection's channel; a server that was there before may be on its way back."""
        try:
            channel = self._connection.channel
        except ServerError as error:
            if self._was_connected and error.code is Code.UNAVAILABLE:
                raise broken(error.message) from error
            raise
        self._was_connected = True
        return channel

    def patience(self) -> Patience:
        """That of one call, which begins now."""
        return Patience(self._seconds, self._clock)

    def recover(self, failure: ServerError, patience: Patience, *, again: bool) -> None:
        """Return when the call should be made again, else raise the failure."""
        if failure.reason == "CALLER_UNKNOWN":
            if self._connection.learn(failure.metadata.get("cookie", "")):
                return
            raise self._stranger(failure)
        gone = failure.code is Code.UNAVAILABLE and not failure.reason
        elsewhere = not _ELSEWHERE.isdisjoint(failure.metadata)
        busy = failure.code in _BUSY and failure.retry_after is not None and not elsewhere
        if not gone and not busy:
            raise failure
        if gone:
            self._connection.close()
            if not again:
                msg = f"the connection to the server broke, and what was asked may be done or not ({failure.message})"
                raise unavailable(msg)
        seconds = patience.wait(failure.retry_after)
        if seconds is None:
            raise unavailable(failure.message) if gone else failure
        if busy:
            self._told(f"waiting for the server: {failure.message}")
        self._sleep(seconds)

    def _stranger(self, failure: ServerError) -> ServerError:
        """The error of a caller who cannot prove to be the server's user, in words for whom it meets."""
        path = failure.metadata.get("cookie")
        if not path:
            return failure
        why = f"and the cookie that proves it, {path}, cannot be read here"
        msg = (
            f"the server at {self._connection.target} answers only to the user that it runs as, {why}: run this as "
            "that user, or leave out --server to use a server of your own"
        )
        return ServerError(failure.reason, failure.code, msg, failure.metadata)


def pages(page: Callable[[str], _Page], items: Callable[[_Page], Iterable[_Item]]) -> Iterator[_Item]:
    """The items of all pages, each page asked for when it is needed."""
    token = ""
    while True:
        answer = page(token)
        yield from items(answer)
        if not answer.next_page_token:
            return
        if answer.next_page_token == token:
            msg = "the server gives the same page again and again: it is not one of ours, or broken"
            raise unavailable(msg)
        token = answer.next_page_token
