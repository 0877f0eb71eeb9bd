"""The inventory as a table in a real HSDS, read as users read it."""

import h5pyd
import pytest

from fileserver.hdf5.hsds import acls, domains
from fileserver.hdf5.hsds.acls import Permissions
from fileserver.landing.mirror import mirror
from fileserver.landing.watch import Arrival, State
from planes.errors import AlreadyExists

ERROR = {"reason": "FORMAT_MISMATCH", "message": "é is no HDF5 file", "facts": {}}


def arrived(key, state, **more):
    return Arrival("w", key, "v1", 5, state, 1.0, 2.0, 1.0, **more)


def paged(rows, size=1):
    async def pages():
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    return pages


async def test_the_inventory_is_read_by_h5pyd_and_replaced_with_its_permissions(connection, server, folder):
    path = f"{folder}/log/inventory"
    rows = [
        arrived("k" * 1020 + "é\"'", State.DONE, started=100.7, ended=107.0, transfer="t1", tries=1),
        arrived("b", State.RUNNING, started=9.0),
        arrived("c", State.FAILED, error=ERROR, tries=3),
    ]
    assert await mirror(connection, path, paged(rows[:1])) == 1
    await acls.write(connection, path, "bob", Permissions(read=True))
    assert await mirror(connection, path, paged(rows)) == 3

    access = {"endpoint": server.endpoint, "username": "bob", "password": server.passwords["bob"]}
    with h5pyd.File(path, "r", bucket=server.bucket, **access) as file:
        table = file["inventory"][:]
    assert [name.decode() for name in table["filename"]] == [each.key for each in rows]
    assert table["loadstart"].tolist() == [100, 9, 0]
    assert table["loaddone"].tolist() == [107, 0, 0]
    assert table["loadstatus"].tolist() == [0, -1, 1]
    assert table["loadpodname"].tolist() == [b"transfers/t1", b"", b""]
    assert table["error"][2].decode() == ERROR["message"]
    names = [each.path async for each in domains.listing(connection, f"{folder}/log")]
    assert names == [path]


async def test_an_empty_inventory_is_an_empty_table_and_a_folder_is_left_alone(connection, server, folder):
    assert await mirror(connection, f"{folder}/empty", paged([])) == 0
    access = {"endpoint": server.endpoint, "username": "admin", "password": server.password}
    with h5pyd.File(f"{folder}/empty", "r", bucket=server.bucket, **access) as file:
        assert file["inventory"].shape == (0,)
    await domains.make_folder(connection, f"{folder}/sub")
    with pytest.raises(AlreadyExists, match="a folder"):
        await mirror(connection, f"{folder}/sub", paged([]))
    names = {each.path async for each in domains.listing(connection, folder)}
    assert names == {f"{folder}/empty", f"{folder}/sub"}
