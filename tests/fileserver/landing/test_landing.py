"""Landing zones at work: looks, leases, transfers and their results, whatever dies in between."""

import asyncio
import os
from dataclasses import replace

import pytest

from fileserver.catalogue import landing as tables
from fileserver.errors import InvalidSpec, TargetBusy, WatchNotFound
from fileserver.landing import arrivals, taking, watches
from fileserver.landing.actions import Loading
from fileserver.landing.watch import Arrival, Life, Load, State
from fileserver.transfer import ingest_rows
from fileserver.transfer.ingest_rows import Found
from planes.errors import AlreadyExists, Unavailable
from planes.faulty import Fault, Hold, Raise
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.landing.zone import ENTRY, NOW, Syncing

NOT_HELD = {"reason": "NOT_SUPPORTED", "message": "/d stays behind", "facts": {}}
NOT_HDF5 = {"reason": "FORMAT_MISMATCH", "message": "it is no HDF5 file", "facts": {}}


async def test_what_settles_is_loaded_once_and_a_new_version_replaces_it(zone):
    await zone.enter()
    await zone.put("a.h5", "sub/b.h5")
    one = zone.process()
    await zone.rounds(one)
    assert list((await zone.jobs.transfers()).values()) == ["in/a.h5", "in/sub/b.h5"]
    for transfer in await zone.jobs.transfers():
        await zone.jobs.end(transfer)
    await zone.rounds(one)
    assert await zone.states() == {"a.h5": "done", "sub/b.h5": "done"}
    assert len(await zone.jobs.transfers()) == 2

    await zone.put("a.h5", data=b"longer")
    await zone.rounds(one)
    *_, (again, key) = (await zone.jobs.transfers()).items()
    assert key == "in/a.h5"
    record, _ = await zone.jobs.get(again)
    assert record.spec["overwrite"] is True
    await zone.jobs.end(again)
    await zone.lz.delete("in/sub/b.h5")
    await zone.rounds(one)
    assert await zone.states() == {"a.h5": "done", "sub/b.h5": "gone"}
    found = await zone.arrival("a.h5")
    assert (found.transfer, found.size, found.loaded) == (again, 6, found.version)
    assert found.first_seen < found.settled <= found.started <= found.ended


@pytest.mark.parametrize("once", [False, True])
async def test_a_file_whose_name_is_no_text_is_told_and_holds_nothing_up(zone, tmp_path, once):
    (tmp_path / "in").mkdir()
    for name in (b"in/a.h5", b"in/b\xff.h5", b"in/c\xff.h5"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    zone.planes._open["lz"] = PosixPlane("lz", PosixSettings(path=tmp_path))
    await zone.enter(once=once)
    one = zone.process()
    await zone.rounds(one, 2)
    [transfer] = await zone.jobs.transfers()
    await zone.jobs.end(transfer)
    await zone.rounds(one)
    assert await zone.states() == {"a.h5": "done"}
    watch = await zone.store.read(lambda c: watches.get(c, "w"))
    assert r"lz:in/b\xff.h5 and 1 more is not UTF-8" in watch.error["message"]
    assert (watch.state is Life.ENDED) == once


async def test_nothing_is_loaded_before_it_has_been_the_same_for_long_enough(zone):
    await zone.enter(settle=60.0)
    await zone.put("a")
    one = zone.process()
    await zone.rounds(one)
    await zone.set(tables.arrivals, changed=await zone.now() - 59)
    await zone.rounds(one)
    assert await zone.states() == {"a": "seen"}
    await zone.put("a", data=b"more")
    await zone.set(tables.arrivals, changed=await zone.now() - 61)  # but of another version
    await zone.rounds(one)
    assert await zone.states() == {"a": "seen"}
    await zone.set(tables.arrivals, changed=await zone.now() - 61)
    await zone.rounds(one)
    assert await zone.states() == {"a": "running"}


async def test_a_marker_says_that_its_object_is_whole_unless_it_is_of_an_earlier_one(zone):
    await zone.enter(marker="*.done", include=("*.h5",))
    await zone.put("a.h5.done", "a.h5", "b.h5", "note.txt")
    one = zone.process()
    await zone.rounds(one)
    assert await zone.states() == {"a.h5": "seen", "b.h5": "seen"}
    await zone.put("a.h5.done")
    await zone.rounds(one)
    assert await zone.states() == {"a.h5": "running", "b.h5": "seen"}
    await zone.lz.delete("in/a.h5.done")
    await zone.rounds(one)
    assert await zone.states() == {"a.h5": "running", "b.h5": "seen"}


async def test_what_is_filtered_out_or_belongs_to_logical_files_does_not_arrive(zone):
    await zone.enter(include=("*.h5",), exclude=("old/",))
    await zone.put("a.h5", "old/a.h5", "a.nc", "x/~g/a.h5", "B.HDF5", "note.txt")
    await zone.lz.put("other/b.h5", b"", upload_id="u")
    one = zone.process()
    await zone.rounds(one)
    assert list(await zone.states()) == ["a.h5"]

    usual = replace(ENTRY, name="usual", options=replace(NOW, include=(), exclude=("old/",)))
    await one.watch(usual)
    await zone.rounds(one)
    found = await zone.store.read(lambda c: arrivals.listing(c, "usual"))
    assert [each.key for each in found] == ["B.HDF5", "a.h5", "a.nc"]


async def test_keys_of_any_length_and_kind(zone):
    await zone.enter(at_once=9)
    long = "/".join(["'\"; DROP TABLE arrivals --ü%_" * 7] * 5)[:1000] + "é漢.h5"
    await zone.put(long, long + "x", "\n", "a b")
    await zone.rounds(zone.process())
    assert set(await zone.states()) == {long, long + "x", "\n", "a b"}
    assert set((await zone.jobs.transfers()).values()) == {f"in/{key}" for key in await zone.states()}


async def test_a_listing_that_fails_makes_nothing_gone_and_is_told(zone):
    await zone.enter()
    await zone.put("a", "b")
    one = zone.process()
    await zone.rounds(one, 1)
    zone.faulty.script.faults = [Fault("list", 0, Raise(Unavailable("the store is down")))]
    await zone.rounds(one, 1)
    told = await zone.store.read(lambda c: watches.get(c, "w"))
    assert told.error["message"] == "the store is down"
    assert "gone" not in (await zone.states()).values()
    zone.faulty.script.faults = []
    await zone.rounds(one, 2)
    assert (await zone.store.read(lambda c: watches.get(c, "w"))).error is None


async def test_two_processes_never_take_the_same_arrival(zone):
    await zone.enter(at_once=50)
    await zone.put(*(f"k{n}" for n in range(40)))
    several = [zone.process() for _ in range(3)]
    for _ in range(4):
        await asyncio.gather(*(zone.rounds(each, 1) for each in several))
    assert sorted(key for key, _ in zone.jobs.asked) == sorted(f"in/k{n}" for n in range(40))
    assert len({request for _, request in zone.jobs.asked}) == 40


async def test_one_looks_at_a_time_and_another_takes_over_when_it_dies(zone):
    watch = await zone.enter()
    assert await zone.store.write(lambda c: watches.claim(c, "w", "dead")) is not None
    assert await zone.store.write(lambda c: watches.claim(c, "w", "other")) is None
    await zone.set(tables.watches, look_until=await zone.now() - 1)
    assert await zone.store.write(lambda c: watches.claim(c, "w", "other")) is not None
    assert not await zone.store.write(lambda c: watches.renew(c, "w", "dead"))
    assert not await zone.store.write(lambda c: watches.looked(c, watch, "dead"))
    assert await zone.store.write(lambda c: watches.looked(c, watch, "other"))


async def test_who_dies_between_taking_and_recording_costs_no_transfer_and_makes_no_second(zone):
    await zone.enter()
    await zone.put("before", "after")
    await zone.look(zone.process())
    watch = await zone.store.read(lambda c: watches.get(c, "w"))
    action = Syncing()
    taken = await zone.store.write(lambda c: taking.take(c, watch, "dead", action.group))
    [after] = next(batch for batch in taken if batch[0].key == "after")
    made = await zone.jobs.create(action.spec(watch, [after]), taking.request_id(after.batch))
    living = zone.process()
    await zone.rounds(living)
    assert len(zone.jobs.asked) == 1  # not before the lease has run out
    await zone.set(tables.arrivals, owned_until=await zone.now() - 1)
    await zone.rounds(living)
    assert sorted((await zone.jobs.transfers()).values()) == ["in/after", "in/before"]
    assert (await zone.arrival("after")).transfer == made.id
    assert (await zone.arrival("before")).tries == 1


async def test_a_server_that_starts_goes_on_at_once_with_what_the_last_one_held(zone):
    await zone.enter()
    await zone.put("a")
    await zone.look(zone.process())
    watch = await zone.store.read(lambda c: watches.get(c, "w"))
    await zone.store.write(lambda c: taking.take(c, watch, "dead", Syncing().group))
    assert await zone.store.write(lambda c: watches.claim(c, "w", "dead")) is not None
    next_one = zone.process()
    await next_one.start()
    assert next_one.unfinished() == 1
    await zone.rounds(next_one)
    assert list((await zone.jobs.transfers()).values()) == ["in/a"]
    assert (await zone.store.read(lambda c: watches.get(c, "w"))).looked > watch.looked
    await next_one.stop()
    assert zone.jobs.lives == 0


async def test_a_stop_that_comes_with_a_wake_up_is_heard(zone):
    one = zone.process()
    await one.start()
    while not one._wake._waiters:  # in the middle of its first round
        await asyncio.sleep(0.01)
    one._wake.set()
    async with asyncio.timeout(60):
        await one.stop()


async def test_a_failure_is_tried_again_with_its_reason_until_the_tries_are_used_up(zone):
    await zone.enter(tries=2)
    await zone.put("a")
    one = zone.process()
    await zone.rounds(one)
    await zone.jobs.end("t1", "PLANE_UNAVAILABLE")
    await zone.rounds(one)
    found = await zone.arrival("a")
    assert (found.state, found.tries, found.error["reason"]) == (State.SETTLED, 1, "PLANE_UNAVAILABLE")
    assert found.not_before > await zone.now()
    await zone.set(tables.arrivals, not_before=0.0)
    await zone.rounds(one)
    await zone.jobs.end("t2", "PLANE_UNAVAILABLE")
    await zone.rounds(one)
    assert await zone.states() == {"a": "failed"}
    assert len({request for _, request in zone.jobs.asked}) == 2

    assert await one.ask("w", arrivals.retry, [State.FAILED], lambda key: key == "b") == 0
    assert await one.ask("w", arrivals.retry, [State.FAILED], lambda _: True) == 1
    await zone.rounds(one)
    await zone.jobs.end("t3")
    await zone.rounds(one)
    assert (await zone.arrival("a")).state is State.DONE
    assert await one.ask("w", arrivals.reset, [State.DONE], lambda _: True) == 1
    await zone.rounds(one)
    assert (await zone.jobs.get("t4"))[0].spec["overwrite"] is True


async def test_a_transfer_that_cannot_be_made_is_a_failure_and_a_busy_target_is_none(zone):
    await zone.enter(tries=1, at_once=4)
    await zone.put("wrong", "busy", "fine", "impossible")
    zone.jobs.refuse = {"in/wrong": InvalidSpec("no"), "in/busy": TargetBusy("by t9")}
    await zone.rounds(zone.process(), 2)
    states = {"busy": "settled", "fine": "running", "impossible": "failed", "wrong": "failed"}
    assert await zone.states() == states
    assert (await zone.arrival("busy")).tries == 0


async def test_a_version_that_comes_while_another_is_loaded_is_loaded_behind_it(zone):
    await zone.enter()
    await zone.put("a")
    one = zone.process()
    await zone.rounds(one)
    await zone.put("a", data=b"second")
    await zone.rounds(one)
    assert len(zone.jobs.asked) == 1
    await zone.jobs.end("t1", "SOURCE_CHANGED")
    await zone.rounds(one)
    found = await zone.arrival("a")
    assert (found.state, found.error, found.tries) == (State.RUNNING, None, 1)
    await zone.jobs.end("t2")
    await zone.rounds(one)
    assert await zone.states() == {"a": "done"}
    assert len(zone.jobs.asked) == 2


async def test_many_files_of_a_folder_share_transfers_and_each_has_its_own_result(zone):
    await zone.enter(at_once=2, tries=1)
    await zone.put("a.h5", "b.h5", "c*.h5", "d.h5", "sub/e.h5")
    one = zone.process(Loading())
    await zone.look(one)
    await one.round()
    assert len(zone.jobs.asked) == 2
    specs = [(await zone.jobs.get(transfer))[0].spec["verb"] for transfer in await zone.jobs.transfers()]
    assert [[each["key"] for each in spec["sources"]] for spec in specs] == [["in/a.h5", "in/b.h5"], ["in/d.h5"]]
    assert {spec["domain"] for spec in specs} == {"/home/x/"}
    assert (await zone.arrival("c*.h5")).error["reason"] == "INVALID_SPEC"

    found = [Found("lz", f"in/{key}.h5", 1, "v", f"/home/x/{key}.h5") for key in "ab"]
    states = [replace(found[0], state="partly", error=NOT_HELD), replace(found[1], state="failed", error=NOT_HDF5)]
    await zone.store.write(lambda c: ingest_rows.enter(c, "t1", 1, states))
    await zone.jobs.end("t1", state="PARTLY_SUCCEEDED")
    await zone.jobs.end("t2")
    await zone.rounds(one, 1)
    assert await zone.states() == {
        "a.h5": "done",
        "b.h5": "failed",
        "c*.h5": "failed",
        "d.h5": "done",
        "sub/e.h5": "running",
    }
    assert (await zone.arrival("a.h5")).error["message"] == "/d stays behind"
    assert (await zone.arrival("b.h5")).error["reason"] == "FORMAT_MISMATCH"
    again, _ = await zone.jobs.get("t3")
    assert (again.spec["verb"]["domain"], again.spec["overwrite"]) == ("/home/x/sub/", False)


async def test_no_more_run_at_once_than_allowed_and_the_oldest_come_first(zone):
    await zone.enter(at_once=2)
    await zone.put("c")
    one = zone.process()
    await zone.look(one)
    await zone.put("a", "b")
    await zone.look(one)
    await zone.rounds(one)
    assert [key for key, _ in zone.jobs.asked] == ["in/c", "in/a"]
    await zone.jobs.end("t1")
    await zone.rounds(one, 1)
    assert [key for key, _ in zone.jobs.asked][2:] == ["in/b"]


async def test_a_watch_that_looks_once_ends_with_what_it_saw(zone):
    await zone.enter(once=True, tries=1)
    await zone.put("a", "b")
    one = zone.process()
    await zone.rounds(one)
    await zone.jobs.end("t1")
    await zone.rounds(one)
    assert one.unfinished() == 1
    await zone.jobs.end("t2", "FORMAT_MISMATCH")
    await zone.rounds(one)
    assert (await zone.store.read(lambda c: watches.get(c, "w"))).state == "ended"
    assert one.unfinished() == 0

    await zone.put("c")
    await zone.enter(once=True, tries=1)
    await zone.rounds(one)
    assert await zone.states() == {"a": "done", "b": "running", "c": "running"}


async def test_a_watch_that_looks_once_ends_though_looks_are_slow_and_one_is_always_due(zone, monkeypatch):
    listing = zone.lz.list

    async def slowly(*words, **named):
        await asyncio.sleep(0.02)
        async for each in listing(*words, **named):
            yield each

    monkeypatch.setattr(zone.lz, "list", slowly)
    await zone.enter(once=True)
    await zone.put("a")
    one = zone.process()
    await zone.rounds(one)
    await zone.jobs.end("t1")
    await zone.rounds(one)
    assert (await zone.store.read(lambda c: watches.get(c, "w"))).state == "ended"


async def test_a_watch_that_looks_once_does_not_wait_for_markers_that_are_not_there(zone):
    await zone.enter(once=True, marker="*.done", include=("*.h5",))
    await zone.put("a.h5.done", "b.h5", "a.h5")
    await zone.put("a.h5.done")
    one = zone.process()
    await zone.rounds(one)
    assert one.unfinished() == 1
    await zone.jobs.end("t1")
    await zone.rounds(one)
    assert (await zone.store.read(lambda c: watches.get(c, "w"))).state == "ended"
    assert await zone.states() == {"a.h5": "done", "b.h5": "seen"}


async def test_a_watch_that_cannot_look_once_ends_and_says_why(zone):
    await zone.enter(once=True)
    zone.faulty.script.faults = [Fault("list", 0, Raise(Unavailable("the store is down")))]
    await zone.rounds(zone.process())
    told = await zone.store.read(lambda c: watches.get(c, "w"))
    assert (told.state, told.error["reason"]) == ("ended", "PLANE_UNAVAILABLE")


async def test_a_stopped_watch_begins_nothing_and_goes_on_when_it_is_asked_for_again(zone):
    await zone.enter(at_once=1)
    await zone.put("a", "b")
    one = zone.process()
    await zone.rounds(one)
    await zone.store.write(lambda c: watches.stop(c, "w"))
    with pytest.raises(TargetBusy):
        await one.remove("w")
    await zone.jobs.end("t1")
    await zone.rounds(one)
    assert await zone.states() == {"a": "done", "b": "settled"}
    with pytest.raises(AlreadyExists):
        await one.watch(replace(ENTRY, options=replace(NOW, at_once=2)))
    await one.watch(replace(ENTRY, options=replace(NOW, at_once=1)))
    await zone.rounds(one)
    assert (await zone.states())["b"] == "running"
    await zone.jobs.end("t2")
    await zone.rounds(one)
    await one.remove("w")
    with pytest.raises(WatchNotFound):
        await one.ask("w", arrivals.reset, [State.DONE], lambda _: True)


async def test_what_is_stopped_in_the_middle_of_a_look_is_not_entered_any_more(zone):
    await zone.enter()
    await zone.put("a")
    one = zone.process()
    held = Hold()
    zone.faulty.script.faults = [Fault("list", 1, held)]
    await one.round()
    await held.reached.wait()
    await zone.store.write(lambda c: watches.stop(c, "w"))
    looks = list(one._looks.values())
    held.gate.set()
    await asyncio.gather(*looks)
    assert await zone.states() == {}


def test_an_ingest_is_asked_for_by_relative_names():
    watch = replace(ENTRY, action=Load("hdf5://home/x", "main", "link", public_read=True))
    arrival, action = Arrival("w", "a/ü.h5", "v", 1, State.RUNNING, 0, 0, 0), Loading()
    spec = action.spec(watch, [arrival])
    assert spec.verb.sources[0].key == "in/a/ü.h5"
    assert (spec.verb.domain, spec.verb.target, spec.verb.mode) == ("/home/x/a/", "main", "link")
    assert (spec.verb.public_read, spec.overwrite) == (True, False)
    loaded = replace(arrival, loaded="u")
    assert action.spec(watch, [loaded]).overwrite
    assert action.group(loaded) != action.group(arrival)
    for key in ("a*.h5", "a//b", "../x", "\n"):
        with pytest.raises(InvalidSpec):
            action.check(watch, replace(arrival, key=key))
