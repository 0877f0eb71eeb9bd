"""hsload and `cropduster ingest` at one HSDS, and what each of them costs: wall, CPU, memory, requests.

Both are measured up to the answer of `flush=1`: hsload is followed by one for the last domain that it made (for each
of many it would take seconds more), ours has asked for it before it says that it is done.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.runs import CLI, Ours, Spent, peak_memory, process_cpu, show
from tests.doubles import hsds, seaweedfs

HSLOAD = Path(sys.executable).with_name("hsload")


@dataclass
class Loaded(Spent):
    """What one load took, beside what every run takes."""

    server_cpu: float = 0.0
    """Of all nodes of HSDS."""
    requests: int = 0
    """That the service node was asked, flush included."""
    refused: int = 0
    """503 of all nodes."""
    through_us: int = 0
    """Bytes of payload that went through our processes, as ours says."""


@dataclass
class Counted:
    """What the nodes of a server have used and were asked so far."""

    cpu: float
    requests: int
    refused: int


class Target:
    """A running HSDS, which every load finds empty: each gets a folder of its own.

    Args:
        server: to load into.
    """

    def __init__(self, server: hsds.Server) -> None:
        self.server = server
        self.folder = ""
        self._folders = 0

    def fresh(self) -> None:
        """Another folder; what was loaded before is put aside behind the server's back, where it stores in files.

        Not removed: for minutes, ext4 makes files slowly in a file system of which many were just removed.
        """
        if self.server.storage is not None:
            aside = self.server.folder / "aside" / str(self._folders)
            aside.mkdir(parents=True)
            for domain in (self.server.storage / "db").glob("*"):
                domain.rename(aside / domain.name)
        self._folders += 1
        self.folder = f"/home/admin/r{self._folders}"
        status, _ = self.server.call("PUT", "/", {"folder": 1}, domain=self.folder)
        assert status == 201, status

    @contextmanager
    def counting(self, spent: Loaded) -> Iterator[None]:
        """Add to `spent` what the server does meanwhile."""
        before = self._count()
        yield
        after = self._count()
        spent.server_cpu = after.cpu - before.cpu
        spent.requests = after.requests - before.requests
        spent.refused = after.refused - before.refused

    def flush(self, domain: str) -> None:
        """Ask until the server says that all of a domain is stored."""
        while (status := self.server.call("PUT", "/", seconds=300, domain=domain, flush="1")[0]) != 204:
            assert status == 503, status
            time.sleep(0.2)

    def _count(self) -> Counted:
        logs = {name: (self.server.folder / f"{name}.output").read_text(errors="replace") for name in self.server.names}
        # Beside what we count, each node tells of its own looking round, in other words.
        refused = sum(len(re.findall(r"return(?:ing)? 503", log)) for log in logs.values())
        return Counted(sum(map(process_cpu, self.server.pids.values())), logs["sn"].count("REQ> "), refused)


def hsload(target: Target, *words: str | Path, domain: str, last: str) -> Loaded:
    """Run hsload once, then flush.

    Args:
        target: where to.
        words: its options and files.
        domain: of the folder or domain, below the folder of this load.
        last: the domain that is flushed.
    """
    return hsloads(target, [words], domain=domain, last=last)


def hsloads(target: Target, runs: Sequence[Sequence[str | Path]], *, domain: str, last: str) -> Loaded:
    """Run hsload several times in turn, then flush."""
    server, spent = target.server, Loaded(0, 0)
    who = ("-e", server.endpoint, "-u", server.user, "-p", server.password)
    with target.counting(spent):
        start = time.monotonic()
        for words in runs:
            used = timed([HSLOAD, *who, *words, f"hdf5:/{target.folder}/{domain}"], {})
            spent.cpu += used.cpu
            spent.memory = max(spent.memory, used.memory)
        target.flush(f"{target.folder}/{last}")
        spent.wall = time.monotonic() - start
    return spent


def ingest(ours: Ours, target: Target, *words: str | Path, domain: str) -> Loaded:
    """Run `cropduster ingest` to its end; its transfer is the time from acceptance to end."""
    spent = Loaded(0, 0)
    with target.counting(spent):
        cpu, before, start = process_cpu(ours.process.pid), os.times(), time.monotonic()
        done = subprocess.run(
            [CLI, "ingest", *words, f"hdf5:/{target.folder}/{domain}", "--server", ours.address, "--json"],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **ours.environment},
        )
        assert done.returncode == 0, done.stderr
        spent.wall, after = time.monotonic() - start, os.times()
        spent.cpu = process_cpu(ours.process.pid) - cpu + sum(after[2:4]) - sum(before[2:4])
    said = json.loads(done.stdout.splitlines()[-1])
    spent.memory = peak_memory(ours.process.pid)
    spent.transfer = said["outcome"]["seconds"]
    spent.through_us = through_us(said)
    return spent


def timed(words: Sequence[str | Path], environment: Mapping[str, str]) -> Spent:
    """Run a program; its CPU and its peak memory are its own and those of the children that it waited for."""
    start = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return Spent(time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def stopped(state: Path) -> float:
    """End the server that a command has started for itself; the CPU seconds that it used."""
    pid = int(json.loads((state / "lock").read_text())["pid"])
    cpu = process_cpu(pid)
    os.kill(pid, signal.SIGTERM)
    with suppress(FileNotFoundError, ProcessLookupError):
        while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.02)
    return cpu


def through_us(said: dict[str, Any]) -> int:
    """Bytes that went through us, as a transfer's JSON says."""
    return int(said["progress"]["bytes_through_us"])


def config(folder: Path, server: hsds.Server, store: seaweedfs.Store | None) -> str:
    """The plane `data`, the bucket of the server as `bucket`, and the server with its bucket and without it."""
    bucket = f"{{type: posix, path: {server.storage}}}"
    if store is not None:
        keys = f"endpoint: '{store.endpoint}', access_key: {{env: AK}}, secret_key: {{env: SK}}"
        bucket = f"{{type: s3, bucket: {server.bucket}, {keys}}}"
    source = f"  cloud: {bucket.replace(server.bucket, 'sources')}\n" if store is not None else ""
    who = f"endpoint: '{server.endpoint}', username: {server.user}, password: {{env: HS}}, bucket: {server.bucket}"
    return (
        f"planes:\n  data: {{type: posix, path: {folder}}}\n  bucket: {bucket}\n{source}"
        f"hsds:\n  main: {{{who}, storage: bucket}}\n  rest: {{{who}}}\n"
    )


def environment(server: hsds.Server, store: seaweedfs.Store | None) -> dict[str, str]:
    """The secrets that the configuration names."""
    keys = {"AK": store.access_key, "SK": store.secret_key} if store is not None else {}
    return {"HS": server.password} | keys


def tell(name: str, files: int, amount: int, runs: Sequence[Loaded]) -> None:
    """The medians of one side beside its wall: CPU of client and server, requests, memory."""

    def middle(values: Sequence[float]) -> float:
        return statistics.median(values)

    print(
        f"   {name}: {middle([r.wall for r in runs]):.2f} s, "
        f"CPU client {middle([r.cpu for r in runs]):.2f} s, HSDS {middle([r.server_cpu for r in runs]):.2f} s, "
        f"{middle([r.requests for r in runs]) / files:.1f} requests a file, "
        f"{max(r.refused for r in runs)} refusals (503) at most, peak {max(r.memory for r in runs):.0f} MiB"
    )
    if any(r.through_us for r in runs):
        show("bytes through us, of the source's", [r.through_us / amount for r in runs])
