"""Data of virtual datasets, put together out of other files of the plane."""

from contextlib import AsyncExitStack

import h5py

from fileserver.hdf5.beside import STAND_IN, assembled
from fileserver.hdf5.source import opened
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
