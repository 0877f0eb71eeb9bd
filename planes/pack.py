"""Turn the pieces of an object into the steps that are legal for its provider. Pure; moves no bytes.

Pieces that a provider can copy itself stay copies; what is too small for a step of its own, or must travel, is
coalesced with its neighbours into puts. A copy gives up its first bytes to a put that would be too small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from planes.errors import Corrupt
from planes.plane import Extent, Limits

_ROUND: Final = 1 << 20  # grown steps are whole MiB: easier to read in logs and plans


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a target in order: an extent of a source object, or literal bytes.

    Exactly one of `extent` and `literal` is set. `source` tells extents of different planes apart; `native` says
    that the target's provider may copy the extent itself. Literal bytes are at hand everywhere.
    """

    source: str = ""
    extent: Extent | None = None
    literal: bytes = b""
    native: bool = False
    place: str = ""
    """Where the bytes are, if nothing reads those of two places at once."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.extent.size if self.extent else len(self.literal)

    def head(self, size: int) -> Piece:
        """The first `size` bytes."""
        if self.extent is None:
            return Piece(literal=self.literal[:size])
        e = self.extent
        return replace(self, extent=Extent(e.key, e.version, e.start, e.start + size))

    def tail(self, size: int) -> Piece:
        """All but the first `size` bytes."""
        if self.extent is None:
            return Piece(literal=self.literal[size:])
        e = self.extent
        return replace(self, extent=Extent(e.key, e.version, e.start + size, e.end))


@dataclass(frozen=True, slots=True)
class Step:
    """One put (of several pieces) or one provider copy (of exactly one native extent) of an upload."""

    number: int
    offset: int
    pieces: tuple[Piece, ...]
    native: bool

    @property
    def size(self) -> int:
        """Length in bytes."""
        return sum(p.size for p in self.pieces)


def pack(pieces: Iterable[Piece], limits: Limits) -> list[Step]:
    """Cover the pieces in order by steps within `limits`; an empty object gets one empty put.

    Every step but the last has at least `limits.min_step` bytes, none more than `limits.max_step`, and there are
    at most `limits.max_steps`: for very large objects, or very many pieces, steps grow and small copies become puts.
    Expects what every provider keeps: min_step <= put_size, copy_size and 2 * min_step <= max_step.

    Raises:
        ValueError: the object is larger than the provider allows.
    """
    todo = [p for p in pieces if p.size]
    total = sum(p.size for p in todo)
    if total > limits.max_object:
        msg = f"{total} bytes are more than the {limits.max_object} that one object may have"
        raise ValueError(msg)
    grain = 0
    while grain <= limits.max_step:
        # One more than allowed is enough to know: a plan of a million steps is never built to be thrown away.
        runs = list(islice(_runs(todo, limits, grain), limits.max_steps + 1))
        if len(runs) <= limits.max_steps:
            return _numbered(runs) or [Step(1, 0, (), native=False)]
        grain = _whole(max(grain * 5 // 4, -(-total // limits.max_steps)))
    msg = f"{total} bytes in {len(todo)} pieces need more than the {limits.max_steps} steps that one object may have"
    raise ValueError(msg)


def must_have(key: str, number: int, found: int, size: int) -> None:
    """See that a step of `key` got as many bytes as were planned.

    Raises:
        Corrupt: it did not.
    """
    if found != size:
        msg = f"step {number} of {key} got {found} bytes instead of {size}"
        raise Corrupt(msg, key=key, found=str(found), expected=str(size))


def _numbered(runs: list[tuple[tuple[Piece, ...], bool]]) -> list[Step]:
    steps: list[Step] = []
    offset = 0
    for run, native in runs:
        steps.append(Step(len(steps) + 1, offset, run, native))
        offset += steps[-1].size
    return steps


def _runs(todo: list[Piece], limits: Limits, grain: int) -> Iterator[tuple[tuple[Piece, ...], bool]]:
    """Pieces of one step each; with a `grain`, puts have at least so many bytes, and smaller copies become puts."""
    least = limits.min_step
    put_size = min(max(limits.put_size, grain), limits.max_step)
    copy_size = min(max(limits.copy_size, grain), limits.max_step)
    pending: list[Piece] = []
    held = 0
    for index, whole in enumerate(todo):
        piece, last = whole, index == len(todo) - 1
        if piece.native:
            want = max(0, least - held) if held else 0
            rest = piece.size - want
            if rest >= max(least, grain, 1) or (last and rest > 0):
                if want:
                    pending.append(piece.head(want))
                    piece = piece.tail(want)
                if pending:
                    yield tuple(pending), False
                    pending, held = [], 0
                for cut in _even(piece, least, copy_size):
                    yield (cut,), True
                continue
        if held >= max(least, grain, 1) and not _together(pending, piece):
            yield tuple(pending), False
            pending, held = [], 0
        while held + piece.size > put_size:
            room = put_size - held
            yield (*pending, piece.head(room)) if room else tuple(pending), False
            pending, held, piece = [], 0, piece.tail(room)
        pending.append(piece)
        held += piece.size
    if pending:
        yield tuple(pending), False


def _together(pending: list[Piece], piece: Piece) -> bool:
    """Whether one reader has a piece and those before it."""
    return piece.extent is None or all(p.place == piece.place for p in pending if p.extent is not None)


def _even(piece: Piece, least: int, most: int) -> Iterator[Piece]:
    """Cut a piece into the fewest equal pieces of at most `most` bytes, but of at least `least`."""
    count = -(-piece.size // most)
    if piece.size // count < least:
        count = max(1, piece.size // least)
    done = 0
    for i in range(1, count + 1):
        cut = piece.size * i // count - done
        yield piece.tail(done).head(cut)
        done += cut


def _whole(size: int) -> int:
    return -(-size // _ROUND) * _ROUND
