from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fileserver.formats.csv import BOM, Csv
from fileserver.formats.faults import Mismatch, TooLong, excerpt
from fileserver.formats.fixed import Fixed
from fileserver.formats.records import count_quotes, look, records, terminated
from tests.fileserver.formats.machine import record_starts
from tests.fileserver.formats.tables import tables


def cut(data, step):
    return [data[i : i + step] for i in range(0, len(data), step)]


@settings(deadline=None)
@given(data=tables(), step=st.integers(1, 50))
def test_records_of_a_stream_are_those_of_the_machine(data, step):
    edges = [*record_starts(Csv(), data), len(data)]
    expected = [data[start:end] for start, end in pairwise(edges) if start < end]
    assert list(records(Csv(), cut(data, step))) == expected


def test_terminators_count_inside_quotes_if_they_are_said_not_to_be_there():
    assert list(records(Csv(split="terminator"), [b'"a\nb"\n'])) == [b'"a\n', b'b"\n']


def test_fixed_records_and_a_rest():
    assert list(records(Fixed(3), [b"ab", b"", b"cdefg", b"hi"])) == [b"abc", b"def", b"ghi"]
    with pytest.raises(Mismatch):
        list(records(Fixed(3), [b"abcd"]))


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_record_without_end_is_too_long_before_the_stream_ends(step):
    def endless():
        yield b"a\n"
        while True:
            yield b"x" * step

    found = records(Csv(max_record=100), endless())
    assert next(found) == b"a\n"
    with pytest.raises(TooLong) as caught:
        next(found)
    assert (caught.value.offset, caught.value.record) == (2, 2)


def test_the_longest_record_allowed():
    assert list(records(Csv(max_record=3), [b"ab\ncde"])) == [b"ab\n", b"cde"]
    with pytest.raises(TooLong):
        list(records(Csv(max_record=3), [b"abc\n"]))
    with pytest.raises(TooLong):
        list(records(Csv(max_record=3), [b"abcd"]))


def test_quotes_are_counted_in_any_buffer():
    assert count_quotes(Csv(), b'"a""') == 3
    assert count_quotes(Csv(), memoryview(bytearray(b'x"'))) == 1
    assert count_quotes(Csv(quotes=(b"'",)), b"\"'") == 1
    assert count_quotes(Csv(quotes=()), b'"') == 0
    assert count_quotes(Csv(), b"") == 0


@pytest.mark.parametrize(
    "head", ["a,b\n".encode("utf-16"), "a,b\n".encode("utf-16-le"), b"\xfe\xff\x00a", b"a,b\nc\x00"]
)
def test_utf16_is_told_by_its_first_bytes(head):
    with pytest.raises(Mismatch, match="looks like UTF-16") as caught:
        look(Csv(), head)
    assert "iconv" in caught.value.hint


def test_what_does_not_look_like_utf16():
    look(Csv(), b"")
    look(Csv(), BOM + "ä,b\n".encode())
    look(Csv(), b"a" * 4096 + b"\x00")
    look(Csv(separators=(b"\x00",)), b"a\x00b\n")


BACKSLASH = Csv(escapes=(b"\\",))


@pytest.mark.parametrize(
    ("form", "tail", "whole", "expected"),
    [
        (Csv(), b"", True, True),
        (Csv(), BOM, True, True),
        (Csv(), BOM, False, False),
        (Csv(), b"a\n", True, True),
        (Csv(), b"a\r\n", False, True),
        (Csv(), b"a", True, False),
        (Csv(terminators=(b"\r\n",)), b"a\n", True, False),
        (Csv(terminators=(b"\r\n",)), b"\n", False, None),
        (BACKSLASH, b"a\\\n", True, False),
        (BACKSLASH, b"a\\\r\n", True, False),
        (BACKSLASH, b"a\\\\\n", True, True),
        (BACKSLASH, b"\\\\\n", False, None),
        (Csv(escapes=(b"\\",), terminators=(b"\n",)), b"a\\\r\n", True, True),
    ],
)
def test_whether_a_source_ends_with_a_terminator(form, tail, whole, expected):
    assert terminated(form, tail, whole=whole) is expected


def test_an_excerpt_has_one_column_a_byte():
    text, caret = excerpt(b"x" * 100 + '"ä\n'.encode() + b"y" * 100, 100).split("\n")
    assert len(text) == 60
    assert text[30:34] == '"··\N{SYMBOL FOR LINE FEED}'
    assert caret == " " * 30 + "^"
    assert excerpt(b"ab", 2) == "ab\n  ^"
