"""Client and server share no code, and must find the same server by the same rules."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from client import embedded
from client.errors import ServerError
from fileserver import config, state
from fileserver.errors import InvalidSpec

NAMES = st.from_regex("[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
SPACES, QUOTES = st.sampled_from(["", " ", "  "]), st.sampled_from(["", '"', "'"])
REFERENCES = st.builds("access_key: {{env:{}{}{}}}\n".format, SPACES, QUOTES, NAMES)
TEXTS = st.lists(REFERENCES | st.text(max_size=30), max_size=6).map("".join)
VALUES = st.dictionaries(NAMES, st.text(st.characters(exclude_characters="\0"), max_size=10), max_size=4)


@given(text=TEXTS, values=VALUES)
def test_digests_agree(text, values):
    data = text.encode("utf-8", "surrogatepass")
    values = {k: v.encode("utf-8", "replace").decode() for k, v in values.items()}
    read = config.Config(planes={}, text=data, state_directory=Path("/x"))
    assert config.digest(read, values) == embedded.digest(data, values)


def test_the_digest_depends_on_what_it_should():
    assert embedded.digest(b"a: {env: X}", {"X": "1"}) != embedded.digest(b"a: {env: X}", {"X": "2"})


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket, however deep those of tests lie."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(os.path.realpath(made))


@pytest.mark.parametrize("runtime", ["given", "fallback"])
def test_socket_paths_agree(runtime, short, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(short))
    (short / "run").mkdir(mode=0o700)
    environ = {"XDG_RUNTIME_DIR": str(short / "run")} if runtime == "given" else {}
    link = short / "link"
    link.symlink_to(short)
    for directory in (short / "state", link / "state"):
        found = embedded.socket_path(directory, environ)
        assert found == state.socket_path(directory, environ)
        assert found.parent.is_dir()


@pytest.mark.parametrize("trap", ["missing", "relative", "long", "open"])
def test_unsafe_runtime_directories_are_refused_by_both(trap, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long = tmp_path / ("x" * 100)
    long.mkdir()
    (tmp_path / f"cropduster-{os.getuid()}").mkdir()
    (tmp_path / f"cropduster-{os.getuid()}").chmod(0o755)
    named = {"missing": str(tmp_path / "gone"), "relative": "run", "long": str(long), "open": ""}[trap]
    with pytest.raises(ServerError):
        embedded.socket_path(tmp_path, {"XDG_RUNTIME_DIR": named})
    with pytest.raises(InvalidSpec):
        state.socket_path(tmp_path, {"XDG_RUNTIME_DIR": named})


def test_default_directories_agree(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert embedded.state_directory(None) == state.locate(None, {})
    given_ = tmp_path / "config" / "cropduster" / "config.yaml"
    given_.parent.mkdir(parents=True)
    given_.write_text("")
    assert embedded.find_config(None) == config.find(None, {}) == given_


def test_the_holder_of_a_lock_is_read_by_the_client(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    server = embedded.EmbeddedServer(tmp_path, None, "1", {"XDG_RUNTIME_DIR": str(tmp_path / "run")})
    digest = config.digest(config.Config(planes={}, state_directory=tmp_path), {})
    with state.hold(tmp_path, "1", digest):
        holder = server.holder()
        assert holder == embedded.Holder(os.getpid(), embedded.Identity("1", embedded.digest(b"", {})))
        assert server._held()
    assert server.holder() is None
    assert not server._held()
