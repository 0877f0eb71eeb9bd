"""Every sample into a real HSDS, past it and by requests to it: what is verified, and what users then read."""

import asyncio

import h5py
import h5pyd
import pytest

from fileserver.hdf5 import rest, verify
from fileserver.hdf5.hsds import domains
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.source import opened
from fileserver.together import side_by_side
from planes.posix import PosixPlane, PosixSettings
from planes.retrying import Patience
from tests.fileserver.hdf5.compare import Comparison
from tests.fileserver.hdf5.conftest import settings_of
from tests.fileserver.hdf5 import samples, samples_storage  # noqa: F401 -- they enter their samples
from tests.fileserver.hdf5.sampling import SAMPLES, make_all

pytestmark = pytest.mark.xdist_group("hsds")

FOLDER = "/home/admin/arrivals"


def plane(name, path):
    return PosixPlane(name, PosixSettings(path=path, durability="os"))


async def load_all(folder, server):
    """By name: what was loaded, or what went wrong; several at once, since each waits for a flush."""
    source, connection = plane("source", folder), Connection("main", settings_of(server), Patience(attempts=2))
    found = {}

    async def one(name):
        path = f"{FOLDER}/{name}"
        try:
            async with opened(source, f"{name}.h5") as file:
                found[name] = await rest.load(file, connection, path, f"by rest {name}", 1.8e9)
                await domains.flush(connection, path)
                await verify.verify(file, connection, path, found[name], "full")
        except Exception as error:  # noqa: BLE001 -- raised by the test that it is about
            found[name] = error

    await side_by_side(SAMPLES, one, 4)
    await source.aclose()
    await connection.aclose()
    return found


@pytest.fixture(scope="module")
def loaded(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    make_all(folder)
    assert server.call("PUT", "/", {"folder": 1}, domain=FOLDER)[0] == 201
    return folder, asyncio.run(load_all(folder, server))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_domain_made_by_requests_is_verified_and_reads_as_its_file(name, loaded, server, monkeypatch):
    folder, found = loaded
    if isinstance(found[name], Exception):
        raise found[name]
    monkeypatch.chdir(folder)  # h5py looks for external storage there
    domain = {"endpoint": server.endpoint, "username": server.user, "password": server.password}
    domain["getobjs"] = False  # h5pyd 1.0.0 cannot read variable lengths out of what the server sums up
    with h5py.File(f"{name}.h5") as file, h5pyd.File(f"{FOLDER}/{name}", "r", **domain) as read:
        assert Comparison(file, read, found[name].root).differences(SAMPLES[name].refused) == []
