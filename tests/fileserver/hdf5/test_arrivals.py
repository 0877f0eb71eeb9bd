"""Every sample into a real HSDS, past it and by requests to it: what is verified, and what users then read."""

import asyncio
from http import HTTPStatus

import h5py
import h5pyd
import numpy as np
import pytest

from fileserver.hdf5 import describe, load, rest, verify
from fileserver.hdf5.hsds import domains, objects
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Slab
from fileserver.hdf5.source import Source, opened
from fileserver.together import side_by_side
from planes.errors import Corrupt
from planes.posix import PosixPlane, PosixSettings
from planes.retrying import Patience
from tests.fileserver.hdf5 import samples, samples_storage  # noqa: F401 -- they enter their samples
from tests.fileserver.hdf5.compare import Comparison
from tests.fileserver.hdf5.conftest import settings_of
from tests.fileserver.hdf5.sampling import SAMPLES, make_all

FOLDER = "/home/admin/arrivals"
_EACH = "test_a_domain_made_by_requests_is_verified_and_reads_as_its_file"


def plane(name, path):
    return PosixPlane(name, PosixSettings(path=path, durability="os"))


def differences(file, server, path, loaded, name):
    domain = {"endpoint": server.endpoint, "username": server.user, "password": server.password}
    for left in reversed(range(5)):
        try:
            with h5py.File(file) as here, h5pyd.File(path, "r", **domain) as there:
                return Comparison(here, there, loaded.root).differences(SAMPLES[name].refused)
        except OSError as error:  # h5pyd gives up at the first answer that the server has too much to do
            if error.errno != HTTPStatus.SERVICE_UNAVAILABLE or not left:
                raise
    raise AssertionError


async def past(file, connection, bucket, path):
    """The same past the server: what it reads back is the same too."""
    loaded = await load.load(file, bucket, f"past {path}", 1.8e9)
    domain = describe.domain_json(loaded.root, "admin", loaded.created)
    await bucket.put(f"{path[1:]}/.domain.json", domain, upload_id=loaded.root[2:10])
    await verify.verify(file, connection, path, loaded, "full")


def chosen():
    """Every third sample; in `make soak` the others, too."""
    return [pytest.param(name, marks=[pytest.mark.soak] * (n % 3 > 0)) for n, name in enumerate(SAMPLES)]


async def load_all(folder, server, names):
    """By name: how it differs from its file, or what went wrong; several at once, since each waits for a flush."""
    source, bucket = plane("source", folder), plane("bucket", server.storage)
    connection = Connection("main", settings_of(server), Patience(attempts=2))
    found = {}

    async def one(name):
        path = f"{FOLDER}/{name}"
        try:
            async with opened(source, f"{name}.h5") as file:
                loaded = await rest.load(file, connection, path, f"by rest {name}", 1.8e9)
                await domains.flush(connection, path)
                await verify.verify(file, connection, path, loaded, "full")
                await past(file, connection, bucket, f"{path} past")
            # At once: h5pyd 1.0.0 cannot read variable lengths out of what the server sums up some seconds later.
            found[name] = await asyncio.to_thread(differences, folder / f"{name}.h5", server, path, loaded, name)
        except Exception as error:  # noqa: BLE001 -- raised by the test that it is about
            found[name] = error

    await side_by_side(names, one, 4)
    await source.aclose()
    await bucket.aclose()
    await connection.aclose()
    return found


@pytest.fixture(scope="module")
def loaded(request, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    make_all(folder)
    assert server.call("PUT", "/", {"folder": 1}, domain=FOLDER)[0] == 201
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # h5py looks for external storage there
        asked = [each.callspec.params["name"] for each in request.session.items if each.originalname == _EACH]
        return folder, asyncio.run(load_all(folder, server, asked))


@pytest.mark.parametrize("name", chosen())
def test_a_domain_made_by_requests_is_verified_and_reads_as_its_file(name, loaded):
    _, found = loaded
    if isinstance(found[name], Exception):
        raise found[name]
    assert found[name] == []


async def test_a_change_that_nobody_sees_in_passing_is_found(loaded, server):
    folder, _ = loaded
    source, connection = plane("source", folder), Connection("main", settings_of(server), Patience(attempts=2))
    path, bad = f"{FOLDER}/changed", {"type": "H5T_STD_I32LE", "shape": [2], "value": [1, 2]}
    async with opened(source, "numbers.h5") as file:
        made = await rest.load(file, connection, path, "changed", 1.8e9)
        await verify.verify(file, connection, path, made, "sample")
        node = next(n for n in made.survey.outline.nodes.values() if n.path == "/le_i4")
        dataset = made.ids[node.address]
        inside = objects.Objects(connection, path, made.root)
        await inside.write(dataset, b"\xff\xff\xff\xff", [Slab(6, 7), Slab(4, 5)])
        await verify.verify(file, connection, path, made, "metadata")
        with pytest.raises(Corrupt, match=r"/le_i4 of .*: data: \[6, 4\] 12 in the file, \[6, 4\] -1 there"):
            await verify.verify(file, connection, path, made, "sample")
        await inside.describe({dataset: {"stranger": bad}})
        with pytest.raises(Corrupt, match="stranger"):
            await verify.verify(file, connection, path, made, "metadata")
    await source.aclose()
    await connection.aclose()


async def test_a_small_file_costs_a_trip_to_its_thread_for_all_of_its_objects_not_for_each(
    loaded, server, tmp_path, monkeypatch
):
    with h5py.File(tmp_path / "few.h5", "w") as file:
        for number in range(9):
            group = file.create_group(f"g{number}", track_order=True)
            group.attrs["number"] = number
            group["contiguous"] = np.arange(number * 10.0)
            group.create_dataset("chunked", data=np.arange(30) + number, chunks=(7,), compression="gzip")
    trips, real = [], Source.run

    async def run(own, work):
        trips.append(work)
        return await real(own, work)

    monkeypatch.setattr(Source, "run", run)
    source, connection = plane("source", tmp_path), Connection("main", settings_of(server), Patience(attempts=2))
    path = f"{FOLDER}/few"
    async with opened(source, "few.h5") as file:
        made = await rest.load(file, connection, path, "few", 1.8e9)
        assert len(trips) == 2  # what there is, and what it holds
        await verify.verify(file, connection, path, made, "sample")
        assert len(trips) == 5  # the same, the values for themselves
        node = next(n for n in made.survey.outline.nodes.values() if n.path == "/g8/chunked")
        inside = objects.Objects(connection, path, made.root)
        await inside.write(made.ids[node.address], b"\xff" * 8, [Slab(9, 10)])
        with pytest.raises(Corrupt, match=r"/g8/chunked of .*: data: \[9\] 17 in the file, \[9\] -1 there"):
            await verify.verify(file, connection, path, made, "sample")
    await source.aclose()
    await connection.aclose()
