"""An HSDS whose bucket is in S3: what was published and flushed is there after a crash of the whole server."""

import io

import h5py
import numpy as np
import pytest
from h5json.objid import createObjId

from fileserver.hdf5.hsds import domains, objects, publish
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.hsds.publish import Outcome
from fileserver.hdf5.routes import Route
from planes.s3 import S3Plane, S3Settings
from planes.settings import Secret
from tests.doubles import hsds, seaweedfs
from tests.fileserver.hdf5.conftest import settings_of
from tests.fileserver.hdf5.test_links import differences, link, routes

I4 = {"class": "H5T_INTEGER", "base": "H5T_STD_I32LE"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with seaweedfs.running(tmp_path_factory.mktemp("store")) as started:
        yield started


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    with hsds.running(tmp_path_factory.mktemp("hsds"), store=store) as started:
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
    assert await domains.find(connection, staging) is None
    assert await domains.find(connection, f"{target}.previous") is None
    await connection.aclose()


@pytest.mark.soak
async def test_a_server_on_s3_reads_through_links_into_another_bucket(server, store, tmp_path):
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        values = np.arange(40_000, dtype="f4").reshape(200, 200)
        file.create_dataset("chunked", data=values, chunks=(10, 10), compression="gzip", shuffle=True)
        file["contiguous"] = values
    store.create_bucket("sources")
    secrets = {"access_key": store.access_key, "secret_key": store.secret_key}
    for name, text in secrets.items():
        (tmp_path / name).write_text(text)
    common = {
        "endpoint": store.endpoint,
        "access_key": Secret(file=tmp_path / "access_key"),
        "secret_key": Secret(file=tmp_path / "secret_key"),
    }
    source = S3Plane("source", S3Settings(bucket="sources", **common))
    bucket = S3Plane("bucket", S3Settings(bucket=server.bucket, **common))
    await source.put("in/x.h5", held.getvalue(), upload_id="u")
    done = await link(source, "in/x.h5", bucket, "/home/admin/linked")
    assert set(routes(done).values()) == {Route.LINK}
    connection = Connection("main", settings_of(server))
    assert await differences(source, "in/x.h5", connection, "/home/admin/linked", done) == []
    for each in (connection, source, bucket):
        await each.aclose()
