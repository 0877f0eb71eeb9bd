"""Large sizes and crash marathons; `make soak` runs them, `make test` does not."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import config_of

pytestmark = pytest.mark.soak

GIB = 2**30
MIB = 2**20


def peak(machine) -> int:
    """The server's largest resident set in KiB."""
    for line in Path(f"/proc/{machine.pid()}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    raise AssertionError


def test_memory_does_not_grow_with_the_size_of_the_file(machine):
    (machine.folder / "plane").mkdir()
    machine.configure(f"planes:\n  data: {{type: posix, path: {machine.folder}/plane, durability: os}}\n")
    peaks = []
    for size in (GIB, 8 * GIB):
        with (machine.folder / "x.dat").open("wb") as file:
            file.truncate(size)
        machine("spray", "x.dat", f"a::x{size}", "--format", "fixed:1024", "--parts", "8")
        peaks.append(peak(machine))
        machine.signal(15)
        for path in (machine.folder / "plane").rglob("*_of_8"):
            path.unlink()
    assert peaks[1] <= 1.2 * peaks[0], peaks
    assert max(peaks) <= 400 * 1024, peaks


def test_memory_stays_bounded_into_a_store(machine, bucket):
    with (machine.folder / "x.dat").open("wb") as file:
        file.truncate(2 * GIB)
    machine("spray", "x.dat", "a::x", "--plane", "cloud", "--format", "fixed:1", "--parts", "8")
    assert peak(machine) <= 400 * 1024


def test_a_thousand_parts(machine):
    (machine.folder / "x.dat").write_bytes(os.urandom(10 * MIB))
    machine("spray", "x.dat", "a::x", "--format", "fixed:1", "--parts", "1000")
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert len(parts) == 1000
    assert b"".join((machine.data / p["key"]).read_bytes() for p in parts) == (machine.folder / "x.dat").read_bytes()


def test_twenty_thousand_small_objects_in_bounded_memory_and_none_is_copied_twice(machine, bucket, seaweed):
    """Up, kill -9 in the middle, on; what was recorded is not written again, and memory is no matter of the count."""
    count, size = 20_000, 10 * 1024
    folder = machine.folder / "plane/in"
    data = os.urandom(size)
    for number in range(count):
        path = folder / f"{number % 100:02}/{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(8, "big") + data[8:])
    transfer = machine("sync", "data:in", "cloud:up", "--no-wait", "--json").json["id"]
    while machine("transfers", "show", transfer, "--json").json["progress"]["parts_done"] < count // 3:
        pass
    peaks = [peak(machine)]
    machine.kill()
    recorded = machine("transfers", "show", transfer, "--json").json["progress"]["parts_done"]
    written = {item["Key"]: item["LastModified"] for item in objects(bucket)}
    time.sleep(1.1)  # times of this store count seconds
    shown = machine("transfers", "watch", transfer, "--json").json
    peaks.append(peak(machine))
    assert shown["state"] == "SUCCEEDED"
    assert shown["outcome"]["objects"]["copied"] == count
    again = sum(written.get(item["Key"], item["LastModified"]) != item["LastModified"] for item in objects(bucket))
    assert again <= len(written) - recorded + 600, (again, len(written), recorded)
    assert len(objects(bucket)) == count
    assert {item["Size"] for item in objects(bucket)} == {size}
    assert machine("sync", "data:in", "cloud:up", "--json").json["outcome"]["objects"]["equal"] == count
    assert max(peaks) <= 300 * 1024, peaks


def objects(bucket) -> list[dict]:
    pages = bucket.client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name)
    return [item for page in pages for item in page.get("Contents", [])]


@pytest.mark.parametrize("plane", ["data", "cloud"])
def test_a_marathon_of_crashes(machine, bucket, seaweed, plane):
    """kill -9 at twenty random moments of one spray after another; the bytes are right every time."""
    draw = random.Random(plane)
    data = os.urandom(32 * MIB)
    (machine.folder / "x.dat").write_bytes(data)
    text = config_of(machine, seaweed, bucket.name, ", limits: {bytes_per_second: 20000000}, put_size: 5MiB")
    machine.configure(text.replace("/plane}", "/plane, limits: {bytes_per_second: 20000000}}"))
    for turn in range(20):
        arguments = ("--plane", plane, "--format", "fixed:1", "--parts", "4", "--overwrite")
        first = machine("spray", "x.dat", "a::x", *arguments, "--no-wait", "--json").json
        for _ in range(draw.randint(1, 3)):
            time.sleep(draw.uniform(0, 1.2))
            machine.kill()
            machine("transfers", "show", first["id"])
        shown = machine("transfers", "watch", first["id"], "--json").json
        assert shown["state"] == "SUCCEEDED", (turn, shown)
        assert machine("files", "verify", "a::x", "--read", "--json").json["ok"]
    assert bucket.open_uploads() == []
    assert [f for f in machine.files(machine.folder / "plane") if "/.cropduster-" in f] == []
    machine("despray", "a::x", "./y.dat")
    assert (machine.folder / "y.dat").read_bytes() == data
