"""HDF5 files and domains of a real HSDS through the installed command line."""

import time

import h5py
import h5pyd
import numpy as np
import pytest

from tests.doubles import hsds
from tests.e2e.test_hdf5 import configured


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with hsds.running(tmp_path_factory.mktemp("hsds")) as started:
        yield started


def fill(file):
    file.create_dataset("d", data=np.arange(60.0).reshape(6, 10), chunks=(2, 10), compression="gzip")
    file["d"].attrs["unit"] = "m"
    file.create_group("g")["again"] = file["d"]


def domain(server, path):
    return h5pyd.File(path, "a", endpoint=server.endpoint, username=server.user, password=server.password)


def test_diff_lists_what_differs_and_exits_with_9(machine, server):
    configured(machine, server)
    (machine.folder / "data").mkdir()
    with h5py.File(machine.folder / "data/x.h5", "w") as file:
        fill(file)
    with domain(server, "/home/admin/diffed") as there:
        fill(there)
    address = "hdf5://home/admin/diffed"
    assert "0 bytes of data" in machine("hdf5", "diff", "data:x.h5", address, "--data", "none").out
    equal = machine("hdf5", "diff", "data:x.h5", address, "--data", "full").out
    assert equal == "3 objects, 1 attribute, 480 bytes of data compared: no difference\n"

    with h5py.File(machine.folder / "data/x.h5", "a") as file:
        file["d"].attrs["unit"] = "km"
        file["d"][3, 4] = 0
    shown = machine("hdf5", "diff", "data:x.h5", address, "--json", code=9).json
    assert shown["differences"] == [
        {"path": "/d/@unit", "what": "value", "left": '"km"', "right": '"m"'},
        {"path": "/d", "what": "data", "left": "[3, 4] 0.0", "right": "[3, 4] 34.0"},
    ]
    assert shown["compared"] == {"objects": 3, "attributes": 1, "datasets": 1, "bytes": 480}
    assert "2 differences" in machine("hdf5", "diff", "data:x.h5", address, code=9).out

    wrong = machine("hdf5", "diff", "data:x.h5", "home/x", "--target", "mian", "--json", code=2).error
    assert set(wrong["violations"]) == {"domain", "target"}
    assert machine("hdf5", "diff", "data:x.h5", "hdf5://home/admin", "--json", code=4).error
    assert machine("hdf5", "diff", "data:gone.h5", address, "--json", code=4).error


def test_get_writes_a_domain_as_a_file_that_is_seen_whole(machine, server):
    configured(machine, server)
    with domain(server, "/home/admin/got") as there:
        fill(there)
    address, path = "hdf5://home/admin/got", machine.folder / "out.h5"
    done = machine("hdf5", "get", address, str(path), "--verify", "full", "--json").json
    assert (done["objects"], done["exceptions"], done["size"]) == (3, [], path.stat().st_size)
    assert done["compared"] == {"objects": 3, "attributes": 1, "datasets": 1, "bytes": 480}
    with h5py.File(path) as file:
        assert np.array_equal(file["d"], np.arange(60.0).reshape(6, 10))
        assert (file["d"].compression, file["d"].chunks, file["d"].attrs["unit"]) == ("gzip", (2, 10), "m")
        assert file["g/again"] == file["d"]
    assert machine("hdf5", "get", address, str(path), "--json", code=5).error["reason"] == "TARGET_EXISTS"
    assert "480 bytes of data compared" in machine("hdf5", "get", address, str(path), "--overwrite").out
    assert [each.name for each in machine.folder.glob("*out*")] == ["out.h5"]


def test_a_get_whose_server_is_killed_leaves_nothing_of_the_file_and_may_be_asked_for_again(machine, server):
    configured(machine, server)
    values = np.random.default_rng(5).random((8, 1 << 16))
    with domain(server, "/home/admin/killed") as there:
        there.create_dataset("d", data=values, chunks=(1, 1 << 16))
    folder = machine.folder / "out"
    folder.mkdir()
    words = ("hdf5", "get", "hdf5://home/admin/killed", str(folder / "x.h5"), "--verify", "full")
    command = machine.start(*words)
    while not list(machine.state.glob("exports/*")):
        time.sleep(0.001)  # a file comes without an event
    machine.kill()
    out, err = command.communicate(60)
    assert command.returncode == 8, out + err
    assert list(folder.iterdir()) == []
    assert list(machine.state.glob("exports/*"))
    machine(*words)
    assert [each.name for each in folder.iterdir()] == ["x.h5"]
    with h5py.File(folder / "x.h5") as file:
        assert np.array_equal(file["d"], values)
    assert not list(machine.state.glob("exports/*"))


def test_relink_needs_the_bucket_and_links_that_begin_so(machine, server):
    configured(machine, server)
    address = "hdf5://home/admin/relinked"
    words = ("hdf5", "relink", address, "--from", "old/", "--to", "new/", "--json")
    assert "as `storage` of that server" in machine(*words, code=7).error["message"]
    configuration = machine.folder / "config.yaml"
    named = configuration.read_text().replace("  main: {", "  main: {storage: bucket, ", 1)
    configuration.write_text(
        named.replace("planes: {", f"planes: {{bucket: {{type: posix, path: {server.storage}}}, ", 1)
    )
    assert machine(*words, code=4).error["reason"] == "OBJECT_NOT_FOUND"
    with domain(server, "/home/admin/relinked") as there:
        fill(there)
    assert "it has no links at all" in machine(*words, code=7).error["message"]


def test_copy_brings_a_domain_to_another_server(machine, server, tmp_path):
    configured(machine, server)
    with hsds.running(tmp_path, users=()) as other:
        machine.environment["OTHER"] = other.password
        configuration = machine.folder / "config.yaml"
        plane = f"planes: {{bucket: {{type: posix, path: {other.storage}}}, "
        text = configuration.read_text().replace("planes: {", plane, 1)
        access = "username: admin, password: {env: OTHER}, storage: bucket"
        configuration.write_text(f"{text}  other: {{endpoint: '{other.endpoint}', {access}}}\n")
        with domain(server, "/home/admin/here") as there:
            fill(there)
        words = ("hdf5", "copy", "hdf5://home/admin/here", "hdf5://home/admin/new/there", "--to-target", "other")
        done = machine(*words, "--verify", "full", "--json").json
        assert (done["objects"], done["exceptions"], done["compared"]["bytes"]) == (3, [], 480)
        with domain(other, "/home/admin/new/there") as there:
            assert np.array_equal(there["d"], np.arange(60.0).reshape(6, 10))
            assert there["d"].attrs["unit"] == "m"
        assert machine(*words, "--json", code=5).error["reason"] == "TARGET_EXISTS"
        assert "480 bytes of data compared" in machine(*words, "--overwrite").out
        listed = machine("hdf5", "ls", "hdf5://home/admin/new", "--target", "other", "--json").json["domains"]
        assert [each["domain"] for each in listed] == ["hdf5://home/admin/new/there"]
