"""What `files verify` advises: the way out that works for what was found, and no other."""

from __future__ import annotations

import pytest

from client.commands.files import unlike
from client.errors import Exit
from fileserver.v1.file_pb2 import PartVerdict, VerifyFileResponse


def found(*verdicts: tuple[int, str, str]) -> VerifyFileResponse:
    parts = [PartVerdict(number=number, plane=plane, key="k", verdict=verdict) for number, plane, verdict in verdicts]
    return VerifyFileResponse(parts=parts)


@pytest.mark.parametrize("other", [[], [(1, "two", "stored")]])
def test_what_was_only_touched_may_be_whole_and_has_to_be_read(other):
    error = unlike("a::b", found((1, "one", "touched"), *other))
    assert error.exit == Exit.CORRUPT
    assert "'cropduster files verify a::b --read' tells whether" in error.message
    assert "replicate" not in error.message
    assert "spray" not in error.message


def test_copies_that_lack_different_parts_make_each_other_whole():
    error = unlike("a::b", found((1, "one", "missing"), (2, "one", "size"), (1, "two", "size"), (2, "two", "missing")))
    assert error.exit == Exit.NOT_FOUND
    assert "(one, two)" in error.message
    assert "'cropduster replicate a::b --plane one' makes it again" in error.message


def test_a_part_on_another_plane_is_no_other_copy():
    error = unlike("a::b", found((1, "one", "missing"), (2, "two", "size")))
    assert "parts of a::b are missing: 1;" in error.message
    assert "replicate" not in error.message


def test_a_plane_that_does_not_answer_may_have_what_is_lost():
    error = unlike("a::b", found((1, "one", "different"), (1, "two", "away")))
    assert error.exit == Exit.CORRUPT
    assert "unless two, which did not answer, has them" in error.message
