"""A store that says nothing of what it was sent: its receipts have the sender's own checksums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planes.memory import MemoryPlane
from planes.plane import Capabilities, StepReceipt


class Silent(MemoryPlane):
    """As an S3 store is with `checksums: none`; for objects that one put writes."""

    @property
    def capabilities(self) -> Capabilities:
        """Those of memory, but that it confirms nothing."""
        return replace(super().capabilities, confirms=False)

    async def put(self, *arguments: Any, **more: Any) -> StepReceipt:
        """Keep a whole object, and say nothing of it."""
        return replace(await super().put(*arguments, **more), compared=False)
