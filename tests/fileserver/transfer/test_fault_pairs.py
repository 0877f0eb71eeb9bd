"""Every pair of planes, every verb, every fault: it completes, or says one clear error; nothing is ever left."""

from __future__ import annotations

from collections import Counter

import pytest
import pytest_asyncio
from dbos import DBOS

from tests.doubles import azurite, proxy, seaweedfs
from tests.doubles.azure_pull import Puller
from tests.fileserver.transfer import fault_pairs, fault_sync
from tests.fileserver.transfer.fault_pairs import CELLS, World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store of each kind, and what stands before it."""
    with (
        seaweedfs.running(tmp_path_factory.mktemp("s3")) as store,
        azurite.running(tmp_path_factory.mktemp("azure")) as account,
        proxy.before(store.endpoint) as before_s3,
        proxy.before(account.url) as before_azure,
        pytest.MonkeyPatch.context() as patch,
    ):
        store.create_bucket("lake")
        account.create_container("lake")
        for name in ("s3_connection._READ_SECONDS", "azure_account.READ_SECONDS", "azure_http.READ_SECONDS"):
            patch.setattr(f"planes.{name}", 2)
        patch.setattr("planes.s3_upload._ABORT_PAUSE", 0)
        yield store, account, before_s3, before_azure


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(stores, tmp_path_factory):
    store, account, before_s3, before_azure = stores
    keys, root = tmp_path_factory.mktemp("keys"), tmp_path_factory.mktemp("posix")
    sites = {
        "posix": fault_pairs.PosixSite(root),
        "s3": fault_pairs.S3Site(store, before_s3, keys),
        "azure": fault_pairs.AzureSite(account, before_azure, keys, before_s3.endpoint),
    }
    between = {"s3": before_s3, "azure": before_azure}
    made = World(sites, between, Puller(account), tmp_path_factory.mktemp("state"))
    await made.jobs.start()
    await made.begin()
    yield made
    await made.jobs.stop()
    DBOS.destroy()
    made.store.close()
    for site in sites.values():
        await site.plane.aclose()


@pytest.mark.parametrize("cell", fault_pairs.chosen(), ids=str)
async def test_a_fault_between_two_planes(world, cell):
    await world.play(cell)


async def test_what_was_chosen_leaves_no_pair_no_verb_and_no_fault_out(world):
    chosen = fault_pairs.chosen()
    assert {(c.source, c.target, c.verb) for c in chosen} == {(c.source, c.target, c.verb) for c in CELLS}
    assert {c.row for c in CELLS if not c.fault.slow} == {c.row for c in chosen}
    # Where several processes share the cells, a row tells nothing here unless all of its cells were played here.
    here = {row for row, times in Counter(c.row for c in chosen).items() if world.played[row] == times}
    assert {row for row in here if not world.met[row]} == set()


@pytest.mark.parametrize(("number", "cell"), list(enumerate(fault_sync.chosen())), ids=str)
async def test_a_fault_in_a_sync(world, number, cell):
    await fault_sync.play(world, cell, number)


@pytest.mark.soak
@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_every_cell(world, cell):
    await world.play(cell)


@pytest.mark.soak
@pytest.mark.parametrize(("number", "cell"), list(enumerate(fault_sync.CELLS, 1000)), ids=str)
async def test_every_cell_of_a_sync(world, number, cell):
    await fault_sync.play(world, cell, number)
