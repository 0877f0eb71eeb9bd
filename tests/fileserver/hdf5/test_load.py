"""What a load leaves in the bucket: after a crash, of damaged files, and by whose hands."""

import io
import json
import zlib

import h5py
import numpy as np
import pytest

from fileserver.hdf5 import at_once, ids, load, load_many, outline, storage
from fileserver.hdf5.source import opened
from planes.bulk import open_bulk
from planes.errors import Unavailable
from planes.memory import MemoryPlane, MemorySettings
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.hdf5 import samples, samples_storage
from tests.fileserver.hdf5.buckets import Dying, content, plane
from tests.fileserver.hdf5.sampling import SAMPLES, make_all

__all__ = ["plane"]  # a fixture
assert samples, samples_storage  # they fill the table
CREATED = 1.8e9


def hdf5(fill):
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        fill(file)
    return held.getvalue()


def everything(file):
    file.create_dataset("placed", data=np.arange(60.0), chunks=(20,))
    file.create_dataset("decoded", data=np.arange(60), chunks=(20,), compression="lzf")
    file.create_dataset("slab", data=np.arange(10))
    file.create_group("group")["type"] = np.dtype("i4")
    file.attrs["to"] = file["placed"].ref


async def run(plane, bucket, name="a load", key="x.h5"):
    async with opened(plane, key) as file:
        return await load.load(file, bucket, name, CREATED)


async def test_a_load_that_died_anywhere_goes_on_and_ends_the_same(plane):
    await plane.put("x.h5", hdf5(everything), upload_id="u")
    whole = MemoryPlane("bucket", MemorySettings())
    done = await run(plane, whole)
    expected = await content(whole)
    assert len(expected) == done.written.objects == 13
    for died in range(done.written.objects):
        bucket = Dying("bucket", MemorySettings())
        bucket.left = died
        with pytest.raises(Unavailable):
            await run(plane, bucket)
        before = await content(bucket)
        assert before.items() <= expected.items()
        bucket.left = 1 << 30
        again = await run(plane, bucket)
        assert await content(bucket) == expected
        chunks = sum(not key.endswith(".json") for key in before)
        assert again.written.objects == done.written.objects - chunks


async def test_nothing_is_outside_of_the_folder_of_its_root_and_no_domain_is_made(plane):
    await plane.put("x.h5", hdf5(everything), upload_id="u")
    bucket = MemoryPlane("bucket", MemorySettings())
    first, second = await run(plane, bucket), await run(plane, bucket, name="another")
    keys = list(await content(bucket))
    assert first.root != second.root
    assert all(key.startswith((ids.folder(first.root), ids.folder(second.root))) for key in keys)
    assert not any(key.endswith(".domain.json") for key in keys)
    root = json.loads((await content(bucket))[ids.key(first.root, first.root)])
    assert root["attributes"]["to"]["value"] == root["links"]["placed"]["id"]


async def test_the_store_copies_chunks_by_itself_where_it_can(plane):
    values = np.random.default_rng(3).random((64, 1024))
    await plane.put("x.h5", hdf5(lambda f: f.create_dataset("d", data=values, chunks=(8, 1024))), upload_id="u")
    done = await run(plane, plane)
    assert done.written.copied == values.nbytes
    assert done.written.carried < 2000
    chunks = [data for key, data in (await content(plane)).items() if key.startswith("db/") and "json" not in key]
    assert b"".join(chunks) == values.tobytes()


async def test_a_short_last_slab_is_filled_up(plane, monkeypatch):
    monkeypatch.setattr("fileserver.hdf5.grid.ONE", 100)
    monkeypatch.setattr("fileserver.hdf5.grid.slabs_of", lambda *_: (4,))
    await plane.put("x.h5", hdf5(lambda f: f.create_dataset("d", data=np.arange(30))), upload_id="u")
    done = await run(plane, plane)
    chunks = {k.rpartition("/")[2]: d for k, d in (await content(plane)).items() if "json" not in k and k != "x.h5"}
    assert len(chunks["7"]) == 32
    assert np.frombuffer(chunks["7"], "i8").tolist() == [28, 29, 0, 0]
    assert done.written.copied == 7 * 32


async def test_raw_chunks_that_lie_together_are_read_together(plane, monkeypatch):
    groups = []
    carry = storage.Bucket._carry

    async def counted(self, source, group, *more):
        groups.append(len(group))
        await carry(self, source, group, *more)

    monkeypatch.setattr(storage.Bucket, "_carry", counted)
    monkeypatch.setattr("fileserver.hdf5.source.WHOLE", 0)  # a small one is made at once
    await plane.put("x.h5", hdf5(lambda f: f.create_dataset("d", data=np.arange(1000.0), chunks=(100,))), upload_id="u")
    await run(plane, MemoryPlane("bucket", MemorySettings()))
    assert sum(groups) == 10
    assert len(groups) < 4


def of_chunk(data, name):
    with h5py.File(io.BytesIO(data)) as file:
        return file[name].id.get_chunk_info(0)


async def test_a_load_at_once_and_one_object_by_object_leave_the_same_bytes(tmp_path, monkeypatch):
    make_all(tmp_path)
    source = PosixPlane("data", PosixSettings(path=tmp_path))
    buckets = MemoryPlane("m", MemorySettings()), open_bulk("p", PosixSettings(path=tmp_path / "bucket"))
    (tmp_path / "bucket").mkdir()
    made, together = [], 0
    monkeypatch.setattr(at_once, "make", lambda *given, make=at_once.make: made.append(0) or make(*given))
    try:
        for name in SAMPLES:
            done = [await run(source, bucket, f"load {name}", f"{name}.h5") for bucket in buckets]
            with monkeypatch.context() as patch:
                patch.setattr(at_once, "suits", lambda _: False)
                patch.setattr(load, "_DECODED", 1)  # so that what is decoded comes in several batches
                single = MemoryPlane("m", MemorySettings())
                wanted = await run(source, single, f"load {name}", f"{name}.h5")
            assert [each.troubles for each in done] == [wanted.troubles] * 2, name
            assert [each.ids for each in done] == [wanted.ids] * 2, name
            assert [each.written for each in done] == [wanted.written] * 2, name
            expected = await content(single)
            for bucket in buckets:
                found = await content(bucket, ids.folder(wanted.root))
                assert found == expected, name
            data = (tmp_path / f"{name}.h5").read_bytes()
            [many] = await load_many.make([load_many.Small(name, data, f"load {name}", CREATED)], buckets[1])
            assert many is None or {each.key: bytes(each.data) for each in many.objects} == expected, name
            together += many is not None
    finally:
        for plane in (source, *buckets):
            await plane.aclose()
    assert len(made) - together > len(SAMPLES)  # twice all but those whose data lie in other files
    assert 2 * together > len(SAMPLES)


@pytest.mark.parametrize("groups", [3, 100])
async def test_of_files_that_come_many_at_a_time_most_objects_are_opened_once(plane, monkeypatch, groups):
    def fill(file):
        file["chunked"] = np.arange(3)
        for i in range(groups - 1):
            file.create_group(f"g{i}", track_order=i % 2 == 0).attrs.update({"b": i, "a": i})

    data = hdf5(fill)
    await plane.put("x.h5", data, upload_id="u")
    bucket, times = MemoryPlane("bucket", MemorySettings()), []
    await run(plane, bucket)
    real = outline.h5o.open
    monkeypatch.setattr(outline.h5o, "open", lambda *words: times.append(words[1]) or real(*words))
    [many] = await load_many.make([load_many.Small("x", data, "a load", CREATED)], bucket)
    assert {each.key: bytes(each.data) for each in many.objects} == await content(bucket)
    assert len(times) == (groups if groups == 3 else 2 * groups - 64 + 1)  # 64 are kept open, and then the dataset too


async def test_a_file_that_would_be_large_when_decoded_goes_object_by_object(plane, monkeypatch):
    monkeypatch.setattr(at_once, "make", None)
    values = np.zeros((9, 1 << 20), "u1")
    await plane.put("x.h5", hdf5(lambda f: f.create_dataset("d", data=values, compression="lzf")), upload_id="u")
    assert (await run(plane, MemoryPlane("bucket", MemorySettings()))).whole


async def test_one_damaged_dataset_is_left_out_with_its_reason_and_the_rest_arrives(plane):
    data = bytearray(hdf5(everything))
    info = of_chunk(data, "decoded")
    data[info.byte_offset : info.byte_offset + info.size] = b"\xff" * info.size
    await plane.put("x.h5", bytes(data), upload_id="u")
    bucket = MemoryPlane("bucket", MemorySettings())
    done = await run(plane, bucket)
    assert [(t.path, t.what) for t in done.troubles] == [("/decoded", "failed")]
    assert not done.whole
    root = json.loads((await content(bucket))[ids.key(done.root, done.root)])
    assert sorted(root["links"]) == ["group", "placed", "slab"]


async def test_of_a_small_file_every_compressed_chunk_is_tried(plane):
    def fill(file):
        for name, kind in (("cut", "gzip"), ("changed", "gzip"), ("good", "gzip"), ("plain", None)):
            file.create_dataset(name, data=np.arange(60.0), chunks=(20,), compression=kind, shuffle=kind is not None)

    data = bytearray(hdf5(fill))
    with h5py.File(io.BytesIO(data)) as file:
        places = {name: file[name].id.get_chunk_info(1) for name in ("cut", "changed")}
    data[places["changed"].byte_offset + 15] ^= 1
    short = zlib.compress(bytes(80)).ljust(places["cut"].size, b"\0")
    data[places["cut"].byte_offset : places["cut"].byte_offset + len(short)] = short
    await plane.put("x.h5", bytes(data), upload_id="u")
    bucket = MemoryPlane("bucket", MemorySettings())
    done = await run(plane, bucket)
    assert {(t.path, t.what) for t in done.troubles} == {("/cut", "failed"), ("/changed", "failed")}
    assert all("cannot be decompressed" in t.reason for t in done.troubles)
    root = json.loads((await content(bucket))[ids.key(done.root, done.root)])
    assert sorted(root["links"]) == ["good", "plain"]


@pytest.mark.parametrize("at_a_time", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_a_chunk_that_does_not_match_its_checksum_costs_its_dataset_alone(
    plane, monkeypatch, at_a_time, compression
):
    def fill(file):
        for name in ("bad", "good"):
            options = {"chunks": (20,), "fletcher32": True, "compression": compression}
            file.create_dataset(name, data=np.arange(60.0), **options)
        file.attrs["to"] = file["bad"].ref

    monkeypatch.setattr(at_once, "suits", lambda _: at_a_time)
    data = bytearray(hdf5(fill))
    with h5py.File(io.BytesIO(data)) as file:
        info = file["bad"].id.get_chunk_info(1)
    data[info.byte_offset + 10] ^= 1  # one bit
    await plane.put("x.h5", bytes(data), upload_id="u")
    bucket = MemoryPlane("bucket", MemorySettings())
    done = await run(plane, bucket)
    assert [(t.path, t.what) for t in done.troubles] == [("/bad", "failed")]
    assert f"the chunk at byte {info.byte_offset} does not match the checksum" in done.troubles[0].reason
    root = json.loads((await content(bucket))[ids.key(done.root, done.root)])
    assert list(root["links"]) == ["good"]


async def test_a_chunk_table_that_leads_out_of_the_file(plane):
    data = hdf5(lambda f: f.create_dataset("d", data=np.arange(4), chunks=(4,)))
    offset = of_chunk(data, "d").byte_offset.to_bytes(8, "little")
    assert data.count(offset) == 1
    await plane.put("x.h5", data.replace(offset, (1 << 40).to_bytes(8, "little")), upload_id="u")
    done = await run(plane, MemoryPlane("bucket", MemorySettings()))
    assert [(t.path, t.what) for t in done.troubles] == [("/d", "failed")]
    assert "index of chunks" in done.troubles[0].reason


NAMED = {
    "missing": ("gone.raw", "not there"),
    "above": ("../gone.raw", "outside of the plane"),
    "absolute": ("/etc/hostname", "outside of the plane"),
}


@pytest.mark.parametrize("case", NAMED)
async def test_external_files_are_looked_for_on_the_plane_alone(plane, case):
    name, words = NAMED[case]
    data = hdf5(lambda f: f.create_dataset("d", (4,), "i4", external=[(name, 0, 16)]))
    await plane.put("x.h5", data, upload_id="u")
    done = await run(plane, MemoryPlane("bucket", MemorySettings()))
    assert [(t.path, t.what) for t in done.troubles] == [("/d", "refused")]
    assert words in done.troubles[0].reason


@pytest.mark.parametrize("case", NAMED)
async def test_sources_of_virtual_datasets_are_looked_for_on_the_plane_alone(plane, case):
    name, words = NAMED[case]

    def fill(file):
        layout = h5py.VirtualLayout((4,), "i4")
        layout[:] = h5py.VirtualSource(name, "d", (4,))
        file.create_virtual_dataset("v", layout)

    await plane.put("x.h5", hdf5(fill), upload_id="u")
    done = await run(plane, MemoryPlane("bucket", MemorySettings()))
    assert [(t.path, t.what) for t in done.troubles] == [("/v", "refused")]
    assert words in done.troubles[0].reason


@pytest.mark.parametrize("at_a_time", [True, False])
async def test_what_is_decoded_costs_what_was_written_however_far_a_dataset_reaches(plane, monkeypatch, at_a_time):
    def fill(file):
        for name, kind, chunk in (("packed", "i4", 128), ("tiny", "i4", 512), ("texts", h5py.string_dtype(), 16)):
            compression = "lzf" if name == "packed" else None
            made = file.create_dataset(name, (1 << 40,), kind, chunks=(chunk,), compression=compression)
            for at in range(20):
                made[(1 << 30) * at : (1 << 30) * at + 3] = b"7" if name == "texts" else 7

    monkeypatch.setattr(at_once, "suits", lambda _: at_a_time)
    await plane.put("x.h5", hdf5(fill), upload_id="u")
    bucket = MemoryPlane("bucket", MemorySettings())
    assert (await run(plane, bucket)).whole
    folders = [key.rpartition("/")[0] for key in await content(bucket) if not key.endswith(".json")]
    assert sorted(map(folders.count, set(folders))) == [20, 20, 20]


async def test_an_element_that_is_too_long_for_hsds(plane):
    texts = ["short", "x" * 1_000_001]
    await plane.put("x.h5", hdf5(lambda f: f.create_dataset("d", data=texts)), upload_id="u")
    done = await run(plane, MemoryPlane("bucket", MemorySettings()))
    assert [(t.path, t.what) for t in done.troubles] == [("/d", "refused")]
    assert "1000001 bytes" in done.troubles[0].reason


async def test_decoded_chunks_are_compressed_as_hsds_is_told(plane):
    values = np.arange(40, dtype="i4").reshape(5, 8)
    await plane.put(
        "x.h5", hdf5(lambda f: f.create_dataset("d", data=values, chunks=(5, 8), compression="lzf")), upload_id="u"
    )
    bucket = MemoryPlane("bucket", MemorySettings())
    await run(plane, bucket)
    found = await content(bucket)
    chunk = next(data for key, data in found.items() if key.endswith("/0_0"))
    shuffled = np.frombuffer(zlib.decompress(chunk), "u1").reshape(4, 40)
    assert shuffled.T.copy().view("i4").reshape(5, 8).tolist() == values.tolist()


async def test_big_endian_sequences_keep_their_bytes(plane):
    """Seen: h5py gives them out unswapped as native numbers, so that they were swapped once more."""

    def fill(file):
        made = file.create_dataset("d", (1,), h5py.vlen_dtype(">f8"))
        made[0] = [0.5, 1.5]

    await plane.put("x.h5", hdf5(fill), upload_id="u")
    bucket = MemoryPlane("bucket", MemorySettings())
    await run(plane, bucket)
    chunk = next(data for key, data in (await content(bucket)).items() if key.endswith("/0"))
    assert chunk == b"\x10\0\0\0" + np.array([0.5, 1.5], ">f8").tobytes()
