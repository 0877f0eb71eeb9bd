"""Plane pair x fault, by a sync: the world and the faults of `fault_pairs`, and what must come out of a sync.

Bytes are right wherever there are any, each object is copied or named, nothing is left, sources are as they were, and
the same sync without the fault does the rest.
"""

from __future__ import annotations

import random

from fileserver.transfer.record import Record
from fileserver.transfer.spec import Location, Spec, Sync
from planes.plane import KIB
from tests.fileserver.transfer.fault_pairs import FAULTS, KINDS, Cell, World

_SOME = random.Random(8)
OBJECTS = {"a/empty": b"", "a/small": _SOME.randbytes(3000), "b c/ü": b"x", "steps": _SOME.randbytes(100 * KIB)}
"""The last one is too large to be put into a store at once."""

CELLS = tuple(
    Cell(source, target, "sync", side, name, always)
    for source in KINDS
    for target in KINDS
    for side, kind in (("source", source), ("target", target))
    for name in FAULTS[kind, side]
    for always in (False, True)
    if not FAULTS[kind, side][name].slow and (FAULTS[kind, side][name].always or not always)
)
_TELLING = {
    ("posix", "source"): ("stat-fails", "read-fails"),
    ("posix", "target"): ("put-lost", "put-fails"),
    ("s3", "source"): ("flipped-body", "head-500", "truncated"),
    ("s3", "target"): ("answer-lost", "wrong-checksum", "begin-lost", "commit-lost-then-404"),
    ("azure", "source"): ("flipped-body", "expired-token", "reset-in-body"),
    ("azure", "target"): ("500-though-done", "wrong-checksum", "commit-lost", "commit-lost-then-no-blocks"),
}
"""Faults that a sync itself has to get over; all others are the planes'."""


def chosen() -> list[Cell]:
    """Every pair with one of its source and one of its target, each once."""
    found = []
    for number, pair in enumerate((source, target) for source in KINDS for target in KINDS):
        for side, kind in zip(("source", "target"), pair, strict=True):
            names = _TELLING[kind, side]
            found.append(Cell(*pair, "sync", side, names[number % len(names)], always=False))
    return found


async def play(world: World, cell: Cell, number: int) -> None:
    """Play one cell, which is the only one of this number."""
    home, source = f"sync/{number}", f"from/{cell.source}"
    site, marks = world.sites[cell.target], world.sites[cell.source].marks(source)
    if not marks:
        for name, data in OBJECTS.items():
            await world._put(cell.source, f"{source}/{name}", data)
        marks = world.sites[cell.source].marks(source)

    def found() -> dict[str, bytes]:
        return {key.removeprefix(f"{home}/"): data for key, data in site.objects(home).items()}

    spec = Spec(Sync(Location(cell.source, source), Location(cell.target, home), (), (), None, False, 0, False))
    with world.trouble(cell):
        record = await world.transfer(spec)
    if any("could not be removed" in note for note in record.warnings):  # the plane is back: what it left goes
        await world.jobs.syncs.clean_again()
    there = found()
    if not _cannot_be_taken_back(cell):
        assert {name: OBJECTS.get(name) for name in there} == there, record
        assert _is_nothing(cell, site.open_uploads(home), site.objects(home)), record
    _ended(cell, record, there)
    again = await world.transfer(spec)
    assert again.state == "SUCCEEDED", again
    assert found() == OBJECTS
    assert _is_nothing(cell, site.open_uploads(home), site.objects(home)), record
    assert world.sites[cell.source].marks(source) == marks


def _is_nothing(cell: Cell, left: list[str], there: dict[str, bytes]) -> bool:
    """Whether no upload is left but what the provider offers no way to find or to drop: see `Cell`."""
    blocks = cell.target == "azure" and set(left) <= there.keys()  # they go with the next blob of that name
    return not left or blocks or (cell.target == "s3" and cell.name == "begin-lost")


def _cannot_be_taken_back(cell: Cell) -> bool:
    """Azure copies a small blob as one block, which nobody records: it stays where the service takes no abort, too."""
    return cell.target == "azure" and cell.side == "target" and cell.source != "posix" and cell.always


def _ended(cell: Cell, record: Record, there: dict[str, bytes]) -> None:
    """It says what happened."""
    if record.state == "SUCCEEDED":
        assert there == OBJECTS
        return
    reasons = {record.error["reason"]} if record.error else set()
    if record.state == "PARTLY_SUCCEEDED":
        assert record.outcome is not None
        failed = record.outcome["sync"]["exceptions"]
        assert {each["key"] for each in failed} >= OBJECTS.keys() - there.keys()
        reasons = {each["reason"] for each in failed}
    assert reasons
    assert reasons <= cell.fault.always | cell.fault.once, record
