"""Watches and what has arrived: one method a call, and what they look like as JSON and for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration

from client.api import Client
from client.calls import pages
from client.moments import moment
from client.phrases import named
from client.shapes import JSON, or_auto
from client.specs import location
from client.words import Location
from fileserver.v1 import landing_pb2 as pb
from fileserver.v1.landing_pb2_grpc import LandingServiceStub
from fileserver.v1.transfer_pb2 import Ingest

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

STATES: Final = ("seen", "settled", "running", "done", "failed", "gone")
"""Of an arrival, in the order in which it goes through them."""


class Landing:
    """The calls of LandingService.

    Args:
        client: of the file server.
    """

    def __init__(self, client: Client) -> None:
        self._call = client.call

    def create(self, watch: pb.Watch) -> pb.Watch:
        """Begin a watch, or let the same one go on."""
        request = pb.CreateWatchRequest(watch=watch)
        return self._call(lambda c: LandingServiceStub(c).CreateWatch, request).watch

    def get(self, name: str) -> pb.Watch:
        """One watch, with its counts."""
        request = pb.GetWatchRequest(name=name)
        return self._call(lambda c: LandingServiceStub(c).GetWatch, request).watch

    def watches(self) -> Iterator[pb.Watch]:
        """All watches, with their counts."""

        def page(token: str) -> pb.ListWatchesResponse:
            request = pb.ListWatchesRequest(page_size=1000, page_token=token)
            return self._call(lambda c: LandingServiceStub(c).ListWatches, request)

        return pages(page, lambda answer: answer.watches)

    def stop(self, name: str) -> pb.Watch:
        """Look no more."""
        request = pb.StopWatchRequest(name=name)
        return self._call(lambda c: LandingServiceStub(c).StopWatch, request).watch

    def remove(self, name: str) -> None:
        """Forget a watch and its arrivals."""
        request = pb.DeleteWatchRequest(name=name)
        self._call(lambda c: LandingServiceStub(c).DeleteWatch, request, again=False)

    def arrival(self, watch: str, key: str) -> pb.Arrival:
        """One arrival."""
        request = pb.GetArrivalRequest(watch=watch, key=key)
        return self._call(lambda c: LandingServiceStub(c).GetArrival, request).arrival

    def arrivals(self, watch: str, chosen: pb.ArrivalFilter) -> Iterator[pb.Arrival]:
        """Arrivals in order of their keys."""

        def page(token: str) -> pb.ListArrivalsResponse:
            request = pb.ListArrivalsRequest(watch=watch, filter=chosen, page_size=1000, page_token=token)
            return self._call(lambda c: LandingServiceStub(c).ListArrivals, request)

        return pages(page, lambda answer: answer.arrivals)

    def retry(self, watch: str, chosen: pb.ArrivalFilter) -> int:
        """Try at once what has failed or waits; how many."""
        request = pb.RetryArrivalsRequest(watch=watch, filter=chosen)
        return self._call(lambda c: LandingServiceStub(c).RetryArrivals, request, timeout=None).changed

    def reset(self, watch: str, chosen: pb.ArrivalFilter) -> int:
        """Begin anew, as if just seen; how many."""
        request = pb.ResetArrivalsRequest(watch=watch, filter=chosen)
        return self._call(lambda c: LandingServiceStub(c).ResetArrivals, request, timeout=None).changed

    def mirror(self, watch: str, domain: str, target: str = "") -> int:
        """Write all arrivals as a table into a domain of HSDS; how many."""
        request = pb.MirrorArrivalsRequest(watch=watch, domain=domain, target=target)
        return self._call(lambda c: LandingServiceStub(c).MirrorArrivals, request, timeout=None).rows


def watch(
    source: Location, folder: str, name: str = "", *, settle: float | None, every: float | None, mode: str = "auto"
) -> pb.Watch:
    """A watch to be asked for; times in seconds, None for the usual ones."""
    number = Ingest.MODE_UNSPECIFIED if mode == "auto" else Ingest.Mode.Value(f"MODE_{mode.upper()}")
    return pb.Watch(
        name=name,
        source=location(source),
        settle=_duration(settle),
        interval=_duration(every),
        load=pb.LoadAction(folder=folder, mode=number),
    )


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def choose(states: Sequence[str], keys: Sequence[str]) -> pb.ArrivalFilter:
    """Which arrivals are meant; states as in `STATES`, keys as globs."""
    return pb.ArrivalFilter(states=[pb.Arrival.State.Value(f"STATE_{each.upper()}") for each in states], keys=keys)


def state(arrival: pb.Arrival) -> str:
    """As in `STATES`."""
    return named(pb.Arrival.State.Name, arrival.state).removeprefix("STATE_").lower()


def life(watch: pb.Watch) -> str:
    """`active`, `stopped` or `ended`."""
    return named(pb.Watch.State.Name, watch.state).removeprefix("STATE_").lower()


def name(watch: pb.Watch) -> str:
    """Its id."""
    return watch.name.removeprefix("watches/")


def counts(watch: pb.Watch) -> dict[str, int]:
    """How many arrivals there are by state."""
    return {each: getattr(watch.counts, each) for each in STATES}


def watch_shape(watch: pb.Watch) -> dict[str, JSON]:
    """A watch."""
    return {
        "name": name(watch),
        "state": life(watch),
        "source": {"plane": watch.source.plane, "key": watch.source.key},
        "include": list(watch.include),
        "exclude": list(watch.exclude),
        "settle": watch.settle.ToNanoseconds() / 1e9,
        "marker": watch.marker or None,
        "every": watch.interval.ToNanoseconds() / 1e9,
        "tries": watch.tries,
        "at_once": watch.at_once,
        "once": watch.once,
        "folder": watch.load.folder,
        "target": watch.load.target,
        "mode": or_auto(named(Ingest.Mode.Name, watch.load.mode)),
        "public_read": watch.load.public_read,
        "overwrite": watch.load.overwrite,
        "create_time": moment(watch.create_time),
        "look_time": moment(watch.look_time),
        "error": {"reason": watch.error.reason, "message": watch.error.message} if watch.HasField("error") else None,
        "counts": dict(counts(watch)),
    }


def arrival_shape(found: pb.Arrival) -> dict[str, JSON]:
    """An arrival."""
    return {
        "key": found.key,
        "state": state(found),
        "size": found.size,
        "version": found.version,
        "loaded_version": found.loaded_version or None,
        "domain": found.domain or None,
        "transfer": found.transfer.removeprefix("transfers/") or None,
        "tries": found.tries,
        "first_seen_time": moment(found.first_seen_time),
        "last_seen_time": moment(found.last_seen_time),
        "change_time": moment(found.change_time),
        "settle_time": moment(found.settle_time),
        "start_time": moment(found.start_time),
        "end_time": moment(found.end_time),
        "retry_time": moment(found.retry_time),
        "error": {"reason": found.error.reason, "message": found.error.message} if found.HasField("error") else None,
    }


def seconds(moment: Timestamp) -> int:
    """A time as whole seconds since 1970; 0 where it is not known."""
    return int(moment.seconds)
