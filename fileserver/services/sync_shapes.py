"""The messages of a sync from our values and back, beside `shapes`."""

from __future__ import annotations

from collections.abc import Sequence

from fileserver.auth import allow
from fileserver.transfer.filters import problem
from fileserver.transfer.spec import MOST_DELETED, Location, Sync
from fileserver.transfer.sync_plan import Compared
from fileserver.transfer.sync_rows import Item
from fileserver.v1 import transfer_pb2 as pb


def sync_of(message: pb.Sync, wrong: dict[str, str]) -> Sync:
    """A sync; what is wrong with it is added to `wrong`."""
    here = "spec.sync"
    for field in ("include", "exclude"):
        for index, glob in enumerate(getattr(message, field)):
            if said := problem(glob):
                wrong[f"{here}.{field}[{index}]"] = f"--{field}: {said}"
    if message.max_delete < 0:
        wrong[f"{here}.max_delete"] = f"--max-delete: {message.max_delete} objects cannot be deleted; 0 allows none"
    names = _location(message.names, f"{here}.names", wrong) if message.HasField("names") else None
    if names is not None and not names.key:
        wrong[f"{here}.names"] = "the list of names needs a key"
    return Sync(
        _location(message.source, f"{here}.source", wrong),
        _location(message.target, f"{here}.target", wrong),
        tuple(message.include),
        tuple(message.exclude),
        names,
        message.delete,
        0 if message.refuse_delete else message.max_delete or MOST_DELETED,
        message.checksum,
    )


def _location(message: pb.Location, field: str, wrong: dict[str, str]) -> Location:
    """A folder: its key may be empty."""
    if not message.plane:
        wrong[field] = "a folder needs a plane"
    allow(message.plane)
    return Location(message.plane, message.key)


def sync_message(sync: Sync) -> pb.Sync:
    """A sync for the wire."""
    names = pb.Location(plane=sync.names.plane, key=sync.names.key) if sync.names else None
    return pb.Sync(
        source=pb.Location(plane=sync.source.plane, key=sync.source.key),
        target=pb.Location(plane=sync.target.plane, key=sync.target.key),
        include=sync.include,
        exclude=sync.exclude,
        names=names,
        delete=sync.delete,
        max_delete=sync.max_delete,
        refuse_delete=sync.max_delete == 0,
        checksum=sync.checksum,
    )


def totals_message(compared: Compared) -> pb.SyncTotals:
    """How much a sync would do."""
    totals = compared.totals
    return pb.SyncTotals(
        copy=totals.copy,
        copy_bytes=totals.copy_bytes,
        delete=totals.delete,
        equal=totals.equal,
        compare=totals.compare,
        compare_bytes=totals.compare_bytes,
        fail=totals.fail,
    )


def _action(item: Item) -> str:
    """What is to be done as far as it is known: contents decide about what is only looked at."""
    if item.result:
        return "fail"
    return "compare" if item.why == "checksum" else item.action


def page_message(compared: Compared, items: Sequence[Item], *, first: bool) -> pb.PlanSyncResponse:
    """Some of what a sync would touch; totals and warnings are in the first page."""
    objects = (pb.PlannedObject(key=i.key, size=i.size, action=_action(i), why=i.why) for i in items)
    message = pb.PlanSyncResponse(objects=objects)
    if first:
        message.totals.CopyFrom(totals_message(compared))
        message.warnings.extend(compared.warnings)
    return message
