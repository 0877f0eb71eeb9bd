from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.formats import deduce, terminator
from fileserver.formats.csv import Csv, deducible
from fileserver.formats.faults import Mismatch, TooLong
from tests.fileserver.formats.drive import answer, scan
from tests.fileserver.formats.machine import first_starts, record_starts
from tests.fileserver.formats.tables import tables

LF, CRLF, CR = b"\n", b"\r\n", b"\r"
forms = st.sampled_from([((LF, CRLF)), (LF,), (LF, CRLF, CR)])


def longest(form, data):
    starts = [*record_starts(form, data), len(data)]
    return max(1, *(after - before for before, after in pairwise(starts)))


@given(data=tables(), ends=forms, window=st.sampled_from([2, 8, 32, 128]), spare=st.integers(0, 40))
def test_what_deduce_proves_is_what_the_machine_finds(data, ends, window, spare):
    free = Csv(terminators=ends)
    if ends == (LF,):
        data = data.replace(CR, b"")  # it would be text behind a closing quote
    form = Csv(terminators=ends, max_record=longest(free, data) + spare)
    targets = range(len(data) + 1)
    for target, expected in zip(targets, first_starts(form, data, targets), strict=True):
        assert answer(deduce.search(form, len(data), target, window), data) in {None, expected}


@given(data=tables(), step=st.integers(1, 64))
def test_exact_gives_the_same_points(data, step):
    targets = list(range(len(data) + 1))
    expected = first_starts(Csv(), data, targets)
    assert scan(Csv(), data, targets, step) == expected
    assert scan(Csv(), data, targets, step, walk=True) == expected


@given(data=tables(), window=st.sampled_from([2, 8, 32, 128]))
def test_terminator_gives_the_same_points_where_quotes_hold_none(data, window):
    free = Csv(quotes=())
    form = Csv(quotes=(), max_record=longest(free, data))
    targets = range(len(data) + 1)
    found = [answer(terminator.search(form, len(data), target, window), data) for target in targets]
    assert found == first_starts(free, data, targets)


def test_ordinary_quotes_are_proved_by_one_window():
    data = b'1,"Smith, John","said ""hi""\nand left",2013-01-01\n' * 2000
    targets = [*range(50_000, 50_060), len(data) - 1]
    for target, expected in zip(targets, first_starts(Csv(), data, targets), strict=True):
        search = deduce.search(Csv(), len(data), target)
        start, end = next(search)
        assert end - start == 16 * 1024
        with pytest.raises(StopIteration) as done:
            search.send(data[start:end])
        assert done.value.value == expected


def test_without_quotes_max_record_bytes_prove_outside():
    data = b"a,b,c\n" * 100_000
    assert answer(deduce.search(Csv(), len(data), 300_001), data) == 300_006


def test_tokens_that_prove_nothing_are_left_to_a_scan():
    data = b'","\n' * 100_000
    assert answer(deduce.search(Csv(), len(data), 200_001), data) is None


@pytest.mark.parametrize(
    ("record", "place"),
    [(b'a,5" disk,b\n', 3), (b'"a"b,c\n', 2), (b'a,"b" x\n', 4), (b'"a""b"c\n', 5)],
)
def test_text_on_both_sides_of_a_quote_is_a_mismatch_at_that_byte(record, place):
    data = record + b"a,b\n" * 100
    with pytest.raises(Mismatch) as caught:
        answer(deduce.search(Csv(), len(data), 100), data)
    assert caught.value.offset == place
    text, caret = caught.value.around.split("\n")
    assert text[len(caret) - 1] == '"'
    assert "--split exact" in caught.value.hint


def test_a_quote_that_contradicts_another_is_a_mismatch():
    data = b'"a","b"\n' + b'c,5",d\n' + b'"e\nf",g\n' * 3
    with pytest.raises(Mismatch) as caught:
        answer(deduce.search(Csv(), len(data), 12), data)
    assert caught.value.offset == data.index(b'5"') + 1


@pytest.mark.parametrize("target", [1, 100, 5000])
def test_a_giant_field_is_a_record_too_long(target):
    data = b'"' + b"a" * 10_000 + b'"\n'
    with pytest.raises(TooLong):
        answer(deduce.search(Csv(max_record=1000), len(data), target, 64), data)


def test_a_field_longer_than_the_limit_behind_a_proved_quote():
    data = b"a,b\n" * 10 + b'c,"d' + b"\n" * 100 + b'"\n' + b"a,b\n" * 10
    with pytest.raises(TooLong) as caught:
        answer(deduce.search(Csv(max_record=64), len(data), 60, 256), data)
    assert caught.value.offset == 42


def test_the_limit_is_the_longest_record_that_is_accepted():
    data = b"x" * 99 + b"\n" + b"y" * 99
    assert answer(deduce.search(Csv(max_record=100), len(data), 1, 8), data) == 100
    assert answer(terminator.search(Csv(max_record=100), len(data), 1, 8), data) == 100
    assert answer(deduce.search(Csv(max_record=99), len(data), 101, 8), data) == 199
    for search in (deduce.search, terminator.search):
        with pytest.raises(TooLong):
            answer(search(Csv(max_record=99), len(data), 1, 8), data)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Csv(), True),
        (Csv(terminators=(b";",)), True),
        (Csv(terminators=(CRLF,)), False),
        (Csv(separators=(b"||",)), False),
        (Csv(quotes=(b'"', b"'")), False),
        (Csv(escapes=(b"\\",)), False),
        (Csv(escapes=(b'"',)), True),
        (Csv(separators=(b" ", b"\t")), True),
        (Csv(quotes=()), False),
    ],
)
def test_which_tokens_can_be_deduced(form, expected):
    assert deducible(form) is expected
