"""What a plane can do, as found out by trying, and what it costs where it cannot. Words only; asks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from planes.plane import MIB, Info, Plane, StepReceipt

UNKNOWN: Final = "unknown"

RANGES: Final = "copies ranges by itself"
WHOLE: Final = "copies whole objects by itself"
CHECKSUMS: Final = "checksums that it keeps"
EVIDENCE: Final = "evidence of its own copies"
CONDITIONS: Final = "refuses to overwrite"
ORDER: Final = "lists in byte order"
POURS: Final = "stores steps while they come in"
METADATA: Final = "keeps content type and metadata"
VERSIONS: Final = "keeps old versions"
NAMES: Final = "keeps names as they are"
FACTS: Final = (RANGES, WHOLE, CHECKSUMS, EVIDENCE, CONDITIONS, ORDER, POURS, METADATA, VERSIONS, NAMES)
"""All that is found out, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that planes differ in.

    `found` is "yes", "no", `UNKNOWN` or a word of its own; `costs` is what that costs, empty if nothing.
    """

    fact: str
    found: str
    costs: str = ""


def ranges(why_not: str) -> Fact:
    """Whether it copies ranges of its objects; `why_not` is empty if it does."""
    costs = f"sprays and desprays inside it send all bytes through this machine ({why_not})"
    return Fact(RANGES, "no", costs) if why_not else Fact(RANGES, "yes")


def whole(why_not: str) -> Fact:
    """The same for whole objects."""
    costs = f"copies inside it send all bytes through this machine ({why_not})"
    return Fact(WHOLE, "no", costs) if why_not else Fact(WHOLE, "yes")


def checksums(plane: Plane, info: Info) -> Fact:
    """What `stat` says of an object that was written by us."""
    if info.checksums:
        return Fact(CHECKSUMS, ", ".join(sorted(info.checksums)))
    costs = "`files verify` compares sizes and versions only, unless it is told to --read"
    if plane.capabilities.checksums:
        costs += "; with `checksums: none` this plane would not ask for what the store does not do"
    return Fact(CHECKSUMS, "none", costs)


def evidence(copied: StepReceipt, source: Info) -> Fact:
    """What a success of a copy by the provider proves; `source` is the object that it was out of."""
    if copied.compared or (copied.crc64nvme is not None and "crc64nvme" in source.checksums):
        return Fact(EVIDENCE, "compared")
    why = "no checksums kept" if copied.crc64nvme is None else "nothing of the source is known to compare with"
    costs = f"{why}: success of native copies is `pinned`, not `compared`, unless --verify read is given"
    return Fact(EVIDENCE, "pinned", costs)


def conditions(plane: Plane, writers: int, winners: int) -> Fact:
    """Whether exactly one of `writers` that raced for a key has won; `winners` thought that they had."""
    if winners == 1 and plane.capabilities.atomic_create:
        return Fact(CONDITIONS, "exact")
    costs = f"of {writers} that wrote the same key at the same moment, {winners} were told that they had written it: "
    costs += "two programs that write to the same name may overwrite each other"
    return Fact(CONDITIONS, "not exact", costs)


def order(*, holds: bool) -> Fact:
    """Whether keys come in byte order, also after a key in the middle."""
    costs = "`planes objects` may skip or repeat keys from its second page on; sprays sort what they find"
    return Fact(ORDER, "yes") if holds else Fact(ORDER, "no", costs)


def pours(plane: Plane) -> Fact:
    """Whether a step need not wait in memory."""
    if plane.capabilities.pours:
        return Fact(POURS, "yes")
    return Fact(POURS, "no", f"each step that travels takes {plane.limits.put_size / MIB:.4g} MiB of `memory`")


def metadata(plane: Plane, *, kept: bool) -> Fact:
    """Whether what an object was described with is there again."""
    if kept:
        return Fact(METADATA, "yes")
    costs = "objects that are copied here lose theirs"
    if plane.capabilities.metadata:
        costs += "; and a write whose answer is lost can't be told from somebody else's, so it fails"
    return Fact(METADATA, "no", costs)


def versions(*, kept: bool) -> Fact:
    """Whether what was replaced stays readable."""
    costs = "what is deleted or replaced stays and is paid for, this check's own objects too, until a rule removes it"
    return Fact(VERSIONS, "yes", costs) if kept else Fact(VERSIONS, "no")


def names(refused: Sequence[str]) -> Fact:
    """Whether names are told apart; `refused` is what makes a name that would be another object's."""
    if not refused:
        return Fact(NAMES, "yes")
    costs = f"objects with {' or '.join(refused)} in their names are refused here, so that none is written over another"
    return Fact(NAMES, "no", costs)
