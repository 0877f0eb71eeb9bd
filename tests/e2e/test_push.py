"""Files of one machine, a server on another that does not see them: the command carries, whatever ends it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.seaweedfs import free_ports
from tests.e2e.conftest import Machine

RECORD = 64
ROWS = 160_000
SLOW = ("--rate", "22:00-4:00=4MiB,4MiB")
"""Where something is to happen meanwhile."""


@dataclass
class Remote:
    """A server on a machine of its own, at its external address."""

    machine: Machine
    port: int

    @property
    def at(self) -> str:
        return f"127.0.0.1:{self.port}"

    def files(self) -> list[str]:
        return self.machine.files(self.machine.folder / "plane")


def start(folder: Path) -> Iterator[Remote]:
    (folder / "plane").mkdir(parents=True)
    inside, outside = free_ports(2)
    there = Machine(folder)
    there.configure(
        f"planes: {{data: {{type: posix, path: {folder}/plane}}}}\n"
        f"listen: {{internal: '127.0.0.1:{inside}', external: '127.0.0.1:{outside}'}}\n"
    )
    serving = there.start("serve")
    assert serving.stdout is not None
    assert "listening" in serving.stdout.readline()
    yield Remote(there, outside)
    serving.send_signal(signal.SIGTERM)
    serving.communicate(timeout=60)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    yield from start(tmp_path_factory.mktemp("there"))


def write(machine: Machine, name: str = "x.bin") -> bytes:
    data = os.urandom(RECORD) * 3 + os.urandom(RECORD * (ROWS - 3))
    (machine.folder / name).write_bytes(data)
    return data


def test_spray_and_despray_carry_what_the_server_does_not_see(machine: Machine, remote: Remote) -> None:
    text = b"".join(b'%d,"two\nlines"\n' % n for n in range(5000))
    (machine.folder / "x.csv").write_bytes(text)
    done = machine("spray", "x.csv", "e::x", "--parts", "3", "--server", remote.at)
    assert "3 parts streamed" in done.out
    assert "evidence: compared" in done.out
    parts = [(remote.machine.folder / "plane" / name).read_bytes() for name in remote.files() if "_of_3" in name]
    assert b"".join(parts) == text
    assert all(part.endswith(b'lines"\n') for part in parts)
    (machine.folder / "back.csv").write_bytes(b"old")
    machine("fetch", "e::x", "back.csv", "--overwrite", "--server", remote.at)
    assert (machine.folder / "back.csv").read_bytes() == text
    plan = machine("push", "x.csv", "e::y", "--parts", "2", "--dry-run", "--server", remote.at)
    assert str(machine.folder / "x.csv") not in plan.err
    assert "2 parts" in plan.out
    (machine.folder / "y.csv").write_bytes(text[:100])
    machine("push", "--no-register", "x.csv", "y.csv", "data:in/", "--server", remote.at)
    assert [(remote.machine.folder / f"plane/in/{name}.csv").read_bytes() for name in "xy"] == [text, text[:100]]
    assert machine("files", "list", "--server", remote.at, "--json").json["files"][0]["name"] == "e::x"
    assert machine.files() == []  # no server was started here, and nothing is left that would be sent again
    assert not list((machine.state / "agents").glob("*.json"))


def wait_for_bytes(machine: Machine, remote: Remote, seconds: float = 30) -> str:
    """The transfer that is under way, once some of it is stored."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        listed = machine("transfers", "list", "--active", "--server", remote.at, "--json").json["transfers"]
        if listed and listed[0]["progress"]["bytes_done"]:
            return str(listed[0]["name"])
        time.sleep(0.1)
    raise AssertionError(machine.log())


def test_a_command_that_was_broken_off_goes_on_when_it_is_given_again(machine: Machine, remote: Remote) -> None:
    data = write(machine)
    words = ("push", "x.bin", "k::x", "--format", f"fixed:{RECORD}", "--parts", "8", "--server", remote.at)
    names = []
    for how in (signal.SIGINT, signal.SIGKILL):
        command = machine.start(*words, *SLOW)
        names.append(wait_for_bytes(machine, remote))
        command.send_signal(how)
        out, err = command.communicate(timeout=60)
        if how is signal.SIGINT:
            assert command.returncode == 130, out + err
            assert "give the same command again" in err
        waiting = machine("transfers", "show", names[0], "--server", remote.at, "--json").json
        assert waiting["state"] == "RUNNING"
    done = machine(*words)  # however fast: it is the same
    assert f"going on with {names[0]}" in done.err
    assert names[0] == names[1]
    parts = [(remote.machine.folder / "plane" / name).read_bytes() for name in remote.files() if "_of_8" in name]
    assert b"".join(parts) == data


@pytest.mark.soak  # test_agents shows the same in one process
def test_what_was_broken_off_and_is_cancelled_leaves_nothing(machine: Machine, remote: Remote) -> None:
    before = remote.files()
    write(machine)
    words = ("push", "x.bin", "c::x", "--format", f"fixed:{RECORD}", "--parts", "8", "--server", remote.at)
    command = machine.start(*words, *SLOW)
    transfer = wait_for_bytes(machine, remote)
    command.send_signal(signal.SIGKILL)
    command.communicate(timeout=60)
    machine("transfers", "cancel", transfer, "--server", remote.at)
    assert remote.files() == before
