"""Odd beginnings and ends: closed streams, killed commands, two configurations, a state directory that is in disarray.

Each gets one sentence that names the thing and the way out, the right exit code, and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

INVALID, NOT_FOUND, REFUSED, CORRUPT = 2, 4, 7, 9
CSV = ("--format", "csv")


def piped(machine, data: bytes, *arguments: str):
    """Run a command with these bytes as its standard input: exit code, standard output, standard error."""
    (machine.folder / "stdin").write_bytes(data)
    with (machine.folder / "stdin").open("rb") as opened:
        process = machine.start(*arguments, stdin=opened)
        out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def until(reached, what="it") -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not happen within a minute"
        time.sleep(0.02)


def spooled(machine) -> list[Path]:
    folder = machine.state / "spool"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def sentence(err: str) -> str:
    """The only line of an error, which holds no traceback."""
    [line] = err.splitlines()
    assert line.startswith("error: ")
    return line


@contextmanager
def serving(machine, *more: str):
    """A server that somebody started by hand; its address."""
    process = machine.start("serve", "--listen", "127.0.0.1:0", *more)
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=30)


# --- closed streams -------------------------------------------------------------------------------------------------


def test_closed_standard_input_is_no_empty_file(machine):
    piped(machine, b"1,2\n", "spray", "-", "a::x", *CSV)
    process = machine.installed("spray", "-", "a::x", *CSV, "--overwrite", first="import os; os.close(0)")
    _, err = process.communicate(timeout=100)
    assert process.returncode == INVALID
    assert "standard input is closed" in sentence(err)
    assert machine("cat", "a::x").out == "1,2\n"


@pytest.mark.parametrize("words", [("cat", "a::x"), ("files", "list"), ("spray", "y.csv", "a::y")], ids=" ".join)
def test_closed_standard_output_is_told_before_anything_is_done(machine, words):
    (machine.folder / "y.csv").write_text("1,2\n")
    process = machine.installed(*words, first="import os; os.close(1)")
    _, err = process.communicate(timeout=100)
    assert process.returncode == INVALID
    assert "standard output is closed" in sentence(err)
    assert machine("files", "list", "--json").json["files"] == []


# --- standard input that nobody waits for any more ------------------------------------------------------------------


def test_input_of_a_killed_command_goes_and_that_of_a_living_one_stays(machine):
    commands = [machine.start("spray", "-", f"a::{n}", *CSV, stdin=subprocess.PIPE) for n in (1, 2)]
    for process in commands:
        process.stdin.write("1,2\n" * 5000)
        process.stdin.flush()
    until(lambda: len(spooled(machine)) == 2, "spooling")
    commands[0].kill()
    commands[0].communicate(timeout=60)
    machine("files", "list")  # starts a server, which looks at what is left
    until(lambda: len(spooled(machine)) == 1, "the sweep")
    _, err = commands[1].communicate(timeout=100)
    assert commands[1].returncode == 0, err
    assert len(machine("cat", "a::2").out) == 4 * 5000
    assert spooled(machine) == []


def test_input_that_an_unfinished_transfer_needs_survives_command_and_server(machine):
    root = machine.folder / "plane"
    root.mkdir()
    plane = f"planes:\n  data: {{type: posix, path: {root}, limits: {{bytes_per_second: %d}}}}\n"
    machine.configure(plane % 300_000)
    data = os.urandom(6 * 2**20)
    (machine.folder / "stdin").write_bytes(data)
    with (machine.folder / "stdin").open("rb") as opened:
        process = machine.start("spray", "-", "a::x", "--format", "fixed:1", "--parts", "12", stdin=opened)
    until(lambda: machine("transfers", "list", "--json").json["transfers"], "the transfer")
    process.kill()
    process.communicate(timeout=60)
    [transfer] = machine("transfers", "list", "--json").json["transfers"]
    machine("transfers", "pause", transfer["id"])
    machine.kill()
    assert machine("transfers", "watch", transfer["id"]).out.endswith("PAUSED\n")
    assert len(spooled(machine)) == 1
    machine.configure(plane % 0)
    machine("transfers", "resume", transfer["id"])
    machine("transfers", "watch", transfer["id"])
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert b"".join((root / p["key"]).read_bytes() for p in parts) == data
    machine.kill()
    machine("files", "list")
    until(lambda: not spooled(machine), "the sweep")


def test_input_for_a_named_server_lies_where_that_server_sweeps(machine):
    with serving(machine, "--state", str(machine.folder / "other")) as address:
        process = machine.start("spray", "-", "a::x", *CSV, "--server", address, stdin=subprocess.PIPE)
        process.stdin.write("1,2\n" * 5000)
        process.stdin.flush()
        folder = machine.folder / "other" / "spool"
        until(lambda: folder.is_dir() and list(folder.iterdir()), "spooling")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert list(folder.iterdir()) == spooled(machine) == []


# --- two configurations of one state directory ----------------------------------------------------------------------


def configurations(machine) -> list[str]:
    made = []
    for name in ("one", "two"):
        (machine.folder / name).mkdir()
        path = machine.folder / f"{name}.yaml"
        path.write_text(f"planes:\n  {name}: {{type: posix, path: {machine.folder}/{name}}}\n")
        made.append(str(path))
    return made


def test_calls_with_two_configurations_take_turns(machine):
    one, two = configurations(machine)
    (machine.folder / "x.dat").write_bytes(b"0123456789" * 1000)

    def call(number: int):
        config = (one, two)[number % 2]
        if number < 2:
            words = ("spray", "x.dat", f"a::x{number}", "--format", "fixed:10", "--parts", "3")
        else:
            words = ("planes", "list")
        return machine(*words, "--config", config, "--json", code=None)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(call, range(8)))
    assert [r.code for r in results] == [0] * 8, [r.err for r in results]
    planes = [[p["name"] for p in r.json["planes"]] for r in results[2:]]
    assert planes == [["one"], ["two"]] * 3
    assert [r.json["outcome"]["evidence"] for r in results[:2]] == ["compared"] * 2


def test_a_watch_outlives_a_change_of_the_configuration_and_the_end_of_its_server(machine):
    root = machine.folder / "plane"
    root.mkdir()
    plane = f"planes:\n  data: {{type: posix, path: {root}, limits: {{bytes_per_second: %d}}}}\n"
    machine.configure(plane % 300_000)
    (machine.folder / "x.dat").write_bytes(os.urandom(6 * 2**20))
    process = machine.start("spray", "x.dat", "a::x", "--format", "fixed:1", "--parts", "6", "--json")
    until((root / "a").exists, "the transfer")
    machine.configure(plane % 0)
    machine.kill()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert json.loads(out)["state"] == "SUCCEEDED"


# --- a state directory in disarray ----------------------------------------------------------------------------------


def no_log(machine) -> str:
    machine.configure(
        f"planes:\n  data: {{type: posix, path: {machine.folder}}}\nlog: {{file: {machine.folder}/none/x.log}}\n"
    )
    return f"log.file: {machine.folder}/none/x.log"


def no_database(machine) -> str:
    (machine.state / "state.db").write_bytes(b"this is no database, but it is long enough to be taken for one" * 100)
    return f"{machine.state}/state.db"


def no_file_for_the_database(machine) -> str:
    (machine.state / "state.db").mkdir()
    return f"{machine.state}/state.db"


def no_lock(machine) -> str:
    (machine.state / "lock").mkdir()
    return f"{machine.state}/lock"


def no_cookie(machine) -> str:
    (machine.state / "cookie").mkdir()
    return f"{machine.state}/cookie"


def no_folder_for_the_plane(machine) -> str:
    (machine.state / "data").write_text("a file")
    return f"{machine.state}/data"


DISARRAY = [no_log, no_database, no_file_for_the_database, no_lock, no_cookie, no_folder_for_the_plane]


@pytest.mark.parametrize("spoil", DISARRAY, ids=lambda spoil: spoil.__name__)
def test_what_keeps_a_server_from_starting_is_one_sentence(machine, spoil):
    machine.state.mkdir(mode=0o700)
    place = spoil(machine)
    served = machine("serve", "--listen", "127.0.0.1:0", code=INVALID)
    [line] = served.err.splitlines()
    assert line.startswith("cropduster serve: ")
    assert place in line
    called = machine("files", "list", code=INVALID)
    assert sentence(called.err) == "error: the embedded server cannot start: " + line.removeprefix("cropduster serve: ")
    error = machine("files", "list", "--json", code=INVALID).error
    assert error["reason"] == "INVALID_SPEC"
    assert place in error["message"]
    if spoil is no_lock:
        (machine.state / "lock").rmdir()  # no server to be ended after the test


# --- transfers that have ended --------------------------------------------------------------------------------------


def test_a_transfer_that_has_ended_cannot_be_steered(machine):
    (machine.folder / "x.csv").write_text("1,2\n")
    done = machine("spray", "x.csv", "a::x", "--json").json["id"]
    for verb in ("cancel", "pause", "resume"):
        error = machine("transfers", verb, done, "--json", code=REFUSED).error
        assert (error["reason"], error["metadata"]["state"]) == ("TRANSFER_ENDED", "SUCCEEDED")
        assert f"transfers/{done} has ended already (SUCCEEDED)" in error["message"]


def test_what_is_cancelled_already_may_be_cancelled_again(machine):
    root = machine.folder / "plane"
    root.mkdir()
    machine.configure(f"planes:\n  data: {{type: posix, path: {root}, limits: {{bytes_per_second: 100000}}}}\n")
    (machine.folder / "x.dat").write_bytes(os.urandom(2**20))
    begun = machine("spray", "x.dat", "a::x", "--format", "fixed:1", "--no-wait", "--json").json["id"]
    assert machine("transfers", "cancel", begun).out == f"transfers/{begun}: CANCELLED\n"
    again = machine("transfers", "cancel", begun)
    assert again.out == f"transfers/{begun}: CANCELLED\n"
    assert "already" in again.err
    assert machine("transfers", "cancel", begun, "--json").json["state"] == "CANCELLED"
    machine("transfers", "resume", begun, code=REFUSED)


# --- what messages call things --------------------------------------------------------------------------------------


def test_standard_input_is_called_by_its_name(machine):
    bad = b"a,b\n" + b'one "inch" wide,2\n' * 3000
    code, _, err = piped(machine, bad, "spray", "-", "a::x", *CSV, "--parts", "4")
    assert code == REFUSED
    assert "standard input, byte " in err
    assert "spool" not in err
    code, out, err = piped(machine, bad, "spray", "-", "a::x", *CSV, "--parts", "4", "--json")
    assert json.loads(err)["error"]["message"].startswith("standard input, byte ")
    shown = json.loads(out)
    assert shown["error"]["message"].startswith("standard input, byte ")
    assert "standard input, byte" in machine("transfers", "show", shown["id"]).out
    assert spooled(machine) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--separator", "\\n,;"), "--terminator \\n is also a --separator"),
        (("--quote", "\\x09", "--separator", "\t"), "--quote \\t is also a --separator"),
        (("--escape", ","), "--escape , is also a --separator"),
    ],
)
def test_tokens_that_clash_are_named_as_they_are_typed(machine, options, says):
    (machine.folder / "x.csv").write_text("1,2\n")
    assert says in sentence(machine("spray", "x.csv", "a::x", *options, code=INVALID).err)


def test_a_terminator_that_was_added_is_shown_as_it_is_typed(machine):
    for name, text in {"a": "1,2", "b": "3,4\n"}.items():
        (machine.folder / f"{name}.csv").write_text(text)
    [warning] = machine("spray", "a.csv", "b.csv", "a::x", "--parts", "2", "--json").json["warnings"][:1]
    assert warning.endswith("a.csv ends without a terminator; \\n is added after it")


def test_the_doctor_shows_what_a_failing_plane_answered(machine):
    machine.configure(f"planes:\n  lost: {{type: posix, path: {machine.folder}/none}}\n")
    checks = {c["check"]: c for c in machine("doctor", "--json", code=REFUSED).json["checks"]}
    assert f"{machine.folder}/none" in checks["plane lost"]["detail"]


def test_the_streams_of_a_process_are_no_files(machine):
    (machine.folder / "x.csv").write_text("1,2\n")
    machine("spray", "x.csv", "a::x")
    for target in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        assert sentence(machine("despray", "a::x", target, code=INVALID).err).endswith("write - for standard output")
    for source in ("/dev/stdin", "/dev/fd/63"):
        assert "standard input" in sentence(machine("spray", source, "a::y", *CSV, code=INVALID).err)
    assert "standard input" in sentence(machine("files", "register", "a::y", "-", code=INVALID).err)


def test_a_current_directory_that_is_gone(machine):
    gone = machine.folder / "gone"
    gone.mkdir()
    (machine.folder / "x.csv").write_text("1,2\n")

    leave = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})"
    process = machine.installed("spray", "x.csv", "a::x", first=leave)
    _, err = process.communicate(timeout=100)
    assert process.returncode == INVALID
    assert "current directory" in sentence(err)
    gone.mkdir()
    process = machine.installed("spray", str(machine.folder / "x.csv"), "a::x", first=leave)
    assert process.wait(timeout=100) == 0, process.communicate()


def test_names_that_are_no_utf_8(machine):
    odd = os.fsdecode(b"odd\xff")
    (machine.folder / f"{odd}.csv").write_text("1,2\n")
    (machine.folder / "x.csv").write_text("1,2\n")
    machine("spray", "x.csv", "a::x")
    for words in (
        ("spray", f"{odd}.csv", "a::y"),
        ("spray", "x.csv", f"a::{odd}"),
        ("spray", "x.csv", "a::y", "--plane", odd),
        ("despray", "a::x", f"./{odd}"),
        ("files", "show", odd),
        ("files", "list", odd),
        ("transfers", "show", odd),
        ("planes", "objects", f"data:{odd}"),
    ):
        assert r"odd\xff" in sentence(machine(*words, code=INVALID).err)


def test_a_folder_whose_name_is_no_utf_8(machine):
    odd = machine.folder / os.fsdecode(b"odd\xff")
    odd.mkdir()
    (odd / "x.csv").write_text("1,2\n")
    process = machine.installed("spray", "x.csv", "a::x", first=f"import os; os.chdir({os.fsencode(odd)!r})")
    _, err = process.communicate(timeout=100)
    assert process.returncode == INVALID
    assert "UTF-8" in sentence(err)
    machine.environment["CROPDUSTER_STATE"] = str(odd)
    result = machine("files", "list", code=INVALID)
    assert "UTF-8" in sentence(result.err)


# --- registered files -----------------------------------------------------------------------------------------------


def test_a_registered_file_is_verified_by_its_bytes(machine):
    machine("files", "list")  # makes the default plane
    for number in (1, 2):
        (machine.data / f"{number}.csv").write_text(f"{number},{number}\n" * 100)
    machine("files", "register", "a::r", "data:1.csv", "data:2.csv", *CSV)
    shown = machine("files", "verify", "a::r", "--read", "--json").json
    assert shown["ok"]
    assert shown["bytes_read"] == 800
    (machine.data / "2.csv").write_text("2,2\n" * 99)
    failed = machine("files", "verify", "a::r", "--read", "--json", code=CORRUPT)
    assert [p["verdict"] for p in failed.json["parts"]] == ["read", "different"]
    (machine.data / "2.csv").unlink()
    machine("files", "verify", "a::r", "--read", code=NOT_FOUND)
