"""The files of an agent's machine as a plane: every verb is asked of the agent.

What planning, committing and proving ask are small things: facts, windows, samples, begin, commit, remove. The bytes of
a transfer are carried by the agent itself (`agents.dispatch`), under grants; only what two machines have to meet for,
neither of which can be called, is read this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Self

from typing_extensions import Buffer

from fileserver.agents.assignments import Assignments
from fileserver.agents.wire import READ, info_of, step_message, steps_of
from fileserver.hosts import agent_of, not_here
from fileserver.together import side_by_side
from fileserver.transfer.live import PATIENCE
from fileserver.transfer.manifest import Source
from fileserver.transfer.record import StoredStep
from fileserver.transfer.spec import Format
from fileserver.v1 import agent_pb2 as pb
from planes import checksum
from planes.errors import Corrupt, NotFound, Unavailable, Unsupported
from planes.left_out import Tell
from planes.plane import Extent, Info, Limits, Presign, StepReceipt, Take, Ticket, Unfinished
from planes.posix import CAPABILITIES, LIMITS

if TYPE_CHECKING:  # brings numpy, which a server should not load before the first file is split
    from fileserver.transfer.partition import Points

AHEAD: Final = 4
"""Answers that are waited for side by side."""
_CLEANS: Final = 60.0  # seconds that an agent has to remove something


Partition = Callable[[str, Sequence[Source], Format, Sequence[int]], Awaitable["Points"]]


class AgentPlane:
    """Files by absolute path, or those of a host below the folder of a plane; its verbs are said in `planes.plane`.

    Args:
        name: of the plane.
        assignments: what agents are asked.
        partition: has an agent find split points.
        host: whose files they are, of a plane of the configuration.
    """

    limits: Limits = LIMITS
    capabilities = replace(CAPABILITIES, pours=False)

    def __init__(self, name: str, assignments: Assignments, partition: Partition, host: str = "") -> None:
        self.name = name
        self._host = host
        self._agent = agent_of(host) if host else name
        self._assignments = assignments
        self._partition = partition

    async def partition(self, sources: Sequence[Source], form: Format, targets: Sequence[int]) -> Points:
        """Split points of its files, found by the agent."""
        return await self._partition(self._agent, sources, form, targets)

    async def ask(self, work: pb.Assignment) -> pb.Answer:
        """Have the agent do something; waits for one that is not here (that of a host for `PATIENCE` seconds)."""
        return await self._asked(work, PATIENCE.get() if self._host else inf)

    async def clean(self, work: pb.Assignment) -> pb.Answer:
        """The same for a clean-up, which must end.

        Raises:
            Unavailable: the agent is not here, or does not answer; a later clean-up tries again.
        """
        try:
            async with asyncio.timeout(_CLEANS):
                return await self._asked(work, 0.0)
        except TimeoutError:
            msg = f"the machine of these files did not answer for {_CLEANS:.0f} seconds"
            raise Unavailable(msg, plane=self.name) from None

    async def _asked(self, work: pb.Assignment, wait: float) -> pb.Answer:
        if not self._host:
            return await self._assignments.ask(self._agent, work, patient=wait == inf, grace=wait)
        work.plane = self.name
        away = not_here(self._host, self.name)
        return await self._assignments.ask(self._agent, work, patient=wait == inf, grace=wait, away=away)

    async def stat(self, key: str) -> Info:
        """Facts about a file."""
        info = self.one(await self.ask(pb.Assignment(stat=pb.StatWork(key=key))))
        if info.key != key:
            raise self.odd()
        return info

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Files in byte order of their keys, a page at a time; what is no file is left out in silence."""
        del left_out
        while True:
            answer = await self.ask(pb.Assignment(list=pb.ListWork(prefix=prefix, after=after)))
            for each in answer.files:
                if each.key <= after or not self._is_below(each.key, prefix):
                    raise self.odd()
                after = each.key
                yield info_of(each)
            if not answer.more:
                return
            if not answer.files:
                raise self.odd()

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` from a file: a window, a sample, or what another machine needs of it."""
        e = extent

        async def one(start: int) -> None:
            end = min(start + READ, e.end)
            work = pb.ReadWork(key=e.key, version=e.version, start=start, end=end)
            answer = await self.ask(pb.Assignment(read=work))
            if len(answer.data) != end - start:
                msg = f"the machine of {self.name} sent {len(answer.data)} bytes where {end - start} were asked for"
                raise Corrupt(msg, plane=self.name, key=e.key)
            into[start - e.start : end - e.start] = answer.data

        await side_by_side(range(e.start, e.end, READ), one, AHEAD)

    async def stream(self, extent: Extent, take: Take) -> None:
        """The same, slice by slice; what the agent carries itself does not go this way."""
        e, most = extent, AHEAD * READ
        buffer = memoryview(bytearray(min(most, e.size)))
        for start in range(e.start, e.end, most):
            piece = Extent(e.key, e.version, start, min(start + most, e.end))
            await self.read(piece, buffer[: piece.size])
            await asyncio.to_thread(take, buffer[: piece.size])

    async def put(
        self,
        key: str,
        data: Buffer,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> StepReceipt:
        """Write a small file of a host, as manifests are; the agent carries payload itself."""
        del content_type, metadata
        if not self._host:
            self.refuse("put")
        put = pb.PutWork(key=key, upload_id=upload_id, replace=replace, data=bytes(data))
        return self._receipt(await self.ask(pb.Assignment(put=put)))

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """There are no native copies between machines."""
        del key, ticket, upload_id, replace, url
        self.refuse("copy")

    async def step(self, token: str, number: int, offset: int, data: bytes) -> StepReceipt:
        """Write a step of an upload of a host."""
        if not self._host:
            self.refuse("write")
        step = pb.StepWork(token=token, number=number, offset=offset, data=data)
        return self._receipt(await self.ask(pb.Assignment(step=step)))

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> AgentUpload:
        """Begin a file in steps."""
        del content_type, metadata, kind
        answer = await self.ask(pb.Assignment(open=pb.OpenWork(key=key, upload_id=upload_id, replace=replace)))
        return AgentUpload(self, answer.token)

    def resume(self, token: str) -> AgentUpload:
        """The upload of a token."""
        return AgentUpload(self, token)

    async def discard(self, key: str, upload_id: str) -> None:
        """Remove what an attempt left."""
        await self.clean(pb.Assignment(discard=pb.DiscardWork(key=key, upload_id=upload_id)))

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Files in the making of a host; nobody sweeps the machine of a caller."""
        if self._host:
            answer = await self.clean(pb.Assignment(list=pb.ListWork(prefix=prefix, unfinished=True)))
            for each in answer.files:
                if not self._is_below(each.key, prefix):
                    raise self.odd()
                yield Unfinished(each.key, each.version)

    async def drop(self, one: Unfinished) -> bool:
        """Nobody sweeps the machine of a caller."""
        del one
        return False

    async def delete(self, key: str, *, version: str = "") -> None:
        """Delete a file."""
        await self.clean(pb.Assignment(delete=pb.DeleteWork(key=key, version=version)))

    def copy_ticket(self, info: Info) -> Ticket | None:
        """No other provider reaches these files: None."""
        del info
        return None

    def accepts(self, ticket: Ticket) -> bool:
        """No: it copies nothing by itself."""
        del ticket
        return False

    async def presign(self, ticket: Ticket) -> str:
        """Files have no addresses: raises Unsupported."""
        del ticket
        self.refuse("presign")

    async def aclose(self) -> None:
        """Nothing to release."""

    def one(self, answer: pb.Answer) -> Info:
        """The one file that an answer is about; raises Corrupt."""
        if len(answer.files) != 1:
            raise self.odd()
        return info_of(answer.files[0])

    def _receipt(self, answer: pb.Answer) -> StepReceipt:
        stored, _ = steps_of(answer.stored)
        if len(stored) != 1:
            raise self.odd()
        return stored[0].receipt

    def _is_below(self, key: str, prefix: str) -> bool:
        """Whether a key is one that was asked for: the agent of one host must not tell of files of another."""
        return key.startswith(prefix) and (not self._host or key.startswith(f"{self._host}/"))

    def odd(self) -> Corrupt:
        """The error of an answer that is none to what was asked."""
        whose = f"host {self._host}" if self._host else "these files"
        msg = f"the agent of {whose} ({self.name}) answers with something else than was asked for"
        return Corrupt(msg, plane=self.name)

    def refuse(self, verb: str) -> NoReturn:
        """Say that files of an agent's machine cannot do something; raises Unsupported."""
        msg = f"{self.name} has its files on the machine of an agent, which cannot {verb} for a file server"
        raise Unsupported(msg, plane=self.name)


class AgentUpload:
    """A file in the making on an agent's machine."""

    def __init__(self, plane: AgentPlane, token: str) -> None:
        self._plane = plane
        self.token = token
        self._committed = False

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Write a step of a large manifest; the agent carries payload itself."""
        del crc64nvme
        return await self._plane.step(self.token, number, offset, bytes(data))

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """Steps come whole: raises Unsupported."""
        del number, offset, size, stream
        self._plane.refuse("pour")

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """There are no native copies between machines."""
        return await self._plane.copy(self.token, ticket, upload_id=f"{number} {offset} {start} {end}", url=url)

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Make the file visible."""
        work = pb.CommitWork(
            token=self.token,
            steps=[step_message(StoredStep(1, each)) for each in steps],
            size=size,
            crc64nvme="" if crc64nvme is None else checksum.to_hex(crc64nvme),
        )
        answer = await self._plane.ask(pb.Assignment(commit=work))
        self._committed = True
        return self._plane.one(answer)

    async def made(self) -> Info | None:
        """The file that this has made, if it is still there."""
        try:
            answer = await self._plane.clean(pb.Assignment(made=pb.MadeWork(token=self.token)))
        except NotFound:
            return None
        return self._plane.one(answer) if answer.files else None

    async def abort(self) -> None:
        """Leave nothing behind."""
        await self._plane.clean(pb.Assignment(abort=pb.AbortWork(token=self.token)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        if not self._committed:
            await self.abort()
