"""Samples of how data can lie in a file: layouts, filters, other files."""

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from tests.fileserver.hdf5.sampling import chunked_plist, low, sample


@sample()
def external(file: h5py.File) -> None:
    raw = Path(file.filename).with_suffix(".raw")
    raw.write_bytes(b"\0" * 8 + np.arange(20, dtype="<i4").tobytes())
    file.create_dataset("data", (4, 5), "<i4", external=[(raw.name, 8, 80)])


@sample()
def virtual(file: h5py.File) -> None:
    part = Path(file.filename).with_suffix(".part.h5")
    with h5py.File(part, "w") as other:
        other["data"] = np.arange(10, dtype="f4")
        other["text"] = np.array([b"a", b"bcd"])
    layout = h5py.VirtualLayout((3, 10), "f4")
    layout[1] = h5py.VirtualSource(str(part.name), "data", (10,))
    file.create_virtual_dataset("virtual", layout, fillvalue=-1)
    plist = h5p.create(h5p.DATASET_CREATE)
    row = h5s.create_simple((2, 2))
    row.select_hyperslab((1, 0), (1, 2))
    plist.set_virtual(row, part.name.encode(), b"text", h5s.create_simple((2,)))
    plist.set_fill_value(np.array("xyz", h5py.string_dtype("ascii")))
    low(file, "virtual_text", h5t.py_create(np.dtype("S3")), (2, 2), plist)


@sample()
def layouts(file: h5py.File) -> None:
    file.create_dataset("contiguous", data=np.arange(50, dtype="i4").reshape(10, 5))
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(h5d.COMPACT)
    made = low(file, "compact", h5t.STD_I32LE, (6,), plist)
    made.write(h5s.ALL, h5s.ALL, np.arange(6, dtype="i4"))
    file.create_dataset("edges", data=np.arange(77.0).reshape(7, 11), chunks=(3, 4))
    file.create_dataset("edges_gzip", data=np.arange(77.0).reshape(7, 11), chunks=(3, 4), compression="gzip")
    file.create_dataset("never_written", (10, 10), "f4", chunks=(5, 5))
    file.create_dataset("never_written_contiguous", (10,), "f4")
    some = file.create_dataset("some_missing", (20, 20), "i4", chunks=(5, 5), compression="gzip")
    some[7:9, 7:9] = 5
    file.create_dataset("rank5", data=np.arange(243).reshape((3,) * 5), chunks=(2,) * 5, compression="gzip")
    file.create_dataset("tiny_chunks", data=np.arange(3000, dtype="i2"), chunks=(3,))
    file.create_dataset("chunk_beyond", data=np.arange(5), chunks=(100,), maxshape=(None,))


@sample()
def missing(file: h5py.File) -> None:
    """Chunks that were never written, of data that are decoded."""
    for name, kind, value, more in (
        ("decoded_missing", "i4", 7, {"chunks": (4, 5), "compression": "lzf", "fillvalue": 9}),
        ("tiny_missing", "i4", 7, {"chunks": (1, 2), "fillvalue": 9}),
        ("texts_missing", h5py.string_dtype(), "here", {"chunks": (2, 3)}),
    ):
        file.create_dataset(name, (21, 20), kind, **more)[18:20, 3:8] = value


@sample(mapped=("/nbit",))
def filters(file: h5py.File) -> None:
    values = (np.arange(400, dtype="i4") % 37).reshape(20, 20)
    own: dict[str, dict[str, Any]] = {
        "gzip": {"compression": "gzip"},
        "gzip_shuffle": {"compression": "gzip", "shuffle": True},
        "shuffle": {"shuffle": True},
        "fletcher": {"fletcher32": True},
        "fletcher_gzip": {"fletcher32": True, "compression": "gzip", "shuffle": True},
        "lzf": {"compression": "lzf"},
        "szip": {"compression": "szip"},
        "scaleoffset": {"scaleoffset": 0},
        "blosc": hdf5plugin.Blosc(),
        "blosc2": hdf5plugin.Blosc2(),
        "zstd": hdf5plugin.Zstd(),
        "bitshuffle": hdf5plugin.Bitshuffle(),
        "lz4": hdf5plugin.LZ4(),
    }
    for name, options in own.items():
        file.create_dataset(name, data=values, chunks=(6, 7), **options)
    file.create_dataset("scaleoffset_f", data=values / 8, chunks=(6, 7), scaleoffset=3)
    kind = h5t.STD_I16LE.copy()
    kind.set_precision(12)
    plist = chunked_plist((6, 7))
    plist.set_filter(h5py.h5z.FILTER_NBIT)
    made = low(file, "nbit", kind, (20, 20), plist)
    made.write(h5s.ALL, h5s.ALL, values.astype("i2"))


@sample()
def filter_mask(file: h5py.File) -> None:
    made = file.create_dataset("mixed", (8,), "<i4", chunks=(4,), compression="gzip", shuffle=True)
    made[:4] = np.arange(4)
    made.id.write_direct_chunk((4,), np.arange(4, 8, dtype="<i4").tobytes(), filter_mask=0b11)
    plain = file.create_dataset("all_skipped", (4,), "<i4", chunks=(4,), compression="gzip")
    plain.id.write_direct_chunk((0,), np.arange(4, dtype="<i4").tobytes(), filter_mask=0b1)


@sample(userblock_size=1024)
def user_block(file: h5py.File) -> None:
    file.create_dataset("data", data=np.arange(100.0), chunks=(30,), compression="gzip")
    file["contiguous"] = np.arange(5)


@sample(libver="latest")
def latest(file: h5py.File) -> None:
    for name, most in (("fixed", (100, 10)), ("extensible", (None, 10)), ("btree", (None, None))):
        file.create_dataset(name, data=np.arange(1000).reshape(100, 10), chunks=(30, 4), maxshape=most)
    file.create_dataset("one", data=np.arange(10), chunks=(10,), compression="gzip")
    many = file.create_group("many")
    for i in range(40):
        many.create_group(f"g{i}")
