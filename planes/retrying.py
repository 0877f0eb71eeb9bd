"""Try again what may work the next time; the one place that decides so. Changes no bytes and no other error.

What is retriable says the class of the error. `commit` is among it because the contract makes it repeatable: a
second commit of an upload that is there answers like the first. After a lost answer to `put` or `copy` of a whole
object the upload id does the same.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from types import TracebackType
from typing import TypeVar

from typing_extensions import Buffer

from planes.errors import Corrupt, Error, Throttled, Unavailable
from planes.left_out import Tell
from planes.many import Whole, put_many, read_many
from planes.plane import Extent, Info, Plane, Presign, StepReceipt, Take, Ticket, Unfinished, Upload
from planes.wrapped import WrappedPlane, WrappedUpload

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to keep trying and how long to wait, in seconds.

    A retriable error is tried again until `seconds` have passed since the first attempt, and at least `attempts`
    times, for attempts that time out take long. Being throttled uses up no attempt and ends after `throttled`.

    A pause is drawn between half and the whole of `first`, doubled with each attempt up to `longest`, so that many
    who failed together do not come back together. What the provider asks for is waited at least, but never longer
    than `longest_asked`: then the error goes to the caller, who knows better what to do meanwhile.

    A plane that was unavailable for all that time is asked only once a call for the next `weary` seconds or until it
    answers: who cleans up after the failure does not wait as long again for every object.
    """

    attempts: int = 5
    seconds: float = 30.0
    throttled: float = 120.0
    first: float = 0.2
    longest: float = 5.0
    longest_asked: float = 60.0
    weary: float = 30.0
    sleep: Sleep = field(default=asyncio.sleep)
    clock: Callable[[], float] = field(default=monotonic)

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        longest = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing


class Outage:
    """What the calls of one plane know together: until when it is not waited for."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._until = -math.inf

    @property
    def is_known(self) -> bool:
        """The plane was waited for in vain, a short while ago."""
        return self.patience.clock() < self._until

    def begin(self) -> None:
        """A call has waited in vain."""
        self._until = self.patience.clock() + self.patience.weary

    def end(self) -> None:
        """The plane has answered."""
        self._until = -math.inf

    async def keep_trying(self, verb: Callable[[], Awaitable[T]]) -> T:
        """The answer of `verb`, or the error of its last attempt.

        Raises:
            Error: not retriable, or patience has ended; Corrupt after the second attempt.
        """
        trial = Trial(self)
        while True:
            try:
                answer = await verb()
            except Error as error:
                await trial.wait_after(error)
            else:
                self.end()
                return answer


class Trial:
    """The attempts of one call."""

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._patience = outage.patience
        self._begun = self._patience.clock()
        self._failures = 0
        self._throttled = 0
        self._paused = 0.0

    async def wait_after(self, error: Error) -> None:
        """Wait before the next attempt; raises `error` itself if there is to be none after this one."""
        patience, outage = self._patience, self._outage
        self._failures += 1
        self._throttled += isinstance(error, Throttled)
        asked = error.retry_after or 0.0
        if not error.retriable or asked > patience.longest_asked:
            raise error
        pause = max(asked, patience.pause(self._failures))
        is_outage = isinstance(error, Unavailable)
        if is_outage and outage.is_known:
            raise error
        if self._is_over(error, pause):
            if is_outage:
                outage.begin()
            raise error
        self._paused += pause
        await patience.sleep(pause)

    def _is_over(self, error: Error, pause: float) -> bool:
        patience = self._patience
        attempts = self._failures - self._throttled
        # Pauses count even where the clock has not seen them, so that a sleep without time cannot try for ever.
        elapsed = max(patience.clock() - self._begun, self._paused) + pause
        if isinstance(error, Throttled):
            return elapsed > patience.throttled
        if isinstance(error, Corrupt):
            return attempts >= min(2, patience.attempts)
        return attempts >= patience.attempts and elapsed > patience.seconds


class RetryingPlane(WrappedPlane):
    """A plane that is asked again."""

    def __init__(self, inner: Plane, patience: Patience | None = None) -> None:
        super().__init__(inner)
        self._again = Outage(patience or Patience())

    def _wrap(self, upload: Upload) -> Upload:
        return RetryingUpload(upload, self._again)

    async def stat(self, key: str) -> Info:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.stat(key))

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Goes on behind the last key that came; every key that comes renews the patience."""
        trial = Trial(self._again)
        while True:
            try:
                async for info in self.inner.list(prefix, after, left_out):
                    self._again.end()
                    after = info.key
                    yield info
                    trial = Trial(self._again)
            except Error as error:
                await trial.wait_after(error)
            else:
                self._again.end()
                return

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Asked again, from the first byte."""
        await self._again.keep_trying(lambda: self.inner.read(extent, into))

    async def read_many(self, extents: Sequence[Extent]) -> Sequence[bytes]:
        """Asked again, from the first extent."""
        return await self._again.keep_trying(lambda: read_many(self.inner, extents))

    async def stream(self, extent: Extent, take: Take) -> None:
        """Goes on behind the last byte that was taken; what `take` itself raises is not tried again."""
        stream = _Resumed(extent, take)
        await self._again.keep_trying(lambda: stream.go_on(self.inner))
        stream.settle()

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

    async def put_many(self, objects: Sequence[Whole]) -> Sequence[StepReceipt]:
        """Asked again, from the first object."""
        return await self._again.keep_trying(lambda: put_many(self.inner, objects))

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """Asked again; the upload id tells the provider that it is the same attempt."""
        return await self._again.keep_trying(
            lambda: self.inner.copy(key, ticket, upload_id=upload_id, replace=replace, url=url)
        )

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
        """Asked again, after discarding what the attempt before it may have begun: its answer can have been lost."""
        tried = False

        async def begin() -> Upload:
            nonlocal tried
            if tried:
                await self.inner.discard(key, upload_id)
            tried = True
            return await self.inner.upload(
                key, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata, kind=kind
            )

        return self._wrap(await self._again.keep_trying(begin))

    async def presign(self, ticket: Ticket) -> str:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.presign(ticket))

    async def discard(self, key: str, upload_id: str) -> None:
        """Asked again."""
        await self._again.keep_trying(lambda: self.inner.discard(key, upload_id))

    async def drop(self, one: Unfinished) -> bool:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.drop(one))

    async def delete(self, key: str, *, version: str = "") -> None:
        """Asked again."""
        await self._again.keep_trying(lambda: self.inner.delete(key, version=version))


@dataclass(slots=True)
class _Resumed:
    """A stream that begins where the one before it broke off."""

    extent: Extent
    take: Take
    _taken: int = 0
    _refused: Error | None = None

    async def go_on(self, plane: Plane) -> None:
        """Stream what is still missing; an error of the taker is kept for `settle`."""
        rest = replace(self.extent, start=self.extent.start + self._taken)
        try:
            await plane.stream(rest, self._pass_on)
        except Error:
            if self._refused is None:
                raise

    def settle(self) -> None:
        """Raise what the taker raised."""
        if self._refused is not None:
            raise self._refused

    def _pass_on(self, data: memoryview) -> None:
        try:
            self.take(data)
        except Error as error:
            self._refused = error
            raise
        self._taken += len(data)


@dataclass(slots=True)
class _Poured:
    """A stream into an upload: tells an error of the source from one of the taker."""

    stream: Callable[[Take], Awaitable[None]]
    broken: Error | None = None
    """What the source raised."""
    _refused: Error | None = None

    async def again(self, take: Take) -> None:
        """Stream from the first byte on."""

        def pass_on(data: memoryview) -> None:
            try:
                take(data)
            except Error as error:
                self._refused = error
                raise

        try:
            await self.stream(pass_on)
        except Error as error:
            if error is not self._refused:
                self.broken = error
            raise


class RetryingUpload(WrappedUpload):
    """An upload that is asked again."""

    def __init__(self, inner: Upload, again: Outage) -> None:
        super().__init__(inner)
        self._again = again

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.put(number, offset, data, crc64nvme))

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """Asked again, with a new stream; an error of the source is not, for the source had its own patience."""
        poured = _Poured(stream)

        async def once() -> StepReceipt | None:
            try:
                return await self.inner.pour(number, offset, size, poured.again)
            except Error:
                if poured.broken is None:
                    raise
                return None

        receipt = await self._again.keep_trying(once)
        if receipt is None:
            assert poured.broken is not None
            raise poured.broken
        return receipt

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.copy(number, offset, ticket, start, end, url))

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Asked again."""
        return await self._again.keep_trying(lambda: self.inner.commit(steps, size, crc64nvme))

    async def made(self) -> Info | None:
        """Asked again."""
        return await self._again.keep_trying(self.inner.made)

    async def abort(self) -> None:
        """Asked again."""
        await self._again.keep_trying(self.inner.abort)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._again.keep_trying(lambda: self.inner.__aexit__(kind, error, trace))
