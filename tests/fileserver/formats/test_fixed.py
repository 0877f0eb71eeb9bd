import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.formats.faults import Mismatch
from fileserver.formats.fixed import Fixed, check, problems, start


@given(target=st.integers(0, 10**15), size=st.integers(1, 10**6))
def test_the_record_start_at_or_before_a_target(target, size):
    found = start(Fixed(size), target)
    assert found % size == 0
    assert found <= target < found + size


def test_sizes_are_whole_records():
    check(Fixed(10), 0)
    check(Fixed(10), 30)
    with pytest.raises(Mismatch, match="5 bytes left after 3 records") as caught:
        check(Fixed(10), 35)
    assert (caught.value.offset, caught.value.record) == (30, 4)


def test_a_record_has_at_least_one_byte():
    assert problems(Fixed(1)) == {}
    assert set(problems(Fixed(0))) == {"record_size"}
