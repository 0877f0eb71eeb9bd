"""TransferService: validate, call, answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf.message import Message

from fileserver.auth import caller
from fileserver.calls import LARGEST
from fileserver.errors import InvalidSpec
from fileserver.services.shapes import plan_message, spec_of, transfer_message
from fileserver.services.sync_shapes import page_message, totals_message
from fileserver.transfer.jobs import Jobs
from fileserver.transfer.spec import Ingest, Sync
from fileserver.v1 import transfer_pb2 as pb
from fileserver.v1.transfer_pb2_grpc import TransferServiceServicer
from planes.errors import Unsupported

M = TypeVar("M", bound=Message)

PAGE = 100
MOST = 1000


class TransferServicer(TransferServiceServicer):
    """Transfers on the wire."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def CreateTransfer(self, request: pb.CreateTransferRequest, context: Any) -> pb.CreateTransferResponse:
        """Accepts a transfer, or plans it if validate_only."""
        spec = spec_of(request.spec)
        if request.validate_only and isinstance(spec.verb, Sync):
            compared = await self._jobs.syncs.compare(spec)
            plan = pb.Plan(sync=totals_message(compared), warnings=compared.warnings)
            return pb.CreateTransferResponse(plan=plan)
        if request.validate_only and isinstance(spec.verb, Ingest):
            msg = "an ingest is planned file by file: ask Hdf5Service.PlanIngest"
            raise InvalidSpec(msg, {"validate_only": msg})
        if request.validate_only:
            drawing = await self._jobs.draw(spec)
            plan = await asyncio.to_thread(plan_message, drawing)
            return fitting(pb.CreateTransferResponse(plan=plan), "the plan", "a transfer without --dry-run")
        record = await self._jobs.create(spec, request.request_id, caller().owns_as)
        return pb.CreateTransferResponse(transfer=transfer_message(record))

    async def PlanSync(self, request: pb.PlanSyncRequest, context: Any) -> AsyncIterator[pb.PlanSyncResponse]:
        """Streams what a sync would do, object by object."""
        spec = spec_of(request.spec)
        if not isinstance(spec.verb, Sync):
            msg = "only a sync is planned object by object; plan other transfers by CreateTransfer with validate_only"
            raise InvalidSpec(msg, {"spec": msg})
        first = True
        async with aclosing(self._jobs.syncs.preview(spec)) as pages:
            async for compared, items in pages:
                yield page_message(compared, items, first=first)
                first = False

    async def GetTransfer(self, request: pb.GetTransferRequest, context: Any) -> pb.GetTransferResponse:
        """One transfer."""
        return pb.GetTransferResponse(transfer=transfer_message(*await self._jobs.get(id_of(request.name))))

    async def ListTransfers(self, request: pb.ListTransfersRequest, context: Any) -> pb.ListTransfersResponse:
        """Transfers, newest first."""
        size = page_size(request.page_size)
        rows = await self._jobs.listing(
            _before(request.page_token), size + 1, active=request.active_only, caller=caller().owner_of
        )
        more = json.dumps([rows[size - 1].created, rows[size - 1].id]) if len(rows) > size else ""
        return pb.ListTransfersResponse(
            transfers=[transfer_message(row, brief=True) for row in rows[:size]], next_page_token=more
        )

    async def WatchTransfer(
        self, request: pb.WatchTransferRequest, context: Any
    ) -> AsyncIterator[pb.WatchTransferResponse]:
        """Streams a transfer until it ends."""
        async for record, rate in self._jobs.watch(id_of(request.name)):
            yield pb.WatchTransferResponse(transfer=transfer_message(record, rate))

    async def CancelTransfer(self, request: pb.CancelTransferRequest, context: Any) -> pb.CancelTransferResponse:
        """Asks a transfer to stop for good."""
        return pb.CancelTransferResponse(transfer=transfer_message(await self._jobs.cancel(id_of(request.name))))

    async def PauseTransfer(self, request: pb.PauseTransferRequest, context: Any) -> pb.PauseTransferResponse:
        """Asks a transfer to stand still."""
        return pb.PauseTransferResponse(transfer=transfer_message(await self._jobs.pause(id_of(request.name))))

    async def ResumeTransfer(self, request: pb.ResumeTransferRequest, context: Any) -> pb.ResumeTransferResponse:
        """Lets a paused transfer go on."""
        return pb.ResumeTransferResponse(transfer=transfer_message(await self._jobs.resume(id_of(request.name))))


def fitting(answer: M, what: str, way_out: str) -> M:
    """The answer, if one message can hold it.

    Raises:
        Unsupported: it cannot.
    """
    size = answer.ByteSize()
    if size > LARGEST:
        msg = f"{what} would be an answer of {size} bytes, more than the {LARGEST} of one message; use {way_out}"
        raise Unsupported(msg, size=str(size))
    return answer


def id_of(name: str) -> str:
    """The id of "transfers/{id}", or of the id itself."""
    return name.removeprefix("transfers/")


def page_size(asked: int) -> int:
    """Rows of a page: 100 unless asked, 1000 at most."""
    return min(asked, MOST) if asked > 0 else PAGE


def _before(token: str) -> tuple[float, str] | None:
    if not token:
        return None
    try:
        created, transfer = json.loads(token)
        return float(created), str(transfer)
    except (ValueError, TypeError):
        msg = "the page token is not one of ours; start again without it"
        raise InvalidSpec(msg, {"page_token": msg}) from None
