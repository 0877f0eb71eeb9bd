"""By which route the data of a dataset get into HSDS: a pure function of what the dataset is.

place      raw bytes of HDF5 chunks become chunk objects as they are
slab       contiguous data are cut into chunk objects
merge      many tiny chunks are decoded and become fewer objects
transcode  the HDF5 library decodes, we write what HSDS reads
rest       the server writes, since we may not write its bucket
link       the domain says where the chunks lie in the file
none       there is nothing to write

Raw bytes are taken as they are only for what HSDS 1.0.2 reads: no filter, deflate, shuffle before deflate, each with a
checksum (fletcher32) behind it, which is cut off, and checked where the bytes pass through us. A shuffle without
compression is not among them: HSDS stores such chunks unshuffled, and unshuffles them when it reads them again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fileserver.hdf5 import grid
from fileserver.hdf5.fletcher import TRAILER
from fileserver.hdf5.model import DEFLATE, FLETCHER, SHUFFLE, Facts
from fileserver.hdf5.types import Json, is_plain
from fileserver.hdf5.typing_rules import NotHeld

_LEVEL: Final = 4  # of gzip, where the source has another compression
_HIGHEST: Final = 9  # level of gzip that there is, whatever a damaged file says
_GUESS: Final = 16  # bytes of an element of variable length, to choose how many go into a chunk
_RAW: Final = ((), (DEFLATE,), (SHUFFLE, DEFLATE))


class Route(StrEnum):
    """How data travel."""

    PLACE = "place"
    SLAB = "slab"
    MERGE = "merge"
    TRANSCODE = "transcode"
    REST = "rest"
    LINK = "link"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Means:
    """What may be used: the server's bucket, or links to the file instead of its data."""

    bucket: bool = True
    link: bool = False


@dataclass(frozen=True, slots=True)
class Extents:
    """How far a dataset reaches, and how far it may; None is without limit."""

    dims: grid.Dims
    maxdims: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How one dataset travels, and what HSDS is told of its storage."""

    route: Route
    reason: str
    chunk: grid.Dims
    """Elements of one chunk object."""
    chunked: bool
    """Whether HSDS is told of chunks; else the whole dataset is one."""
    level: int | None = None
    """Of gzip, with which chunks are or get compressed; None for none."""
    shuffle: bool = False
    trailer: int = 0
    """Bytes to cut off each chunk."""
    link: Json = None
    """The layout by which HSDS finds linked data, see `fileserver.hdf5.links`."""
    whole: Extents | None = None
    """Of the dataset in HSDS, where what is in this file is only a part of it, see `fileserver.hdf5.joint`."""

    @property
    def filters(self) -> list[Json]:
        """The filters as HSDS writes them."""
        found: list[Json] = []
        if self.shuffle:
            found.append({"class": "H5Z_FILTER_SHUFFLE", "id": SHUFFLE, "name": "shuffle"})
        if self.level is not None:
            found.append({"class": "H5Z_FILTER_DEFLATE", "id": DEFLATE, "name": "gzip", "level": self.level})
        return found


def plan(facts: Facts, means: Means = Means()) -> Plan:
    """How a dataset travels.

    Raises:
        NotHeld: by no route, and why.
    """
    if facts.dims is None or 0 in facts.dims:
        chunk = facts.chunk or facts.dims or ()
        level, shuffle = _compression(facts)
        chunked = facts.chunk is not None
        return Plan(Route.NONE, "it has no elements", chunk, chunked, level if chunked else None, shuffle and chunked)
    if means.link and (why := _not_linkable(facts)) is None:
        level, shuffle = _compression(facts)
        chunked = facts.layout == "chunked"
        return Plan(Route.LINK, "its data are read where they are", facts.chunk or facts.dims, chunked, level, shuffle)
    local = _bucket_plan(facts)
    if means.bucket:
        return local
    why = "no bucket to write to" if not means.link else f"not by link: {why}"
    return Plan(Route.REST, why, local.chunk, local.chunked, local.level, local.shuffle)


def _bucket_plan(facts: Facts) -> Plan:
    reason = _decoded(facts)
    if reason is not None and facts.layout == "external":
        msg = f"external storage, and {reason}"
        raise NotHeld(msg)
    if reason is not None:
        return _transcoded(facts, Route.TRANSCODE, reason)
    dims, item = facts.dims or (), facts.item or 1
    if facts.layout in {"contiguous", "external"}:
        return _slab(facts, dims, item)
    chunk = facts.chunk or dims
    level, shuffle = _compression(facts)
    trailer = TRAILER if facts.filters and facts.filters[-1].number == FLETCHER else 0
    held = math.prod(chunk) * item
    if held > grid.MOST:
        return _transcoded(facts, Route.TRANSCODE, f"chunks of {held} bytes: HSDS reads at most {grid.MOST}")
    if facts.stored == 0 and not facts.fill_unheld:
        return Plan(Route.NONE, "it was never written", chunk, True, level, shuffle)
    if held < grid.TINY and facts.stored and grid.count(dims, chunk) > grid.FEW:
        return _transcoded(facts, Route.MERGE, f"chunks of {held} bytes would be too many objects")
    return Plan(Route.PLACE, "HSDS reads these chunks as they are", chunk, True, level, shuffle, trailer)


def _decoded(facts: Facts) -> str | None:
    """Why the library has to decode the data; None if raw bytes will do."""
    if not is_plain(facts.typed.stored):
        return "HSDS stores elements of variable length and references in another way"
    if facts.layout in {"compact", "virtual"}:
        return f"{facts.layout} storage"
    if not facts.typed.exact:
        return "its elements lie differently in HSDS (padding, or a type that is mapped)"
    numbers = tuple(f.number for f in facts.filters)
    if numbers[-1:] == (FLETCHER,):
        numbers = numbers[:-1]
    if numbers == (SHUFFLE,):
        return "shuffle without compression, which HSDS reads back wrongly"
    if numbers not in _RAW:
        return "HSDS has no filters like " + ", ".join(f.name or str(f.number) for f in facts.filters)
    return None


def _slab(facts: Facts, dims: grid.Dims, item: int) -> Plan:
    whole = math.prod(dims) * item
    one = whole <= grid.ONE
    chunk = dims if one else grid.slabs_of(dims, item)
    written = facts.offset is not None or facts.layout == "external"
    if not written and facts.fill is None and not facts.fill_unheld:
        return Plan(Route.NONE, "it was never written", chunk, chunked=not one)
    if not written:
        return Plan(Route.TRANSCODE, "it was never written, and has a fill value", chunk, chunked=not one)
    reason = (
        f"{facts.layout}, one object" if one else f"{facts.layout}, cut into chunks of {math.prod(chunk) * item} bytes"
    )
    return Plan(Route.SLAB, reason, chunk, chunked=not one)


def _transcoded(facts: Facts, route: Route, reason: str) -> Plan:
    if facts.missing:
        msg = f"needs filters of which there is no plugin here: {', '.join(facts.missing)}; install hdf5plugin"
        raise NotHeld(msg)
    dims, item = facts.dims or (), facts.item or _GUESS
    level, shuffle = _compression(facts)
    if facts.chunk is None:
        one = math.prod(dims) * item <= grid.ONE
        return Plan(route, reason, dims if one else grid.slabs_of(dims, item), chunked=not one)
    chunk = facts.chunk
    if route is Route.MERGE:
        chunk = grid.grown(chunk, dims, item)
    elif math.prod(chunk) * item > grid.MOST:
        chunk = grid.shrunk(chunk, item)
    return Plan(route, reason, chunk, True, level, shuffle)


def _compression(facts: Facts) -> tuple[int | None, bool]:
    """The level of gzip, and whether bytes are shuffled before it: whatever compressed the source, HSDS gets gzip."""
    numbers = [f.number for f in facts.filters if f.number != FLETCHER]
    if not numbers or numbers == [SHUFFLE]:
        return None, False
    plain = is_plain(facts.typed.stored)
    for each in facts.filters:
        if each.number == DEFLATE:
            level = each.values[0] if each.values else _LEVEL
            return (level if level <= _HIGHEST else _LEVEL), SHUFFLE in numbers and plain
    return _LEVEL, plain and (facts.item or 1) > 1


def _not_linkable(facts: Facts) -> str | None:  # noqa: PLR0911 -- one a reason
    """Why HSDS cannot read a dataset through a link; None if it can, as far as is known without its chunks."""
    decoded = _decoded(facts)
    if decoded is not None:
        return decoded
    if not facts.stored or not facts.dims:
        return "it is a single element" if facts.stored else "it was never written"
    if facts.layout == "contiguous" and facts.offset is not None:
        return None
    if facts.layout != "chunked":
        return "only chunked and contiguous data can be linked to"
    if facts.filters and facts.filters[-1].number == FLETCHER:
        return "HSDS does not take the checksum off that is behind each chunk"
    if facts.fill_unheld:
        return "HSDS holds no fill value of this type for the chunks that were never written"
    held = math.prod(facts.chunk or ()) * (facts.item or 1)
    if held > grid.MOST:
        return f"chunks of {held} bytes: HSDS reads at most {grid.MOST}"
    return None
