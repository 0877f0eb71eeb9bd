"""Source and bucket in one S3: the store copies the chunks itself, and HSDS reads what it made."""

import h5py
import h5pyd
import numpy as np
import pytest

from fileserver.hdf5 import describe, load
from fileserver.hdf5.source import opened
from planes.s3 import S3Plane
from planes.s3_settings import S3Settings
from planes.settings import Secret
from tests.doubles import hsds, seaweedfs

VALUES = np.random.default_rng(5).random((16, 65536))  # 8 MiB: S3 copies ranges out of objects over 5 MiB


@pytest.fixture
def store(tmp_path):
    with seaweedfs.running(tmp_path) as started:
        yield started


@pytest.fixture
def plane(store, tmp_path):
    (tmp_path / "key").write_text(store.access_key)
    (tmp_path / "secret").write_text(store.secret_key)
    keys = {"access_key": Secret(file=tmp_path / "key"), "secret_key": Secret(file=tmp_path / "secret")}
    return S3Plane("s3", S3Settings(bucket=hsds.BUCKET, endpoint=store.endpoint, **keys))


async def test_no_data_pass_through_us(store, plane, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("plain", data=VALUES, chunks=(4, 65536))
        file.create_dataset("gzip", data=VALUES, chunks=(8, 65536), compression=1, shuffle=True)
        file["slabs"] = VALUES.ravel()
    with hsds.running(tmp_path, store=store) as server:
        await plane.put("in/x.h5", (tmp_path / "x.h5").read_bytes(), upload_id="source")
        async with opened(plane, "in/x.h5") as source:
            done = await load.load(source, plane, "a load", 1.8e9)
        assert done.troubles == ()
        assert done.written.copied > 2.5 * VALUES.nbytes
        assert done.written.carried < 10_000
        published = describe.domain_json(done.root, "admin", done.created)
        await plane.put("home/admin/x/.domain.json", published, upload_id="publish")
        await plane.aclose()
        domain = {"endpoint": server.endpoint, "username": server.user, "password": server.password}
        with h5pyd.File("/home/admin/x", "r", **domain) as read:
            for name in ("plain", "gzip"):
                assert np.array_equal(read[name][()], VALUES)
            assert np.array_equal(read["slabs"][()], VALUES.ravel())
