"""The protocol of a search for a record start, and the window that it looks through.

A search is a generator: it yields a byte range (start, end) of one source, is sent exactly those bytes, and returns
the first record start at or after its target, or None if that cannot be proved from a window. It never reads, so
the caller decides how, and how many searches run side by side.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

Span = tuple[int, int]
"""Bytes [start, end) of a source."""
Search = Generator[Span, bytes, int | None]
FIRST_WINDOW: Final = 16 * 1024


class Window:
    """Bytes [start, end) of a source that a search has been sent; grows, and asks for nothing twice."""

    def __init__(self, size: int, at: int) -> None:
        self.size = size
        self.start = self.end = min(at, size)
        self.data = b""

    @property
    def at_end(self) -> bool:
        """The window reaches the end of the source."""
        return self.end == self.size

    def cover(self, start: int, end: int) -> Generator[Span, bytes, None]:
        """Grow to at least [start, end), clamped to the source."""
        start, end = max(0, min(start, self.start)), min(self.size, max(end, self.end))
        if self.start == self.end and start < end:
            self.data = yield start, end
        else:
            if start < self.start:
                self.data = (yield start, self.start) + self.data
            if end > self.end:
                self.data += yield self.end, end
        self.start, self.end = start, end

    def around(self, target: int, width: int) -> Generator[Span, bytes, None]:
        """Grow to `width` bytes with the target in the middle; what one edge of the source denies the other gives."""
        start = max(0, min(target - width // 2, self.size - width))
        yield from self.cover(start, start + width)
