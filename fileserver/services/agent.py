"""AgentService: the streams by which agents are reached. Leases what waits for one, hands it out, keeps answers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final

from fileserver.admission import Shares
from fileserver.agents.dispatch import Agents
from fileserver.agents.wire import error_message
from fileserver.auth import caller
from fileserver.calls import about, begun
from fileserver.catalogue import agents as rows
from fileserver.catalogue.agents import Leased
from fileserver.configured import agent_plane
from fileserver.errors import CallerDenied, InvalidSpec, ServerUnavailable
from fileserver.grants import LIFE
from fileserver.hosts import agent_of
from fileserver.rules import Thing, Verb
from fileserver.together import heard_within
from fileserver.v1 import agent_pb2 as pb
from fileserver.v1.agent_pb2_grpc import AgentServiceServicer
from planes.errors import Error
from planes.posix import PosixSettings

LOOK: Final = 1.0
"""Seconds between two looks at what waits for an agent, where nobody says that something does."""
RENEW: Final = 5.0
"""Seconds between two times that a stream says that it lives; a lease is `catalogue.agents.LEASE`."""
MOST: Final = 16
"""Segments at once that an agent may ask for."""
EACH: Final = 256
"""Commands of one caller that have their streams here at once, where the configuration (`rate.agents`) has no other."""
HELLO: Final = 30.0
"""Seconds that an agent has to say who it is."""

_SHORTEST: Final = 32  # characters of a key
_CALLS: Final = 64  # things that are no segments, at once


class AgentServicer(AgentServiceServicer):
    """Streams of agents, on the wire.

    Args:
        agents: what they are to do.
        shared: says of the name of a plane whether every file server reaches it.
        each: streams of commands of one caller from outside, at once.
    """

    def __init__(self, agents: Agents, shared: Callable[[str], bool], each: int = EACH) -> None:
        self._agents = agents
        self._shared = shared
        self._places = Shares("agents of commands", each)

    async def Work(
        self, request_iterator: AsyncIterator[pb.WorkRequest], context: Any
    ) -> AsyncIterator[pb.WorkResponse]:
        """One machine, as long as it likes.

        Raises:
            ServerBusy: its caller has as many streams here as one may have.
            InvalidSpec, CallerDenied, ServerUnavailable: it does not say who it is, or may not be that.
        """
        async with AsyncExitStack() as place:
            if caller().outside:
                await place.enter_async_context(self._places.one(caller().name))
            hello = await _hello(request_iterator)
            welcome = self.known(hello)
            begun()
            if hello.host:  # these are as many as the configuration has: a second one takes the place of the first
                await place.aclose()
            async with aclosing(self._work(request_iterator, hello, welcome)) as answers:
                async for told in answers:
                    yield told

    async def _work(
        self, request_iterator: AsyncIterator[pb.WorkRequest], hello: pb.Hello, welcome: pb.Welcome
    ) -> AsyncGenerator[pb.WorkResponse, None]:
        name = agent_of(hello.host) if hello.host else welcome.plane
        stream = _Stream(self._agents, self._shared, name, hello.slots or 1)
        await stream.enter()
        hearing = asyncio.create_task(stream.hear(request_iterator))
        try:
            yield pb.WorkResponse(welcome=welcome)
            while not hearing.done():
                news = stream.listen()
                told, goes_on = await stream.due()
                for each in told:
                    yield each
                if not goes_on:
                    return
                await stream.rest(news, hearing)
            hearing.result()
            await stream.leave()
        finally:
            hearing.cancel()
            await asyncio.wait({hearing})
            if not hearing.cancelled():
                hearing.exception()
            stream.end()

    def known(self, hello: pb.Hello) -> pb.Welcome:
        """What an agent is told that may be here.

        Raises:
            InvalidSpec: it says what makes no sense.
            CallerDenied: it may not be the agent of that host.
        """
        if (not hello.host and len(hello.key) < _SHORTEST) or not 0 <= hello.slots <= MOST:
            msg = f"an agent begins with a key of {_SHORTEST} characters or more, and says how much it takes at once"
            raise InvalidSpec(msg, {"hello": msg})
        if not hello.host:
            plane = agent_plane(hello.key)
            about(f"agent of a command, {plane}")
            return pb.Welcome(plane=plane)
        who, host = caller(), hello.host
        about(f"serve host {host}: {', '.join(hello.planes)}")
        if not who.may(Verb.SERVE, Thing("hosts", host)):
            rule = f"may: [serve] and hosts: ['{host[:60]}']"
            msg = f"{who.name} may not be the agent of host {host[:60]}: a rule with {rule} would allow it"
            raise CallerDenied(msg, verb=Verb.SERVE, thing=host[:60])
        wrong = wrong_planes(host, hello.planes, {name: s.hosts for name, s in self._agents.hosted.items()})
        if wrong:
            raise InvalidSpec(wrong, {"planes": wrong})
        return pb.Welcome(
            served=[_served(name, self._agents.hosted[name]) for name in hello.planes],
        )


async def _hello(requests: AsyncIterator[pb.WorkRequest]) -> pb.Hello:
    """The first that an agent says; an empty one if it says something else. Raises ServerUnavailable."""
    try:
        async with asyncio.timeout(HELLO):
            first = await anext(requests, None)
    except TimeoutError:
        msg = f"this agent did not say within {HELLO:g} seconds who it is: call again"
        raise ServerUnavailable(msg) from None
    return first.hello if first is not None and first.HasField("hello") else pb.Hello()


def wrong_planes(host: str, planes: Sequence[str], hosted: Mapping[str, Sequence[str]]) -> str:
    """Why the agent of a host cannot serve these planes, "" if it can; `hosted` has the hosts of each plane."""
    if not planes:
        return "say which planes this agent serves, and where their files are: --plane NAME=FOLDER"
    for name in planes:
        if name not in hosted:
            known = f"; those with hosts are {', '.join(hosted)}" if hosted else ", nor any other plane"
            return f"the configuration of the server has no plane {name[:60]} with hosts{known}"
        if host not in hosted[name]:
            return f"plane {name} has no host {host[:60]}; its hosts are {', '.join(hosted[name])}: see --host"
    return ""


def _served(name: str, settings: PosixSettings) -> pb.ServedPlane:
    return pb.ServedPlane(
        name=name,
        durable=settings.durability == "fsync",
        follows=settings.symlinks == "inside",
        prunes=settings.category != "lz",
    )


@dataclass(frozen=True, slots=True)
class Share:
    """What of a part was handed out."""

    steps: frozenset[int]
    """None are all."""
    at_once: bool = False
    """It is written whole, and has no steps."""

    def has(self, step: int) -> bool:
        """Whether a receipt can be of it; 0 is the part at once."""
        if self.at_once or not step:
            return self.at_once and not step
        return not self.steps or step in self.steps


class _Stream:
    """What one stream holds."""

    def __init__(self, agents: Agents, shared: Callable[[str], bool], plane: str, slots: int) -> None:
        self.plane = plane
        self._agents = agents
        self._store, self._news = agents.assignments.store, agents.assignments.news
        self._shared = shared
        self._slots = slots
        self._name = f"{self._store.me}.{secrets.token_hex(4)}"
        self._held: dict[str, Leased] = {}
        """By the name that the agent has of it, which no other lease of the same assignment had."""
        self._handed: dict[str, float] = {}
        """When the grants of a segment were minted."""
        self._shares: dict[str, dict[int, Share]] = {}
        """What of which parts was handed out with a segment."""
        self._renewed = time.monotonic()

    async def enter(self) -> None:
        """From now on the agent is reached here."""
        await self._store.write(lambda c: rows.enter(c, self.plane, self._name))
        self._news.tell(self.plane)  # a stream that this one replaces looks, and ends

    async def leave(self) -> None:
        """The agent said that it goes."""
        await self._store.write(lambda c: rows.leave(c, self.plane, self._name))

    def end(self) -> None:
        """Nobody listens here any more; a stream that has taken this one's place, and does, looks once more."""
        self._news.tell(self.plane)

    def listen(self) -> asyncio.Event:
        """What is set when there may be something to do."""
        return self._news.listen(self.plane)

    async def rest(self, news: asyncio.Event, hearing: asyncio.Task[None]) -> None:
        """Wait for that, but not long: another server may have written without telling."""
        waiting = asyncio.create_task(heard_within(news, min(LOOK, self._agents.assignments.pause)))
        await asyncio.wait({waiting, hearing}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def due(self) -> tuple[list[pb.WorkResponse], bool]:
        """What the agent is to be told now, and whether the stream goes on."""
        mine, waits = await self._store.read(lambda c: rows.glance(c, self.plane, self._name))
        if mine and time.monotonic() - self._renewed > RENEW:
            self._renewed = time.monotonic()
            mine = await self._store.write(lambda c: rows.renew(c, self.plane, self._name))
        if not mine:
            return [pb.WorkResponse(replaced=pb.Replaced())], False
        held = {one.id for one in self._held.values()}
        gone = await self._store.read(lambda c: rows.unwanted(c, self.plane, held)) if held else set[str]()
        filling = sum(1 for one in self._held.values() if one.segment)
        calls = _CALLS - (len(self._held) - filling)
        room = (self._slots - filling, calls)
        taken = await self._store.write(lambda c: rows.lease(c, self.plane, self._name, *room)) if waits else []
        gone |= {one.id for one in taken}  # taken back and asked again: what was held of it is over
        told = [pb.WorkResponse(stop=pb.Stop(id=name)) for name, one in self._held.items() if one.id in gone]
        given = [(name, one) for name, one in self._held.items() if self._is_stale(name, one) and one.id not in gone]
        fresh = {f"{one.id}#{secrets.token_hex(4)}": one for one in taken}
        self._held |= fresh
        for name, one in [*given, *fresh.items()]:
            if name not in self._held:  # answered while others were handed out
                continue
            if (assignment := await self._assignment(name, one)) is not None:
                told.append(pb.WorkResponse(assignment=assignment))
        return told, True

    def _is_stale(self, name: str, one: Leased) -> bool:
        return one.segment > 0 and time.time() - self._handed.get(name, 0.0) > LIFE / 2

    async def _assignment(self, name: str, one: Leased) -> pb.Assignment | None:
        """What is handed out; None for a segment that needs nothing any more, which is answered here."""
        work = pb.Assignment.FromString(one.request)
        work.id = name
        if one.segment:
            self._handed[name] = time.time()
            try:
                fill = await self._agents.handed(one.transfer, one.segment, self.plane, self._shared, time.time())
            except Error as error:  # a success would be none: who asked hears why, and asks again if that may help
                await self._answer(pb.Answer(id=name, error=error_message(error)))
                return None
            if fill is None:
                await self._answer(pb.Answer(id=name))
                return None
            work.fill.CopyFrom(fill)
            for part in fill.parts:
                share = Share(frozenset(part.steps), at_once=not part.token)
                self._shares.setdefault(name, {}).setdefault(part.number, share)
        return work

    async def hear(self, requests: AsyncIterator[pb.WorkRequest]) -> None:
        """Keep what the agent says, until it has said everything."""
        async for said in requests:
            kind = said.WhichOneof("said")
            if kind == "answer" and said.answer.id in self._held:
                await self._answer(said.answer)
                self._news.tell(self.plane)  # a slot is free
            elif kind == "report" and (one := self._held.get(said.report.id)) and one.segment:
                must_be_of(self._shares.get(said.report.id, {}), said.report.stored)
                await self._report(one, said.report)

    async def _report(self, one: Leased, report: pb.Report) -> None:
        steps = list(report.stored)
        del report.stored[:]
        said = report.SerializeToString()
        await self._agents.receive(one.transfer, one.segment, steps, lambda c: rows.report(c, one.id, self._name, said))
        self._news.tell(one.id)

    async def _answer(self, answer: pb.Answer) -> None:
        one = self._held.pop(answer.id)
        self._handed.pop(answer.id, None)
        share = self._shares.pop(answer.id, {})
        if any(other.id == one.id for other in self._held.values()):
            return  # an echo of a lease that was taken back
        if answer.data and self._agents.assignments.answered(one.id, answer):
            return
        stored = [] if answer.HasField("error") or not one.segment else list(answer.stored)
        try:
            must_be_of(share, stored)
            await self._keep(one, stored, answer)
        except Error as error:  # receipts of something else are no receipts
            await self._keep(one, [], pb.Answer(id=answer.id, error=error_message(error)))
        self._news.tell(one.id)

    async def _keep(self, one: Leased, stored: Sequence[pb.StepDone], answer: pb.Answer) -> None:
        said = answer.SerializeToString()
        await self._agents.receive(
            one.transfer, one.segment, stored, lambda c: rows.answer(c, one.id, self._name, said)
        )


def must_be_of(shares: Mapping[int, Share], steps: Iterable[pb.StepDone]) -> None:
    """See that receipts are of what was handed out, by part; raises CallerDenied."""
    for step in steps:
        share = shares.get(step.part)
        if share is None or not share.has(step.number):
            msg = f"a receipt of step {step.number} of part {step.part} is of nothing that was handed out"
            raise CallerDenied(msg)
