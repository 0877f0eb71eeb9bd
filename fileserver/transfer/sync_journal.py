"""What who moves the bytes of a sync is asked to tell: of uploads while they last, and how objects were moved."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Protocol

from fileserver.transfer.sync_rows import Item
from planes.plane import StepReceipt


class Journal(Protocol):
    """What is recorded of uploads, as `fileserver.transfer.sync_record.Recorded` does."""

    def token(self, item: Item, token: str) -> Coroutine[None, None, None]:
        """Record the upload of an item before a byte moves; of another one nothing counts any more."""
        ...

    async def stored(self, item: Item) -> list[StepReceipt]:
        """What is recorded as stored of it."""
        ...

    def keep(self, item: Item, receipt: StepReceipt) -> None:
        """Record a step as stored."""
        ...


@dataclass(frozen=True, slots=True)
class Moved:
    """How an object was moved: "copied" or "equal", whether compared, and by which route (see `transfer.routes`)."""

    result: str
    compared: bool
    route: str = ""
    because: str = ""
