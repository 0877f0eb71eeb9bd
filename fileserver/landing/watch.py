"""What is watched, how, and what arrives: plain data, as it stands in the tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from fileserver.configured import where

Mode = Literal["auto", "direct", "rest", "link"]


class State(StrEnum):
    """Where an arrival stands; the values are what tables, wire and command line say."""

    SEEN = "seen"
    """It is there, and may still be written to."""
    SETTLED = "settled"
    """It is whole, and waits for its transfer, perhaps for the next try."""
    RUNNING = "running"
    DONE = "done"
    """The version that was seen last is loaded."""
    FAILED = "failed"
    """All tries are used up, or another one would not help."""
    GONE = "gone"
    """It is not there any more; what was loaded of it stays."""
    MARKER = "marker"
    """It says of another object that it is whole, and is loaded by nobody."""


class Life(StrEnum):
    """Where a watch stands."""

    ACTIVE = "active"
    STOPPED = "stopped"
    """By request; what runs goes on, nothing else is begun."""
    ENDED = "ended"
    """By itself: it was to look once, and all that it saw has ended."""


PENDING: Final = (State.SEEN, State.SETTLED, State.RUNNING)
"""States of which something will come without anybody's doing."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a prefix is watched; times in seconds."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    """Globs as those of a sync, for keys relative to the prefix; none to include is what ends like an HDF5 file."""
    settle: float = 30.0
    """An object is whole when size and version have been the same for so long."""
    marker: str = ""
    """And when this object is beside it, no older than itself; `*` stands for its name. Empty asks for none."""
    every: float = 10.0
    tries: int = 3
    """Of one version."""
    at_once: int = 4
    """Transfers, each of one or more files."""
    once: bool = False
    """Ends when all that was seen has ended."""


@dataclass(frozen=True, slots=True)
class Load:
    """The action of a watch: each HDF5 file becomes a domain of the same relative name below a folder of HSDS."""

    folder: str
    """Address of the folder, `hdf5://home/user`."""
    hsds: str = ""
    """The server by its name in the configuration; empty is the first."""
    mode: Mode = "auto"
    """How data travel, as in an ingest; with "link" they stay in the file."""
    public_read: bool = False
    """Everybody may read the domains; else their folder says who may."""
    overwrite: bool = False
    """Replace domains that are there although this watch did not load them."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One watched prefix with its inventory."""

    name: str
    plane: str
    prefix: str
    """Empty, or with `/` at its end."""
    options: Options
    action: Load
    state: Life = Life.ACTIVE
    created: float = 0.0
    looked: float | None = None
    """When the last look began that saw everything."""
    error: dict[str, Any] | None = None
    """Why the last look did not."""

    @property
    def where(self) -> str:
        """What is watched, for people."""
        return where(self.plane, self.prefix)


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a plane lists it; `modified` in seconds since 1970."""

    key: str
    size: int
    version: str
    modified: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """One object below a watched prefix; `catalogue.landing` says what the times and versions are."""

    watch: str
    key: str
    """Relative to the prefix."""
    version: str
    size: int
    state: State
    first_seen: float
    last_seen: float
    changed: float
    settled: float | None = None
    not_before: float = 0.0
    started: float | None = None
    ended: float | None = None
    tries: int = 0
    batch: str = ""
    taken: str | None = None
    loaded: str | None = None
    transfer: str | None = None
    error: dict[str, Any] | None = None


def options_from_json(data: dict[str, Any]) -> Options:
    """The inverse of `asdict`, for the store."""
    return Options(**{**data, "include": tuple(data["include"]), "exclude": tuple(data["exclude"])})


def is_same(one: Watch, other: Watch) -> bool:
    """Whether both ask for the same."""

    def asked(watch: Watch) -> tuple[object, ...]:
        return watch.plane, watch.prefix, asdict(watch.options), asdict(watch.action)

    return asked(one) == asked(other)
