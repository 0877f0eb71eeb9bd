"""What a transfer has proved: values of what was written, held against values that did not come from the write.

The evidence of a part is `compared` when what its writer reported equals a value that did not come from this write:
every step's own comparison, the stored value of a source that is wholly in it, the stored values of all sources
composed, or (verify_read) both ends read again. Else it is `pinned`, and its first and last 4 KiB are compared. Where a
plane does not report what it has written, stored values tell only that the right bytes were sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.together import side_by_side
from fileserver.transfer import manifest_rows, routes
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.execute import odd_quotes
from fileserver.transfer.live import Live
from fileserver.transfer.manifest import Literal, Source
from fileserver.transfer.paging import Rows
from fileserver.transfer.record import PartRow, Plan, StoredStep
from planes import checksum
from planes.errors import Corrupt
from planes.plane import KIB, MIB, Plane
from planes.plane import Extent as PlaneExtent

AT_ONCE: Final = 16
"""Parts that are looked at side by side."""
_SAMPLE: Final = 4 * KIB
_SMALL: Final = 64 * KIB  # a part that is read whole: two reads cost less than the four of its two ends
_READ: Final = 8 * MIB

Known = Mapping[tuple[str, str], Source]
"""Sources by plane and key."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What settling found of a whole transfer."""

    evidence: str
    crc64nvme: int | None
    taken: Sequence[routes.Taken]
    """Which route the parts took and why: found on the same walk over the parts."""


@dataclass(frozen=True, slots=True)
class PartProof:
    """What the receipts of a part's steps make together."""

    crc64nvme: int | None
    other: int | None
    compared: bool


def prove(plan: Plan, row: PartRow, stored: Sequence[StoredStep], known: Known) -> PartProof:
    """Compose what was stored of a part, and hold it against the stored values of sources that are wholly in it.

    Raises:
        Corrupt: a step is missing, or what is stored is not what the sources hold.
        FormatMismatch: its quotes do not come in pairs.
    """
    part = row.part
    expected = [s.size for s in routes.steps(part, plan)]
    if [s.receipt.size for s in stored] != expected:
        msg = f"part {part.number} lacks steps: {len(stored)} of {len(expected)} are recorded"
        raise Corrupt(msg, part=str(part.number))
    if all(s.quotes is not None for s in stored) and sum(s.quotes or 0 for s in stored) % 2:
        raise odd_quotes(part)
    crc = checksum.combine_all((s.receipt.crc64nvme, s.receipt.size) for s in stored)
    other: int | None = None
    if plan.kind != "crc64nvme":
        other = checksum.combine_all(((s.receipt.other, s.receipt.size) for s in stored), plan.kind)
    mine = crc if plan.kind == "crc64nvme" else other
    (value, _), whole = _expected(row, known, plan.kind)
    if whole and mine is not None and value is not None:
        _same(mine, value, where(plan.plane, part.key), plan.kind)
    return PartProof(crc, other, all(s.receipt.compared for s in stored))


class Evidence:
    """Settles what a transfer has proved once its parts are committed."""

    def __init__(self, planes: Configured, store: Store, buffers: Buffers) -> None:
        self._planes = planes
        self._store = store
        self._buffers = buffers
        self._rows = Rows(store)

    async def settle(self, transfer: str, plan: Plan, live: Live, *, verify_read: bool) -> Proof:
        """Compare what was written with every value that did not come from the write.

        Raises:
            Corrupt: two values differ that must be equal.
        """
        sums = _Sums(plan, confirms=self._planes.plane(plan.plane).capabilities.confirms)
        async for page in self._rows.parts(transfer):
            known = await self._rows.behind(transfer, [row.part for row in page])
            await self._mark(transfer, await asyncio.to_thread(sums.add, page, known))
        all_compared = sums.whole_is_compared() or sums.all_compared
        if not all_compared or verify_read:
            all_compared = await self._look(transfer, plan, live, read=verify_read)
        return Proof("compared" if all_compared else "pinned", sums.crc, sums.tally.taken)

    async def _mark(self, transfer: str, numbers: list[int]) -> None:
        if numbers:
            await self._store.write(lambda c: manifest_rows.parts_compared(c, transfer, numbers))

    async def _look(self, transfer: str, plan: Plan, live: Live, *, read: bool) -> bool:
        """Compare first and last 4 KiB of the parts without comparison, or (read) all of every part."""
        target = self._planes.plane(plan.plane)

        async def one(row: PartRow) -> None:
            size = row.part.size
            if read or size <= _SMALL:
                await self._compare(target, row, [(0, size)], live)
            else:
                await self._compare(target, row, [(0, _SAMPLE), (size - _SAMPLE, size)], live)

        async for page in self._rows.parts(transfer):
            todo = [row for row in page if read or not row.compared]
            await side_by_side(todo, one, AT_ONCE)
            if read:
                await self._mark(transfer, [row.part.number for row in todo])
        return read

    async def _compare(self, target: Plane, row: PartRow, ranges: Sequence[tuple[int, int]], live: Live) -> None:
        info = await target.stat(row.part.key)
        what = f"part {row.part.number} ({row.part.key})"
        if info.size != row.part.size:
            msg = f"{what} has {info.size} bytes instead of {row.part.size}"
            raise Corrupt(msg, key=row.part.key)
        for start, end in ranges:
            mine, theirs = 0, 0
            for low in range(start, end, _READ):
                high = min(low + _READ, end)
                async with self._buffers.take(2 * (high - low)) as both:
                    here, there = both[: high - low], both[high - low :]
                    await target.read(PlaneExtent(row.part.key, info.version, low, high), here)
                    await self._read_source(row, low, there)
                    mine, theirs = checksum.compute(here, mine), checksum.compute(there, theirs)
                live.checked += 2 * (high - low)
            _same(mine, theirs, f"{what} between bytes {start} and {end}")

    async def _read_source(self, row: PartRow, start: int, into: memoryview) -> None:
        """Bytes of the part from `start` on, from where they came."""
        at, end = 0, start + len(into)
        for piece in row.part.pieces:
            low, high = max(start, at), min(end, at + piece.size)
            if low < high:
                view = into[low - start : high - start]
                if isinstance(piece, Literal):
                    view[:] = piece.data[low - at : high - at]
                else:
                    begin = piece.start - at
                    extent = PlaneExtent(piece.key, piece.version, begin + low, begin + high)
                    await self._planes.plane(piece.plane).read(extent, view)
            at += piece.size


class _Sums:
    """What was written and what the sources say, added up part by part; busy for a while, so not for the event loop."""

    def __init__(self, plan: Plan, *, confirms: bool) -> None:
        self._plan = plan
        self._confirms = confirms
        self._written: _Sum = (0, 0)
        self._expected: _Sum = (0, 0)
        self._crc: _Sum = (0, 0)
        self.all_compared = True
        self.tally = routes.Tally(plan)

    def add(self, page: Sequence[PartRow], known: Known) -> list[int]:
        """Add the next parts; returns the numbers of those that are compared by this, and were not before.

        Raises:
            Corrupt: a part is not what the sources that are wholly in it hold.
        """
        kind, marks = self._plan.kind, list[int]()
        self.tally.add([row.part for row in page])
        for row in page:
            value, whole = _expected(row, known, kind)
            mine = (row.value(kind), row.part.size)
            self._expected, self._written = _join(self._expected, value, kind), _join(self._written, mine, kind)
            self._crc = _join(self._crc, (row.crc64nvme, row.part.size))
            if whole and mine[0] is not None and value[0] is not None:
                what = f"part {row.part.number} ({where(self._plan.plane, row.part.key)})"
                _same(mine[0], value[0], what, kind)
                marks += [row.part.number] if self._confirms and not row.compared else []
                self.all_compared = self.all_compared and (self._confirms or row.compared)
            elif not row.compared:
                self.all_compared = False
        return marks

    @property
    def crc(self) -> int | None:
        """CRC64NVME of all parts so far, None if that of one is unknown."""
        return self._crc[0]

    def whole_is_compared(self) -> bool:
        """Whether all sources together have a value, which is then what was written.

        Raises:
            Corrupt: it is not.
        """
        written, expected = self._written[0], self._expected[0]
        if written is None or expected is None:
            return False
        _same(written, expected, "the whole", self._plan.kind)
        return self._confirms


_Sum = tuple[int | None, int]
"""The checksum of some bytes, None if unknown, and how many they are."""


def _join(total: _Sum, piece: _Sum, kind: str = "crc64nvme") -> _Sum:
    """The checksum of what is known so far and a piece after it."""
    return checksum.combine_all((total, piece), kind), total[1] + piece[1]


def _same(one: int, other: int, what: str, kind: str = "crc64nvme") -> None:
    if one != other:
        mine, its = checksum.to_hex(one, kind), checksum.to_hex(other, kind)
        msg = f"{what}: {kind} is {mine} as written, {its} as the source says; the transfer is undone"
        raise Corrupt(msg, written=mine, source=its)


def _expected(row: PartRow, known: Known, kind: str) -> tuple[_Sum, bool]:
    """((checksum, size) of what the sources' values prove by the end of a part, whether that is the part's own)."""
    total: _Sum = (0, 0)
    whole = True
    for piece in row.part.pieces:
        if isinstance(piece, Literal):
            value: int | None = checksum.compute(piece.data, kind=kind)
        else:
            whole = whole and piece.whole
            if piece.end != piece.of:  # the value of a source counts once, where the source ends
                continue
            value = known[piece.plane, piece.key].checksums.get(kind)
        length = piece.size if isinstance(piece, Literal) else piece.of
        total = _join(total, (value, length), kind)
    return total, whole
