"""Which machine does what: a segment that reads or writes the files of an agent goes to that agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fileserver.agents.assignments import Assignments
from fileserver.agents.plane import AgentPlane
from fileserver.agents.wire import fill_message, steps_of
from fileserver.catalogue.agents import forget
from fileserver.catalogue.clock import moment
from fileserver.catalogue.files import now
from fileserver.catalogue.store import Store
from fileserver.configured import AGENT
from fileserver.errors import CallerDenied, Cancelled
from fileserver.grants import LIFE, Grant, Keys, fingerprint
from fileserver.transfer import ledger, manifest_rows, routes
from fileserver.transfer.book import enter, page_of
from fileserver.transfer.dispatch import Fill
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Source
from fileserver.transfer.record import PartRow, Plan
from fileserver.transfer.spec import Format
from fileserver.v1 import agent_pb2 as pb
from fileserver.v1 import part_pb2, transfer_pb2
from planes.errors import Corrupt, Error, Unsupported

if TYPE_CHECKING:  # brings numpy, which a server should not load before the first file is split
    from fileserver.transfer.partition import Points

_OLD: Final = 24 * 3600.0  # seconds
_TRIES: Final = 5  # with fresh grants
_WAIT: Final = 1.5  # seconds between them
_LONGEST: Final = 300  # characters of what an agent says of a way


def agents_of(plan: Plan) -> list[str]:
    """The planes of agents that a transfer reads or writes."""
    return sorted({name for name in (plan.plane, *plan.native) if name.startswith(AGENT)})


class Agents:
    """The planes of agents, and the work that is done there."""

    def __init__(
        self, store: Store, keys: Keys, format_message: Callable[[Format | None], transfer_pb2.Format | None]
    ) -> None:
        self._format_message = format_message
        self.assignments = Assignments(store)
        self._store = store
        self.keys = keys
        self._elsewhere: Fill | None = None

    def plane(self, name: str) -> AgentPlane:
        """The plane of an agent, whether it is here or not."""
        return AgentPlane(name, self.assignments, self.partition)

    async def partition(self, sources: Sequence[Source], form: Format, targets: Sequence[int]) -> Points:
        """Split points, found where the sources are; all of them are of one agent."""
        asked = part_pb2.PartitionRequest(
            sources=[transfer_pb2.Source(plane=s.plane, key=s.key, size=s.size, version=s.version) for s in sources],
            format=self._format_message(form),
            targets=targets,
        )
        answer = await self.assignments.ask(sources[0].plane, pb.Assignment(partition=asked))
        from fileserver.transfer.partition import Points  # noqa: PLC0415 - see above

        found = answer.points
        if len(found.points) != len(targets) or list(found.points) != sorted(found.points):
            msg = f"the machine of {sources[0].plane} found {len(found.points)} split points for {len(targets)} targets"
            raise Corrupt(msg, plane=sources[0].plane)
        return Points(tuple(found.points), found.bytes_read, found.split, tuple(found.warnings))

    def before(self, elsewhere: Fill) -> Fill:
        """Fill segments with agents where they are needed, and by `elsewhere` where not."""
        self._elsewhere = elsewhere
        return self.fill

    async def fill(self, transfer: str, number: int, live: Live) -> None:
        """Have what is missing of a segment stored, by who can.

        Raises:
            Unsupported: two agents would have to meet.
            Error: what went wrong there.
        """
        plan = (await self._store.read(lambda c: ledger.get(c, transfer))).plan
        assert plan is not None
        names = agents_of(plan)
        if not names:
            assert self._elsewhere is not None
            await self._elsewhere(transfer, number, live)
            return
        if len(names) > 1:
            msg = "from one caller's machine to another there is no way: spray to a plane first, and despray from it"
            raise Unsupported(msg)
        if (await self._store.read(lambda c: page_of(c, transfer, number))) is None:
            return
        answer = await self._filled(names[0], transfer, number, live)
        stored, done = steps_of(answer.stored)
        if answer.unreached:
            await self._store.write(lambda c: _go_round(c, transfer, answer.unreached))
        await self._store.write(lambda c: enter(c, transfer, stored, done, live))
        await self._store.write(lambda c: manifest_rows.segment_done(c, transfer, number, now()))

    async def _filled(self, plane: str, transfer: str, number: int, live: Live) -> pb.Answer:
        """The agent's answer when all of a segment is stored."""
        work = pb.Assignment(fill=pb.FillWork(segment=part_pb2.Segment(transfer=transfer, number=number)))
        for left in reversed(range(_TRIES)):
            counted = _Counted(live)
            try:
                answer = await self.assignments.ask(
                    plane,
                    work,
                    transfer=transfer,
                    segment=number,
                    heard=lambda report, counted=counted: counted.count(report.progress),  # type: ignore[misc]
                    keep=lambda: live.wish == "drain",
                )
            except Error as error:
                # A grant that counts no more: a stop is on its way here, or the hours of an agent that stood still.
                lost = isinstance(error, Cancelled) and not live.wish  # by nobody here
                over = isinstance(error, CallerDenied) and error.facts.get("why") in {"over", "expired"}
                if not left or not (over or lost or error.retriable):
                    raise
                await asyncio.sleep(_WAIT)
            else:
                counted.count(answer.progress)
                return answer
        raise AssertionError

    async def sweep(self) -> None:
        """Forget what nobody can be waiting for any more."""
        await self._store.write(lambda c: forget(c, moment(c) - _OLD))

    # --- hand-out -----------------------------------------------------------------------------------------------

    async def handed(
        self, transfer: str, number: int, plane: str, shared: Callable[[str], bool], begins: float
    ) -> pb.FillWork | None:
        """A segment for the agent of a plane, with fresh grants; None if nothing of it is missing any more.

        Args:
            transfer: whose segment.
            number: of the segment.
            plane: the agent's.
            shared: says of the name of a plane whether every file server reaches it.
            begins: now, from which the grants count.
        """
        page = await self._store.read(lambda c: page_of(c, transfer, number))
        if page is None:
            return None
        reads = page.plan.plane == plane

        def grant(row: PartRow) -> str:
            size, token = row.part.size, fingerprint(row.token)
            whole = Grant("read" if reads else "write", transfer, row.part.number, token, 0, size, size, begins + LIFE)
            return self.keys.mint(whole)

        def token(row: PartRow) -> str:
            # Where the upload is not on its machine it needs no token, but to tell parts from each other.
            return (row.token or "") if reads or not row.token else str(row.part.number)

        return await asyncio.to_thread(
            fill_message, transfer, page, shared=not reads and shared(page.plan.plane), token=token, grant=grant
        )

    async def receive(self, transfer: str, number: int, steps: Sequence[pb.StepDone]) -> None:
        """Keep receipts of an agent, of its own segment alone.

        Raises:
            CallerDenied: they are of another.
        """

        def work(c: sa.Connection) -> None:
            segment, _ = manifest_rows.segment(c, transfer, number)
            if any(not segment.first_part <= step.part <= segment.last_part for step in steps):
                msg = f"a receipt is not of segment {number} of transfer {transfer}, which was handed out"
                raise CallerDenied(msg, transfer=transfer)
            enter(c, transfer, *steps_of(steps))

        if steps:
            await self._store.write(work)


def _go_round(c: sa.Connection, transfer: str, unreached: Mapping[str, str]) -> None:
    """Note which stores an agent does not reach by itself: from now on the file servers carry its bytes there."""
    record = ledger.get(c, transfer)
    assert record.plan is not None
    why = {name: text[:_LONGEST] for name, text in unreached.items()}
    plan = routes.not_direct(record.plan, why)
    if plan != record.plan:
        told = [
            f"{text}; the file servers carry the bytes" for name, text in why.items() if plan.direct.get(name) == text
        ]
        ledger.update(c, transfer, now(), plan=plan.to_json(), warnings=[*record.warnings, *told])


class _Counted:
    """Adds to a transfer's counters what an agent tells of its segment, from its beginning."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._before = part_pb2.SegmentProgress()

    def count(self, now: part_pb2.SegmentProgress) -> None:
        """Count what has come since; an agent that began again is not counted backwards."""
        live, before = self._live, self._before
        live.done += max(0, now.bytes_done - before.bytes_done)
        live.through_us += max(0, now.bytes_through_us - before.bytes_through_us)
        live.native += max(0, now.bytes_native - before.bytes_native)
        live.checked += max(0, now.bytes_checked - before.bytes_checked)
        live.parts_done += max(0, now.parts_done - before.parts_done)
        live.touch()
        self._before = now
