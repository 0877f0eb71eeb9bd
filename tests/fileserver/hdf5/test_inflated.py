"""Chunks that would unpack to far more than a chunk holds."""

import bz2
import zlib

import h5py
import hdf5plugin
import numpy as np
import pytest
from h5py import h5d, h5z

from fileserver.hdf5 import inflated, packed

MIB = 1 << 20


@pytest.fixture(scope="module")
def bomb():
    """80 KiB that unpack to 80 MiB."""
    packing = zlib.compressobj(9)
    return b"".join(packing.compress(bytes(MIB)) for _ in range(80)) + packing.flush()


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


FILTERS = {
    "gzip": {"compression": "gzip"},
    "lzf": {"compression": "lzf"},
    "szip": {"compression": "szip"},
    "none": {},
    "bzip2": hdf5plugin.BZip2(),
    "blosc": hdf5plugin.Blosc(),
    "blosc2": hdf5plugin.Blosc2(),
    "lz4": hdf5plugin.LZ4(),
    "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
    "bitshuffle-lz4": hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle-zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "zfp": hdf5plugin.Zfp(reversible=True),
    "zstd": hdf5plugin.Zstd(),
    "sz": hdf5plugin.SZ(absolute=0.1),
    "sz3": hdf5plugin.SZ3(absolute=0.1),
    "sperr": hdf5plugin.Sperr(rate=16),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(512, 33), (7, 65), (1000,)])  # padded, where a filter cuts it into blocks
def test_sound_chunks_pass_whatever_packed_them(tmp_path, monkeypatch, name, shape):
    monkeypatch.setattr(inflated, "HARMLESS", 0)  # so that small ones are looked at, too
    path = tmp_path / "x.h5"
    more = {} if name == "none" or (name == "sperr" and len(shape) == 1) else {"fletcher32": True}
    packing = FILTERS[name] if more else {}
    with h5py.File(path, "w") as file:
        values = np.random.default_rng(7).random(shape)
        file.create_dataset("d", data=values, chunks=shape, **packing, **more)
        file.create_dataset("same", data=np.ones(shape), chunks=shape, **packing, **more)
        for whole, kind in (("scaled", "<i4"), ("small", "<i2")):
            file.create_dataset(
                whole, data=(values * 100).astype(kind), chunks=shape, scaleoffset=0, compression="gzip"
            )
    with h5py.File(path) as file:
        for each in ("d", "same", "scaled", "small"):
            inflated.check(file[each].id, (0,) * len(shape), shape)


def word(value, size=8, order="big"):
    return value.to_bytes(size, order)


HUGE = 1 << 30
BOMBS = {
    "lzf": b"\xe0\xff\x00" * (1 << 19),
    "szip": word(HUGE, 4, "little") + bytes(20),
    "bzip2": bz2.compress(bytes(MIB)),
    "blosc": bytes([2, 1, 0x21, 8]) + word(HUGE, 4, "little") + bytes(32),
    "blosc2": b"\x9e\xa8b2frame\0\xd2" + word(97, 4) + bytes(15) + word(HUGE) + bytes(80),
    "lz4": word(HUGE) + word(8192, 4) + bytes(20),
    "bitshuffle-lz4": word(HUGE) + word(8192, 4) + bytes(20),
    "bitshuffle-zstd": word(HUGE) + word(8192, 4) + bytes(20),
    "zstd": b"\x28\xb5\x2f\xfd\x80\x58" + word(HUGE, 4, "little") + bytes(20),
    "sz3": bytes(40)
    + b"\x01"
    + word(HUGE, 8, "little") * 2
    + bytes(47)
    + word(64, 4, "little"),  # which ends the process, if the plugin is asked
    "sperr": b"\0\x81" + word(HUGE, 8, "little") + bytes(8),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_says_that_it_unpacks_to_much_more_than_a_chunk_is_not_unpacked(tmp_path, name):
    side = 32 if name == "sperr" else 1024
    shape = (side, side) if name == "sperr" else (side,)
    for path, checksum in (("x.h5", {}), ("y.h5", {"fletcher32": True})):
        with h5py.File(tmp_path / path, "w") as file:
            data = file.create_dataset("d", shape, "<f8", chunks=shape, **FILTERS[name], **checksum)
            data.id.write_direct_chunk((0,) * len(shape), BOMBS[name] + b"0123" * bool(checksum))
        with pytest.raises(OSError, match=r"the chunk at .* may unpack to more than the 8192 bytes"):
            check(tmp_path / path, (0,) * len(shape), shape)


SETTINGS = 64 + 4
"""Bytes at the end of a chunk of SZ3: its settings, and their size."""


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 0), (0, 2), (0, 5), (1, 7), (9, 7), (17, 1), (17, 3), (64, 200), (65, 200)],
    ids=["no-rank", "other-rank", "rank", "extent", "count", "method-1", "method", "short", "long"],
)
def test_settings_at_which_sz3_ends_the_process_are_not_given_to_it(tmp_path, at, value):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("d", (1000,), "<f4", chunks=(1000,), **FILTERS["sz3"])
        data[...] = np.random.default_rng(7).random(1000)
        _, sound = data.id.read_direct_chunk((0,))
        assert sound[-4:] == word(SETTINGS - 4, 4, "little")
        changed = bytearray(sound)
        changed[len(sound) - SETTINGS + at] = value
        data.id.write_direct_chunk((0,), bytes(changed))
    with pytest.raises(OSError, match=r"the chunk at \(0,\) may unpack to more"):
        check(tmp_path / "x.h5", (0,), (1000,))


def test_a_blosc2_array_is_as_large_as_its_shape_says(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("d", (64, 64), "<f8", chunks=(64, 64), **FILTERS["blosc2"])
        data[...] = np.arange(4096.0).reshape(64, 64)
        _, sound = data.id.read_direct_chunk((0, 0))
        at = sound.index(word(64))
        data.id.write_direct_chunk((0, 0), sound[:at] + word(HUGE) + sound[at + 8 :])
    with pytest.raises(OSError, match="may unpack to more"):
        check(tmp_path / "x.h5", (0, 0), (64, 64))


@pytest.mark.parametrize(
    ("code", "values", "size"),
    [
        (h5z.FILTER_SCALEOFFSET, (2, 0, 1000, 0, 4, 1, 0, 1), 4000),
        (h5z.FILTER_NBIT, (8, 0, 1000, 1, 8, 0, 64, 0), 8000),
        (h5z.FILTER_NBIT, (8, 1, 1000, 1, 8, 0, 64, 0), 0),  # it does nothing
        (32013, (269504785, 91252346, 268435443, 2281701376), 16 << 23),  # as the plugin has it, of 16 Mi doubles
        (32017, (1, 1, 1, 0, 0, 0, 0, 0, 0), 1 << 35),
        (32017, (2, 1, 100, 60, 0, 0), 48000),
        (h5z.FILTER_DEFLATE, (9,), 0),
    ],
)
def test_some_filters_take_their_memory_by_their_settings(code, values, size):
    assert packed.meant(code, values, 8) == size


def test_filters_whose_settings_say_more_than_a_chunk_has_are_not_asked(tmp_path):
    listed = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    listed.set_chunk((1024,))
    listed.set_filter(h5z.FILTER_SCALEOFFSET, h5z.FLAG_OPTIONAL, (2, 0, HUGE, 0, 4, 1, 0, 1))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        h5d.create(file.id, b"d", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((1024,)), listed)
    raw = (tmp_path / "x.h5").read_bytes()
    mine = np.array([2, 0, 1024], "<u4").tobytes()  # the library writes what it finds in the dataset
    (tmp_path / "x.h5").write_bytes(raw.replace(mine, np.array([2, 0, HUGE], "<u4").tobytes()))
    with pytest.raises(OSError, match="a filter's settings say"):
        check(tmp_path / "x.h5", (0,), (8,))


def test_chunks_that_would_need_too_much_memory_are_not_unpacked(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("d", (1 << 28,), "<f8", chunks=(1 << 28,), compression="gzip")
        data.id.write_direct_chunk((0,), zlib.compress(bytes(100)))
    with pytest.raises(OSError, match="rewrite it in smaller chunks"):
        check(tmp_path / "x.h5", (0,), (8,))
