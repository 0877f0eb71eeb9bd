import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fileserver.formats import exact, parity
from fileserver.formats.csv import BOM, Csv, problems
from fileserver.formats.faults import TooLong
from tests.fileserver.formats.drive import scan
from tests.fileserver.formats.machine import first_starts

LF, CRLF, CR = b"\n", b"\r\n", b"\r"

simple_forms = st.sampled_from(
    [
        Csv(),
        Csv(quotes=()),
        Csv(terminators=(CRLF,)),
        Csv(terminators=(CR, LF, CRLF)),
        Csv(terminators=(CR, CRLF)),
        Csv(terminators=(CR, LF)),
        Csv(separators=(b"\t",)),
        Csv(separators=(b" ", b"\t")),
        Csv(separators=(b" ", b"\t"), escapes=(b"\\",)),
        Csv(separators=(b",", b";")),
        Csv(separators=()),
        Csv(escapes=(b"\\",)),
        Csv(escapes=(b'"',)),
        Csv(escapes=(b"\\", b"a"), terminators=(CRLF, LF, CR)),
        Csv(escapes=(b"\\",), terminators=(CRLF,)),
    ]
)
exotic_forms = st.sampled_from(
    [
        Csv(separators=(b"||", b"|a")),
        Csv(quotes=(b'"', b"'")),
        Csv(quotes=(b'"', b'""a')),
        Csv(quotes=(b'"""', b"'"), escapes=(b"\\",)),
        Csv(terminators=(b"\n\n", b"|")),
        Csv(separators=(b",", b",,"), terminators=(b",\n", LF)),
        Csv(separators=(b"\n\n",), terminators=(LF,)),
        Csv(escapes=(b"\\\\", b"aa")),
        Csv(separators=(b" ", b"  "), quotes=(b" '", b'"')),
    ]
)
pieces = st.sampled_from(
    [
        b'"',
        b'""',
        b",",
        b";",
        b"a",
        b"b",
        b" ",
        b"\t",
        LF,
        CRLF,
        CR,
        b"\\",
        b"|",
        b"||",
        b"'",
        BOM,
        b"\xef",
        b"\xbb",
        b"\xbf",
        b'","',
        b"!",
    ]
)
anything = st.lists(pieces, max_size=40).map(b"".join)


@settings(max_examples=5 * settings().max_examples)
@given(form=simple_forms, data=anything, step=st.integers(1, 9))
@example(form=Csv(), data=b'a,5" x\nb\n', step=4)
@example(form=Csv(), data=b'"a' + b" " * 30 + b'"\n' + b" " * 30 + b'"b\n"\n', step=64)
def test_ranges_joined_equal_the_machine(form, data, step):
    targets = list(range(len(data) + 1))
    assert scan(form, data, targets, step) == first_starts(form, data, targets)


@settings(max_examples=5 * settings().max_examples)
@given(form=simple_forms | exotic_forms, data=anything, step=st.integers(1, 9))
@example(form=Csv(), data=b'"a""b\n', step=3)
@example(form=Csv(), data=b'  "a\n', step=3)
def test_walk_equals_the_machine(form, data, step):
    assert not problems(form)
    targets = list(range(len(data) + 1))
    assert scan(form, data, targets, step, walk=True) == first_starts(form, data, targets)


@given(form=simple_forms, data=anything, step=st.integers(1, 9), place=st.integers(0, 100))
def test_a_scan_may_begin_at_any_record_start(form, data, step, place):
    begin = first_starts(form, data, [place])[0]
    targets = list(range(begin, len(data) + 1))
    assert scan(form, data, targets, step, begin) == first_starts(form, data, targets)


BYTES = [b'"', b",", b"\n", b"\r\n", b"a", b" ", b'""', b"\\", b"bcd", b"\r", BOM]


@pytest.mark.parametrize(
    "weights", [[4, 4, 1, 1, 6, 2, 1, 1, 4, 1, 0], [1, 3, 1, 0, 6, 0, 1, 0, 9, 0, 0], [9, 1, 1, 1, 1, 9, 1, 1, 1, 1, 1]]
)
@pytest.mark.parametrize(
    "form", [Csv(), Csv(terminators=(CRLF,), escapes=(b"\\",)), Csv(separators=(b" ",)), Csv(separators=(b" ", b"\t"))]
)
@pytest.mark.parametrize("flips", [64, 3, 0])
def test_blocks_of_many_words(monkeypatch, form, weights, flips):
    """Both ways of following quotes; few flips allowed leave more blocks to the slower one."""
    monkeypatch.setattr(parity, "_FLIPS", flips)
    for seed in range(5):
        data = b"".join(random.Random(seed).choices(BYTES, weights, k=800))
        targets = list(range(0, len(data) + 1, 3))
        expected = first_starts(form, data, targets)
        for step, block in ((len(data), len(data)), (700, 130), (333, 64)):
            assert scan(form, data, targets, step, block=block) == expected
        assert scan(form, data, targets, 500, walk=True) == expected


def test_ordinary_blocks_need_no_second_way(monkeypatch):
    monkeypatch.delattr(exact, "Turns")
    record = b'1,"Smith, John","said ""hi""\nand left", "x" ,2013-01-01\n'
    found = scan(Csv(), record * 20_000, [500_000, 1_000_000], 300_000)
    assert found == [-(-target // len(record)) * len(record) for target in (500_000, 1_000_000)]


def test_long_stretches_of_spaces():
    data = b'a,"b' + b" " * 100_000 + b'",c\n' + b" " * 100_000 + b'"d\n",e\n'
    form = Csv(max_record=len(data))
    targets = [10, 100_020, len(data) - 5]
    assert scan(form, data, targets, len(data)) == first_starts(form, data, targets)


@pytest.mark.parametrize("walk", [False, True])
@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_a_record_longer_than_the_limit_is_named(walk, step):
    data = b"ab\ncd\n" + b"x" * 20 + b"\nef\ngh\n"
    assert scan(Csv(max_record=21), data, [5, 28], step, walk=walk) == [6, 30]
    with pytest.raises(TooLong) as caught:
        scan(Csv(max_record=20), data, [5, 28], step, walk=walk)
    assert (caught.value.offset, caught.value.record) == (6, 3)


@pytest.mark.parametrize("walk", [False, True])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_records_behind_the_last_target_are_not_judged(walk, step):
    data = b"ab\ncd\n" + b"x" * 20 + b"\n"
    assert scan(Csv(max_record=10), data, [4], step, walk=walk) == [6]


@pytest.mark.parametrize("walk", [False, True])
def test_a_quote_that_never_closes_is_a_record_too_long(walk):
    data = b'a,b\nc,"d\n' + b"e,f\n" * 1000
    with pytest.raises(TooLong) as caught:
        scan(Csv(max_record=100), data, [len(data) // 2], 64, walk=walk)
    assert (caught.value.offset, caught.value.record) == (4, 2)
