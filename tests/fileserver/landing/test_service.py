"""LandingService: what may be asked for, what is answered, page by page; the mirror in a real HSDS is elsewhere."""

import pytest
from google.protobuf.duration_pb2 import Duration

from fileserver import auth
from fileserver.errors import CallerDenied, InvalidSpec, PlaneNotFound, WatchNotFound
from fileserver.hdf5.hsds.settings import HsdsSettings
from fileserver.hdf5.hsds.targets import Targets
from fileserver.services.landing import LandingServicer
from fileserver.v1 import landing_pb2 as pb
from fileserver.v1.transfer_pb2 import Ingest, Location
from planes.errors import AlreadyExists

S = pb.Arrival


@pytest.fixture
def asked(zone):
    return LandingServicer(zone.process(), Targets({"main": HsdsSettings(endpoint="http://nowhere:1")}))


def watch(plane="lz", key="in", **more):
    more = {"include": ["**"]} | more
    load = {"folder": "hdf5://home/x/"} | more.pop("load", {})
    return pb.Watch(source=Location(plane=plane, key=key), load=pb.LoadAction(**load), **more)


async def create(asked, **more):
    return (await asked.CreateWatch(pb.CreateWatchRequest(watch=watch(**more)), None)).watch


async def listed(asked, name, **chosen):
    found, token = [], ""
    while True:
        request = pb.ListArrivalsRequest(watch=name, filter=pb.ArrivalFilter(**chosen), page_size=2, page_token=token)
        answer = await asked.ListArrivals(request, None)
        assert len(answer.arrivals) <= 2
        found += answer.arrivals
        token = answer.next_page_token
        if not token:
            return found


async def test_the_same_request_is_the_same_watch_with_the_usual_options(asked):
    made = await create(asked)
    assert made.name.startswith("watches/in-")
    assert (made.settle.seconds, made.interval.seconds, made.tries, made.at_once) == (30, 10, 3, 4)
    assert (made.source.key, made.load.target, made.load.folder) == ("in/", "main", "hdf5://home/x/")
    assert (await create(asked)).name == made.name
    assert (await create(asked, key="other")).name != made.name
    with pytest.raises(AlreadyExists, match="--name"):
        await create(asked, tries=5)
    named = await create(asked, name="watches/mine", marker="*.done", once=True, load={"mode": Ingest.MODE_LINK})
    assert (named.name, named.settle.seconds, named.load.mode) == ("watches/mine", 0, Ingest.MODE_LINK)


async def test_watches_are_listed_in_pages(asked):
    for name in ("c", "a", "b"):
        await create(asked, name=name)
    first = await asked.ListWatches(pb.ListWatchesRequest(page_size=2), None)
    rest = await asked.ListWatches(pb.ListWatchesRequest(page_size=2, page_token=first.next_page_token), None)
    assert [each.name for each in [*first.watches, *rest.watches]] == ["watches/a", "watches/b", "watches/c"]
    assert rest.next_page_token == ""


async def test_every_field_that_is_wrong_is_told_at_once(asked):
    wrong = watch(
        plane="",
        name="No Name",
        include=["[b-a]"],
        exclude=[""],
        settle=Duration(seconds=-1),
        interval=Duration(nanos=1),
        tries=-1,
        at_once=10_000,
        marker="a/*.done",
        load={"folder": "/home/x", "target": "mian"},
    )
    with pytest.raises(InvalidSpec) as refused:
        await asked.CreateWatch(pb.CreateWatchRequest(watch=wrong), None)
    fields = "source include[0] exclude[0] settle interval tries at_once marker load.folder load.target name"
    assert set(refused.value.violations) == {f"watch.{field}" for field in fields.split()}
    with pytest.raises(PlaneNotFound):
        await create(asked, plane="nope")
    with pytest.raises(InvalidSpec, match="name what"):
        await asked.ResetArrivals(pb.ResetArrivalsRequest(watch="x"), None)
    with pytest.raises(InvalidSpec):
        await listed(asked, "x", states=[99], keys=[""])


async def test_local_folders_are_for_the_servers_own_user(asked):
    with pytest.raises(CallerDenied):
        await create(asked, plane="local")
    assert not auth.caller().local


async def test_arrivals_are_found_by_state_and_key_shown_and_begun_anew(asked, zone):
    name = (await create(asked, once=True, interval=Duration(nanos=100_000_000), at_once=9)).name
    await zone.put("a/1.h5", "a/2.h5", "b/3.h5", "b/..h5", "c")
    await zone.rounds(asked._landing)
    by_key = {key: transfer for transfer, key in (await zone.jobs.transfers()).items()}
    await zone.jobs.end(by_key["in/a/1.h5"])
    await zone.jobs.end(by_key["in/b/3.h5"], "FORMAT_MISMATCH")
    await zone.rounds(asked._landing)
    assert [each.key for each in await listed(asked, name)] == ["a/1.h5", "a/2.h5", "b/..h5", "b/3.h5", "c"]
    assert [each.key for each in await listed(asked, name, states=[S.STATE_DONE, S.STATE_FAILED])] == [
        "a/1.h5",
        "b/3.h5",
    ]
    assert [each.key for each in await listed(asked, name, keys=["b/*"])] == ["b/..h5", "b/3.h5"]
    shown = (await asked.GetArrival(pb.GetArrivalRequest(watch=name, key="b/3.h5"), None)).arrival
    assert (shown.state, shown.error.reason, shown.domain) == (
        S.STATE_FAILED,
        "FORMAT_MISMATCH",
        "hdf5://home/x/b/3.h5",
    )
    counted = (await asked.GetWatch(pb.GetWatchRequest(name=name), None)).watch.counts
    assert (counted.running, counted.done, counted.failed) == (3, 1, 1)
    retry = pb.RetryArrivalsRequest(watch=name, filter=pb.ArrivalFilter(keys=["a/**", "c"]))
    assert (await asked.RetryArrivals(retry, None)).changed == 0
    reset = pb.ResetArrivalsRequest(watch=name, filter=pb.ArrivalFilter(states=[S.STATE_DONE, S.STATE_FAILED]))
    assert (await asked.ResetArrivals(reset, None)).changed == 2
    for request in (pb.GetArrivalRequest(watch=name, key="x"), pb.GetArrivalRequest(watch="x", key="c")):
        with pytest.raises(WatchNotFound):
            await asked.GetArrival(request, None)
    stopped = (await asked.StopWatch(pb.StopWatchRequest(name=name), None)).watch
    assert stopped.state == pb.Watch.STATE_STOPPED


@pytest.mark.parametrize("count", [2500, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_many_arrivals_are_seen_and_listed_in_pages(asked, zone, count):
    name = (await create(asked, settle=Duration(seconds=3600))).name
    await zone.put(*(f"{n:05}" for n in range(count)))
    largest, put = 0, zone.store.write

    async def watched(work, **more):
        nonlocal largest
        held = getattr(work, "keywords", {}).get("page", [])
        largest = max(largest, len(held))
        return await put(work, **more)

    zone.store.write = watched
    await zone.rounds(asked._landing, 1)
    assert largest == 1000
    answer = await asked.GetWatch(pb.GetWatchRequest(name=name), None)
    assert answer.watch.counts.seen == count
