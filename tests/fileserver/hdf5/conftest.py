import asyncio
import secrets

import pytest

from fileserver.hdf5 import describe, load
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.settings import HsdsSettings
from fileserver.hdf5.source import opened
from planes.posix import PosixPlane, PosixSettings
from planes.retrying import Patience
from planes.settings import Secret
from tests.doubles import hsds
from tests.fileserver.hdf5 import samples, samples_storage
from tests.fileserver.hdf5.sampling import SAMPLES, make_all

FOLDER = "home/admin/samples"
assert samples, samples_storage  # they fill the table


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real HSDS on POSIX storage, for the whole run; tests work in folders of their own."""
    with hsds.running(tmp_path_factory.mktemp("hsds")) as started:
        yield started


def settings_of(server, user="", **more):
    """The settings of somebody who has a home there."""
    path = server.folder / f"{user or server.user}.secret"
    path.write_text(server.passwords[user or server.user])
    given = {"endpoint": server.endpoint, "username": user or server.user, "password": Secret(file=path)}
    return HsdsSettings(**(given | more))


@pytest.fixture
async def connect(server):
    """Connections of users, closed when the test ends."""
    made = []

    def connected(user="", kind=Connection, patience=None, **more):
        opened = kind("main", settings_of(server, user, **more), patience or Patience(attempts=2, seconds=1.0))
        made.append(opened)
        return opened

    yield connected
    for each in made:
        await each.aclose()


@pytest.fixture
def connection(connect):
    """The administrator's."""
    return connect()


@pytest.fixture
def folder(server):
    """A folder of this test alone, as a path of HSDS."""
    path = f"/home/admin/t{secrets.token_hex(4)}"
    assert server.call("PUT", "/", {"folder": 1}, domain=path)[0] == 201
    return path


def plane(name, path):
    return PosixPlane(name, PosixSettings(path=path, durability="os"))


async def load_all(folder, server):
    source, bucket = plane("source", folder), plane("bucket", server.storage)
    found = {}
    for name in SAMPLES:
        async with opened(source, f"{name}.h5") as file:
            loaded = await load.load(file, bucket, f"test {name}", 1.8e9)
        domain = describe.domain_json(loaded.root, "admin", loaded.created)
        await bucket.put(f"{FOLDER}/{name}/.domain.json", domain, upload_id=f"publish-{loaded.root[2:10]}")
        found[name] = loaded
    await source.aclose()
    await bucket.aclose()
    return found


@pytest.fixture(scope="session")
def loaded(server, tmp_path_factory):
    """All samples, loaded once: their folder, and what became of each load."""
    folder = tmp_path_factory.mktemp("samples")
    make_all(folder)
    assert server.call("PUT", "/", {"folder": 1}, domain=f"/{FOLDER}")[0] == 201
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "_DECODED", 1)  # so that what is decoded comes in several batches
        found = asyncio.run(load_all(folder, server))
    return folder, found
