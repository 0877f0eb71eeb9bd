"""Files that are tried in a process of their own."""

import sys

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


DEADLY = {
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "ends every process that reads it (SIGSEGV)",
    "import time; time.sleep(600)": "keeps the HDF5 library busy for ever",
}


@pytest.mark.parametrize("does", DEADLY)
async def test_a_process_that_ends_or_never_does_is_told(tmp_path, monkeypatch, does):
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, "-c", does))
    patience = 60 if "signal" in does else 0.1
    assert DEADLY[does] in await trial.ends(PosixPlane("data", PosixSettings(path=tmp_path)), "x.h5", patience)


async def test_a_plane_that_does_not_answer_is_not_the_files_fault(tmp_path):
    make("external", tmp_path)
    faults = [Fault("stat", 1, Raise(Unavailable("away")))]
    plane = FaultyPlane(PosixPlane("data", PosixSettings(path=tmp_path)), faults)
    with pytest.raises(Unavailable, match="away"):
        await trial.ends(plane, "external.h5")
