"""Files that are joined along a dimension, in a bucket: what the chunks hold, who fits, and what a crash leaves."""

import io
import json
import math
import zlib

import h5py
import numpy as np
import pytest

from fileserver.hdf5 import ids, joined
from fileserver.hdf5.dimension import Misfit
from fileserver.hdf5.files import Files, Place
from fileserver.hdf5.joint import uses
from planes.errors import Unavailable
from planes.memory import MemoryPlane, MemorySettings
from planes.plane import Extent

CREATED = 1.8e9


class Dying(MemoryPlane):
    """A bucket whose writer dies at the n-th object."""

    left = 1 << 30

    async def put(self, key, data, **options):
        if not self.left:
            msg = "the writer has died"
            raise Unavailable(msg)
        self.left -= 1
        return await super().put(key, data, **options)


@pytest.fixture
async def plane():
    made = MemoryPlane("data", MemorySettings())
    yield made
    await made.aclose()


def month(number, rows=5, *, fill=None, shape=(8, 6), chunk=(2, 8, 6), **options):
    """A file of NREL's model in small."""
    held = io.BytesIO()
    noise = np.random.default_rng(number)
    with h5py.File(held, "w") as file:
        time = file.create_dataset("time", (rows,), "<i8", maxshape=(None,), chunks=(4,))
        time[:] = np.arange(rows) + 100 * number
        time.make_scale("time")
        options = {"chunks": chunk, "maxshape": (None, *shape), "shuffle": True, "compression": 1} | options
        wind = file.create_dataset("wind", (rows, *shape), "<f4", **options)
        wind[...] = noise.random((rows, *shape))
        wind.dims[0].attach_scale(time)
        wind.attrs["units"] = "m/s"
        file["height"] = np.arange(3.0)
        file.attrs["title"] = "model"
        if fill:
            fill(file)
    return held.getvalue()


async def files(plane, *contents):
    places = []
    for i, data in enumerate(contents):
        await plane.put(f"m{i}.h5", data, upload_id=f"u{i}", replace=True)
        places.append(Place(plane, f"m{i}.h5", (await plane.stat(f"m{i}.h5")).version))
    return Files(places)


async def join(plane, bucket, *contents):
    held = await files(plane, *contents)
    try:
        looked = await joined.look(held, "time")
        assert not looked.wrong, looked.wrong
        made = joined.whole(looked)
        return made, await joined.fill(held, made, bucket, "a load", CREATED)
    finally:
        await held.aclose()


async def content(bucket):
    found = {}
    async for info in bucket.list(""):
        data = bytearray(info.size)
        await bucket.read(Extent(info.key, info.version, 0, info.size), memoryview(data))
        found[info.key] = bytes(data)
    return found


def stored(found, made, loaded, path, dtype):
    """A dataset of the whole, out of its chunks as HSDS reads them."""
    names = joined.paths(loaded.survey, loaded.root)
    body = json.loads(found[ids.key(names[path], loaded.root)])
    dims, properties = body["shape"]["dims"], body["creationProperties"]
    chunk = properties["layout"]["dims"]
    filters = [each["id"] for each in properties.get("filters", [])]
    whole = np.zeros([-(-n // c) * c for n, c in zip(dims, chunk, strict=True)], dtype)
    for place in np.ndindex(*(n // c for n, c in zip(whole.shape, chunk, strict=True))):
        data = found.get(ids.chunk_key(names[path], loaded.root, place))
        if data is None:
            continue
        data = zlib.decompress(data) if 1 in filters else data
        if 2 in filters:
            data = np.frombuffer(data, "u1").reshape(whole.itemsize, -1).T.tobytes()
        where = tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunk, strict=True))
        whole[where] = np.frombuffer(data, dtype, math.prod(chunk)).reshape(chunk)
    return whole[tuple(slice(n) for n in dims)], body


def read(contents, path):
    return np.concatenate([h5py.File(io.BytesIO(each))[path][()] for each in contents])


@pytest.mark.parametrize("rows", [(5, 5, 5), (4, 4, 3), (1, 1, 1, 1, 1), (4, 0, 5), (2,)])
async def test_files_lie_one_behind_the_other_whatever_their_lengths(plane, rows):
    contents = [month(i, n) for i, n in enumerate(rows)]
    bucket = MemoryPlane("bucket", MemorySettings())
    made, loaded = await join(plane, bucket, *contents)
    found = await content(bucket)
    for path, dtype in (("/wind", "<f4"), ("/time", "<i8")):
        values, body = stored(found, made, loaded, path, dtype)
        assert np.array_equal(values, read(contents, path))
        assert body["shape"]["maxdims"][0] == "H5S_UNLIMITED"
    assert loaded.whole


async def test_aligned_chunks_are_the_very_bytes_of_the_file_and_others_are_put_together(plane):
    contents = [month(0, 5), month(1, 5), month(2, 5)]
    bucket = MemoryPlane("bucket", MemorySettings())
    made, _ = await join(plane, bucket, *contents)
    told = {each.path: uses(each) for each in made.joints}
    assert [(u.start, u.stop, u.placed, u.cut) for u in told["/wind"]] == [(0, 5, 2, 1), (5, 10, 0, 3), (10, 15, 3, 0)]
    assert (
        told["/wind"][0].told()
        == "elements 0:5 of dimension 0: 2 rows of chunks placed as they are, 1 put together anew"
    )
    there = set((await content(bucket)).values())
    for data, number in ((contents[0], 2), (contents[2], 3)):
        with h5py.File(io.BytesIO(data)) as file:
            for i in range(number):
                assert file["wind"].id.read_direct_chunk((2 * i, 0, 0))[1] in there
