import pytest

from fileserver.formats.csv import BOM, Csv
from fileserver.formats.faults import Mismatch, excerpt
from fileserver.formats.records import count_quotes, look, terminated


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
