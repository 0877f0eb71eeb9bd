"""Tables as people see them: aligned by what a terminal shows of each cell, the same with and without the library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import show
from client.show import Show

CELL = st.text(st.sampled_from("aé漢 ~x0123"), max_size=12).map(str.strip)


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8), st.booleans())
def test_columns_are_aligned_as_the_library_aligns_them(rows, named):
    title = ["name", "size", "key"] if named else []
    cells, right = [list(row) for row in rows], [False, True, False]
    assert show._aligned(title, cells, right, 1000) == show._folded(title, cells, right)


def test_what_is_wider_than_the_terminal_is_folded(monkeypatch, capsys):
    monkeypatch.setattr(show, "_width", lambda: 20)
    assert show._aligned([], [["x" * 19, "y"]], [False, False], 20) == []
    monkeypatch.setenv("COLUMNS", "20")
    Show(as_json=False).table(("name", ">size"), [("x" * 30, "12")])
    assert capsys.readouterr().out.count("x") == 30


def test_a_row_is_one_line_whatever_is_in_a_cell(capsys):
    Show(as_json=False).table(("key", "why"), [("new\nline.h5", "a\tb")])
    assert capsys.readouterr().out.splitlines()[1].split("  ") == [r"new\nline.h5", r"a\tb"]


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_a_table_of_any_length(count, capsys):
    Show(as_json=False).table(("name", ">size"), ((f"n{number}", str(number)) for number in range(count)))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["name", "size"]
    assert [line.split() for line in lines] == [[f"n{number}", str(number)] for number in range(count)]
