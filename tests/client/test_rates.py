from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.rates import DAY, Rate, parse_rates
from client.words import WordError


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("20MiB", (Rate(0, DAY, 20 << 20),)),
        ("8:00-18:00=5MiB,200MiB", (Rate(480, 1080, 5 << 20), Rate(0, DAY, 200 << 20))),
        (" 22:30-06:00 = 1GB ", (Rate(1350, 360, 10**9),)),
        ("0:00-24:00=1", (Rate(0, DAY, 1),)),
    ],
)
def test_rates_are_understood(text, rates):
    assert parse_rates(text) == rates


@pytest.mark.parametrize(
    "text", ["", "0", ",", "5MiB,", "8-18=5MiB", "8:00-25:00=1", "8:60-9:00=1", "8:00-8:00=1", "="]
)
def test_other_words_are_refused(text):
    with pytest.raises(WordError):
        parse_rates(text)


@given(st.text(max_size=30))
def test_nothing_else_is_raised(text):
    with suppress(WordError):
        parse_rates(text)
