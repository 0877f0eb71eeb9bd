from __future__ import annotations

import errno
import fcntl
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.errors import Exit, ServerError
from client.spool import is_spooled, spool

NAME = "0123456789abcdef" * 2


def is_held(path: Path) -> bool:
    with path.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_input_is_held_while_the_command_lives_and_stays_for_its_transfer(tmp_path):
    folder = tmp_path / "spool"
    with spool(io.BytesIO(b"a,b\n" * 1000), folder, NAME) as spooled:
        assert spooled.path.read_bytes() == b"a,b\n" * 1000
        assert is_held(spooled.path)
        spooled.keep()
    assert spooled.path.stat().st_mode & 0o777 == 0o600
    assert not is_held(spooled.path)
    spooled.remove()
    spooled.remove()
    assert list(folder.iterdir()) == []


def test_input_without_a_transfer_goes_at_once(tmp_path):
    with pytest.raises(RuntimeError), spool(io.BytesIO(b"x"), tmp_path, NAME):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_input_that_breaks_off_leaves_nothing(tmp_path):
    class Broken(io.RawIOBase):
        def read(self, _size=-1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), spool(Broken(), tmp_path, NAME):
        pass
    assert list(tmp_path.iterdir()) == []


def test_input_that_cannot_be_read_says_so(tmp_path):
    class Broken(io.RawIOBase):
        def read(self, _size=-1):
            raise OSError(errno.EBADF, "Bad file descriptor")

    with (
        pytest.raises(ServerError, match="standard input cannot be read: Bad") as caught,
        spool(Broken(), tmp_path, NAME),
    ):
        pass
    assert caught.value.exit is Exit.REFUSED
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_between_making_and_holding_a_file_is_noticed(tmp_path, monkeypatch):
    """The sweeper removes the first one in that very moment."""
    real, taken = fcntl.flock, []

    def flock(descriptor, kind):
        if not taken:
            taken.append(os.fstat(descriptor).st_ino)
            (tmp_path / f"{NAME}.data").unlink()
        real(descriptor, kind)

    monkeypatch.setattr("client.spool.fcntl.flock", flock)
    with spool(io.BytesIO(b"all of it"), tmp_path, NAME) as spooled:
        assert spooled.path.read_bytes() == b"all of it"


FULL = """
import io, resource, signal, sys
from pathlib import Path
from client.spool import spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
try:
    with spool(io.BytesIO(bytes(2000)), Path(sys.argv[1]), "0" * 32):
        print("all was written")
except OSError as error:
    print(error.strerror)
"""


def test_a_write_that_is_cut_short_is_an_error_and_never_a_shorter_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_spooled_is_taken_for_standard_input(tmp_path):
    with spool(io.BytesIO(b""), tmp_path / "spool", NAME) as spooled:
        assert is_spooled(str(spooled.path))
    for key in ("x.csv", "/spool/x.data", f"/x/spool/{NAME}.csv", f"/x/spool/{NAME}.data/y", f"spool/{NAME}.data"):
        assert not is_spooled(key)
