"""Every sample through the bucket into a real HSDS, read back as users do, after all its nodes have forgotten it."""

import h5py
import h5pyd
import pytest

from fileserver.hdf5 import compare
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.source import opened
from tests.fileserver.hdf5.compare import Comparison
from tests.fileserver.hdf5.conftest import FOLDER, plane
from tests.fileserver.hdf5.sampling import SAMPLES


@pytest.mark.parametrize("name", SAMPLES)
def test_a_domain_reads_as_its_file(name, loaded, server, monkeypatch):
    folder, found = loaded
    monkeypatch.chdir(folder)  # h5py looks for external storage there
    domain = {"endpoint": server.endpoint, "username": server.user, "password": server.password}
    with h5py.File(f"{name}.h5") as file, h5pyd.File(f"/{FOLDER}/{name}", "r", **domain) as read:
        assert Comparison(file, read, found[name].root).differences(SAMPLES[name].refused) == []


@pytest.mark.parametrize("name", SAMPLES)
async def test_our_own_comparison_finds_no_difference(name, loaded, connection):
    folder, found = loaded
    objects, root, tally = Objects(connection, f"/{FOLDER}/{name}", found[name].root), found[name].root, compare.Tally()
    async with opened(plane("source", folder), f"{name}.h5") as file:
        seen = [d async for d in compare.differences(file, objects, root, compare.Depth.FULL, tally=tally)]
    assert {(d.path, d.what) for d in seen} == {(path, "missing") for path in SAMPLES[name].refused}
    assert tally.objects == len(found[name].survey.outline.nodes) - len(SAMPLES[name].refused)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_does_not_arrive_as_it_is_is_said(name, loaded):
    _, found = loaded
    by = {"refused": set(), "mapped": set(), "failed": set()}
    for trouble in found[name].troubles:
        by[trouble.what].add(trouble.path)
    assert by == {"refused": SAMPLES[name].refused, "mapped": SAMPLES[name].mapped, "failed": set()}
    assert found[name].whole == (not SAMPLES[name].refused)
