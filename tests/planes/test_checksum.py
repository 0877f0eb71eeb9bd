"""Checksums against an independent library, and the algebra that composes them."""

from __future__ import annotations

import anycrc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planes import checksum

MODELS = {"crc64nvme": "CRC64-NVME", "crc32c": "CRC32-ISCSI", "crc32": "CRC32"}
KINDS = pytest.mark.parametrize("kind", MODELS)


def independent(data: bytes, kind: str) -> int:
    return anycrc.Model(MODELS[kind]).calc(data)


@KINDS
@given(data=st.binary(max_size=5000))
def test_an_independent_library_agrees(kind, data):
    assert checksum.compute(data, kind=kind) == independent(data, kind)


@KINDS
@given(first=st.binary(max_size=500), second=st.binary(max_size=500))
def test_two_parts_continue_and_combine_to_the_whole(kind, first, second):
    a, b, whole = (checksum.compute(d, kind=kind) for d in (first, second, first + second))
    assert checksum.compute(second, a, kind) == whole
    assert checksum.combine(a, b, len(second), kind) == whole
    assert checksum.subtract(whole, a, len(second), kind) == b


@KINDS
@given(parts=st.lists(st.binary(max_size=200), max_size=12))
def test_many_parts_combine_to_the_whole(kind, parts):
    pairs = [(checksum.compute(p, kind=kind), len(p)) for p in parts]
    assert checksum.combine_all(pairs, kind) == independent(b"".join(parts), kind)


@KINDS
@given(a=st.integers(0, 2**32 - 1), b=st.integers(0, 2**32 - 1), c=st.integers(0, 2**32 - 1), data=st.data())
def test_combining_is_associative_for_any_length(kind, a, b, c, data):
    m, n = data.draw(st.integers(1, 2**40)), data.draw(st.integers(1, 2**40))  # no bytes have no other checksum than 0
    left = checksum.combine(checksum.combine(a, b, m, kind), c, n, kind)
    right = checksum.combine(a, checksum.combine(b, c, n, kind), m + n, kind)
    assert left == right


@pytest.mark.parametrize("kind", MODELS)
def test_the_check_value_of_the_catalogue(kind):
    known = {"crc64nvme": 0xAE8B14860A799888, "crc32c": 0xE3069283, "crc32": 0xCBF43926}
    assert checksum.compute(b"123456789", kind=kind) == known[kind]
    assert checksum.compute(b"", kind=kind) == 0


@KINDS
@given(data=st.data())
def test_written_forms_are_read_back(kind, data):
    value = data.draw(st.integers(0, 256 ** checksum.WIDTH[kind] - 1))
    assert checksum.from_hex(checksum.to_hex(value, kind)) == value
    assert len(checksum.to_hex(value, kind)) == 2 * checksum.WIDTH[kind]
    assert checksum.from_s3(checksum.to_s3(value, kind)) == value


def test_buffers_are_not_copied_into_bytes_first():
    data = bytearray(b"xx123456789")
    assert checksum.compute(memoryview(data)[2:]) == checksum.compute(b"123456789")


@pytest.mark.parametrize("length", [-1, 2**62 + 1])
def test_lengths_for_which_the_library_is_wrong_are_refused(length):
    with pytest.raises(ValueError, match="outside"):
        checksum.combine(1, 2, length)


def test_what_is_not_known_of_a_piece_is_not_known_of_the_whole():
    one, two = checksum.compute(b"one"), checksum.compute(b"two")
    assert checksum.combine_all([(one, 3), (None, 0), (two, 3)]) == checksum.compute(b"onetwo")
    assert checksum.combine_all([(one, 3), (None, 3)]) is None
    assert checksum.combine_all([]) == 0
