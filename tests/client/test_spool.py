from __future__ import annotations

import io
import os

import pytest

from client.spool import spool, sweep


def test_input_is_kept_until_its_transfer_has_ended(tmp_path):
    folder = tmp_path / "spool"
    with spool(io.BytesIO(b"a,b\n" * 1000), folder, "1") as spooled:
        spooled.keep_for("transfers/1")
    assert spooled.path.read_bytes() == b"a,b\n" * 1000
    assert spooled.path.stat().st_mode & 0o777 == 0o600
    sweep(folder, lambda transfer: transfer != "transfers/1")
    assert spooled.path.exists()
    sweep(folder, lambda transfer: transfer == "transfers/1")
    assert list(folder.iterdir()) == []


def test_input_without_a_transfer_goes_at_once(tmp_path):
    with pytest.raises(RuntimeError), spool(io.BytesIO(b"x"), tmp_path, "1"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_input_that_breaks_off_leaves_nothing(tmp_path):
    class Broken(io.RawIOBase):
        def read(self, _size=-1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), spool(Broken(), tmp_path, "1"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_command_left_goes_after_a_week(tmp_path):
    old, fresh = tmp_path / "old.data", tmp_path / "fresh.data"
    for path in (old, fresh):
        path.touch()
    os.utime(old, (1, 1))
    sweep(tmp_path, lambda _: True)
    assert list(tmp_path.iterdir()) == [fresh]
