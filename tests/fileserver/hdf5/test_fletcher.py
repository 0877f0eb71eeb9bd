"""The checksum behind a chunk, against the library's own and against its definition."""

import io

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.hdf5.fletcher import _WORDS, fletcher32, matches


def defined(data):
    """Word by word, with the carries of ones' complement."""
    first = second = 0
    padded = data + bytes(len(data) % 2)
    for at in range(0, len(padded), 2):
        first += padded[at] << 8 | padded[at + 1]
        first = (first & 0xFFFF) + (first >> 16)
        second += first
        second = (second & 0xFFFF) + (second >> 16)
    return second << 16 | first


@given(st.binary(max_size=300))
def test_it_is_what_is_defined(data):
    assert fletcher32(data) == defined(data)


@pytest.mark.parametrize("more", [-3, -1, 0, 1, 2, 5])
@pytest.mark.parametrize("byte", [0, 0xFF, None])
def test_long_data_are_taken_piece_by_piece(more, byte):
    size = 2 * _WORDS + more
    data = np.random.default_rng(1).bytes(size) if byte is None else bytes([byte]) * size
    assert fletcher32(data) == defined(data)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_it_is_what_the_library_has_written(compression):
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        values = np.random.default_rng(2).integers(0, 99, 1001, "u1")
        made = file.create_dataset("d", data=values, chunks=(1001,), fletcher32=True, compression=compression)
        _, data = made.id.read_direct_chunk((0,))
    assert matches(data[:-4], data[-4:])
    assert not matches(b"\x01" + data[1:-4], data[-4:])
    assert matches(data[:-4], bytes([data[-3], data[-4], data[-1], data[-2]]))  # of an old library
