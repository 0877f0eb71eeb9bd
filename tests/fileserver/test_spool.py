"""Copies of standard input go when neither a living command nor an unfinished transfer needs them."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from client import spool as theirs
from fileserver import serve, spool
from fileserver.transfer.record import Record
from fileserver.transfer.spec import Despray, Location, Spec, Spray, spec_to_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / spool.FOLDER
    made.mkdir()
    return made


async def none_of(paths):
    return set()


def test_both_sides_mean_the_same_folder():
    assert theirs.FOLDER == spool.FOLDER


async def test_what_nobody_needs_goes_and_what_is_held_or_named_stays(tmp_path, folder):
    for name in ("dead.data", "held.data", "named.data", "notes.txt"):
        (folder / name).write_text(name)
    asked = []

    async def needed(paths):
        asked.append(paths)
        return {str(folder / "named.data")}

    with (folder / "held.data").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert await spool.sweep(tmp_path, needed) == 1
    assert asked == [{str(folder / "dead.data"), str(folder / "named.data")}]
    assert names(folder) == ["held.data", "named.data", "notes.txt"]


async def test_what_is_asked_about_is_held_so_that_no_command_can_use_it_meanwhile(tmp_path, folder):
    (folder / "x.data").touch()

    async def needed(paths):
        with (folder / "x.data").open("rb") as opened, pytest.raises(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return paths

    assert await spool.sweep(tmp_path, needed) == 0
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert await spool.sweep(tmp_path, needed) == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_what_lies_in_the_way_is_left_alone(tmp_path, folder):
    (tmp_path / "mine").write_text("mine")
    (folder / "link.data").symlink_to(tmp_path / "mine")
    (folder / "folder.data").mkdir()
    await spool.sweep(tmp_path, none_of)
    assert names(folder) == ["folder.data", "link.data"]
    assert (tmp_path / "mine").read_text() == "mine"


async def test_without_a_folder_nobody_is_asked(tmp_path):
    async def needed(paths):
        pytest.fail("there is nothing to ask about")

    assert await spool.sweep(tmp_path, needed) == 0


def _spray(*sources):
    return Spray(sources, "a::x", "", 0, 0, None)


class Jobs:
    """Unfinished transfers, newest first, as the real ones list them."""

    def __init__(self, verbs):
        self.records = [
            Record(str(n), spec_to_json(Spec(verb)), "PAUSED", "", 1, -float(n), 0.0) for n, verb in enumerate(verbs)
        ]

    async def listing(self, before, limit, *, active):
        assert active
        after = [r for r in self.records if before is None or (r.created, r.id) < before]
        return after[:limit]


async def test_transfers_on_every_page_keep_their_sources(tmp_path, folder):
    """Those of planes that only look the same do not."""
    (folder / "old.data").touch()
    (folder / "gone.data").touch()
    local, other = (Location(plane, str(folder / "old.data")) for plane in ("local", "cloud"))
    odd = [Despray("a::x", local), _spray(Location("cloud", str(folder / "gone.data")))]
    jobs = Jobs([*odd, *[_spray(other)] * 230, _spray(other, local)])
    await serve._sweep_spool(tmp_path, jobs)
    assert names(folder) == ["old.data"]
