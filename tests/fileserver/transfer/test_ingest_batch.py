"""Small files that an ingest brings many at a time, against a real HSDS."""

import asyncio
from dataclasses import replace

import pytest

from fileserver.hdf5.hsds.connection import Connection
from fileserver.transfer import ingest_batch, ingest_rows, ledger
from fileserver.transfer.ingest import IngestStages
from fileserver.transfer.ingest_target import Target
from fileserver.transfer.live import Live
from fileserver.transfer.record import Progress
from planes.posix import PosixPlane
from tests.fileserver.transfer.ingest_world import Crash, server, world

__all__ = ["server", "world"]  # fixtures


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(ingest_batch, "MOST", 3)


@pytest.fixture
def asked(monkeypatch):
    """Requests to the server, as (method, path, domain)."""
    found, real = [], Connection.call

    async def call(own, method, path, **options):
        found.append((method, path, options.get("domain", "").rpartition("/")[2]))
        return await real(own, method, path, **options)

    monkeypatch.setattr(Connection, "call", call)
    return found


def make(world, count, first=0):
    for i in range(first, first + count):
        world.make(f"{i}.h5", i)


async def begin(world, transfer, *, overwrite=True):
    await world.begin(transfer, "", domain=f"{world.folder}/in/", target="main", verify="auto")
    spec = (await world.store.read(lambda c: ledger.get(c, transfer))).spec | {"overwrite": overwrite}
    await world.store.write(lambda c: ledger.update(c, transfer, 1.0, spec=spec))


def below(world):
    """Names in the folder."""
    status, said = world.server.call("GET", "/domains", domain=f"{world.folder}/in/")
    return sorted(each["name"].rpartition("/")[2] for each in said["domains"]) if status == 200 else []


async def levels(world, transfer):
    return await world.store.read(lambda c: ingest_rows.levels(c, transfer))


@pytest.mark.parametrize("folder", ["new", "there", "gone"])
async def test_many_files_cost_at_most_a_request_each_and_read_as_they_were(world, asked, folder):
    make(world, 9)
    if folder != "new":
        for path in (world.folder, f"{world.folder}/in"):
            assert world.server.call("PUT", "/", {"folder": 1}, domain=path)[0] == 201
    if folder == "gone":  # what was in it then, may be known still
        assert world.server.call("DELETE", "/", domain=f"{world.folder}/in")[0] == 200
    await begin(world, f"many-{folder}")
    record = await world.run(f"many-{folder}")
    assert record.state == "SUCCEEDED"
    assert record.outcome["ingest"]["verified"] == "1 sample, 8 stored"
    assert below(world) == [f"{i}.h5" for i in range(9)]
    assert [world.read(f"in/{i}.h5") for i in range(9)] == [(i, i) for i in range(9)]
    assert not any(each.owed for each in await world.files(f"many-{folder}"))
    for i in range(
        9
    ):  # whether it is there, which nothing is in a new folder; once more if it is the last of its batch
        times = asked.count(("GET", "/", f"{i}.h5"))
        assert times == (folder != "new") + (i % 3 == 2), i
    assert not [each for each in asked if each[0] != "GET" and each[2].endswith(".h5")]


async def test_a_domain_has_the_owner_and_the_rights_that_the_server_gives(world):
    make(world, 2)
    assert world.server.call("PUT", "/", {"folder": 1}, domain=world.folder)[0] == 201
    assert world.server.call("PUT", "/", {"folder": 1}, domain=f"{world.folder}/in")[0] == 201
    assert world.server.call("PUT", "/acls/bob", {"read": True}, domain=f"{world.folder}/in")[0] == 201
    assert world.server.call("PUT", "/", domain=f"{world.folder}/in/theirs")[0] == 201
    await begin(world, "rights")
    await world.run("rights")
    given = {}
    for name in ("theirs", "0.h5", "1.h5"):
        domain = f"{world.folder}/in/{name}"
        acls = world.server.call("GET", "/acls", domain=domain)[1]["acls"]
        given[name] = (world.server.call("GET", "/", domain=domain)[1]["owner"], sorted(acls, key=str))
    assert given["0.h5"] == given["1.h5"] == given["theirs"]
    assert "bob" in str(given["0.h5"])


@pytest.mark.soak  # test_ingest_crash kills a server amid many files
async def test_a_process_that_dies_anywhere_leaves_whole_domains_and_the_next_one_ends_it(world):
    died = 0
    while True:
        numbers = range(2 * died, 2 * died + 2)
        for path in world.data.glob("*.h5"):
            path.unlink()
        make(world, 2, first=numbers[0])
        await begin(world, f"dies-{died}")
        world.life.left = 3 + 5 * died
        try:
            await world.run(f"dies-{died}")
        except Crash:
            world.life.left = 1 << 30
            seen = [name for name in below(world) if name.endswith(".h5")]
            assert [world.read(f"in/{name}") for name in seen] == [(int(name[:-3]),) * 2 for name in seen]
            await world.run(f"dies-{died}")
            is_over = False
        else:
            is_over = True
        assert [world.read(f"in/{i}.h5") for i in numbers] == [(i, i) for i in numbers]
        assert not [name for name in below(world) if not name.endswith(".h5")]
        assert not any(each.owed for each in await world.files(f"dies-{died}"))
        if is_over:
            break
        died += 1
    assert died > 6


async def test_a_bad_file_a_taken_name_and_one_that_was_removed_are_outcomes_of_their_own(world):
    make(world, 5)
    await begin(world, "before")
    await world.run("before")
    assert world.server.call("DELETE", "/", domain=f"{world.folder}/in/1.h5")[0] == 200
    assert world.server.call("GET", "/", domain=f"{world.folder}/in/1.h5")[0] == 410
    make(world, 3, first=5)
    (world.data / "6.h5").write_bytes((world.data / "6.h5").read_bytes()[:-100])
    (world.data / "7.h5").write_bytes(b"")
    (world.data / "0.h5").unlink()
    await begin(world, "after", overwrite=False)
    assert (await world.run("after")).state == "PARTLY_SUCCEEDED"
    found = {each.key: each.error and each.error["reason"] for each in await world.files("after")}
    taken = dict.fromkeys(("2.h5", "3.h5", "4.h5"), "TARGET_EXISTS")
    assert found == taken | {"1.h5": None, "5.h5": None, "6.h5": "FORMAT_MISMATCH", "7.h5": "FORMAT_MISMATCH"}
    assert below(world) == [f"{i}.h5" for i in range(6)]
    assert [world.read(f"in/{i}.h5") for i in range(6)] == [(i, i) for i in range(6)]
    # The server knows the name that it had forgotten: it gives it to nobody else.
    assert world.server.call("PUT", "/", domain=f"{world.folder}/in/1.h5")[0] == 409


async def test_a_file_that_changed_since_it_was_listed_takes_no_other_of_its_batch_with_it(world):
    make(world, 3)
    await begin(world, "changed")
    stages, live = IngestStages(world.planes, world.store, world.targets), Live(Progress())
    world.processes.append(stages)
    await stages.plan("changed", live)
    with (world.data / "1.h5").open("ab") as file:
        file.write(b"more")
    await stages.fill("changed", 1, live)
    found = {each.key: each.error and each.error["reason"] for each in await world.files("changed")}
    assert found == {"0.h5": None, "1.h5": "SOURCE_CHANGED", "2.h5": None}
    assert [world.read(f"in/{i}.h5") for i in (0, 2)] == [(0, 0), (2, 2)]


async def test_a_file_that_fails_leaves_what_another_finds_out_about_their_folder(world, monkeypatch):
    make(world, 2)
    await begin(world, "folder")
    real, tidied = Target._written, []

    async def written(own, path):
        [file, _] = await world.files("folder")
        tidied.append(asyncio.ensure_future(own.clean(file)))
        await asyncio.wait(tidied, timeout=0.3)  # it has to wait for us
        return await real(own, path)

    monkeypatch.setattr(Target, "_written", written)
    assert (await world.run("folder")).state == "SUCCEEDED"
    await asyncio.gather(*tidied, return_exceptions=True)
    assert len(tidied) == 1


async def test_segments_that_begin_together_share_what_is_found_out_about_a_folder(world, asked, monkeypatch):
    monkeypatch.setattr(ingest_rows, "BATCH", 2)
    make(world, 8)
    await begin(world, "together")
    stages, live = IngestStages(world.planes, world.store, world.targets), Live(Progress())
    world.processes.append(stages)
    assert await stages.plan("together", live) == 4
    await asyncio.gather(*(stages.fill("together", number, live) for number in range(1, 5)))
    assert [each.state for each in await world.files("together")] == ["loaded"] * 8
    assert asked.count(("PUT", "/", ".cropduster-together")) == 1


@pytest.mark.parametrize("late", ["PUT", "DELETE"])
async def test_a_request_of_a_process_that_died_may_come_late_to_the_probe_of_a_folder(world, monkeypatch, late):
    make(world, 2)
    await world.begin(f"late-{late}", "", domain=f"{world.folder}/in/", target="main", verify="sample")
    real, came = Connection.call, []

    async def call(own, method, path, **options):
        domain = options.get("domain", "")
        is_probe = method == "PUT" and "root_id" in (options.get("body") or {}) and "/.cropduster-" in domain
        if is_probe and not came and late == "PUT":
            came.append(world.server.call("PUT", "/", domain=domain))
        found = await real(own, method, path, **options)
        if is_probe and not came and late == "DELETE":
            came.append(world.server.call("DELETE", "/", domain=domain))
        return found

    monkeypatch.setattr(Connection, "call", call)
    assert (await world.run(f"late-{late}")).state == "SUCCEEDED"
    assert [status for status, _ in came] == [{"PUT": 201, "DELETE": 200}[late]]
    assert below(world) == ["0.h5", "1.h5"]


async def test_what_the_server_reads_otherwise_is_not_named_nor_is_any_other_of_its_batch(world, monkeypatch):
    make(world, 3, first=1)
    before = world.left()[1]
    await begin(world, "wrong")
    real = PosixPlane.put_many

    async def put_many(plane, objects):
        lost = [replace(one, data=bytes(len(one.data))) if one.key.endswith("/0") else one for one in objects]
        return await real(plane, lost)

    monkeypatch.setattr(PosixPlane, "put_many", put_many)
    assert (await world.run("wrong")).state == "PARTLY_SUCCEEDED"
    assert {each.error["reason"] for each in await world.files("wrong")} == {"CHECKSUM_MISMATCH"}
    assert below(world) == []
    assert world.left()[1] <= before


async def test_a_name_that_somebody_else_takes_meanwhile_stays_theirs(world, monkeypatch):
    make(world, 3)
    await begin(world, "late", overwrite=False)
    real = PosixPlane.put_many

    async def put_many(plane, objects):
        if any(one.key.endswith("/1.h5/.domain.json") for one in objects):
            assert world.server.call("PUT", "/", domain=f"{world.folder}/in/1.h5")[0] == 201
        return await real(plane, objects)

    monkeypatch.setattr(PosixPlane, "put_many", put_many)
    await world.run("late")
    found = {each.key: each.error and each.error["reason"] for each in await world.files("late")}
    assert found == {"0.h5": None, "1.h5": "TARGET_EXISTS", "2.h5": None}
    assert [world.read(f"in/{i}.h5") for i in (0, 2)] == [(0, 0), (2, 2)]
