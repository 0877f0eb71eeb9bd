"""Files that become one domain along a dimension, against a real HSDS: contents, crashes, files that do not fit."""

import h5py
import numpy as np
import pytest

from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress
from fileserver.transfer.spec import spec_from_json
from planes.errors import Error
from tests.fileserver.transfer.ingest_world import Crash, living, server
from tests.fileserver.transfer.months import Months, of_another_type, without_wind

__all__ = ["server"]  # a fixture


@pytest.fixture
async def world(tmp_path, server, monkeypatch):
    async with living(Months(tmp_path, server, monkeypatch)) as made:
        yield made


@pytest.mark.parametrize("target", ["main", "far"])
async def test_files_become_one_domain(world, target):
    for number in range(3):
        world.month(number)
    joined = f"joined-{target}"
    await world.join(joined, target=target)
    record = await world.run(joined)
    assert record.state == "SUCCEEDED", record.error
    assert world.whole(0, 1, 2) == 15
    assert world.left()[0] == ["x"]
    assert [(each.state, each.verified) for each in await world.files(joined)] == [("loaded", "full")] * 3
    assert record.outcome["ingest"]["loaded"] == 3
    told = await world.told(joined, 3)
    result, _, reason = told["/wind"]
    assert (result, set(told)) == ("loaded", {"/wind", "/time", "/names", "/side", "/late", "/to"})
    how = {"main": ": 3 rows of chunks placed as they are", "far": " sent to the server"}[target]
    assert reason.startswith(f"elements 10:15 of dimension 0{how}")
    assert reason.endswith("all of its data compared")


@pytest.mark.parametrize(
    ("target", "counts"), [("main", (1, 3, 4, 4)), pytest.param("far", (1, 3), marks=pytest.mark.soak)]
)
async def test_files_that_come_later_extend_the_domain_and_none_is_joined_twice(world, target, counts):
    roots = []
    for count in counts:
        for number in range(count):
            if not (world.data / f"m{number}.h5").exists():
                world.month(number)
        transfer = f"later-{target}-{len(roots)}"
        await world.join(transfer, target=target)
        record = await world.run(transfer)
        assert record.state == "SUCCEEDED", record.error
        assert world.whole(*range(count)) == 5 * count
        roots.append((await world.files(transfer))[0].root)
        assert world.left()[0] == ["x"]
    assert len(set(roots)) == len(set(counts))
    if target == "main":
        assert roots[2] == roots[3]
        assert "already" in (await world.told("later-main-3", 2))[""][2]


@pytest.mark.parametrize(
    ("target", "step"),
    [
        ("main", 41),
        pytest.param("main", 3, marks=pytest.mark.soak),
        pytest.param("far", 7, marks=pytest.mark.soak),  # a flush takes the server seconds
    ],
)
async def test_a_process_that_dies_anywhere_leaves_the_old_domain_or_the_extended_one(world, target, step):
    for number in range(2):
        world.month(number, few=True)
    ours = world.left()[1]  # of domains that others had: the server itself removes them, later
    died, is_over = 0, False
    while not is_over:
        await world.join(f"first-{target}-{step}-{died}", "m0.h5", overwrite=True, verify="metadata")
        await world.run(f"first-{target}-{step}-{died}")
        transfer = f"{target}-{step}-{died}"
        await world.join(transfer, verify="sample", target=target)
        world.life.left = died
        try:
            await world.run(transfer)
            is_over = True
        except Crash:
            world.life.left = 1 << 30
            status, _ = world.server.call("GET", "/", domain=f"{world.folder}/x")
            assert status in {200, 410}  # in between there are some milliseconds without
            if status == 200:
                seen = world.extent() // 5
                assert world.whole(*range(seen)) == 5 * seen
            await world.run(transfer)
        record = await world.stages.record(transfer)
        assert record.state == "SUCCEEDED", record.error
        assert world.whole(0, 1) == 10
        assert [each.state for each in await world.files(transfer)] == ["loaded", "loaded"]
        roots = {(await world.files(name))[0].root[2:19] for name in (f"first-{target}-{step}-{died}", transfer)}
        ours |= roots
        names, left = world.left()
        assert (names, left - ours) == (["x"], set())
        died += step
    assert died > 100


async def test_a_new_domain_is_there_whole_or_not_at_all_and_cancelled_leaves_nothing(world):
    for number in range(2):
        world.month(number, few=True)
    before = world.left()[1]
    for died in (10, 30, 50):
        await world.join(f"cancelled-{died}", verify="sample")
        world.life.left = died
        with pytest.raises(Crash):
            await world.run(f"cancelled-{died}")
        world.life.left = 1 << 30
        assert "root" not in world.server.call("GET", "/", domain=f"{world.folder}/x")[1]
        await world.stages.stop(f"cancelled-{died}", "cancel", Live(Progress()))
        assert (await world.stages.record(f"cancelled-{died}")).state == "CANCELLED"
        names, roots = world.left()
        assert (names, roots - before) == ([], set())


async def test_files_that_do_not_fit_are_told_each_and_nothing_is_joined(world):
    for number in range(4):
        world.month(number, change={1: of_another_type, 3: without_wind}.get(number))
    await world.join("unfit")
    with pytest.raises(Error) as caught:
        await world.run("unfit")
    await world.stages.stop("unfit", "fail", Live(Progress()))
    assert caught.value.reason == "FORMAT_MISMATCH"
    assert "data:m1.h5 cannot be joined: /wind cannot continue that of the first file" in caught.value.message
    assert "nor do data:m3.h5" in caught.value.message
    errors = [each.error and each.error["message"] for each in await world.files("unfit")]
    assert [bool(each) for each in errors] == [False, True, False, True]
    assert (
        errors[3] == "data:m3.h5 cannot be joined: there is no dataset /wind, which lies along time in the first file"
    )
    assert world.left()[0] == []


def otherwise(file):
    file["height"][...] = 5.0
    file["wind"].attrs["source"] = "another station"


async def test_what_files_have_otherwise_is_reported_and_the_first_file_stays(world):
    for number in range(4):
        world.month(number, change=otherwise if number % 2 else None)
    for transfer, sources in (("otherwise", ("m0.h5", "m1.h5")), ("later", ("m2.h5", "m3.h5"))):
        await world.join(transfer, *sources)
        record = await world.run(transfer)
        assert record.state == "PARTLY_SUCCEEDED"
        assert [each.state for each in await world.files(transfer)] == ["loaded", "partly"]
        told = await world.told(transfer, 2)
        assert told["/height"][0] == "refused"
        assert told["/wind/@source"][0] == "mapped"
    assert world.whole(0, 1, 2, 3) == 20


async def test_a_domain_that_cannot_grow_or_holds_another_version_is_left_as_it_is(world):
    for number in range(2):
        world.month(number)
    await world.begin("alone", "m0.h5", target="main")  # its time is contiguous
    await world.run("alone")
    root = (await world.files("alone"))[0].root
    await world.join("contiguous", "m1.h5")
    with pytest.raises(
        Error, match=r"cannot continue that of hdf5://.*: what is there is not kept in chunks of its own"
    ):
        await world.run("contiguous")
    await world.stages.stop("contiguous", "fail", Live(Progress()))
    assert world.server.call("GET", "/", domain=f"{world.folder}/x")[1]["root"] == root
    await world.join("anew", "m0.h5", overwrite=True)
    await world.run("anew")
    world.month(0, rows=4)
    await world.join("changed")
    with pytest.raises(Error, match=r"m0\.h5 is another version than the one that is in"):
        await world.run("changed")


async def test_a_domain_of_which_nothing_is_known_is_extended_by_what_it_has_not(world):
    for number in range(2):
        world.month(number, few=True)
    with h5py.File(world.data / "m0.h5", "r+") as file:
        values = file["time"][()]
        file["wind"].dims[0].detach_scale(file["time"])
        del file["time"]
        file.create_dataset("time", data=values, chunks=(3,), maxshape=(None,)).make_scale("time")
        file["wind"].dims[0].attach_scale(file["time"])
    await world.begin("by-itself", "m0.h5", target="main")
    await world.run("by-itself")
    await world.join("again")
    with pytest.raises(Error, match="what it has of /time is in hdf5://"):
        await world.run("again")
    await world.stages.stop("again", "fail", Live(Progress()))
    await world.join("more", "m1.h5")
    assert (await world.run("more")).state == "SUCCEEDED"
    assert world.whole(0, 1) == 10


@pytest.mark.parametrize(("dimension", "why"), [("level", "was not joined along level"), ("nothing", "nothing")])
async def test_a_domain_that_was_joined_along_another_dimension_is_refused(world, dimension, why):
    def change(file):
        level = file.create_dataset("level", data=np.arange(8))
        level.make_scale("level")
        file["wind"].dims[1].attach_scale(level)

    for number in range(2):
        world.month(number, change=change, few=False)
    await world.join(f"along-{dimension}", verify="metadata")
    await world.run(f"along-{dimension}")
    await world.join(f"other-{dimension}", aggregate=dimension)
    with pytest.raises(Error, match=why) as caught:
        await world.run(f"other-{dimension}")
    assert caught.value.reason == "FORMAT_MISMATCH"
    assert world.extent() == 10
    spec = spec_from_json((await world.stages.record(f"other-{dimension}")).spec)
    told = [each async for each in world.stages.preview_joined(spec)]
    assert [error.message for _, _, error in told if error] == [caught.value.message.partition(". Nothing was")[0]]
