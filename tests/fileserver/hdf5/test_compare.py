"""What a comparison of a file with a domain finds: every kind of difference, and none where there is none."""

import h5py
import h5pyd
import numpy as np
import pytest

from fileserver.hdf5 import compare, describe, load, stretches
from fileserver.hdf5.alike import same
from fileserver.hdf5.compare import Depth
from fileserver.hdf5.differing import elements
from fileserver.hdf5.hsds import domains
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.source import opened
from fileserver.hdf5.types import Number
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.hdf5.buckets import plane
from tests.fileserver.hdf5.test_load import hdf5

__all__ = ["plane"]  # a fixture


@pytest.fixture
async def loaded(server, folder, plane):
    """Load what a function fills, and give the domain's path and root."""
    bucket = PosixPlane("bucket", PosixSettings(path=server.storage, durability="os"))

    async def run(fill, name="x"):
        await plane.put("loaded.h5", hdf5(fill), upload_id="l", replace=True)
        async with opened(plane, "loaded.h5") as file:
            done = await load.load(file, bucket, f"{folder}/{name}", 1.8e9)
        domain = describe.domain_json(done.root, "admin", done.created)
        await bucket.put(f"{folder[1:]}/{name}/.domain.json", domain, upload_id="p")
        return f"{folder}/{name}", done.root

    yield run
    await bucket.aclose()


@pytest.fixture
def differences(connection, plane):
    async def run(fill, domain, root, **options):
        await plane.put("file.h5", hdf5(fill), upload_id="f", replace=True)
        async with opened(plane, "file.h5") as file:
            objects = Objects(connection, domain, root)
            return [each async for each in compare.differences(file, objects, root, **options)]

    return run


def one(file):
    file.attrs["gone"], file.attrs["value"], file.attrs["type"], file.attrs["dims"] = 1, 1.5, np.int16(1), [1, 2]
    file.attrs["nan"] = np.nan
    file["same"] = np.arange(4)
    file.create_dataset("data", data=np.arange(600).reshape(20, 30), chunks=(7, 8), compression="gzip")
    file["texts"] = ["a", "b"]
    file["type"] = np.arange(3, dtype="i4")
    file["dims"] = np.arange(3)
    file.create_dataset("limits", data=np.arange(3), maxshape=(None,), chunks=(3,))
    file.create_dataset("fill", (3,), "i4", chunks=(3,), fillvalue=1)
    file["kind"] = 1
    file["missing"] = 1
    file["soft"] = h5py.SoftLink("/a")
    file["external"] = h5py.ExternalLink("a.h5", "/a")
    file["hard"] = h5py.SoftLink("/data")
    file["other"] = file["same"]
    file.create_dataset("to", data=[file["same"].ref], dtype=h5py.ref_dtype)
    ordered = file.create_group("ordered", track_order=True)
    ordered.create_group("b")
    ordered.create_group("a")


def two(file):
    file.attrs["value"], file.attrs["type"], file.attrs["dims"], file.attrs["new"] = 2.5, np.int32(1), [1, 2, 3], 1
    file.attrs["nan"] = np.nan
    file["same"] = np.arange(4)
    changed = np.arange(600).reshape(20, 30)
    changed[13, 17] = changed[19, 29] = -1
    file.create_dataset("data", data=changed, chunks=(7, 8), compression="gzip")
    file["texts"] = ["a", "c"]
    file["type"] = np.arange(3, dtype="u4")
    file["dims"] = np.arange(4)
    file.create_dataset("limits", data=np.arange(3), maxshape=(5,), chunks=(3,))
    file.create_dataset("fill", (3,), "i4", chunks=(3,), fillvalue=2)
    file.create_group("kind")
    file["soft"] = h5py.SoftLink("/b")
    file["external"] = h5py.ExternalLink("a.h5", "/b")
    file["hard"] = file["data"]
    file["other"] = np.arange(4)
    file["added"] = 1
    file.create_dataset("to", data=[file["data"].ref], dtype=h5py.ref_dtype)
    ordered = file.create_group("ordered", track_order=True)
    ordered.create_group("a")
    ordered.create_group("b")


async def test_every_kind_of_difference_is_found_with_both_sides(loaded, differences):
    found = {(d.path, d.what): (d.left, d.right) for d in await differences(one, *await loaded(two), depth=Depth.FULL)}
    assert found == {
        ("/@gone", "missing"): ("1", ""),
        ("/@value", "value"): ("1.5", "2.5"),
        ("/@type", "type"): ("H5T_STD_I16LE", "H5T_STD_I32LE"),
        ("/@dims", "extents"): ("2", "3"),
        ("/@dims", "value"): ("[1, 2]", "[1, 2, 3]"),
        ("/@new", "added"): ("", "1"),
        ("/data", "data"): ("[13, 17] 407, one of 2 that differ", "[13, 17] -1"),
        ("/texts", "data"): (
            r"[0] bytes b'\x00\x00\x00a\x01\x00\x00\x00b'",
            r"[0] bytes b'\x00\x00\x00a\x01\x00\x00\x00c'",
        ),
        ("/type", "type"): ("H5T_STD_I32LE", "H5T_STD_U32LE"),
        ("/dims", "extents"): ("3", "4"),
        ("/limits", "limits"): ("unlimited", "5"),
        ("/fill", "fill value"): ("1", "2"),
        ("/fill", "data"): ("[0] 1, one of 3 that differ", "[0] 2"),
        ("/kind", "kind"): ("dataset", "group"),
        ("/missing", "missing"): ("dataset", ""),
        ("/soft", "link"): ("soft /a", "soft /b"),
        ("/external", "link"): ("external a.h5:/a", "external a.h5:/b"),
        ("/hard", "link"): ("soft /data", "hard"),
        ("/same", "object"): ("/other", "another object"),
        ("/added", "added"): ("", "hard"),
        ("/to", "data"): found[("/to", "data")],
        ("/ordered", "order of links"): ("b, a", "a, b"),
    }


async def test_without_data_none_are_read_and_of_a_sample_the_ends_are(loaded, differences, monkeypatch):
    monkeypatch.setattr(stretches, "SAMPLE", 8)

    def filled(value):
        return lambda f: f.create_dataset("d", data=np.r_[np.zeros(400), value], chunks=(1,))

    domain = await loaded(filled(1.0))
    tally = compare.Tally()
    assert await differences(filled(2.0), *domain, depth=Depth.NONE, tally=tally) == []
    assert (tally.objects, tally.bytes) == (2, 0)
    [found] = await differences(filled(2.0), *domain, depth=Depth.SAMPLE, tally=tally)
    assert (found.path, found.what, found.left) == ("/d", "data", "[400] 2.0")
    assert tally.bytes == 4 * 8


async def test_what_is_known_to_stay_behind_is_no_difference(loaded, differences):
    def fill(file):
        file["kept"] = np.arange(3)
        file.attrs["kept"] = 1

    def more(file):
        fill(file)
        file["lost"] = np.arange(3)
        file["again"] = file["lost"]
        file.attrs["lost"] = 1

    domain = await loaded(fill)
    assert await differences(more, *domain, without={"/again", "/@lost"}) == []
    assert {d.path for d in await differences(more, *domain)} == {"/again", "/lost", "/@lost"}


async def test_a_domain_that_others_made_with_their_own_ids(server, connection, folder, differences):
    def fill(file):
        group = file.create_group("group")
        file.create_dataset("d", data=np.arange(60.0).reshape(6, 10), chunks=(2, 10), compression="gzip")
        file["d"].attrs["to"] = group.ref
        file["d"].attrs["text"] = "ümläut"
        group["same"] = file["d"]
        file["b"] = np.array([True, False])

    access = {"endpoint": server.endpoint, "username": server.user, "password": server.password}
    with h5pyd.File(f"{folder}/theirs", "w", **access) as file:
        fill(file)
    there = await domains.stat(connection, f"{folder}/theirs")
    assert await differences(fill, there.path, there.root, depth=Depth.FULL) == []


def test_values_are_equal_as_numbers_and_references_by_id():
    assert same([float("nan"), [0.0]], [float("nan"), [-0.0]])
    assert same("g-1-2", "groups/g-1-2")
    assert not same("groups/g-1-2", "g-1-2")
    assert not same("run1", "data/run1")
    assert not same("g", "groups/g")
    assert not same("1", 1)
    assert not same([1], [1, 2])


def test_elements_that_differ_are_counted_and_the_first_is_told():
    kind = Number("F", 8, "LE")
    ours = np.array([[0.0, np.nan, 1.0], [2.0, 3.0, 4.0]])
    theirs = np.array([[-0.0, np.nan, 1.0], [2.0, 5.0, 6.0]])
    assert elements(kind, (0, 0), (2, 3), ours.tobytes(), ours.tobytes()) is None
    found = elements(kind, (10, 20), (2, 3), ours.tobytes(), theirs.tobytes())
    assert (found.count, found.place, found.left, found.right) == (2, (11, 21), "3.0", "5.0")
    assert elements(kind, (0,), (2,), ours.tobytes(), theirs.tobytes()[:-8]) is not None


def test_some_blocks_are_the_first_the_last_and_others():
    from random import Random

    whole = list(stretches.blocks((7, 5), (2, 3)))
    assert len(whole) == 8
    assert sum(each.elements for each in whole) == 35
    chosen = list(stretches.some((7, 5), (2, 3), 4, Random(1)))
    assert len(set(chosen)) == 4
    assert {whole[0], whole[-1]} <= set(chosen) <= set(whole)
    assert list(stretches.some((7, 5), (2, 3), 8, Random(1))) == whole
    assert list(stretches.some((), (), 4, Random(1))) == [stretches.Block((), ())]
