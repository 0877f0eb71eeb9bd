"""An HSDS whose bucket is in S3: what was published and flushed is there after a crash of the whole server."""

import numpy as np
import pytest
from h5json.objid import createObjId

from fileserver.hdf5.hsds import domains, objects, publish
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.hsds.publish import Outcome
from tests.doubles import hsds, seaweedfs
from tests.fileserver.hdf5.conftest import settings_of

pytestmark = pytest.mark.xdist_group("hsds")

I4 = {"class": "H5T_INTEGER", "base": "H5T_STD_I32LE"}


@pytest.fixture
def server(tmp_path):
    with seaweedfs.running(tmp_path) as store, hsds.running(tmp_path, store=store) as started:
        yield started


async def load(connection, path, value):
    root = createObjId("groups")
    await objects.make_domain(connection, path, root)
    inside, dataset = Objects(connection, path, root), createObjId("datasets", root_id=root)
    await inside.make("datasets", [{"id": dataset, "type": I4, "shape": [8]}])
    await inside.link({root: {"d": {"id": dataset}}})
    await inside.write(dataset, np.full(8, value, "<i4"))
    await domains.flush(connection, path)
    return root, dataset


async def test_a_replaced_domain_reads_as_the_new_one_after_a_crash(server):
    connection = Connection("main", settings_of(server))
    target, staging = "/home/admin/x", "/home/admin/x.loading"
    await load(connection, target, 1)
    root, dataset = await load(connection, staging, 2)
    plan = await publish.prepare(connection, target, staging, overwrite=True)
    assert await publish.publish(connection, plan) is Outcome.PUBLISHED
    server.restart()
    assert await Objects(connection, target, root).read(dataset) == np.full(8, 2, "<i4").tobytes()
    assert [each.path async for each in domains.listing(connection, "/home/admin")] == [target]
    await connection.aclose()
