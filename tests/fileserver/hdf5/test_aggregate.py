"""Which chunks of many files are taken as they are, and which are put together: only arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.hdf5.aggregate import Cut, Member, Part, Placed, agrees, offsets, rows
from fileserver.hdf5.model import Facts
from fileserver.hdf5.types import Number
from fileserver.hdf5.typing_rules import Typed


def members(*extents):
    return [Member(extent, placeable=True) for extent in extents]


TABLE = {
    "one file": (members(75), 25, 0, [Placed(0, 0, 0), Placed(1, 0, 1), Placed(2, 0, 2)]),
    "aligned files": (members(50, 25), 25, 0, [Placed(0, 0, 0), Placed(1, 0, 1), Placed(2, 1, 0)]),
    "the last chunk is not full": (members(25, 10), 25, 0, [Placed(0, 0, 0), Placed(1, 1, 0)]),
    "a boundary inside of a chunk": (
        members(30, 30),
        25,
        0,
        [Placed(0, 0, 0), Cut(1, (Part(0, 25, 30, 0), Part(1, 0, 20, 5))), Cut(2, (Part(1, 20, 30, 0),))],
    ),
    "files that are shorter than a chunk": (
        members(10, 10, 10),
        25,
        0,
        [
            Cut(0, (Part(0, 0, 10, 0), Part(1, 0, 10, 10), Part(2, 0, 5, 20))),
            Cut(1, (Part(2, 5, 10, 0),)),
        ],
    ),
    "an empty file between": (members(25, 0, 25), 25, 0, [Placed(0, 0, 0), Placed(1, 2, 0)]),
    "chunks of another kind": (
        [Member(25, placeable=False), Member(25, placeable=True)],
        25,
        0,
        [Cut(0, (Part(0, 0, 25, 0),)), Placed(1, 1, 0)],
    ),
    "a file that came later": (members(50, 25), 25, 1, [Placed(2, 1, 0)]),
    "a file that came later, behind a chunk that was not full": (
        members(30, 20),
        25,
        1,
        [Cut(1, (Part(0, 25, 30, 0), Part(1, 0, 20, 5)))],
    ),
    "nothing new": (members(50), 25, 1, []),
    "no file": ([], 25, 0, []),
}


@pytest.mark.parametrize("case", TABLE)
def test_rows(case):
    given_, chunk, there, expected = TABLE[case]
    assert list(rows(given_, chunk, there)) == expected


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=8), st.integers(1, 15), st.integers(0, 8))
def test_rows_make_the_whole_and_later_files_only_extend_it(extents, chunk, there):
    all_ = [Member(extent, placeable) for extent, placeable in extents]
    there = min(there, len(all_))
    data = [np.arange(member.extent) + 1000 * i for i, member in enumerate(all_)]
    whole = np.concatenate([*data, np.zeros(0, int)])
    made = np.full(-(-len(whole) // chunk) * chunk, -1)

    def write(row):
        if isinstance(row, Placed):
            piece = data[row.member][row.source_row * chunk : (row.source_row + 1) * chunk]
            made[row.row * chunk : row.row * chunk + len(piece)] = piece
        else:
            for part in row.parts:
                at = row.row * chunk + part.at
                made[at : at + part.stop - part.start] = data[part.member][part.start : part.stop]

    first = list(rows(all_[:there], chunk))
    later = list(rows(all_, chunk, there))
    for row in (*first, *later):
        write(row)
    assert np.array_equal(made[: len(whole)], whole)
    full = offsets(all_)[there] // chunk
    assert all(row.row >= full for row in later)


def test_a_chunk_has_an_extent():
    with pytest.raises(ValueError, match="0 elements"):
        list(rows(members(1), 0))


def facts(dims, kind="f4", **more):
    return Facts(Typed(Number(kind[0].upper(), int(kind[1]), "LE"), exact=True), 4, dims, None, "chunked", **more)


def test_only_what_is_alike_continues_another():
    first = facts((75, 89, 186))
    assert agrees(first, facts((60, 89, 186)), 0) == ""
    for other, axis, words in (
        (facts((75, 89, 186), "f8"), 0, "of another type"),
        (facts((75, 89)), 0, "2 dimensions, not 3"),
        (facts((75, 90, 186)), 0, "dimension 1 has 90 elements, not 89"),
        (facts((75, 89, 186)), 3, "no dimension 3"),
        (facts(None), 0, "no dimension 0"),
        (facts((75, 89, 186), fill=1.0), 0, "another fill value"),
    ):
        assert words in agrees(first, other, axis)
