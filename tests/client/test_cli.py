"""The command line in this process, against a scripted server: words in, requests out, answers shown."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from client import app
from client.api import Client
from fileserver.v1.data_pb2 import ReadResponse
from fileserver.v1.file_pb2 import (
    DeleteFileResponse,
    GetFileResponse,
    ListFilesResponse,
    LogicalFile,
    Part,
    PartVerdict,
    RebuildFilesResponse,
    RegisterFileResponse,
    RenameFileResponse,
    VerifyFileResponse,
)
from fileserver.v1.plane_pb2 import (
    CheckPlaneResponse,
    CheckResult,
    GetPlaneResponse,
    LeftOut,
    ListObjectsResponse,
    ListPlanesResponse,
    Object,
    Plane,
    PlaneFact,
    UpdateLimitsResponse,
)
from fileserver.v1.transfer_pb2 import (
    CancelTransferResponse,
    CreateTransferResponse,
    Csv,
    Failure,
    Fixed,
    Format,
    GetTransferResponse,
    ListSegmentsResponse,
    ListTransfersResponse,
    Location,
    Outcome,
    PauseTransferResponse,
    Plan,
    PlannedExtent,
    PlannedPart,
    Progress,
    ResumeTransferResponse,
    SegmentSpan,
    Source,
    Spray,
    Transfer,
    TransferSpec,
    WatchTransferResponse,
)
from tests.client.scripted import Fault

PROGRAM = Path(sys.executable).with_name("cropduster")
SPEC = TransferSpec(spray=Spray(sources=[Location(plane="local", key="/a.csv")], file="a::b", format=Format(csv=Csv())))
DONE = Transfer(
    name="transfers/1",
    spec=SPEC,
    state=Transfer.STATE_SUCCEEDED,
    progress=Progress(bytes_total=31_000_000, bytes_done=31_000_000, parts_total=8, parts_done=8),
    outcome=Outcome(size=31_000_000, seconds=0.4026, route="8 parts copied by the kernel", evidence="compared"),
)
FAILED = Transfer(
    name="transfers/1",
    spec=SPEC,
    state=Transfer.STATE_FAILED,
    error=Failure(code=10, reason="SOURCE_CHANGED", message="a.csv changed", metadata={"key": "a.csv"}),
)
CANCELLED = Transfer(name="transfers/1", spec=SPEC, state=Transfer.STATE_CANCELLED)
FILE = LogicalFile(
    name="a::b",
    size=5_000_000_000,
    format=Format(fixed=Fixed(record_size=155)),
    evidence="pinned",
    parts=[
        Part(number=1, plane="data", key="a/b", size=5_000_000_000, owned=True, checksum={"crc64nvme": "00FF"}),
    ],
    part_count=1,
)


@pytest.fixture
def run(server, capsys, tmp_path, monkeypatch):
    """Run a command against the scripted server: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = app.run([*words, "--server", server.address, "--state", str(tmp_path / "state")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def accepted(server, *ends):
    server.on("CreateTransfer", CreateTransferResponse(transfer=Transfer(name="transfers/1", spec=SPEC)))
    server.on("WatchTransfer", [WatchTransferResponse(transfer=t) for t in ends])
    return server


# --- moving


def test_a_spray_asks_for_what_was_typed_and_ends_with_its_last_line(run, server, tmp_path):
    accepted(server, DONE)
    code, out, err = run(
        "spray", "x.csv", "y.csv", "a::b", "--plane", "cloud", "--part-size", "256MiB", "--separator", "|", "--split",
        "exact", "--order", "natural", "--overwrite", "--verify", "read", "--no-split", "--priority", "1",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out == ("8 parts, 31.0 MB in 0.4 s (77 MB/s); 8 parts copied by the kernel; evidence: compared\n")
    [request] = server.requests["CreateTransfer"]
    assert request.spec == TransferSpec(
        spray=Spray(
            sources=[Location(plane="local", key=str(tmp_path / name)) for name in ("x.csv", "y.csv")],
            file="a::b",
            plane="cloud",
            part_size=256 << 20,
            format=Format(csv=Csv(separators=[b"|"], split=Csv.SPLIT_EXACT)),
            order=Spray.ORDER_NATURAL,
            no_split=True,
        ),
        overwrite=True,
        verify_read=True,
        priority=1,
    )
    assert server.requests["ListPlanes"] == []  # no word could have been a plane


def test_planes_are_asked_for_once_and_only_if_a_word_may_name_one(run, server):
    accepted(server, DONE).on("ListPlanes", ListPlanesResponse(planes=[Plane(name="cloud")]))
    assert run("spray", "cloud:in/*.csv", "cloud:x.csv", "a::b")[0] == 0
    assert len(server.requests["ListPlanes"]) == 1
    assert server.requests["CreateTransfer"][0].spec.spray.sources[0] == Location(plane="cloud", key="in/*.csv")


def test_a_plane_that_is_none_is_exit_4_and_lists_the_planes(run, server):
    server.on("ListPlanes", ListPlanesResponse(planes=[Plane(name="data"), Plane(name="cloud")]))
    code, out, err = run("spray", "nope:x.csv", "a::b", "--json")
    assert (code, out) == (4, "")
    assert json.loads(err)["error"]["reason"] == "PLANE_NOT_FOUND"
    assert "data, cloud" in err


def test_all_wrong_words_are_told_at_once_and_nothing_is_asked(run, server):
    code, out, err = run(
        "spray", "a::b", "x", "NAME", "--parts", "0", "--part-size", "10M", "--verify", "no", "--order", "x"
    )
    assert (code, out) == (2, "")
    for field in ("SOURCE", "--format", "--parts", "--part-size", "--verify", "--order"):
        assert f"\n  {field}: " in err
    assert not any(server.requests.values())


def test_an_agent_is_not_begun_with_names_that_are_no_text(run):
    code, _, err = run("agent", "--host", "n\udcff", "--plane", "x\udcff=/tmp", "--plane", "thor=", "--slots", "0")
    assert code == 2
    for wrong in (r"--host: 'n\xff' is not valid UTF-8", r"'x\xff=/tmp' is not", "'thor=' is no plane", "--slots: "):
        assert wrong in err


def test_wrong_words_as_json_are_one_object(run):
    code, out, err = run("spray", "x.dat", "a::b", "--json")
    assert (code, out) == (2, "")
    error = json.loads(err)["error"]
    assert error["reason"] == "INVALID_SPEC"
    assert "fixed:155" in error["violations"]["--format"]


@pytest.mark.parametrize(
    "words",
    [("spray", "x.csv"), ("spray",), ("nothing",), ("files", "nothing"), ("spray", "x.csv", "a", "--part", "3", "4")],
)
def test_what_is_no_command_is_exit_2(run, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_what_is_no_command_is_json_if_asked_for(run):
    code, _, err = run("spray", "--paarts", "3", "x.csv", "a::b", "--json")
    assert code == 2
    assert json.loads(err)["error"]["reason"] == "INVALID_SPEC"


def test_a_failed_transfer_is_an_error_with_its_own_exit_code(run, server):
    accepted(server, FAILED)
    code, out, err = run("spray", "x.csv", "a::b")
    assert (code, out, err) == (6, "", "error: a.csv changed\n")


def test_a_failed_transfer_as_json_is_the_result_and_the_error(run, server):
    accepted(server, FAILED)
    code, out, err = run("spray", "x.csv", "a::b", "--json")
    assert code == 6
    shown = json.loads(out)
    assert (shown["state"], shown["outcome"]) == ("FAILED", None)
    assert shown["error"] == {"reason": "SOURCE_CHANGED", "message": "a.csv changed", "metadata": {"key": "a.csv"}}
    assert json.loads(err)["error"]["metadata"] == {"key": "a.csv", "transfer": "transfers/1"}


def test_a_cancelled_transfer_is_exit_130(run, server):
    accepted(server, CANCELLED)
    code, out, err = run("spray", "x.csv", "a::b")
    assert (code, out) == (130, "")
    assert "cancelled" in err


PAUSED = Transfer(name="transfers/1", spec=SPEC, state=Transfer.STATE_PAUSED)
WAITING = [
    ("spray", "x.csv", "a::b"),
    ("despray", "a::b", "./y"),
    ("copy", "a::b", "a::c"),
    ("transfers", "watch", "1"),
]


@pytest.mark.parametrize("words", WAITING, ids=" ".join)
def test_a_transfer_that_stands_still_is_told_once_and_waited_for_no_longer(run, server, words):
    accepted(server, PAUSED)
    code, out, err = run(*words)
    assert (code, out) == (0, "transfers/1: PAUSED\n")
    at = f"--server {server.address} --state"
    assert err.startswith(f"paused; 'cropduster transfers resume 1 {at}")
    assert f"lets it go on, 'cropduster transfers cancel 1 {at}" in err
    assert err.endswith("' ends it\n")
    assert err.count("\n") == len(server.requests["WatchTransfer"]) == 1


@pytest.mark.parametrize("words", WAITING, ids=" ".join)
def test_a_transfer_that_stands_still_as_json_is_its_state(run, server, words):
    accepted(server, PAUSED)
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["state"] == "PAUSED"


def test_standard_input_is_kept_for_a_transfer_that_stands_still(run, server, tmp_path, monkeypatch):
    accepted(server, PAUSED).on("ListPlanes", ListPlanesResponse())
    monkeypatch.setattr("sys.stdin", Input(b"1,2\n"))
    assert run("spray", "-", "a::b", "--format", "csv")[0] == 0
    [kept] = (tmp_path / "state" / "spool").glob("*.data")
    assert kept.read_bytes() == b"1,2\n"


def test_warnings_go_to_stderr(run, server):
    warned = Transfer(warnings=["the header stays in part 1"])
    warned.MergeFrom(DONE)
    accepted(server, warned)
    code, out, err = run("spray", "x.csv", "a::b")
    assert code == 0
    assert err == "warning: the header stays in part 1\n"
    assert out.endswith("evidence: compared\n")


def test_a_transfer_as_json_has_numbers_for_sizes(run, server):
    accepted(server, DONE)
    code, out, _ = run("spray", "x.csv", "a::b", "--json")
    shown = json.loads(out)
    assert code == 0
    assert (shown["name"], shown["id"], shown["verb"], shown["state"]) == ("transfers/1", "1", "spray", "SUCCEEDED")
    assert shown["progress"]["bytes_done"] == 31_000_000
    assert shown["outcome"]["size"] == 31_000_000
    assert shown["error"] is None
    assert shown["create_time"] is None
    assert shown["spec"]["format"] == "csv"
    assert shown["spec"]["format_options"]["terminator"] == ["\n", "\r\n"]


def test_without_waiting_the_command_tells_how_to_go_on(run, server):
    accepted(server)
    code, out, err = run("spray", "x.csv", "a::b", "--no-wait")
    assert code == 0
    assert out.startswith("transfers/1 ")
    assert f"cropduster transfers watch 1 --server {server.address}" in err
    assert "cropduster transfers cancel 1" in err


PLAN = Plan(
    sources=[Source(plane="local", key="/a.csv", size=10)],
    parts=[
        PlannedPart(
            number=1,
            size=11,
            route="mixed",
            why="too small to copy",
            key="a/b._1_of_1",
            extents=[PlannedExtent(plane="local", key="/a.csv", start=0, end=10), PlannedExtent(literal=b"\n")],
        )
    ],
    bytes_through_us=11,
    bytes_native=6_000_000_000,
    split="deduce",
    warnings=["a newline is added"],
)


def test_a_dry_run_prints_the_plan(run, server):
    server.on("CreateTransfer", CreateTransferResponse(plan=PLAN))
    code, out, err = run("spray", "x.csv", "a::b", "--dry-run")
    assert code == 0
    assert "too small to copy" in out
    assert "6.00 GB copied natively, 11 bytes through this machine" in out
    assert err == "warning: a newline is added\n"
    assert server.requests["CreateTransfer"][0].validate_only


def test_a_dry_run_as_json(run, server):
    server.on("CreateTransfer", CreateTransferResponse(plan=PLAN))
    _, out, err = run("copy", "a::b", "a::c", "--dry-run", "--json")
    assert err == ""
    assert json.loads(out) == {
        "parts": [
            {
                "number": 1,
                "size": 11,
                "route": "mixed",
                "why": "too small to copy",
                "key": "a/b._1_of_1",
                "extents": [{"plane": "local", "key": "/a.csv", "start": 0, "end": 10}, {"literal": "Cg=="}],
            }
        ],
        "sources": [{"plane": "local", "key": "/a.csv", "size": 10, "version": ""}],
        "bytes_through_us": 11,
        "bytes_native": 6_000_000_000,
        "split": "deduce",
        "warnings": ["a newline is added"],
    }


def test_a_timeline_is_a_table_json_or_a_drawing(run, server, tmp_path):
    span = SegmentSpan(
        number=1, first_part=1, last_part=8, size=31, server="host-1", tries=1, begin_time=Timestamp(seconds=1)
    )
    server.on("ListSegments", ListSegmentsResponse(segments=[span]))
    code, out, _ = run("transfers", "show", "1", "--timeline")
    assert code == 0
    assert out.splitlines()[-1].split() == ["1", "1", "8", "31", "bytes", "1", "0.00", "-", "host-1"]
    code, out, _ = run("transfers", "show", "1", "--timeline", "--json")
    assert [each["server"] for each in json.loads(out)["segments"]] == ["host-1"]
    assert run("transfers", "show", "1", "--svg", "t.svg")[0] == 0
    assert (tmp_path / "t.svg").read_text().startswith("<svg")
    code, _, err = run("transfers", "show", "1", "--svg", "none/t.svg")
    assert (code, "none/t.svg can't be written" in err) == (2, True)


def test_each_verb_that_writes_to_a_plane_takes_a_priority(run, server):
    accepted(server, DONE)
    for words in (
        ("copy", "a::b", "a::c"),
        ("despray", "a::b", "/x"),
        ("replicate", "a::b", "--plane", "p"),
        ("sync", "/a", "/b"),
    ):
        assert run(*words, "--priority", "9")[::2] == (0, "")
    assert [request.spec.priority for request in server.requests["CreateTransfer"]] == [9] * 4
    assert run("copy", "a::b", "a::c", "--priority", "10")[0] == 2


def test_copy_and_despray_ask_for_what_was_typed(run, server, tmp_path):
    accepted(server, DONE)
    assert run("copy", "a::b", "a::c", "--plane", "cloud", "--parts", "3", "--overwrite")[0] == 0
    assert run("despray", "a::b", "out/x.csv", "--verify", "read")[0] == 0
    copy, despray = (request.spec for request in server.requests["CreateTransfer"])
    assert (copy.copy.file, copy.copy.new_file, copy.copy.plane, copy.copy.parts) == ("a::b", "a::c", "cloud", 3)
    assert copy.overwrite
    assert despray.despray.target == Location(plane="local", key=str(tmp_path / "out/x.csv"))
    assert despray.verify_read


def test_a_despray_to_a_folder_is_refused(run, tmp_path):
    (tmp_path / "out").mkdir()
    for target in ("out", "new/", "cloud:in/"):
        code, _, err = run("despray", "a::b", target)
        assert code == 2
        assert "is a folder" in err


def test_what_makes_no_plain_objects_is_refused_before_anything_is_carried(run, server, tmp_path):
    server.on("ListPlanes", ListPlanesResponse(planes=[Plane(name="lz")]))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_bytes(b"")
    code, _, err = run("push", "--no-register", "a/x", "b/x", "gone", "lz:x", "--parts", "2", "--format", "csv")
    assert code == 2
    for wrong in ("--parts: ", "--format: ", "'gone' is no file", "name a folder", "have the same name"):
        assert wrong in err
    code, _, err = run("push", "--no-register", "a/x", "./y")
    assert (code, "names no plane" in err) == (2, True)
    code, _, err = run("push", "--no-register", "a/x", "a::x")
    assert (code, "name of a logical file" in err) == (2, True)


def test_standard_output_takes_no_options(run):
    code, _, err = run("despray", "a::b", "-", "--overwrite", "--dry-run")
    assert code == 2
    assert "--overwrite" in err
    assert "--dry-run" in err


# --- standard input and output


class Input:
    """Standard input with bytes behind it."""

    def __init__(self, data):
        self.buffer = io.BytesIO(data)

    def isatty(self):
        return False


def test_standard_input_is_spooled_for_as_long_as_the_transfer_runs(run, server, tmp_path, monkeypatch):
    found = []

    def create(request):
        [source] = request.spec.spray.sources
        found.append((source.plane, Path(source.key).read_bytes()))
        return CreateTransferResponse(transfer=Transfer(name="transfers/1"))

    server.on("CreateTransfer", create).on("WatchTransfer", [WatchTransferResponse(transfer=DONE)])
    server.on("ListPlanes", ListPlanesResponse())
    monkeypatch.setattr(sys, "stdin", Input(b"a,b\n" * 9))
    assert run("spray", "-", "a::b", "--format", "csv")[0] == 0
    assert found == [("local", b"a,b\n" * 9)]
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_standard_input_of_a_refused_spray_is_not_kept(run, server, tmp_path, monkeypatch):
    server.on("CreateTransfer", Fault(grpc.StatusCode.ALREADY_EXISTS, "TARGET_EXISTS", "there is an a::b"))
    server.on("ListPlanes", ListPlanesResponse())
    monkeypatch.setattr(sys, "stdin", Input(b"a"))
    assert run("spray", "-", "a::b", "--format", "csv")[0] == 5
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_standard_input_whose_fate_is_unknown_is_left_to_the_server(run, server, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "create_transfer", interrupt)
    server.on("ListPlanes", ListPlanesResponse())
    monkeypatch.setattr(sys, "stdin", Input(b"a"))
    assert run("spray", "-", "a::b", "--format", "csv")[0] == 130
    [kept] = (tmp_path / "state" / "spool").iterdir()
    assert kept.read_bytes() == b"a"


def test_what_is_said_of_the_copy_of_standard_input_is_said_of_that(run, server, monkeypatch):
    made = []

    def create(request):
        made.append(Transfer(name="transfers/1", spec=request.spec))
        return CreateTransferResponse(transfer=made[0])

    def watch():
        path = made[0].spec.spray.sources[0].key
        failed = Transfer(
            state=Transfer.STATE_FAILED,
            error=Failure(code=9, reason="FORMAT_MISMATCH", message=f"{path}, byte 3: no", metadata={"key": path}),
            warnings=[f"{path} is odd"],
        )
        failed.MergeFrom(made[0])
        return WatchTransferResponse(transfer=failed)

    server.on("CreateTransfer", create).on("WatchTransfer", [watch]).on("ListPlanes", ListPlanesResponse())
    monkeypatch.setattr(sys, "stdin", Input(b"a"))
    code, out, err = run("spray", "-", "a::b", "--format", "csv")
    assert (code, out) == (7, "")
    assert err == "warning: standard input is odd\nerror: standard input, byte 3: no\n"
    monkeypatch.setattr(sys, "stdin", Input(b"a"))
    made.clear()
    code, out, err = run("spray", "-", "a::b", "--format", "csv", "--json")
    shown, error = json.loads(out), json.loads(err)["error"]
    assert shown["warnings"] == ["standard input is odd"]
    assert shown["error"]["message"] == error["message"] == "standard input, byte 3: no"
    assert error["metadata"]["key"] == made[0].spec.spray.sources[0].key  # programs are told the truth


def test_closed_standard_input_is_refused(run, server, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    code, out, err = run("spray", "-", "a::b", "--format", "csv")
    assert (code, out) == (2, "")
    assert "standard input is closed" in err
    assert not any(server.requests.values())


def test_standard_input_needs_a_format_and_a_command_that_waits(run, server):
    code, _, err = run("spray", "-", "x.csv", "a::b", "--dry-run", "--no-wait")
    assert code == 2
    for field in ("SOURCE", "--format", "--dry-run", "--no-wait"):
        assert f"  {field}: " in err


def test_cat_and_despray_to_standard_output_write_bytes_alone(run, server):
    server.on("Read", [ReadResponse(offset=0, data=b"a,"), ReadResponse(offset=2, data=b"b\n")])
    for words in (("cat", "a::b"), ("despray", "a::b", "-")):
        assert run(*words) == (0, "a,b\n", "")


def test_head_shows_records_by_the_files_own_format(run, server):
    server.on("GetFile", GetFileResponse(file=LogicalFile(format=Format(csv=Csv(terminators=[b";"])))))
    server.on("Read", [ReadResponse(offset=0, data=b'a;"b;c";d;'), ReadResponse(offset=10, data=b"e;" * 10)])
    assert run("head", "a::b", "-n", "2") == (0, 'a;"b;c";', "")
    _, out, _ = run("head", "a::b", "-n", "2", "--json")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"number": 1, "text": "a;"},
        {"number": 2, "text": '"b;c";'},
        {"name": "a::b", "records": 2},
    ]


def test_head_of_a_file_without_a_format_is_an_error(run, server):
    server.on("GetFile", GetFileResponse(file=LogicalFile()))
    code, out, err = run("head", "a::b")
    assert (code, out) == (7, "")
    assert "cropduster cat a::b" in err


# --- files


def test_a_file_as_json_is_what_the_issue_says(run, server):
    server.on("GetFile", GetFileResponse(file=FILE))
    code, out, _ = run("files", "show", "a::b", "--json", "--uris")
    shown = json.loads(out)
    assert code == 0
    assert (shown["name"], shown["size"], shown["format"], shown["evidence"]) == (
        "a::b",
        5_000_000_000,
        "fixed:155",
        "pinned",
    )
    assert shown["parts"] == [
        {
            "number": 1,
            "plane": "data",
            "key": "a/b",
            "size": 5_000_000_000,
            "owned": True,
            "checksum": {"crc64nvme": "00ff"},
        }
    ]
    assert server.requests["GetFile"][0].uris


def test_a_file_for_people(run, server):
    server.on("GetFile", GetFileResponse(file=FILE))
    _, out, _ = run("files", "show", "a::b")
    assert "5,000,000,000 bytes in 1 part" in out
    assert "data:a/b" in out


def test_a_list_as_json_is_one_object_over_all_pages(run, server):
    server.on(
        "ListFiles",
        ListFilesResponse(files=[LogicalFile(name="a"), LogicalFile(name="b")], next_page_token="t"),
        ListFilesResponse(files=[LogicalFile(name="c")]),
    )
    _, out, _ = run("files", "list", "*", "--json")
    shown = json.loads(out)
    assert [file["name"] for file in shown["files"]] == ["a", "b", "c"]
    assert "parts" not in shown["files"][0]


def test_an_empty_list_is_a_list(run, server):
    server.on("ListFiles", ListFilesResponse())
    assert json.loads(run("files", "list", "--json")[1]) == {"files": []}


def test_a_list_that_fails_at_once_prints_nothing(run, server):
    server.on("ListFiles", Fault(grpc.StatusCode.INTERNAL, "BUG", "a bug"))
    assert run("files", "list", "--json")[:2] == (1, "")


def test_names_cannot_steer_the_terminal_or_be_markup(run, server):
    server.on("ListFiles", ListFilesResponse(files=[LogicalFile(name="\x1b[31m[bold]x[/bold]")]))
    _, out, _ = run("files", "list")
    assert r"\x1b[31m[bold]x[/bold]" in out


def test_a_long_name_is_not_cut_where_nobody_looks(run, server):
    name = "scope::" + "x" * 300
    server.on("ListFiles", ListFilesResponse(files=[LogicalFile(name=name)]))
    assert name in run("files", "list")[1]


@pytest.mark.parametrize(
    ("verdicts", "code", "reason"),
    [
        ({"stored": ""}, 0, None),
        ({"different": "crc", "missing": ""}, 9, "CHECKSUM_MISMATCH"),
        ({"missing": ""}, 4, "OBJECT_NOT_FOUND"),
    ],
)
def test_verify_ends_as_the_parts_are(run, server, verdicts, code, reason):
    parts = [PartVerdict(number=n, key="k", verdict=v, detail=d) for n, (v, d) in enumerate(verdicts.items(), 1)]
    server.on("VerifyFile", VerifyFileResponse(parts=parts, ok=code == 0, bytes_read=7))
    found, out, err = run("files", "verify", "a::b", "--read", "--json")
    assert found == code
    assert json.loads(out)["parts"][0]["verdict"] == next(iter(verdicts))
    assert (json.loads(err)["error"]["reason"] if err else None) == reason
    assert server.requests["VerifyFile"][0].read


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ("1 one missing, 1 two stored", 4, "replicate a::b --plane one"),
        ("1 one different, 2 one stored, 1 two stored, 2 two touched", 9, "replicate a::b --plane one"),
        ("1 one different, 2 two stored", 9, "spray the source again"),
        ("1 one different, 1 two different", 9, "spray the source again"),
        ("1 one stored, 1 two away", 8, "could not be looked at: down"),
        ("1 one different, 1 two away", 9, "unless two, which did not answer, has them"),
    ],
)
def test_verify_tells_of_copies_what_can_be_made_again(run, server, parts, code, words):
    found = []
    for each in parts.split(", "):
        number, plane, verdict = each.split()
        found.append(PartVerdict(number=int(number), plane=plane, key="k", verdict=verdict, detail="down"))
    server.on("VerifyFile", VerifyFileResponse(parts=found))
    ended, _, err = run("files", "verify", "a::b")
    assert (ended, words in err) == (code, True), err


def test_rename(run, server):
    server.on("RenameFile", RenameFileResponse(file=LogicalFile(name="a::c")))
    assert run("files", "rename", "a::b", "A::C") == (0, "a::b is now a::c\n", "")


FOREIGN = Part(number=1, plane="lz", key="theirs", size=1)


def test_foreign_parts_are_not_destroyed_unasked(run, server):
    server.on("DeleteFile", DeleteFileResponse(deleted=[FOREIGN]))
    code, _, err = run("files", "delete", "a::b", "--with-parts")
    assert code == 2
    assert "--yes" in err
    assert [request.validate_only for request in server.requests["DeleteFile"]] == [True]


def test_foreign_parts_are_destroyed_if_said_twice(run, server):
    server.on("DeleteFile", DeleteFileResponse(deleted=[FOREIGN]))
    assert run("files", "delete", "a::b", "--with-parts", "--yes")[0] == 0
    [request] = server.requests["DeleteFile"]
    assert (request.with_parts, request.validate_only) == (True, False)


def test_a_person_is_shown_what_would_be_destroyed(run, server, monkeypatch):
    class Person:
        def isatty(self):
            return True

    server.on("DeleteFile", DeleteFileResponse(deleted=[FOREIGN]))
    monkeypatch.setattr(sys, "stdin", Person())
    asked = []
    monkeypatch.setattr("client.commands.files.typer.confirm", lambda text, **_: asked.append(text))
    code, out, _ = run("files", "delete", "a::b", "--with-parts")
    assert code == 130
    assert "lz:theirs" in out
    assert len(asked) == 1
    assert [request.validate_only for request in server.requests["DeleteFile"]] == [True]


def test_a_delete_of_our_own_parts_just_does_it(run, server):
    server.on("DeleteFile", DeleteFileResponse(deleted=[Part(number=1, owned=True)], kept=[FOREIGN]))
    code, out, _ = run("files", "delete", "a::b")
    assert (code, out) == (0, "a::b: 1 part deleted; 1 not ours, kept\n")
    assert json.loads(run("files", "delete", "a::b", "--dry-run", "--json")[1])["kept"][0]["key"] == "theirs"
    assert [request.validate_only for request in server.requests["DeleteFile"]] == [False, True]


def test_register_keeps_the_order_and_the_format(run, server):
    server.on("ListPlanes", ListPlanesResponse(planes=[Plane(name="lz")]))
    server.on("RegisterFile", RegisterFileResponse(file=FILE))
    assert run("files", "register", "a::b", "lz:2.dat", "lz:1.dat", "--format", "fixed:155")[0] == 0
    [request] = server.requests["RegisterFile"]
    assert [part.key for part in request.parts] == ["2.dat", "1.dat"]
    assert request.format.fixed.record_size == 155


def test_register_needs_no_format(run, server):
    server.on("ListPlanes", ListPlanesResponse(planes=[Plane(name="lz")]))
    server.on("RegisterFile", RegisterFileResponse(file=FILE))
    assert run("files", "register", "a::b", "lz:1.dat")[0] == 0
    assert not server.requests["RegisterFile"][0].HasField("format")


def test_rebuild(run, server):
    server.on("RebuildFiles", RebuildFilesResponse(restored=["a::b"], present=["a::c"], skipped=["x is no manifest"]))
    code, out, err = run("files", "rebuild", "data", "--dry-run")
    assert (code, err) == (0, "warning: x is no manifest\n")
    assert out == "a::b\n1 file would be restored, 1 in the catalogue already, 1 skipped\n"


# --- transfers


def test_transfers_list_and_show(run, server):
    server.on("ListTransfers", ListTransfersResponse(transfers=[DONE])).on(
        "GetTransfer", GetTransferResponse(transfer=FAILED)
    )
    assert json.loads(run("transfers", "list", "--active", "--json")[1])["transfers"][0]["id"] == "1"
    assert server.requests["ListTransfers"][0].active_only
    assert "SUCCEEDED" in run("transfers", "list")[1]
    code, out, _ = run("transfers", "show", "1")
    assert code == 0  # to show a failure is no failure
    assert "SOURCE_CHANGED: a.csv changed" in out


def test_a_watch_as_json_is_one_object_a_line_and_the_last_is_the_result(run, server):
    running = Transfer(name="transfers/1", state=Transfer.STATE_RUNNING, progress=Progress(bytes_done=1))
    server.on("WatchTransfer", [WatchTransferResponse(transfer=t) for t in (running, DONE)])
    code, out, _ = run("transfers", "watch", "1", "--json")
    assert code == 0
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["RUNNING", "SUCCEEDED"]


def test_cancel_waits_until_all_is_removed(run, server):
    stopping = Transfer(name="transfers/1", state=Transfer.STATE_CANCELLING)
    server.on("GetTransfer", GetTransferResponse(transfer=stopping))
    server.on("CancelTransfer", CancelTransferResponse(transfer=stopping))
    server.on("WatchTransfer", [WatchTransferResponse(transfer=t) for t in (stopping, CANCELLED)])
    assert run("transfers", "cancel", "1") == (0, "transfers/1: CANCELLED\n", "")
    assert run("transfers", "cancel", "1", "--no-wait") == (0, "transfers/1: CANCELLING\n", "")


ASKED = {
    "cancel": CancelTransferResponse,
    "pause": PauseTransferResponse,
    "resume": ResumeTransferResponse,
}


@pytest.mark.parametrize("ended", [DONE, FAILED, CANCELLED], ids=lambda t: Transfer.State.Name(t.state))
@pytest.mark.parametrize("verb", ASKED)
def test_a_transfer_that_has_ended_is_left_alone(run, server, verb, ended):
    server.on("GetTransfer", GetTransferResponse(transfer=ended))
    state = Transfer.State.Name(ended.state).removeprefix("STATE_")
    code, out, err = run("transfers", verb, "1")
    if (verb, state) == ("cancel", "CANCELLED"):
        assert (code, out, err) == (0, "transfers/1: CANCELLED\n", "it was cancelled already, so nothing was done\n")
    else:
        assert (code, out) == (7, "")
        assert err == f"error: transfers/1 has ended already ({state}), so nothing was done\n"
        error = json.loads(run("transfers", verb, "1", "--json")[2])["error"]
        assert error["reason"] == "TRANSFER_ENDED"
        assert error["metadata"] == {"transfer": "transfers/1", "state": state}
    assert len(server.requests["GetTransfer"]) == sum(map(len, server.requests.values()))


@pytest.mark.parametrize(("verb", "state"), [("pause", "PAUSING"), ("resume", "RUNNING")])
def test_pause_and_resume_show_what_was_asked(run, server, verb, state):
    asked = Transfer(name="transfers/1", state=Transfer.State.Value(f"STATE_{state}"))
    server.on("GetTransfer", GetTransferResponse(transfer=PAUSED))
    server.on(f"{verb.title()}Transfer", ASKED[verb](transfer=asked))
    assert run("transfers", verb, "1") == (0, f"transfers/1: {state}\n", "")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_transfer_that_is_being_cancelled_cannot_be_steered(run, server, verb):
    stopping = Transfer(name="transfers/1", state=Transfer.STATE_CANCELLING)
    server.on("GetTransfer", GetTransferResponse(transfer=stopping))
    server.on(f"{verb.title()}Transfer", ASKED[verb](transfer=stopping))
    code, out, err = run("transfers", verb, "1")
    assert (code, out) == (7, "")
    assert "is being cancelled" in err


def test_a_cancel_that_comes_too_late_is_an_error(run, server):
    stopping = Transfer(name="transfers/1", state=Transfer.STATE_CANCELLING)
    server.on("GetTransfer", GetTransferResponse(transfer=stopping))
    server.on("CancelTransfer", CancelTransferResponse(transfer=stopping))
    server.on("WatchTransfer", [WatchTransferResponse(transfer=t) for t in (stopping, DONE)])
    code, out, err = run("transfers", "cancel", "1")
    assert (code, out) == (7, "")
    assert "(SUCCEEDED)" in err


# --- planes


def test_planes(run, server):
    plane = Plane(name="data", type="posix", location="/srv/data", default_parts=4, bytes_per_second=500_000_000)
    server.on("ListPlanes", ListPlanesResponse(planes=[plane], default_plane="data"))
    assert json.loads(run("planes", "list", "--json")[1])["planes"][0]["default"] is True
    assert "data (default)" in run("planes", "list")[1]


def test_a_plane_that_does_not_work_is_exit_7(run, server):
    server.on(
        "CheckPlane",
        CheckPlaneResponse(results=[CheckResult(check="write", ok=False, detail="no such bucket")]),
    )
    code, out, err = run("planes", "check", "cloud")
    assert code == 7
    assert "no such bucket" in out
    assert err == "error: the plane 'cloud' does not work as it must; write: no such bucket\n"


@pytest.mark.parametrize(
    ("reason", "exit_code", "told"),
    [("PLANE_UNAVAILABLE", 8, "PLANE_UNAVAILABLE"), ("PLANE_MISSING", 7, "PLANE_MISSING"), ("", 7, "PLANE_REFUSED")],
)
def test_a_plane_that_cannot_be_checked_says_the_reason_that_other_commands_say(run, server, reason, exit_code, told):
    result = CheckResult(check="write", ok=False, detail="no", reason=reason)
    server.on("CheckPlane", CheckPlaneResponse(results=[result]))
    code, _, err = run("planes", "check", "cloud", "--json")
    assert (code, json.loads(err)["error"]["reason"]) == (exit_code, told)


def test_a_check_tells_what_a_plane_can_do_and_what_it_costs(run, server):
    pinned = PlaneFact(fact="evidence of its own copies", found="pinned", costs="no checksums kept")
    tried = [CheckResult(check="write", ok=True)]
    server.on("CheckPlane", CheckPlaneResponse(results=tried, ok=True, facts=[pinned]))
    code, out, _ = run("planes", "check", "cloud")
    assert code == 0
    assert out.splitlines()[-1].split("  ") == ["evidence of its own copies", "pinned", "no checksums kept"]
    shown = json.loads(run("planes", "check", "cloud", "--json")[1])
    assert shown["ok"] is True
    assert shown["facts"] == [{"fact": pinned.fact, "found": "pinned", "costs": "no checksums kept"}]


def test_limits_of_a_plane(run, server):
    narrow = Plane(name="cloud", requests=64, requests_now=3, bytes_per_second=50_000_000)
    server.on("UpdateLimits", UpdateLimitsResponse(plane=narrow))
    code, out, _ = run("planes", "limits", "cloud", "--requests", "64", "--bytes-per-second", "50MB")
    assert code == 0
    assert "64 at most, 3 just now" in out
    assert "50 MB/s" in out
    assert run("planes", "limits", "cloud", "--bytes-per-second", "0")[0] == 0
    first, second = server.requests["UpdateLimits"]
    assert (first.name, first.requests, first.bytes_per_second) == ("cloud", 64, 50_000_000)
    assert (second.HasField("requests"), second.HasField("bytes_per_second")) == (False, True)
    waits = Plane(name="cloud", requests=64, requests_now=3)
    waits.wait.FromSeconds(40)
    server.on("GetPlane", GetPlaneResponse(plane=waits)).on("ListPlanes", ListPlanesResponse())
    assert "64 at most; the provider asked to be left alone for 40 s more" in run("planes", "show", "cloud")[1]
    shown = json.loads(run("planes", "show", "cloud", "--json")[1])
    assert (shown["requests_now"], shown["wait_seconds"]) == (3, 40)


@pytest.mark.parametrize("words", [(), ("--bytes-per-second", "fast"), ("--requests", "0")])
def test_limits_that_say_nothing_are_exit_2(run, server, words):
    code, _, err = run("planes", "limits", "cloud", *words)
    assert code == 2
    assert "--requests" in err or "--bytes-per-second" in err
    assert not server.requests["UpdateLimits"]


def test_objects_of_a_prefix(run, server):
    server.on("ListObjects", ListObjectsResponse(objects=[Object(key="in/a", size=5_000_000_000)]))
    shown = json.loads(run("planes", "objects", "cloud:in/", "--json")[1])
    assert shown["objects"][0]["size"] == 5_000_000_000
    assert (server.requests["ListObjects"][0].plane, server.requests["ListObjects"][0].prefix) == ("cloud", "in/")


@pytest.mark.parametrize(("has_data", "expected"), [(True, 11), (False, 0)])
def test_what_a_listing_leaves_out_is_told_once_behind_it(run, server, has_data, expected):
    odd = [LeftOut(name=r"in/k\xff", why="its name is not UTF-8", has_data=has_data)]
    pages = [
        ListObjectsResponse(objects=[Object(key="in/a")], next_page_token="in/a", left_out=odd),
        ListObjectsResponse(objects=[Object(key="in/b")], left_out=odd),
    ]
    server.on("ListObjects", *pages)
    code, out, err = run("planes", "objects", "cloud:in/")
    assert (code, out.count("in/"), err) == (expected, 2, "left out: in/k\\xff: its name is not UTF-8\n")
    server.on("ListObjects", *pages)
    code, out, err = run("planes", "objects", "cloud:in/", "--json")
    told = json.loads(out)["left_out"]
    assert (code, told) == (expected, [{"name": r"in/k\xff", "why": "its name is not UTF-8", "has_data": has_data}])


def test_the_doctor_looks_at_everything(run, server):
    server.on("ListPlanes", ListPlanesResponse(planes=[Plane(name="data"), Plane(name="cloud")]))
    broken = [CheckResult(check="write", detail="no such bucket"), CheckResult(check="list", ok=True, detail="slow")]
    server.on(
        "CheckPlane",
        CheckPlaneResponse(ok=True),
        Fault(grpc.StatusCode.INTERNAL, "BUG", "a bug"),
        CheckPlaneResponse(results=broken),
    )
    code, out, _ = run("doctor", "--json")
    shown = json.loads(out)
    checks = {check["check"]: check["ok"] for check in shown["checks"]}
    assert code == 7
    assert shown["ok"] is False
    assert checks["plane data"]
    assert not checks["plane cloud"]
    assert {"python", "sqlite", "state directory", "clock", "config", "server answers"} <= set(checks)
    said = {line.split(": ", 1)[0]: line for line in run("doctor")[1].splitlines()}
    assert said["FAILED  plane data"].endswith("write: no such bucket")


def test_serve_becomes_the_server(run, server, monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(os, "execv", lambda path, words: ran.append((path, words)))
    (tmp_path / "c.yaml").touch()
    assert run("serve", "--listen", "127.0.0.1:7300", "--config", "c.yaml")[0] == 0
    [(path, words)] = ran
    assert path == sys.executable
    assert words[1:5] == ["-P", "-m", "fileserver", "serve"]
    assert words[5:] == [
        "--config", str(tmp_path / "c.yaml"), "--state", str(tmp_path / "state"), "--listen", "127.0.0.1:7300",
    ]  # fmt: skip


def test_a_bar_on_a_terminal_and_none_elsewhere(run, server, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    running = Transfer(
        name="transfers/1",
        state=Transfer.STATE_RUNNING,
        progress=Progress(bytes_total=31_000_000, bytes_done=1_000_000, rate=5e6, eta=6),
    )
    accepted(server, running, DONE)
    assert run("spray", "x.csv", "a::b")[2] == ""
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    code, out, _ = run("spray", "x.csv", "a::b")
    assert code == 0
    assert out.endswith("evidence: compared\n")
    assert "31.0 MB of 31.0 MB" in terminal.getvalue()


# --- as a program


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from client.cli import main
sys.exit(main())
"""
"""The program as a terminal starts it: who runs the tests may ignore SIGINT, and children inherit that."""

INTERRUPTED = """
import grpc._channel
def interrupt(state):
    raise KeyboardInterrupt
grpc._channel._run_channel_spin_thread = interrupt
"""
"""Ctrl-C at the moment when gRPC has begun a call and has nobody yet who waits for its end."""


def program(server, *words, **options):
    environment = {**os.environ, "CROPDUSTER_SERVER": server.address}
    start = options.pop("start", [PROGRAM])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*start, *words], env=environment, **pipes)


def test_ctrl_c_detaches_and_leaves_the_transfer_alone(server):
    watching, over = threading.Event(), threading.Event()

    def wait():
        watching.set()
        over.wait(60)
        return WatchTransferResponse(transfer=DONE)

    running = Transfer(name="transfers/1", state=Transfer.STATE_RUNNING)
    server.on("CreateTransfer", CreateTransferResponse(transfer=running))
    server.on("WatchTransfer", [WatchTransferResponse(transfer=running), wait])
    with program(server, "spray", "x.csv", "a::b", start=[sys.executable, "-c", INTERRUPTIBLE]) as process:
        assert watching.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        over.set()
    assert process.returncode == 130
    assert out == b""
    assert b"cropduster transfers watch 1" in err
    assert b"cropduster transfers cancel 1" in err
    assert server.requests["CancelTransfer"] == []


def test_ctrl_c_that_hits_a_call_which_is_just_beginning_ends_the_program(server):
    server.on("CreateTransfer", CreateTransferResponse(transfer=DONE))
    start = [sys.executable, "-c", INTERRUPTED + INTERRUPTIBLE]
    with program(server, "spray", "x.csv", "a::b", start=start) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert b"cropduster transfers watch" in err


LOADING = """
import sys, types
class Slow(types.ModuleType):
    def __getattr__(self, name):
        raise KeyboardInterrupt
sys.modules["{module}"] = Slow("{module}")
"""
"""Ctrl-C while the program is being loaded."""


@pytest.mark.parametrize("module", ["typer", "client.commands"])
def test_ctrl_c_while_the_program_is_loaded_ends_it_in_one_line(module):
    start = [sys.executable, "-c", LOADING.format(module=module) + INTERRUPTIBLE, "files", "list"]
    done = subprocess.run(start, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"error: interrupted\n")
    done = subprocess.run([*start, "--json"], capture_output=True, check=False, timeout=60)
    assert done.returncode == 130
    assert json.loads(done.stderr) == {"error": {"reason": "CANCELLED", "message": "interrupted", "metadata": {}}}


def test_a_reader_who_has_had_enough_is_no_error(server):
    server.on("Read", [ReadResponse(offset=n << 16, data=b"x" * (1 << 16)) for n in range(64)])
    with program(server, "cat", "a::b") as process:
        assert process.stdout.read(10) == b"x" * 10
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def nobody():
    """The end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "wb")


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["", "json"])
@pytest.mark.parametrize(
    "words",
    [("files", "list"), ("transfers", "list"), ("transfers", "watch", "1"), ("spray", "x.csv", "a::b")],
    ids=" ".join,
)
def test_no_reader_at_all_is_no_error(server, words, more):
    server.on("ListFiles", ListFilesResponse(files=[FILE] * 100))
    server.on("ListTransfers", ListTransfersResponse(transfers=[DONE] * 100))
    accepted(server, DONE)
    with nobody() as out:
        process = program(server, *words, *more, stdout=out)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("words", [("transfers", "watch", "1"), ("spray", "x.csv", "a::b")], ids=" ".join)
def test_a_transfer_that_failed_is_an_error_whoever_reads_the_result(server, words):
    accepted(server, FAILED)
    with nobody() as out:
        process = program(server, *words, "--json", stdout=out)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert json.loads(err)["error"]["reason"] == "SOURCE_CHANGED"


@pytest.mark.parametrize("words", [("nothing",), ("spray", "x.dat", "a::b"), ("transfers", "watch", "1")], ids=" ".join)
def test_an_error_that_nobody_reads_has_its_exit_code_all_the_same(server, words):
    accepted(server, FAILED)
    with nobody() as out:
        process = program(server, *words, stdout=out, stderr=out)
        process.communicate(timeout=60)
    assert process.returncode == (6 if words[0] == "transfers" else 2)


@pytest.mark.parametrize(
    "words", ["files list", "files list --json", "cat a::b", "transfers watch 1", "spray x.csv a::b", "--help"]
)
def test_closed_standard_output_is_refused_before_anything_is_asked(server, words):
    with program(server, start=["/bin/sh", "-c", f"exec {PROGRAM} {words} >&-"]) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    if "--json" in words:
        assert json.loads(err)["error"]["reason"] == "INVALID_SPEC"
    assert b"standard output is closed" in err
    assert not any(server.requests.values())


def test_all_streams_may_be_closed(server):
    with program(server, start=["/bin/sh", "-c", f"exec {PROGRAM} files list <&- >&- 2>&-"]) as process:
        process.communicate(timeout=60)
    assert process.returncode == 2


@pytest.mark.parametrize("words", [("cat", "a::b"), ("files", "list"), ("files", "list", "--json")], ids=" ".join)
def test_a_full_disk_under_standard_output_is_told(server, words):
    server.on("ListFiles", ListFilesResponse(files=[FILE]))
    server.on("Read", [ReadResponse(offset=0, data=b"x" * (1 << 16))])
    with Path("/dev/full").open("wb") as full:
        process = program(server, *words, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 7
    [line] = err.splitlines()
    assert b"No space left" in line


LOADED = """
import sys
from client.app import run
code = run(sys.argv[1:])
for name in ("grpc", "google.protobuf", "rich", "pydantic", "dbos", "planes", "fileserver.errors", "asyncio"):
    if name in sys.modules:
        print(name, file=sys.stderr)
sys.exit(code)
"""


def loaded(*words, **environment):
    command = [sys.executable, "-c", LOADED, *words]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True, timeout=60)
    return set(done.stderr.decode().split())


def test_help_loads_nothing_that_it_does_not_need():
    assert loaded("--help") == set()
    assert loaded("spray", "--help") == set()


def test_a_call_loads_neither_tables_nor_what_typer_would_convert_with(server):
    server.on("ListFiles", ListFilesResponse())
    assert loaded("files", "list", "--json", CROPDUSTER_SERVER=server.address) <= {"grpc", "google.protobuf", "asyncio"}
