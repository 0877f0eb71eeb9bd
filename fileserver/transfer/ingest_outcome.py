"""How an ingest ended, as its transfer keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fileserver.catalogue.files import now
from fileserver.configured import where
from fileserver.hdf5.hsds import address
from fileserver.transfer.ingest_rows import File, Tally
from fileserver.transfer.record import Record
from fileserver.transfer.stages import size_text


def outcome(
    record: Record, tally: Tally, wrong: Sequence[File], levels: Mapping[str, int], *, past: bool
) -> dict[str, Any]:
    """The outcome, for the store.

    Args:
        record: of the transfer.
        tally: of its files.
        wrong: some of those that did not arrive, or not whole.
        levels: how many of those that arrived were verified in which way.
        past: the server's bucket was written past it.
    """
    native = f"{size_text(tally.native)} copied by the provider, " if tally.native else ""
    how = "past the server" if past else "by requests to the server"
    return {
        "size": tally.size,
        "evidence": "",
        "route": f"{how}, {native}{size_text(tally.through_us)} through this machine" if tally.objects else "",
        "seconds": max(now() - record.created, 0.001),
        "crc64nvme": None,
        "file": "",
        "ingest": {
            "loaded": tally.loaded,
            "partly": tally.partly,
            "failed": tally.failed,
            "objects": tally.objects,
            "verified": _verified(levels),
            "exceptions": [_exception(each) for each in wrong],
        },
    }


def _verified(levels: Mapping[str, int]) -> str:
    if len(levels) > 1:
        return ", ".join(f"{count} {level}" for level, count in levels.items())
    return "".join(levels)


def _exception(file: File) -> dict[str, str]:
    """A file that did not arrive, or not whole."""
    name = where(file.plane, file.key)
    if file.error is not None:
        return {"key": name, "reason": file.error["reason"], "message": file.error["message"]}
    message = f"{address.show(file.domain)} lacks what HSDS cannot hold or nobody can read; the report says what"
    return {"key": name, "reason": "PARTLY", "message": message}
