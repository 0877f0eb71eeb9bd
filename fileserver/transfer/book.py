"""What an executor has to know of a segment, and where it says what it has stored of it.

On a file server that is the store (`transfer.store_book`); on the machine of an agent it is what came with the
assignment, so nothing here knows of a database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fileserver.transfer.live import Live
from fileserver.transfer.record import Done, PartRow, Plan, Segment, StoredStep


@dataclass(frozen=True, slots=True)
class Page:
    """A segment with everything that belongs to it."""

    plan: Plan
    segment: Segment
    rows: Sequence[PartRow]
    have: Mapping[int, Sequence[StoredStep]]
    """What is stored already, by part."""


class Book(Protocol):
    """Segments out, receipts in."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What `enter` raises where the same may succeed the next time."""
        ...

    async def begin(self, transfer: str, number: int) -> Page | None:
        """Take a segment up; None if nothing of it is missing."""
        ...

    async def enter(self, transfer: str, stored: Sequence[StoredStep], done: Sequence[Done], live: Live) -> None:
        """Keep receipts of steps, and of parts that were written at once; the same twice is once."""
        ...

    async def end(self, transfer: str, number: int) -> None:
        """All of a segment is stored and entered."""
        ...
