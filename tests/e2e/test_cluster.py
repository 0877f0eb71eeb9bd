"""Replicas of one PostgreSQL: any answers any call, segments spread over them, and a transfer outlives any of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.doubles import envoy, postgres
from tests.doubles.authority import Authority
from tests.doubles.seaweedfs import free_ports
from tests.e2e.conftest import Machine

SECRET = "c0ffee" * 8
COUNT = 3
RECORD = 1000
PARTS = 300


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.running() as running:
        yield running


@dataclass
class Cluster:
    """Three file servers, a directory that all of them see, and one PostgreSQL."""

    machine: Machine
    server: postgres.Server
    url: str
    ports: tuple[int, ...] = field(default_factory=lambda: tuple(free_ports(COUNT)))
    processes: dict[int, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.machine.folder

    def secure(self) -> None:
        """Have them show each other certificates, and the command line, too; they share no secret."""
        authority = Authority(self.folder / "pki")
        own = authority.issue("server", names=["replica"], addresses=["127.0.0.1"])
        ops = authority.issue("ops")
        config = self.folder / "config.yaml"
        text = config.read_text().replace("secret: {env: SECRET}", "name: replica")
        tls = f"{{certificate: {own.certificate}, key: {own.key}, clients: {own.ca}}}"
        config.write_text(
            f"{text}listen: {{internal: {{address: '127.0.0.1:0', allow: [replica, ops], tls: {tls}}}}}\n"
        )
        for name, path in (("CA", own.ca), ("CERT", ops.certificate), ("KEY", ops.key)):
            self.machine.environment[f"CROPDUSTER_{name}"] = str(path)

    def configure(self, rate: int = 0, transfers: int = 0) -> None:
        addresses = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        (self.folder / "data").mkdir(exist_ok=True)
        self.machine.environment |= {"DATABASE": self.url, "SECRET": SECRET}
        self.machine.configure(
            "planes:\n"
            f"  data: {{type: posix, path: {self.folder}/data, shared: true, transfers: {transfers},"
            f" limits: {{bytes_per_second: {rate}}}}}\n"
            "database: {url: {env: DATABASE}}\n"
            f"replicas: {{address: 'ipv4:{addresses}', secret: {{env: SECRET}}}}\n"
        )

    def start(self, number: int) -> None:
        """Start one of the servers, and wait until it listens."""
        self.start_slowly(number)
        self.listening(number)

    def start_slowly(self, number: int) -> None:
        """Start one of the servers."""
        self.processes[number] = self.machine.start(
            "serve", "--state", f"{self.folder}/s{number}", "--listen", f"127.0.0.1:{self.ports[number]}"
        )

    def listening(self, number: int) -> None:
        """Wait until a server listens."""
        process = self.processes[number]
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening" in line, process.communicate()

    def stop(self, number: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Stop one by its process id."""
        process = self.processes.pop(number)
        process.send_signal(how)
        process.communicate(timeout=60)

    def at(self, number: int) -> str:
        return f"127.0.0.1:{self.ports[number]}"

    def __call__(self, number: int, *words: str, code: int | None = 0) -> Any:
        """A command that asks one of them."""
        return self.machine(*words, "--server", self.at(number), "--json", code=code).json

    def segments(self) -> list[tuple[Any, ...]]:
        """Number, server, tries and done of every segment of the transfer that runs."""
        return self._ask("SELECT number, server, tries, done FROM segments")

    def note_segments(self) -> None:
        """Keep what becomes of segments: they are forgotten when their transfer ends."""
        self._ask(
            "CREATE TABLE noted AS TABLE segments WITH NO DATA;"
            "CREATE FUNCTION note() RETURNS trigger AS 'BEGIN INSERT INTO noted SELECT OLD.*; RETURN OLD; END'"
            " LANGUAGE plpgsql;"
            "CREATE TRIGGER note BEFORE DELETE ON segments FOR EACH ROW EXECUTE FUNCTION note()"
        )

    def noted(self) -> list[tuple[Any, ...]]:
        """The same of the segments that were forgotten."""
        return self._ask("SELECT number, server, tries, done FROM noted")

    def forget_noted(self) -> None:
        self._ask("TRUNCATE noted")

    def owner(self) -> int:
        """The process id of the server that coordinates the transfer."""
        ((owner,),) = self._ask("SELECT owner FROM transfers")
        return int(owner.split("-")[-2])

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            answer = connection.execute(statement)  # type: ignore[arg-type]
            return answer.fetchall() if answer.description else []


@pytest.fixture
def cluster(machine: Machine, server: postgres.Server) -> Iterator[Cluster]:
    made = Cluster(machine, server, server.database())
    made.configure()
    machine("migrate")
    yield made
    for number in list(made.processes):
        made.stop(number)


def until(what: Callable[[], object], waited_for: str) -> None:
    """Wait, up to a minute."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, f"{waited_for} did not come"
        time.sleep(0.05)


def table(path: Path, records: int) -> bytes:
    data = os.urandom(records * RECORD)
    path.write_bytes(data)
    return data


def parts_of(cluster: Cluster, shown: Any) -> bytes:
    return b"".join((cluster.folder / "data" / part["key"]).read_bytes() for part in shown["parts"])


def litter(cluster: Cluster) -> list[str]:
    return [p.name for p in (cluster.folder / "data").rglob(".cropduster-*")]


def test_any_server_answers_and_all_of_them_work_by_certificates_alone(cluster):
    cluster.secure()
    data = table(cluster.folder / "data/x", PARTS)
    for number in range(COUNT):
        cluster.start(number)
    spray = ("--plane", "data", "--parts", f"{PARTS}", "--format", f"fixed:{RECORD}")
    cluster.note_segments()
    cluster(0, "spray", "data:x", "a::x", *spray)
    assert parts_of(cluster, cluster(1, "files", "show", "a::x")) == data
    (transfer,) = cluster(2, "transfers", "list")["transfers"]
    assert transfer["state"] == "SUCCEEDED"

    def even() -> bool:
        """Whether the segments of one more spray are spread within 20 % of even: they are once all are connected."""
        cluster.forget_noted()
        cluster(0, "spray", "data:x", "a::y", *spray, "--overwrite")
        share = Counter(server for _, server, _, _ in cluster.noted())
        return len(share) == COUNT and max(share.values()) <= 1.2 * sum(share.values()) / COUNT

    until(even, "an even spread")
    cluster(2, "despray", "a::x", "data:back")
    assert (cluster.folder / "data/back").read_bytes() == data
    for name in ("a::x", "a::y"):
        cluster(1, "files", "delete", name, "--yes")
    assert cluster(0, "files", "list")["files"] == []


def test_no_call_is_lost_behind_a_proxy_when_a_server_dies(cluster):
    data = table(cluster.folder / "data/x", PARTS)
    for number in range(COUNT):
        cluster.start(number)
    with envoy.running(cluster.folder, cluster.ports) as address:

        def call(*words: str) -> Any:
            return cluster.machine(*words, "--server", address, "--json").json

        call("spray", "data:x", "a::x", "--plane", "data", "--parts", "30", "--format", f"fixed:{RECORD}")
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(call, "files", "show", "a::x") for _ in range(20)]
            cluster.stop(1)
            assert [parts_of(cluster, shown.result()) == data for shown in calls] == [True] * 20
        call("despray", "a::x", "data:back")
        assert (cluster.folder / "data/back").read_bytes() == data


def test_a_transfer_outlives_its_workers_its_coordinator_and_a_restart_of_the_database(cluster):
    data = table(cluster.folder / "data/x", PARTS)
    cluster.configure(rate=30_000)
    for number in range(COUNT):
        cluster.start(number)
    cluster.note_segments()
    spray = ("--plane", "data", "--parts", f"{PARTS}", "--format", f"fixed:{RECORD}")
    transfer = cluster(0, "spray", "data:x", "a::x", *spray, "--no-wait")["id"].removeprefix("transfers/")
    until(lambda: any(server for _, server, _, _ in cluster.segments()), "work")

    cluster.stop(1)  # a worker
    until(lambda: any(done for _, _, _, done in cluster.segments()), "a segment")
    cluster.stop(0)  # which accepted the transfer, and so coordinates it
    until(lambda: cluster.owner() == cluster.processes[2].pid, "another coordinator")
    before = {number: tries for number, _, tries, done in cluster.segments() if done}
    assert len(before) < PARTS // 50, "it was over before the database went away"
    cluster.server.stop()
    cluster.start_slowly(1)
    cluster.server.start()
    cluster.listening(1)

    ended = cluster(1, "transfers", "watch", transfer)
    assert ended["state"] == "SUCCEEDED", ended
    assert parts_of(cluster, cluster(2, "files", "show", "a::x")) == data
    assert litter(cluster) == []
    after = {number: tries for number, _, tries, done in cluster.noted() if done}
    assert {number: after[number] for number in before} == before, "a segment that was done was done again"
    assert len(after) == PARTS // 50


@pytest.mark.parametrize("count", [2, pytest.param(COUNT, marks=pytest.mark.soak)])
def test_a_rolling_restart_loses_nothing(cluster, count):

    def pace(rate: int) -> None:
        for number in range(count):
            cluster(number, "planes", "limits", "data", "--bytes-per-second", str(rate))

    data = table(cluster.folder / "data/x", PARTS)
    cluster.configure(rate=100_000)
    for number in range(count):
        cluster.start_slowly(number)
    for number in range(count):
        cluster.listening(number)
    cluster.note_segments()
    spray = ("--plane", "data", "--parts", f"{PARTS}", "--format", f"fixed:{RECORD}")
    transfer = cluster(0, "spray", "data:x", "a::x", *spray, "--no-wait")["id"].removeprefix("transfers/")
    with ThreadPoolExecutor(1) as pool:
        watch = pool.submit(cluster, 0, "transfers", "watch", transfer)  # it goes on at the next server of that address
        until(lambda: any(done for _, _, _, done in cluster.segments()), "a segment")
        pace(4_000)  # it lasts as long as we take
        cluster.configure(rate=4_000)
        for number in range(count):  # the first coordinates it
            before = {number: tries for number, _, tries, done in cluster.segments() if done}
            cluster.stop(number, signal.SIGTERM)
            cluster.start(number)
        assert not watch.done(), "it was over before the last server was another one"
        pace(10**9)
        assert watch.result()["state"] == "SUCCEEDED"
    assert parts_of(cluster, cluster(1, "files", "show", "a::x")) == data
    assert litter(cluster) == []
    after = {number: tries for number, _, tries, done in cluster.noted() if done}
    assert {number: after[number] for number in before} == before, "a segment that was done was done again"
    assert len(after) == PARTS // 50


@pytest.mark.soak  # test_storm shows what becomes of wishes, in one process
def test_a_wish_reaches_the_server_that_is_at_work(cluster):
    table(cluster.folder / "data/x", PARTS)
    cluster.configure(rate=10_000)
    cluster.start(0)
    cluster.start(1)
    spray = ("--plane", "data", "--parts", f"{PARTS}", "--format", f"fixed:{RECORD}")
    transfer = cluster(0, "spray", "data:x", "a::x", *spray, "--no-wait")["id"].removeprefix("transfers/")
    until(lambda: any(server for _, server, _, _ in cluster.segments()), "work")
    cluster(1, "transfers", "pause", transfer)
    until(lambda: cluster(1, "transfers", "show", transfer)["state"] == "PAUSED", "the pause")
    cluster(1, "transfers", "resume", transfer)
    cluster(1, "transfers", "cancel", transfer)
    until(lambda: cluster(0, "transfers", "show", transfer)["state"] == "CANCELLED", "the end")
    assert litter(cluster) == []
    assert [p for p in (cluster.folder / "data").rglob("*") if p.is_file()] == [cluster.folder / "data/x"]


@pytest.mark.soak  # test_turns shows the same in one process
def test_a_plane_takes_so_many_transfers_at_once_whoever_accepted_them(cluster):
    table(cluster.folder / "data/x", PARTS)
    cluster.configure(rate=200_000, transfers=1)
    cluster.start(0)
    cluster.start(1)
    cluster.note_segments()
    spray = ("--plane", "data", "--parts", f"{PARTS}", "--format", f"fixed:{RECORD}")
    made = [cluster(n % 2, "spray", "data:x", f"a::{n}", *spray, "--no-wait")["id"] for n in range(3)]
    assert [cluster(0, "transfers", "watch", each)["state"] for each in made] == ["SUCCEEDED"] * 3
    spans = sorted(cluster._ask("SELECT min(begun), max(ended) FROM noted GROUP BY transfer"))
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_database_that_was_not_set_up_is_told(machine, server):
    machine.environment |= {"DATABASE": server.database()}
    config = "planes:\n  data: {type: posix, path: %s, shared: true}\ndatabase: {url: {env: DATABASE}}\n"
    machine.configure(config % machine.folder)
    told = machine("serve", "--listen", "127.0.0.1:0", code=7)
    assert "cropduster migrate" in told.err
    assert "--server" in machine("files", "list", code=2).err
    machine("migrate")
    assert "already" in machine("migrate").out
    machine.configure(config.replace(", shared: true", "") % machine.folder)
    assert "shared: true" in machine("serve", "--listen", "127.0.0.1:0", code=2).err
