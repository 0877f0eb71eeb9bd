import math

import hypothesis.strategies as st
import numpy as np
from hypothesis import assume, given

from fileserver.hdf5 import grid

DIMS = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@given(DIMS, st.integers(1, 8), st.integers(1, 400))
def test_slabs_are_the_chunks_that_numpy_cuts(dims, item, most):
    chunk = grid.slabs_of(dims, item, most)
    data = np.arange(math.prod(dims) * item, dtype=np.uint16).reshape(*dims, item)
    found = {}
    for slab in grid.slabs(dims, chunk, item):
        begin = [i * step for i, step in zip(slab.place, chunk, strict=True)]
        cut = data[tuple(slice(b, b + step) for b, step in zip(begin, chunk, strict=True))]
        assert data.reshape(-1)[slab.start : slab.end].tolist() == cut.reshape(-1).tolist()
        assert slab.full == math.prod(chunk) * item
        found[slab.place] = slab
    assert list(found) == list(grid.places(dims, chunk))
    assert sum(s.end - s.start for s in found.values()) == data.size
    assert math.prod(chunk) * item <= max(most, item)


@given(DIMS, DIMS)
def test_places_are_in_c_order_and_counted(dims, chunk):
    assume(len(dims) == len(chunk))
    counts = tuple(-(-d // c) for d, c in zip(dims, chunk, strict=True))
    assert list(grid.places(dims, chunk)) == list(np.ndindex(*counts))
    assert grid.count(dims, chunk) == math.prod(counts)


def test_a_scalar_has_one_place_and_no_elements_have_none():
    assert list(grid.places((), ())) == [()]
    assert list(grid.places((0, 3), (2, 2))) == []


@given(DIMS, DIMS, st.integers(1, 8), st.integers(1, 4000))
def test_grown_chunks_are_multiples_that_stay_small_and_inside(dims, chunk, item, most):
    assume(len(dims) == len(chunk))
    found = grid.grown(chunk, dims, item, most)
    for new, old, extent in zip(found, chunk, dims, strict=True):
        assert new % old == 0
        assert new == old or new < extent + old
    assert math.prod(found) * item <= max(most, math.prod(chunk) * item)


@given(DIMS, st.integers(1, 8), st.integers(8, 400))
def test_shrunk_chunks_are_small_enough(chunk, item, most):
    found = grid.shrunk(chunk, item, most)
    assert math.prod(found) * item <= most
    assert all(1 <= new <= old for new, old in zip(found, chunk, strict=True))
