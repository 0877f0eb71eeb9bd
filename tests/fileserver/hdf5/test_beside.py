"""Data of virtual datasets, put together out of other files of the plane."""

from contextlib import AsyncExitStack, nullcontext
from types import SimpleNamespace

import h5py
import pytest

from fileserver import auth
from fileserver.hdf5.beside import STAND_IN, assembled, key_beside
from fileserver.hdf5.source import opened
from fileserver.hdf5.typing_rules import NotHeld
from tests.fileserver.hdf5 import samples_storage  # noqa: F401 -- it enters its samples
from tests.fileserver.hdf5.conftest import plane
from tests.fileserver.hdf5.sampling import make


async def test_several_are_put_together_at_once(tmp_path):
    """Of one file and of two: every ingest beside another may come to one."""
    source, found = plane("source", make("virtual", tmp_path).parent), []
    async with AsyncExitStack() as held:
        files = [await held.enter_async_context(opened(source, "virtual.h5")) for _ in range(2)]
        made = [
            (file, await held.enter_async_context(assembled(file, b"/virtual_text"))) for file in (*files, files[0])
        ]
        for file, each in made:
            found.append(await file.run(lambda _, each=each: h5py.Dataset(each.made[0][STAND_IN].id)[:].tolist()))
    assert found == [[[b"xyz", b"xyz"], [b"a", b"bcd"]]] * 3
    await source.aclose()


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("b.h5", "in/b.h5", "in/b.h5"),
        ("more/b.h5", "in/more/b.h5", "in/more/b.h5"),
        ("../in/b.h5", "in/b.h5", "in/b.h5"),
        ("../out/b.h5", "out/b.h5", None),
        ("more/../../out/b.h5", "out/b.h5", None),
        ("../in2/b.h5", "in2/b.h5", None),
        ("../../b.h5", None, None),
        ("/in/b.h5", None, None),
    ],
)
def test_a_file_brings_callers_from_outside_nothing_of_other_folders(name, inside, outside):
    source = SimpleNamespace(plane=SimpleNamespace(name="lz"), info=SimpleNamespace(key="in/a.h5"))
    for owner, expected in (("", inside), ("alice", outside)):
        auth.run_for(owner)
        try:
            with nullcontext() if expected else pytest.raises(NotHeld):
                assert key_beside(source, name) == expected
        finally:
            auth.set_caller(auth._STRANGER)
