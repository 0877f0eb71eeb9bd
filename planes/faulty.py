"""A plane that misbehaves on a script, for tests of everything above it. Does nothing that is not in the script.

    FaultyPlane(inner, [Fault("read", 3, Raise(Unavailable("reset"))), Fault("upload.commit", 1, LoseAnswer())])

Calls are counted by verb from 1, over the plane and all its uploads; the verbs are those of `planes.metered`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from typing_extensions import Buffer

from planes.errors import Error, Unavailable
from planes.left_out import Tell
from planes.plane import Extent, Info, Plane, Presign, StepReceipt, Take, Ticket, Unfinished, Upload
from planes.wrapped import WrappedPlane, WrappedUpload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Raise:
    """The call fails before anything is done."""

    error: Error


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """The call is done, and then fails as if its answer had been lost on the way."""

    error: Error = field(default_factory=lambda: Unavailable("the answer was lost"))


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of byte `at` is wrong: in what a read delivers, or in what a put stores."""

    at: int = 0


@dataclass(frozen=True, slots=True)
class Short:
    """A read leaves all bytes from `size` on as they were, and says nothing."""

    size: int = 0


@dataclass(frozen=True, slots=True)
class Break:
    """A stream fails after `size` bytes."""

    size: int
    error: Error = field(default_factory=lambda: Unavailable("the answer broke off"))


@dataclass(frozen=True, slots=True)
class Hold:
    """The call begins when `gate` is set; `reached` is set when it stands there."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Delay:
    """The call begins so many seconds later."""

    seconds: float


Trouble = Raise | LoseAnswer | Flip | Short | Break | Hold | Delay


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the `call`-th call of `verb`; 0 is every call."""

    verb: str
    call: int
    trouble: Trouble


@dataclass(slots=True)
class Script:
    """Faults, and how often each verb was called."""

    faults: Sequence[Fault] = ()
    calls: Counter[str] = field(default_factory=Counter)

    def next(self, verb: str) -> list[Trouble]:
        """Count a call, and what is to happen at it."""
        self.calls[verb] += 1
        return [f.trouble for f in self.faults if f.verb == verb and f.call in {0, self.calls[verb]}]

    async def play(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        """One call of a verb that carries no bytes of ours."""
        return await _around(self.next(verb), call)


class FaultyPlane(WrappedPlane):
    """A plane that misbehaves; `script` may be read for its counts, and is shared by its uploads."""

    def __init__(self, inner: Plane, faults: Sequence[Fault] = ()) -> None:
        super().__init__(inner)
        self.script = Script(faults)

    def _wrap(self, upload: Upload) -> Upload:
        return FaultyUpload(upload, self.script)

    async def stat(self, key: str) -> Info:
        """By the script."""
        return await self.script.play("stat", lambda: self.inner.stat(key))

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """By the script: trouble comes before the first object, a lost answer after the last."""
        trouble = self.script.next("list")
        await _before(trouble)
        async for info in self.inner.list(prefix, after, left_out):
            yield info
        _afterwards(trouble)

    async def read(self, extent: Extent, into: memoryview) -> None:
        """By the script."""
        trouble = self.script.next("read")
        kept = bytes(into) if any(isinstance(t, Short) for t in trouble) else b""
        await _around(trouble, lambda: self.inner.read(extent, into))
        for each in trouble:
            if isinstance(each, Short):
                into[each.size :] = kept[each.size :]
            elif isinstance(each, Flip) and each.at < len(into):
                into[each.at] ^= 1

    async def stream(self, extent: Extent, take: Take) -> None:
        """By the script, as a read."""
        trouble = self.script.next("read")
        await _around(trouble, lambda: self.inner.stream(extent, _Bent(trouble, take)))

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
        """By the script."""
        trouble = self.script.next("put")
        sent = _flipped(data, trouble)
        return await _around(
            trouble,
            lambda: self.inner.put(
                key, sent, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata
            ),
        )

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """By the script."""
        return await self.script.play(
            "copy", lambda: self.inner.copy(key, ticket, upload_id=upload_id, replace=replace, url=url)
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
        """By the script; the upload's verbs too."""
        return self._wrap(
            await self.script.play(
                "upload",
                lambda: self.inner.upload(
                    key, upload_id=upload_id, replace=replace, content_type=content_type, metadata=metadata, kind=kind
                ),
            )
        )

    async def presign(self, ticket: Ticket) -> str:
        """By the script."""
        return await self.script.play("presign", lambda: self.inner.presign(ticket))

    async def discard(self, key: str, upload_id: str) -> None:
        """By the script."""
        await self.script.play("discard", lambda: self.inner.discard(key, upload_id))

    async def drop(self, one: Unfinished) -> bool:
        """By the script."""
        return await self.script.play("drop", lambda: self.inner.drop(one))

    async def delete(self, key: str, *, version: str = "") -> None:
        """By the script."""
        await self.script.play("delete", lambda: self.inner.delete(key, version=version))


class FaultyUpload(WrappedUpload):
    """An upload that misbehaves by the script of its plane."""

    def __init__(self, inner: Upload, script: Script) -> None:
        super().__init__(inner)
        self._script = script

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """By the script."""
        trouble = self._script.next("upload.put")
        sent = _flipped(data, trouble)
        return await _around(trouble, lambda: self.inner.put(number, offset, sent, crc64nvme))

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """By the script, as a put."""
        trouble = self._script.next("upload.put")
        return await _around(
            trouble, lambda: self.inner.pour(number, offset, size, lambda take: stream(_Bent(trouble, take)))
        )

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """By the script."""
        return await self._script.play("upload.copy", lambda: self.inner.copy(number, offset, ticket, start, end, url))

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """By the script."""
        return await self._script.play("upload.commit", lambda: self.inner.commit(steps, size, crc64nvme))

    async def made(self) -> Info | None:
        """By the script."""
        return await self._script.play("upload.made", self.inner.made)

    async def abort(self) -> None:
        """By the script."""
        await self._script.play("upload.abort", self.inner.abort)


class _Bent:
    """Hands on slices, with the flips of a script in them, and no more bytes than a short or broken one leaves."""

    def __init__(self, trouble: list[Trouble], take: Take) -> None:
        self._flips = [t.at for t in trouble if isinstance(t, Flip)]
        self._end = min((t.size for t in trouble if isinstance(t, Short | Break)), default=None)
        self._error = next((t.error for t in trouble if isinstance(t, Break)), None)
        self._take = take
        self._at = 0

    def __call__(self, data: memoryview) -> None:
        sent = bytearray(data)
        for at in self._flips:
            if self._at <= at < self._at + len(sent):
                sent[at - self._at] ^= 1
        if self._end is not None:
            del sent[max(0, self._end - self._at) :]
        self._at += len(data)
        if sent:
            self._take(memoryview(sent))
        if self._error is not None and self._end is not None and self._at >= self._end:
            raise self._error


async def _around(trouble: list[Trouble], call: Callable[[], Awaitable[T]]) -> T:
    await _before(trouble)
    answer = await call()
    _afterwards(trouble)
    return answer


async def _before(trouble: list[Trouble]) -> None:
    for each in trouble:
        if isinstance(each, Delay):
            await asyncio.sleep(each.seconds)
        elif isinstance(each, Hold):
            each.reached.set()
            await each.gate.wait()
        elif isinstance(each, Raise):
            raise each.error


def _afterwards(trouble: list[Trouble]) -> None:
    for each in trouble:
        if isinstance(each, LoseAnswer):
            raise each.error


def _flipped(data: Buffer, trouble: list[Trouble]) -> Buffer:
    places = [t.at for t in trouble if isinstance(t, Flip)]
    if not places:
        return data
    wrong = bytearray(data)
    for at in places:
        wrong[at] ^= 1
    return wrong
