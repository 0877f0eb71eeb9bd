"""Chunks that the HDF5 library decodes and we encode again as HSDS reads them."""

from __future__ import annotations

import zlib

import h5py
import hdf5plugin  # noqa: F401 -- registers the filters that it brings
import numpy as np
from h5py import h5d, h5s, h5t

from fileserver.hdf5 import grid, inflated
from fileserver.hdf5.elements import Pointing, to_bytes
from fileserver.hdf5.model import Facts
from fileserver.hdf5.routes import Plan
from fileserver.hdf5.types import Values, is_plain


def chunk_bytes(place: h5d.DatasetID, facts: Facts, plan: Plan, at: grid.Dims, pointing: Pointing) -> bytes:
    """One chunk as HSDS stores it, decoded by the library; `at` is its place in the grid.

    Raises:
        OSError, RuntimeError: the library cannot decode it.
        NotHeld: an element is longer than HSDS takes.
    """
    dims = tuple(place.get_space().get_simple_extent_dims())
    start = tuple(i * step for i, step in zip(at, plan.chunk, strict=True))
    count = tuple(min(step, extent - first) for step, extent, first in zip(plan.chunk, dims, start, strict=True))
    values = read(place, facts, start, count)
    if count != plan.chunk:
        full = np.zeros((*plan.chunk, *values.shape[len(count) :]), values.dtype)
        full[tuple(slice(n) for n in count)] = values
        values = full
    return compressed(to_bytes(facts.typed.stored, values, pointing), plan, facts.item or 1)


def read(place: h5d.DatasetID, facts: Facts, start: grid.Dims, count: grid.Dims) -> Values:
    """A block of a dataset, decoded; elements of an array type have their dimensions last.

    Raises:
        OSError, RuntimeError: the library cannot decode it, or would need far more memory than for a chunk.
    """
    kind = place.dtype
    # The file's own type needs no conversion, and there is none for opaque bytes with a tag.
    memory = place.get_type() if facts.typed.exact and is_plain(facts.typed.stored) else h5t.py_create(kind)
    inner: tuple[int, ...] = ()
    if kind.subdtype is not None:
        kind, inner = kind.subdtype
    inflated.check(place, start, count)
    values: Values = np.zeros((*count, *inner), kind)
    space = place.get_space()
    if count:
        space.select_hyperslab(start, count)
    here = h5s.create_simple(count) if count else h5s.create(h5s.SCALAR)
    place.read(here, space, values, memory)
    return values


def compressed(data: bytes, plan: Plan, width: int) -> bytes:
    """Bytes of a chunk through the filters that HSDS is told of; `width` is the size of one element."""
    if plan.level is None:
        return data
    if plan.shuffle and width > 1:
        data = np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()
    return zlib.compress(data, plan.level)


def dataset(file: h5py.File, path: bytes) -> h5d.DatasetID:
    """A dataset, opened by its path."""
    return h5d.open(file.id, path)
