"""kill -9 of the server: the next call finishes the transfer, and nothing half-made remains."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

SIZE = 12 * 2**20
PARTS = 24


@pytest.fixture
def slow(machine):
    """A machine whose plane is slow enough to be killed in the middle of a spray; `hurry` takes the limit away."""
    root = machine.folder / "plane"
    root.mkdir()

    def configure(limit: int) -> None:
        machine.configure(f"planes:\n  data: {{type: posix, path: {root}, limits: {{bytes_per_second: {limit}}}}}\n")

    configure(1_200_000)  # ten seconds: a command may take some of them on a busy machine
    (machine.folder / "x.dat").write_bytes(os.urandom(SIZE))
    machine.root = root
    machine.hurry = lambda: configure(0)
    return machine


def running(machine, share: float) -> str:
    """Start a spray and wait until a share of it is stored; its id."""
    first = machine("spray", "x.dat", "a::x", "--format", "fixed:1", "--parts", str(PARTS), "--no-wait", "--json").json
    until(machine, first["id"], lambda p: p["bytes_done"] >= share * SIZE)
    return first["id"]


def until(machine, transfer: str, reached) -> dict:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = machine("transfers", "show", transfer, "--json").json
        if reached(shown["progress"]):
            return shown
        time.sleep(0.05)
    raise AssertionError(shown)


def check_whole(machine) -> None:
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert len(parts) == PARTS
    joined = b"".join((machine.root / p["key"]).read_bytes() for p in parts)
    assert joined == (machine.folder / "x.dat").read_bytes()
    expected = {p["key"] for p in parts} | {f"{Path(parts[0]['key']).parent}/_manifest.json"}
    assert set(machine.files(machine.root)) == expected


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_next_call_finishes_what_a_killed_server_began(slow, share):
    transfer = running(slow, share)
    slow.kill()
    slow.hurry()
    shown = slow("transfers", "watch", transfer, "--json").json
    assert shown["state"] == "SUCCEEDED"
    assert shown["outcome"]["evidence"] == "compared"
    check_whole(slow)


def test_finished_work_is_not_done_again(slow):
    transfer = running(slow, 0.5)
    enough = PARTS // 2 - 8
    while recorded(slow) < enough:
        time.sleep(0.02)
    stored = {name: (slow.root / name).stat().st_mtime_ns for name in slow.files(slow.root)}
    slow.kill()
    slow.hurry()
    slow("transfers", "watch", transfer)
    check_whole(slow)
    parts = slow("files", "show", "a::x", "--json").json["parts"]
    now = sorted((slow.root / p["key"]).stat().st_mtime_ns for p in parts)
    before = sorted(stored.values())
    kept = len(set(now) & set(before))
    assert kept >= enough, f"{kept} of {PARTS} parts were kept"


def recorded(machine) -> int:
    """Parts of which the server's records hold a receipt."""
    with closing(sqlite3.connect(f"file:{machine.state}/state.db?mode=ro", uri=True)) as database:
        return database.execute("SELECT count(*) FROM parts WHERE crc64nvme IS NOT NULL").fetchone()[0]


@pytest.mark.soak  # one kill is shown above
def test_killed_again_and_again_it_still_ends_well(slow):
    transfer = running(slow, 0.0)
    for _ in range(3):
        slow.kill()
        slow("transfers", "show", transfer, "--json")
        time.sleep(0.5)
    slow.kill()
    slow.hurry()
    assert slow("transfers", "watch", transfer, "--json").json["state"] == "SUCCEEDED"
    check_whole(slow)


def test_a_cancelled_spray_leaves_nothing_behind(slow):
    transfer = running(slow, 0.2)
    slow("transfers", "cancel", transfer)
    shown = slow("transfers", "watch", transfer, "--json", code=130).json
    assert shown["state"] == "CANCELLED"
    assert slow.files(slow.root) == []
    assert slow("files", "list", "--json").json["files"] == []
    slow.hurry()
    slow("spray", "x.dat", "a::x", "--format", "fixed:1", "--parts", str(PARTS))
    check_whole(slow)


def test_a_paused_spray_stands_still_and_goes_on_where_it_was(slow):
    transfer = running(slow, 0.2)
    slow("transfers", "pause", transfer)
    shown = until_state(slow, transfer, "PAUSED")
    done = shown["progress"]["bytes_done"]
    assert 0 < done < SIZE
    slow.kill()
    assert slow("transfers", "show", transfer, "--json").json["state"] == "PAUSED"
    slow.signal(15)
    slow.hurry()
    slow("transfers", "resume", transfer)
    assert slow("transfers", "watch", transfer, "--json").json["state"] == "SUCCEEDED"
    check_whole(slow)


def until_state(machine, transfer: str, state: str) -> dict:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = machine("transfers", "show", transfer, "--json").json
        if shown["state"] == state:
            return shown
        time.sleep(0.05)
    raise AssertionError(json.dumps(shown))


def test_a_cancelled_pause_cleans_up(slow):
    transfer = running(slow, 0.2)
    slow("transfers", "pause", transfer)
    until_state(slow, transfer, "PAUSED")
    slow("transfers", "cancel", transfer)
    until_state(slow, transfer, "CANCELLED")
    assert slow.files(slow.root) == []


def test_sigterm_in_the_middle_is_not_a_failure(slow):
    transfer = running(slow, 0.2)
    slow.signal(15)
    slow.hurry()
    assert slow("transfers", "watch", transfer, "--json").json["state"] == "SUCCEEDED"
    check_whole(slow)
