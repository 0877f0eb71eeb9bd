"""One object in the making from a stream of messages: stored in steps, resumable by its id, visible at the end.

The bytes that were acknowledged (`persisted`) are the steps that lie on the plane without a gap, each recorded in
`catalogue.writes` before it is acknowledged; what is still in a buffer when a connection breaks is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from fileserver.catalogue.writes import Write, Writes, WriteStep
from fileserver.codec import WriteRequest
from fileserver.together import first_of
from planes import checksum
from planes.errors import Corrupt, Error, OutOfRange, Unsupported
from planes.plane import MIB, Limits, Plane, StepReceipt, Upload

IN_FLIGHT: Final = 2
"""Steps that are being stored while the next is received; a stream holds one buffer more."""
_GROWTHS: Final = 4
_LEAST: Final = 8 * MIB

Answer = Callable[[int], Awaitable[None]]
"""Told the bytes that are stored; never fewer than before."""


@dataclass(slots=True)
class _Step:
    """A step that is being received."""

    number: int
    offset: int
    buffer: memoryview
    size: int = 0
    crc64nvme: int = 0

    @property
    def data(self) -> memoryview:
        """What was received of it."""
        return self.buffer[: self.size]

    def take(self, data: memoryview) -> memoryview:
        """Receive what there is room for, and return the rest."""
        fits, rest = data[: self.buffer.nbytes - self.size], data[self.buffer.nbytes - self.size :]
        self.buffer[self.size : self.size + fits.nbytes] = fits
        self.crc64nvme = checksum.compute(fits, self.crc64nvme)
        self.size += fits.nbytes
        return rest


class Writing:
    """One stream of a write.

    Args:
        plane: where the object goes.
        write: the record of the write, fresh or as it was left.
        steps: what is stored of it.
        writes: where the records are kept.
        answer: called whenever more is stored.
    """

    def __init__(self, plane: Plane, write: Write, steps: list[WriteStep], writes: Writes, answer: Answer) -> None:
        self._plane = plane
        self._write = write
        self._steps = {s.number: s for s in steps}
        self._writes = writes
        self._answer = answer
        self._upload: Upload | None = plane.resume(write.token) if write.token else None
        self._stored = len(steps)
        self._persisted = sum(s.size for s in steps)
        self._free: asyncio.Queue[memoryview] = asyncio.Queue()
        self._in_order = asyncio.Lock()
        for _ in range(IN_FLIGHT + 1):
            self._free.put_nowait(memoryview(b""))

    @property
    def persisted(self) -> int:
        """Bytes that are stored from the start without a gap."""
        return self._persisted

    async def run(self, requests: AsyncIterator[WriteRequest]) -> Write | None:
        """Take messages until one says finish; the finished write, or None if the stream ended before that.

        Raises:
            OutOfRange: a message begins elsewhere than where the one before it ended.
            Corrupt: a checksum of the caller or of the plane is not that of the bytes received.
            AlreadyExists: the object exists and is not to be replaced.
        """
        try:
            last, expected = await self._receive_and_store(requests)
            return None if last is None else await self._finish(last, expected)
        except Error as error:
            # After an offset that does not fit, or an error that passes, the caller goes on from what is stored.
            if not error.retriable and not isinstance(error, OutOfRange):
                await self._give_up()
            raise

    async def _give_up(self) -> None:
        """Nothing that the caller can send would heal it: what was stored must not stay."""
        with suppress(Error):  # the sweep of old writes tries again; what went wrong first is what counts
            await discard(self._plane, self._write, self._writes)

    async def _receive_and_store(self, requests: AsyncIterator[WriteRequest]) -> tuple[_Step | None, str]:
        try:
            async with asyncio.TaskGroup() as group:
                return await self._receive(requests, group)
        except ExceptionGroup as several:
            raise first_of(several) from None

    async def _receive(
        self, requests: AsyncIterator[WriteRequest], group: asyncio.TaskGroup
    ) -> tuple[_Step | None, str]:
        """The last step, not stored yet, and the checksum that the caller expects; None if finish never came."""
        step = await self._next(self._stored + 1, self._persisted)
        async for request in requests:
            data = memoryview(request.data).cast("B")
            position = step.offset + step.size
            if request.offset != position:
                msg = (
                    f"write {self._write.id} is at offset {position} and not at {request.offset}: "
                    "ask QueryWrite how much is stored, and go on from there"
                )
                raise OutOfRange(msg, write=self._write.id, offset=str(position), sent=str(request.offset))
            if data.nbytes and checksum.compute(data, 0, "crc32c") != request.crc32c:
                msg = f"{data.nbytes} bytes at offset {position} of write {self._write.id} came with another checksum"
                raise Corrupt(msg, write=self._write.id, offset=str(position))
            while data.nbytes:
                data = step.take(data)
                if step.size == step.buffer.nbytes:
                    await self._open()
                    group.create_task(self._store(step))
                    step = await self._next(step.number + 1, step.offset + step.size)
            if request.finish:
                return step, request.crc64nvme
        return None, ""

    async def _next(self, number: int, offset: int) -> _Step:
        """An empty step; waits until a buffer is free."""
        limits = self._plane.limits
        if number > limits.max_steps:
            msg = f"write {self._write.id} is too large for a stream to {self._plane.name}: {offset} bytes are the most"
            raise Unsupported(msg, write=self._write.id, plane=self._plane.name)
        wanted = step_size(limits, number)
        buffer = await self._free.get()
        return _Step(number, offset, buffer if buffer.nbytes == wanted else memoryview(bytearray(wanted)))

    async def _open(self) -> Upload:
        """The upload; opened when the first step is full, its token recorded before a byte moves."""
        if self._upload is None:
            await self._writes.put(self._write)
            await self._plane.discard(self._write.key, upload_id(self._write.id))  # opened, but never recorded
            self._upload = await self._plane.upload(
                self._write.key, upload_id=upload_id(self._write.id), replace=self._write.overwrite
            )
            self._write = replace(self._write, token=self._upload.token)
            await self._writes.put(self._write)
        return self._upload

    async def _store(self, step: _Step) -> None:
        upload = await self._open()
        receipt = await upload.put(step.number, step.offset, step.data, step.crc64nvme)
        self._check(step, receipt)
        stored = WriteStep(step.number, step.size, step.crc64nvme, receipt.crc64nvme, receipt.etag)
        await self._writes.stored(self._write.id, stored)
        self._free.put_nowait(step.buffer)
        async with self._in_order:
            self._steps[step.number] = stored
            before = self._persisted
            while following := self._steps.get(self._stored + 1):
                self._stored += 1
                self._persisted += following.size
            if self._persisted > before:
                await self._answer(self._persisted)

    async def _finish(self, last: _Step, expected: str) -> Write:
        """Store what is left, make the object visible, record it."""
        steps = [self._steps[n] for n in range(1, self._stored + 1)]
        total = checksum.combine_all((s.crc64nvme, s.size) for s in steps)
        total = checksum.combine(total, last.crc64nvme, last.size)
        size = self._persisted + last.size
        if expected and expected != checksum.to_hex(total):
            msg = f"write {self._write.id} has CRC64NVME {checksum.to_hex(total)} and not {expected}: send it again"
            await self._give_up()
            raise Corrupt(msg, write=self._write.id, crc64nvme=checksum.to_hex(total), expected=expected)
        try:
            await self._commit(last, size, total)
        except Corrupt:
            await self._give_up()
            raise
        finished = replace(self._write, size=size, crc64nvme=total)
        await self._writes.put(finished)
        return finished

    async def _commit(self, last: _Step, size: int, crc64nvme: int) -> None:
        if not self._steps and size <= self._plane.limits.single_put:
            receipt = await self._plane.put(
                self._write.key, last.data, upload_id=upload_id(self._write.id), replace=self._write.overwrite
            )
            self._check(last, receipt)
        else:
            if last.size:
                await self._store(last)
            upload = await self._open()
            receipts = [StepReceipt(s.number, s.size, s.reported, s.etag) for _, s in sorted(self._steps.items())]
            await upload.commit(receipts, size, crc64nvme)

    def _check(self, step: _Step, receipt: StepReceipt) -> None:
        if receipt.crc64nvme is not None and receipt.crc64nvme != step.crc64nvme:
            msg = f"{step.size} bytes at offset {step.offset} of {self._plane.name}:{self._write.key} were stored wrong"
            raise Corrupt(msg, plane=self._plane.name, key=self._write.key, offset=str(step.offset))


async def discard(plane: Plane, write: Write, writes: Writes) -> None:
    """Remove what an unfinished write left on its plane, and its record."""
    if write.token:
        await plane.resume(write.token).abort()
    await plane.discard(write.key, upload_id(write.id))
    await writes.forget(write.id)


def step_size(limits: Limits, number: int) -> int:
    """Bytes of a step: as the plane likes it, never so small that its record costs more than its bytes.

    Doubles four times on the way to the largest number of steps, because the size of the whole is not known.
    """
    return min(max(limits.put_size, limits.min_step, _LEAST) << _GROWTHS * number // limits.max_steps, limits.max_step)


def upload_id(write: str) -> str:
    """The id by which a plane knows the attempts of a write."""
    return f"w-{write}"
