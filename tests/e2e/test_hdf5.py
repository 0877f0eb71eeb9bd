"""HSDS through the installed command line."""

import re

import pytest

from tests.doubles import hsds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with hsds.running(tmp_path_factory.mktemp("hsds")) as started:
        yield started


def configured(machine, server):
    """A machine whose configuration names the server for the administrator, and for alice."""
    machine.environment |= {"HS_PASSWORD": server.password, "ALICE": server.passwords["alice"], "WRONG": "hunter2"}
    common = f"endpoint: '{server.endpoint}', bucket: {server.bucket}"
    machine.configure(
        f"planes: {{data: {{type: posix, path: {machine.folder}/data}}}}\n"
        "hsds:\n"
        f"  main: {{{common}, username: admin, password: {{env: HS_PASSWORD}}}}\n"
        f"  own: {{{common}, username: alice, password: {{env: ALICE}}}}\n"
        f"  stranger: {{{common}, username: admin, password: {{env: WRONG}}}}\n"
        "  gone: {endpoint: 'http+unix://%2Fnowhere%2Fsn.sock'}\n"
    )


def test_folders_and_domains_are_made_listed_moved_shared_and_removed(machine, server):
    configured(machine, server)
    top = "hdf5://home/admin/work"
    assert machine("hdf5", "mkdir", "-p", f"{top}/in/deep").out == f"{top}/in/deep is there\n"
    assert server.call("PUT", "/", domain="/home/admin/work/in/a b")[0] == 201

    machine("hdf5", "mv", f"{top}/in", f"{top}/out")
    listed = machine("hdf5", "ls", f"{top}/out", "--json").json["domains"]
    assert sorted((each["kind"], each["domain"]) for each in listed) == [
        ("domain", f"{top}/out/a b"),
        ("folder", f"{top}/out/deep"),
    ]
    denied = machine("hdf5", "info", f"{top}/out/a b", "--target", "own", "--json", code=3).error
    assert denied["metadata"]["hsds"] == "own"
    assert "alice may not do that" in denied["message"]
    assert "-r----  alice" in machine("hdf5", "acl", f"{top}/out/a b", "alice", "r").out
    shown = machine("hdf5", "info", f"{top}/out/a b", "--target", "own").out
    assert re.search(r"^root group +g-", shown, re.MULTILINE)
    assert machine("hdf5", "rm", f"{top}/out", "--json", code=5).error["reason"] == "TARGET_EXISTS"
    assert machine("hdf5", "rm", "-r", top, "--json").json["deleted"] == 4


def test_what_is_wrong_is_told_with_its_exit_code(machine, server):
    configured(machine, server)
    wrong = machine("hdf5", "mv", "hdf5:///home/x", "/home/y", "--target", "mian", "--json", code=2).error
    assert set(wrong["violations"]) == {"domain", "new_domain", "target"}
    assert "write hdf5://home/x" in wrong["violations"]["domain"]
    assert "the configuration has main, own, stranger, gone" in wrong["violations"]["target"]
    assert "mean" in machine("hdf5", "acl", "hdf5://home", "bob", "rwx", code=2).err
    refused = machine("hdf5", "ls", "hdf5://home/admin", "--target", "stranger", code=3).err
    assert "HSDS 'stranger' does not know admin or takes another password" in refused
    gone = machine("hdf5", "ls", "--target", "gone", code=8).err
    assert "HSDS 'gone' at http+unix://%2Fnowhere%2Fsn.sock does not answer (No such file or directory)" in gone
    assert "hunter2" not in refused + gone + machine.log()
