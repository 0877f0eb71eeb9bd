"""Files that are joined along a dimension, in a bucket: what the chunks hold, who fits, and what a crash leaves."""

import io
import json
import math
import zlib

import h5py
import numpy as np
import pytest

from fileserver.hdf5 import ids, joined, reading_back
from fileserver.hdf5.dimension import Misfit
from fileserver.hdf5.files import Files, Place
from fileserver.hdf5.joint import uses
from planes.errors import Unavailable
from planes.memory import MemoryPlane, MemorySettings
from tests.fileserver.hdf5.buckets import Dying, content, plane

__all__ = ["plane"]  # a fixture
CREATED = 1.8e9


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


def stored(found, made, loaded, path, dtype):
    """A dataset of the whole, out of its chunks as HSDS reads them."""
    names = reading_back.paths(loaded.survey, loaded.root)
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


@pytest.mark.parametrize("rows", [(5, 5, 5), (4, 4, 3), (1, 1, 1, 1, 1), (4, 0, 5), (0, 3), (2,)])
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


def wider(file):
    """Datasets of every kind along the dimension."""
    rows = file["time"].shape[0]
    values = np.random.default_rng(rows)

    def add(name, data, axis=0, **options):
        made = file.create_dataset(name, data=data, **options)
        made.dims[axis].attach_scale(file["time"])

    add("contiguous", values.random((rows, 3)))
    add("second", values.integers(0, 99, (3, rows)), 1, chunks=(2, 2), compression=1, fletcher32=True)
    add("lzf", values.random(rows), chunks=(3,), compression="lzf")
    add("big", values.integers(0, 99, rows).astype(">i2"), chunks=(2,))
    file.create_dataset("label", data=np.arange(rows)).dims[0].label = "time"
    late = file.create_dataset("late", (rows, 4), "<i4", chunks=(2, 4), fillvalue=7)
    late.dims[0].attach_scale(file["time"])
    skipped = file.create_dataset("skipped", (rows,), "<i4", chunks=(rows,), compression=1)
    skipped.dims[0].attach_scale(file["time"])
    skipped.id.write_direct_chunk((0,), np.arange(rows, dtype="<i4").tobytes(), filter_mask=1)


@pytest.mark.parametrize("rows", [(4, 4, 4), (5, 5)])
async def test_datasets_of_every_kind(plane, rows):
    contents = [month(i, n, fill=wider) for i, n in enumerate(rows)]
    bucket = MemoryPlane("bucket", MemorySettings())
    made, loaded = await join(plane, bucket, *contents)
    found = await content(bucket)
    kinds = {"contiguous": "<f8", "second": "<i8", "lzf": "<f8", "big": ">i2", "label": "<i8", "skipped": "<i4"}
    for name, dtype in kinds.items():
        values, _ = stored(found, made, loaded, f"/{name}", dtype)
        parts = [h5py.File(io.BytesIO(each))[name][()] for each in contents]
        assert np.array_equal(values, np.concatenate(parts, axis=int(name == "second"))), name
    _, body = stored(found, made, loaded, "/late", "<i4")
    assert body["creationProperties"]["fillValue"] == 7
    placed = {each.path: [use.placed for use in uses(each)] for each in made.joints}
    if rows == (4, 4, 4):
        assert placed["/second"] == placed["/big"] == placed["/late"] == [2, 2, 2]
        assert placed["/contiguous"] == [0, 0, 0]
        assert placed["/skipped"] == [1, 1, 1]


async def test_the_store_copies_chunks_by_itself_where_it_can(plane):
    contents = [month(i, 4, shape=(64, 64), chunk=(2, 64, 64)) for i in range(2)]
    _, loaded = await join(plane, plane, *contents)
    assert loaded.written.copied > 4 * loaded.written.carried


async def test_chunks_that_are_tiny_and_many_become_fewer(plane):
    contents = [month(i, 20, chunk=(1, 8, 6)) for i in range(3)]
    bucket = MemoryPlane("bucket", MemorySettings())
    made, loaded = await join(plane, bucket, *contents)
    values, body = stored(await content(bucket), made, loaded, "/wind", "<f4")
    assert np.array_equal(values, read(contents, "/wind"))
    assert body["creationProperties"]["layout"]["dims"] == [60, 8, 6]


async def test_chunks_of_another_size_are_put_together(plane):
    contents = [month(0, 4), month(1, 4, chunk=(4, 8, 6)), month(2, 4, compression=None, shuffle=False)]
    bucket = MemoryPlane("bucket", MemorySettings())
    made, loaded = await join(plane, bucket, *contents)
    values, _ = stored(await content(bucket), made, loaded, "/wind", "<f4")
    assert np.array_equal(values, read(contents, "/wind"))
    [wind] = [uses(each) for each in made.joints if each.path == "/wind"]
    assert [(use.placed, use.cut) for use in wind] == [(2, 0), (0, 2), (0, 2)]
    assert "its chunks are 4 x 8 x 6, those of the domain 2 x 8 x 6" in wind[1].told()
    assert "compressed in another way" in wind[2].told()


def without_scale(file):
    del file["time"], file["wind"]


def other_axis(file):
    file["wind"].dims[0].detach_scale(file["time"])
    del file["wind"]
    made = file.create_dataset("wind", data=np.zeros((8, 5, 6), "<f4"))
    made.dims[1].attach_scale(file["time"])


def replaced(name, data, attach=True):
    def change(file):
        file[name].dims[0].detach_scale(file["time"])
        del file[name]
        made = file.create_dataset(name, data=data)
        if attach:
            made.dims[0].attach_scale(file["time"])

    return change


def both(file):
    made = file.create_dataset("both", data=np.zeros((5, 5)))
    for axis in range(2):
        made.dims[axis].attach_scale(file["time"])


def more(file):
    file.create_dataset("more", data=np.zeros(5)).dims[0].attach_scale(file["time"])


MISFITS = {
    "no dimension": (without_scale, "no dataset lies along time"),
    "another axis": (other_axis, "/wind does not lie along time with its dimension 0"),
    "not attached": (replaced("wind", np.zeros((5, 8, 6), "<f4"), attach=False), "/wind does not lie along time"),
    "another type": (replaced("wind", np.zeros((5, 8, 6), "<f8")), "/wind cannot continue .* of another type"),
    "other extents": (replaced("wind", np.zeros((5, 8, 7), "<f4")), "/wind cannot continue .* 2 has 7 elements, not 6"),
    "other rank": (replaced("wind", np.zeros((5, 8), "<f4")), "/wind cannot continue .* 2 dimensions, not 3"),
    "missing": (lambda file: file.__delitem__("wind"), "there is no dataset /wind"),
    "longer than its scale": (replaced("wind", np.zeros((6, 8, 6), "<f4")), "/wind has 6 elements along time"),
    "several axes": (both, "/both lies along time with 2 axes"),
    "one more": (more, "/more lies along time, and is not there in the first file"),
}


@pytest.mark.parametrize("case", MISFITS)
async def test_a_file_that_does_not_fit_is_told_with_its_dataset(plane, case):
    change, words = MISFITS[case]
    held = await files(plane, month(0), month(1, fill=change), month(2))
    looked = await joined.look(held, "time")
    await held.aclose()
    assert list(looked.wrong) == [1]
    with pytest.raises(Misfit, match=words):
        raise looked.wrong[1]


async def test_files_that_cannot_be_opened_are_outcomes_of_their_own(plane):
    held = await files(plane, month(0), b"no HDF5", month(2), month(3)[:-100])
    await plane.delete("m2.h5")
    looked = await joined.look(held, "time")
    await held.aclose()
    assert {number: each.reason for number, each in looked.wrong.items()} == {
        1: "FORMAT_MISMATCH",
        2: "OBJECT_NOT_FOUND",
        3: "FORMAT_MISMATCH",
    }


@pytest.mark.parametrize("look", ["first", "fitted"])
async def test_what_the_library_says_where_nobody_awaits_it_is_told_with_its_file(plane, monkeypatch, look):
    async def broken(*_):
        msg = "bad heap free list"
        raise RuntimeError(msg)

    monkeypatch.setattr(joined, look, broken)
    held = await files(plane, month(0), month(1))
    looked = await joined.look(held, "time")
    await held.aclose()
    [(number, why)] = looked.wrong.items()
    assert number == ["first", "fitted"].index(look)
    assert str(why) == "it cannot be read: RuntimeError: bad heap free list"


def otherwise(file):
    file["height"][...] = 9.0
    file.attrs["title"] = "another model"
    file["wind"].attrs["history"] = "made later"
    file["extra"] = 1


async def test_what_a_file_has_otherwise_is_told_of_it(plane):
    def more(file):
        file["depth"] = 1.0
        file["depths"] = [1, 2]

    def same(file):
        more(file)
        otherwise(file)
        del file["depth"], file["depths"]
        file["depths"] = [1, 2, 3]

    held = await files(plane, month(0, fill=more), month(1, fill=more), month(2, fill=same))
    looked = await joined.look(held, "time")
    await held.aclose()
    assert not looked.wrong
    assert looked.others[0].troubles == ()
    assert sorted((each.path, each.what) for each in looked.others[1].troubles) == [
        ("/@title", "mapped"),
        ("/depth", "refused"),
        ("/depths", "refused"),
        ("/extra", "refused"),
        ("/height", "refused"),
        ("/wind/@history", "mapped"),
    ]
    told = {each.path: each.reason for each in looked.others[1].troubles}
    assert "'another model': the domain has that of the first file, 'model'" in told["/@title"]
    assert "its data are other than in the first file" in told["/height"]


async def test_a_load_that_died_anywhere_goes_on_and_ends_the_same(plane):
    contents = [month(i, 5, fill=wider) for i in range(2)]
    whole = MemoryPlane("bucket", MemorySettings())
    _, done = await join(plane, whole, *contents)
    expected = await content(whole)
    for died in range(0, done.written.objects, 5):
        bucket = Dying("bucket", MemorySettings())
        bucket.left = died
        with pytest.raises(Unavailable):
            await join(plane, bucket, *contents)
        assert (await content(bucket)).items() <= expected.items()
        bucket.left = 1 << 30
        _, again = await join(plane, bucket, *contents)
        assert await content(bucket) == expected
        assert again.written.objects <= done.written.objects


async def test_a_chunk_that_does_not_match_its_checksum_is_told_with_the_file(plane):
    def checked(file):
        time = file.create_dataset("time", data=np.arange(4))
        time.make_scale("time")
        file.create_dataset("d", data=np.arange(4.0), chunks=(2,), fletcher32=True).dims[0].attach_scale(time)

    contents = []
    for _ in range(2):
        held = io.BytesIO()
        with h5py.File(held, "w") as file:
            checked(file)
            offset = file["d"].id.get_chunk_info(0).byte_offset
        contents.append(bytearray(held.getvalue()))
    contents[1][offset] ^= 1
    with pytest.raises(Misfit, match=rf"the data of /d cannot be read: the chunk at byte {offset} does") as caught:
        await join(plane, MemoryPlane("bucket", MemorySettings()), *map(bytes, contents))
    assert caught.value.number == 1


async def test_damaged_data_are_told_with_the_file_and_nothing_is_named(plane):
    data = bytearray(month(1))
    with h5py.File(io.BytesIO(data)) as file:
        info = file["wind"].id.get_chunk_info(0)
    data[info.byte_offset : info.byte_offset + info.size] = b"\xff" * info.size
    with pytest.raises(Misfit, match="the data of /wind cannot be read") as caught:
        await join(plane, MemoryPlane("bucket", MemorySettings()), month(0), bytes(data))
    assert caught.value.number == 1


NAMED = {
    "/g/time": {"/g/time", "/g/a"},
    "time": {"/g/time", "/g/a", "/h/time", "/scale", "/b"},
    "hours": {"/c"},
}


@pytest.mark.parametrize("dimension", NAMED)
async def test_a_dimension_is_a_path_a_name_or_a_label(plane, dimension):
    def fill(file):
        for group in ("g", "h"):
            file.create_dataset(f"{group}/time", data=np.arange(2)).make_scale()
        file.create_dataset("scale", data=np.arange(3)).make_scale("time")
        file.create_dataset("g/a", data=np.arange(2)).dims[0].attach_scale(file["g/time"])
        file.create_dataset("b", data=np.arange(3)).dims[0].attach_scale(file["scale"])
        file.create_dataset("c", data=np.arange(4)).dims[0].label = "hours"
        file["as_long"] = np.arange(2)

    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        fill(file)
    one = await files(plane, held.getvalue())
    looked = await joined.look(one, dimension)
    await one.aclose()
    assert {each.node.path for each in looked.first.joined} == NAMED[dimension]
