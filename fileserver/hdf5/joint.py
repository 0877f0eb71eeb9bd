"""Many files as one domain: what the datasets of the whole are, and which of their chunks come from where.

Files lie one behind the other in the order in which they were given. What is not joined is the first file's. The
chunks of the whole are those of the first file (larger ones, if they are tiny and many); rows of chunks that are just
those of one file are placed as they are, others are put together (`fileserver.hdf5.aggregate`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from fileserver.hdf5 import grid
from fileserver.hdf5.aggregate import Cut, Member, Placed, offsets, rows
from fileserver.hdf5.fitting import First, Share
from fileserver.hdf5.model import Facts
from fileserver.hdf5.routes import Extents, Means, Plan, Route, plan
from fileserver.hdf5.survey import Planned, Survey
from planes.plane import KIB

_LEAST: Final = 64 * KIB  # bytes of a chunk, where the first file has none and more may come


@dataclass(frozen=True, slots=True)
class Joint:
    """A dataset of the whole."""

    planned: Planned
    """Of the first file, with the plan of the whole."""
    axis: int
    shares: Sequence[Share]
    """By file."""
    there: int = 0
    """Elements along the dimension that the domain has already; they are the member 0, the first file is 1."""
    _starts: list[int] = field(default_factory=list, compare=False, repr=False)

    @property
    def path(self) -> str:
        """Of the dataset."""
        return self.planned.node.path

    @property
    def chunk(self) -> int:
        """Elements of a chunk of the whole along the dimension."""
        return self.planned.plan.chunk[self.axis]

    @property
    def extent(self) -> int:
        """Elements of the whole along the dimension."""
        return self.starts[-1]

    @property
    def starts(self) -> Sequence[int]:
        """Where each member begins, and at last where the whole ends."""
        if not self._starts:
            self._starts.extend(offsets(self._members()))
        return self._starts

    @property
    def first_row(self) -> int:
        """The first row of chunks that is written: those before are there and full."""
        return self.there // self.chunk

    def rows(self) -> Iterator[Placed | Cut]:
        """All rows of chunks that are to be written; nothing if there are no elements."""
        dims = self.planned.plan.whole.dims if self.planned.plan.whole else ()
        return rows(self._members(), self.chunk, 1) if 0 not in dims else iter(())

    def placed(self) -> Mapping[int, Mapping[int, int]]:
        """Rows of the whole by those of each file, for rows that are placed as they are; files from 0."""
        found: defaultdict[int, dict[int, int]] = defaultdict(dict)
        for row in self.rows():
            if isinstance(row, Placed):
                found[row.member - 1][row.source_row] = row.row
        return found

    def cuts(self) -> Iterator[Cut]:
        """Rows that are put together."""
        return (row for row in self.rows() if isinstance(row, Cut))

    def offset(self, file: int) -> int:
        """Where a file begins along the dimension."""
        return self.starts[file + 1]

    def _members(self) -> list[Member]:
        return [Member(self.there, placeable=False), *(Member(s.extent, self.takes(s)) for s in self.shares)]

    def takes(self, share: Share) -> bool:
        """Whether chunks of a file can be chunks of the whole."""
        form, how = share.form, self.planned.plan
        return (form.chunk, form.compressed, form.shuffled) == (how.chunk, how.level is not None, how.shuffle)


@dataclass(frozen=True, slots=True)
class Use:
    """What becomes of a file's share in a dataset: elements [start, stop) along `axis` of the whole."""

    path: str
    axis: int
    start: int
    stop: int
    placed: int
    """Rows of chunks that are placed as they are."""
    cut: int
    """Rows that are put together from this file and others, or from chunks that are cut otherwise."""
    stored: int
    reason: str
    """Why they cannot be placed, where that is not for their place alone."""

    @property
    def route(self) -> Route:
        """The route that most of it goes."""
        if not self.placed and not self.cut:
            return Route.NONE
        return Route.PLACE if self.placed else Route.TRANSCODE

    @property
    def where(self) -> str:
        """Which elements of the whole."""
        return f"elements {self.start}:{self.stop} of dimension {self.axis}"

    def told(self) -> str:
        """In words."""
        what = [f"{self.placed} rows of chunks placed as they are"] * bool(self.placed)
        what += [f"{self.cut} {'' if self.placed else 'rows of chunks '}put together anew"] * bool(self.cut)
        why = f" ({self.reason})" if self.reason and self.cut else ""
        said = ", ".join(what) or "nothing to write"
        return f"{self.where}: {said}{why}"


def uses(joint: Joint) -> list[Use]:
    """What becomes of each file's share in a dataset."""
    placed, cut = [0] * len(joint.shares), [0] * len(joint.shares)
    for row in joint.rows():
        if isinstance(row, Placed):
            placed[row.member - 1] += 1
            continue
        for member in {part.member for part in row.parts} - {0}:
            cut[member - 1] += 1
    found = []
    for i, share in enumerate(joint.shares):
        start = joint.offset(i)
        why = "" if joint.takes(share) else _why(share, joint.planned.plan)
        found.append(Use(joint.path, joint.axis, start, start + share.extent, placed[i], cut[i], share.stored, why))
    return found


def joints(one: First, files: Sequence[Sequence[Share]]) -> list[Joint]:
    """The datasets of the whole; `files` are the shares of every file, those of the first among them."""
    planned = {each.node.address: each for each in one.survey.datasets}
    found = []
    for i, lying in enumerate(one.joined):
        shares = tuple(shares[i] for shares in files)
        first = planned[lying.node.address]
        total, stored = sum(share.extent for share in shares), sum(share.stored for share in shares)
        how = whole(first.facts, lying.axis, total, stored)
        found.append(Joint(replace(first, plan=how), lying.axis, shares))
    return found


def whole(facts: Facts, axis: int, extent: int, stored: int) -> Plan:
    """How HSDS keeps a dataset of `extent` elements along an axis, of which `facts` are the first file's."""
    dims = grid.with_axis(facts.dims or (), axis, extent)
    maxdims = facts.maxdims or dims
    unlimited = tuple(None if i == axis else most for i, most in enumerate(maxdims))
    chunk = facts.chunk or _chunk(dims, axis, facts.item or KIB)
    all_ = replace(facts, dims=dims, maxdims=unlimited, layout="chunked", chunk=chunk, stored=stored, offset=None)
    return replace(plan(all_, Means()), whole=Extents(dims, unlimited))


def described(one: Survey, joined: Sequence[Joint], *, bucket: bool = True) -> Survey:
    """The first file as it is loaded: what is joined has the extents of the whole, and its data travel otherwise."""
    plans = {joint.planned.node.address: replace(joint.planned.plan, route=Route.NONE) for joint in joined}
    datasets = tuple(replace(p, plan=plans.get(p.node.address) or _sent(p.plan, bucket=bucket)) for p in one.datasets)
    return replace(one, datasets=datasets)


def _sent(how: Plan, *, bucket: bool) -> Plan:
    if bucket or how.route is Route.NONE:
        return how
    return replace(how, route=Route.REST, reason="no bucket to write to")


def _chunk(dims: grid.Dims, axis: int, item: int) -> grid.Dims:
    """For what has no chunks in the first file: about a MiB, and not too little for what may come."""
    chunk = [max(1, extent) for extent in grid.slabs_of(tuple(max(1, extent) for extent in dims), item)]
    rest = math.prod(chunk) // chunk[axis] * item
    chunk[axis] = max(chunk[axis], _LEAST // rest)
    return tuple(chunk)


def _why(share: Share, how: Plan) -> str:
    if share.form.chunk is None:
        return share.form.reason
    if share.form.chunk != how.chunk:
        return f"its chunks are {_by(share.form.chunk)}, those of the domain {_by(how.chunk)}"
    return "its chunks are compressed in another way than those of the domain"


def _by(chunk: grid.Dims) -> str:
    return " x ".join(map(str, chunk))
