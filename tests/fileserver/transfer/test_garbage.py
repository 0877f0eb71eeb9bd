"""What nobody needs any more is deleted when its time has come, and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from fileserver.catalogue import files, tables, waste
from fileserver.catalogue.files import Catalogue, FilePart, LogicalFile
from fileserver.catalogue.names import MANIFEST, part_key
from fileserver.transfer import garbage, ledger, manifest_rows
from fileserver.transfer.manifest import Source
from fileserver.transfer.record import Record
from planes.errors import Changed, Refused, Unavailable
from planes.faulty import Fault, FaultyPlane, Raise
from planes.memory import MemoryPlane
from tests.fileserver import given

GRACE = 100.0
DOWN = Fault("delete", 0, Raise(Unavailable("it is down")))


class Planes(given.Planes):
    """Of which one that is an error cannot be opened."""

    def plane(self, name):
        found = super().plane(name)
        if isinstance(found, Exception):
            raise found
        return found


async def enter(store, plane, name="a::x", generation="g1", count=3, **more) -> list[FilePart]:
    """A published file whose objects are on the plane."""
    parts = []
    for number in range(1, count + 1):
        key = part_key(name, generation, number, count)
        await plane.put(key, b"abc", upload_id="setup")
        parts.append(FilePart(number, plane.name, key, 3, "", {}, owned=more.get("owned", True)))
    home = parts[0].key.rpartition("/")[0]
    await plane.put(f"{home}/{MANIFEST}", b"{}", upload_id="setup")
    file = LogicalFile(name, generation, 3 * count, None, "compared", None, count, generation, 0.0)

    def work(c) -> None:
        files.enter_parts(c, generation, parts)
        files.publish(c, file, overwrite=True, retire_at=GRACE)

    await store.write(work)
    return parts


async def keys(plane) -> list[str]:
    return [info.key async for info in plane.list()]


async def rows(store, generation="g1") -> int:
    p = tables.file_parts
    count = sa.select(sa.func.count()).select_from(p).where(p.c.generation == generation)
    return await store.read(lambda c: c.execute(count).scalar_one())


async def drop(store, name="a::x") -> None:
    await store.write(lambda c: files.drop(c, name, GRACE))


async def test_bytes_go_after_the_time_of_grace_and_not_before(store):
    plane = MemoryPlane("data")
    await enter(store, plane)
    await drop(store)
    assert await garbage.collect(store, Planes(data=plane), GRACE - 1) == 0
    assert len(await keys(plane)) == 4
    assert await rows(store) == 3
    assert await garbage.collect(store, Planes(data=plane), GRACE) == 4
    assert await keys(plane) == [], "the manifest goes with its parts"
    assert await rows(store) == 0


async def test_what_was_overwritten_goes_and_what_replaced_it_stays(store):
    plane = MemoryPlane("data")
    await enter(store, plane)
    await enter(store, plane, generation="g2")
    await garbage.collect(store, Planes(data=plane), GRACE)
    assert len(await keys(plane)) == 4
    assert all("~g2" in key for key in await keys(plane))
    assert (await rows(store), await rows(store, "g2")) == (0, 3)


async def test_the_manifest_of_a_renamed_file_goes_too(store):
    plane = MemoryPlane("data")
    await enter(store, plane)
    await store.write(lambda c: files.rename(c, "a::x", "b::y"))
    await drop(store, "b::y")
    await garbage.collect(store, Planes(data=plane), GRACE)
    assert await keys(plane) == []


async def test_what_a_running_transfer_names_stays_until_it_ends(store):
    plane = MemoryPlane("data")
    parts = await enter(store, plane)
    record = Record("t1", {}, "RUNNING", "", 1, 0.0, 0.0)
    source = Source("data", parts[1].key, 3, "", {})
    await store.write(lambda c: ledger.create(c, record, "r1", "object:data:out"))
    await store.write(lambda c: manifest_rows.save_sources(c, "t1", [source]))
    await drop(store)
    await garbage.collect(store, Planes(data=plane), GRACE + 1)
    assert await keys(plane) == [parts[1].key]
    assert await rows(store) == 3
    await store.write(lambda c: ledger.end(c, "t1", GRACE + 2, "SUCCEEDED"))
    await garbage.collect(store, Planes(data=plane), GRACE + 3)
    assert await keys(plane) == []
    assert await rows(store) == 0


async def test_objects_that_are_not_ours_stay_and_only_their_rows_go(store):
    plane = MemoryPlane("data")
    await enter(store, plane, owned=False)
    await drop(store)
    assert await garbage.collect(store, Planes(data=plane), GRACE) == 0
    assert len(await keys(plane)) == 4
    assert await rows(store) == 0


async def test_rows_of_a_file_that_is_being_published_stay(store):
    record = Record("t1", {}, "PUBLISHING", "", 1, 0.0, 0.0)
    await store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
    part = FilePart(1, "data", "k", 1, "", {}, owned=True)
    await store.write(lambda c: files.enter_parts(c, "t1", [part]))
    await garbage.collect(store, Planes(), GRACE)
    assert await rows(store, "t1") == 1


@pytest.mark.parametrize("broken", [lambda plane: FaultyPlane(plane, [DOWN]), lambda _: Refused("no credentials")])
async def test_a_plane_that_fails_blocks_no_other(store, broken, monkeypatch):
    monkeypatch.setattr(files, "PAGE", 2)
    bad, good = MemoryPlane("bad"), MemoryPlane("good")
    await enter(store, bad, "a::bad", "g1", 30)
    await enter(store, good, "a::good", "g2", 5)
    await drop(store, "a::bad")
    await drop(store, "a::good")
    assert await garbage.collect(store, Planes(bad=broken(bad), good=good), GRACE) == 6
    assert await keys(good) == []
    assert (await rows(store, "g1"), await rows(store, "g2")) == (30, 0)
    assert await garbage.collect(store, Planes(bad=bad, good=good), GRACE) == 31
    assert await keys(bad) == []


async def test_an_object_that_fails_blocks_no_other_and_is_tried_again(store):
    plane = MemoryPlane("data")
    await enter(store, plane, count=20)
    await drop(store)
    faulty = FaultyPlane(plane, [Fault("delete", 4, Raise(Refused("it is locked")))])
    assert await garbage.collect(store, Planes(data=faulty), GRACE) == 20
    assert len(await keys(plane)) == 1
    assert await rows(store) == 20
    assert await garbage.collect(store, Planes(data=faulty), GRACE) == 1
    assert await keys(plane) == []
    assert await rows(store) == 0


async def test_rows_of_a_plane_that_is_gone_from_the_configuration_fill_no_page(store):
    gone, plane = MemoryPlane("agone"), MemoryPlane("data")
    await store.write(lambda c: waste.discard(c, "agone", [f"k{n}" for n in range(files.PAGE + 1)], 0.0))
    await enter(store, plane)
    await drop(store)
    assert await garbage.collect(store, Planes(data=plane), GRACE) == 4
    assert await garbage.collect(store, Planes(agone=gone, data=plane), GRACE) == files.PAGE + 1


async def test_a_reader_of_a_file_that_is_dropped_sees_all_parts_or_is_told(store):
    plane, catalogue = MemoryPlane("data"), Catalogue(store)
    parts = await enter(store, plane, count=5)
    await drop(store)
    assert await catalogue.all_parts("g1") == parts
    await garbage.collect(store, Planes(data=plane), GRACE)
    with pytest.raises(Changed, match="was replaced while it was read; try again"):
        await catalogue.all_parts("g1")


async def test_a_list_of_parts_that_is_short_is_never_taken_for_the_whole(store):
    plane = MemoryPlane("data")
    await enter(store, plane, count=5)
    await store.write(lambda c: c.execute(tables.file_parts.delete().where(tables.file_parts.c.number > 3)))
    with pytest.raises(Changed):
        await Catalogue(store).all_parts("g1")


async def test_a_generation_that_is_retired_twice_keeps_one_entry(store):
    plane = MemoryPlane("data")
    parts = await enter(store, plane)
    await drop(store)
    await store.write(lambda c: files.retire(c, "g1", GRACE + 5))
    await store.write(lambda c: files.enter_parts(c, "g1", [replace(parts[0], size=3)]))
    assert await garbage.collect(store, Planes(data=plane), GRACE) == 0
    assert await garbage.collect(store, Planes(data=plane), GRACE + 5) == 4
