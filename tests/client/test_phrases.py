from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import phrases
from fileserver.v1.transfer_pb2 import (
    Despray,
    Location,
    Outcome,
    PartRange,
    Progress,
    RouteTaken,
    Spray,
    Transfer,
    TransferSpec,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 KB"),
        (9_999, "10.0 KB"),
        (99_990, "100 KB"),
        (31_000_000, "31.0 MB"),
        (999_999, "1.00 MB"),
        (5 * 10**12, "5.00 TB"),
        (2**63 - 1, "9.22 EB"),
    ],
)
def test_sizes(number, text):
    assert phrases.size(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(77_500_000, "78 MB/s"), (1.234e9, "1.2 GB/s"), (9.96e6, "10 MB/s"), (12, "12 B/s")]
)
def test_rates(number, text):
    assert phrases.rate(number) == text


@given(st.integers(0, 2**63 - 1))
def test_a_size_is_never_off_by_more_than_its_last_digit(number):
    value, unit = phrases.size(number).split()
    factor = {"byte": 1, "bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15, "EB": 1e18}[unit]
    assert abs(float(value) * factor - number) <= 0.0051 * number
    assert len(value.replace(".", "")) <= 4


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_seconds(number, text):
    assert phrases.seconds(number) == text


def test_the_last_line_is_what_the_design_says():
    transfer = Transfer(
        spec=TransferSpec(spray=Spray(file="a::b")),
        progress=Progress(parts_total=8),
        outcome=Outcome(
            size=31_000_000,
            seconds=0.4026,
            route="8 parts copied by the kernel, 224 KiB through this machine",
            evidence="compared",
        ),
    )
    assert phrases.summary(transfer) == (
        "8 parts, 31.0 MB in 0.4 s (77 MB/s); 8 parts copied by the kernel, 224 KiB through this machine; "
        "evidence: compared"
    )


def test_the_last_line_of_an_empty_despray():
    transfer = Transfer(spec=TransferSpec(despray=Despray(file="a")), outcome=Outcome(evidence="compared"))
    assert phrases.summary(transfer) == "1 file, 0 bytes in 0.0 s; evidence: compared"


@given(st.text())
def test_nothing_that_a_terminal_would_obey_is_left(text):
    cleaned = phrases.clean(text)
    assert all(letter.isprintable() or letter == "\n" for letter in cleaned)
    if text.isprintable():
        assert cleaned == text


def test_a_name_cannot_steer_the_terminal():
    assert phrases.clean("a\x1b[31m\r\u202e\udcff") == r"a\x1b[31m\r\u202e\udcff"


def test_the_routes_of_a_transfer_name_their_parts_and_reasons():
    few = RouteTaken(route="copied whole", why="one request", part_count=3)
    few.parts.extend([PartRange(first=1, last=2), PartRange(first=4, last=4)])
    one = RouteTaken(route="streamed", why="too small", part_count=1, parts=[PartRange(first=3, last=3)])
    brief = RouteTaken(route="mixed", why="both", part_count=2)
    many = RouteTaken(
        route="pulled", why="so", part_count=30, parts=[PartRange(first=n, last=n) for n in range(9, 69, 2)]
    )
    lines = phrases.routes(Outcome(routes=[few, one, brief, many]))
    assert lines[:3] == [
        "parts 1-2, 4 copied whole (one request)",
        "part 3 streamed (too small)",
        "2 parts mixed (both)",
    ]
    assert lines[3].startswith("parts 9, 11, ")
    assert lines[3].endswith("47, … pulled (so)")


def test_a_path_of_this_machine_is_absolute():
    assert phrases.location(Location(plane="local", key="tmp/x.h5")) == "/tmp/x.h5"
    assert phrases.location(Location(plane="data", key="x.h5")) == "data:x.h5"
