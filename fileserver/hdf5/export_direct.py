"""Chunks of a domain as they lie in the bucket of its server: into a file without decoding and encoding them again.

HSDS stores what was written through it in its own way (Blosc, for one), so each chunk is looked at before it is taken.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import AsyncGenerator
from typing import Final

import h5py
from h5py import h5d

from fileserver.hdf5 import grid, ids
from fileserver.hdf5.declared import Declared
from fileserver.hdf5.model import DEFLATE, SHUFFLE
from fileserver.hdf5.stretches import Block
from fileserver.hdf5.types import is_plain, packed
from planes.plane import Extent, Info, Plane

_RAW: Final[tuple[list[int], ...]] = ([], [DEFLATE], [SHUFFLE, DEFLATE])
_SHARE: Final = 2  # a chunk object has at most so many times the bytes of its elements


def chunk_size(dataset: Declared) -> int:
    """Bytes of a chunk's elements, if chunk objects of this dataset may be chunks of HDF5; else 0."""
    storage, kind, dims = dataset.storage, dataset.type, dataset.dims
    if storage is None or kind is None or not dims or 0 in dims or not is_plain(kind.type):
        return 0
    limits = dataset.maxdims or dims
    whole = all(most is None or n <= most for n, most in zip(storage.chunk, limits, strict=True))
    if storage.layout != "H5D_CHUNKED" or not whole or [f.number for f in storage.filters] not in _RAW:
        return 0
    size = math.prod(storage.chunk) * packed(kind.type).itemsize
    return size if size <= grid.MOST else 0


async def chunks(bucket: Plane, root: str, dataset: Declared) -> AsyncGenerator[tuple[grid.Dims, Info]]:
    """The chunk objects of a dataset, with their places in the grid of chunks."""
    prefix = f"{ids.folder(root)}d/{dataset.id[20:]}/"
    rank = len(dataset.dims or ())
    async for info in bucket.list(prefix):
        numbers = info.key.removeprefix(prefix).split("_")
        if len(numbers) == rank and all(each.isdecimal() for each in numbers):
            yield tuple(map(int, numbers)), info


async def raw(bucket: Plane, info: Info, size: int) -> bytes | None:
    """The bytes of a chunk object; None if it is larger than any chunk of HDF5 would be."""
    if info.size > _SHARE * size + 1024:
        return None
    data = bytearray(info.size)
    await bucket.read(Extent(info.key, info.version, 0, info.size), memoryview(data))
    return bytes(data)


def is_chunk(dataset: Declared, data: bytes, size: int) -> bool:
    """Whether these bytes are a chunk as HDF5 has it, with the filters of the dataset."""
    if dataset.storage is None or not dataset.storage.filters:
        return len(data) == size
    unpacked = zlib.decompressobj()
    try:
        found = len(unpacked.decompress(data, size + 1))
    except zlib.error:
        return False
    return found == size and not unpacked.unconsumed_tail and not unpacked.unused_data


def block_of(dataset: Declared, place: grid.Dims) -> Block:
    """The elements of a chunk."""
    chunk, dims = dataset.storage.chunk if dataset.storage else (), dataset.dims or ()
    start = tuple(i * n for i, n in zip(place, chunk, strict=True))
    return Block(start, tuple(min(n, most - at) for n, most, at in zip(chunk, dims, start, strict=True)))


def put(file: h5py.File, path: bytes, start: grid.Dims, data: bytes) -> None:
    """Write a chunk as it is."""
    h5d.open(file.id, path).write_direct_chunk(start, data)
