"""A domain as an HDF5 file: everything that HSDS holds of every sample, read back by h5py and by our comparison."""

import asyncio
import io

import h5py
import h5pyd
import numpy as np
import pytest

from fileserver.hdf5 import compare, export_write
from fileserver.hdf5 import export as export_module
from fileserver.hdf5.compare import Depth
from fileserver.hdf5.export import Progress, export
from fileserver.hdf5.getting import Getting
from fileserver.hdf5.hsds import domains
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.source import opened
from planes.errors import AlreadyExists, Corrupt
from planes.memory import MemoryPlane, MemorySettings
from planes.plane import Extent
from tests.fileserver.hdf5.compare import same
from tests.fileserver.hdf5.conftest import FOLDER
from tests.fileserver.hdf5.conftest import plane as posix
from tests.fileserver.hdf5.sampling import SAMPLES


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.fixture
async def plane():
    made = MemoryPlane("to", MemorySettings())
    yield made
    await made.aclose()


def plain(value):
    """References as nothing: our comparison has followed them."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return [plain(each) for each in value]
    if isinstance(value, np.void) and value.dtype.names:
        return [plain(value[name]) for name in value.dtype.names]
    return None if isinstance(value, h5py.Reference | h5py.RegionReference | h5py.Empty) else value


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_file_reads_as_its_domain(name, loaded, connection, tmp_path, monkeypatch):
    folder, found = loaded
    root = found[name].root
    objects = Objects(connection, f"/{FOLDER}/{name}", root)
    progress = Progress()
    assert await export(objects, root, tmp_path / "x.h5", progress) == ()
    assert progress.objects == progress.found == len(found[name].survey.outline.nodes) - len(SAMPLES[name].refused)
    async with opened(posix("made", tmp_path), "x.h5") as file:
        assert [d async for d in compare.differences(file, objects, root, Depth.FULL)] == []
    monkeypatch.chdir(folder)  # h5py looks for external storage there
    with h5py.File(f"{name}.h5") as old, h5py.File(tmp_path / "x.h5") as new:
        names = []
        old.visit(names.append)
        for path in names:
            if f"/{path}" in SAMPLES[name].refused | SAMPLES[name].mapped:
                continue
            a, b = old[path], new[path]
            if isinstance(a, h5py.Dataset) and a.dtype.kind != "V":
                assert (a.shape, a.maxshape) == (b.shape, b.maxshape)
                assert a.dtype == b.dtype
                if a.dtype.kind in "ifSb":
                    assert same(a.fillvalue, b.fillvalue), path
                if a.shape is not None and a.dtype.kind != "c":
                    assert same(plain(a[()]), plain(b[()])), path
            assert list(a.attrs) == list(b.attrs)


def get(connection, loaded, spool, name, depth=Depth.FULL):
    root = loaded[1][name].root
    return Getting(connection, f"/{FOLDER}/{name}", root, spool, depth)


async def test_a_file_is_delivered_whole_and_the_spool_is_empty(connection, loaded, spool, plane):
    got = await get(connection, loaded, spool, "layouts").run(plane, "out/x.h5", overwrite=False)
    assert got.tally.datasets == 10
    assert got.info.size == (await plane.stat("out/x.h5")).size
    data = bytearray(got.info.size)
    await plane.read(Extent("out/x.h5", got.info.version, 0, got.info.size), memoryview(data))
    with h5py.File(io.BytesIO(data)) as file:
        assert np.array_equal(file["edges_gzip"], np.arange(77.0).reshape(7, 11))
        assert file["edges_gzip"].compression == "gzip"
        assert file["edges_gzip"].chunks == (3, 4)
        assert file["never_written"].id.get_storage_size() == 0
        assert "r" not in file
    assert list(spool.iterdir()) == []
    with pytest.raises(AlreadyExists, match="--overwrite"):
        await get(connection, loaded, spool, "scales").run(plane, "out/x.h5", overwrite=False)
    again = await get(connection, loaded, spool, "scales").run(plane, "out/x.h5", overwrite=True)
    assert again.info.size != got.info.size


async def test_chunks_are_taken_from_the_bucket_as_they_are_and_others_through_the_server(
    server, connection, connect, loaded, folder, spool, plane, monkeypatch
):
    monkeypatch.setattr(export_module, "_LISTED", 3)

    class Counting(Connection):
        values = 0

        async def call(self, method, path, **options):
            self.values += method == "GET" and path.endswith("/value")
            return await super().call(method, path, **options)

    bucket, counting = posix("bucket", server.storage), connect(kind=Counting)
    job = get(counting, loaded, spool, "layouts")
    job.depth, job.bucket = None, bucket
    await job.run(plane, "placed.h5", overwrite=False)
    assert counting.values == 4  # two contiguous, the compact one, and one whose chunk reaches beyond it
    checked = get(connection, loaded, spool, "layouts")
    checked.bucket = bucket
    assert (await checked.run(plane, "checked.h5", overwrite=False)).tally.datasets == 10

    access = {"endpoint": server.endpoint, "username": server.user, "password": server.password}
    with h5pyd.File(f"{folder}/x", "w", **access) as file:  # what the server itself has encoded
        for name, options in {
            "gzip": {"compression": "gzip"},
            "both": {"compression": "gzip", "shuffle": True},
        }.items():
            file.create_dataset(name, data=np.arange(400.0).reshape(20, 20), chunks=(8, 8), **options)
    there = await domains.stat(connection, f"{folder}/x")
    served = Getting(connection, there.path, there.root, spool, Depth.FULL, bucket)
    assert (await served.run(plane, "served.h5", overwrite=False)).tally.bytes == 6400
    await bucket.aclose()


async def test_a_domain_that_changes_meanwhile_is_told_and_nothing_is_delivered(
    connection, loaded, spool, plane, monkeypatch
):
    def otherwise(file, written, dataset, part, data):
        whole(file, written, dataset, part, data[8:] + bytes(8) if dataset.dims == (3,) else data)

    whole = export_write.block
    monkeypatch.setattr(export_write, "block", otherwise)
    with pytest.raises(Corrupt, match=r"data of /x: file \[0\] 1.0, one of 3 that differ, domain \[0\] 0.0"):
        await get(connection, loaded, spool, "scales").run(plane, "x.h5", overwrite=False)
    assert [info.key async for info in plane.list("")] == []
    assert list(spool.iterdir()) == []


async def test_an_object_that_cannot_be_written_is_left_out_with_its_reason(
    connection, loaded, spool, plane, monkeypatch
):
    def broken(file, written, dataset, part, data):
        return whole(file, written, dataset, part, data[:-1] if dataset.dims == (4,) else data)

    whole = export_write.block
    monkeypatch.setattr(export_write, "block", broken)
    got = await get(connection, loaded, spool, "scales").run(plane, "x.h5", overwrite=False)
    assert [(t.path, t.what) for t in got.troubles] == [("/y", "failed")]
    assert "31 bytes for 4 elements of 8" in got.troubles[0].reason


async def test_whoever_cancels_leaves_nothing_behind(connect, loaded, spool, plane):
    class Hanging(Connection):
        reached = asyncio.Event()

        async def call(self, method, path, **options):
            if path.endswith("/value"):
                self.reached.set()
                await asyncio.Event().wait()
            return await super().call(method, path, **options)

    work = asyncio.ensure_future(
        get(connect(kind=Hanging), loaded, spool, "layouts").run(plane, "x.h5", overwrite=False)
    )
    await Hanging.reached.wait()
    assert len(list(spool.iterdir())) == 1
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert list(spool.iterdir()) == []
    assert [info.key async for info in plane.list("")] == []
