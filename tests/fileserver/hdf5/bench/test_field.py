"""What a write test writes."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from fileserver.errors import InvalidSpec
from fileserver.hdf5.bench.field import checked

EXTENT = st.integers(1, 40)
FIELDS = st.builds(
    checked,
    rows=EXTENT,
    columns=EXTENT,
    chunk=st.tuples(EXTENT, EXTENT),
    cut=st.sampled_from(["block", "row", "column"]),
    seed=st.integers(0, 2**63 - 1),
)


@given(FIELDS)
def test_blocks_cover_the_dataset_exactly_once_and_agree_with_the_whole(field):
    whole = np.full((field.rows, field.columns), np.nan)
    for number in range(field.blocks):
        block = field.block(number)
        place = whole[block.row : block.row + block.rows, block.column : block.column + block.columns]
        assert place.shape == (block.rows, block.columns)
        assert np.isnan(place).all()
        place[...] = field.values(block)
    one = checked(field.rows, field.columns, (field.rows, field.columns), "block", field.seed)
    assert np.array_equal(whole, one.values(one.block(0)))
    assert ((whole >= 0) & (whole < 1)).all()
    assert len(np.unique(whole)) == whole.size


def test_values_follow_from_the_seed_and_stay_the_same_for_ever():
    one, other = (checked(2, 2, (2, 2), "block", seed) for seed in (1, 2))
    assert not np.isin(one.values(one.block(0)), other.values(other.block(0))).any()
    assert one.values(one.block(0)).tolist() == one.values(one.block(0)).tolist()
    assert one.values(one.block(0)).dtype == np.dtype("<f8")


@pytest.mark.parametrize(
    ("wrong", "rows", "columns", "chunk", "cut"),
    [
        ({"rows", "columns"}, 0, 2**31, (1, 1), "block"),
        ({"chunk"}, 10, 10, (0, 1), "block"),
        ({"chunk"}, 2**20, 2**20, (4096, 4096), "block"),
        ({"chunk"}, 2**20, 2**20, (1, 1), "block"),
        ({"tasks"}, 2, 2**30, (1, 1000), "row"),
    ],
)
def test_what_cannot_be_made_is_refused_with_all_that_is_wrong(wrong, rows, columns, chunk, cut):
    with pytest.raises(InvalidSpec) as refused:
        checked(rows, columns, chunk, cut, 0)
    assert set(refused.value.violations) == wrong
