import hypothesis.strategies as st
import pytest
from hypothesis import given

from client import words
from fileserver.formats.csv import Csv, problems, shown, strategy, synchronous

LF, CRLF, CR = b"\n", b"\r\n", b"\r"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Csv(), True),
        (Csv(terminators=(CR, LF, CRLF)), True),
        (Csv(terminators=(CRLF,)), True),
        (Csv(separators=(b"||",)), True),
        (Csv(separators=(b"\n\n",)), False),
        (Csv(terminators=(b"\n\n",)), False),
        (Csv(separators=(b"ab",), terminators=(b"bc",)), False),
        (Csv(separators=(b"abc",), terminators=(b"b",)), False),
        (Csv(terminators=(b"ab", b"aab")), True),
        (Csv(escapes=(b"\\",)), False),
    ],
)
def test_whether_terminators_show_wherever_one_looks(form, expected):
    assert synchronous(form) is expected


@pytest.mark.parametrize(
    ("form", "split", "warned"),
    [
        (Csv(), "deduce", False),
        (Csv(split="exact"), "exact", False),
        (Csv(split="terminator"), "terminator", False),
        (Csv(quotes=()), "terminator", False),
        (Csv(separators=(b"||",)), "exact", True),
        (Csv(split="terminator", escapes=(b"\\",)), "exact", True),
        (Csv(quotes=(), terminators=(b"\n\n",)), "exact", True),
    ],
)
def test_how_tokens_are_split(form, split, warned):
    found, warning = strategy(form)
    assert (found, bool(warning)) == (split, warned)


def test_a_sensible_format_has_no_problems():
    assert problems(Csv()) == {}
    assert problems(Csv(escapes=(b'"',))) == {}


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (Csv(terminators=()), "terminators"),
        (Csv(terminators=(b"",)), "terminators"),
        (Csv(separators=(b"\n",)), "terminators"),
        (Csv(escapes=(b",",)), "escapes"),
        (Csv(quotes=(b",",)), "quotes"),
        (Csv(max_record=0), "max_record"),
        (Csv(split="guess"), "split"),
    ],
)
def test_what_is_wrong_is_said_by_field(form, field):
    assert set(problems(form)) == {field}


@given(st.binary(min_size=1, max_size=6))
def test_tokens_are_shown_as_the_command_line_takes_them(token):
    assert words.parse_tokens(shown(token)) == (token,)
    assert shown(token).isprintable()
    assert shown(token).strip()


def test_tokens_that_clash_are_named_by_option_and_as_typed():
    found = problems(Csv(separators=(b"\n", b";"), quotes=(b";",), escapes=(b"\xff", b"")))
    assert found == {
        "terminators": r"--terminator \n is also a --separator; a token can mean one thing only",
        "quotes": "--quote ; is also a --separator; a token can mean one thing only",
        "escapes": "--escape: an empty token matches everywhere",
    }
