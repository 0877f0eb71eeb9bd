"""Steps that a broken connection has left half received: kept in memory, so that they go on where they stopped.

A step is stored once it is whole; until then what came of it is held here, for as long as nobody else wants the
memory. Another file server holds nothing of it: there the step begins again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from fileserver import codec
from fileserver.transfer.buffers import Borrowed, Buffers
from planes import checksum
from planes.errors import Corrupt, OutOfRange, Unavailable
from planes.plane import StepReceipt

LIFE: Final = 600.0
"""Seconds that a step is kept which nobody goes on with, and that it is known how one was stored."""
SILENT: Final = 60.0
"""Seconds between two messages of a write, after which its memory is wanted for others."""
MOST: Final = 4096
"""Stored steps that are known; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class Due:
    """A step that is to be written."""

    name: str
    number: int
    """0: the part whole, by one put."""
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Key:
    """Names a step of one attempt at a part: what is received for another is never taken for it."""

    write: str
    upload: str
    offset: int
    size: int


@dataclass(slots=True)
class Half:
    """A step that is being received."""

    memory: Borrowed
    at: int = 0
    """Bytes that came in order; the rest of the memory is arbitrary."""
    wanted: bool = False
    """Another stream wants to go on with it: this one has broken, and has not noticed."""
    waits: asyncio.Timeout | None = None
    """Of who waits for more of it."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nobody is at it."""
    timer: asyncio.TimerHandle | None = None
    """Ends it."""

    def stay(self) -> None:
        """Somebody is at it."""
        self.left.clear()
        self.wanted, self.waits = False, None
        if self.timer is not None:
            self.timer.cancel()

    def cut(self) -> None:
        """Wait no more for what is missing of it."""
        self.wanted = True
        if self.waits is not None and not self.waits.expired():
            self.waits.reschedule(asyncio.get_running_loop().time())


class Halves:
    """What came of the steps that are not stored, and how those were stored that are.

    Args:
        buffers: the memory for them.
        life: seconds that something is kept which nobody asks for.
    """

    def __init__(self, buffers: Buffers, life: float = LIFE) -> None:
        self._buffers = buffers
        self._life = life
        self._held: dict[Key, Half] = {}
        self._stored: dict[Key, tuple[StepReceipt, float]] = {}
        buffers.relief = self._relieve

    @asynccontextmanager
    async def take(self, key: Key) -> AsyncIterator[Half]:
        """The step, with what came of it before; only one at a time may be in the block.

        What stands in `at` at the end of the block is kept, unless the step is stored by then.
        """
        self._stored.pop(key, None)
        half = self._held.get(key)
        if half is None:
            half = Half(await self._buffers.borrow(key.size))
            self._held[key] = half
        half.stay()
        try:
            yield half
        finally:
            half.left.set()
            if key in self._stored or not half.at or self._buffers.short:
                self._let_go(key, half)
            else:
                loop = asyncio.get_running_loop()
                half.timer = loop.call_later(self._life, self._let_go, key, half)

    async def broken_off(self, key: Key) -> None:
        """End the stream that is at a step: who goes on with it knows that it has broken. Returns once it has ended."""
        half = self._held.get(key)
        if half is not None and not half.left.is_set():
            half.cut()
            await half.left.wait()

    def received(self, key: Key) -> int:
        """Bytes of a step that came, and are held."""
        half = self._held.get(key)
        return half.at if half else 0

    def store(self, key: Key, receipt: StepReceipt) -> None:
        """Note that a step is stored: its bytes are needed no more."""
        now = asyncio.get_running_loop().time()
        self._stored[key] = (receipt, now + self._life)
        while self._stored and (len(self._stored) > MOST or next(iter(self._stored.values()))[1] < now):
            del self._stored[next(iter(self._stored))]

    def stored(self, key: Key) -> StepReceipt | None:
        """How a step was stored, if that was here and is not long ago."""
        found = self._stored.get(key)
        return found[0] if found else None

    def _relieve(self) -> bool:
        """Give back the memory of a step that nobody is at, the one that began first; whether there was one."""
        for key, half in self._held.items():
            if half.left.is_set():
                self._let_go(key, half)
                return True
        return False

    def _let_go(self, key: Key, half: Half) -> None:
        if self._held.get(key) is half:
            del self._held[key]
            if half.timer is not None:
                half.timer.cancel()
            half.memory.give_back()


async def fill(half: Half, due: Due, first: codec.WriteRequest, rest: AsyncIterator[codec.WriteRequest]) -> int:
    """Take in what is missing of a step, in order; the CRC64NVME of the whole.

    A first message at the beginning of the step begins it again.
    """
    request, buffer = first, half.memory.view
    if request.offset == due.offset:
        half.at = 0
    while True:
        data, at = memoryview(request.data).cast("B"), half.at
        if request.offset != due.offset + at or at + data.nbytes > due.size:
            msg = (
                f"write {due.name} is at offset {due.offset + at} of {due.offset + due.size}: "
                "ask QueryWrite how much is held, and go on from there"
            )
            raise OutOfRange(msg, write=due.name, offset=str(due.offset + at), sent=str(request.offset))
        if data.nbytes and checksum.compute(data, 0, "crc32c") != request.crc32c:
            msg = f"{data.nbytes} bytes at offset {due.offset + at} of write {due.name} came with another checksum"
            raise Corrupt(msg, write=due.name, offset=str(due.offset + at))
        buffer[at : at + data.nbytes] = data
        half.at += data.nbytes
        if request.finish:
            break
        coming = await following(rest, half)
        if coming is None:
            msg = f"write {due.name} ended after {half.at} of {due.size} bytes: go on from there"
            raise OutOfRange(msg, write=due.name, offset=str(due.offset + half.at))
        request = coming
    if half.at != due.size:
        msg = f"write {due.name} has {due.size} bytes, and {half.at} came: go on from there"
        raise OutOfRange(msg, write=due.name, offset=str(due.offset + half.at))
    crc = checksum.compute(buffer)
    if request.crc64nvme and request.crc64nvme != checksum.to_hex(crc):
        half.at = 0
        msg = f"write {due.name} has CRC64NVME {checksum.to_hex(crc)} and not {request.crc64nvme}: send it again"
        raise Corrupt(msg, write=due.name)
    return crc


async def following(requests: AsyncIterator[codec.WriteRequest], half: Half | None = None) -> codec.WriteRequest | None:
    """The next message; None after the last.

    Raises:
        Unavailable: the caller is silent, or goes on by another stream.
    """
    try:
        async with asyncio.timeout(SILENT) as waiting:
            if half is not None:
                half.waits = waiting
                if half.wanted:
                    half.cut()
            return await anext(requests, None)
    except TimeoutError:
        elsewhere = half is not None and half.wanted
        why = "another stream goes on with it" if elsewhere else f"nothing came for {SILENT:.0f} seconds"
        msg = f"{why}: ask QueryWrite how much is held"
        raise Unavailable(msg) from None
    finally:
        if half is not None:
            half.waits = None
