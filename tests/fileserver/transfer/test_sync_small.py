"""Small objects of a sync, which are moved many in one trip where one end is a directory."""

import hashlib
from dataclasses import replace

import pytest

from fileserver.transfer.sync import WIDTH
from fileserver.transfer.sync_small import LARGEST, MOST
from planes.errors import Refused, Unavailable
from planes.faulty import Fault, FaultyPlane, Flip, Raise
from planes.memory import MemoryPlane
from planes.metered import MeteredPlane
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.transfer.sync_world import LARGE, World, shown

COUNT = 3 * MOST + 1


class Digests(MemoryPlane):
    """A store whose versions look as if they were MD5s, and are, unless `salt` is in them."""

    salt = b""

    @property
    def capabilities(self):
        return replace(super().capabilities, shared=True)

    async def list(self, prefix="", after="", left_out=None):
        async for info in super().list(prefix, after, left_out):
            yield self._as_digest(info)

    async def stat(self, key):
        return self._as_digest(await super().stat(key))

    async def read(self, extent, into):
        assert extent.version == (await self.stat(extent.key)).version
        await super().read(replace(extent, version=""), into)

    def _as_digest(self, info):
        data = self._store.cut(info.key, "", 0, info.size) + self.salt
        return replace(info, version=hashlib.md5(data, usedforsecurity=False).hexdigest())


def directory(name, path, durability="os"):
    return MeteredPlane(PosixPlane(name, PosixSettings(path=path, durability=durability)))


@pytest.fixture
async def up(store, tmp_path):
    """A directory with many small files and one that is too large to go with them, and a store."""
    folder = tmp_path / "in"
    for number in range(COUNT):
        path = folder / f"{number % 3}" / f"{number:03d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    (folder / "large").write_bytes(b"x" * (LARGEST + 1))
    world = World(store)
    world.planes._open["source"] = directory("source", tmp_path)
    yield world
    await world.planes._open["source"].aclose()


@pytest.fixture
async def down(store, tmp_path):
    """A store with many small objects, and a directory."""
    world = World(store)
    world.planes._open["source"] = world.inside["source"] = Digests("source")
    world.planes._open["target"] = directory("target", tmp_path)
    for number in range(COUNT):
        await world.put("source", f"in/{number % 3}/{number:03d}", b"%d" % number)
    yield world
    await world.planes._open["target"].aclose()


async def test_small_files_are_read_many_in_one_trip(up):
    record = await up.run()
    assert shown(record) == {"copied": COUNT + 1, "equal": 0, "deleted": 0, "failed": 0}
    requests = up.planes._open["source"].snapshot().requests
    assert 4 < requests["read_many"] <= 4 + COUNT  # and a look at what lies there by then
    assert (requests["read"], requests["stat"]) == (1, 1)  # of the large one
    assert up.place.objects["up/1/004"].data == b"4"
    assert up.live.through_us == record.outcome["size"] == up.live.done
    [taken] = record.outcome["routes"]
    assert (taken["route"], taken["why"]) == ("streamed", "target cannot fetch from source by itself")


async def test_small_objects_are_written_many_in_one_trip_and_compared_with_their_digests(down, tmp_path):
    record = await down.run()
    assert (shown(record)["copied"], record.outcome["evidence"]) == (COUNT, "compared")
    requests = down.planes._open["target"].snapshot().requests
    assert (requests["put_many"], "put" in requests) == (4, False)
    assert (tmp_path / "up/1/004").read_bytes() == b"4"


async def test_one_that_is_gone_or_has_changed_is_a_matter_of_its_own(up, tmp_path):
    await up.begin()
    (tmp_path / "in/0/003").unlink()
    (tmp_path / "in/1/004").write_bytes(b"other")
    await up.fill()
    record = await up.end()
    assert (shown(record)["copied"], shown(record)["failed"]) == (COUNT, 1)
    assert [each["key"] for each in record.outcome["sync"]["exceptions"]] == ["0/003"]
    assert up.place.objects["up/1/004"].data == b"other"


async def test_one_that_is_gone_sends_its_group_alone_and_no_other(up, tmp_path):
    for number in range(COUNT, 20 * MOST):
        (tmp_path / f"in/{number}").write_bytes(b"x")
    await up.begin()
    (tmp_path / "in/0/003").unlink()
    await up.fill()
    assert shown(await up.end())["copied"] == 20 * MOST
    assert up.planes._open["source"].snapshot().requests["read"] <= MOST + 1  # its group, and the large one


async def test_one_that_is_refused_once_is_tried_alone(up):
    up.target.script.faults = [Fault("put", 5, Raise(Refused("not now")))]
    assert shown(await up.run())["copied"] == COUNT + 1


async def test_a_place_that_is_taken_costs_one_object_and_not_its_group(down, tmp_path):
    (tmp_path / "up/1/004").mkdir(parents=True)
    record = await down.run()
    assert [each["key"] for each in record.outcome["sync"]["exceptions"]] == ["1/004"]
    assert shown(record)["copied"] == COUNT - 1
    assert (tmp_path / "up/1/007").read_bytes() == b"7"
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


async def test_a_store_that_is_away_ends_the_run_and_is_no_matter_of_an_object(up):
    up.target.script.faults = [Fault("put", 5, Raise(Unavailable("away")))]
    await up.begin()
    with pytest.raises(Unavailable):
        await up.fill()
    assert shown(await up.run())["failed"] == 0


async def test_a_file_that_is_overwritten_before_its_copy_is_there_is_copied_anew(up, tmp_path):
    put = up.target.put

    async def overwritten(key, data, **words):
        path = tmp_path / "in" / key.removeprefix("up/")
        if key == "up/1/004" and path.read_bytes() == b"4":
            path.write_bytes(b"5")
        return await put(key, data, **words)

    up.target.put = overwritten
    record = await up.run()
    assert (shown(record)["copied"], up.place.objects["up/1/004"].data) == (COUNT + 1, b"5")


async def test_versions_that_are_no_digests_prove_nothing_and_all_go_alone(down, tmp_path):
    down.inside["source"].salt = b"salt"
    for number in range(COUNT, 8 * WIDTH):
        await down.put("source", f"in/{number}", b"%d" % number)
    record = await down.run()
    assert shown(record)["copied"] == 8 * WIDTH
    requests = down.planes._open["target"].snapshot().requests
    assert ("put_many" in requests, requests["put"]) == (False, 8 * WIDTH)
    assert (tmp_path / "up/1/004").read_bytes() == b"4"


async def test_bytes_that_changed_on_the_way_are_seen_in_a_group_and_read_again(down, tmp_path):
    down.planes._open["source"] = FaultyPlane(down.inside["source"])
    down.planes._open["source"].script.faults = [Fault("read", 5, Flip(0))]
    assert shown(await down.run())["copied"] == COUNT
    for number in range(COUNT):
        assert (tmp_path / f"up/{number % 3}/{number:03d}").read_bytes() == b"%d" % number


@pytest.mark.parametrize("size", [1, len(LARGE)])
async def test_bytes_that_changed_on_the_way_do_not_pass_for_what_the_store_has(store, tmp_path, size):
    world = World(store)
    inside = world.inside["source"] = Digests("source")
    world.planes._open |= {"source": FaultyPlane(inside), "target": directory("target", tmp_path, "fsync")}
    await world.put("source", "in/z", b"z" * size)
    world.planes._open["source"].script.faults = [Fault("read", 1, Flip(0))]
    record = await world.run()
    assert [each["key"] for each in record.outcome["sync"]["exceptions"]] == ["z"]
    assert not (tmp_path / "up/z").exists()
    await world.planes._open["target"].aclose()


async def test_with_verify_read_all_go_alone(up):
    record = await up.run(verify=True)
    assert shown(record)["copied"] == COUNT + 1
    assert "read_many" not in up.planes._open["source"].snapshot().requests


async def test_a_layer_that_knows_single_objects_only_sees_each(up):
    up.planes._open["source"] = FaultyPlane(up.planes._open["source"])
    assert shown(await up.run())["copied"] == COUNT + 1
