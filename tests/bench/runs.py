"""How benches measure: a job of ours and its peer in turn, five times, ratios run by run. Judges nothing.

Times are wall seconds; CPU is user + system of all processes of a side, servers of ours included; memory is the
largest resident set of a process of ours in MiB.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

RUNS = 5
MIB = 2**20
CLI = Path(sys.executable).with_name("cropduster")


@dataclass
class Spent:
    """What one run took."""

    wall: float
    cpu: float
    memory: float = 0.0
    transfer: float = 0.0
    """Of the wall seconds, those of the transfer itself, from its acceptance to its end."""


def process_cpu(pid: int) -> float:
    """CPU seconds that a living process has used, with the children it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> float:
    """The largest resident set of a living process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError(pid)


def command(*arguments: str | Path, environment: dict[str, str] | None = None) -> Spent:
    """Run a peer's command."""
    before, start = os.times(), time.monotonic()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    wall, after = time.monotonic() - start, os.times()
    return Spent(wall, sum(after[2:4]) - sum(before[2:4]))


@dataclass
class Ours:
    """A server of ours and its command line."""

    state: Path
    address: str
    process: subprocess.Popen[str]
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str) -> Spent:
        """Run a command to the end of its transfer; counts the command line and the server."""
        return transfer(self.process.pid, *arguments, "--server", self.address, environment=self.environment)


def transfer(server: int, *arguments: str | Path, environment: dict[str, str] | None = None) -> Spent:
    """Run a command line of ours to the end of its transfer; counts it and the process of its server."""
    cpu = process_cpu(server)
    before, start = os.times(), time.monotonic()
    done = subprocess.run(
        [CLI, *arguments, "--json"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    wall, after = time.monotonic() - start, os.times()
    cpu = process_cpu(server) - cpu + sum(after[2:4]) - sum(before[2:4])
    seconds = json.loads(done.stdout.splitlines()[-1])["outcome"]["seconds"]
    return Spent(wall, cpu, peak_memory(server), seconds)


@contextmanager
def serving(folder: Path, config: str, environment: dict[str, str] | None = None) -> Iterator[Ours]:
    """A running server with a configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config)
    environment = environment or {}
    process = subprocess.Popen(
        [CLI, "serve", "--state", folder / "state", "--config", folder / "config.yaml", "--listen", "127.0.0.1:0"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=(folder / "serve.log").open("w"),
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "listening" in line, (folder / "serve.log").read_text()
        yield Ours(folder / "state", line.split()[-1], process, environment)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def in_turn(
    title: str,
    ours: Callable[[], Spent],
    peers: dict[str, Callable[[], Spent]],
    *,
    amount: int,
    goals: dict[str, str],
    reset: Callable[[], None] = lambda: None,
    runs: int = RUNS,
) -> tuple[list[Spent], dict[str, list[Spent]]]:
    """Run both sides in turn after one warm-up each, print all ratios, and give what every run took, ours first.

    Rates are peer's wall / our wall (above 1: we are faster), of the transfer (acceptance to end, as the server tells
    it) and of the whole command (Python's start included); CPU is ours / the peer's.
    """
    print(f"\n## {title} ({amount / MIB:.0f} MiB)", flush=True)
    mine: list[Spent] = []
    theirs: dict[str, list[Spent]] = {name: [] for name in peers}
    for run in range(runs + 1):
        for name, side in {"ours": ours, **peers}.items():
            reset()
            os.sync()  # what the side before left to the disk is not this one's
            spent = side()
            if run:
                (mine if name == "ours" else theirs[name]).append(spent)
    print(
        f"   ours: {amount / MIB / statistics.median(s.transfer for s in mine):.0f} MiB/s, "
        f"{statistics.median(s.cpu for s in mine) / amount * 2**30:.2f} CPU-s/GiB, "
        f"peak {max(s.memory for s in mine):.0f} MiB"
    )
    for name, spent in theirs.items():
        goal = f"   goal: {goals[name]}" if name in goals else ""
        print(
            f"   {name}: {amount / MIB / statistics.median(s.wall for s in spent):.0f} MiB/s, "
            f"{statistics.median(s.cpu for s in spent) / amount * 2**30:.2f} CPU-s/GiB{goal}"
        )
        show("rate of our transfer to it", [b.wall / a.transfer for a, b in zip(mine, spent, strict=True)])
        show("rate of our whole command ", [b.wall / a.wall for a, b in zip(mine, spent, strict=True)])
        if all(b.cpu for b in spent):
            show("CPU of all ours to it     ", [a.cpu / b.cpu for a, b in zip(mine, spent, strict=True)])
    return mine, theirs


def show(what: str, values: Sequence[float]) -> None:
    """All values, then the median."""
    print(f"     {what}: {' '.join(f'{v:.2f}' for v in values)}  median {statistics.median(values):.2f}", flush=True)


def random_file(path: Path, size: int) -> Path:
    """A file of random bytes, made once."""
    if not path.exists() or path.stat().st_size != size:
        with path.open("wb") as file:
            for at in range(0, size, 64 * MIB):
                file.write(os.urandom(min(64 * MIB, size - at)))
    return path
