from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import words
from client.words import Csv, Fixed, Kind, Location, WordError

TOKENS = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=4, unique=True).map(tuple)


@given(TOKENS)
def test_what_is_written_of_tokens_is_read_as_the_same_tokens(tokens):
    assert words.parse_tokens(words.write_tokens(tokens)) == tokens


@given(st.characters(exclude_categories=["Cs"]))
def test_one_character_is_itself(letter):
    assert words.parse_tokens(letter) == (letter.encode(),)


@given(st.text() | st.text(st.sampled_from("\\,nrtx0aF;")))
def test_any_text_is_tokens_or_refused(text):
    try:
        tokens = words.parse_tokens(text)
    except WordError:
        assert len(text) > 1
    else:
        assert all(tokens)
        assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (",", (b",",)),
        ("\\", (b"\\",)),
        ("", ()),
        (r"\n,\r\n", (b"\n", b"\r\n")),
        (r"\t", (b"\t",)),
        (r"\,,;", (b",", b";")),
        (r"\x01\xfF", (b"\x01\xff",)),
        ("||", (b"||",)),
        ("é", ("é".encode(),)),
        ("a,a,b", (b"a", b"b")),
    ],
)
def test_tokens(text, tokens):
    assert words.parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["a,,b", ",a", "a,", r"\q1", "a\\", r"\xg0", r"\x1"])
def test_tokens_that_mean_nothing_are_refused(text):
    with pytest.raises(WordError):
        words.parse_tokens(text)


@given(st.integers(1, words.LARGEST))
def test_bytes_are_a_size(size):
    assert words.parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("256MiB", 256 << 20),
        ("1GiB", 1 << 30),
        ("10MB", 10_000_000),
        ("1.5KiB", 1536),
        ("2 kb", 2000),
        ("7B", 7),
        ("0.5KB", 500),
    ],
)
def test_sizes(text, size):
    assert words.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "MiB", "10M", "1e3", "\u0661", "9EiB", "9999999TiB", "1.0001KB", "1,000"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(WordError):
        words.parse_size(text)


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.0", "2147483648", "²"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(WordError):
        words.parse_count(text)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("-", Kind.STREAM),
        ("a.csv", Kind.LOCAL),
        ("./cloud:x", Kind.LOCAL),
        ("/cloud:x", Kind.LOCAL),
        ("../x:y", Kind.LOCAL),
        ("in/cloud:x", Kind.LOCAL),
        (":x", Kind.LOCAL),
        ("a::b", Kind.LOGICAL),
        ("a::b::c", Kind.LOGICAL),
        ("cloud:in/a.csv", Kind.MAYBE_PLANE),
        ("cloud:in/a::b.csv", Kind.MAYBE_PLANE),
        ("cloud:", Kind.MAYBE_PLANE),
        ("-x", Kind.LOCAL),
    ],
)
def test_what_a_word_is_by_its_looks(word, kind):
    assert words.kind_of(word) is kind


def test_only_the_first_colon_parts_plane_and_key():
    assert words.split_plane("cloud:in/a:b") == Location("cloud", "in/a:b")


def test_formats():
    assert words.parse_format("fixed:155") == Fixed(155)
    assert words.parse_format("csv") == Csv()
    for text in ("fixed", "fixed:", "fixed:0", "fixed:-1", "fixed:x", "csv:1", "CSV", "", "parquet"):
        with pytest.raises(WordError, match="fixed:"):
            words.parse_format(text)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.csv"], Csv()),
        (["a.CSV", "b.csv"], Csv()),
        (["lz:in/part*.tsv"], Csv(separators=(b"\t",))),
        (["a.csv", "b.tsv"], None),
        (["a.csv", "b"], None),
        (["a.csv.gz"], None),
        (["csv"], None),
    ],
)
def test_a_format_is_taken_from_names_that_agree(names, expected):
    assert words.format_of_names(names) == expected


def test_a_name_that_is_no_utf8_is_refused_in_words_that_can_be_printed():
    with pytest.raises(WordError) as caught:
        words.check_text("a\udcff")
    assert str(caught.value).encode()
