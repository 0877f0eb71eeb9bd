"""Spray and despray as a user does them, on the embedded default."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def test_a_spray_cuts_no_record_and_a_despray_gives_the_same_bytes(machine):
    source = machine.folder / "people.dat"
    source.write_bytes(os.urandom(155 * 1000))
    shown = machine("spray", "people.dat", "in::people", "--parts", "7", "--format", "fixed:155", "--json").json
    assert shown["state"] == "SUCCEEDED"
    assert shown["outcome"]["evidence"] == "compared"
    assert shown["progress"]["bytes_through_us"] == 0

    file = machine("files", "show", "in::people", "--json").json
    assert (file["name"], file["size"], file["format"], file["evidence"]) == (
        "in::people",
        155_000,
        "fixed:155",
        "compared",
    )
    assert [p["number"] for p in file["parts"]] == list(range(1, 8))
    parts = [(machine.data / p["key"]).read_bytes() for p in file["parts"]]
    assert b"".join(parts) == source.read_bytes()
    assert all(len(p) % 155 == 0 for p in parts)
    assert all(p["owned"] and p["plane"] == "data" for p in file["parts"])

    machine("despray", "in::people", "./back.dat")
    assert (machine.folder / "back.dat").read_bytes() == source.read_bytes()
    machine("files", "verify", "in::people", "--read")


def test_a_dry_run_shows_the_plan_and_writes_nothing(machine):
    (machine.folder / "x.dat").write_bytes(bytes(1000))
    plan = machine("spray", "x.dat", "a::x", "--parts", "3", "--format", "fixed:10", "--dry-run", "--json").json
    assert [p["size"] for p in plan["parts"]] == [330, 330, 340]
    assert [(e["start"], e["end"]) for p in plan["parts"] for e in p["extents"]] == [(0, 330), (330, 660), (660, 1000)]
    assert (plan["bytes_through_us"], plan["bytes_native"]) == (0, 1000)
    assert machine("files", "list", "--json").json["files"] == []
    assert machine.files() == []


@pytest.mark.parametrize("size", [0, 1, 5])
def test_part_count_is_exact_even_when_there_is_less_than_a_record_a_part(machine, size):
    (machine.folder / "x.dat").write_bytes(b"z" * size)
    machine("spray", "x.dat", "a::x", "--parts", "8", "--format", "fixed:1")
    parts = machine("files", "show", "a::x", "--json").json["parts"]
    assert len(parts) == 8
    assert sum(p["size"] for p in parts) == size
    machine("despray", "a::x", "./y.dat")
    assert (machine.folder / "y.dat").read_bytes() == b"z" * size


def test_csv_records_with_newlines_inside_quotes_stay_whole(machine):
    rows = [f'{i},"line {i}\nand ""more"" of it",{i * i}' for i in range(3000)]
    (machine.folder / "t.csv").write_text("a,b,c\n" + "\n".join(rows) + "\n")
    machine("spray", "t.csv", "a::t", "--parts", "9")
    parts = machine("files", "show", "a::t", "--json").json["parts"]
    texts = [(machine.data / p["key"]).read_text() for p in parts]
    assert "".join(texts) == (machine.folder / "t.csv").read_text()
    for text in texts[1:]:
        number = text.split(",", 1)[0]
        assert text.startswith(f'{number},"line {number}\n')


def test_many_sources_in_order_with_a_terminator_added_where_one_lacks(machine):
    (machine.folder / "b.csv").write_text("3,4\n5,6")
    (machine.folder / "a.csv").write_text("1,2")
    shown = machine("spray", "a.csv", "b.csv", "a::both", "--parts", "2", "--json").json
    assert any("without a terminator" in w for w in shown["warnings"])
    assert machine("cat", "a::both").out == "1,2\n3,4\n5,6"


def test_json_of_a_wait_less_spray_can_be_watched_to_its_end(machine):
    (machine.folder / "x.dat").write_bytes(bytes(1000))
    first = machine("spray", "x.dat", "a::x", "--format", "fixed:10", "--no-wait", "--json").json
    last = machine("transfers", "watch", first["id"], "--json").json
    assert last["state"] == "SUCCEEDED"
    assert [t["id"] for t in machine("transfers", "list", "--json").json["transfers"]] == [first["id"]]


def test_overwrite_keeps_the_old_file_until_the_new_one_is_there(machine):
    for word in ("old", "new"):
        (machine.folder / "x.dat").write_bytes(word.encode() * 100)
        machine("spray", "x.dat", "a::x", "--format", "fixed:3", *(["--overwrite"] if word == "new" else []))
    assert machine("cat", "a::x").out == "new" * 100
    generations = {Path(f).parent for f in machine.files()}
    assert len(generations) == 2, "the old generation stays for the time of grace"


def test_the_manifest_beside_the_parts_restores_a_lost_catalogue(machine):
    (machine.folder / "x.dat").write_bytes(bytes(range(100)))
    machine("spray", "x.dat", "a::x", "--format", "fixed:10", "--parts", "4")
    before = machine("files", "show", "a::x", "--json").json
    machine.signal(15)
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (machine.state / name).unlink(missing_ok=True)
    assert machine("files", "list", "--json").json["files"] == []
    assert machine("files", "rebuild", "data", "--json").json["restored"] == ["a::x"]
    after = machine("files", "show", "a::x", "--json").json
    assert json.dumps(after["parts"], sort_keys=True) == json.dumps(before["parts"], sort_keys=True)
