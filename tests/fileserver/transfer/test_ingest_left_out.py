"""Files that cannot be joined with others, against a real HSDS: nothing is joined, or they are left out, and told."""

import pytest

from fileserver.hdf5 import trial
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress
from fileserver.transfer.spec import spec_from_json
from planes.errors import Error
from tests.fileserver.transfer.ingest_world import Crash, living, server
from tests.fileserver.transfer.months import Months, damage, of_another_type, without_wind

__all__ = ["server"]  # a fixture


@pytest.fixture
async def world(tmp_path, server, monkeypatch):
    async with living(Months(tmp_path, server, monkeypatch)) as made:
        yield made


async def test_damaged_data_that_are_placed_undecoded_are_told_with_their_file_and_the_way_out(world):
    for number in range(2):
        world.month(number, few=True)
    damage(world.data / "m0.h5")
    await world.join("damaged")
    with pytest.raises(Error, match=r"data:m0\.h5 cannot be joined: the data of /wind cannot be read") as caught:
        await world.run("damaged")
    assert "Nothing was joined" in caught.value.message
    assert "--skip-bad" in caught.value.message
    await world.stages.stop("damaged", "fail", Live(Progress()))
    assert world.left()[0] == []


@pytest.mark.parametrize("target", ["main", "far"])
async def test_files_that_cannot_be_joined_are_left_out_where_that_is_asked_for_and_the_others_are_joined(
    world, target
):
    ours = world.left()[1]
    for number in range(6):
        world.month(number, change={2: of_another_type}.get(number), few=number != 2)
    for number in (0, 4):  # the first stands for the domain; the other is placed before it is read
        damage(world.data / f"m{number}.h5")
    (world.data / "m5.h5").write_bytes((world.data / "m5.h5").read_bytes()[:3000])
    left_out = f"left-out-{target}"
    await world.join(left_out, skip_bad=True, target=target)
    record = await world.run(left_out)
    assert record.state == "PARTLY_SUCCEEDED", record.error
    assert world.whole(1, 3) == 10
    files = await world.files(left_out)
    assert [each.state for each in files] == ["failed", "loaded", "failed", "loaded", "failed", "failed"]
    assert not any(each.owed for each in files)
    assert [each.error["message"].partition(":")[2][:40] for each in files if each.error][:2] == [
        "m0.h5 cannot be joined: the data of /wind"[:40],
        "m2.h5 cannot be joined: /wind cannot conti"[:40],
    ]
    assert [each["key"] for each in record.outcome["ingest"]["exceptions"]] == [f"data:m{n}.h5" for n in (0, 2, 4, 5)]
    names, roots = world.left()
    assert names == ["x"]
    if target == "far":
        return  # what the server is to remove, it removes later
    assert roots - ours == set()
    world.month(4, few=True)  # it is mended, and comes behind what is there
    await world.join("mended", "m1.h5", "m3.h5", "m4.h5")
    assert (await world.run("mended")).state == "SUCCEEDED"
    assert world.whole(1, 3, 4) == 15
    for number in (6, 7):
        world.month(number, few=True)
    damage(world.data / "m6.h5")
    for transfer, sources in (("more", ("m4.h5", "m6.h5", "m7.h5")), ("nothing-more", ("m4.h5", "m6.h5"))):
        await world.join(transfer, *sources, skip_bad=True)
        assert (await world.run(transfer)).state == "PARTLY_SUCCEEDED"
        assert world.whole(1, 3, 4, 7) == 20
        assert [each.state for each in await world.files(transfer)] == ["loaded", "failed", "loaded"][: len(sources)]


async def test_a_process_that_dies_while_it_leaves_files_out_mixes_nothing(world):
    ours = world.left()[1]
    for number in range(3):
        world.month(number, few=True)
    damage(world.data / "m1.h5")  # the domain is the first file's before and after
    died, step, is_over = 35, 40, False
    while not is_over:
        transfer = f"left-out-dying-{died}"
        await world.join(transfer, skip_bad=True, verify="sample", overwrite=True)
        world.life.left = died
        try:
            await world.run(transfer)
            is_over = True
        except Crash:
            world.life.left = 1 << 30
            await world.run(transfer)
        assert (await world.stages.record(transfer)).state == "PARTLY_SUCCEEDED"
        assert world.whole(0, 2) == 10
        died += step
        ours |= {(await world.files(transfer))[0].root[2:19]}
        assert world.left()[1] - ours == set()
    assert died > 60


async def test_files_that_the_library_does_not_survive_are_told_when_that_has_happened_twice(world, monkeypatch):
    for number in range(3):
        world.month(number, few=True)

    async def ends(_plane, key):
        return "ends every process that reads it (SIGSEGV)" if key == "m1.h5" else ""

    monkeypatch.setattr(trial, "ends", ends)
    await world.join("deadly", skip_bad=True, verify="sample")
    for _ in range(2):
        world.life.left = 20
        with pytest.raises(Crash):
            await world.run("deadly")
    world.life.left = 1 << 30
    assert (await world.run("deadly")).state == "PARTLY_SUCCEEDED"
    files = await world.files("deadly")
    assert [each.state for each in files] == ["loaded", "failed", "loaded"]
    assert "data:m1.h5 ends every process" in files[1].error["message"]
    assert world.whole(0, 2) == 10


async def test_nothing_is_joined_where_all_files_are_bad_and_a_preview_tells_what_would_be_left_out(world):
    for number in range(3):
        world.month(number, change={1: without_wind}.get(number), few=number != 1)
    await world.join("foreseen", skip_bad=True)
    stages = IngestStages(world.planes, world.store, world.targets)
    spec = spec_from_json((await stages.record("foreseen")).spec)
    told = {file.key: bool(error) async for file, _, error in stages.preview_joined(spec)}
    assert told == {"m0.h5": False, "m1.h5": True, "m2.h5": False}
    for number in range(3):
        (world.data / f"m{number}.h5").write_bytes(b"no HDF5")
    await world.join("all-bad", skip_bad=True)
    with pytest.raises(Error, match="is not HDF5"):
        await world.run("all-bad")
    await world.stages.stop("all-bad", "fail", Live(Progress()))
    assert [each.state for each in await world.files("all-bad")] == ["failed"] * 3
    assert world.left()[0] == []
