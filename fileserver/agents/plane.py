"""The files of an agent's machine as a plane: every verb is asked of the agent. Payload does not come this way.

What planning, committing and proving ask are small things: facts, windows, samples, begin, commit, remove. The bytes of
a transfer are carried by the agent itself (`agents.dispatch`), under grants.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Self

from typing_extensions import Buffer

from fileserver.agents.assignments import Assignments
from fileserver.agents.wire import info_of, step_message
from fileserver.transfer.manifest import Source
from fileserver.transfer.record import StoredStep
from fileserver.transfer.spec import Format
from fileserver.v1 import agent_pb2 as pb
from planes import checksum
from planes.errors import Corrupt, NotFound, Unavailable, Unsupported
from planes.left_out import Tell
from planes.plane import MIB, Extent, Info, Limits, Presign, StepReceipt, Take, Ticket, Unfinished
from planes.posix import CAPABILITIES, LIMITS

if TYPE_CHECKING:  # brings numpy, which a server should not load before the first file is split
    from fileserver.transfer.partition import Points

READ: Final = 4 * MIB
"""Bytes that one answer holds."""
_CLEANS: Final = 60.0  # seconds that an agent has to remove something


Partition = Callable[[Sequence[Source], Format, Sequence[int]], Awaitable["Points"]]


class AgentPlane:
    """Files by absolute path; what its verbs promise is said in `planes.plane`."""

    limits: Limits = LIMITS
    capabilities = replace(CAPABILITIES, pours=False)

    def __init__(self, name: str, assignments: Assignments, partition: Partition) -> None:
        self.name = name
        self._assignments = assignments
        self._partition = partition

    async def partition(self, sources: Sequence[Source], form: Format, targets: Sequence[int]) -> Points:
        """Split points of its files, found by the agent."""
        return await self._partition(sources, form, targets)

    async def ask(self, work: pb.Assignment) -> pb.Answer:
        """Have the agent do something; waits for one that is not here."""
        return await self._assignments.ask(self.name, work)

    async def clean(self, work: pb.Assignment) -> pb.Answer:
        """The same for a clean-up, which must end.

        Raises:
            Unavailable: the agent is not here, or does not answer; a later clean-up tries again.
        """
        try:
            async with asyncio.timeout(_CLEANS):
                return await self._assignments.ask(self.name, work, patient=False)
        except TimeoutError:
            msg = f"the machine of these files did not answer for {_CLEANS:.0f} seconds"
            raise Unavailable(msg, plane=self.name) from None

    async def stat(self, key: str) -> Info:
        """Facts about a file."""
        answer = await self.ask(pb.Assignment(stat=pb.StatWork(key=key)))
        return info_of(answer.files[0])

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Files in byte order of their keys, a page at a time; what is no file is left out in silence."""
        del left_out
        while True:
            answer = await self.ask(pb.Assignment(list=pb.ListWork(prefix=prefix, after=after)))
            for each in answer.files:
                yield info_of(each)
            if not answer.more:
                return
            after = answer.files[-1].key

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` from a file: a window or a sample."""
        e = extent
        for start in range(e.start, e.end, READ):
            end = min(start + READ, e.end)
            work = pb.ReadWork(key=e.key, version=e.version, start=start, end=end)
            answer = await self.ask(pb.Assignment(read=work))
            if len(answer.data) != end - start:
                msg = f"the machine of {self.name} sent {len(answer.data)} bytes where {end - start} were asked for"
                raise Corrupt(msg, plane=self.name, key=e.key)
            into[start - e.start : end - e.start] = answer.data

    async def stream(self, extent: Extent, take: Take) -> None:
        """Nobody streams this way: the agent carries payload itself."""
        del extent, take
        self._refuse("stream")

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
        """Nobody writes this way: the agent carries payload itself."""
        del key, data, upload_id, replace, content_type, metadata
        self._refuse("put")

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """There are no native copies between machines."""
        del key, ticket, upload_id, replace, url
        self._refuse("copy")

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
        """Nobody sweeps the machine of a caller."""
        del prefix
        nothing: tuple[Unfinished, ...] = ()
        for none in nothing:
            yield none

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
        self._refuse("presign")

    async def aclose(self) -> None:
        """Nothing to release."""

    def _refuse(self, verb: str) -> NoReturn:
        msg = f"{self.name} is the machine of a caller, which cannot {verb} for a file server"
        raise Unsupported(msg, plane=self.name)


class AgentUpload:
    """A file in the making on an agent's machine."""

    def __init__(self, plane: AgentPlane, token: str) -> None:
        self._plane = plane
        self.token = token
        self._committed = False

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Nobody writes this way: the agent carries payload itself."""
        return await self._plane.put(self.token, data, upload_id=f"{number} {offset} {crc64nvme}")

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """Nobody writes this way: the agent carries payload itself."""
        del stream
        return await self._plane.put(self.token, b"", upload_id=f"{number} {offset} {size}")

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
        return info_of(answer.files[0])

    async def made(self) -> Info | None:
        """The file that this has made, if it is still there."""
        try:
            answer = await self._plane.clean(pb.Assignment(made=pb.MadeWork(token=self.token)))
        except NotFound:
            return None
        return info_of(answer.files[0]) if answer.files else None

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
