"""LandingService: watched prefixes, and what has arrived there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from fileserver.auth import caller
from fileserver.calls import Context
from fileserver.catalogue.files import PAGE
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds import address
from fileserver.hdf5.hsds.targets import Targets
from fileserver.landing import arrivals, watches
from fileserver.landing.landing import Landing
from fileserver.landing.watch import Arrival, State, Watch
from fileserver.rules import Thing, Verb
from fileserver.services.landing_shapes import (
    arrival_message,
    filter_of,
    messages,
    watch_id,
    watch_message,
    watch_of,
)
from fileserver.services.transfer import page_size
from fileserver.v1 import landing_pb2 as pb
from fileserver.v1 import landing_pb2_grpc

_RETRIED: Final = (State.FAILED, State.SETTLED)
_RESET: Final = (State.SEEN, State.SETTLED, State.DONE, State.FAILED, State.GONE)


class LandingServicer(landing_pb2_grpc.LandingServiceServicer):
    """Landing zones on the wire.

    Args:
        landing: the watches.
        targets: the configured HSDS servers.
    """

    def __init__(self, landing: Landing, targets: Targets) -> None:
        self._landing = landing
        self._targets = targets

    async def CreateWatch(self, request: pb.CreateWatchRequest, context: Context) -> pb.CreateWatchResponse:
        """A watch begins, or goes on; raises InvalidSpec, PlaneNotFound, CallerDenied, AlreadyExists."""
        made = await self._landing.watch(watch_of(request.watch, self._targets.name))
        return pb.CreateWatchResponse(watch=await self._told(made.name))

    async def GetWatch(self, request: pb.GetWatchRequest, context: Context) -> pb.GetWatchResponse:
        """One watch; raises WatchNotFound."""
        return pb.GetWatchResponse(watch=await self._told(watch_id(request.name)))

    async def ListWatches(self, request: pb.ListWatchesRequest, context: Context) -> pb.ListWatchesResponse:
        """Watches by name, with their counts."""
        size = page_size(request.page_size)
        found = await self._visible(request.page_token, size + 1)
        told = [await self._told(each.name) for each in found[:size]]
        return pb.ListWatchesResponse(watches=told, next_page_token=found[size - 1].name if len(found) > size else "")

    async def _visible(self, after: str, most: int) -> list[Watch]:
        """So many watches whose places the caller may read."""
        found: list[Watch] = []
        while len(found) < most:
            rows = await self._landing.read(lambda c, a=after: watches.listing(c, a, most))  # type: ignore[misc]
            places = (Thing("planes", f"{row.plane}:{row.prefix}", below=True) for row in rows)
            found += [row for row, place in zip(rows, places, strict=True) if caller().may(Verb.READ, place)]
            if len(rows) < most:
                break
            after = rows[-1].name
        return found[:most]

    async def StopWatch(self, request: pb.StopWatchRequest, context: Context) -> pb.StopWatchResponse:
        """Looks no more; raises WatchNotFound."""
        name = watch_id(request.name)
        await self._landing.write(lambda c: watches.stop(c, name))
        return pb.StopWatchResponse(watch=await self._told(name))

    async def DeleteWatch(self, request: pb.DeleteWatchRequest, context: Context) -> pb.DeleteWatchResponse:
        """Forgets a watch; raises WatchNotFound, TargetBusy."""
        await self._landing.remove(watch_id(request.name))
        return pb.DeleteWatchResponse()

    async def GetArrival(self, request: pb.GetArrivalRequest, context: Context) -> pb.GetArrivalResponse:
        """One arrival; raises WatchNotFound."""
        name = watch_id(request.watch)
        watch = await self._landing.read(lambda c: watches.get(c, name))
        found = await self._landing.read(lambda c: arrivals.get(c, name, request.key))
        return pb.GetArrivalResponse(arrival=arrival_message(watch, found))

    async def ListArrivals(self, request: pb.ListArrivalsRequest, context: Context) -> pb.ListArrivalsResponse:
        """One page in order of keys; raises WatchNotFound, InvalidSpec."""
        name, size = watch_id(request.watch), page_size(request.page_size)
        states, test = filter_of(request.filter)
        watch = await self._landing.read(lambda c: watches.get(c, name))
        found = await self._landing.read(lambda c: arrivals.listing(c, name, request.page_token, size + 1, states))
        shown = [each for each in found[:size] if test(each.key)]
        more = found[size - 1].key if len(found) > size else ""
        return pb.ListArrivalsResponse(arrivals=messages(watch, shown), next_page_token=more)

    async def RetryArrivals(self, request: pb.RetryArrivalsRequest, context: Context) -> pb.RetryArrivalsResponse:
        """Tries again; raises WatchNotFound, InvalidSpec."""
        states, test = filter_of(request.filter)
        wanted = [each for each in _RETRIED if not states or each in states]
        changed = await self._landing.ask(watch_id(request.watch), arrivals.retry, wanted, test)
        return pb.RetryArrivalsResponse(changed=changed)

    async def ResetArrivals(self, request: pb.ResetArrivalsRequest, context: Context) -> pb.ResetArrivalsResponse:
        """Begins anew; raises WatchNotFound, InvalidSpec."""
        states, test = filter_of(request.filter)
        if not request.filter.states and not request.filter.keys:
            msg = "name what is to begin anew: states, keys, or the key ** for everything"
            raise InvalidSpec(msg, {"filter": msg})
        wanted = [each for each in _RESET if not states or each in states]
        changed = await self._landing.ask(watch_id(request.watch), arrivals.reset, wanted, test)
        return pb.ResetArrivalsResponse(changed=changed)

    async def MirrorArrivals(self, request: pb.MirrorArrivalsRequest, context: Context) -> pb.MirrorArrivalsResponse:
        """The table in HSDS; raises WatchNotFound, InvalidSpec, and what HSDS says."""
        name = watch_id(request.watch)
        watch = await self._landing.read(lambda c: watches.get(c, name))
        path = address.parse(request.domain)
        connection = self._targets.connection(request.target or watch.action.hsds)
        from fileserver.landing.mirror import mirror  # noqa: PLC0415 - needs an HTTP client, see services.domain

        return pb.MirrorArrivalsResponse(rows=await mirror(connection, path, lambda: self._pages(name)))

    async def _pages(self, name: str) -> AsyncIterator[list[Arrival]]:
        after = ""
        while page := await self._landing.read(lambda c, a=after: arrivals.listing(c, name, a, PAGE)):  # type: ignore[misc]
            yield page
            after = page[-1].key

    async def _told(self, name: str) -> pb.Watch:
        watch = await self._landing.read(lambda c: watches.get(c, name))
        return watch_message(watch, await self._landing.read(lambda c: arrivals.counts(c, name)))
