"""A finished file of this host to any plane: by the provider itself where it can, else in steps; seen only whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fileserver.together import side_by_side
from planes.checksum import combine_all
from planes.pack import Piece, Step, pack
from planes.plane import Extent, Info, Plane, StepReceipt, Upload
from planes.posix import PosixPlane

_WIDTH: Final = 4


async def deliver(spool: PosixPlane, info: Info, target: Plane, key: str, *, attempt: str, replace: bool) -> Info:
    """Put a file of the spool where it belongs; interrupted, nothing of it stays there.

    Args:
        spool: where it was written.
        info: of the file.
        target: where it goes.
        key: its name there.
        attempt: letters, digits and `-`, of this delivery alone.
        replace: what is there already.

    Raises:
        AlreadyExists: something is there, and is not to be replaced.
        Corrupt: what arrived is not what was sent.
    """
    ticket = spool.copy_ticket(info)
    native = ticket is not None and target.accepts(ticket) and info.size > target.limits.min_copy_source
    whole = Piece("spool", Extent(info.key, info.version, 0, info.size), native=native)
    steps = pack([whole], target.limits)
    async with await target.upload(key, upload_id=attempt, replace=replace) as upload:
        done: list[StepReceipt] = []

        async def one(step: Step) -> None:
            done.append(await _step(spool, upload, step, info))

        await side_by_side(iter(steps), one, _WIDTH)
        done.sort(key=lambda receipt: receipt.number)
        return await upload.commit(done, info.size, _whole(done))


async def _step(spool: PosixPlane, upload: Upload, step: Step, info: Info) -> StepReceipt:
    extents = list(_extents(step))
    if step.native:
        ticket = spool.copy_ticket(info)
        assert ticket is not None, "the step is native because there is one"
        return await upload.copy(step.number, step.offset, ticket, extents[0].start, extents[0].end)
    start, end = extents[0].start, extents[-1].end
    data = bytearray(end - start)
    await spool.read(Extent(info.key, info.version, start, end), memoryview(data))
    return await upload.put(step.number, step.offset, data)


def _extents(step: Step) -> Iterator[Extent]:
    return (piece.extent for piece in step.pieces if piece.extent is not None)


def _whole(done: list[StepReceipt]) -> int | None:
    parts = [(receipt.crc64nvme, receipt.size) for receipt in done]
    known = [(value, size) for value, size in parts if value is not None]
    return combine_all(known) if len(known) == len(parts) else None
