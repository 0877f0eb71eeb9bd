"""Files that are tried in a process of their own."""

import os
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest

from fileserver.hdf5 import trial
from planes.errors import Unavailable
from planes.faulty import Fault, FaultyPlane, Raise
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.hdf5 import samples, samples_storage
from tests.fileserver.hdf5.sampling import make

assert samples, samples_storage  # they fill the table


async def test_whatever_is_wrong_with_a_file_its_process_survives_and_asks_for_all_that_it_needs(tmp_path):
    make("virtual", tmp_path)
    (tmp_path / "none.h5").write_bytes(b"no HDF5")
    plane, asked = PosixPlane("data", PosixSettings(path=tmp_path)), []

    class Listening(PosixPlane):
        async def read(self, extent, into):
            asked.append(extent.key)
            await plane.read(extent, into)

    listening = Listening("data", PosixSettings(path=tmp_path))
    assert await trial.ends(listening, "virtual.h5") == ""
    assert set(asked) == {"virtual.h5", "virtual.part.h5"}
    assert await trial.ends(listening, "none.h5") == await trial.ends(listening, "gone.h5") == ""


def a_process(does):
    """A process that says that it has begun, and then does something else."""
    return sys.executable, "-c", f"import json, os, signal, sys, time; print({BEGUN!r}, flush=True); {does}"


BEGUN = '{"begun": true}'
ASK = "ask = lambda **asked: print(json.dumps(asked), flush=True); "
KNOWN = ASK + "ask(key='x.h5'); sys.stdin.readline(); "
NONSENSE = "spoke no sense any more"
DEADLY = {
    "os.kill(os.getpid(), signal.SIGSEGV)": "ends every process that reads it (SIGSEGV)",
    "os.kill(os.getpid(), signal.SIGRTMIN + 1)": "ends every process that reads it (signal 35)",
    "os._exit(0)": "ends every process that reads it (exit 0)",
    "os._exit(3)": "ends every process that reads it (exit 3)",
    "print('SZ: version 2', flush=True)": NONSENSE,
    "print('[' * 50_000, flush=True)": NONSENSE,
    "print('x' * 100_000, flush=True)": NONSENSE,
    "print('[]', flush=True)": NONSENSE,
    ASK + "ask(start=0)": NONSENSE,
    ASK + "ask(key=['x.h5'])": NONSENSE,
    ASK + "ask(key='x.h5', version='', start=0, end=1)": NONSENSE,  # of what it knows nothing yet
    KNOWN + "ask(key='x.h5', version='', start=0, end=1 << 62)": NONSENSE,
    KNOWN + "ask(key='x.h5', version='', start=0, end=9 << 20)": NONSENSE,
    KNOWN + "ask(key='x.h5', version='', start=9, end=8)": NONSENSE,
    KNOWN + "ask(key='x.h5', version='', start=-1, end=8)": NONSENSE,
    KNOWN + "ask(key='x.h5', start=0, end=8)": NONSENSE,
}


@pytest.mark.parametrize("does", DEADLY)
async def test_a_process_that_does_not_say_that_it_is_over_is_told(tmp_path, monkeypatch, does):
    (tmp_path / "x.h5").touch()
    os.truncate(tmp_path / "x.h5", 10 << 20)
    monkeypatch.setattr(trial, "COMMAND", a_process(does))
    assert DEADLY[does] in await trial.ends(PosixPlane("data", PosixSettings(path=tmp_path)), "x.h5", 60)


BUSY = {
    "never-asks": "time.sleep(600)",
    "never-ends": "os.close(1); time.sleep(600)",
    "never-reads": ASK
    + "ask(key='x.h5'); ask(key='x.h5', version=sys.argv[-1], start=0, end=8 << 20); time.sleep(600)",
}


@pytest.mark.parametrize("name", BUSY)
async def test_a_process_that_never_comes_back_is_told(tmp_path, monkeypatch, name):
    (tmp_path / "x.h5").touch()
    os.truncate(tmp_path / "x.h5", 10 << 20)
    plane = PosixPlane("data", PosixSettings(path=tmp_path))
    version = (await plane.stat("x.h5")).version
    command = a_process(BUSY[name].replace("sys.argv[-1]", repr(version)))
    monkeypatch.setattr(trial, "COMMAND", command)
    assert "keeps the HDF5 library busy for ever" in await trial.ends(plane, "x.h5", 0.5)


@pytest.mark.parametrize("command", [(sys.executable, "-c", "import nothing_like_that"), ("/no/such/program",)])
async def test_a_process_that_does_not_even_begin_is_not_the_files_fault(tmp_path, monkeypatch, command):
    monkeypatch.setattr(trial, "COMMAND", command)
    with pytest.raises(Unavailable, match=r"data:x\.h5 cannot be tried in a process of its own on this file server"):
        await trial.ends(PosixPlane("data", PosixSettings(path=tmp_path)), "x.h5", 60)


UNCHECKED = """
import sys
from fileserver.hdf5 import inflated, trial
inflated.check = lambda *_: None
trial._main(*sys.argv[-2:])
"""


async def test_a_plugin_that_prints_and_ends_its_process_in_good_order_is_told(tmp_path, monkeypatch):
    make_sz3(tmp_path / "x.h5")
    plane = PosixPlane("data", PosixSettings(path=tmp_path))
    assert await trial.ends(plane, "x.h5") == ""  # it is not asked
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, "-c", UNCHECKED))
    assert await trial.ends(plane, "x.h5") == "ends every process that reads it (exit 0)"


def make_sz3(path):
    """A file with a chunk that SZ3 cannot have packed: it has five dimensions."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("d", (1000,), "<f4", chunks=(1000,), **hdf5plugin.SZ3(absolute=0.1))
        data[...] = np.random.default_rng(7).random(1000)
        _, sound = data.id.read_direct_chunk((0,))
        data.id.write_direct_chunk((0,), sound[:-68] + b"\5" + sound[-67:])


async def test_a_plane_that_does_not_answer_is_not_the_files_fault(tmp_path):
    make("external", tmp_path)
    faults = [Fault("stat", 1, Raise(Unavailable("away")))]
    plane = FaultyPlane(PosixPlane("data", PosixSettings(path=tmp_path)), faults)
    with pytest.raises(Unavailable, match="away"):
        await trial.ends(plane, "external.h5")
