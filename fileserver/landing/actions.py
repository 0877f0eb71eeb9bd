"""What becomes of arrivals: the transfer that is asked for, and how its end is understood. Looks at no plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fileserver.configured import where
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds import address
from fileserver.landing.watch import Arrival, Watch
from fileserver.transfer.ingest_rows import File
from fileserver.transfer.record import Record
from fileserver.transfer.spec import Ingest, Location, Spec

EXCEPTIONS: Final = "EXCEPTIONS"
"""The reason of what was loaded but for some objects."""


class Action(Protocol):
    """What is done with arrivals."""

    def group(self, arrival: Arrival) -> str:
        """Arrivals that say the same may share a transfer."""
        ...

    def check(self, watch: Watch, arrival: Arrival) -> None:
        """Raise an error of ours for one that no transfer can be made of; it ends as a failed one would."""
        ...

    def spec(self, watch: Watch, arrivals: Sequence[Arrival]) -> Spec:
        """The transfer of some arrivals of one group; the same for the same ones, whenever and wherever it is asked."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a transfer ended for its arrival; with `loaded`, `error` is what did not come along."""

    loaded: bool
    error: dict[str, Any] | None = None


class Loading:
    """Ingests HDF5 files, those of one folder together; what this watch has loaded before is replaced."""

    def group(self, arrival: Arrival) -> str:
        """By folder, because files that are named go into one folder of domains by their last names."""
        folder = arrival.key.rpartition("/")[0]
        return f"{'new' if arrival.loaded is None else 'again'} {folder}"

    def check(self, watch: Watch, arrival: Arrival) -> None:
        """Raise InvalidSpec for a key that cannot be the name of a domain, or would be taken for a wildcard."""
        domain_of(watch, arrival.key)
        if set("*?") & set(arrival.key.rpartition("/")[2]):
            named = where(watch.plane, watch.prefix + arrival.key)
            msg = f"{named} has * or ? in its name, which an ingest takes for a wildcard: rename it"
            raise InvalidSpec(msg, {"spec.ingest.sources": msg})

    def spec(self, watch: Watch, arrivals: Sequence[Arrival]) -> Spec:
        """One ingest into the folder of the domains."""
        action = watch.action
        sources = tuple(Location(watch.plane, watch.prefix + each.key) for each in arrivals)
        folder = domain_of(watch, arrivals[0].key).rpartition("/")[0] + "/"
        verb = Ingest(sources, folder, action.hsds, action.mode, public_read=action.public_read)
        return Spec(verb, overwrite=action.overwrite or arrivals[0].loaded is not None)


def domain_of(watch: Watch, key: str) -> str:
    """The path of the domain that an arrival becomes; raises InvalidSpec for a key that can be no name."""
    return address.parse_new(f"{watch.action.folder.rstrip('/')}/{key}", "key")


def verdicts(record: Record, files: Mapping[str, File]) -> Callable[[str], Verdict]:
    """How a transfer that has ended did for each of its sources, by their keys.

    Args:
        record: the transfer.
        files: of an ingest, by key; of another transfer none: it speaks for its only source.
    """
    whole = _of_record(record)

    def of(key: str) -> Verdict:
        file = files.get(key)
        if file is None or file.state not in _ENDS:
            return whole
        if file.state == "failed":
            return Verdict(loaded=False, error=file.error or whole.error or _error(EXCEPTIONS, "it was not loaded"))
        what = file.error["message"] if file.error else f"see `cropduster ingest --report {record.id}`"
        return Verdict(loaded=True, error=_error(EXCEPTIONS, what) if file.state == "partly" else None)

    return of


_ENDS: Final = frozenset({"loaded", "partly", "failed"})


def _of_record(record: Record) -> Verdict:
    if record.state == "SUCCEEDED":
        return Verdict(loaded=True)
    if record.error is not None:
        return Verdict(loaded=False, error=record.error)
    if record.state == "PARTLY_SUCCEEDED":
        return Verdict(loaded=False, error=_error(EXCEPTIONS, f"see transfer {record.id}"))
    return Verdict(loaded=False, error=_error("CANCELLED", f"the transfer {record.id} was cancelled"))


def _error(reason: str, message: str) -> dict[str, Any]:
    return {"reason": reason, "message": message, "facts": {}}
