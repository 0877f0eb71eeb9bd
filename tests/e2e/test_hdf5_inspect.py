"""HDF5 files through the installed command line."""

import io

import h5py
import numpy as np
import pytest

from tests.fileserver.hdf5 import samples, samples_storage
from tests.fileserver.hdf5.sampling import make

assert samples, samples_storage  # they fill the table


@pytest.fixture
def data(machine):
    folder = machine.folder / "data"
    folder.mkdir()
    machine.configure(f"planes: {{data: {{type: posix, path: {folder}}}}}\n")
    return folder


def test_inspect_says_by_which_route_each_dataset_would_travel_and_what_stays_behind(machine, data):
    make("filters", data)
    shown = {each["path"]: each for each in machine("hdf5", "inspect", "data:filters.h5", "--json").json["objects"]}
    assert shown["/"]["links"] == len(shown) - 1
    routes = {path: each["route"] for path, each in shown.items() if each["kind"] == "dataset"}
    placed = {path for path, route in routes.items() if route == "place"}
    assert placed == {"/gzip", "/gzip_shuffle", "/fletcher", "/fletcher_gzip"}
    assert set(routes.values()) == {"place", "transcode"}
    assert shown["/gzip_shuffle"]["filters"] == ["shuffle", "deflate"]
    assert shown["/gzip"]["type"] == {"class": "H5T_INTEGER", "base": "H5T_STD_I32LE"}
    assert "shuffle without compression" in shown["/shuffle"]["reason"]
    assert shown["/nbit"]["findings"][0]["what"] == "mapped"

    rows = machine("hdf5", "inspect", "data:filters.h5", "--chunks", "/gzip", "--json").json["chunks"]
    with h5py.File(data / "filters.h5") as file:
        stored = file["gzip"].id
        expected = [stored.get_chunk_info(i) for i in range(stored.get_num_chunks())]
    assert [(r["offset"], r["size"]) for r in rows] == [(c.byte_offset, c.size) for c in expected]
    assert [r["place"] for r in rows] == [[a // 6, b // 7] for a, b in (c.chunk_offset for c in expected)]

    make("nested_vlens", data)
    refused = machine("hdf5", "inspect", str(data / "nested_vlens.h5")).out
    assert "refused: /nested a sequence of sequences" in refused
    assert "/beside" in refused


def test_inspect_of_what_is_no_hdf5_file_or_has_no_such_dataset(machine, data):
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        file["d"] = np.arange(3)
    (data / "good.h5").write_bytes(held.getvalue())
    (data / "short.h5").write_bytes(held.getvalue()[:-100])
    assert machine("hdf5", "inspect", "data:short.h5", "--json", code=7).error["reason"] == "FORMAT_MISMATCH"
    assert machine("hdf5", "inspect", "data:gone.h5", "--json", code=4).error["reason"] == "OBJECT_NOT_FOUND"
    for path, code in (("/gone", 4), ("/d", 2), ("d", 2)):
        assert machine("hdf5", "inspect", "data:good.h5", "--chunks", path, "--json", code=code).error
