"""HDF5 files into HSDS through the installed command line."""

import json
import shutil

import h5py
import h5pyd
import numpy as np
import pytest

from tests.doubles import hsds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with hsds.running(tmp_path_factory.mktemp("hsds")) as started:
        yield started


@pytest.fixture
def data(machine, server):
    """A folder with three files, one of them none, and a configuration with the server twice."""
    folder = machine.folder / "data"
    (folder / "in" / "deep").mkdir(parents=True)
    for i, name in enumerate(("a.h5", "deep/b.h5")):
        with h5py.File(folder / "in" / name, "w") as file:
            file.create_dataset("d", data=np.arange(1000.0) + i, chunks=(100,), compression="gzip")
            file["d"].attrs["i"] = i
    (folder / "in" / "c.h5").write_bytes(b"no HDF5 at all")
    (folder / "in" / "notes.txt").write_text("nothing")
    machine.environment |= {"HS_PASSWORD": server.password, "ALICE": server.passwords["alice"]}
    common = f"endpoint: '{server.endpoint}', bucket: {server.bucket}, username: admin, password: {{env: HS_PASSWORD}}"
    machine.configure(
        f"planes:\n  data: {{type: posix, path: {folder}}}\n  bucket: {{type: posix, path: {server.storage}}}\n"
        f"  near: {{type: posix, path: {server.storage.parent}/near}}\n"
        f"hsds:\n  main: {{{common}, storage: bucket}}\n  far: {{{common}}}\n  wrong: {{{common}, storage: data}}\n"
        f"  alice: {{{common.replace('admin', 'alice').replace('HS_PASSWORD', 'ALICE')}, storage: bucket}}\n"
    )
    return folder


def read(server, path, name="d"):
    domain = {"endpoint": server.endpoint, "username": server.user, "password": server.password}
    with h5pyd.File(path, "r", **domain) as file:
        return file[name][()], dict(file[name].attrs)


@pytest.mark.parametrize("target", ["main", "far"])
def test_a_folder_of_files_becomes_domains_and_a_bad_file_is_an_outcome_of_its_own(machine, server, data, target):
    top = f"hdf5://home/admin/{target}"
    done = machine("ingest", "data:in/", f"{top}/in/", "--target", target, "--json", code=11).json
    files = done["outcome"]["files"]
    verified = "1 sample, 1 stored" if target == "main" else "sample"
    assert (files["loaded"], files["partly"], files["failed"], files["verified"]) == (2, 0, 1, verified)
    assert [(each["key"], each["reason"]) for each in files["exceptions"]] == [("data:in/c.h5", "FORMAT_MISMATCH")]
    for i, name in enumerate(("a.h5", "deep/b.h5")):
        values, attributes = read(server, f"/home/admin/{target}/in/{name}")
        assert values.tolist() == (np.arange(1000.0) + i).tolist()
        assert attributes == {"i": i}
    listed = machine("hdf5", "ls", f"{top}/in", "--json").json["domains"]
    assert sorted(each["domain"].rpartition("/")[2] for each in listed) == ["a.h5", "deep"]

    name = done["name"]
    told = machine("transfers", "show", name, "--report", "--json").json["report"]
    assert {(each["path"], each["result"], each["route"]) for each in told if each["domain"].endswith("/a.h5")} == {
        ("", "loaded", ""),
        ("/", "loaded", ""),
        ("/d", "loaded", "place" if target == "main" else "rest"),
    }


def test_a_domain_is_replaced_only_if_that_is_asked_for(machine, server, data):
    domain = "hdf5://home/admin/again"
    line = machine("ingest", "data:in/a.h5", domain).out
    assert "1 file loaded, 2 objects" in line
    assert "past the server" in line
    assert "verified: sample" in line
    refused = machine("ingest", "data:in/deep/b.h5", domain, "--json", code=5).error
    assert refused["reason"] == "TARGET_EXISTS"
    assert read(server, "/home/admin/again")[1] == {"i": 0}
    machine("hdf5", "acl", domain, "bob", "r")
    for target, name in (("main", "deep/b.h5"), ("far", "a.h5")):
        machine("ingest", f"data:in/{name}", domain, "--overwrite", "--target", target, "--verify", "full")
        assert read(server, "/home/admin/again")[1] == {"i": int("b" in name)}
    assert "-r----  bob" in machine("hdf5", "acl", domain).out
    left = machine("hdf5", "ls", "hdf5://home/admin", "--json").json["domains"]
    assert not [each for each in left if "cropduster" in each["domain"] or "previous" in each["domain"]]


def test_a_linked_domain_has_no_chunks_and_reads_the_file_where_it_is(machine, server, data):
    near = server.storage.parent / "near"
    near.mkdir()
    shutil.copy(data / "in/a.h5", near)
    before = set(server.storage.rglob("*"))
    done = machine(
        "ingest", "near:a.h5", "hdf5://home/admin/linked", "--mode", "link", "--verify", "full", "--json"
    ).json
    assert read(server, "/home/admin/linked")[0].tolist() == np.arange(1000.0).tolist()
    told = machine("transfers", "show", done["name"], "--report", "--json").json["report"]
    assert {each["path"]: each["route"] for each in told}["/d"] == "link"
    made = {path.name for path in set(server.storage.rglob("*")) - before if path.is_file()}
    assert made <= {".dataset.json", ".group.json", ".domain.json", ".info.json", ".summary.json"}
    away = machine("ingest", "data:in/a.h5", "hdf5://home/admin/away", "--mode", "link", "--json", code=7).error
    assert "HSDS cannot read data:in/a.h5 through a link" in away["message"]


def test_a_dry_run_shows_the_routes_and_writes_nothing(machine, server, data):
    shown = machine("ingest", "data:in/", "hdf5://home/admin/dry/", "--dry-run", "--json").json["objects"]
    assert {(each["source"], each["path"], each["route"]) for each in shown} >= {
        ("data:in/a.h5", "/d", "place"),
        ("data:in/deep/b.h5", "/d", "place"),
        ("data:in/c.h5", "", "-"),
    }
    assert server.call("GET", "/", domain="/home/admin/dry")[0] == 404


def test_what_is_wrong_is_told_with_its_exit_code(machine, server, data):
    top = "hdf5://home/admin/wrong"
    gone = machine("ingest", "data:in/gone.h5", f"{top}/x", "--json", code=4).error
    assert gone["reason"] == "OBJECT_NOT_FOUND"
    assert machine("ingest", "data:in/c.h5", f"{top}/x", "--json", code=7).error["reason"] == "FORMAT_MISMATCH"
    folder = machine("ingest", "data:in/a.h5", f"{top}/no/x", "--no-folders", "--json", code=4).error
    assert "--no-folders makes none" in folder["message"]
    several = machine("ingest", "data:in/", f"{top}/x", "--json", code=2).error
    assert "end it with /" in several["message"]
    bucket = machine("ingest", "data:in/a.h5", f"{top}/x", "--target", "wrong", "--json", code=7).error
    assert "is not the bucket of HSDS 'wrong'" in bucket["message"]
    for mode in ("direct", "rest"):
        options = ("--target", "alice", "--mode", mode, "--json")
        closed = machine("ingest", "data:in/a.h5", "hdf5://home/bob/x", *options, code=3).error
        assert closed["reason"] == "CALLER_DENIED"
        assert closed["message"].startswith(
            "hdf5://home/bob on HSDS 'alice': alice may not make anything in this folder"
        )
        assert machine("ingest", "data:in/a.h5", f"hdf5://home/alice/{mode}", *options).json["outcome"]
    assert read(server, "/home/alice/direct")[1] == {"i": 0}
    direct = machine("ingest", "data:in/a.h5", f"{top}/x", "--target", "far", "--mode", "direct", "--json", code=2)
    assert "`storage`" in json.dumps(direct.error)
    words = machine("ingest", "-", "/home/x", "--mode", "fast", "--verify", "no", "--json", code=2).error
    assert set(words["violations"]) == {"SOURCE", "DOMAIN", "--mode", "--verify"}
    words = machine("ingest", "data:a", f"{top}/x", "--extend", "", "--mode", "x", "--skip-bad", "--json", code=2).error
    assert set(words["violations"]) == {"--extend", "--mode", "--skip-bad"}


def test_many_files_become_one_domain_along_a_dimension_and_later_ones_extend_it(machine, server, data):
    (data / "months").mkdir()
    for number in range(3):
        with h5py.File(data / f"months/m{number}.h5", "w") as file:
            file.create_dataset("time", data=np.arange(5) + 5 * number, chunks=(5,), maxshape=(None,)).make_scale()
            wind = file.create_dataset("wind", data=np.full((5, 8), number), chunks=(2, 8), compression="gzip")
            wind.dims[0].attach_scale(file["time"])
            wind.attrs["i"] = 7
    words = ("ingest", "data:months/*.h5", "hdf5://home/admin/all", "--extend", "time")
    (data / "months/m2.h5").rename(data / "m2.h5")
    shown = machine(*words, "--dry-run", "--json").json["objects"]
    said = {(each["source"], each["path"]): each for each in shown}
    assert said["data:months/m1.h5", "/time"]["route"] == "place"
    assert said["data:months/m1.h5", "/wind"]["reason"] == (
        "elements 5:10 of dimension 0: 3 rows of chunks put together anew"
    )
    assert server.call("GET", "/", domain="/home/admin/all")[0] == 404
    assert "2 files loaded, 3 objects" in machine(*words).out
    assert machine(*words).out == "nothing to load: 2 files are in the domain already\n"
    (data / "m2.h5").rename(data / "months/m2.h5")
    done = machine(*words, "--verify", "full", "--json").json
    values, attributes = read(server, "/home/admin/all", "wind")
    assert values[:, 0].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert attributes["i"] == 7
    told = machine("transfers", "show", done["name"], "--report", "--json").json["report"]
    reasons = {(each["source"], each["path"]): each["reason"] for each in told}
    assert "already" in reasons["data:months/m0.h5", ""] + str(reasons)
    assert reasons["data:months/m2.h5", "/wind"].startswith("elements 10:15 of dimension 0: 3 rows of chunks placed")
    wrong = machine("ingest", "data:in/a.h5", "hdf5://home/admin/other", "--extend", "time", "--json", code=7).error
    assert "no dataset lies along time" in wrong["message"]
    both = ("ingest", "data:months/*.h5", "data:in/a.h5", "hdf5://home/admin/both", "--extend", "time")
    assert "Nothing was joined: " in machine(*both, "--json", code=7).error["message"]
    some = machine(*both, "--skip-bad", "--json", code=11).json["outcome"]["files"]
    assert (some["loaded"], some["failed"], some["exceptions"][0]["key"]) == (3, 1, "data:in/a.h5")
    folder = machine(*words[:2], "hdf5://home/admin/all/", *words[3:], "--json", code=2).error
    assert "DOMAIN" in folder["violations"]
