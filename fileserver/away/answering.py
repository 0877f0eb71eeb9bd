"""What an agent does when it is asked: one assignment, one answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import grpc
import structlog

from fileserver.agents.wire import (
    READ,
    done_message,
    error_message,
    info_message,
    mine_of,
    page_of,
    progress_message,
    step_message,
    steps_of,
)
from fileserver.away.data import Data
from fileserver.away.machine import Machine
from fileserver.away.paths import Paths
from fileserver.away.remote import RemotePlane
from fileserver.errors import InvalidSpec
from fileserver.services.format_shapes import format_of
from fileserver.transfer.book import Page
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.execute import Executor
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Source
from fileserver.transfer.record import Done, Progress, StoredStep
from fileserver.v1 import agent_pb2 as pb
from fileserver.v1 import part_pb2
from planes import checksum
from planes.errors import Error
from planes.opening import decorated
from planes.plane import MIB, Extent, Plane
from planes.settings import PlaneLimits

Report = Callable[[pb.Report], None]

CALLS: Final = 8
"""Streams of payload at once."""
MEMORY: Final = 128 * MIB
"""Bytes of payload that are held at most."""

_PAGE: Final = 500  # files in one answer

_log = structlog.get_logger(__name__)


class Answering:
    """Does assignments with the files of this machine.

    Args:
        machine: the files that may be touched.
        channel: to the file servers, for payload.
        encrypted: whether that is by TLS.
    """

    def __init__(self, machine: Machine, channel: grpc.Channel, *, encrypted: bool) -> None:
        self._machine = machine
        self._data = Data(channel, CALLS, encrypted=encrypted)
        self._buffers = Buffers(MEMORY)
        self._grants: dict[str, dict[int, str]] = {}
        """Those of the segments at work, by the id of the assignment; fresh ones take their place."""

    def close(self) -> None:
        """Let the threads go."""
        self._data.close()

    def refresh(self, assignment: pb.Assignment) -> bool:
        """Take the fresh grants of an assignment that is at work; whether it is."""
        known = self._grants.get(assignment.id)
        if known is not None:
            known.update(_grants(assignment.fill))
        return known is not None

    async def answer(self, assignment: pb.Assignment, report: Report) -> pb.Answer:
        """Do it, and say how it ended; errors are answers, too, but who is cancelled says nothing."""
        try:
            answer = await self._do(assignment, report)
        except Error as error:
            answer = pb.Answer(error=error_message(error))
        except Exception:  # noqa: BLE001  # a bug must not end the agent, and its text may hold what no server should see
            line = uuid.uuid4().hex[:8]
            _log.exception("bug", id=line)
            answer = pb.Answer(error=error_message(Error(f"a bug in the agent; its log has the details under {line}")))
        answer.id = assignment.id
        return answer

    async def _do(self, a: pb.Assignment, report: Report) -> pb.Answer:
        kind = a.WhichOneof("work")
        if kind == "fill":
            return await self._fill(a, report)
        files = self._machine.files(a.plane)
        if kind == "partition":
            return pb.Answer(points=await _partition(files, a.partition))
        if kind == "stat":
            return pb.Answer(files=[info_message(await files.stat(a.stat.key))])
        if kind == "list":
            return await _list(files, a.list)
        if kind == "read":
            return await _read(files, a.read)
        return await _write(files, kind or "", a)

    async def _fill(self, a: pb.Assignment, report: Report) -> pb.Answer:
        page = await asyncio.to_thread(page_of, a.fill)
        grants = self._grants[a.id] = _grants(a.fill)
        transfer = a.fill.segment.transfer.removeprefix("transfers/")
        live = Live(Progress(), elsewhere=True)
        book = _Book(page, lambda stored: report(_report(a.id, live, stored)))
        paths = Paths(self._data.direct, page.plan.direct)
        inner = self._machine.files(a.plane)
        remote = RemotePlane(transfer, inner, page, grants, self._data, paths, shared=a.fill.target_shared)
        executor = Executor(_Planes(self._machine, remote), book, self._buffers)
        try:
            await executor.fill(transfer, page.segment.number, live, mine_of(a.fill))
        finally:
            self._grants.pop(a.id, None)
        return pb.Answer(progress=progress_message(live, done=True), stored=book.all, unreached=paths.closed)


async def _write(files: Plane, kind: str, a: pb.Assignment) -> pb.Answer:
    if kind == "open":
        upload = await files.upload(a.open.key, upload_id=a.open.upload_id, replace=a.open.replace)
        return pb.Answer(token=upload.token)
    if kind == "put":
        put = a.put
        receipt = await files.put(put.key, put.data, upload_id=put.upload_id, replace=put.replace)
        return pb.Answer(stored=[step_message(StoredStep(1, receipt))])
    if kind == "step":
        receipt = await files.resume(a.step.token).put(a.step.number, a.step.offset, a.step.data)
        return pb.Answer(stored=[step_message(StoredStep(1, receipt))])
    if kind == "commit":
        crc = checksum.from_hex(a.commit.crc64nvme) if a.commit.crc64nvme else None
        steps = [each.receipt for each in steps_of(a.commit.steps)[0]]
        return pb.Answer(files=[info_message(await files.resume(a.commit.token).commit(steps, a.commit.size, crc))])
    if kind == "made":
        made = await files.resume(a.made.token).made()
        return pb.Answer(files=[info_message(made)] if made else [])
    if kind == "abort":
        await files.resume(a.abort.token).abort()
    elif kind == "discard":
        await files.discard(a.discard.key, a.discard.upload_id)
    elif kind == "delete":
        await files.delete(a.delete.key, version=a.delete.version)
    else:
        msg = "this agent does not know what it is asked to do: it is older than the file server"
        raise InvalidSpec(msg)
    return pb.Answer()


async def _list(files: Plane, work: pb.ListWork) -> pb.Answer:
    found: list[pb.FileInfo] = []
    if work.unfinished:
        found += [pb.FileInfo(key=one.key, version=one.attempt) async for one in files.unfinished(work.prefix)]
        return pb.Answer(files=found)
    async for info in files.list(work.prefix, work.after):
        if len(found) == _PAGE:
            return pb.Answer(files=found, more=True)
        found.append(info_message(info))
    return pb.Answer(files=found)


async def _read(files: Plane, work: pb.ReadWork) -> pb.Answer:
    if not 0 <= work.start <= work.end <= work.start + READ:
        msg = f"at most {READ} bytes are sent with an answer"
        raise InvalidSpec(msg)
    buffer = bytearray(work.end - work.start)
    await files.read(Extent(work.key, work.version, work.start, work.end), memoryview(buffer))
    return pb.Answer(data=bytes(buffer))


async def _partition(files: Plane, work: part_pb2.PartitionRequest) -> part_pb2.PartitionResponse:
    from fileserver.transfer.partition import partition  # noqa: PLC0415 - brings numpy: not before it is needed

    wrong: dict[str, str] = {}
    form = format_of(work.format, "format", wrong)
    if form is None:
        msg = "; ".join(wrong.values()) or "say how records are told apart"
        raise InvalidSpec(msg, wrong)
    sources = [Source(s.plane, s.key, s.size, s.version, {}) for s in work.sources]

    async def read(index: int, start: int, end: int) -> bytes:
        buffer = bytearray(end - start)
        source = sources[index]
        await files.read(Extent(source.key, source.version, start, end), memoryview(buffer))
        return bytes(buffer)

    found = await partition(sources, form, list(work.targets), read)
    return part_pb2.PartitionResponse(
        points=found.points, bytes_read=found.bytes_read, split=found.split, warnings=found.warnings
    )


def _grants(work: pb.FillWork) -> dict[int, str]:
    return {part.number: part.grant for part in work.parts}


def _report(name: str, live: Live, stored: Sequence[pb.StepDone]) -> pb.Report:
    return pb.Report(id=name, progress=progress_message(live, done=False), stored=stored)


class _Planes:
    """The planes of one segment: this machine's own, and whatever is at the other end."""

    def __init__(self, machine: Machine, remote: RemotePlane) -> None:
        self._machine = machine
        self._remote = remote
        self._known: dict[str, Plane] = {}

    def plane(self, name: str) -> Plane:
        """The plane of a name."""
        if name not in self._known:
            other = decorated(self._remote.called(name), PlaneLimits())
            self._known[name] = self._machine.beside(name, other)
        return self._known[name]


class _Book:
    """A segment that came with its assignment; receipts are sent at once, and again with the answer."""

    failures = ()

    def __init__(self, page: Page, send: Callable[[Sequence[pb.StepDone]], None]) -> None:
        self._page = page
        self._send = send
        self._sizes: Mapping[int, int] = {row.part.number: row.part.size for row in page.rows}
        self.all: list[pb.StepDone] = []

    async def begin(self, transfer: str, number: int) -> Page:
        """What came with it."""
        del transfer, number
        return self._page

    async def enter(self, transfer: str, stored: Sequence[StoredStep], done: Sequence[Done], live: Live) -> None:
        """Send receipts."""
        del transfer, live
        said = [*map(step_message, stored), *(done_message(each, self._sizes[each.number]) for each in done)]
        self.all += said
        self._send(said)

    async def end(self, transfer: str, number: int) -> None:
        """The answer says it."""
        del transfer, number
