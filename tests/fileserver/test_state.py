"""The state directory: refused where it is not safe, held by one server, with a cookie for its user."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fileserver import state
from fileserver.errors import InvalidSpec, ServerBusy

MOUNTS = r"""
22 1 0:20 / /proc rw - proc proc rw
25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 25 0:40 / /home rw shared:2 - nfs4 server:/home rw
31 30 8:2 / /home/me/local rw - xfs /dev/sdb1 rw
32 25 0:41 / /mnt/with\040space rw - fuse.sshfs me@there: rw
33 25 0:42 / /scratch rw - ext4 /dev/sdc1 rw
34 25 0:43 / /scratch rw - lustre mds:/scratch rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/cropduster", "ext4"),
        ("/home/me/state", "nfs4"),
        ("/home/me/local/state", "xfs"),
        ("/home/melocal", "nfs4"),
        ("/mnt/with space/state", "fuse.sshfs"),
        ("/scratch/x", "lustre"),
        ("/homestead", "ext4"),
    ],
)
def test_the_deepest_and_latest_mount_says_the_file_system(path, kind):
    assert state.file_system(Path(path), MOUNTS) == kind


def test_without_a_table_nothing_is_known():
    assert state.file_system(Path("/var"), "") == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "gpfs", "cifs", "smb3", "9p", "fuse.sshfs"])
def test_network_file_systems_are_refused_with_the_option_to_use(kind, tmp_path):
    directory = tmp_path / "state"
    with pytest.raises(InvalidSpec, match=f"network file system \\({kind}\\).*--state") as caught:
        state.prepare(directory, f"25 1 8:1 / / rw - {kind} x rw")
    assert caught.value.violations
    assert not directory.exists()


def test_the_directory_is_made_for_its_owner_alone(tmp_path):
    directory = tmp_path / "deep" / "state"
    state.prepare(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_is_open_to_others_is_closed(tmp_path):
    tmp_path.chmod(0o755)
    state.prepare(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_made_is_told_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidSpec, match=r"can't be made.*--state"):
        state.prepare(tmp_path / "file" / "state")


def test_flag_goes_before_environment_before_configuration_before_default(tmp_path, monkeypatch):
    environ = {"CROPDUSTER_STATE": str(tmp_path / "environment")}
    configured = tmp_path / "configured"
    assert state.locate(tmp_path / "flag", environ, configured) == tmp_path / "flag"
    assert state.locate(None, environ, configured) == tmp_path / "environment"
    assert state.locate(None, {"CROPDUSTER_STATE": ""}, configured) == configured
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert state.locate(None, {}) == tmp_path / "data" / "cropduster"


def test_links_are_followed_so_that_one_directory_has_one_socket(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert state.socket_path(real, environ) == state.socket_path(link, environ)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket, however deep those of tests lie."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(os.path.realpath(made))


def test_the_fallback_runtime_directory_is_private(short, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(short))
    path = state.socket_path(short, {})
    assert path.parent == short / f"cropduster-{os.getuid()}"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["open", "link"])
def test_a_runtime_directory_that_a_stranger_may_have_made_is_refused(trap, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = tmp_path / f"cropduster-{os.getuid()}"
    if trap == "open":
        name.mkdir()
        name.chmod(0o777)
    else:
        (tmp_path / "theirs").mkdir(mode=0o700)
        name.symlink_to(tmp_path / "theirs")
    with pytest.raises(InvalidSpec, match=r"not a directory of yours alone.*XDG_RUNTIME_DIR"):
        state.socket_path(tmp_path, {})


def test_a_runtime_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidSpec, match="unset it"):
        state.socket_path(tmp_path, {"XDG_RUNTIME_DIR": str(tmp_path / "gone")})


def test_a_socket_path_is_never_longer_than_the_kernel_takes(tmp_path):
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    with pytest.raises(InvalidSpec, match=r"107 bytes.*shorter"):
        state.socket_path(tmp_path, {"XDG_RUNTIME_DIR": str(directory)})


def test_one_server_holds_a_state_directory(tmp_path):
    with state.hold(tmp_path, "1.2", "abc"):
        assert state.holder(tmp_path) == state.Holder(os.getpid(), "1.2", "abc")
        with pytest.raises(ServerBusy, match=f"process {os.getpid()}") as caught, state.hold(tmp_path, "1.2", "abc"):
            pass
        assert caught.value.facts["pid"] == str(os.getpid())
    assert state.holder(tmp_path) is None
    with state.hold(tmp_path, "1.2", "abc"):
        pass


def test_the_lock_outlives_no_process_and_its_old_line_no_new_holder(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from fileserver import state\n"
        "with state.hold(Path(sys.argv[1]), 'a-very-long-version-text', 'd' * 40):\n"
        "    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    assert state.holder(tmp_path).version == "a-very-long-version-text"
    with state.hold(tmp_path, "1", "e"):
        assert (tmp_path / "lock").read_bytes().count(b"\n") == 1
        assert state.holder(tmp_path) == state.Holder(os.getpid(), "1", "e")


def test_a_lock_file_with_other_text_names_nobody(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 1}\n')
    assert state.holder(tmp_path) is None
    (tmp_path / "lock").write_text("[]")
    assert state.holder(tmp_path) is None


def test_the_cookie_is_secret_and_stays(tmp_path):
    cookie = state.cookie(tmp_path)
    assert len(bytes.fromhex(cookie)) == 32
    assert stat.S_IMODE((tmp_path / "cookie").stat().st_mode) == 0o600
    assert state.cookie(tmp_path) == cookie


@pytest.mark.parametrize("spoil", ["text", "mode", "bytes"])
def test_a_cookie_that_others_may_know_is_replaced(spoil, tmp_path):
    old = state.cookie(tmp_path)
    path = tmp_path / "cookie"
    if spoil == "mode":
        path.chmod(0o644)
    else:
        path.write_bytes(b"\xff\xfe" if spoil == "bytes" else b"guessed")
    assert state.cookie(tmp_path) != old
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) == 64


@pytest.mark.parametrize("name", ["lock", "cookie", "cookie.new", "data"])
def test_something_else_in_place_of_what_is_ours_is_told_with_the_way_out(name, tmp_path):
    place = tmp_path / name
    place.touch() if name == "data" else place.mkdir()

    def begin():
        with state.hold(tmp_path, "1", "a"):
            state.make_folder(tmp_path / "data")
            state.cookie(tmp_path)

    with pytest.raises(InvalidSpec, match=f"{tmp_path}/.* cannot be used .*--state") as caught:
        begin()
    assert str(tmp_path / name.removesuffix(".new")) in caught.value.message


def test_a_folder_that_is_there_is_taken(tmp_path):
    state.make_folder(tmp_path / "data")
    state.make_folder(tmp_path / "data")
    assert (tmp_path / "data").is_dir()


def test_a_state_directory_whose_name_is_no_text_is_refused(tmp_path):
    with pytest.raises(InvalidSpec, match=r"odd\\xff is not valid UTF-8.*--state") as caught:
        state.prepare(tmp_path / os.fsdecode(b"odd\xff"), "")
    caught.value.message.encode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trap", ["file", "missing"])
def test_a_runtime_directory_that_cannot_be_made_is_refused(trap, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path if trap == "file" else tmp_path / "gone"))
    if trap == "file":
        (tmp_path / f"cropduster-{os.getuid()}").touch()
    with pytest.raises(InvalidSpec, match="XDG_RUNTIME_DIR"):
        state.socket_path(tmp_path, {})
