"""The contract as a check of a plane that somebody has just configured: does everything that we rely on work here?

Writes small objects below a folder of its own, `cropduster-check-<id>/`, and removes them, whatever happens. On the
way it finds out in what planes differ (`planes.facts`).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from planes import facts
from planes.checksum import compute
from planes.errors import AlreadyExists, Changed, Error, NotFound, OutOfRange, PathEscapes, Refused, Unsupported
from planes.facts import FACTS, UNKNOWN, Fact
from planes.plane import Extent, Info, Plane, StepReceipt, Take, Ticket

_DATA: Final = b"Cropduster checks that this plane keeps its contract.\n" * 64
_FIRST: Final = "first.txt"
_STEPS: Final = "folder/steps.bin"
_TYPE: Final = "text/x-cropduster-check"
_METADATA: Final = {"checked": "yes"}
_ORDER: Final = ("order/B", "order/a-b", "order/a/b", "order/a0")
"""In byte order; a store that lists folder by folder has another."""
_ODD: Final = ("//", "/./", "\\")
"""In names that some stores take for those of other objects."""
_WRITERS: Final = 4
"""That race for a key, in each of the two ways to write."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What was tried, whether it works, and what happened instead.

    `reason` is that of the error that the plane answered; empty if it works, or did something else than it must.
    """

    check: str
    ok: bool
    detail: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was tried, in order, and what the plane can do; no facts where nothing could be written."""

    results: tuple[CheckResult, ...]
    facts: tuple[Fact, ...] = ()


class _Broken(Exception):
    """The plane answered, but not as the contract says."""


@dataclass(slots=True)
class _Trial:
    plane: Plane
    folder: str = field(default_factory=lambda: f"cropduster-check-{uuid.uuid4().hex[:12]}/")
    facts: dict[str, Fact] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)

    async def write(self) -> None:
        """Write a small object."""
        receipt = await self._put(_FIRST, _DATA, described=True)
        _see(receipt.size == len(_DATA), f"{receipt.size} bytes were stored instead of {len(_DATA)}")
        _see(receipt.crc64nvme in {None, compute(_DATA)}, "the checksum of what was stored is wrong")
        info = await self._info(_FIRST)
        kept = info.content_type == _TYPE and _METADATA.items() <= info.metadata.items()
        self._note(facts.checksums(self.plane, info))
        self._note(facts.metadata(self.plane, kept=kept))
        for kind, value in info.checksums.items():
            _see(value == compute(_DATA, kind=kind), f"the {kind} that it keeps is wrong")

    async def read(self) -> None:
        """Read it back, pinned to its version: the whole, a range, and beyond its end."""
        info = await self._info(_FIRST)
        _see(await self._bytes(info, 0, info.size) == _DATA, "other bytes were read than written")
        _see(await self._bytes(info, 100, 200) == _DATA[100:200], "other bytes were read than were asked for")
        try:
            await self._bytes(info, 0, info.size + 1)
        except OutOfRange:
            return
        msg = "a read beyond the end of an object did not fail"
        raise _Broken(msg)

    async def listed(self) -> None:
        """Find it in a listing, and others, in order."""
        await asyncio.gather(*(self._put(name, name.encode()) for name in _ORDER))
        keys = [self.folder + name for name in _ORDER]
        found = await self._keys()
        missed = {self.folder + _FIRST, *keys} ^ set(found)
        _see(not missed, f"the listing does not show what was written: {', '.join(sorted(missed)[:3])}")
        _see(len(found) == len(set(found)), "the listing shows keys twice")
        after = [info.key async for info in self.plane.list(f"{self.folder}order/", keys[1])]
        self._note(facts.order(holds=found == sorted(found, key=str.encode) and after == keys[2:]))

    async def keep(self) -> None:
        """Refuse to overwrite it by accident, in both ways of writing."""
        try:
            await self._put(_FIRST, b"another")
        except AlreadyExists:
            await self._keep_in_steps()
            return
        msg = "an existing object was overwritten although that was not asked for"
        raise _Broken(msg)

    async def _keep_in_steps(self) -> None:
        async with await self.plane.upload(self.folder + _FIRST, upload_id=_id()) as upload:
            try:  # without a step: Azure would keep it beside the object
                await upload.commit([], 0, 0)
            except AlreadyExists:
                return
        msg = "an existing object was overwritten by an upload although that was not asked for"
        raise _Broken(msg)

    async def race(self) -> None:
        """Let several write the same key at the same moment: one of them must have written it."""
        put, committed = f"{self.folder}raced.txt", f"{self.folder}raced.bin"
        self._written |= {put, committed}
        async with AsyncExitStack() as stack:
            uploads = [
                await stack.enter_async_context(await self.plane.upload(committed, upload_id=_id()))
                for _ in range(_WRITERS)
            ]
            steps = [await upload.put(1, 0, str(n).encode()) for n, upload in enumerate(uploads)]
            puts = (_won(self.plane.put(put, str(n).encode(), upload_id=_id())) for n in range(_WRITERS))
            commits = (
                _won(upload.commit([step], 1, step.crc64nvme)) for upload, step in zip(uploads, steps, strict=True)
            )
            for winners in (sum(await asyncio.gather(*puts)), sum(await asyncio.gather(*commits))):
                _see(winners > 0, f"of {_WRITERS} that wrote the same key at the same moment, nobody has written it")
                said = facts.conditions(self.plane, _WRITERS, winners)
                if said.costs or facts.CONDITIONS not in self.facts:
                    self._note(said)

    async def steps(self) -> None:
        """Write an object in steps, invisible until it is committed."""
        key, size = self._key(_STEPS), max(self.plane.limits.min_step, len(_DATA))
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
        _see(await self._bytes(info, size - 9, size + 9) == first[-9:] + _DATA[:9], "its steps are not in order")

    async def pour(self) -> None:
        """Store a step while it comes in, if it says that it can."""
        if self.plane.capabilities.pours:

            async def stream(take: Take) -> None:
                await asyncio.to_thread(take, memoryview(_DATA))

            async with await self.plane.upload(self._key("poured.bin"), upload_id=_id()) as upload:
                step = await upload.pour(1, 0, len(_DATA), stream)
                await upload.commit([step], len(_DATA), compute(_DATA))
        self._note(facts.pours(self.plane))

    async def abort(self) -> None:
        """Abort an upload and leave nothing behind."""
        async with await self.plane.upload(self._key("aborted.bin"), upload_id=_id()) as upload:
            await upload.put(1, 0, _DATA)
        _see(await self._absent("aborted.bin"), "an aborted upload became visible")

    async def copy(self) -> None:
        """Let the provider copy an object itself."""
        info = await self._info(_FIRST)
        ticket = self.plane.copy_ticket(info)
        if ticket is None or not self.plane.accepts(ticket):
            no = "it cannot fetch its own objects"
            self._note(facts.whole(no), facts.ranges(no))
            return
        url = partial(self.plane.presign, ticket)
        try:
            receipt = await self.plane.copy(self._key("copy.txt"), ticket, upload_id=_id(), url=url)
        except (Unsupported, Refused) as error:
            self._note(facts.whole(error.message))
        else:
            _see(receipt.size == info.size, f"{receipt.size} bytes were copied instead of {info.size}")
            self._note(facts.whole(""), facts.evidence(receipt, info))
            await self._is_copied("copy.txt", await self._bytes(info, 0, info.size))

    async def copy_range(self) -> None:
        """Let the provider copy a range of an object that is large enough."""
        info = await self._info(_STEPS)
        ticket = self.plane.copy_ticket(info)
        if ticket is None or not self.plane.accepts(ticket):
            return
        begin = info.size - len(_DATA) + 100
        try:
            receipt = await self._copied("range.bin", ticket, begin, begin + 1000)
        except (Unsupported, Refused) as error:
            self._note(facts.ranges(error.message))
        else:
            self._note(facts.ranges(""), facts.evidence(receipt, info))
            await self._is_copied("range.bin", _DATA[100:1100])

    async def _copied(self, name: str, ticket: Ticket, start: int, end: int) -> StepReceipt:
        async with await self.plane.upload(self._key(name), upload_id=_id()) as upload:
            step = await upload.copy(1, 0, ticket, start, end, partial(self.plane.presign, ticket))
            await upload.commit([step], end - start, step.crc64nvme)
        return step

    async def _is_copied(self, name: str, data: bytes) -> None:
        info = await self._info(name)
        _see(info.size == len(data), f"{info.size} bytes were copied instead of {len(data)}")
        _see(await self._bytes(info, 0, info.size) == data, "other bytes were copied than were asked for")

    async def pinned(self) -> None:
        """Notice that an object was replaced since it was looked at."""
        old = await self._info(_FIRST)
        await self.plane.put(old.key, _DATA[::-1], upload_id=_id(), replace=True)
        try:
            got = await self._bytes(old, 0, old.size)
        except Changed:
            self._note(facts.versions(kept=False))
            return
        _see(got == _DATA, "an object was replaced, and a read of its old version did not fail")
        self._note(facts.versions(kept=True))

    async def names(self) -> None:
        """Write under names that are not the same everywhere."""
        refused: list[str] = []
        for odd in _ODD:
            name = f"names/a{odd}b"
            try:
                await self._put(name, b"odd")
            except PathEscapes:  # a plane of folders has no such names
                self._written.discard(self.folder + name)
            except (Refused, Unsupported):
                self._written.discard(self.folder + name)
                refused.append(odd)
            else:
                found = await self._keys()
                _see(self.folder + name in found, f"what was written as {name!r} is not listed under that name")
        self._note(facts.names(refused))

    async def delete(self) -> None:
        """Delete what was written."""
        await self.clean()
        found = await self._keys()
        _see(not found, f"of what was written, {len(found)} can still be listed")
        _see(await self._absent(_FIRST), "a deleted object is still there")
        await self.plane.delete(self.folder + _FIRST)

    async def clean(self) -> None:
        """Remove everything of this trial; also if it can't be listed."""
        gone = await asyncio.gather(*map(self.plane.delete, self._written), return_exceptions=True)
        for key in await self._keys():
            await self.plane.delete(key)
        for failure in gone:
            if failure is not None:
                raise failure

    def _key(self, name: str) -> str:
        """The key of an object that is about to be written."""
        self._written.add(self.folder + name)
        return self.folder + name

    def _note(self, *found: Fact) -> None:
        self.facts.update({fact.fact: fact for fact in found})

    async def _put(self, name: str, data: bytes, *, described: bool = False) -> StepReceipt:
        more = (_TYPE, _METADATA) if described else ("", None)
        return await self.plane.put(self._key(name), data, upload_id=_id(), content_type=more[0], metadata=more[1])

    async def _bytes(self, info: Info, start: int, end: int) -> bytes:
        got = bytearray(end - start)
        await self.plane.read(Extent(info.key, info.version, start, end), memoryview(got))
        return bytes(got)

    async def _keys(self) -> list[str]:
        return [info.key async for info in self.plane.list(self.folder)]

    async def _info(self, name: str) -> Info:
        return await self.plane.stat(self.folder + name)

    async def _absent(self, name: str) -> bool:
        try:
            await self._info(name)
        except NotFound:
            return True
        return False


async def check(plane: Plane) -> Checked:
    """Try the contract on a plane; after a failed write nothing more is tried. Raises nothing that the plane raises.

    Cancelled, it removes what it has written before it ends.
    """
    trial = _Trial(plane)
    tries: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("write an object", trial.write),
        ("read it back", trial.read),
        ("list it", trial.listed),
        ("refuse to overwrite it", trial.keep),
        ("several writers of one key", trial.race),
        ("write in steps", trial.steps),
        ("write while reading", trial.pour),
        ("abort without a trace", trial.abort),
        ("copy inside the plane", trial.copy),
        ("copy a range inside the plane", trial.copy_range),
        ("notice a replaced object", trial.pinned),
        ("tell names apart", trial.names),
        ("delete", trial.delete),
    ]
    results: list[CheckResult] = []
    try:
        for name, attempt in tries:
            results.append(await _tried(name, attempt))
            if not results[0].ok:
                return Checked(tuple(results))
    finally:
        if len(results) < len(tries) or not results[-1].ok:
            with suppress(Error):  # the tries have said so already
                await trial.clean()
    unknown = "what was tried for it failed"
    return Checked(tuple(results), tuple(trial.facts.get(name, Fact(name, UNKNOWN, unknown)) for name in FACTS))


async def _tried(name: str, attempt: Callable[[], Awaitable[None]]) -> CheckResult:
    try:
        await attempt()
    except _Broken as finding:
        return CheckResult(name, ok=False, detail=str(finding))
    except Error as error:
        return CheckResult(name, ok=False, detail=error.message, reason=error.reason)
    return CheckResult(name, ok=True)


async def _won(writing: Awaitable[object]) -> bool:
    """Whether a writer was told that it has written; whoever was overwritten a moment later was, too."""
    try:
        await writing
    except AlreadyExists:
        return False
    except Changed:
        return True
    return True


def _see(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Broken(otherwise)


def _id() -> str:
    return f"check-{uuid.uuid4().hex}"
