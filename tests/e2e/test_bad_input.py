"""What bad input gets: a message that names the thing and the way out, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.e2e.conftest import HEARD

INVALID, CALLER, NOT_FOUND, EXISTS, CHANGED, REFUSED, BUSY = 2, 3, 4, 5, 6, 7, 8


def nothing_left(machine, root=None) -> None:
    assert machine("files", "list", "--json").json["files"] == []
    assert machine.files(root) == []


def refused(machine, *arguments: str, code: int, reason: str, says: tuple[str, ...] = ()) -> dict:
    error = machine(*arguments, "--json", code=code).error
    assert error["reason"] == reason, error
    for word in says:
        assert word in error["message"], error
    return error


# --- the data -------------------------------------------------------------------------------------------------------


def test_a_size_that_is_not_a_multiple_of_the_record(machine):
    (machine.folder / "x.dat").write_bytes(bytes(1001))
    refused(
        machine,
        "spray",
        "x.dat",
        "a::x",
        "--format",
        "fixed:10",
        code=REFUSED,
        reason="FORMAT_MISMATCH",
        says=("x.dat", "1001", "10"),
    )
    nothing_left(machine)


def test_a_record_longer_than_the_limit(machine):
    (machine.folder / "x.csv").write_text("a,b\n" + "x" * 5000 + "\nc,d\n")
    refused(
        machine,
        "spray",
        "x.csv",
        "a::x",
        "--max-record",
        "1000",
        "--parts",
        "2",
        code=REFUSED,
        reason="RECORD_TOO_LONG",
        says=("x.csv", "--max-record"),
    )
    nothing_left(machine)


def test_quotes_that_contradict_the_data(machine):
    (machine.folder / "x.csv").write_text("a,b\n" + 'one "inch" wide,2\n' * 3000)
    refused(machine, "spray", "x.csv", "a::x", "--parts", "4", code=REFUSED, reason="FORMAT_MISMATCH", says=("x.csv",))
    nothing_left(machine)
    machine("spray", "x.csv", "a::x", "--parts", "4", "--split", "exact")
    assert machine("cat", "a::x").out == (machine.folder / "x.csv").read_text()


def test_utf16_is_recognised(machine):
    (machine.folder / "x.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    refused(
        machine,
        "spray",
        "x.csv",
        "a::x",
        "--parts",
        "2",
        code=REFUSED,
        reason="FORMAT_MISMATCH",
        says=("UTF-16", "iconv"),
    )
    nothing_left(machine)


def test_a_last_record_without_terminator_stays_as_it_is(machine):
    (machine.folder / "x.csv").write_text("1,2\n3,4")
    machine("spray", "x.csv", "a::x", "--parts", "2")
    assert machine("cat", "a::x").out == "1,2\n3,4"


# --- names and places -----------------------------------------------------------------------------------------------


def test_things_that_are_not_there(machine):
    refused(
        machine,
        "spray",
        "no.dat",
        "a::x",
        "--format",
        "fixed:1",
        code=NOT_FOUND,
        reason="OBJECT_NOT_FOUND",
        says=("no.dat",),
    )
    (machine.folder / "x.dat").write_bytes(b"x")
    refused(
        machine,
        "spray",
        "x.dat",
        "a::x",
        "--format",
        "fixed:1",
        "--plane",
        "nope",
        code=NOT_FOUND,
        reason="PLANE_NOT_FOUND",
        says=("nope", "data"),
    )
    refused(
        machine,
        "spray",
        "nope:x",
        "a::x",
        "--format",
        "fixed:1",
        code=NOT_FOUND,
        reason="PLANE_NOT_FOUND",
        says=("nope",),
    )
    refused(machine, "despray", "a::x", "./y", code=NOT_FOUND, reason="FILE_NOT_FOUND", says=("a::x",))
    refused(machine, "transfers", "show", "abc", code=NOT_FOUND, reason="TRANSFER_NOT_FOUND", says=("abc",))
    nothing_left(machine)


def test_a_name_that_is_taken(machine):
    (machine.folder / "x.dat").write_bytes(b"x")
    machine("spray", "x.dat", "a::x", "--format", "fixed:1")
    refused(
        machine,
        "spray",
        "x.dat",
        "A::X",
        "--format",
        "fixed:1",
        code=EXISTS,
        reason="TARGET_EXISTS",
        says=("a::x", "--overwrite"),
    )
    (machine.folder / "y").write_bytes(b"mine")
    refused(machine, "despray", "a::x", "./y", code=EXISTS, reason="TARGET_EXISTS", says=("y", "--overwrite"))
    assert (machine.folder / "y").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["a::", "::x", "a::~x", "a::x\x01"])
def test_names_that_are_none(machine, name):
    (machine.folder / "x.dat").write_bytes(b"x")
    refused(machine, "spray", "x.dat", name, "--format", "fixed:1", code=INVALID, reason="INVALID_SPEC")


def test_odd_names_are_kept_apart_and_stay_inside_the_plane(machine):
    (machine.folder / "x.dat").write_bytes(b"x")
    for name in ("a::..", "a::b/c", "a::ü b%", "..::..", "a::*"):
        machine("spray", "x.dat", name, "--format", "fixed:1")
        assert machine("cat", name).out == "x"
    assert {p.name for p in machine.state.iterdir() if p.is_dir()} <= {"data", "spool"}


def test_a_path_that_leads_out_of_the_plane(machine):
    (machine.folder / "secret").write_text("s")
    machine.data.mkdir(parents=True)
    (machine.data / "link").symlink_to(machine.folder / "secret")
    for key in ("../../secret", "link", "/etc/passwd"):
        refused(machine, "spray", f"data:{key}", "a::x", "--format", "fixed:1", code=INVALID, reason="PATH_ESCAPES")
    (machine.folder / "x.dat").write_bytes(b"x")
    machine("spray", "x.dat", "a::x", "--format", "fixed:1")
    refused(machine, "despray", "a::x", "data:../y", code=INVALID, reason="PATH_ESCAPES")
    assert not (machine.state / "y").exists()
    (machine.data / "out").symlink_to(machine.folder)
    refused(machine, "despray", "a::x", "data:out/y", code=INVALID, reason="PATH_ESCAPES")
    assert not (machine.folder / "y").exists()
    ended = machine("transfers", "list", "--json").json["transfers"]
    assert [each["warnings"] for each in ended] == [[]] * len(ended), "nothing was made there, so nothing is left"


def test_a_target_that_is_one_of_the_sources(machine):
    (machine.folder / "x.dat").write_bytes(b"xyz")
    machine("spray", "x.dat", "a::x", "--format", "fixed:1")
    part = machine("files", "show", "a::x", "--json").json["parts"][0]["key"]
    for target in (f"data:{part}", str(machine.data / part)):
        refused(machine, "despray", "a::x", target, "--overwrite", code=INVALID, reason="INVALID_SPEC")
    assert machine("cat", "a::x").out == "xyz"


def test_a_target_that_cannot_be_written(machine):
    (machine.folder / "x.dat").write_bytes(b"x")
    machine("spray", "x.dat", "a::x", "--format", "fixed:1")
    below = str(machine.folder / "x.dat" / "y")
    refused(machine, "despray", "a::x", below, code=REFUSED, reason="PLANE_REFUSED", says=("x.dat", "is a file"))
    assert (machine.folder / "x.dat").read_bytes() == b"x"
    if os.geteuid() != 0:  # root may write into any directory
        closed = machine.folder / "closed"
        closed.mkdir(mode=0o500)
        target = str(closed / "y.dat")
        refused(machine, "despray", "a::x", target, code=REFUSED, reason="PLANE_REFUSED", says=(target, "denied"))
        assert list(closed.iterdir()) == []


def test_a_plane_whose_root_is_missing(machine):
    machine.configure(f"planes:\n  data: {{type: posix, path: {machine.folder}/nowhere}}\n")
    (machine.folder / "x.dat").write_bytes(b"x")
    refused(
        machine,
        "spray",
        "x.dat",
        "a::x",
        "--format",
        "fixed:1",
        code=REFUSED,
        reason="PLANE_MISSING",
        says=("nowhere",),
    )


# --- while it runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(machine):
    """A plane slow enough to interfere with a transfer on it."""
    machine.root = machine.folder / "plane"
    machine.root.mkdir()
    machine.configure(f"planes:\n  data: {{type: posix, path: {machine.root}, limits: {{bytes_per_second: 500000}}}}\n")
    (machine.folder / "x.dat").write_bytes(os.urandom(12 * 2**20))
    return machine


def begun(machine) -> str:
    first = machine("spray", "x.dat", "a::x", "--format", "fixed:1", "--parts", "12", "--no-wait", "--json").json
    for _ in range(200):
        if machine("transfers", "show", first["id"], "--json").json["progress"]["bytes_done"]:
            return first["id"]
    raise AssertionError(machine.log())


def go_on(machine) -> None:
    """Let the slow plane be fast."""
    machine("planes", "limits", "data", "--bytes-per-second", "0")


@pytest.mark.parametrize("change", ["grows", "vanishes", "same size and time"])
def test_a_source_that_changes_in_mid_transfer(slow, change):
    transfer = begun(slow)
    source = slow.folder / "x.dat"
    before = source.stat()
    if change == "grows":
        with source.open("ab") as file:
            file.write(b"more")
    elif change == "vanishes":
        source.unlink()
    else:
        with source.open("r+b") as file:
            file.seek(11 * 2**20)
            file.write(b"other")
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    go_on(slow)
    result = slow("transfers", "watch", transfer, "--json", code=CHANGED)
    assert result.json["state"] == "FAILED"
    assert result.json["error"]["reason"] == "SOURCE_CHANGED"
    assert "x.dat" in result.json["error"]["message"]
    nothing_left(slow, slow.root)


def test_two_sprays_to_one_name_at_once(slow):
    transfer = begun(slow)
    error = refused(slow, "spray", "x.dat", "a::x", "--format", "fixed:1", code=CHANGED, reason="TARGET_BUSY")
    assert transfer in error["message"]
    slow("transfers", "cancel", transfer)


def test_ctrl_c_detaches_and_the_transfer_goes_on(slow):
    begun_at = slow.installed("spray", "x.dat", "a::x", "--format", "fixed:1", "--parts", "12", first=HEARD)
    for _ in range(200):
        listed = slow("transfers", "list", "--json").json["transfers"]
        if listed and listed[0]["state"] == "RUNNING":
            break
    begun_at.send_signal(signal.SIGINT)
    out, err = begun_at.communicate(timeout=30)
    assert begun_at.returncode == 130
    assert f"transfers watch {listed[0]['id']}" in out + err
    assert f"transfers cancel {listed[0]['id']}" in out + err
    go_on(slow)
    assert slow("transfers", "watch", listed[0]["id"], "--json").json["state"] == "SUCCEEDED"


def test_a_full_disk(machine):
    """The kernel's own refusal: no file of the server may grow beyond 4 MiB."""
    (machine.folder / "x.dat").write_bytes(os.urandom(10 * 2**20))
    small = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({4 * 2**20}, r.RLIM_INFINITY))"
    started = machine.installed("files", "list", first=small)
    started.communicate(timeout=60)
    refused(
        machine,
        "spray",
        "x.dat",
        "a::x",
        "--format",
        "fixed:1",
        "--parts",
        "2",
        code=REFUSED,
        reason="PLANE_FULL",
        says=("data",),
    )
    nothing_left(machine)


# --- the server and its secrets -------------------------------------------------------------------------------------


def test_many_command_lines_start_one_server(machine):
    started = [machine.installed("files", "list", "--json") for _ in range(4)]
    for process in started:
        out, err = process.communicate(timeout=100)
        assert (process.returncode, json.loads(out)["files"]) == (0, []), err
    out = subprocess.run(
        ["pgrep", "-f", f"fileserver serve.*{machine.state}"], capture_output=True, text=True, check=False
    ).stdout
    assert len(out.split()) == 1


def test_a_changed_configuration_is_in_force_at_the_next_call(machine):
    first = machine("planes", "list", "--json").json
    machine.configure(f"planes:\n  other: {{type: posix, path: {machine.folder}}}\n")
    second = machine("planes", "list", "--json").json
    assert [p["name"] for p in first["planes"]] == ["data"]
    assert [p["name"] for p in second["planes"]] == ["other"]


def test_an_unknown_key_is_named_with_its_path(machine):
    machine.configure(f"planes:\n  data: {{type: posix, path: {machine.folder}, pth: 1}}\n")
    assert "planes.data.pth" in machine("files", "list", code=INVALID).err


def test_a_stranger_is_refused_and_told_where_the_cookie_is(machine):
    import grpc

    from fileserver.v1 import file_pb2, file_pb2_grpc

    server = machine.start("serve", "--listen", "127.0.0.1:0")
    try:
        address = server.stdout.readline().split()[-1]
        with grpc.insecure_channel(address) as channel:
            stub = file_pb2_grpc.FileServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ListFiles(file_pb2.ListFilesRequest())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert machine("files", "list", "--server", address, "--json").json["files"] == []
        (machine.state / "cookie").write_text("wrong")
        machine("files", "list", "--server", address, code=CALLER)
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_local_paths_work_with_a_loopback_server_of_the_same_user(machine):
    server = machine.start("serve", "--listen", "127.0.0.1:0")
    try:
        address = server.stdout.readline().split()[-1]
        (machine.folder / "x.dat").write_bytes(b"abc")
        machine("spray", "x.dat", "a::x", "--format", "fixed:1", "--server", address)
        machine("despray", "a::x", "./y.dat", "--server", address)
        assert (machine.folder / "y.dat").read_bytes() == b"abc"
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_serve_listens_on_loopback_only(machine):
    result = machine("serve", "--listen", "0.0.0.0:0", code=None)
    assert result.code == INVALID
    assert "0.0.0.0" in result.err


def test_wrong_credentials_and_missing_buckets_are_told_apart_and_no_secret_is_written(machine):
    """Without a store: the endpoint refuses the connection. With one, see test_s3.py."""
    machine.environment |= {"AK": "the-access-key", "SK": "the-very-secret-key"}
    machine.configure(
        "planes:\n  cloud: {type: s3, bucket: lake, endpoint: 'http://127.0.0.1:1', access_key: {env: AK},"
        " secret_key: {env: SK}}\n"
    )
    (machine.folder / "x.dat").write_bytes(b"x" * 100)
    start = time.monotonic()
    refused(
        machine, "spray", "x.dat", "a::x", "--format", "fixed:1", code=BUSY, reason="PLANE_UNAVAILABLE", says=("cloud",)
    )
    assert time.monotonic() - start < 60  # it is waited for once, not once a request
    machine.signal(signal.SIGTERM)
    found = subprocess.run(
        ["grep", "-r", "-l", "the-very-secret-key", str(machine.state)], capture_output=True, check=False
    )
    assert found.stdout == b""
