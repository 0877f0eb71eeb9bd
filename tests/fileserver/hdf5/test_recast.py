"""Relinking: a domain whose sources have moved reads as them again, and nothing is left of what failed."""

import h5py
import numpy as np
import pytest

from fileserver.hdf5 import ids
from fileserver.hdf5.hsds import acls, domains
from fileserver.hdf5.recast import Relinking
from planes.errors import NotFound, Refused, Unavailable
from tests.fileserver.hdf5.conftest import plane as posix
from tests.fileserver.hdf5.test_links import differences, link


def fill(file):
    file.create_dataset("linked", data=np.arange(60.0).reshape(6, 10), chunks=(2, 10), compression="gzip")
    file["contiguous"] = np.arange(5)
    file["small"] = np.arange(1, 4).astype("i1")
    file["small"].make_scale("small")
    file.create_dataset("along", data=np.array([1, 2, 3], "i1"), chunks=(3,), compression="lzf")  # not linked
    file["along"].dims[0].attach_scale(file["small"])  # an attribute of references
    file["text"] = ["ingested", "not linked"]
    group = file.create_group("group")
    file.create_dataset("to", data=[group.ref, file["linked"].ref], dtype=h5py.ref_dtype)
    file.create_dataset("packed", data=[group.ref] * 9, dtype=h5py.ref_dtype, chunks=(9,), compression="gzip")
    file.create_dataset("region", data=[file["linked"].regionref[1:3]], dtype=h5py.regionref_dtype)
    file.attrs["to"] = group.ref


@pytest.fixture
async def linked(server, folder):
    """Plane, bucket, domain and load of a file in `old/` of the server's root."""
    (server.storage.parent / "old").mkdir(exist_ok=True)
    with h5py.File(server.storage.parent / "old/x.h5", "w") as file:
        fill(file)
    (server.storage.parent / "new").mkdir(exist_ok=True)
    source, bucket = posix("source", server.storage.parent), posix("bucket", server.storage)
    done = await link(source, "old/x.h5", bucket, f"{folder}/x")
    yield source, bucket, f"{folder}/x", done
    await source.aclose()
    await bucket.aclose()


async def test_a_domain_follows_its_sources_with_all_that_it_has(linked, server, connection):
    source, bucket, path, done = linked
    assert await differences(source, "old/x.h5", connection, path, done) == []  # the server knows it now
    await acls.write(connection, path, "bob", acls.Permissions(read=True))
    (server.storage.parent / "old/x.h5").rename(server.storage.parent / "new/x.h5")
    made = await Relinking(connection, bucket, "old/", "new/").run(path, 1.9e9)
    assert made.datasets == 3
    assert made.root != done.root
    for _ in range(2):
        moved = type(done)(made.root, 0.0, done.survey, (), done.written)
        assert await differences(source, "new/x.h5", connection, path, moved) == []
        server.restart()
    assert (await acls.read(connection, path))["bob"] == acls.Permissions(read=True)
    there = [each.path async for each in domains.listing(connection, path.rpartition("/")[0])]
    assert there == [path]


async def test_links_that_begin_otherwise_are_named_and_nothing_is_written(linked, connection):
    _, bucket, path, done = linked
    before = {info.key async for info in bucket.list("db/")}
    with pytest.raises(Refused, match=r"begins with elsewhere/ \(there are: old/x.h5\)"):
        await Relinking(connection, bucket, "elsewhere/", "new/").run(path, 1.9e9)
    assert {info.key async for info in bucket.list("db/")} <= before
    assert (await domains.stat(connection, path)).root == done.root
    with pytest.raises(NotFound):
        await Relinking(connection, bucket, "old/", "new/").run(f"{path}x", 1.9e9)


async def test_a_bucket_that_fails_leaves_the_domain_and_nothing_else(linked, connection, monkeypatch):
    _, bucket, path, done = linked
    put, left = type(bucket).put, 3

    async def failing(self, key, data, **options):
        nonlocal left
        left -= 1
        if left < 0:
            msg = "gone"
            raise Unavailable(msg)
        return await put(self, key, data, **options)

    before = {info.key async for info in bucket.list("db/")}
    monkeypatch.setattr(type(bucket), "put", failing)
    with pytest.raises(Unavailable, match="gone"):
        await Relinking(connection, bucket, "old/", "new/").run(path, 1.9e9)
    assert left < 0
    own = ids.folder(done.root)  # HSDS may be removing what other tests have replaced
    after = {info.key async for info in bucket.list("db/")}
    assert after <= before
    assert {key for key in after if key.startswith(own)} == {key for key in before if key.startswith(own)}
