"""A plane around a plane that changes nothing: what the decorators start from. Adds no behaviour of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from typing_extensions import Buffer

from planes.left_out import Tell
from planes.plane import (
    Capabilities,
    Extent,
    Info,
    Limits,
    Plane,
    Presign,
    StepReceipt,
    Take,
    Ticket,
    Unfinished,
    Upload,
)

P = TypeVar("P", bound=Plane)


class WrappedPlane:
    """Forwards everything to `inner`; a subclass overrides what it changes, and `_wrap` for uploads."""

    def __init__(self, inner: Plane) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """Name of the inner plane."""
        return self.inner.name

    @property
    def limits(self) -> Limits:
        """Limits of the inner plane."""
        return self.inner.limits

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the inner plane."""
        return self.inner.capabilities

    def _wrap(self, upload: Upload) -> Upload:
        return WrappedUpload(upload)

    async def stat(self, key: str) -> Info:
        """Forwarded."""
        return await self.inner.stat(key)

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Forwarded."""
        async for info in self.inner.list(prefix, after, left_out):
            yield info

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Forwarded."""
        await self.inner.read(extent, into)

    async def stream(self, extent: Extent, take: Take) -> None:
        """Forwarded."""
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
        """Forwarded."""
        return await self.inner.put(
            key, data, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata
        )

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """Forwarded."""
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
        """Forwarded; the upload is wrapped too."""
        return self._wrap(
            await self.inner.upload(
                key, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata, kind=kind
            )
        )

    def resume(self, token: str) -> Upload:
        """Forwarded; the upload is wrapped too."""
        return self._wrap(self.inner.resume(token))

    async def discard(self, key: str, upload_id: str) -> None:
        """Forwarded."""
        await self.inner.discard(key, upload_id)

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Forwarded."""
        async for one in self.inner.unfinished(prefix):
            yield one

    async def drop(self, one: Unfinished) -> bool:
        """Forwarded."""
        return await self.inner.drop(one)

    async def delete(self, key: str, *, version: str = "") -> None:
        """Forwarded."""
        await self.inner.delete(key, version=version)

    def copy_ticket(self, info: Info) -> Ticket | None:
        """Forwarded."""
        return self.inner.copy_ticket(info)

    def accepts(self, ticket: Ticket) -> bool:
        """Forwarded."""
        return self.inner.accepts(ticket)

    async def presign(self, ticket: Ticket) -> str:
        """Forwarded."""
        return await self.inner.presign(ticket)

    async def aclose(self) -> None:
        """Forwarded."""
        await self.inner.aclose()


class WrappedUpload:
    """Forwards everything to `inner`, which alone knows whether it is committed."""

    def __init__(self, inner: Upload) -> None:
        self.inner = inner

    @property
    def token(self) -> str:
        """Token of the inner upload."""
        return self.inner.token

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Forwarded."""
        return await self.inner.put(number, offset, data, crc64nvme)

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """Forwarded."""
        return await self.inner.pour(number, offset, size, stream)

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Forwarded."""
        return await self.inner.copy(number, offset, ticket, start, end, url)

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Forwarded."""
        return await self.inner.commit(steps, size, crc64nvme)

    async def made(self) -> Info | None:
        """Forwarded."""
        return await self.inner.made()

    async def abort(self) -> None:
        """Forwarded."""
        await self.inner.abort()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.inner.__aexit__(kind, error, trace)


def find(plane: Plane, kind: type[P]) -> P | None:
    """The layer of a decorated plane that is of `kind`, for those who change its limits or read its counters."""
    layer: Plane | None = plane
    while layer is not None:
        if isinstance(layer, kind):
            return layer
        layer = layer.inner if isinstance(layer, WrappedPlane) else None
    return None
