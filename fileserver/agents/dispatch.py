"""Which machine does what: a segment that reads or writes the files of an agent goes to that agent."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import sqlalchemy as sa

from fileserver.agents.assignments import Assignments
from fileserver.agents.hosts import HostsPlane
from fileserver.agents.plane import AgentPlane
from fileserver.agents.wire import fill_message, steps_of
from fileserver.catalogue.agents import forget
from fileserver.catalogue.clock import moment
from fileserver.catalogue.files import now
from fileserver.catalogue.store import Store
from fileserver.configured import AGENT
from fileserver.errors import CallerDenied, Cancelled
from fileserver.grants import LIFE, Grant, Keys, fingerprint
from fileserver.hosts import AGENT_OF, agent_of, host_of
from fileserver.together import side_by_side
from fileserver.transfer import ledger, manifest_rows, routes
from fileserver.transfer.book import Page
from fileserver.transfer.dispatch import Fill
from fileserver.transfer.execute import Mine, of_segment
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Source
from fileserver.transfer.record import PartRow
from fileserver.transfer.spec import Format
from fileserver.transfer.store_book import enter, page_of
from fileserver.v1 import agent_pb2 as pb
from fileserver.v1 import part_pb2, transfer_pb2
from planes.errors import Corrupt, Error
from planes.posix import PosixSettings

if TYPE_CHECKING:  # brings numpy, which a server should not load before the first file is split
    from fileserver.transfer.partition import Points

_OLD: Final = 24 * 3600.0  # seconds
_TRIES: Final = 5  # with fresh grants
_WAIT: Final = 1.5  # seconds between them
_LONGEST: Final = 300  # characters of what an agent says of a way


class Filling(Protocol):
    """Who fills segments, as `transfer.stages` has it."""

    filling: Fill

    async def fill_here(self, transfer: str, segment: int, live: Live, mine: Mine | None = None) -> None:
        """Store what is missing of a segment, or of what of it is `mine`, on this file server."""
        ...


class Agents:
    """The planes of agents, and the work that is done there."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        format_message: Callable[[Format | None], transfer_pb2.Format | None],
        hosted: Mapping[str, PosixSettings] | None = None,
    ) -> None:
        self.hosted = hosted or {}
        """The planes that have hosts."""
        self._format_message = format_message
        self.assignments = Assignments(store)
        self._store = store
        self.keys = keys
        self._stages: Filling | None = None
        self._elsewhere: Fill | None = None

    def plane(self, name: str) -> AgentPlane | HostsPlane:
        """The plane of an agent or of hosts, whether those are here or not."""
        if name not in self.hosted:
            return AgentPlane(name, self.assignments, self.partition)
        hosts = self.hosted[name].hosts
        return HostsPlane(name, {host: AgentPlane(name, self.assignments, self.partition, host) for host in hosts})

    async def absent(self, name: str) -> list[str]:
        """The hosts of a plane whose agents are not here."""
        return [h for h in self.hosted[name].hosts if not await self.assignments.present(agent_of(h))]

    def owner(self, plane: str, key: str) -> str:
        """The agent that has an object; "" for what the file servers reach."""
        if plane.startswith(AGENT):
            return plane
        return agent_of(host_of(key)) if plane in self.hosted else ""

    async def partition(self, agent: str, sources: Sequence[Source], form: Format, targets: Sequence[int]) -> Points:
        """Split points, found where the sources are; all of them are of one agent."""
        asked = part_pb2.PartitionRequest(
            sources=[transfer_pb2.Source(plane=s.plane, key=s.key, size=s.size, version=s.version) for s in sources],
            format=self._format_message(form),
            targets=targets,
        )
        about = "" if agent.startswith(AGENT) else sources[0].plane
        answer = await self.assignments.ask(agent, pb.Assignment(partition=asked, plane=about))
        from fileserver.transfer.partition import Points  # noqa: PLC0415 - see above

        found = answer.points
        if len(found.points) != len(targets) or list(found.points) != sorted(found.points):
            msg = f"the machine of {sources[0].plane} found {len(found.points)} split points for {len(targets)} targets"
            raise Corrupt(msg, plane=sources[0].plane)
        return Points(tuple(found.points), found.bytes_read, found.split, tuple(found.warnings))

    def before(self, stages: Filling) -> None:
        """Fill segments with agents where they are needed, and as until now where not."""
        self._stages, self._elsewhere, stages.filling = stages, stages.filling, self.fill

    async def fill(self, transfer: str, number: int, live: Live) -> None:
        """Have what is missing of a segment stored, by who can: who has the files that it writes, or reads.

        Steps that are made of files of several machines are done here, by whatever of them is asked for.

        Raises:
            Error: what went wrong there.
        """
        plan = (await self._store.read(lambda c: ledger.get(c, transfer))).plan
        assert plan is not None
        assert self._stages is not None
        assert self._elsewhere is not None
        planes = (plan.plane, *plan.native)
        if not any(name.startswith(AGENT) or name in self.hosted for name in planes):
            await self._elsewhere(transfer, number, live)
            return
        page = await self._store.read(lambda c: page_of(c, transfer, number))
        if page is None:
            return
        shares = await asyncio.to_thread(shared_out, page, self.owner)
        names = sorted(name for name in shares if name)
        told = ", ".join(name.removeprefix(AGENT_OF) for name in names)[:64]
        await self._store.write(lambda c: manifest_rows.segment_begun(c, transfer, number, told, now()))

        hosted = next((name for name in planes if name in self.hosted), "")

        async def one(agent: str) -> None:
            about = hosted if agent.startswith(AGENT_OF) else ""
            answer = await self._filled(agent, about, transfer, number, live)
            stored, done = steps_of(answer.stored)
            if answer.unreached:
                await self._store.write(lambda c: _go_round(c, transfer, answer.unreached))
            await self._store.write(lambda c: enter(c, transfer, stored, done, live))

        await side_by_side(names, one, max(len(names), 1))
        if "" in shares:
            await self._stages.fill_here(transfer, number, live, shares[""])
        else:
            await self._store.write(lambda c: manifest_rows.segment_done(c, transfer, number, now()))

    async def _filled(self, agent: str, about: str, transfer: str, number: int, live: Live) -> pb.Answer:
        """The agent's answer when its share of a segment is stored; `about` is a plane of its, "" a command's."""
        work = pb.Assignment(fill=pb.FillWork(segment=part_pb2.Segment(transfer=transfer, number=number)), plane=about)
        for left in reversed(range(_TRIES)):
            counted = _Counted(live)
            try:
                answer = await self.assignments.ask(
                    agent,
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
        """Forget what nobody can be waiting for any more; a host of the configuration is waited for, however long."""
        known = {agent_of(host) for settings in self.hosted.values() for host in settings.hosts}
        await self._store.write(lambda c: forget(c, moment(c) - _OLD, known))

    # --- hand-out -----------------------------------------------------------------------------------------------

    async def handed(
        self, transfer: str, number: int, agent: str, shared: Callable[[str], bool], begins: float
    ) -> pb.FillWork | None:
        """What of a segment is an agent's, with fresh grants; None if nothing of that is missing any more.

        Args:
            transfer: whose segment.
            number: of the segment.
            agent: whose work it is.
            shared: says of the name of a plane whether every file server reaches it.
            begins: now, from which the grants count.
        """
        page = await self._store.read(lambda c: page_of(c, transfer, number))
        if page is None:
            return None
        mine = (await asyncio.to_thread(shared_out, page, self.owner)).get(agent)
        if mine is None:
            return None
        # Whoever has the target reads the source by its grant, in whole parts; who has the source writes by it.
        reads = any(self.owner(page.plan.plane, row.part.key) == agent for row in page.rows)

        def grant(row: PartRow) -> str:
            size, token = row.part.size, fingerprint(row.token)
            whole = Grant("read" if reads else "write", transfer, row.part.number, token, 0, size, size, begins + LIFE)
            return self.keys.mint(whole)

        def token(row: PartRow) -> str:
            # Where the upload is not on its machine it needs no token, but to tell parts from each other.
            return (row.token or "") if reads or not row.token else str(row.part.number)

        return await asyncio.to_thread(
            fill_message, transfer, page, mine, shared=not reads and shared(page.plan.plane), token=token, grant=grant
        )

    async def receive(
        self, transfer: str, number: int, steps: Sequence[pb.StepDone], holds: Callable[[sa.Connection], bool]
    ) -> None:
        """Keep receipts of an agent, of its own segment alone; none if what it did was taken back meanwhile.

        The uploads may be others by then, which hold nothing of that.

        Args:
            transfer: whose segment.
            number: of the segment.
            steps: the receipts.
            holds: keeps what came with them, and says whether the segment is the agent's still.

        Raises:
            CallerDenied: they are of another.
        """

        def work(c: sa.Connection) -> None:
            if not holds(c) or not steps:
                return
            segment, _ = manifest_rows.segment(c, transfer, number)
            if any(not segment.first_part <= step.part <= segment.last_part for step in steps):
                msg = f"a receipt is not of segment {number} of transfer {transfer}, which was handed out"
                raise CallerDenied(msg, transfer=transfer)
            enter(c, transfer, *steps_of(steps))

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


def shared_out(page: Page, owner: Callable[[str, str], str]) -> dict[str, dict[int, list[int]]]:
    """Who stores what is missing of a segment: by agent ("": the file servers), steps by part, none of them being all.

    A part of an agent's own files is its own work; of any other, each agent does the steps that are made of its files
    alone. Busy for a while: for a thread.
    """
    shares: defaultdict[str, dict[int, list[int]]] = defaultdict(dict)
    plan = page.plan
    for row in page.rows:
        if row.done:
            continue
        number, at = row.part.number, owner(plan.plane, row.part.key)
        if at:
            shares[at][number] = []
            continue
        have = {each.receipt.number for each in page.have.get(number, ())}
        for step in of_segment(page.segment, routes.steps(row.part, plan)):
            if step.number not in have:
                readers = {owner(p.source, p.extent.key) for p in step.pieces if p.extent is not None}
                who = readers.pop() if len(readers) == 1 else ""
                shares[who].setdefault(number, []).append(step.number)
    return dict(shares)


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
