"""Try again what may work the next time; the one place that decides so. Changes no bytes and no other error.

What is retriable says the class of the error. `commit` is among it because the contract makes it repeatable: a
second commit of an upload that is there answers like the first. After a lost answer to `put` or `copy` of a whole
object the upload id does the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from typing_extensions import Buffer

from planes.errors import Corrupt, Error
from planes.plane import Extent, Info, Plane, StepReceipt, Ticket, Upload
from planes.wrapped import WrappedPlane, WrappedUpload

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to wait, in seconds.

    A pause is drawn between half and the whole of `first`, doubled with each attempt up to `longest`, so that many
    who failed together do not come back together. What the provider asks for is waited at least, but never longer
    than `longest_asked`: then the error goes to the caller, who knows better what to do meanwhile.
    """

    attempts: int = 5
    first: float = 0.2
    longest: float = 20.0
    longest_asked: float = 60.0
    sleep: Sleep = field(default=asyncio.sleep)

    async def keep_trying(self, verb: Callable[[], Awaitable[T]]) -> T:
        """The answer of `verb`, or the error of its last attempt.

        Raises:
            Error: not retriable, or the attempts are used up; Corrupt after the second.
        """
        attempt = 1
        while True:
            try:
                return await verb()
            except Error as error:
                await self.wait_after(error, attempt)
            attempt += 1

    async def wait_after(self, error: Error, attempt: int) -> None:
        """Wait before the next attempt; raises `error` itself if there is to be none after this one."""
        allowed = min(2, self.attempts) if isinstance(error, Corrupt) else self.attempts
        asked = error.retry_after or 0.0
        if not error.retriable or attempt >= allowed or asked > self.longest_asked:
            raise error
        await self.sleep(max(asked, self._pause(attempt)))

    def _pause(self, attempt: int) -> float:
        longest = min(self.longest, self.first * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing


class RetryingPlane(WrappedPlane):
    """A plane that is asked again."""

    def __init__(self, inner: Plane, patience: Patience | None = None) -> None:
        super().__init__(inner)
        self._again = patience or Patience()

    def _wrap(self, upload: Upload) -> Upload:
        return RetryingUpload(upload, self._again)

    async def stat(self, key: str) -> Info:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.stat(key))

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[Info]:
        """Goes on behind the last key that came; every key that comes renews the attempts."""
        failures = 0
        while True:
            try:
                async for info in self.inner.list(prefix, after):
                    after, failures = info.key, 0
                    yield info
            except Error as error:
                failures += 1
                await self._again.wait_after(error, failures)
            else:
                return

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Asked again, from the first byte."""
        await self._again.keep_trying(lambda: self.inner.read(extent, into))

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
        """Asked again; the upload id tells the provider that it is the same attempt."""
        return await self._again.keep_trying(
            lambda: self.inner.put(
                key, data, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata
            )
        )

    async def copy(self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False) -> StepReceipt:
        """Asked again; the upload id tells the provider that it is the same attempt."""
        return await self._again.keep_trying(lambda: self.inner.copy(key, ticket, upload_id=upload_id, replace=replace))

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
        """Asked again."""
        return self._wrap(
            await self._again.keep_trying(
                lambda: self.inner.upload(
                    key, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata, kind=kind
                )
            )
        )

    async def discard(self, key: str, upload_id: str) -> None:
        """Asked again."""
        await self._again.keep_trying(lambda: self.inner.discard(key, upload_id))

    async def delete(self, key: str) -> None:
        """Asked again."""
        await self._again.keep_trying(lambda: self.inner.delete(key))


class RetryingUpload(WrappedUpload):
    """An upload that is asked again."""

    def __init__(self, inner: Upload, patience: Patience) -> None:
        super().__init__(inner)
        self._again = patience

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.put(number, offset, data, crc64nvme))

    async def copy(self, number: int, offset: int, ticket: Ticket, start: int, end: int) -> StepReceipt:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.copy(number, offset, ticket, start, end))

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.commit(steps, size, crc64nvme))

    async def abort(self) -> None:
        """Asked again."""
        await self._again.keep_trying(self.inner.abort)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._again.keep_trying(lambda: self.inner.__aexit__(kind, error, trace))
