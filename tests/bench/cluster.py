"""Many file servers: carrying over TLS, a second replica, many transfers at once, calls beside streams, recovery.

    python -m tests.bench.cluster [push|scale|many|calls|recovery]...

`push` wants rsync on the PATH. Replicas share a PostgreSQL and a directory of this machine, so two of them share its
processors, too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg

from client.api import Client
from client.connection import Connection, Running
from fileserver.v1 import transfer_pb2 as wire
from tests.bench.runs import CLI, MIB, RUNS, Ours, Spent, command, in_turn, random_file, serving, show, transfer
from tests.doubles import postgres
from tests.doubles.authority import Authority
from tests.doubles.seaweedfs import free_ports

PUSHED = 1024 * MIB
SCALED = 1024 * MIB
TRANSFERS = 200
CALLS = 300
SPRAY = ("--format", "fixed:1", "--plane", "data", "--overwrite")


# --- push


@dataclass
class Outside:
    """A server with an external address, called from outside with a token."""

    process: subprocess.Popen[str]
    external: str
    ca: Path
    token: Path

    def __call__(self, *words: str) -> Spent:
        """Run a command; counts it and the server."""
        where = ("--server", self.external, "--ca", self.ca, "--token-file", self.token)
        return transfer(self.process.pid, *words, *where)


@contextmanager
def outside(folder: Path) -> Iterator[Outside]:
    """Start one."""
    authority = Authority(folder / "pki")
    own = authority.issue("server", names=["localhost"], addresses=["127.0.0.1"])
    made = subprocess.run([CLI, "token", "key", folder / "key"], check=True, stdout=subprocess.PIPE, text=True).stdout
    words = [CLI, "token", "create", folder / "key", "--subject", "me"]
    (folder / "token").write_text(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    (folder / "data").mkdir()
    (folder / "config.yaml").write_text(
        f"planes: {{data: {{type: posix, path: {folder}/data, durability: os}}}}\n"
        "listen:\n  internal: '127.0.0.1:0'\n"
        f"  external: {{address: '127.0.0.1:0', tls: {{certificate: {own.certificate}, key: {own.key}}}}}\n"
        f"{made}rules:\n  - {{who: [me], may: [read, write], planes: ['*'], files: ['*']}}\nretire_after: 0s\n"
    )
    process = subprocess.Popen(
        [CLI, "serve", "--state", folder / "state", "--config", folder / "config.yaml"],
        stdout=subprocess.PIPE,
        stderr=(folder / "serve.log").open("w"),
        text=True,
    )
    assert process.stdout is not None
    try:
        addresses = re.findall(r"\S+:\d+", process.stdout.readline())
        yield Outside(process, addresses[-1], authority.ca, folder / "token")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@contextmanager
def rsyncd(folder: Path) -> Iterator[str]:
    """An rsync daemon on loopback; its address."""
    (port,) = free_ports(1)
    (folder / "rsynced").mkdir()
    (folder / "rsyncd.conf").write_text(
        f"use chroot = no\n[to]\npath = {folder}/rsynced\nread only = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n"
    )
    words = ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", "--config", "rsyncd.conf"]
    process = subprocess.Popen(words, cwd=folder)
    try:
        time.sleep(1)  # it says nothing when it listens
        yield f"rsync://127.0.0.1:{port}/to/"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def sink(folder: Path) -> Iterator[Callable[[Path], Spent]]:
    """A bare gRPC server over TLS in a process of its own that throws away what it receives; sends a file to it."""
    authority = Authority(folder / "bare")
    own = authority.issue("server", names=["localhost"], addresses=["127.0.0.1"])
    words = [sys.executable, "-m", "tests.bench.cluster", "--sink", own.certificate, own.key]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    shown = grpc.ssl_channel_credentials(authority.ca.read_bytes())

    def send(path: Path) -> Spent:
        def pieces() -> Iterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(MIB):
                    yield piece

        begun = time.monotonic()
        with grpc.secure_channel(address, shown) as channel:
            channel.stream_unary("/bare/Write", None, None)(pieces())
        return Spent(time.monotonic() - begun, 0.0)

    try:
        yield send
    finally:
        process.terminate()
        process.wait()


def run_sink(certificate: str, key: str) -> None:
    """The other side of `sink`."""

    class Sink(grpc.GenericRpcHandler):
        def service(self, _details: Any) -> Any:
            return grpc.stream_unary_rpc_method_handler(lambda requests, _: b"%d" % sum(map(len, requests)))

    server = grpc.server(ThreadPoolExecutor(4), handlers=(Sink(),))
    shown = grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(certificate).read_bytes())])
    print(f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', shown)}", flush=True)
    server.start()
    server.wait_for_termination()


def push(folder: Path) -> None:
    """`push` over TLS against rsync (not encrypted) and a bare gRPC stream over TLS."""
    source = random_file(folder / "source", PUSHED)
    with outside(folder) as ours, rsyncd(folder) as there, sink(folder) as bare:

        def reset() -> None:
            for rest in (folder / "rsynced").iterdir():
                rest.unlink()

        in_turn(
            "push over TLS to 4 parts",
            lambda: ours("push", str(source), "b::x", "--parts", "4", *SPRAY),
            {
                "rsync, whole file, in the clear": lambda: command("rsync", "--whole-file", source, there),
                "a bare gRPC stream over TLS": lambda: bare(source),
            },
            amount=PUSHED,
            goals={"rsync, whole file, in the clear": "rate >= 1.0", "a bare gRPC stream over TLS": "rate >= 0.8"},
            reset=reset,
        )


# --- replicas


@dataclass
class Replicas:
    """File servers of one PostgreSQL and one directory."""

    folder: Path
    url: str
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    processes: dict[int, subprocess.Popen[str]] = field(default_factory=dict)

    def configure(self, rate: int = 0) -> None:
        """Write the configuration, and make the tables."""
        (self.folder / "data").mkdir(exist_ok=True)
        addresses = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        (self.folder / "config.yaml").write_text(
            f"planes: {{data: {{type: posix, path: {self.folder}/data, durability: os, shared: true,"
            f" limits: {{bytes_per_second: {rate}}}}}}}\n"
            "database: {url: {env: DATABASE}}\n"
            f"replicas: {{address: 'ipv4:{addresses}', secret: {{env: SECRET}}}}\nretire_after: 0s\n"
        )
        self._run("migrate", "--config", str(self.folder / "config.yaml"))

    def start(self, number: int) -> None:
        """Start one, and wait until it listens."""
        words = ["serve", "--state", f"{self.folder}/s{number}", "--config", f"{self.folder}/config.yaml"]
        process = subprocess.Popen(
            [CLI, *words, "--listen", f"127.0.0.1:{self.ports[number]}"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=(self.folder / f"s{number}.log").open("a"),
            text=True,
        )
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        self.processes[number] = process

    def stop(self, number: int, how: signal.Signals = signal.SIGTERM) -> None:
        """End one by its process id."""
        process = self.processes.pop(number)
        process.send_signal(how)
        process.wait(timeout=60)

    def call(self, number: int, *words: str) -> str:
        """A command that asks one of them."""
        return self._run(*words, "--server", f"127.0.0.1:{self.ports[number]}")

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[arg-type]

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DATABASE": self.url, "SECRET": "c0ffee" * 8}

    def _run(self, *words: str) -> str:
        done = subprocess.run([CLI, *words], check=True, stdout=subprocess.PIPE, text=True, env=self._environment)
        return done.stdout


@contextmanager
def replicas(folder: Path, rate: int = 0) -> Iterator[Replicas]:
    """Two that can be started; those that run are ended."""
    with postgres.running() as server:
        made = Replicas(folder, server.database())
        made.configure(rate)
        try:
            yield made
        finally:
            for number in list(made.processes):
                made.stop(number)


def scale(folder: Path) -> None:
    """One spray by one replica, and by two."""
    (folder / "data").mkdir(parents=True)
    random_file(folder / "data/x", SCALED)
    with replicas(folder) as servers:
        print(f"\n## a spray of {SCALED // MIB} MiB into 64 parts by one replica and by two")
        walls: dict[int, list[float]] = {1: [], 2: []}
        servers.start(0)
        for run in range(RUNS + 1):
            for count in (1, 2):
                if count == 2:
                    servers.start(1)
                    time.sleep(2)  # until they know of each other
                begun = time.monotonic()
                servers.call(0, "spray", "data:x", "b::x", "--parts", "64", *SPRAY)
                if run:
                    walls[count].append(time.monotonic() - begun)
            servers.stop(1)
        show("seconds with one", walls[1])
        show("seconds with two", walls[2])
        show("times as fast   ", [a / b for a, b in zip(walls[1], walls[2], strict=True)])


def recovery(folder: Path) -> None:
    """How long after a kill no segment and no transfer is a dead server's any more."""
    (folder / "data").mkdir(parents=True)
    random_file(folder / "data/x", 300 * 1000)
    print("\n## recovery of what a killed server had (300 kB at 10 kB/s, 2 replicas)")
    for what, victim in (("a worker", 1), ("the coordinator", 0)):
        seconds = []
        for run in range(RUNS):
            own = folder / f"{victim}-{run}"
            own.mkdir()
            shutil.copytree(folder / "data", own / "data")
            with replicas(own, rate=10_000) as servers:
                servers.start(0)
                servers.start(1)
                time.sleep(2)
                servers.call(
                    0, "spray", "data:x", "b::x", "--parts", "300", "--no-wait", *SPRAY[2:], "--format", "fixed:1"
                )
                pid = servers.processes[victim].pid
                mine = f"SELECT count(*) FROM segments WHERE server LIKE '%-{pid}-%' AND NOT done"
                owned = f"SELECT count(*) FROM transfers WHERE owner LIKE '%-{pid}-%'"
                _until(lambda: servers.ask(mine)[0][0])  # noqa: B023 - called at once
                servers.stop(victim, signal.SIGKILL)
                begun = time.monotonic()
                _until(lambda: not servers.ask(mine)[0][0] and not servers.ask(owned)[0][0])  # noqa: B023 - the same
                seconds.append(time.monotonic() - begun)
                (transfer,) = servers.ask("SELECT id FROM transfers")
                servers.call(1 - victim, "transfers", "cancel", transfer[0])
        show(f"seconds after the kill of {what}", seconds)


def _until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- many at once


def _client(server: Ours) -> Client:
    made = Client(Connection(Running(server.address)))
    made.list_planes()  # connects, and learns who we are
    return made


def many(folder: Path) -> None:
    """So many small transfers at once, from acceptance to end."""
    (folder / "data").mkdir(parents=True)
    random_file(folder / "data/x", 100_000)
    config = f"planes: {{data: {{type: posix, path: {folder}/data, durability: os}}}}\n"
    with serving(folder / "many", config) as server, ThreadPoolExecutor(TRANSFERS) as pool:
        print(f"\n## {TRANSFERS} sprays of 100 kB into 2 parts at once")
        for _ in range(RUNS):
            begun = time.monotonic()
            ends = list(pool.map(lambda number: _one(server, number), range(TRANSFERS)))
            whole = time.monotonic() - begun
            states = [state for state, _ in ends]
            seconds = sorted(spent for _, spent in ends)
            lost = TRANSFERS - states.count(wire.Transfer.STATE_SUCCEEDED)
            print(
                f"   all in {whole:.1f} s; each p50 {statistics.median(seconds):.2f} s, "
                f"p99 {seconds[int(TRANSFERS * 0.99) - 1]:.2f} s; lost {lost}",
                flush=True,
            )


def _one(server: Ours, number: int) -> tuple[int, float]:
    spray = wire.Spray(
        sources=[wire.Location(plane="data", key="x")],
        file=f"b::{number}",
        plane="data",
        parts=2,
        format=wire.Format(fixed=wire.Fixed(record_size=1)),
    )
    begun = time.monotonic()
    with _client(server) as client:
        accepted = client.create_transfer(wire.TransferSpec(spray=spray, overwrite=True))
        *_, last = client.watch_transfer(accepted.name)
    return last.state, time.monotonic() - begun


def calls(folder: Path) -> None:
    """Control calls while two streams take all that the server has."""
    (folder / "data").mkdir(parents=True)
    random_file(folder / "data/x", 1024 * MIB)
    config = f"planes: {{data: {{type: posix, path: {folder}/data, durability: os}}}}\n"
    with serving(folder / "calls", config) as server:
        server("spray", "data:x", "b::x", "--parts", "4", *SPRAY)
        print("\n## `files show` while two streams of `cat` take what there is")
        for streams in (0, 2):
            enough = threading.Event()
            threads = [threading.Thread(target=_stream, args=(server, enough)) for _ in range(streams)]
            for thread in threads:
                thread.start()
            with _client(server) as client:
                seconds = sorted(_timed(lambda: client.get_file("b::x")) for _ in range(CALLS))
            enough.set()
            for thread in threads:
                thread.join()
            print(
                f"   {streams} streams: p50 {statistics.median(seconds) * 1000:.1f} ms, "
                f"p99 {seconds[int(CALLS * 0.99) - 1] * 1000:.1f} ms",
                flush=True,
            )


def _stream(server: Ours, enough: threading.Event) -> None:
    with _client(server) as client:
        while not enough.is_set():
            for _ in client.read_file("b::x"):
                if enough.is_set():
                    break


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


BENCHES = {"push": push, "scale": scale, "many": many, "calls": calls, "recovery": recovery}


def main() -> None:
    """Measure what is named, or all."""
    if sys.argv[1:2] == ["--sink"]:
        run_sink(*sys.argv[2:])
        return
    for name in sys.argv[1:] or BENCHES:
        with tempfile.TemporaryDirectory(prefix="cropduster-bench-", dir=os.environ.get("TMPDIR", "/tmp")) as folder:
            BENCHES[name](Path(folder))


if __name__ == "__main__":
    main()
