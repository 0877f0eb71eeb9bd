"""Every sample through the bucket into a real HSDS, read back as users do, after all its nodes have forgotten it."""

import asyncio

import h5py
import h5pyd
import pytest

from fileserver.hdf5 import describe, load
from fileserver.hdf5.source import opened
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.hdf5 import samples, samples_storage
from tests.fileserver.hdf5.compare import Comparison
from tests.fileserver.hdf5.sampling import SAMPLES, make_all

pytestmark = pytest.mark.xdist_group("hsds")

assert samples, samples_storage  # they fill the table
FOLDER = "home/admin/samples"


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


@pytest.fixture(scope="module")
def loaded(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    make_all(folder)
    assert server.call("PUT", "/", {"folder": 1}, domain=f"/{FOLDER}")[0] == 201
    return folder, asyncio.run(load_all(folder, server))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_domain_reads_as_its_file(name, loaded, server, monkeypatch):
    folder, found = loaded
    monkeypatch.chdir(folder)  # h5py looks for external storage there
    domain = {"endpoint": server.endpoint, "username": server.user, "password": server.password}
    with h5py.File(f"{name}.h5") as file, h5pyd.File(f"/{FOLDER}/{name}", "r", **domain) as read:
        assert Comparison(file, read, found[name].root).differences(SAMPLES[name].refused) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_what_does_not_arrive_as_it_is_is_said(name, loaded):
    _, found = loaded
    by = {"refused": set(), "mapped": set(), "failed": set()}
    for trouble in found[name].troubles:
        by[trouble.what].add(trouble.path)
    assert by == {"refused": SAMPLES[name].refused, "mapped": SAMPLES[name].mapped, "failed": set()}
    assert found[name].whole == (not SAMPLES[name].refused)
