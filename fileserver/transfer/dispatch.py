"""A segment → the file server that does it: one of many behind an address, or this one.

Which one is gRPC's business (round robin over what the address resolves to). A server that is full says so and another
is asked, which is no attempt; one that dies in the middle is replaced by another, which finds in the store what is
missing. If none answers, this server does the work itself.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import structlog
from grpc import aio

from fileserver.auth import METADATA_KEY
from fileserver.endpoints import Endpoints
from fileserver.errors import CallerDenied, Cancelled, ServerBusy, ServerUnavailable, TransferNotFound
from fileserver.status import from_call
from fileserver.tls import Watched, channel_credentials
from fileserver.transfer.execute import RouteRefused
from fileserver.transfer.live import Live
from fileserver.v1 import part_pb2 as pb
from fileserver.v1.part_pb2_grpc import PartServiceStub
from planes.errors import Error, Unsupported

Fill = Callable[[str, int, Live], Awaitable[None]]

_TRIES: Final = 5  # servers that did not answer, or died at the segment
_WAIT: Final = 0.2  # seconds, doubled with each of them
_ENDS: Final = 60.0  # seconds that a server has to stop its own threads when a transfer is stopped
_CALLS_END: Final = 3600.0  # seconds that calls under an old certificate have to end
OPTIONS: Final = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.enable_http_proxy", 0),
    # A machine that went away without a word is noticed by pings that nobody answers.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.http2.ping_timeout_ms", 15_000),  # what gRPC 1.85 goes by, and a minute else
    ("grpc.http2.max_pings_without_data", 0),  # else one a minute, from the third on
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Replicas:
    """The file servers that take segments of each other's transfers."""

    address: str
    """What gRPC resolves to all of them: `dns:///name:port`, or `ipv4:host:port,host:port`."""
    cookie: str = field(repr=False)
    """What they ask of each other; "" where they show certificates."""
    shown: Watched | None = None
    """The certificate that they are shown, and who signs theirs; None is a connection in the clear."""
    name: str = ""
    """The name in their certificates, where it is not that of the address."""


class Dispatch:
    """Sends segments to file servers.

    Args:
        replicas: where they are.
        here: fills a segment on this server.
        refresh: gives the live state of a transfer what is wished of it by now.
    """

    def __init__(self, replicas: Replicas, here: Fill, refresh: Callable[[str], Awaitable[object]]) -> None:
        self._replicas = replicas
        self._metadata = ((METADATA_KEY, replicas.cookie),) if replicas.cookie else ()
        self._here = here
        self._refresh = refresh
        self._channel: aio.Channel | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._endpoints = Endpoints(replicas.address) if replicas.address.startswith("kubernetes:") else None

    def connect(self) -> None:
        """Begin to connect to all of them: round robin goes over those that are connected."""
        shown, others = self._replicas.shown, False
        if self._endpoints is not None:
            self._endpoints.start()
            others = self._endpoints.changed()
        if self._channel is not None and (others or (shown is not None and shown.changed())):
            leaving = asyncio.create_task(self._channel.close(_CALLS_END))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            self._channel = None
        if self._channel is None:  # made in the loop that uses it
            self._channel = self._open(shown)
        if self._channel is not None:
            self._channel.get_state(try_to_connect=True)

    def _open(self, shown: Watched | None) -> aio.Channel | None:
        """A channel to all of them; None while none is known."""
        address, name = self._replicas.address, self._replicas.name
        if self._endpoints is not None:
            address, name = self._endpoints.address, name or self._endpoints.service
        if not address:
            return None
        if shown is None:
            return aio.insecure_channel(address, options=OPTIONS)
        named = (("grpc.ssl_target_name_override", name),) if name else ()
        return aio.secure_channel(address, channel_credentials(shown), options=OPTIONS + named)

    async def fill(self, transfer: str, number: int, live: Live) -> None:
        """Store what is missing of a segment, somewhere.

        Raises:
            RouteRefused, Error: as the executor does.
        """
        tries = 0
        while tries < _TRIES:
            try:
                if await self._ask(pb.Segment(transfer=f"transfers/{transfer}", number=number), live):
                    return
                tries += 1
            except ServerBusy as busy:
                await asyncio.sleep((busy.retry_after or _WAIT) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            except ServerUnavailable as away:
                tries += 1
                _log.warning("segment goes to another server", transfer=transfer, segment=number, why=away.message)
                await asyncio.sleep(_WAIT * 2**tries)
            except TransferNotFound:
                await self._heard(transfer, live)
                raise
            except Cancelled:  # or the server itself is ending
                await self._heard(transfer, live)
                tries += 1
            except Unsupported as refused:
                if "route" in refused.facts:
                    raise RouteRefused(
                        refused.facts.get("plane", ""), refused.message, refused.facts["route"]
                    ) from refused
                raise
        await self._here(transfer, number, live)

    async def _heard(self, transfer: str, live: Live) -> None:
        """Stop here, if that other server has heard before us that the transfer is to."""
        await self._refresh(transfer)
        live.check()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._endpoints is not None:
            self._endpoints.stop()
        for leaving in set(self._leaving):
            leaving.cancel()
        if self._channel is not None:
            await self._channel.close()

    async def _ask(self, segment: pb.Segment, live: Live) -> bool:
        """Have a server do it; whether it did, and did not just end the call."""
        self.connect()
        if self._channel is None:
            msg = "no file server is known yet"
            raise ServerUnavailable(msg)
        call = PartServiceStub(self._channel).Pull(pb.PullRequest(segment=segment), metadata=self._metadata)
        reading = asyncio.create_task(_count(call, live))
        try:
            await asyncio.wait({reading})
        except asyncio.CancelledError:
            if live.wish not in {"", "drain"}:  # it sees the wish in the store; until it has stopped, it may write
                await asyncio.wait({reading}, timeout=_ENDS)
            raise
        finally:
            call.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                reading.exception()
        return reading.result()


async def _count(call: Any, live: Live) -> bool:
    """Add to a transfer's counters what a server tells of its segment; whether it was done. Raises Error."""
    before = pb.SegmentProgress()
    try:
        async for answer in call:
            now = answer.progress
            live.done += now.bytes_done - before.bytes_done
            live.through_us += now.bytes_through_us - before.bytes_through_us
            live.native += now.bytes_native - before.bytes_native
            live.checked += now.bytes_checked - before.bytes_checked
            live.parts_done += now.parts_done - before.parts_done
            live.touch()
            before = now
    except aio.AioRpcError as failure:
        raise _error(failure) from None
    return before.done


def _error(failure: aio.AioRpcError) -> Error:
    if failure.code() is grpc.StatusCode.UNAUTHENTICATED:  # configured wrong: this server can still do it itself
        return ServerUnavailable("the file servers do not share a secret: set `replicas.secret` to the same everywhere")
    if failure.code() is grpc.StatusCode.PERMISSION_DENIED and isinstance(from_call(failure), CallerDenied):
        return ServerUnavailable(f"another file server refuses this one: {failure.details()}")
    return from_call(failure)
