"""Plans over planes: what is looked at, what is said about it, and how much of it one transfer may read."""

from __future__ import annotations

import os

import pytest

from fileserver.errors import InvalidSpec
from fileserver.transfer import survey
from fileserver.transfer.manifest import Literal
from fileserver.transfer.planning import Planner
from fileserver.transfer.spec import Csv, Fixed, Location, Spec, Spray
from planes.errors import Refused
from planes.memory import LIMITS, MemoryPlane
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.given import Planes


@pytest.fixture
def plane():
    return MemoryPlane("data")


@pytest.fixture
def planner(store, plane):
    return Planner(Planes(data=plane), store)


def spray(form, **more) -> Spec:
    facts = {"parts": 2, "part_size": 0, "natural_order": False, "no_split": False} | more
    return Spec(Spray((Location("data", "in/*"),), "a::x", "data", format=form, **facts))


async def fill(plane, *contents: bytes) -> None:
    for number, content in enumerate(contents):
        await plane.put(f"in/{number:03}", content, upload_id="setup")


@pytest.mark.parametrize("no_split", [True, False])
async def test_every_source_that_lacks_its_last_terminator_gets_one_and_some_are_named(planner, plane, no_split):
    await fill(plane, *[b"a,b", b"c,d\n"] * 25, b"last")
    drawing = await planner.draw(spray(Csv(), no_split=no_split), "t1")
    literals = [piece for part in drawing.parts() for piece in part.pieces if isinstance(piece, Literal)]
    assert literals == [Literal(b"\n")] * 25
    named = [note for note in drawing.warnings if "ends without a terminator" in note]
    assert [note.split()[0] for note in named] == [f"data:in/{number:03}" for number in range(0, 40, 2)]
    assert "5 more sources end without a terminator, and get one" in drawing.warnings
    assert drawing.plan.size == sum(part.size for part in drawing.parts())


async def test_a_part_that_no_object_can_hold_is_refused_before_anything_is_written(planner, plane, monkeypatch):
    await fill(plane, bytes(100))
    monkeypatch.setattr("planes.memory.LIMITS", LIMITS.__class__(**{**fields(), "max_object": 40}))
    with pytest.raises(InvalidSpec, match="part 1 would have 50 bytes"):
        await planner.draw(spray(Fixed(1)), "t1")
    assert (await planner.draw(spray(Fixed(1), parts=4), "t1")).plan.parts == 4


def fields() -> dict[str, int]:
    return {name: getattr(LIMITS, name) for name in LIMITS.__slots__}


async def test_a_wildcard_that_finds_more_than_one_transfer_may_read_is_refused(planner, plane, monkeypatch):
    await fill(plane, *[b"x"] * 6)
    monkeypatch.setattr(survey, "MOST", 6)
    assert len((await planner.draw(spray(Fixed(1)), "t1")).sources) == 6
    monkeypatch.setattr(survey, "MOST", 5)
    with pytest.raises(InvalidSpec, match=r"data:in/\* matches more objects than the 5"):
        await planner.draw(spray(Fixed(1)), "t1")


async def test_a_wildcard_comes_by_names_that_are_no_text_unless_it_means_them(tmp_path):
    for name in (b"a.csv", b"b\xff.tmp", b"c\xff.csv"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    data = PosixPlane("data", PosixSettings(path=tmp_path))
    assert [info.key async for info in survey.matching(data, "", "a*")] == ["a.csv"]
    with pytest.raises(Refused, match=r"data:c\\xff.csv is not UTF-8.* matches \*\.csv: rename it"):
        [info async for info in survey.matching(data, "", "*.csv")]
    (tmp_path / os.fsdecode(b"c\xff.csv")).unlink()
    assert [info.key async for info in survey.matching(data, "", "?.csv")] == ["a.csv"]
    assert [info.key async for info in survey.matching(data, "", "*.csv")] == ["a.csv"]


async def test_sources_come_in_the_order_asked_for_however_they_answer(planner, plane):
    for number in (1, 2, 10):
        await plane.put(f"in/part{number}", b"x" * number, upload_id="setup")
    drawn = await planner.draw(spray(Fixed(1)), "t1")
    assert [s.key for s in drawn.sources] == ["in/part1", "in/part10", "in/part2"]
    drawn = await planner.draw(spray(Fixed(1), natural_order=True), "t1")
    assert [s.key for s in drawn.sources] == ["in/part1", "in/part2", "in/part10"]
