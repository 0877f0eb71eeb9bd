"""The agent: dials out to the file servers, takes work for the files of its machine, and dials again when that breaks.

It ends when it is told to, or when another with its key has taken its place.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import structlog
from grpc import aio

from fileserver.agents.wire import error_message
from fileserver.away.answering import Answering
from fileserver.away.fence import FencedPlane
from fileserver.away.machine import Commanded, Host, Machine
from fileserver.away.pace import Rates, keep
from fileserver.configured import agent_plane
from fileserver.errors import CallerUnknown, Cancelled
from fileserver.status import from_call
from fileserver.together import heard_within
from fileserver.v1 import agent_pb2 as pb
from fileserver.v1.agent_pb2_grpc import AgentServiceStub
from planes.opening import decorated
from planes.plane import MIB, Plane
from planes.posix import PosixPlane
from planes.settings import PlaneLimits

OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * MIB),
    ("grpc.max_send_message_length", 16 * MIB),
    ("grpc.http2.lookahead_bytes", 16 * MIB),
    # A server that went away without a word is noticed by pings that nobody answers. Behind what is under way on a slow
    # line an answer takes a while. The second is what gRPC 1.85 goes by.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 60_000),
    ("grpc.http2.ping_timeout_ms", 60_000),
    ("grpc.http2.max_pings_without_data", 0),  # else one a minute, from the third on
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_WAIT: Final = 0.25  # seconds until it dials again, doubled with each time in vain
_LONGEST: Final = 5.0
_STRANGE: Final = 8  # times in a row that it is not known, after which no newer token is hoped for

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Orders:
    """What an agent is started with."""

    server: str
    """Address of the file servers, for gRPC."""
    key: str = field(default="", repr=False)
    """Random text that names the plane of a command; "" for the agent of a host."""
    metadata: Sequence[tuple[str, str]] = field(default=(), repr=False)
    """What every call carries to say who makes it."""
    reads: Sequence[str] = ()
    """Absolute paths that may be read; the last element may hold * and ?."""
    writes: Sequence[str] = ()
    """Absolute paths that may be written."""
    overwrite: bool = False
    """What is there already of these may be replaced."""
    slots: int = 4
    """Segments at once."""
    pem: Sequence[str | None] | None = field(default=None, repr=False)
    """Of an encrypted connection: who signs the server's certificate, the private key and the certificate to show."""
    token_file: str = ""
    """Where the token that the calls carry is found anew when it was renewed."""
    rates: Rates = ()
    """Bytes a second that may be read and written here, by the hour; none is no limit."""
    host: str = ""
    """Whose agent it is, of planes of the configuration."""
    planes: Mapping[str, str] = field(default_factory=dict)
    """The folders of that host that are the data of planes, by their names."""

    @property
    def calls(self) -> tuple[tuple[str, str], ...]:
        """What every call carries, now."""
        if not self.token_file:
            return tuple(self.metadata)
        try:
            return (("authorization", f"Bearer {Path(self.token_file).read_text(encoding='ascii').strip()}"),)
        except (OSError, UnicodeDecodeError):
            return tuple(self.metadata)

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """Of the connections; None is in the clear."""
        if self.pem is None:
            return None
        return grpc.ssl_channel_credentials(*(each.encode() if each else None for each in self.pem))


class Agent:
    """One agent, from its first call to its end.

    Args:
        orders: what it is started with.
        ready: called whenever the file servers know it.
    """

    def __init__(self, orders: Orders, ready: Callable[[], None] = lambda: None) -> None:
        self._orders = orders
        self._ready = ready
        self._ending = asyncio.Event()
        self._leaving = asyncio.Event()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def end(self) -> None:
        """Stop at the next step, and say so."""
        self._ending.set()

    def leave(self) -> None:
        """Take nothing more, and end when what is under way is done."""
        self._leaving.set()

    async def run(self) -> bool:
        """Work until told to end (True), or until another has taken the place (False).

        Raises:
            Error: the file servers do not want it, and would not the next time either.
        """
        o, wait, strange = self._orders, _WAIT, 0
        machine, local = _machine(o)
        keeping = asyncio.create_task(keep(local, o.rates)) if o.rates else None
        shown = o.credentials
        clear = grpc.insecure_channel(o.server, options=OPTIONS)
        with grpc.secure_channel(o.server, shown, options=OPTIONS) if shown else clear as payload:
            answering = Answering(machine, payload, encrypted=shown is not None)
            leaving = asyncio.create_task(self._leave())
            try:
                while not self._ending.is_set():
                    try:
                        if not await self._stream(machine, answering):
                            return False
                        wait = _WAIT
                    except aio.AioRpcError as failure:
                        error = from_call(failure)
                        strange = strange + 1 if isinstance(error, CallerUnknown) else 0
                        # A token may be renewed while we work: the next call carries what is in its file by then.
                        if not error.retriable and not (o.token_file and 0 < strange < _STRANGE):
                            raise error from None
                        _log.warning("the file server does not answer", why=error.message)
                        await heard_within(self._ending, wait * random.uniform(0.5, 1))  # noqa: S311 - jitter
                        wait = min(2 * wait, _LONGEST)
            finally:
                leaving.cancel()
                if keeping is not None:
                    keeping.cancel()
                answering.close()
                await machine.aclose()
        return True

    async def _leave(self) -> None:
        """When told to leave: end once nothing is under way."""
        await self._leaving.wait()
        while self._jobs:
            await asyncio.wait(self._jobs.values())
        self.end()

    async def _stream(self, machine: Machine, answering: Answering) -> bool:
        """One stream to its end; False if another agent has taken the place."""
        outbox: asyncio.Queue[pb.WorkRequest | None] = asyncio.Queue()
        o, shown = self._orders, self._orders.credentials
        opened = aio.secure_channel(o.server, shown, options=OPTIONS) if shown else None
        async with opened or aio.insecure_channel(o.server, options=OPTIONS) as channel:
            call = AgentServiceStub(channel).Work(metadata=o.calls)
            sending = asyncio.create_task(_send(call, outbox))
            ending = asyncio.create_task(self._close(outbox))
            try:
                hello = pb.Hello(key=o.key, slots=o.slots, host=o.host, planes=o.planes)
                outbox.put_nowait(pb.WorkRequest(hello=hello))
                async for told in call:
                    if told.HasField("replaced"):
                        return False
                    if told.HasField("welcome"):
                        machine.welcome(told.welcome)
                        self._ready()
                    else:
                        await self._take(told, answering, outbox)
                if not self._ending.is_set():
                    raise_lost()
                return True
            finally:
                ending.cancel()
                sending.cancel()
                await self._drop_all()
                call.cancel()
                await asyncio.wait({sending, ending})

    async def _take(
        self, told: pb.WorkResponse, answering: Answering, outbox: asyncio.Queue[pb.WorkRequest | None]
    ) -> None:
        if told.HasField("stop"):
            stopping = asyncio.create_task(self._stop(told.stop.id, outbox))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)
        elif told.HasField("assignment") and not answering.refresh(told.assignment):
            if self._ending.is_set() or self._leaving.is_set():
                return  # whoever comes next does it: at the end of the stream it is free again
            name = told.assignment.id
            base = name.partition("#")[0]
            old = [task for other, task in self._jobs.items() if other.partition("#")[0] == base]
            self._jobs[name] = asyncio.create_task(self._do(told.assignment, answering, outbox, old))

    async def _do(
        self,
        assignment: pb.Assignment,
        answering: Answering,
        outbox: asyncio.Queue[pb.WorkRequest | None],
        old: Sequence[asyncio.Task[None]],
    ) -> None:
        try:
            for task in old:  # the same, handed out before: two must not write
                task.cancel()
            if old:
                await asyncio.wait(old)
            answer = await answering.answer(assignment, lambda report: outbox.put_nowait(pb.WorkRequest(report=report)))
            outbox.put_nowait(pb.WorkRequest(answer=answer))
        finally:
            self._jobs.pop(assignment.id, None)

    async def _stop(self, name: str, outbox: asyncio.Queue[pb.WorkRequest | None]) -> None:
        """Nobody wants it any more: end it, and say so once nothing is written any more."""
        if (task := self._jobs.get(name)) is not None:
            task.cancel()
            await asyncio.wait({task})
        stopped = Cancelled("nobody waits for it any more")
        outbox.put_nowait(pb.WorkRequest(answer=pb.Answer(id=name, error=error_message(stopped))))

    async def _close(self, outbox: asyncio.Queue[pb.WorkRequest | None]) -> None:
        """When told to end: end what is under way, then say goodbye."""
        await self._ending.wait()
        await self._drop_all()
        outbox.put_nowait(None)

    async def _drop_all(self) -> None:
        jobs = [*self._jobs.values(), *self._stopping]
        for task in jobs:
            task.cancel()
        if jobs:
            await asyncio.wait(jobs)


def _machine(o: Orders) -> tuple[Machine, Plane]:
    """The files of an agent, and what bounds them; raises InvalidSpec."""
    if o.host:
        host = Host(o.host, o.planes)
        return host, host.limited
    local = decorated(PosixPlane.local(), PlaneLimits())
    reads, writes = ([path.lstrip("/") for path in paths] for paths in (o.reads, o.writes))
    fenced = FencedPlane(local, reads, writes, overwrite=o.overwrite)
    return Commanded(agent_plane(o.key), fenced), local


def raise_lost() -> None:
    """The file server ended the stream in good order: another takes it."""
    raise aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), "the stream ended")


async def _send(
    call: aio.StreamStreamCall[pb.WorkRequest, pb.WorkResponse], outbox: asyncio.Queue[pb.WorkRequest | None]
) -> None:
    """Send what is to be said, in order; None is the end of it."""
    while (said := await outbox.get()) is not None:
        try:
            await call.write(said)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return  # who reads hears why
    await call.done_writing()
