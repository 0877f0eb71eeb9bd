"""Spray, despray, copy: which bytes go into which part. Pure functions; the one place where the verbs differ.

All three see their sources as one stream of bytes in order. A part is a run of that stream; where a source that is
not the last ends without a terminator, a literal terminator follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from fileserver.hosts import host_of
from fileserver.transfer.manifest import Extent, Literal, Part, Source
from fileserver.transfer.record import Segment
from planes.pack import Piece, Step, pack
from planes.plane import GIB, Limits

SMALL_TOGETHER = 50
"""Small parts that share a segment."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Sources in order, seen as one stream; `endings[i]` is added after source i (mostly empty)."""

    sources: Sequence[Source]
    endings: Sequence[bytes]

    @property
    def size(self) -> int:
        """Bytes of the sources, without endings."""
        return sum(s.size for s in self.sources)

    def cut(self, points: Sequence[int]) -> Iterator[tuple[Extent | Literal, ...]]:
        """The pieces between consecutive points: 0 = first ≤ … ≤ last = size, positions in the stream."""
        starts = list(accumulate((s.size for s in self.sources), initial=0))
        index = 0
        for begin, end in pairwise(points):
            pieces: list[Extent | Literal] = []
            while index > 0 and starts[index] > begin:
                index -= 1
            while index < len(self.sources) and starts[index] < end:
                source, base = self.sources[index], starts[index]
                low, high = max(begin, base) - base, min(end, base + source.size) - base
                if low < high:
                    pieces.append(Extent(source.plane, source.key, source.version, low, high, source.size))
                    if high == source.size and self.endings[index]:
                        pieces.append(Literal(self.endings[index]))
                if base + source.size > end:
                    break
                index += 1
            yield tuple(pieces)


def split(stream: Stream, points: Sequence[int], key: Callable[[int], str]) -> Iterator[Part]:
    """Parts of a stream that begin at the split points, the first of which is 0."""
    bounds = (*points, stream.size)
    for number, pieces in enumerate(stream.cut(bounds), 1):
        yield Part(number, key(number), pieces)


def deal(stream: Stream, count: int, key: Callable[[int], str]) -> Iterator[Part]:
    """Whole sources dealt to `count` parts in order, as evenly by number as can be."""
    total = len(stream.sources)
    for number in range(1, count + 1):
        low, high = total * (number - 1) // count, total * number // count
        pieces: list[Extent | Literal] = []
        for source, ending in zip(stream.sources[low:high], stream.endings[low:high], strict=True):
            if source.size:
                pieces.append(_whole(source))
            if ending:
                pieces.append(Literal(ending))
        yield Part(number, key(number), tuple(pieces))


def join(sources: Sequence[Source], key: str) -> Part:
    """All sources in order as one part."""
    return Part(1, key, tuple(_whole(s) for s in sources if s.size))


def steps_of(part: Part, limits: Limits, native: Callable[[Extent], bool], apart: Sequence[str] = ()) -> list[Step]:
    """The legal steps of a part; `native` says which extents the target may copy itself.

    Files of planes that are `apart` lie on hosts: no step is made of those of two, where that is legal.
    """
    pieces = [
        Piece(p.plane, p.on_plane, native=native(p), place=host_of(p.key) if p.plane in apart else "")
        if isinstance(p, Extent)
        else Piece(literal=p.data)
        for p in part.pieces
    ]
    return pack(pieces, limits)


def at_once(part: Part, steps: Sequence[Step], limits: Limits, native: Callable[[str], bool]) -> str:
    """How one request writes the part: "put", "copy" (a whole object, by the provider), or "" (an upload it is).

    `native` says from which planes the target copies by itself.
    """
    if len(part.pieces) == 1:
        (piece,) = part.pieces
        small = part.size <= min(limits.copy_size, limits.whole_copy)
        if isinstance(piece, Extent) and piece.whole and small and native(piece.plane):
            return "copy"
    return "put" if len(steps) == 1 and not steps[0].native and part.size <= limits.single_put else ""


def _whole(source: Source) -> Extent:
    return Extent(source.plane, source.key, source.version, 0, source.size, source.size)


class Segments:
    """Groups parts into segments of max(1 GiB, total/1000) bytes: small parts together, large ones alone in runs."""

    def __init__(self, total: int) -> None:
        self._most = max(GIB, total // 1000)
        self._number = 0
        self._run: list[Part] = []
        self._held = 0

    def add(self, part: Part, steps: Sequence[Step]) -> Iterator[Segment]:
        """The segments that are full with the next part."""
        if part.size > self._most or self._held + part.size > self._most or len(self._run) == SMALL_TOGETHER:
            yield from self.rest()
        if part.size <= self._most:
            self._run.append(part)
            self._held += part.size
            return
        first, size = steps[0].number, 0
        for step in steps:
            size += step.size
            if size >= self._most or step is steps[-1]:
                self._number += 1
                yield Segment(self._number, part.number, part.number, first, step.number, size)
                first, size = step.number + 1, 0

    def rest(self) -> Iterator[Segment]:
        """The segment of the parts that are left, if there are any."""
        if self._run:
            self._number += 1
            yield Segment(self._number, self._run[0].number, self._run[-1].number, 0, 0, self._held)
            self._run, self._held = [], 0
