"""Chunks that would unpack to far more than a chunk holds."""

import zlib

import h5py
import numpy as np
import pytest
from h5py import h5d

from fileserver.hdf5 import inflated

MIB = 1 << 20


@pytest.fixture
def bomb():
    """A quarter of a MiB that unpacks to 64."""
    packing = zlib.compressobj(9)
    return b"".join(packing.compress(bytes(MIB)) for _ in range(256)) + packing.flush()


def written(path, raw, *, fletcher32=False, mask=0, compression="gzip"):
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "d", shape=(4096,), chunks=(1024,), dtype="f8", compression=compression, shuffle=True, fletcher32=fletcher32
        )
        data[1024:2048] = np.arange(1024.0)
        data.id.write_direct_chunk((0,), raw, mask)
    return path


def check(path, start, count):
    with h5py.File(path) as file:
        inflated.check(h5d.open(file.id, b"d"), start, count)


@pytest.mark.parametrize("fletcher32", [False, True])
def test_a_chunk_that_unpacks_to_more_than_a_chunk_is_refused_before_it_is_unpacked(tmp_path, bomb, fletcher32):
    path = written(tmp_path / "x.h5", bomb + b"0123" * fletcher32, fletcher32=fletcher32)
    with pytest.raises(OSError, match=r"chunk at \(0,\) .* 8192"):
        check(path, (1000,), (100,))
    check(path, (1024,), (3072,))  # the others are sound, or were never written


def test_what_is_packed_twice_is_unpacked_twice(tmp_path, bomb):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        listed = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        listed.set_chunk((1024,))
        listed.set_deflate(9)
        listed.set_deflate(9)
        made = h5d.create(file.id, b"d", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((1024,)), listed)
        made.write_direct_chunk((0,), zlib.compress(bomb, 9) + bytes(70_000))
    with pytest.raises(OSError, match="may unpack to more"):
        check(path, (0,), (1,))


def test_filters_that_hide_what_deflate_made_are_not_trusted(tmp_path, bomb):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        listed = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        listed.set_chunk((1024,))
        listed.set_deflate(9)
        listed.set_shuffle()
        made = h5d.create(file.id, b"d", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((1024,)), listed)
        made.write_direct_chunk((0,), bomb)
    with pytest.raises(OSError, match="may unpack to more"):
        check(path, (0,), (1,))


def test_bytes_that_were_not_packed_are_what_they_are(tmp_path):
    check(written(tmp_path / "x.h5", bytes(8192), mask=0b10), (0,), (4096,))


def test_sound_chunks_pass_whatever_packed_them(tmp_path):
    values = np.random.default_rng(7).random(1 << 18)
    for compression in ("gzip", "lzf", None):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset("d", data=values, chunks=(1 << 15,), compression=compression, shuffle=True)
        check(tmp_path / "x.h5", (0,), (1 << 18,))
        check(tmp_path / "x.h5", (5,), (0,))
