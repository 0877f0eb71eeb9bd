"""How writers who share only a table agree which of them writes which block.

A claim changes the first pending row into one that bears the claimer's name. HSDS changes rows by query on the one
data node that has the table's only chunk, one request after the other but for a gap of a moment (it looks for the
rows, takes in the rest of the request, then changes them; seen in 1.0.2), so whoever has claimed asks which rows bear
its name before it writes: of two who fell into the gap only the later one finds any. A row is done only if it still
bears the name of who says so, hence each block counts once; and as all writers write the same values, one who was
overtaken harms nothing.

Nobody trusts clocks: who has blocks counts `beat` up, and whoever waits takes a block whose beat it has not seen
change for the length of a lease, by its own clock. The database of a file server would do as well, but then all
writers had to reach that server too; like this they need only what they measure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fileserver.hdf5.bench.site import Match, Row, Rows, Site, State, each
from planes.threads import until_done

_BEATS: Final = 4  # a lease; how often who has blocks says that it lives


@dataclass(frozen=True, slots=True)
class Claim:
    """A block that one has."""

    number: int
    claims: int
    """How often it was taken, this time included."""


class Claims:
    """One writer's side.

    Args:
        site: where.
        writer: a name that no other writer has; at most 64 ASCII characters.
        lease: seconds without a sign of life after which a block is taken from its writer.
    """

    def __init__(self, site: Site, writer: str, lease: float) -> None:
        self._site = site
        self.writer = writer
        self.lease = lease
        self._beat = 0
        self._seen: dict[int, tuple[tuple[str, int], float]] = {}

    @property
    def pause(self) -> float:
        """Seconds between two signs of life."""
        return self.lease / _BEATS

    async def take(self) -> Sequence[Claim]:
        """Claim a pending block: what one has then, usually one; none if none was pending.

        An answer that was lost and asked again claims two: both are ours.
        """
        pending: Match = {"state": int(State.PENDING)}
        taken: Match = {"state": int(State.TAKEN), "writer": self.writer, "claims": 1, "beat": self._beat}
        while await self._change(pending, taken, most=1):
            if held := await self.held():
                return held
        return []

    async def held(self) -> Sequence[Claim]:
        """The blocks that one has, as the table says."""
        rows = await self._site.rows({"state": int(State.TAKEN), "writer": self.writer})
        return [Claim(row.block, row.claims) for row in each(rows)]

    async def beat(self) -> None:
        """Say that one lives."""
        self._beat += 1
        await self._change({"state": int(State.TAKEN), "writer": self.writer}, {"beat": self._beat})

    async def done(self, claim: Claim, start: float, seconds: float) -> bool:
        """Say that a block is written; False if it was taken from us meanwhile.

        Args:
            claim: the block.
            start: when its write began, seconds since 1970.
            seconds: how long it took.
        """
        mine: Match = {"block": claim.number, "state": int(State.TAKEN), "writer": self.writer}
        values: Match = {"state": int(State.DONE), "start": start, "seconds": seconds}
        return await self._change(mine, values) > 0

    async def release(self) -> None:
        """Give back what one has."""
        await self._change({"state": int(State.TAKEN), "writer": self.writer}, {"state": int(State.PENDING)})

    async def take_over(self, now: float) -> tuple[Sequence[Claim], bool]:
        """Take one block whose writer has shown no sign of life for a lease.

        Returns:
            What one has then, and whether others still have any.

        Args:
            now: of a clock that never goes back, seconds.
        """
        others = await self._site.rows({"state": int(State.TAKEN)})
        for row in self._silent(others, now):
            known: Match = {
                "block": row.block,
                "state": int(State.TAKEN),
                "writer": row.writer,
                "beat": row.beat,
            }
            taken: Match = {"writer": self.writer, "claims": row.claims + 1, "beat": self._beat}
            if await self._change(known, taken) and (held := await self.held()):
                return held, True
        return [], len(others) > 0

    async def _change(self, match: Match, values: Match, *, most: int = 0) -> int:
        """See Site.change. A change under way cannot be called back: who is cancelled meanwhile waits for its end.

        Else a claim could come in after the release that follows the cancellation, and nobody would give it back.
        """
        task = asyncio.ensure_future(self._site.change(match, values, most=most))
        cancelled = await until_done(task)
        if cancelled is not None and not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
            raise cancelled
        return task.result()

    def _silent(self, others: Rows, now: float) -> list[Row]:
        silent = []
        for row in each(others):
            mark = (row.writer, row.beat)
            seen, since = self._seen.get(row.block, (mark, now))
            if seen != mark:
                since = now
            self._seen[row.block] = (mark, since)
            if now - since >= self.lease:
                silent.append(row)
        return silent
