"""PartService: validate, call, answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from fileserver.admission import Slots
from fileserver.auth import allow
from fileserver.errors import Cancelled, InvalidSpec, TransferNotFound
from fileserver.services.format_shapes import format_of
from fileserver.services.transfer import id_of
from fileserver.transfer.execute import RouteRefused
from fileserver.transfer.jobs import Jobs
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Source
from fileserver.transfer.record import Progress
from fileserver.v1 import part_pb2 as pb
from fileserver.v1.part_pb2_grpc import PartServiceServicer
from planes.errors import Unsupported

_EVERY: Final = 0.5  # seconds between two messages of progress, and two looks whether the transfer is to stop
_RETRY_AFTER: Final = 0.25
SEGMENTS: Final = 8
"""Segments at once; a server that has as many sends its callers to another."""


class PartServicer(PartServiceServicer):
    """Work on parts, on the wire. Pull and Push do the same here: which server does it was the caller's choice."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._slots = Slots("segments", SEGMENTS, retry_after=_RETRY_AFTER)  # nobody waits: another server may be free

    async def Partition(self, request: pb.PartitionRequest, context: Any) -> pb.PartitionResponse:
        """Finds split points.

        Raises:
            InvalidSpec: the format is missing or makes no sense.
            CallerDenied: a source is a file of this machine, and the caller is not the server's own user.
        """
        wrong: dict[str, str] = {}
        form = format_of(request.format, "format", wrong)
        if form is None or wrong:
            wrong.setdefault("format", "say how records are told apart")
            raise InvalidSpec("; ".join(wrong.values()), wrong)
        for source in request.sources:
            allow(source.plane)
        sources = [Source(s.plane, s.key, s.size, s.version, {}) for s in request.sources]
        points = await self._jobs.planner.partition(sources, form, list(request.targets))
        return pb.PartitionResponse(
            points=points.points, bytes_read=points.bytes_read, split=points.split, warnings=points.warnings
        )

    async def Pull(self, request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullResponse]:
        """Moves a segment by fetching."""
        async for progress in self._fill(request.segment):
            yield pb.PullResponse(progress=progress)

    async def Push(self, request: pb.PushRequest, context: Any) -> AsyncIterator[pb.PushResponse]:
        """Moves a segment by sending."""
        async for progress in self._fill(request.segment):
            yield pb.PushResponse(progress=progress)

    async def _fill(self, segment: pb.Segment) -> AsyncIterator[pb.SegmentProgress]:
        """Move a segment and tell how far it is.

        Raises:
            TransferNotFound, InvalidSpec: there is nothing to move.
            ServerBusy: this server moves as many segments as it can.
            Cancelled: the transfer is being stopped; nothing is written any more.
            Unsupported: the provider will not copy from the plane that the facts name; the bytes have to travel.
            Error: what the planes raise.
        """
        transfer = id_of(segment.transfer)
        if await self._stops(transfer):
            msg = f"transfer {transfer} has ended or is being stopped: none of its segments may be moved"
            raise TransferNotFound(msg, transfer=transfer)
        async with self._slots.one(), aclosing(self._move(transfer, segment.number)) as told:
            async for progress in told:
                yield progress

    async def _move(self, transfer: str, number: int) -> AsyncGenerator[pb.SegmentProgress, None]:
        live = Live(Progress(), elsewhere=True)
        work = asyncio.create_task(self._jobs.stages.fill_here(transfer, number, live))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_EVERY)
                if not work.done() and await self._stops(transfer):
                    work.cancel()
                    await asyncio.wait({work})
                    msg = f"transfer {transfer} is being stopped"
                    raise Cancelled(msg)
                yield _progress(live, done=False)
            try:
                work.result()
            except RouteRefused as refused:
                raise Unsupported(refused.why, plane=refused.plane, route=refused.route) from refused
            yield _progress(live, done=True)
        finally:
            work.cancel()
            await asyncio.wait({work})

    async def _stops(self, transfer: str) -> bool:
        """Whether a transfer has ended, or is to stop; raises TransferNotFound."""
        record = await self._jobs.stages.record(transfer)
        return record.ended is not None or record.wish != "" or record.error is not None


def _progress(live: Live, *, done: bool) -> pb.SegmentProgress:
    return pb.SegmentProgress(
        bytes_done=live.done,
        bytes_through_us=live.through_us,
        bytes_native=live.native,
        bytes_checked=live.checked,
        done=done,
        parts_done=live.parts_done,
    )
