"""The values of a transfer's record: plan, progress, parts, segments and receipts as plain data. Knows no table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from fileserver.catalogue.names import folder
from fileserver.hosts import below
from fileserver.transfer.manifest import Part
from planes.plane import Limits, StepReceipt

ENDED: Final = ("SUCCEEDED", "PARTLY_SUCCEEDED", "FAILED", "CANCELLED")
"""States that stay."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is; bytes, as in the wire's Progress."""

    bytes_total: int = 0
    bytes_done: int = 0
    bytes_through_us: int = 0
    bytes_native: int = 0
    bytes_checked: int = 0
    parts_total: int = 0
    parts_done: int = 0

    def forward(self, other: Progress) -> Progress:
        """The farther of both in every number: progress never goes backwards."""
        mine, its = asdict(self), asdict(other)
        return Progress(**{name: max(mine[name], its[name]) for name in mine})


def plain(progress: Progress) -> dict[str, int]:
    """Plain data for the store."""
    return asdict(progress)


@dataclass(frozen=True, slots=True)
class Plan:
    """What planning decided, beside the manifest; small, read whole.

    `limits` are the target's at planning: packing again gives the same steps whatever the configuration says later.
    `native` tells for each source plane "" (the target copies ranges by itself) or why not; `whole` the same for whole
    objects by one request, `means` what the copies of ranges are called (see `transfer.routes`).
    """

    plane: str
    file: str
    format: dict[str, Any] | None
    split: str
    size: int
    parts: int
    limits: Limits
    native: dict[str, str]
    overwrite: bool
    kind: str = "crc64nvme"
    """The checksum that the sources have in common: what can be compared with a value that was there before."""
    whole: dict[str, str] = field(default_factory=dict)
    means: dict[str, str] = field(default_factory=dict)
    windows: int = 0
    opened: bool = False
    boot: str = ""
    """The run of the machine in which the uploads were begun: what a power cut took was recorded, but not stored."""

    copy_of: str = ""
    """The generation of which another copy is made; "" where a file or an object of its own is."""

    instead_of: tuple[str, ...] = ()
    """Damaged copies of it that lie partly on other planes, whose place this one takes."""

    hosts: tuple[str, ...] = ()
    """Of a target whose files belong to hosts: part p is on host p mod their number."""

    apart: tuple[str, ...] = ()
    """Source planes whose files belong to hosts: no step is made of files of two hosts, where that can be."""

    equal: int = 0
    """Objects of a sync that need not be touched."""

    direct: dict[str, str] = field(default_factory=dict)
    """Stores that the machine of an agent is to reach itself: "" where it does, or why not."""

    closing: dict[str, str] = field(default_factory=dict)
    """Source planes from which a route is being given up, and why: until the manifest is packed anew, nothing stored
    counts."""
    closing_route: str = ""
    """Which route that is; "" is all of them."""

    def homes(self, transfer: str) -> list[str]:
        """The keys of the folders of what is made, without trailing slashes; the manifest lies in the first."""
        own = folder(self.file, transfer)
        return [below(host, own) for host in self.hosts[: self.parts]] or [own]

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The inverse of `to_json`."""
        lists = {name: tuple(data.get(name, ())) for name in ("instead_of", "hosts", "apart")}
        return cls(**{**data, **lists, "limits": Limits(**data["limits"])})


@dataclass(frozen=True, slots=True)
class Record:
    """One transfer as it stands."""

    id: str
    spec: dict[str, Any]
    state: str
    wish: str
    run: int
    created: float
    updated: float
    ended: float | None = None
    plan: Plan | None = None
    progress: Progress = field(default_factory=Progress)
    error: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    caller: str = ""
    """Who asked for it; "" is the server's own kind."""
    waits_for: str = ""
    """The agent that was away for so long that it was paused; it goes on when that is back."""


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part of the manifest with what is known of it."""

    part: Part
    token: str | None
    crc64nvme: int | None
    other: int | None
    compared: bool
    version: str
    done: bool

    def value(self, kind: str) -> int | None:
        """Its checksum of a kind, if that is known."""
        return self.crc64nvme if kind == "crc64nvme" else self.other


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of whole small parts (`last_step` 0), or steps first … last of one large part."""

    number: int
    first_part: int
    last_part: int
    first_step: int
    last_step: int
    size: int


@dataclass(frozen=True, slots=True)
class Span:
    """Which file server took a segment up last, and when; times in seconds since 1970."""

    number: int
    first_part: int
    last_part: int
    size: int
    server: str
    tries: int
    begun: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step's receipt with the quotes that were counted on the way (None: its bytes did not pass through us)."""

    part: int
    receipt: StepReceipt
    quotes: int | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A part that is committed, and what that proved."""

    number: int
    crc64nvme: int | None
    other: int | None
    compared: bool
    version: str = ""
