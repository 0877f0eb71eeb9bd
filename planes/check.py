"""The contract as a check of a plane that somebody has just configured: does everything that we rely on work here?

Writes small objects below a folder of its own, `cropduster-check-<id>/`, and removes them, whatever happens.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from planes.checksum import compute
from planes.errors import AlreadyExists, Changed, Error, NotFound, Refused, Unsupported
from planes.plane import Extent, Info, Plane, StepReceipt

_DATA: Final = b"Cropduster checks that this plane keeps its contract.\n" * 64
_FIRST: Final = "first.txt"
_STEPS: Final = "folder/steps.bin"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What was tried, whether it works, and what happened instead (or worth knowing).

    `reason` is that of the error that the plane answered; empty if it works, or did something else than it must.
    """

    check: str
    ok: bool
    detail: str = ""
    reason: str = ""


class _Broken(Exception):
    """The plane answered, but not as the contract says."""


@dataclass(slots=True)
class _Trial:
    plane: Plane
    folder: str = field(default_factory=lambda: f"cropduster-check-{uuid.uuid4().hex[:12]}/")

    async def write(self) -> str:
        """Write a small object."""
        receipt = await self.plane.put(self.folder + _FIRST, _DATA, upload_id=_id())
        _see(receipt.size == len(_DATA), f"{receipt.size} bytes were stored instead of {len(_DATA)}")
        if receipt.crc64nvme is None:
            return "stored without a checksum: evidence stays 'pinned' unless transfers are verified by reading"
        _see(receipt.crc64nvme == compute(_DATA), "the checksum of what was stored is wrong")
        return ""

    async def read(self) -> str:
        """Read it back, pinned to its version."""
        info = await self._info(_FIRST)
        got = bytearray(len(_DATA))
        await self.plane.read(Extent(info.key, info.version, 0, info.size), memoryview(got))
        _see(got == _DATA, "other bytes were read than written")
        return ""

    async def listed(self) -> str:
        """Find it in a listing."""
        found = [info.key async for info in self.plane.list(self.folder)]
        _see(found == [self.folder + _FIRST], f"the listing shows {', '.join(found[:3]) or 'nothing'} instead")
        return ""

    async def keep(self) -> str:
        """Refuse to overwrite it by accident."""
        try:
            await self.plane.put(self.folder + _FIRST, b"another", upload_id=_id())
        except AlreadyExists:
            return ""
        msg = "an existing object was overwritten although that was not asked for"
        raise _Broken(msg)

    async def steps(self) -> str:
        """Write an object in steps, invisible until it is committed."""
        key, size = self.folder + _STEPS, max(self.plane.limits.min_step, len(_DATA))
        first = (_DATA * (size // len(_DATA) + 1))[:size]
        async with await self.plane.upload(key, upload_id=_id()) as upload:
            steps: list[StepReceipt] = [
                await upload.put(2, size, _DATA),
                await self.plane.resume(upload.token).put(1, 0, first),
            ]
            _see(await self._absent(_STEPS), "an object was visible before its commit")
            info = await upload.commit(
                sorted(steps, key=lambda s: s.number), size + len(_DATA), compute(_DATA, compute(first))
            )
        _see(info.size == size + len(_DATA), f"the object has {info.size} bytes instead of {size + len(_DATA)}")
        return ""

    async def abort(self) -> str:
        """Abort an upload and leave nothing behind."""
        async with await self.plane.upload(f"{self.folder}aborted.bin", upload_id=_id()) as upload:
            await upload.put(1, 0, _DATA)
        _see(await self._absent("aborted.bin"), "an aborted upload became visible")
        return ""

    async def copy(self) -> str:
        """Let the provider copy an object itself."""
        info = await self._info(_FIRST)
        ticket = self.plane.copy_ticket(info)
        if ticket is None or not self.plane.accepts(ticket):
            return "this provider does not copy; bytes travel through the file server"
        try:
            receipt = await self.plane.copy(f"{self.folder}copy.txt", ticket, upload_id=_id())
        except (Unsupported, Refused) as error:
            return f"the provider refuses to copy, so bytes travel through the file server: {error.message}"
        _see(receipt.size == info.size, f"{receipt.size} bytes were copied instead of {info.size}")
        return ""

    async def pinned(self) -> str:
        """Notice that an object was replaced since it was looked at."""
        old = await self._info(_FIRST)
        await self.plane.put(old.key, _DATA[::-1], upload_id=_id(), replace=True)
        got = bytearray(old.size)
        try:
            await self.plane.read(Extent(old.key, old.version, 0, old.size), memoryview(got))
        except Changed:
            return ""
        if got == _DATA:
            return "it keeps old versions, which stay readable"
        msg = "an object was replaced, and a read of its old version did not fail"
        raise _Broken(msg)

    async def delete(self) -> str:
        """Delete what was written."""
        await self.clean()
        found = [info.key async for info in self.plane.list(self.folder)]
        _see(not found, f"of what was written, {len(found)} can still be listed")
        await self.plane.delete(self.folder + _FIRST)
        return ""

    async def clean(self) -> None:
        """Remove everything of this trial."""
        for key in [info.key async for info in self.plane.list(self.folder)]:
            await self.plane.delete(key)

    async def _info(self, name: str) -> Info:
        return await self.plane.stat(self.folder + name)

    async def _absent(self, name: str) -> bool:
        try:
            await self._info(name)
        except NotFound:
            return True
        return False


async def check(plane: Plane) -> AsyncIterator[CheckResult]:
    """Try the contract on a plane, one result a try, in order; after a failed write nothing more is tried."""
    trial = _Trial(plane)
    tries: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("write an object", trial.write),
        ("read it back", trial.read),
        ("list it", trial.listed),
        ("refuse to overwrite it", trial.keep),
        ("write in steps", trial.steps),
        ("abort without a trace", trial.abort),
        ("copy inside the plane", trial.copy),
        ("notice a replaced object", trial.pinned),
        ("delete", trial.delete),
    ]
    try:
        for name, attempt in tries:
            result = await _tried(name, attempt)
            yield result
            if not result.ok and attempt == trial.write:
                return
    finally:
        with suppress(Error):  # the tries have said so already
            await trial.clean()


async def _tried(name: str, attempt: Callable[[], Awaitable[str]]) -> CheckResult:
    try:
        return CheckResult(name, ok=True, detail=await attempt())
    except _Broken as finding:
        return CheckResult(name, ok=False, detail=str(finding))
    except Error as error:
        return CheckResult(name, ok=False, detail=error.message, reason=error.reason)


def _see(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Broken(otherwise)


def _id() -> str:
    return f"check-{uuid.uuid4().hex}"
