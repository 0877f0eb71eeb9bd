"""What a part inherits of the source that it is a copy of."""

from __future__ import annotations

import dataclasses

import pytest

from fileserver.transfer.described import Described, described
from fileserver.transfer.manifest import Extent, Literal, Part
from planes.memory import MemoryPlane
from planes.posix import PosixPlane, PosixSettings

NOTHING = Described()


@pytest.fixture
async def source():
    plane = MemoryPlane("source")
    given = {"made-by": "me", "cropduster-attempt": "t-1", "Cropduster_crc64nvme": "x", "name": "Zoë", "bad": "a\nb"}
    await plane.put("x", b"12345", upload_id="s", content_type="text/csv", metadata=given)
    return plane


def part(*pieces: Extent | Literal) -> Part:
    return Part(1, "k", pieces)


WHOLE = Extent("source", "x", "1", 0, 5, 5)


async def test_a_whole_object_gives_its_type_and_what_others_said_of_it(source):
    target = MemoryPlane("target")
    assert await described(lambda _: source, target, part(WHOLE)) == Described("text/csv", {"made-by": "me"})


@pytest.mark.parametrize(
    "pieces",
    [(), (Literal(b"x"),), (WHOLE, Literal(b"\n")), (WHOLE, WHOLE), (dataclasses.replace(WHOLE, end=4),)],
    ids=["nothing", "literal", "with a terminator", "two", "a range"],
)
async def test_other_parts_inherit_nothing(source, pieces):
    assert await described(lambda _: source, MemoryPlane("target"), part(*pieces)) == NOTHING


async def test_planes_that_keep_nothing_are_not_asked(source, tmp_path):
    files = PosixPlane("files", PosixSettings(path=tmp_path))
    assert await described(lambda _: source, files, part(WHOLE)) == NOTHING
    assert await described(lambda _: files, source, part(WHOLE)) == NOTHING
    await files.aclose()


async def test_a_source_that_has_vanished_is_left_for_the_copy_to_find(source):
    gone = dataclasses.replace(WHOLE, key="gone")
    assert await described(lambda _: source, MemoryPlane("target"), part(gone)) == NOTHING


async def test_metadata_that_the_target_has_no_room_for_stays_behind_and_the_type_goes():
    source, target = MemoryPlane("source"), MemoryPlane("target")
    await source.put("x", b"12345", upload_id="s", content_type="text/csv", metadata={"a": "b" * 8000})
    assert await described(lambda _: source, target, part(WHOLE)) == Described("text/csv", {})
