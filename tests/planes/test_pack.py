"""Steps hold the same bytes in the same order as the pieces they were made of, within the provider's limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planes.pack import Piece, Step, pack
from planes.plane import GIB, MIB, Extent, Limits


def limits(least=1, most=1 << 40, steps=10_000, put=MIB, copy=4 * MIB, largest=1 << 50) -> Limits:
    return Limits(
        min_step=least,
        max_step=most,
        max_steps=steps,
        max_object=largest,
        put_size=put,
        copy_size=copy,
        min_copy_source=0,
        single_put=put,
        whole_copy=copy,
    )


S3 = limits(5 * MIB, 5 * GIB, 10_000, 16 * MIB, 256 * MIB, 50_000 * GIB)


@st.composite
def provider_limits(draw) -> Limits:
    least = draw(st.integers(1, 40))
    put = draw(st.integers(least, 60))
    copy = draw(st.integers(least, 200))
    return limits(least, draw(st.integers(max(2 * least, put, copy), 400)), 10_000, put, copy)


@st.composite
def pieces(draw) -> list[Piece]:
    found: list[Piece] = []
    for number in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            start = draw(st.integers(0, 1000))
            extent = Extent(f"key{number}", "v", start, start + draw(st.integers(0, 500)))
            place = draw(st.sampled_from(["", "one", "other"]))
            found.append(Piece("source", extent, native=draw(st.booleans()), place=place))
        else:
            found.append(Piece(literal=draw(st.binary(max_size=30))))
    return found


def flat(sequence: list[Piece]) -> list[object]:
    """Every byte by where it comes from."""
    return [
        origin
        for p in sequence
        for origin in (
            ((p.source, p.extent.key, p.extent.version, at) for at in range(p.extent.start, p.extent.end))
            if p.extent
            else p.literal
        )
    ]


def assert_legal(steps: list[Step], bounds: Limits) -> None:
    assert [s.number for s in steps] == list(range(1, len(steps) + 1))
    assert len(steps) <= bounds.max_steps
    offset = 0
    for step in steps:
        assert step.offset == offset
        assert step.size <= bounds.max_step
        assert step.number == len(steps) or step.size >= bounds.min_step
        if step.native:
            [piece] = step.pieces
            assert piece.native
            assert piece.extent is not None
        offset += step.size


@given(pieces(), provider_limits())
def test_bytes_and_their_order_are_kept_within_the_limits(sequence, bounds):
    steps = pack(sequence, bounds)
    assert_legal(steps, bounds)
    assert flat([p for s in steps for p in s.pieces]) == flat(sequence)


@given(pieces(), provider_limits())
def test_every_native_step_but_the_last_is_as_long_as_the_provider_wants(sequence, bounds):
    steps = pack(sequence, bounds)
    assert all(s.size >= bounds.min_step for s in steps[:-1] if s.native)


@given(pieces(), provider_limits())
def test_what_travels_is_no_more_than_it_must_be(sequence, bounds):
    """A copy gives up less than one smallest step at its head; pieces shorter than two of them may travel."""
    for number, step in enumerate(steps := pack(sequence, bounds)):
        if not step.native and number + 1 < len(steps):
            assert all(p.size < 2 * bounds.min_step for p in step.pieces if p.native)


@given(pieces(), provider_limits())
def test_what_cannot_be_copied_by_the_provider_is_put(sequence, bounds):
    plain = [Piece(p.source, p.extent, p.literal) for p in sequence]
    steps = pack(plain, bounds)
    assert not any(s.native for s in steps)
    assert all(s.size <= bounds.put_size for s in steps)


@given(pieces(), st.integers(1, 40), st.integers(41, 60))
def test_no_step_is_made_of_two_places_unless_it_would_be_too_small(sequence, least, put):
    for step in pack(sequence, limits(least, 200, put=put, copy=200)):
        places = [p.place for p in step.pieces if p.extent]
        change = next((n for n, place in enumerate(places) if place != places[0]), 0)
        before = [p for p in step.pieces if p.extent][:change]
        assert sum(p.size for p in before) < least


def test_an_empty_object_is_one_empty_put():
    assert pack([], S3) == [Step(1, 0, (), native=False)]
    assert pack([Piece(literal=b"")], S3) == [Step(1, 0, (), native=False)]


def test_a_large_copy_is_cut_evenly():
    steps = pack([Piece("s", Extent("k", "v", 0, GIB + 1), native=True)], S3)
    assert all(s.native for s in steps)
    assert len(steps) == 5
    assert max(s.size for s in steps) - min(s.size for s in steps) <= 1


def test_a_short_literal_takes_its_missing_bytes_from_the_copy_behind_it():
    steps = pack([Piece(literal=b"header\n"), Piece("s", Extent("k", "v", 0, 100 * MIB), native=True)], S3)
    assert [(s.native, s.size) for s in steps] == [(False, 5 * MIB), (True, 95 * MIB + 7)]


def test_more_copies_than_steps_are_allowed_become_larger_puts():
    many = [Piece("s", Extent(f"k{n}", "v", 0, 6 * MIB), native=True) for n in range(25_000)]
    steps = pack(many, S3)
    assert_legal(steps, S3)
    assert sum(s.size for s in steps) == 25_000 * 6 * MIB
    assert max(s.size for s in steps) <= 4 * 6 * MIB * 25_000 // 10_000 + MIB, "no put needs an absurd buffer"


def test_steps_grow_for_an_object_of_5_tib():
    for native in (True, False):
        steps = pack([Piece("s", Extent("k", "v", 0, 5 * 1024 * GIB), native=native)], S3)
        assert_legal(steps, S3)
        assert sum(s.size for s in steps) == 5 * 1024 * GIB


@given(st.integers(5, 60), st.lists(st.integers(1, 40 * MIB), max_size=80), st.data())
def test_the_number_of_steps_is_kept_whatever_the_pieces(steps_allowed, sizes, data):
    sequence = [
        Piece("s", Extent(f"k{n}", "v", 0, size), native=data.draw(st.booleans())) for n, size in enumerate(sizes)
    ]
    bounds = limits(MIB, 4 * GIB, steps_allowed, MIB, MIB)
    assert_legal(pack(sequence, bounds), bounds)


def test_too_large_an_object_is_refused():
    with pytest.raises(ValueError, match="more than the 10 that one object may have"):
        pack([Piece(literal=b"x" * 11)], limits(largest=10))


def test_an_object_that_no_steps_can_hold_is_refused():
    with pytest.raises(ValueError, match="steps"):
        pack([Piece(literal=b"x" * 100)], limits(most=10, steps=5, put=10, copy=10))
