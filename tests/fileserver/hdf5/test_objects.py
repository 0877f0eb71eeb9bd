"""Objects of a domain on a real HSDS, made in batches and read as users do."""

import h5pyd
import numpy as np
import pytest
from h5json.objid import createObjId

from fileserver.hdf5.hsds import domains, objects
from fileserver.hdf5.hsds.objects import Objects, Slab
from planes.errors import AlreadyExists, NotFound, Refused
from planes.retrying import Patience


async def no_time(_):
    """Who is asked to wait does not."""


I4 = {"class": "H5T_INTEGER", "base": "H5T_STD_I32LE"}


def dataset(root, *shape):
    made = createObjId("datasets", root_id=root)
    return {
        "id": made,
        "type": I4,
        "shape": list(shape),
        "creationProperties": {"layout": {"class": "H5D_CHUNKED", "dims": [min(10, n) for n in shape]}},
    }


@pytest.fixture
async def opened(connection, folder):
    """An empty domain, and what makes things in it."""
    path, root = f"{folder}/d", createObjId("groups")
    await objects.make_domain(connection, path, root)
    return path, root, Objects(connection, path, root)


async def test_batches_links_attributes_and_values_are_what_h5pyd_reads(server, connection, opened):
    path, root, inside = opened
    groups = [{"id": createObjId("groups", root_id=root)} for _ in range(300)]
    one, two = dataset(root, 40, 25), dataset(root, 3, 3)
    await inside.make("groups", groups)
    await inside.make("datasets", [one, two])
    links = {f"g{n}": {"id": group["id"]} for n, group in enumerate(groups)}
    await inside.link(
        {root: links, groups[7]["id"]: {"ä/ö".replace("/", "-"): {"id": one["id"]}, "s": {"h5path": "/g0"}}}
    )
    text = {
        "type": {"class": "H5T_STRING", "charSet": "H5T_CSET_UTF8", "length": "H5T_VARIABLE"},
        "shape": [],
        "value": "ü",
    }
    await inside.describe({root: {"n": {"type": I4, "shape": [2], "value": [1, 2]}}, one["id"]: {"unit": text}})
    whole = np.arange(1000, dtype="<i4").reshape(40, 25)
    await inside.write(one["id"], whole[:, :10].tobytes(), [Slab(0, 40), Slab(0, 10)])
    await inside.write(one["id"], whole[:, 10:].tobytes(), [Slab(0, 40), Slab(10, 25)])
    assert await domains.flush(connection, path) == 1

    assert await inside.read(one["id"], [Slab(3, 30, 9), Slab(5, 7)]) == whole[3:30:9, 5:7].tobytes()
    assert await inside.read(one["id"]) == whole.tobytes()
    with h5pyd.File(path, endpoint=server.endpoint, username=server.user, password=server.password) as file:
        assert len(file) == 300
        assert list(file.attrs["n"]) == [1, 2]
        found = file["g7/ä-ö"]
        assert found.attrs["unit"] == "ü"
        assert np.array_equal(found[...], whole)
    await domains.rescan(connection, path)
    told = await domains.stat(connection, path, totals=True)
    assert (told.groups, told.datasets, told.chunks) == (301, 2, 12)
    assert told.allocated == 12 * 400


async def test_what_is_made_twice_is_there_once(connect, connection, opened):
    path, root, inside = opened
    items = [{"id": createObjId("groups", root_id=root)} for _ in range(3)]
    await inside.make("groups", items[:2])
    await inside.make("groups", items[:1])  # as after an answer that was lost
    await Objects(connect(patience=Patience(sleep=no_time)), path, root).make("groups", items)
    for item in items:
        assert (await inside.get(item["id"])).text("root") == root
    for _ in range(2):
        await inside.link({root: {"a": {"id": items[0]["id"]}}})
        await inside.describe({root: {"n": {"type": I4, "shape": [], "value": 1}}})
    with pytest.raises(AlreadyExists):
        await inside.link({root: {"a": {"id": items[1]["id"]}}})
    await objects.make_domain(connection, path, root)
    with pytest.raises(AlreadyExists):
        await objects.make_domain(connection, path, createObjId("groups"))
    with pytest.raises(AlreadyExists, match="half made"):
        await objects.make_domain(connection, f"{path}2", root)


async def test_what_is_there_is_left_out_and_not_taken_for_lost(opened, connection):
    """Seen: the server fails at a batch of which something is there, as it does when a data node has died."""
    _, root, inside = opened
    items = [dataset(root, 5, 5) for _ in range(3)]
    await inside.make("datasets", items[:2], fresh=True)
    await inside.make("datasets", items)
    assert connection.traffic.lost == 0
    for item in items:
        assert (await inside.get(item["id"])).text("id") == item["id"]


async def test_what_the_server_does_not_take_is_told_in_its_own_words(opened):
    _, root, inside = opened
    with pytest.raises(Refused, match="400") as refused:
        await inside.make("datasets", [dataset(root, 5, 5) | {"type": {"class": "H5T_NONE"}}])
    assert refused.value.facts["status"] == "400"
    with pytest.raises(NotFound):
        await inside.get(createObjId("datasets", root_id=root))


async def test_large_values_travel_in_slices(opened):
    _, root, inside = opened
    item = dataset(root, 1024, 1024)
    item["creationProperties"]["layout"]["dims"] = [1024, 1024]
    await inside.make("datasets", [item])
    data = np.random.default_rng(1).integers(0, 9, (1024, 1024), "i4")
    await inside.write(item["id"], data)
    assert await inside.read(item["id"]) == data.tobytes()
