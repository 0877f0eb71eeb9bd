"""Writers who share only a table, on a real HSDS and in a file."""

import asyncio
import json

import h5py
import numpy as np
import pytest

from fileserver.errors import InvalidSpec
from fileserver.hdf5.bench import hsds, local, verify
from fileserver.hdf5.bench.claims import Claims
from fileserver.hdf5.bench.field import checked
from fileserver.hdf5.bench.plot import plot
from fileserver.hdf5.bench.report import report
from fileserver.hdf5.bench.site import ATTRIBUTE, DATA, TABLE
from fileserver.hdf5.bench.write import write
from fileserver.hdf5.hsds import domains
from planes.errors import AlreadyExists, NotFound, Refused
from tests.fileserver.hdf5.conftest import settings_of

SMALL = checked(50, 45, (10, 12), "block", 7)


class Ground:
    """A place for one write test."""

    def __init__(self, kind, connect, folder, tmp_path, server):
        self.kind, self.connect, self.server = kind, connect, server
        self.path = f"{folder}/t.h5" if kind == "hsds" else tmp_path / "t.h5"

    async def make(self, field, *, overwrite=False):
        if self.kind == "hsds":
            await hsds.make(self.connect(), self.path, field, overwrite=overwrite)
        else:
            local.make(self.path, field, overwrite=overwrite)

    async def open(self):
        return await (hsds.opened(self.connect(), self.path) if self.kind == "hsds" else local.opened(self.path))

    async def compare(self, field):
        every = list(range(field.blocks))
        if self.kind == "hsds":
            return await verify.compare_domain(settings_of(self.server), self.path, field, every)
        return await verify.compare_file(self.path, field, every)


@pytest.fixture(params=["hsds", "file"])
def ground(request, connect, folder, tmp_path, server):
    return Ground(request.param, connect, folder, tmp_path, server)


@pytest.mark.parametrize(
    ("ground", "cut"), [("file", "block"), ("file", "row"), ("file", "column"), ("hsds", "row")], indirect=["ground"]
)
async def test_writers_share_the_blocks_and_what_users_read_is_what_belongs_there(ground, cut):
    field = checked(50, 45, (10, 12), cut, 7)
    await ground.make(field)
    sites = [await ground.open() for _ in range(4)]
    told = [[] for _ in sites]
    figures = await asyncio.gather(
        *(write(site, Claims(site, f"w{n}", lease=60.0), told[n].append) for n, site in enumerate(sites))
    )
    assert sorted(each.number for one in told for each in one) == list(range(field.blocks))
    said = report(field, await sites[0].rows())
    assert (said.pending, said.taken, said.done, said.taken_over) == (0, 0, field.blocks, 0)
    assert said.bytes == field.size == sum(each.bytes for each in figures)
    assert {s.writer: s.blocks for s in said.shares} == {f.writer: f.blocks for f in figures if f.blocks}
    assert said.rate > 0
    assert await ground.compare(field) == []


async def test_a_test_of_one_block_is_written_too(ground):
    field = checked(4, 5, (10, 12), "block", 7)
    await ground.make(field)
    site = await ground.open()
    assert (await write(site, Claims(site, "w", lease=60.0), lambda _: None)).blocks == 1
    said = report(field, await site.rows())
    assert (said.pending, said.taken, said.done) == (0, 0, 1)


async def test_many_claimers_never_get_the_same_row(ground):
    await ground.make(checked(120, 1, (1, 1), "block", 0))
    sites = [await ground.open() for _ in range(6)]

    async def all_of(site, name):
        claims, found = Claims(site, name, lease=60.0), set()
        while held := {each.number for each in await claims.take()} - found:
            found |= held
        return found

    found = await asyncio.gather(*(all_of(site, f"w{n}") for n, site in enumerate(sites)))
    assert sorted(number for each in found for number in each) == list(range(120))


async def test_a_block_of_a_silent_writer_is_taken_over_and_counts_once(ground):
    await ground.make(SMALL)
    site = await ground.open()
    dead, next_one = Claims(site, "dead", 30.0), Claims(site, "next", 30.0)
    [lost] = await dead.take()
    assert await next_one.take_over(now=100.0) == ([], True)
    assert await next_one.take_over(now=129.0) == ([], True)
    await dead.beat()
    assert await next_one.take_over(now=131.0) == ([], True)
    [taken], _ = await next_one.take_over(now=161.0)
    assert (taken.number, taken.claims) == (lost.number, 2)
    assert not await dead.done(lost, 0.0, 1.0)
    assert await next_one.done(taken, 0.0, 1.0)
    assert not await next_one.done(taken, 0.0, 1.0)
    said = report(SMALL, await site.rows())
    assert (said.done, said.taken_over, [s.writer for s in said.shares]) == (1, 1, ["next"])


async def test_what_a_stopped_writer_held_is_pending_again(ground):
    await ground.make(SMALL)
    site = await ground.open()

    def stop(_):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await write(site, Claims(site, "stopped", 60.0), stop)
    said = report(SMALL, await site.rows())
    assert (said.taken, said.done, said.pending) == (0, 1, SMALL.blocks - 1)
    figures = await write(site, Claims(site, "w", 60.0), lambda _: None, most=2, wait=False)
    assert figures.blocks == 2


class Slow:
    """A site whose claims come through when `gate` opens, also if the one that claims was cancelled meanwhile.

    As a request does that is on its way, or a thread that waits for its turn at the file.
    """

    def __init__(self, site):
        self.site, self.field = site, site.field
        self.gate, self.claims = asyncio.Event(), asyncio.Semaphore(0)

    def __getattr__(self, name):
        return getattr(self.site, name)

    async def change(self, match, values, *, most=0):
        if "claims" not in values:
            return await self.site.change(match, values, most=most)

        async def later():
            self.claims.release()
            await self.gate.wait()
            return await self.site.change(match, values, most=most)

        return await asyncio.shield(asyncio.create_task(later()))


@pytest.mark.parametrize(("ground", "times"), [("file", 1), ("hsds", 2)], indirect=["ground"])
async def test_a_claim_that_was_under_way_when_its_writer_was_stopped_is_given_back(ground, times):
    await ground.make(SMALL)
    site = Slow(await ground.open())
    writer = asyncio.create_task(write(site, Claims(site, "stopped", 60.0), lambda _: None))
    await site.claims.acquire()
    for _ in range(times):  # a terminal's Ctrl-C reaches a writer, and the word of the command that started it
        writer.cancel()
        await asyncio.sleep(0)
    site.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await writer
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    said = report(SMALL, await site.rows())
    assert (said.taken, said.done, said.pending) == (0, 0, SMALL.blocks)


async def test_a_wrong_value_is_found_with_its_place(ground, tmp_path):
    await ground.make(SMALL)
    site = await ground.open()
    with pytest.raises(Refused, match="nothing to plot"):
        plot(SMALL, await site.rows(), tmp_path / "run.png")
    await write(site, Claims(site, "w", 60.0), lambda _: None)
    block = SMALL.block(6)
    wrong = SMALL.values(block)
    wrong[3, 4] = -1.0
    await site.write(block, wrong)
    [found] = await ground.compare(SMALL)
    assert (found.number, found.row, found.column, found.found) == (6, block.row + 3, block.column + 4, -1.0)
    plot(SMALL, await site.rows(), tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert {path.name for path in tmp_path.iterdir()} <= {"run.png", "t.h5", ".t.h5.lock"}


async def test_only_write_tests_are_opened_or_replaced(ground, connection, server):
    with pytest.raises(NotFound):
        await ground.open()
    if ground.kind == "hsds":
        server.call("PUT", "/", domain=ground.path)
    else:
        with h5py.File(ground.path, "w") as file:
            file["theirs"] = 1
    with pytest.raises(InvalidSpec, match="no write test"):
        await ground.open()
    for overwrite in (False, True):
        with pytest.raises(AlreadyExists):
            await ground.make(SMALL, overwrite=overwrite)
    if ground.kind == "hsds":
        await domains.delete(connection, ground.path)
    else:
        ground.path.unlink()
    await ground.make(SMALL)
    with pytest.raises(AlreadyExists, match="--overwrite"):
        await ground.make(SMALL)
    other = checked(3, 3, (2, 2), "block", 1)
    await ground.make(other, overwrite=True)
    assert (await ground.open()).field == other


def test_the_file_is_an_ordinary_one_whose_room_is_reserved(tmp_path):
    local.make(tmp_path / "t.h5", SMALL, overwrite=False)
    with h5py.File(tmp_path / "t.h5") as file:
        assert file[DATA].shape == (50, 45)
        assert file[DATA].chunks == (10, 12)
        assert file[DATA].id.get_num_chunks() == SMALL.blocks
        assert np.array_equal(file[TABLE]["block"], range(SMALL.blocks))
        assert json.loads(file.attrs[ATTRIBUTE])["seed"] == 7
