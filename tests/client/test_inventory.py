"""The inventory commands against a scripted server: words in, requests out, answers shown, files written."""

import csv
import json

import h5py
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from client import app
from client.commands import watching
from fileserver.v1 import landing_pb2 as pb
from fileserver.v1.plane_pb2 import ListPlanesResponse, Plane
from fileserver.v1.transfer_pb2 import Failure, Ingest, Location

WATCH = pb.Watch(
    name="watches/in-1",
    source=Location(plane="lz", key="in/"),
    load=pb.LoadAction(folder="hdf5://home/x/", target="main"),
    state=pb.Watch.STATE_ACTIVE,
    counts=pb.ArrivalCounts(done=2, failed=1),
)
ENDED = pb.Watch()
ENDED.CopyFrom(WATCH)
ENDED.state = pb.Watch.STATE_ENDED
DONE = pb.Arrival(
    key='it\'s, "ü".h5',
    state=pb.Arrival.STATE_DONE,
    size=5,
    version="v",
    tries=1,
    transfer="transfers/t1",
    start_time=Timestamp(seconds=100),
    end_time=Timestamp(seconds=107),
)
FAILED = pb.Arrival(
    key="k" * 1024,
    state=pb.Arrival.STATE_FAILED,
    size=7,
    error=Failure(code=9, reason="FORMAT_MISMATCH", message="it is no HDF5 file"),
)


@pytest.fixture
def run(server, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watching, "_PAUSE", 0)
    server.on("ListPlanes", ListPlanesResponse(planes=[Plane(name="lz")]))
    server.on("CreateWatch", pb.CreateWatchResponse(watch=WATCH))
    server.on("ListArrivals", pb.ListArrivalsResponse(arrivals=[DONE, FAILED]))

    def run(*words):
        code = app.run(["inventory", *words, "--server", server.address, "--state", str(tmp_path / "state")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_watch_asks_for_what_was_typed(run, server):
    words = [
        "--name",
        "w",
        "--include",
        "*.h5",
        "--settle",
        "1.5m",
        "--every",
        "5s",
        "--mode",
        "link",
        "--at-once",
        "2",
    ]
    code, out, err = run("watch", "lz:in", "hdf5://home/x/", *words, "--public-read", "--marker", "*.done")
    assert (code, out) == (0, "in-1 (lz:in/ to hdf5://home/x/) is active\n")
    assert "cropduster inventory list in-1 --server" in err
    [request] = server.requests["CreateWatch"]
    asked = request.watch
    assert (asked.name, asked.source, list(asked.include)) == ("w", Location(plane="lz", key="in"), ["*.h5"])
    assert (asked.settle.seconds, asked.interval.seconds, asked.at_once, asked.tries) == (90, 5, 2, 0)
    assert asked.load == pb.LoadAction(folder="hdf5://home/x/", mode=Ingest.MODE_LINK, public_read=True)
    assert asked.marker == "*.done"


def test_what_is_not_typed_is_left_to_the_server(run, server):
    run("watch", "lz:", "hdf5://home/x/")
    asked = server.requests["CreateWatch"][0].watch
    assert not asked.HasField("settle")
    assert not asked.HasField("interval")
    assert asked.load.mode == Ingest.MODE_UNSPECIFIED


def test_wrong_words_are_told_at_once_and_nothing_is_asked(run, server):
    code, _, err = run("watch", "a::b", "hdf5://x/", "--settle", "soon", "--every", "-", "--mode", "x", "--tries", "0")
    assert code == 2
    assert [
        field for field in ("SOURCE", "--settle", "--every", "--mode", "--tries") if f"\n  {field}: " not in err
    ] == []
    assert run("reset", "w")[0] == run("list", "w", "--only", "x")[0] == run("dump", "w", "--format", "hdf5")[0] == 2
    assert not any(server.requests.values())


def test_a_watch_that_looks_once_is_waited_for_and_names_what_failed(run, server):
    server.on("GetWatch", pb.GetWatchResponse(watch=WATCH), pb.GetWatchResponse(watch=ENDED))
    server.answers["ListArrivals"].clear()
    server.on("ListArrivals", pb.ListArrivalsResponse(arrivals=[FAILED]))
    code, out, err = run("watch", "lz:in", "hdf5://home/x/", "--once")
    assert (code, out) == (11, "in-1: 2 done, 1 failed\n")
    assert "it is no HDF5 file (FORMAT_MISMATCH)" in err
    assert list(server.requests["ListArrivals"][0].filter.states) == [pb.Arrival.STATE_FAILED]


def test_a_watch_that_could_not_look_ends_with_its_error(run, server):
    ended = pb.Watch()
    ended.CopyFrom(ENDED)
    ended.error.CopyFrom(Failure(code=14, reason="PLANE_UNAVAILABLE", message="the store is down"))
    server.on("GetWatch", pb.GetWatchResponse(watch=ended))
    code, _, err = run("watch", "lz:in", "hdf5://home/x/", "--once", "--json")
    assert (code, json.loads(err.splitlines()[-1])["error"]["reason"]) == (8, "PLANE_UNAVAILABLE")
    code, out, err = run("watch", "lz:in", "hdf5://home/x/", "--once")  # what had been seen all the same
    assert (code, out) == (8, "in-1: 2 done, 1 failed\n")
    assert "it is no HDF5 file (FORMAT_MISMATCH)" in err
    assert "the store is down" in err


def test_watches_and_arrivals_are_listed(run, server):
    server.on("ListWatches", pb.ListWatchesResponse(watches=[WATCH]))
    server.on("GetArrival", pb.GetArrivalResponse(arrival=FAILED))
    listed = json.loads(run("list", "--json")[1])["watches"][0]
    assert (listed["name"], listed["state"], listed["mode"], listed["counts"]["failed"]) == (
        "in-1",
        "active",
        "auto",
        1,
    )
    assert "hdf5://home/x/" in run("list")[1]
    found = json.loads(run("list", "in-1", "b/**", "--only", "failed", "--json")[1])["arrivals"]
    assert [(each["key"], each["state"]) for each in found] == [(DONE.key, "done"), (FAILED.key, "failed")]
    asked = server.requests["ListArrivals"][-1].filter
    assert (list(asked.states), list(asked.keys)) == ([pb.Arrival.STATE_FAILED], ["b/**"])
    assert "FORMAT_MISMATCH: it is no HDF5 file" in run("list", "in-1")[1]
    assert "it is no HDF5 file" in run("show", "in-1", FAILED.key)[1]


def test_what_is_asked_of_a_stopped_watch_is_said_to_wait(run, server):
    server.on("RetryArrivals", pb.RetryArrivalsResponse(changed=1))
    server.on("GetWatch", pb.GetWatchResponse(watch=ENDED))
    code, out, err = run("retry", "in-1", "a*")
    assert (code, out) == (0, "1 arrival will be tried again\n")
    assert "in-1 is ended" in err
    assert list(server.requests["RetryArrivals"][0].filter.keys) == ["a*"]


def test_a_dump_has_every_key_whole_in_csv_and_hdf5(run, tmp_path):
    assert run("dump", "in-1", "--format", "csv", "-o", "x.csv")[1] == "x.csv has the inventory, 2 rows\n"
    with (tmp_path / "x.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["filename"] for row in rows] == [DONE.key, FAILED.key]
    assert [(row["loadstart"], row["loaddone"], row["loadstatus"]) for row in rows] == [
        ("100", "107", "0"),
        ("0", "0", "1"),
    ]
    assert run("dump", "in-1", "--format", "csv")[1] == (tmp_path / "x.csv").read_text()

    assert json.loads(run("dump", "in-1", "--format", "hdf5", "-o", "x.h5", "--json")[1])["rows"] == 2
    with h5py.File(tmp_path / "x.h5") as file:
        table = file["inventory"][:]
    assert [name.decode() for name in table["filename"]] == [DONE.key, FAILED.key]
    assert list(table["loadstatus"]) == [0, 1]
    assert table["error"][1] == b"it is no HDF5 file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.h5"]


def test_a_dump_that_fails_leaves_the_old_file(run, server, tmp_path):
    (tmp_path / "x.h5").write_bytes(b"old")
    server.answers["ListArrivals"].clear()
    more = pb.ListArrivalsResponse(arrivals=[DONE], next_page_token="x")
    server.on("ListArrivals", more, pb.ListArrivalsResponse(), more, lambda _: 1 / 0)
    assert run("dump", "in-1", "--format", "hdf5", "-o", "x.h5")[0] != 0
    assert (tmp_path / "x.h5").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


def test_a_mirror_is_asked_of_the_server(run, server):
    server.on("MirrorArrivals", pb.MirrorArrivalsResponse(rows=3))
    assert run("dump", "in-1", "--mirror", "hdf5://home/x/inv")[1] == "hdf5://home/x/inv has the inventory, 3 rows\n"
    assert server.requests["MirrorArrivals"][0].domain == "hdf5://home/x/inv"
