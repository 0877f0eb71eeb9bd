"""A plane that is driven as hard as its operator allows and its provider takes (`planes.bounds`).

Every attempt passes here, so retries are made around it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from typing_extensions import Buffer

from planes import many
from planes.bounds import Bounds, Clock, Sleep
from planes.errors import Throttled
from planes.left_out import Tell
from planes.many import Whole
from planes.plane import Extent, Info, Plane, Presign, StepReceipt, Take, Ticket, Unfinished, Upload
from planes.settings import PlaneLimits
from planes.wrapped import WrappedPlane, WrappedUpload


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard a plane is driven just now."""

    limits: PlaneLimits
    """What the operator allows."""
    requests: int
    """Requests in flight at most; fewer than allowed where the provider does not take as many, or was not asked to."""
    waits: float
    """Seconds until the provider may be asked again; 0 is now."""


class LimitedPlane(WrappedPlane):
    """A plane with bounds; a listing holds no place between its pages.

    `presign` waits for none: it is asked for from inside a copy, which holds one already.
    """

    def __init__(
        self, inner: Plane, limits: PlaneLimits, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        super().__init__(inner)
        self._bounds = Bounds(inner.name, limits, clock, sleep)
        self._limits_now = limits

    @property
    def pace(self) -> Pace:
        """How hard it is driven just now."""
        return Pace(self._limits_now, self._bounds.window.places, self._bounds.pause.left)

    def share(self, other: LimitedPlane) -> None:
        """From now on under the bounds of another, together with it."""
        self._bounds = other._bounds

    def change(self, limits: PlaneLimits) -> None:
        """Other limits from now on; if the provider asked us to wait, that is over."""
        self._limits_now = limits
        self._bounds.change(limits)

    def _wrap(self, upload: Upload) -> Upload:
        return LimitedUpload(upload, self._bounds)

    async def stat(self, key: str) -> Info:
        """One request."""
        async with self._bounds.of():
            return await self.inner.stat(key)

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """One request each time the provider is asked for the next object."""
        found = self.inner.list(prefix, after, left_out)
        while True:
            async with self._bounds.of(is_page=False):
                info = await anext(found, None)
            if info is None:
                return
            yield info

    async def read(self, extent: Extent, into: memoryview) -> None:
        """One request of so many bytes."""
        async with self._bounds.of(extent.size):
            await self.inner.read(extent, into)

    async def read_many(self, extents: Sequence[Extent]) -> Sequence[bytes]:
        """One request of so many bytes."""
        async with self._bounds.of(sum(each.size for each in extents)):
            return await many.read_many(self.inner, extents)

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

    async def put_many(self, objects: Sequence[Whole]) -> Sequence[StepReceipt]:
        """One request of so many bytes."""
        async with self._bounds.of(many.size(objects)):
            return await many.put_many(self.inner, objects)

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """One request of so many bytes: they burden the provider although they do not travel."""
        async with self._bounds.of(ticket.size):
            return await self.inner.copy(key, ticket, upload_id=upload_id, replace=replace, url=url)

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

    async def drop(self, one: Unfinished) -> bool:
        """One request."""
        async with self._bounds.of():
            return await self.inner.drop(one)

    async def delete(self, key: str, *, version: str = "") -> None:
        """One request."""
        async with self._bounds.of():
            await self.inner.delete(key, version=version)


class LimitedUpload(WrappedUpload):
    """An upload with the bounds of its plane; `abort` waits for no place, it makes room."""

    def __init__(self, inner: Upload, bounds: Bounds) -> None:
        super().__init__(inner)
        self._bounds = bounds
        self._committed = False

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """One request of so many bytes."""
        async with self._bounds.of(memoryview(data).nbytes):
            return await self.inner.put(number, offset, data, crc64nvme)

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """One step of so many bytes, in a place of its own kind: it waits for a source, which may be this plane."""
        async with self._bounds.pour(size):
            return await self.inner.pour(number, offset, size, stream)

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """One request of so many bytes."""
        async with self._bounds.of(end - start):
            return await self.inner.copy(number, offset, ticket, start, end, url)

    async def made(self) -> Info | None:
        """One request."""
        async with self._bounds.of():
            return await self.inner.made()

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """One request."""
        async with self._bounds.of():
            done = await self.inner.commit(steps, size, crc64nvme)
        self._committed = True
        return done

    async def abort(self) -> None:
        """Waits for no place, but for the moment that the provider asked for."""
        await self._bounds.quiet()
        await self.inner.abort()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            try:
                await self._bounds.quiet()
            except Throttled as left:
                if error is None:
                    raise
                error.add_note(f"moreover, its upload stays open: {left.message}")  # the first error is what to report
                return
        await self.inner.__aexit__(kind, error, trace)
