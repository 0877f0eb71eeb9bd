"""A plane of two machines, each with an agent as its administrator starts it, and a server that sees neither."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.doubles.seaweedfs import free_ports
from tests.e2e.conftest import Machine
from tests.e2e.preloaded import Background

SIZE = 24 << 20
SLOW = ("--rate", "6MiB")
"""Where something is to happen meanwhile."""


def begin(machine: Machine, host: str, at: str, *more: str, token: str = "") -> Background:
    """An agent with the token that is its host's, or another."""
    folder, mine = machine.folder / host, machine.folder / f"{host}.token"
    folder.mkdir(exist_ok=True)
    mine.write_text(machine("token", "create", "signing", "--subject", token or f"at-{host}").out)
    words = ("agent", "--host", host, "--plane", f"thor={folder}", "--server", at, "--token-file", str(mine))
    return machine.start(*words, *more)


def agent(machine: Machine, host: str, at: str, *more: str) -> Background:
    started = begin(machine, host, at, *more)
    assert started.stdout is not None
    assert f"host {host} serves thor" in started.stdout.readline()
    return started


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*_of_*"))


def bytes_done(machine: Machine) -> int:
    listed = machine("transfers", "list", "--active", "--json").json["transfers"]
    return int(listed[0]["progress"].get("bytes_done", 0)) if listed else 0


def test_parts_on_two_hosts_survive_the_death_of_an_agent(machine: Machine) -> None:
    inside, outside = free_ports(2)
    (machine.folder / "plane").mkdir()
    keys = machine("token", "key", "signing").out  # as the configuration has them
    rules = ", ".join(f"{{who: [at-{host}], may: [serve], hosts: [{host}]}}" for host in ("h1", "h2"))
    machine.configure(
        f"{keys}rules: [{rules}]\n"
        "host_groups: {rack: {hosts: [h1, h2]}}\n"
        f"planes: {{thor: {{type: posix, host_group: rack}}, data: {{type: posix, path: {machine.folder}/plane}}}}\n"
        f"listen: {{internal: '127.0.0.1:{inside}', external: '127.0.0.1:{outside}'}}\n"
    )
    data = b"".join(b'%07d,"two\nlines"\n' % n for n in range(SIZE // 20))
    (machine.folder / "plane" / "x.csv").write_bytes(data)
    serving = machine.start("serve")
    assert serving.stdout is not None
    assert "listening" in serving.stdout.readline()
    at = f"127.0.0.1:{outside}"
    first, second = agent(machine, "h1", at, *SLOW), agent(machine, "h2", at)

    machine("spray", "data:x.csv", "a::x", "--plane", "thor", "--parts", "4", "--no-wait")
    end = time.monotonic() + 60
    while not bytes_done(machine) and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    first = agent(machine, "h1", at)
    machine("transfers", "watch", machine("transfers", "list", "--json").json["transfers"][0]["name"])
    assert files(machine.folder / "h1") == ["x._1_of_4", "x._3_of_4"]
    assert files(machine.folder / "h2") == ["x._2_of_4", "x._4_of_4"]
    done = machine("despray", "a::x", "data:back.csv")
    assert "evidence: compared" in done.out
    assert (machine.folder / "plane" / "back.csv").read_bytes() == data

    stranger = begin(machine, "h1", at, token="at-h2")
    _, said = stranger.communicate(timeout=60)
    assert stranger.returncode == 3
    assert "at-h2 may not be the agent of host h1" in said
    newer = agent(machine, "h1", at)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 6
    assert "has taken the place of this one" in said
    for each in (newer, second):
        each.send_signal(signal.SIGTERM)
        each.communicate(timeout=60)
        assert each.returncode == 0
    refused = machine("spray", "data:x.csv", "a::y", "--plane", "thor", "--json", code=8)
    assert "no agent of host h1 is connected" in refused.error["message"]
    serving.send_signal(signal.SIGTERM)
    serving.communicate(timeout=60)
