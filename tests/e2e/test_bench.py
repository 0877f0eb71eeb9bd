"""The write test through the installed command line."""

import os
import re
import signal

import h5py
import pytest

from tests.doubles import hsds
from tests.e2e.conftest import HEARD


@pytest.mark.soak  # test_sites shows the same in one process, and the next test the command
def test_writers_fill_a_domain_and_status_checks_what_users_read(machine, tmp_path_factory):
    with hsds.running(tmp_path_factory.mktemp("hsds"), users=()) as server:
        machine.environment["HS_PASSWORD"] = server.password
        machine.configure(
            f"planes: {{data: {{type: posix, path: {machine.folder}}}}}\n"
            f"hsds: {{main: {{endpoint: '{server.endpoint}', username: admin, password: {{env: HS_PASSWORD}}}}}}\n"
        )
        where = "hdf5://home/admin/run"
        assert machine("bench", "hsds", "status", where, "--json", code=4).error["reason"] == "OBJECT_NOT_FOUND"
        size = ("--rows", "400", "--columns", "330", "--chunk", "50x100", "--tasks", "row", "--seed", "5")
        made = machine("bench", "hsds", "create", where, *size, "--json").json
        assert (made["blocks"], made["bytes"]) == (27, 400 * 330 * 8)
        assert "--overwrite" in machine("bench", "hsds", "create", where, *size, code=5).err

        other = machine.start("bench", "hsds", "write", where, "--json")
        wrote = machine("bench", "hsds", "write", where, "--writers", "2", "-v", "--json").json
        out, err = other.communicate(timeout=100)
        assert other.returncode == 0, err
        assert len(wrote["writers"]) == 2
        assert wrote["blocks"] == len(wrote["each"])
        assert f'"blocks": {27 - wrote["blocks"]}, ' in out

        found = machine("bench", "hsds", "status", where, "--verify", "--plot", "run.png", "--json").json
        assert (found["done"], found["verified"], found["differences"]) == (27, 27, [])
        assert sum(one["bytes"] for one in found["writers"]) == made["bytes"]
        assert (machine.folder / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_is_filled_and_a_wrong_value_in_it_is_found(machine):
    name = str(machine.folder / "run.h5")
    machine("bench", "hsds", "create", name, "--rows", "90", "--columns", "80", "--chunk", "50x50")
    assert "2 blocks" in machine("bench", "hsds", "write", name, "--blocks", "2").out
    shown = machine("bench", "hsds", "status", name, "-v").out
    assert re.search(r"2 of 4 blocks done, .* 0 under way, 2 pending", shown)
    assert machine("bench", "hsds", "write", name, "-v").out.count("block 3: 40 x 30 at 50, 50") == 1
    with h5py.File(name, "r+") as file:
        file["data"][60, 70] = 2.0
    shown = machine("bench", "hsds", "status", name, "--verify", code=9).out
    assert "WRONG  block 3: row 60, column 70 is 2.0, not 0." in shown
    assert "4 blocks, 3 as written, 1 not" in shown


def test_an_interrupted_writer_gives_back_what_it_had(machine):
    name = str(machine.folder / "run.h5")
    machine("bench", "hsds", "create", name, "--rows", "4000", "--columns", "4", "--chunk", "1x4")
    writer = machine.installed("bench", "hsds", "write", name, "-v", start_new_session=True, first=HEARD)
    assert "block 0" in writer.stdout.readline()
    os.killpg(writer.pid, signal.SIGINT)  # as a terminal does: the command and the process that writes hear it
    _, err = writer.communicate(timeout=100)
    assert writer.returncode == 130, err
    found = machine("bench", "hsds", "status", name, "--json").json
    assert found["taken"] == 0
    assert 0 < found["done"] < 4000


def test_wrong_words_are_told_together(machine):
    words = ("--rows", "0", "--columns", "x", "--chunk", "5", "--tasks", "chunk", "--seed", "-1", "--target", "main")
    wrong = machine("bench", "hsds", "create", "data:x", *words, "--json", code=2).error
    assert set(wrong["violations"]) == {
        "TARGET",
        "--rows",
        "--columns",
        "--chunk",
        "--tasks",
        "--seed",
        "--target",
    }
    missing = machine("bench", "hsds", "status", str(machine.folder / "gone.h5"), code=4).err
    assert "gone.h5 is not there: make it with" in missing
    nowhere = str(machine.folder / "no" / "x.h5")
    assert "No such file" in machine("bench", "hsds", "create", nowhere, "--rows", "1", "--columns", "1", code=4).err
    huge = ("--rows", "100000", "--columns", "100000", "--chunk", "10x10")
    assert "use larger chunks" in machine("bench", "hsds", "create", nowhere, *huge, code=2).err
