"""An HDF5 file as plain data: what it holds, and what of it HSDS gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fileserver.hdf5.types import Json
from fileserver.hdf5.typing_rules import Typed

Kind: TypeAlias = Literal["g", "d", "t"]
Layout: TypeAlias = Literal["chunked", "contiguous", "compact", "external", "virtual"]

DEFLATE: Final = 1
SHUFFLE: Final = 2
FLETCHER: Final = 3


@dataclass(frozen=True, slots=True)
class Link:
    """A name in a group: `target` is an object's address for a hard link, a path for the others."""

    name: str
    kind: Literal["hard", "soft", "external"]
    target: int | str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """An object of the file by its address; `path` is the first name that it was found by."""

    address: int
    kind: Kind
    path: str
    raw: bytes
    """The same path as the file has it."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that did not arrive as it was: `what` is refused, mapped or failed."""

    path: str
    what: Literal["refused", "mapped", "failed"]
    reason: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute as HSDS writes it."""

    name: str
    type: Json
    shape: Json
    value: Json


@dataclass(frozen=True, slots=True)
class Group:
    """A group with its links, in the order of their creation if the file keeps it, else of their names."""

    node: Node
    links: Sequence[Link]
    attributes: Sequence[Attribute]
    ordered: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a dataset's pipeline, with its parameters."""

    number: int
    name: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Part of a dataset's raw data in another file: `size` bytes from `offset` on."""

    file: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides how a dataset travels; sizes in bytes, extents in elements."""

    typed: Typed
    item: int | None
    """Bytes of one stored element; None if they differ."""
    dims: tuple[int, ...] | None
    """None for a null space."""
    maxdims: tuple[int | None, ...] | None
    layout: Layout
    chunk: tuple[int, ...] | None = None
    filters: tuple[Filter, ...] = ()
    stored: int = 0
    """Bytes in the file."""
    offset: int | None = None
    """Where contiguous data begin; None if they were never written."""
    missing: tuple[str, ...] = ()
    """Filters of which this process has no plugin."""
    segments: tuple[Segment, ...] = ()
    """Where its raw data lie in other files."""
    sources: tuple[str, ...] = ()
    """Other files behind a virtual dataset."""
    fill: Json = None
    """As JSON, None for zero."""
    fill_unheld: bool = False
    """The fill value is one that HSDS does not hold."""
    ordered: bool = False
    """The order in which its attributes came is kept."""


CHUNK_ROW: Final = np.dtype([("offset", "u8"), ("size", "u8"), ("mask", "u4")])


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """Where the chunks of a dataset lie: one row of `CHUNK_ROW` each, and its place in the grid of chunks."""

    rows: npt.NDArray[np.void]
    places: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset without its data."""

    node: Node
    facts: Facts
    attributes: Sequence[Attribute]
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Datatype:
    """A committed type."""

    node: Node
    typed: Typed
    attributes: Sequence[Attribute]


@dataclass(frozen=True, slots=True)
class Outline:
    """All objects of a file, by address, and the links of its groups; the root group is the first."""

    nodes: Mapping[int, Node]
    links: Mapping[int, Sequence[Link]]
    ordered: frozenset[int] = frozenset()
    """Groups that keep the order in which their links came."""
    kept: frozenset[int] = frozenset()
    """Groups that keep the order in which their attributes came."""
    troubles: Sequence[Trouble] = field(default_factory=tuple)

    @property
    def root(self) -> Node:
        """The root group."""
        return next(iter(self.nodes.values()))
