"""The catalogue as a user keeps it: listed, renamed, deleted, rebuilt; and what becomes of the bytes."""

from __future__ import annotations

import json
import os
import signal
import time
from importlib.metadata import version

from client.api import Client
from client.connection import Connection, Embedded
from client.embedded import EmbeddedServer
from fileserver.v1.file_pb2 import ListFilesRequest
from fileserver.v1.file_pb2_grpc import FileServiceStub

CORRUPT = 9


def spray(machine, name, *, data=bytes(range(100)), more=()) -> dict:
    """A logical file of two parts, as `files show` has it."""
    (machine.folder / "x.dat").write_bytes(data)
    machine("spray", "x.dat", name, "--format", "fixed:10", "--parts", "2", *more)
    return machine("files", "show", name, "--json").json


def names(machine, *mask: str) -> list[str]:
    return [f["name"] for f in machine("files", "list", *mask, "--json").json["files"]]


def rebuild(machine) -> dict:
    return machine("files", "rebuild", "data", "--json").json


def test_a_renamed_file_keeps_its_bytes_and_its_old_name_is_free(machine):
    spray(machine, "a::x", data=b"old " * 50)
    machine("files", "rename", "a::x", "b::y")
    assert names(machine) == ["b::y"]
    spray(machine, "a::x", data=b"new " * 50)
    assert machine("cat", "b::y").out == "old " * 50
    assert machine("cat", "a::x").out == "new " * 50
    error = machine("files", "rename", "a::x", "b::y", "--json", code=5).error
    assert error["reason"] == "TARGET_EXISTS"
    found = rebuild(machine)
    assert (found["restored"], found["present"], found["skipped"]) == ([], ["a::x", "b::y"], [])


def test_a_list_is_masked_and_comes_in_pages(machine):
    for name in ("a::one", "a::two", "b::one", "a_c"):
        spray(machine, name)
    assert names(machine) == ["a::one", "a::two", "a_c", "b::one"]
    assert names(machine, "*::ONE") == ["a::one", "b::one"]
    assert names(machine, "a_?") == ["a_c"]
    assert names(machine, "a::*") == ["a::one", "a::two"]
    assert names(machine, "c*") == []
    server = EmbeddedServer(machine.state, None, version("cropduster"), os.environ)
    with Client(Connection(Embedded(server))) as client:
        pages, token = [], ""
        while token or not pages:
            request = ListFilesRequest(mask="*::*", page_size=2, page_token=token)
            answer = client.call(lambda c: FileServiceStub(c).ListFiles, request)
            pages.append([file.name for file in answer.files])
            token = answer.next_page_token
    assert pages == [["a::one", "a::two"], ["b::one"]]


def test_bytes_of_a_deleted_file_are_really_gone_after_the_time_of_grace(machine):
    (machine.folder / "plane").mkdir()
    machine.configure(f"retire_after: 1s\nplanes:\n  data: {{type: posix, path: {machine.folder}/plane}}\n")
    spray(machine, "a::gone")
    spray(machine, "a::stays")
    machine("files", "delete", "a::gone", "--yes")
    assert names(machine) == ["a::stays"]

    def left():
        return machine.files(machine.folder / "plane")

    deadline = time.monotonic() + 60
    while any("gone" in key for key in left()):
        assert time.monotonic() < deadline, machine.log()
        machine.signal(signal.SIGTERM)
        machine("files", "list")  # a server that starts sweeps at once
        begun = time.monotonic()
        while any("gone" in key for key in left()) and time.monotonic() < begun + 1:
            time.sleep(0.02)
    assert len(left()) == 3
    machine("files", "verify", "a::stays", "--read")
    assert rebuild(machine)["restored"] == []


def test_a_deleted_file_does_not_come_back_by_a_rebuild(machine):
    spray(machine, "a::x")
    machine("files", "delete", "a::x", "--yes")
    found = rebuild(machine)
    assert found["restored"] == []
    assert len(found["skipped"]) == 1


def test_a_rebuild_makes_no_foreign_object_ours(machine):
    parts = spray(machine, "a::x")["parts"]
    manifest = next(f for f in machine.files() if f.endswith("_manifest.json"))
    (machine.data / "payroll.dat").write_bytes((machine.data / parts[0]["key"]).read_bytes())
    machine.signal(signal.SIGTERM)
    for path in machine.state.glob("state.db*"):
        path.unlink()
    content = json.loads((machine.data / manifest).read_text())
    content["parts"][0]["key"] = "payroll.dat"
    (machine.data / manifest).write_text(json.dumps(content))
    found = rebuild(machine)
    assert found["restored"] == []
    assert "payroll.dat" in found["skipped"][0]
    assert names(machine) == []


def test_a_part_that_was_tampered_with_never_leaves(machine):
    part = machine.data / spray(machine, "a::x")["parts"][1]["key"]
    data = bytearray(part.read_bytes())
    data[25] ^= 1
    part.chmod(0o644)
    part.write_bytes(data)
    error = machine("despray", "a::x", "./out.dat", "--json", code=CORRUPT).error
    assert error["reason"] == "CHECKSUM_MISMATCH"
    assert not (machine.folder / "out.dat").exists()
    assert [p.name for p in machine.folder.iterdir() if "out.dat" in p.name] == []
    (machine.folder / "mine.dat").write_bytes(b"mine")
    machine("despray", "a::x", "./mine.dat", "--overwrite", code=CORRUPT)
    assert (machine.folder / "mine.dat").read_bytes() == b"mine"
    assert "was changed" in machine("cat", "a::x", code=CORRUPT).err.replace("were", "was")


def test_a_part_whose_mode_was_changed_can_be_read_and_desprayed(machine):
    part = machine.data / spray(machine, "a::x", data=b"0123456789" * 10)["parts"][0]["key"]
    part.chmod(0o600)
    assert machine("cat", "a::x").out == "0123456789" * 10
    machine("despray", "a::x", "./out.dat")
    assert (machine.folder / "out.dat").read_bytes() == b"0123456789" * 10


def test_a_part_of_a_file_cannot_be_registered_as_anothers(machine):
    part = spray(machine, "a::x")["parts"][1]["key"]
    error = machine("files", "register", "a::own", f"data:{part}", "--format", "csv", "--json", code=2).error
    assert "a::x" in error["message"]
    machine("files", "verify", "a::x")


def test_a_part_that_was_touched_is_not_called_well_before_it_was_read(machine):
    part = machine.data / spray(machine, "a::x")["parts"][0]["key"]
    part.write_bytes(part.read_bytes()[::-1])
    assert machine("files", "verify", "a::x", "--json", code=None).json["parts"][0]["verdict"] in {
        "touched",
        "different",
    }
    assert machine("files", "verify", "a::x", "--read", "--json", code=None).json["parts"][0]["verdict"] == "different"


def test_a_source_that_has_the_very_name_of_a_wildcard_is_that_source(machine):
    (machine.folder / "w?.csv").write_text("a\n")
    (machine.folder / "wx.csv").write_text("b\n")
    machine("spray", "./w?.csv", "a::w")
    assert machine("cat", "a::w").out == "a\n"
