from __future__ import annotations

import csv
import io
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from client.records import first_records
from fileserver.v1.transfer_pb2 import Csv, Fixed, Format

CELL = st.text(st.sampled_from('a ,"\r\n\t\\|'), max_size=6)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    st.lists(st.lists(CELL, min_size=1, max_size=3), max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(0, 200), max_size=4),
    st.integers(1, 8),
    st.booleans(),
)
def test_records_of_csv_are_those_that_its_writer_wrote(rows, end, places, count, bom):
    written = []
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator=end, quoting=csv.QUOTE_ALL).writerow(row)
        written.append(line.getvalue().encode())
    if bom and written:
        written[0] = b"\xef\xbb\xbf" + written[0]
    data = b"".join(written)
    assert list(first_records(cut(data, places), Format(csv=Csv()), count)) == written[:count]


@given(
    st.binary(max_size=60).map(lambda b: bytes(b'a,"\n\r |\\'[x % 8] for x in b)),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_where_the_stream_is_cut_makes_no_difference(data, places):
    for form in (
        Csv(),
        Csv(no_quote=True),
        Csv(escapes=[b"\\"]),
        Csv(separators=[b"||", b"|"], terminators=[b"\r\n", b" a"], quotes=[b'"', b'""']),
    ):
        whole = list(first_records([data], Format(csv=form), 100))
        assert list(first_records(cut(data, places), Format(csv=form), 100)) == whole
        assert b"".join(whole) == data


def records(data: bytes, **form) -> list[bytes]:
    return list(first_records([data], Format(csv=Csv(**form)), 100))


def test_a_quote_inside_an_unquoted_field_is_data():
    assert records(b'5" disk,a\nb,c\n') == [b'5" disk,a\n', b"b,c\n"]


def test_a_quote_opens_after_blanks():
    assert records(b'a, "x\ny"\nz\n') == [b'a, "x\ny"\n', b"z\n"]


def test_a_quote_behind_a_closed_one_and_a_blank_is_data():
    assert records(b'"a" "b\nc"\n') == [b'"a" "b\n', b'c"\n']


def test_another_quote_does_not_close():
    assert records(b"'a\"\nb'\nc\n", quotes=[b'"', b"'"]) == [b"'a\"\nb'\n", b"c\n"]


def test_an_escape_takes_the_next_token_as_data():
    assert records(b'"a\\"\nb"\nc\\\nd\n', escapes=[b"\\"]) == [b'"a\\"\nb"\n', b"c\\\nd\n"]


def test_the_longest_token_counts():
    assert records(b"a\r\nb\n", terminators=[b"\r", b"\r\n"]) == [b"a\r\n", b"b\n"]


def test_no_more_is_read_than_needed():
    def pieces():
        yield b"a\nb\nc\n" + b"x" * 64
        raise AssertionError

    assert list(first_records(pieces(), Format(csv=Csv()), 2)) == [b"a\n", b"b\n"]


@given(st.binary(max_size=50), st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(0, 50), max_size=4))
def test_fixed_records_are_cut_by_length(data, length, count, places):
    found = list(first_records(cut(data, places), Format(fixed=Fixed(record_size=length)), count))
    assert b"".join(found) == data[: length * count]
    assert all(len(record) == length for record in found[:-1])
