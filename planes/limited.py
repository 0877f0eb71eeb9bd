"""Bounds of one plane: requests in flight, and bytes a second. Both may be changed while it runs.

A plane belongs to one event loop, so nothing here is locked against threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from typing_extensions import Buffer

from planes.plane import Extent, Info, Plane, StepReceipt, Take, Ticket, Upload
from planes.settings import PlaneLimits
from planes.wrapped import WrappedPlane, WrappedUpload

_LOOK_AGAIN: Final = 0.5  # seconds: so soon a waiting request notices that the rate was changed


class Gate:
    """Lets `width` in at a time, in the order of their coming."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def inside(self) -> int:
        """How many are in."""
        return self._inside

    def widen(self, width: int) -> None:
        """Change the width; if it is narrower now, those inside finish first."""
        self._width = width
        self._admit()

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Inside for the body."""
        if self._inside < self._width and not self._waiting:
            self._inside += 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._inside -= 1
            self._admit()

    async def _wait(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):  # passed over already
                    self._waiting.remove(place)
            else:  # let in at the very moment of the cancellation
                self._inside -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._inside < self._width:
            place = self._waiting.popleft()
            if not place.done():
                self._inside += 1
                place.set_result(None)


@dataclass(slots=True)
class Bucket:
    """Paces bytes: who comes waits until the bytes of those before have had their time, and is then let through whole.

    So a step of any size passes, and the rate holds over time. A rate of 0 is no limit.
    """

    rate: int
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _owed: float = 0.0
    _since: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self, size: int) -> None:
        """Wait for the turn of `size` bytes."""
        if not self.rate:
            return
        async with self._turn:
            while (wait := self._wait()) > 0:
                await self.sleep(min(wait, _LOOK_AGAIN))
            self._owed += size

    def _wait(self) -> float:
        now = self.clock()
        self._owed = max(0.0, self._owed - (now - self._since) * self.rate) if self.rate else 0.0
        self._since = now
        return self._owed / self.rate if self.rate else 0.0


@dataclass(slots=True)
class _Bounds:
    gate: Gate
    bucket: Bucket

    @asynccontextmanager
    async def of(self, size: int = 0) -> AsyncIterator[None]:
        """One request that moves `size` bytes; bytes are waited for outside, so that nobody waits in a place."""
        if size:
            await self.bucket.take(size)
        async with self.gate.entered():
            yield


class LimitedPlane(WrappedPlane):
    """A plane with bounds; a listing holds no place between its pages."""

    def __init__(self, inner: Plane, limits: PlaneLimits, bucket: Bucket | None = None) -> None:
        super().__init__(inner)
        self._bounds = _Bounds(Gate(limits.requests), bucket or Bucket(limits.bytes_per_second))
        self._limits_now = limits

    @property
    def bounds(self) -> PlaneLimits:
        """The bounds as they are now."""
        return self._limits_now

    def change(self, limits: PlaneLimits) -> None:
        """Other bounds from now on."""
        self._limits_now = limits
        self._bounds.bucket.rate = limits.bytes_per_second
        self._bounds.gate.widen(limits.requests)

    def _wrap(self, upload: Upload) -> Upload:
        return LimitedUpload(upload, self._bounds)

    async def stat(self, key: str) -> Info:
        """One request."""
        async with self._bounds.of():
            return await self.inner.stat(key)

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[Info]:
        """One request each time the provider is asked for the next object."""
        found = self.inner.list(prefix, after)
        while True:
            async with self._bounds.of():
                info = await anext(found, None)
            if info is None:
                return
            yield info

    async def read(self, extent: Extent, into: memoryview) -> None:
        """One request of so many bytes."""
        async with self._bounds.of(extent.size):
            await self.inner.read(extent, into)

    async def stream(self, extent: Extent, take: Take) -> None:
        """One request of so many bytes."""
        async with self._bounds.of(extent.size):
            await self.inner.stream(extent, take)

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
        """One request of so many bytes."""
        async with self._bounds.of(memoryview(data).nbytes):
            return await self.inner.put(
                key, data, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata
            )

    async def copy(self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False) -> StepReceipt:
        """One request of so many bytes: they burden the provider although they do not travel."""
        async with self._bounds.of(ticket.size):
            return await self.inner.copy(key, ticket, upload_id=upload_id, replace=replace)

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> Upload:
        """One request; the upload's own are bounded too."""
        async with self._bounds.of():
            return await super().upload(
                key, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata, kind=kind
            )

    async def discard(self, key: str, upload_id: str) -> None:
        """One request."""
        async with self._bounds.of():
            await self.inner.discard(key, upload_id)

    async def delete(self, key: str) -> None:
        """One request."""
        async with self._bounds.of():
            await self.inner.delete(key)


class LimitedUpload(WrappedUpload):
    """An upload with the bounds of its plane; `abort` is never kept waiting, it makes room."""

    def __init__(self, inner: Upload, bounds: _Bounds) -> None:
        super().__init__(inner)
        self._bounds = bounds

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """One request of so many bytes."""
        async with self._bounds.of(memoryview(data).nbytes):
            return await self.inner.put(number, offset, data, crc64nvme)

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """One request of so many bytes."""
        async with self._bounds.of(size):
            return await self.inner.pour(number, offset, size, stream)

    async def copy(self, number: int, offset: int, ticket: Ticket, start: int, end: int) -> StepReceipt:
        """One request of so many bytes."""
        async with self._bounds.of(end - start):
            return await self.inner.copy(number, offset, ticket, start, end)

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """One request."""
        async with self._bounds.of():
            return await self.inner.commit(steps, size, crc64nvme)
