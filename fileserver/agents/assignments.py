"""To have something done on the machine of an agent: written down, and waited for.

Which server the agent is at does not matter: the one that holds its stream finds what is written, and writes back what
came of it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from time import monotonic
from typing import Final

from fileserver.catalogue import agents
from fileserver.catalogue.store import Store
from fileserver.errors import Cancelled, from_record
from fileserver.together import heard_within, to_its_end
from fileserver.transfer.live import Away
from fileserver.v1 import agent_pb2 as pb
from planes.errors import Unavailable

STOPS: Final = 10.0
"""Seconds that an agent which is here has to end what is not wanted any more."""
AWAY: Final = 600.0
"""Seconds without the agent after which a transfer is paused: it would keep its place among those of its plane."""
ELSEWHERE: Final = 0.25
"""Seconds between two looks where another server may have written."""
_OFTEN: Final = 0.05  # seconds between two looks whether work that is stopped has ended
_HERE: Final = 5.0  # the same where whoever writes says so
_WRITES: Final = frozenset({"fill", "open", "put", "step", "commit"})
"""What goes on writing for a moment after nobody wants it any more: what is then removed must not come after."""
_AWAY: Final = "the machine that has this file is not connected: run its command again"

Heard = Callable[[pb.Report], None]


class News:
    """Wakes those in this process who wait for something to be written."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def listen(self, name: str) -> asyncio.Event:
        """What will be set at the next news of this name; to be taken before one looks."""
        return self._events.setdefault(name, asyncio.Event())

    def tell(self, name: str) -> None:
        """Something of this name has changed."""
        if (event := self._events.pop(name, None)) is not None:
            event.set()

    def tell_all(self) -> None:
        """Anything may have changed."""
        for name in [*self._events]:
            self.tell(name)

    def forget(self, name: str) -> None:
        """Nobody listens any more."""
        self._events.pop(name, None)


class Assignments:
    """What agents are asked."""

    def __init__(self, store: Store, clock: Callable[[], float] = monotonic) -> None:
        self.store = store
        self._clock = clock
        self.news = News()
        self._hears = not store.shared
        self._waiting: dict[str, asyncio.Future[pb.Answer]] = {}

    @property
    def pause(self) -> float:
        """Seconds between two looks at the store."""
        return _HERE if self._hears else ELSEWHERE

    def hears(self, *, listens: bool) -> None:
        """Whether it is heard from now on what other servers write; what came before is looked for once."""
        self._hears = listens or not self.store.shared
        self.news.tell_all()

    async def ask(
        self,
        plane: str,
        work: pb.Assignment,
        *,
        transfer: str = "",
        segment: int = 0,
        patient: bool = True,
        grace: float = 0.0,
        away: str = _AWAY,
        heard: Heard | None = None,
        keep: Callable[[], bool] = lambda: False,
    ) -> pb.Answer:
        """Have an agent do something.

        Args:
            plane: its files.
            work: what; its id is ours.
            transfer: whose segment that is.
            segment: its number; 0 for what is no segment.
            patient: wait for an agent that is not here.
            grace: seconds to wait for it all the same.
            away: what to say if it does not come.
            heard: is told how far it is.
            keep: whether to leave the work be if this call is cancelled: the next server waits for it then.

        Raises:
            Unavailable: the agent is not here, and nobody is patient.
            Away: it was not here for `AWAY` seconds.
            Error: what the agent says that went wrong.
        """
        name = f"{transfer}.{segment}.{plane}" if segment else uuid.uuid4().hex
        request = work.SerializeToString()
        await self.store.write(lambda c: agents.put(c, name, plane, transfer, segment, request))
        self.news.tell(plane)
        try:
            # An agent that is never here is waited for until the transfer is paused.
            said = Unavailable(away, plane=plane) if not patient else Away(plane)
            answer = await self._answer(name, plane, AWAY if patient else grace, said, heard=heard)
        except BaseException:
            if not keep():
                await to_its_end(self._stop(name, plane, writes=work.WhichOneof("work") in _WRITES))
            raise
        finally:
            self._waiting.pop(name, None)
            self.news.forget(name)
        await self.store.write(lambda c: agents.remove(c, name, plane))
        if answer.HasField("error"):
            failure = answer.error
            raise from_record({"reason": failure.reason, "message": failure.message, "facts": dict(failure.facts)})
        return answer

    async def present(self, plane: str) -> bool:
        """Whether an agent is here."""
        return await self.store.read(lambda c: agents.present(c, plane))

    def answered(self, name: str, answer: pb.Answer) -> bool:
        """Take an answer whose asker is in this process, past the store; whether that is so."""
        waiting = self._waiting.get(name)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
            self.news.tell(name)
        return waiting is not None

    async def _answer(self, name: str, plane: str, grace: float, away: Exception, *, heard: Heard | None) -> pb.Answer:
        told, seen_here = b"", self._clock()
        mine: asyncio.Future[pb.Answer] = asyncio.get_running_loop().create_future()
        self._waiting[name] = mine
        while True:
            event = self.news.listen(name)
            if mine.done():
                return mine.result()
            seen = await self.store.read(lambda c: agents.look(c, name))
            if seen is None:
                msg = "what an agent was to do was taken back"
                raise Cancelled(msg)
            if seen.answer is not None:
                return pb.Answer.FromString(seen.answer)
            if heard is not None and seen.report and seen.report != told:
                told = seen.report
                heard(pb.Report.FromString(told))
            if await self.present(plane):
                seen_here = self._clock()
            elif self._clock() - seen_here >= grace:
                raise away
            await heard_within(event, min(self.pause, grace) if grace else self.pause)

    async def _stop(self, name: str, plane: str, *, writes: bool) -> None:
        """Nobody wants it any more; an agent that is at it has some seconds to end before we go on."""
        if writes and await self.present(plane):
            await self.store.write(lambda c: agents.stop(c, name, plane))
            self.news.tell(plane)
            end = asyncio.get_running_loop().time() + STOPS
            while asyncio.get_running_loop().time() < end:
                seen = await self.store.read(lambda c: agents.look(c, name))
                if seen is None or seen.answer is not None:
                    break
                await asyncio.sleep(_OFTEN)
        await self.store.write(lambda c: agents.remove(c, name, plane))
        self.news.tell(plane)
