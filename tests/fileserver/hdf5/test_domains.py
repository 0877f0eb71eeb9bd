"""Folders, domains and who may do what, on a real HSDS."""

import pytest

from fileserver.errors import CallerDenied, InvalidSpec
from fileserver.hdf5.hsds import acls, domains
from fileserver.hdf5.hsds.acls import Permissions
from planes.errors import AlreadyExists, NotFound

ALL = Permissions(create=True, read=True, update=True, delete=True, read_acl=True, update_acl=True)


async def make(connection, path):
    answer = await connection.call("PUT", "/", domain=path)
    return answer.json()["root"]


async def names(connection, path, **more):
    return [each.path.rpartition("/")[2] async for each in domains.listing(connection, path, **more)]


async def test_folders_are_made_with_those_above_them_and_listed(connection, folder):
    odd = "a b%20ü+&=#?"
    made = await domains.make_folder(connection, f"{folder}/x/y/{odd}", parents=True)
    assert made.is_folder
    assert made.owner == "admin"
    await make(connection, f"{folder}/x/one.h5")
    assert await names(connection, folder) == ["x"]
    assert sorted(await names(connection, f"{folder}/x")) == ["one.h5", "y"]
    assert await names(connection, f"{folder}/x", pattern="*.h5") == ["one.h5"]
    assert await names(connection, f"{folder}/x/y") == [odd]
    assert "home" in await names(connection, "/")
    with pytest.raises(AlreadyExists, match="a folder"):
        await domains.make_folder(connection, f"{folder}/x")
    await domains.make_folder(connection, f"{folder}/x", exist_ok=True)
    with pytest.raises(AlreadyExists, match="a domain"):
        await domains.make_folder(connection, f"{folder}/x/one.h5", exist_ok=True)
    with pytest.raises(NotFound, match="--parents"):
        await domains.make_folder(connection, f"{folder}/none/x")


async def test_a_listing_goes_on_where_a_page_ended(connection, folder, monkeypatch):
    monkeypatch.setattr(domains, "_PAGE", 2)
    wanted = [f"n{n}" for n in range(5)]
    for name in wanted:
        await domains.make_folder(connection, f"{folder}/{name}")
    assert sorted(await names(connection, folder)) == wanted


async def test_a_domain_moves_with_its_data_its_owner_and_its_entries(connect, connection, folder):
    await acls.write(connection, folder, "alice", ALL)
    alice = connect("alice")
    root = await make(alice, f"{folder}/mine")
    await acls.write(alice, f"{folder}/mine", "bob", Permissions(read=True))
    await domains.move(connection, f"{folder}/mine", f"{folder}/moved")
    moved = await domains.stat(connect("bob"), f"{folder}/moved")
    assert (moved.root, moved.owner) == (root, "alice")
    assert await domains.find(connection, f"{folder}/mine") is None
    await connection.call("GET", f"/groups/{root}", domain=f"{folder}/moved")


async def test_a_folder_moves_with_all_below_it_also_when_it_was_begun_before(connection, folder):
    await domains.make_folder(connection, f"{folder}/a/b/c", parents=True)
    roots = {name: await make(connection, f"{folder}/a/{name}") for name in ("1", "b/2", "b/c/3")}
    await domains.make_folder(connection, f"{folder}/z")
    await domains.link(connection, f"{folder}/z/1", f"{folder}/a/1")  # where it was interrupted
    await domains.move(connection, f"{folder}/a", f"{folder}/z")
    assert await names(connection, folder) == ["z"]
    assert {name: (await domains.stat(connection, f"{folder}/z/{name}")).root for name in roots} == roots
    for target in (f"{folder}/z/deeper", "/"):
        with pytest.raises(InvalidSpec, match="not moved into itself"):
            await domains.move(connection, f"{folder}/z", target)


async def test_nothing_is_moved_over_something(connection, folder):
    one, two = await make(connection, f"{folder}/1"), await make(connection, f"{folder}/2")
    with pytest.raises(AlreadyExists):
        await domains.move(connection, f"{folder}/1", f"{folder}/2")
    assert [(await domains.stat(connection, f"{folder}/{n}")).root for n in (1, 2)] == [one, two]
    with pytest.raises(NotFound):
        await domains.move(connection, f"{folder}/3", f"{folder}/4")


async def test_what_is_removed_is_gone_and_a_full_folder_stays(connection, folder):
    await domains.make_folder(connection, f"{folder}/a/b", parents=True)
    await make(connection, f"{folder}/a/b/1")
    with pytest.raises(AlreadyExists, match="not empty"):
        await domains.delete(connection, f"{folder}/a")
    assert await domains.delete(connection, f"{folder}/a", recursive=True) == 3
    assert await names(connection, folder) == []
    with pytest.raises(NotFound, match=r"hdf5://.*/a on HSDS 'main': not there"):
        await domains.delete(connection, f"{folder}/a")
    with pytest.raises(InvalidSpec):
        await domains.delete(connection, "/", recursive=True)


async def test_entries_are_set_read_and_obeyed(connect, connection, folder):
    bob = connect("bob")
    await make(connection, f"{folder}/d")
    with pytest.raises(CallerDenied, match=r"hdf5://.*/d on HSDS 'main': bob may not do that") as denied:
        await domains.stat(bob, f"{folder}/d")
    assert denied.value.facts["user"] == "bob"
    await acls.write(connection, f"{folder}/d", "bob", Permissions.of("r"))
    await domains.stat(bob, f"{folder}/d")
    assert (await acls.read(connection, f"{folder}/d"))["bob"].letters == "-r----"
    await acls.write(connection, f"{folder}/d", "bob", Permissions.of("-"))
    with pytest.raises(CallerDenied):
        await domains.stat(bob, f"{folder}/d")
    with pytest.raises(CallerDenied):
        await domains.make_folder(bob, "/top")
    for user in ("", ".."):
        with pytest.raises(InvalidSpec, match="name a user"):
            await acls.write(connection, f"{folder}/d", user, ALL)
    with pytest.raises(InvalidSpec, match="letters that mean nothing"):
        Permissions.of("rwx")


async def test_a_folder_inherits_what_the_server_gives_it(connection, folder):
    await acls.write(connection, folder, "bob", Permissions.of("r"))
    await domains.make_folder(connection, f"{folder}/below")
    found = await acls.read(connection, f"{folder}/below")
    assert (found["bob"].letters, found["default"].letters, found["admin"]) == ("-r----", "-r----", ALL)


async def test_copied_entries_are_those_of_the_other_and_no_more(connection, folder):
    await make(connection, f"{folder}/d")
    await acls.write(connection, f"{folder}/d", "alice", ALL)
    await acls.copy(connection, f"{folder}/d", {"admin": ALL, "bob": Permissions.of("ru")})
    found = await acls.read(connection, f"{folder}/d")
    assert {user: entry.letters for user, entry in found.items()} == {
        "admin": "crudep",
        "bob": "-ru---",
        "alice": "------",
    }
