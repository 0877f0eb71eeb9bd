"""Who gets in: so many calls of a class at once, so many that wait their turn; the next is told to come again.

Classes do not take each other's places: while every data stream is busy, a transfer can still be watched and
cancelled, and a server that asks itself for a segment does not wait for its own callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fileserver.auth import caller, holder
from fileserver.calls import HEALTH, Call
from fileserver.errors import ServerBusy

CONTROL: Final = (64, 256)
"""Calls with one answer, at once and waiting: they ask the database and are soon over, all but a few."""
WATCHING: Final = (1024, 0)
"""Streams that tell how transfers and watches go on: they cost next to nothing, and stay."""
BESIDE: Final = (64, 256)
"""What is asked beside work on parts and streams of bytes, which count themselves: how much is stored, a signature."""
AGENTS: Final = (1024, 0)
"""Streams of agents, of all callers together: what they ask for is counted where it is done."""
EACH: Final = (CONTROL[0] // 2, CONTROL[1] // 2)
"""Calls with one answer of one caller from outside: however long they take, others find a place."""
EACH_WATCHING: Final = (WATCHING[0] // 4, 0)
"""Its streams that watch."""
EACH_BESIDE: Final = (BESIDE[0] // 4, BESIDE[1] // 4)
"""What is asked with grants for one transfer, by however many agents."""
RETRY_AFTER: Final = 0.5

_AGENTS: Final = "/fileserver.v1.AgentService/"
_OWN: Final = ("/fileserver.v1.PartService/", "/fileserver.v1.DataService/")
"""Services that count their streams themselves: a segment, or bytes."""


class Slots:
    """Places of one class of calls.

    Args:
        what: they are, for the message to who does not get in.
        at_once: how many may be in.
        waiting: how many may wait, who get in first come, first served; 0 sends everybody on to another server.
        retry_after: seconds after which it makes sense to come again.
    """

    def __init__(self, what: str, at_once: int, waiting: int = 0, retry_after: float = RETRY_AFTER) -> None:
        self._what = what
        self._most = at_once
        self._room = at_once + waiting
        self._retry_after = retry_after
        self._whole = self._room
        self._gate = asyncio.Semaphore(at_once)

    @property
    def empty(self) -> bool:
        """Nobody is in, and nobody waits."""
        return self._room == self._whole

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Be in, as soon as there is a place.

        Raises:
            ServerBusy: too many wait already.
        """
        if not self._room:
            msg = f"this file server has {self._most} {self._what} at work already: ask another, or again in a moment"
            raise ServerBusy(msg, retry_after=self._retry_after)
        self._room -= 1
        try:
            async with self._gate:
                yield
        finally:
            self._room += 1


class Shares:
    """Places that each caller, or transfer, has for itself.

    Args:
        what: they are, for the message to who has no more of them.
        at_once: how many of one may be in.
        waiting: how many of one may wait.
    """

    def __init__(self, what: str, at_once: int, waiting: int = 0) -> None:
        self._what = what
        self._each = at_once, waiting
        self._callers: dict[str, Slots] = {}

    @asynccontextmanager
    async def one(self, name: str) -> AsyncIterator[None]:
        """Have one of the places of the one of this name, as soon as there is one; raises ServerBusy."""
        slots = self._callers.setdefault(name, Slots(f"{self._what} of {name}", *self._each))
        try:
            async with slots.one():
                yield
        finally:
            if slots.empty:
                self._callers.pop(name, None)

    def __len__(self) -> int:
        """Of how many there is something."""
        return len(self._callers)


class Admission:
    """The classes of calls that their services do not count themselves."""

    def __init__(
        self,
        control: tuple[int, int] = CONTROL,
        watching: tuple[int, int] = WATCHING,
        beside: tuple[int, int] = BESIDE,
        agents: tuple[int, int] = AGENTS,
        each: tuple[int, int] = EACH,
        each_watching: tuple[int, int] = EACH_WATCHING,
        each_beside: tuple[int, int] = EACH_BESIDE,
    ) -> None:
        self._control = Slots("calls", *control)
        self._watching = Slots("watchers", *watching)
        self._beside = Slots("questions about parts", *beside)
        self._agents = Slots("agents", *agents)
        self._calls_of = Shares("calls", *each)
        self._watchers_of = Shares("watchers", *each_watching)
        self._beside_of = Shares("questions about parts", *each_beside)

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Let a call in, or let it wait; raises ServerBusy. The shares of agents' callers are `services.agent`'s."""
        own = call.method.startswith(_OWN)
        if call.method.startswith(HEALTH) or (own and call.streams):
            yield
            return
        async with AsyncExitStack() as places:
            if own:
                if transfer := holder():  # waits among those of its transfer first
                    await places.enter_async_context(self._beside_of.one(f"transfer {transfer}"))
                await places.enter_async_context(self._beside.one())
                yield
                return
            agent, who = call.method.startswith(_AGENTS), caller()
            if who.outside and not agent:  # waits among its own calls first
                share = self._watchers_of if call.streams else self._calls_of
                await places.enter_async_context(share.one(who.name))
            streams = self._agents if agent else self._watching
            await places.enter_async_context((streams if call.streams else self._control).one())
            yield
