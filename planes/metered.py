"""Count what a plane is asked for and what it moves. Only counts: no time, no limits, no logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from typing_extensions import Buffer

from planes.errors import Error
from planes.left_out import Tell
from planes.many import Whole, put_many, read_many
from planes.plane import Extent, Info, Plane, Presign, StepReceipt, Take, Ticket, Unfinished, Upload
from planes.wrapped import WrappedPlane, WrappedUpload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Totals since the plane was opened; failed requests are in `requests` too, their bytes nowhere."""

    requests: Mapping[str, int]
    """By verb; those of uploads are `upload.put`, `upload.copy`, `upload.commit`, `upload.abort`."""
    errors: Mapping[str, int]
    """By reason of `planes.errors`."""
    bytes_read: int
    bytes_written: int
    """Bytes of puts: they came through this process."""
    bytes_copied: int
    """Bytes that the provider copied itself."""
    bytes_checked: int
    """Bytes that were read for checksums alone."""


@dataclass(slots=True)
class _Meter:
    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    read: int = 0
    written: int = 0
    copied: int = 0
    checked: int = 0

    async def count(self, verb: str, answer: Awaitable[T]) -> T:
        """Await an answer and count it, or its error."""
        self.requests[verb] += 1
        try:
            return await answer
        except Error as error:
            self.errors[error.reason] += 1
            raise

    def wrote(self, receipt: StepReceipt) -> StepReceipt:
        """Count the bytes of a put."""
        self.written += receipt.size
        self.checked += receipt.bytes_checked
        return receipt

    def copied_natively(self, receipt: StepReceipt) -> StepReceipt:
        """Count the bytes of a provider's copy."""
        self.copied += receipt.size
        self.checked += receipt.bytes_checked
        return receipt


class MeteredPlane(WrappedPlane):
    """A plane that is counted."""

    def __init__(self, inner: Plane) -> None:
        super().__init__(inner)
        self._meter = _Meter()

    def snapshot(self) -> Snapshot:
        """The counters as they are now."""
        m = self._meter
        return Snapshot(dict(m.requests), dict(m.errors), m.read, m.written, m.copied, m.checked)

    def _wrap(self, upload: Upload) -> Upload:
        return MeteredUpload(upload, self._meter)

    async def stat(self, key: str) -> Info:
        """Counted."""
        return await self._meter.count("stat", self.inner.stat(key))

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Counted once, however many objects it yields."""
        self._meter.requests["list"] += 1
        try:
            async for info in self.inner.list(prefix, after, left_out):
                yield info
        except Error as error:
            self._meter.errors[error.reason] += 1
            raise

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Counted."""
        await self._meter.count("read", self.inner.read(extent, into))
        self._meter.read += extent.size

    async def read_many(self, extents: Sequence[Extent]) -> Sequence[bytes]:
        """Counted as one request."""
        found = await self._meter.count("read_many", read_many(self.inner, extents))
        self._meter.read += sum(map(len, found))
        return found

    async def stream(self, extent: Extent, take: Take) -> None:
        """Counted as a read."""
        await self._meter.count("read", self.inner.stream(extent, take))
        self._meter.read += extent.size

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
        """Counted."""
        answer = self.inner.put(
            key, data, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata
        )
        return self._meter.wrote(await self._meter.count("put", answer))

    async def put_many(self, objects: Sequence[Whole]) -> Sequence[StepReceipt]:
        """Counted as one request."""
        receipts = await self._meter.count("put_many", put_many(self.inner, objects))
        return [self._meter.wrote(each) for each in receipts]

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """Counted."""
        answer = self.inner.copy(key, ticket, upload_id=upload_id, replace=replace, url=url)
        return self._meter.copied_natively(await self._meter.count("copy", answer))

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
        """Counted; the upload's requests are counted too."""
        answer = super().upload(
            key, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata, kind=kind
        )
        return await self._meter.count("upload", answer)

    async def discard(self, key: str, upload_id: str) -> None:
        """Counted."""
        await self._meter.count("discard", self.inner.discard(key, upload_id))

    async def presign(self, ticket: Ticket) -> str:
        """Counted."""
        return await self._meter.count("presign", self.inner.presign(ticket))

    async def drop(self, one: Unfinished) -> bool:
        """Counted."""
        return await self._meter.count("drop", self.inner.drop(one))

    async def delete(self, key: str, *, version: str = "") -> None:
        """Counted."""
        await self._meter.count("delete", self.inner.delete(key, version=version))


class MeteredUpload(WrappedUpload):
    """An upload that is counted."""

    def __init__(self, inner: Upload, meter: _Meter) -> None:
        super().__init__(inner)
        self._meter = meter

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Counted."""
        answer = self.inner.put(number, offset, data, crc64nvme)
        return self._meter.wrote(await self._meter.count("upload.put", answer))

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """Counted as a put."""
        answer = self.inner.pour(number, offset, size, stream)
        return self._meter.wrote(await self._meter.count("upload.put", answer))

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Counted."""
        answer = self.inner.copy(number, offset, ticket, start, end, url)
        return self._meter.copied_natively(await self._meter.count("upload.copy", answer))

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Counted."""
        return await self._meter.count("upload.commit", self.inner.commit(steps, size, crc64nvme))

    async def made(self) -> Info | None:
        """Counted."""
        return await self._meter.count("upload.made", self.inner.made())

    async def abort(self) -> None:
        """Counted; an abort on leaving the context is the inner upload's own and is not."""
        await self._meter.count("upload.abort", self.inner.abort())
