"""The width goes up by steps and down by halves, once a round, and ends where the provider takes what it is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planes.window import LEAST, START, Window


def answers(window: Window, count: int, *, full: bool = True, seconds: float = 0.1) -> None:
    for _ in range(count):
        window.answered(window.begin(), full=full, seconds=seconds)


def refuse(window: Window) -> None:
    window.refused(window.begin(), window.places, seconds=0.1)


def test_it_begins_with_what_one_transfer_asks_for_and_never_beyond_the_bound():
    assert Window(64).places == START
    assert Window(3).places == 3


def test_until_the_first_refusal_each_round_doubles_it_up_to_the_bound():
    window = Window(64)
    answers(window, 16)
    assert window.places == 32
    answers(window, 1000)
    assert window.places == 64


def test_a_width_that_is_not_used_does_not_grow():
    window = Window(64)
    answers(window, 100, full=False)
    assert window.places == START


def test_requests_that_fail_together_halve_it_once():
    window = Window(64)
    begun = [window.begin() for _ in range(16)]
    for each in begun:
        window.refused(each, 16, seconds=0.1)
    assert window.places == 8
    refuse(window)  # sent after the decrease: news
    assert window.places == 4


def test_what_was_sent_before_the_decrease_and_is_answered_after_it_raises_nothing():
    window = Window(64)
    begun = window.begin()
    refuse(window)
    for _ in range(15):
        window.answered(begun, full=True, seconds=0.1)
    assert window.places == 8


def test_half_of_what_was_in_flight_is_less_than_half_of_the_width():
    window = Window(64)
    window.refused(window.begin(), 4, seconds=0.1)
    assert window.places == 2


def test_after_a_refusal_a_whole_round_of_answers_makes_room_for_one_more():
    window = Window(64)
    refuse(window)
    rounds = []
    for _ in range(4):
        answers(window, window.places)
        rounds.append(window.width)
    assert rounds == pytest.approx([8.95, 9.86, 10.77, 11.69], abs=0.1)


def test_after_an_outage_it_doubles_again_to_half_of_what_there_was():
    window = Window(64)
    answers(window, 100)
    for _ in range(8):
        refuse(window)
    assert window.places == 1
    answers(window, 40)
    assert 32 <= window.width < 34


def test_one_lost_answer_is_no_refusal_and_a_quarter_of_a_round_is():
    window = Window(64)
    for _ in range(3):
        window.lost(window.begin(), 16)
    assert window.places == START
    window.lost(window.begin(), 16)
    assert window.places == START // 2


def test_lost_answers_far_apart_never_add_up():
    window = Window(16)
    for _ in range(50):
        window.lost(window.begin(), 16)
        answers(window, 15)
    assert window.places == START


def test_a_plane_that_is_away_is_asked_one_at_a_time_and_without_a_rest():
    window = Window(64)
    for _ in range(100):
        window.lost(window.begin(), window.places)
    assert (window.places, window.rest) == (1, 0)


def test_one_at_a_time_that_is_still_too_fast_is_given_a_rest():
    window = Window(1)
    answers(window, 1, seconds=0.02)
    refuse(window)
    assert (window.places, window.width) == (1, 0.5)
    assert window.rest == pytest.approx(0.02)
    refuse(window)
    assert window.rest == pytest.approx(0.06)
    answers(window, 100, seconds=0.02)
    assert (window.places, window.rest) == (1, 0)


def test_a_store_that_never_answered_is_rested_from_by_the_time_of_its_refusals():
    window = Window(1)
    window.refused(window.begin(), 1, seconds=0.5)
    assert window.rest == pytest.approx(0.5)


def test_a_narrower_bound_holds_at_once_and_a_wider_one_is_grown_into():
    window = Window(64)
    window.allow(4)
    assert window.places == 4
    window.allow(64)
    assert window.places == START
    answers(window, 100)
    assert window.places == 64
    refuse(window)
    window.allow(512)
    assert window.places == 32


@given(
    bound=st.integers(1, 1024),
    events=st.lists(st.tuples(st.sampled_from("arlo"), st.booleans(), st.integers(1, 9)), max_size=200),
)
def test_whatever_happens_at_least_one_may_go_and_at_most_the_bound(bound, events):
    window, begun = Window(bound), []
    for event, full, number in events:
        begun.append(window.begin())
        sent = begun[-min(number, len(begun))]
        if event == "a":
            window.answered(sent, full=full, seconds=0.1)
        elif event == "r":
            window.refused(sent, number, seconds=0.1)
        elif event == "l":
            window.lost(sent, number)
        else:
            window.allow(number)
            bound = number
        assert 1 <= window.places <= bound
        assert LEAST <= window.width <= bound
        assert window.rest >= 0
