"""What a sync is about: names in a list, filters, names of folders; and that a dry run says what will happen."""

from dataclasses import replace
from datetime import datetime

import pytest

from fileserver.errors import InvalidSpec
from fileserver.transfer import sync_rows
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress
from fileserver.transfer.spec import Location, Spec, Sync
from planes.errors import NotFound
from planes.plane import MIB
from tests.fileserver.transfer.sync_world import World, shown

NAMES = Location("source", "names")


@pytest.fixture
async def world(store):
    made = World(store)
    for key in ("in/a.csv", "in/b.log", "in/d/c.csv"):
        await made.put("source", key)
    return made


async def planned(world, **more):
    """What a dry run says: totals, (action, why, key) of all objects, warnings."""
    facts = {"include": (), "exclude": (), "names": None, "delete": False, "max_delete": 1000, "checksum": False} | more
    verb = Sync(Location("source", "in"), Location("target", "up"), **facts)
    found = [(compared, items) async for compared, items in world.stages.preview(Spec(verb))]
    objects = [("fail" if i.result else i.action, i.why, i.key) for _, items in found for i in items]
    return found[0][0].totals, objects, found[0][0].warnings


async def test_what_the_list_has_and_the_source_has_not_goes_if_that_is_asked_for(world):
    await world.put("source", "names", b"a.csv\nold.csv\nnever.csv\n")
    for key in ("up/old.csv", "up/another.csv"):
        await world.put("target", key)
    totals, objects, warnings = await planned(world, names=NAMES, delete=True)
    assert objects == [("copy", "missing", "a.csv"), ("delete", "extra", "old.csv")]
    assert (totals.delete, totals.fail) == (1, 0)
    assert warnings == ("1 of the names in the list are in neither end: never.csv",)
    record = await world.run(names=NAMES, delete=True)
    assert (record.state, shown(record)) == ("SUCCEEDED", {"copied": 1, "equal": 0, "deleted": 1, "failed": 0})
    assert world.keys() == {"up/a.csv", "up/another.csv"}


async def test_a_dry_run_names_what_will_fail(world):
    await world.put("source", "names", b"a.csv\nold.csv\nd\n")
    await world.put("target", "up/old.csv")
    totals, objects, _ = await planned(world, names=NAMES)
    assert objects == [("copy", "missing", "a.csv"), ("fail", "list", "d"), ("fail", "list", "old.csv")]
    assert (totals.copy, totals.fail) == (1, 2)
    record = await world.run(names=NAMES)
    assert (record.state, shown(record)["copied"], shown(record)["failed"]) == ("PARTLY_SUCCEEDED", 1, 2)
    assert [each["key"] for each in record.outcome["sync"]["exceptions"]] == ["d", "old.csv"]


async def test_a_name_that_a_filter_leaves_out_is_not_missed(world):
    await world.put("source", "names", b"a.csv\nb.log\ngone.log\n")
    record = await world.run(names=NAMES, exclude=("*.log",))
    assert (record.state, shown(record)["failed"]) == ("SUCCEEDED", 0)
    assert world.keys() == {"up/a.csv"}


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbfa.csv\r\nd/c.csv\r\n", b"./a.csv\n\n/d/c.csv", b"a.csv\n" * 3 + b"d/c.csv\na.csv\n"]
)
async def test_lists_of_other_programs_are_understood(world, text):
    await world.put("source", "names", text)
    record = await world.run(names=NAMES)
    assert (record.state, shown(record)["copied"]) == ("SUCCEEDED", 2)
    assert world.keys() == {"up/a.csv", "up/d/c.csv"}


@pytest.mark.parametrize("text", [b"a.csv\0b.log\0", b"\xff\xfea\0.\0", b"x" * MIB * 2])
async def test_what_is_no_list_is_refused_before_anything_is_done(world, text):
    await world.put("source", "names", text)
    with pytest.raises(InvalidSpec, match="is not a list of names, one a line"):
        await world.begin(names=NAMES)
    assert not world.keys()


async def test_names_in_vain_are_not_counted_as_a_source_that_cannot_be_read(world, monkeypatch):
    monkeypatch.setattr("fileserver.transfer.sync.MOST_FAILED", 3)
    await world.put("source", "names", b"a.csv\n" + b"".join(b"gone%d\n" % n for n in range(9)))
    record = await world.run(names=NAMES)
    assert (record.state, shown(record)["copied"], shown(record)["failed"]) == ("PARTLY_SUCCEEDED", 1, 9)


def age(world, plane, key, text):
    """Give an object the time that a store tells."""
    there = world.inside[plane]._store.objects
    there[key] = replace(there[key], info=replace(there[key].info, modified=datetime.fromisoformat(text)))


@pytest.mark.parametrize(
    ("source", "target", "newer"),
    [
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", True),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.5Z", True),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:01Z", False),
        ("2026-01-01T10:00:00.2Z", "2026-01-01T10:00:00.5Z", False),
    ],
)
async def test_what_was_overwritten_in_the_second_in_which_it_was_copied_is_copied_again(world, source, target, newer):
    await world.put("source", "in/a.csv", b"new")
    await world.put("target", "up/a.csv", b"old")
    age(world, "source", "in/a.csv", source)
    age(world, "target", "up/a.csv", target)
    record = await world.run(include=("a.csv",))
    assert (shown(record)["copied"], shown(record)["equal"]) == ((1, 0) if newer else (0, 1))


async def put_folder(world, key, data=b""):
    """An object as some stores have it, with the name of a folder."""
    await world.put("source", key, data)
    objects = world.inside["source"]._store.objects
    there = objects.pop(key)
    objects[f"{key}/"] = replace(there, info=replace(there.info, key=f"{key}/"))


async def test_a_source_that_is_one_object_is_told_from_an_empty_folder(store):
    world = World(store)
    for key, says in (("in", "in is no folder: sync the one"), ("elsewhere", "nothing is below source:in/")):
        world.inside["source"]._store.objects.clear()
        await world.put("source", key)
        with pytest.raises(NotFound, match=says):
            await planned(world)


async def test_data_under_the_name_of_a_folder_is_named_and_not_left_out(world):
    await put_folder(world, "in/d")
    await put_folder(world, "in/e", b"data")
    await world.put("target", "up/extra")
    totals, objects, warnings = await planned(world, delete=True)
    assert ("fail", "folder", "e/") in objects
    assert totals.fail == 1
    assert warnings == ("1 keys that end in / (folders, not files) were left out",)
    record = await world.run(delete=True)
    [failed] = record.outcome["sync"]["exceptions"]
    assert (record.state, failed["key"], failed["reason"]) == ("PARTLY_SUCCEEDED", "e/", "PLANE_REFUSED")
    assert world.keys() >= {"up/extra"}, "nothing is deleted while something could not be copied"


async def test_one_may_exclude_data_under_the_name_of_a_folder(world):
    await put_folder(world, "in/e", b"data")
    record = await world.run(exclude=("e/",))
    assert (record.state, shown(record)["failed"]) == ("SUCCEEDED", 0)


async def test_whoever_goes_on_after_a_crash_knows_how_much_there_is_to_do(world):
    await world.begin()
    stored = (await world.stages.record("t1")).progress
    assert (stored.bytes_total, stored.parts_total) == (3, 3)
    world.live = Live(stored)
    await world.fill()
    record = await world.end()
    assert record.progress == Progress(3, 3, 3, 0, 0, 3, 3)
    assert not await world.store.read(lambda c: sync_rows.page(c, "t1", 1, pending=False))
