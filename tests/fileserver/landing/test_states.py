"""How arrivals change: a table of every case, markers, and sequences of looks against a model."""

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import given

from fileserver.catalogue import landing as tables
from fileserver.landing import arrivals
from fileserver.landing.states import (
    BUSY_PAUSE,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Ended,
    Noticed,
    ended,
    is_marker,
    marker_of,
    noticed,
)
from fileserver.landing.watch import Listed, State
from tests.fileserver.landing.zone import ENTRY

S = State


@pytest.mark.parametrize(
    ("state", "known", "loaded", "listed", "becomes"),
    [
        (S.SEEN, "1", None, "1", Noticed(S.SEEN, fresh=False)),
        (S.SEEN, "1", None, "2", Noticed(S.SEEN, fresh=True)),
        (S.SETTLED, "1", None, "1", Noticed(S.SETTLED, fresh=False)),
        (S.SETTLED, "1", None, "2", Noticed(S.SEEN, fresh=True)),
        (S.SETTLED, "2", "1", "1", Noticed(S.DONE, fresh=False)),
        (S.RUNNING, "1", None, "1", Noticed(S.RUNNING, fresh=False)),
        (S.RUNNING, "1", None, "2", Noticed(S.RUNNING, fresh=True)),
        (S.DONE, "1", "1", "1", Noticed(S.DONE, fresh=False)),
        (S.DONE, "1", "1", "2", Noticed(S.SEEN, fresh=True)),
        (S.FAILED, "1", None, "1", Noticed(S.FAILED, fresh=False)),
        (S.FAILED, "1", None, "2", Noticed(S.SEEN, fresh=True)),
        (S.FAILED, "2", "1", "1", Noticed(S.DONE, fresh=False)),
        (S.GONE, "1", "1", "1", Noticed(S.DONE, fresh=False)),
        (S.GONE, "1", None, "1", Noticed(S.SEEN, fresh=True)),
        (S.GONE, "1", "1", "2", Noticed(S.SEEN, fresh=True)),
        (S.MARKER, "1", None, "2", Noticed(S.MARKER, fresh=True)),
    ],
)
def test_a_look_makes_of_an_arrival(state, known, loaded, listed, becomes):
    assert noticed(state, known, loaded, listed) == becomes


@pytest.mark.parametrize(
    ("version", "tries", "reason", "becomes"),
    [
        ("1", 1, "", Ended(S.DONE, loaded=True)),
        ("2", 1, "", Ended(S.SEEN, loaded=True)),
        ("2", 3, "FORMAT_MISMATCH", Ended(S.SEEN)),
        ("1", 1, "PLANE_UNAVAILABLE", Ended(S.SETTLED, pause=FIRST_PAUSE, tries=1)),
        ("1", 2, "BUG", Ended(S.SETTLED, pause=2 * FIRST_PAUSE, tries=2)),
        ("1", 3, "PLANE_UNAVAILABLE", Ended(S.FAILED, tries=3)),
        ("1", 1, "FORMAT_MISMATCH", Ended(S.FAILED, tries=1)),
        ("1", 3, "TARGET_BUSY", Ended(S.SETTLED, pause=BUSY_PAUSE, tries=2)),
    ],
)
def test_the_end_of_a_transfer_makes_of_an_arrival(version, tries, reason, becomes):
    assert ended(version, "1", tries, 3, reason) == becomes


def test_pauses_end_growing():
    assert ended("1", "1", 50, 99, "BUG").pause == LONGEST_PAUSE


@pytest.mark.parametrize(
    ("pattern", "key", "marker"),
    [("*.done", "a/x.h5", "a/x.h5.done"), ("_SUCCESS", "a/x.h5", "a/_SUCCESS"), (".ok-*", "x", ".ok-x")],
)
def test_markers_lie_beside_their_objects(pattern, key, marker):
    assert marker_of(pattern, key) == marker
    assert is_marker(pattern, marker)
    assert not is_marker(pattern, key)
    assert not is_marker("", marker)


KEYS = st.sampled_from(["a", "a/b", "a-b", 'it\'s "quoted"', "ü", "k" * 1024, "100%_"])
LOOKS = st.lists(st.dictionaries(KEYS, st.integers(0, 2)), max_size=6)


@pytest.fixture(scope="module")
def engine():
    made = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    tables.metadata.create_all(made)
    yield made
    made.dispose()


def model(looks):
    """What is loaded where all settles at once, as (look, key, version), and the states in the end."""
    loaded, taken, there = {}, [], {}
    for number, look in enumerate(looks):
        there = look
        for key, version in look.items():
            if loaded.get(key) != version:
                taken.append((number, key, version))
                loaded[key] = version
    return sorted(taken), {key: "done" if key in there else "gone" for key in loaded}


@given(looks=LOOKS, data=st.data())
def test_every_version_is_loaded_once_whatever_the_order_and_the_pages_of_listings(engine, looks, data):
    taken = []
    with engine.connect() as c:
        for number, look in enumerate(looks):
            listed = [Listed(key, version, f"v{version}", 0.0) for key, version in look.items()]
            for page in data.draw(st.permutations([listed[:2], listed[2:], listed[:1]])):
                arrivals.see(c, ENTRY, number, page)
            arrivals.vanish(c, ENTRY, number)
            arrivals.settle(c, ENTRY, number)
            for each in arrivals.listing(c, "w", states=[S.SETTLED]):
                taken.append((number, each.key, int(each.version[1:])))
                done = {"state": S.DONE, "loaded": each.version}
                assert arrivals._update(c, "w", [each.key], done) == 1
        expected, states = model(looks)
        assert sorted(taken) == expected
        assert {each.key: each.state.value for each in arrivals.listing(c, "w")} == states
        c.rollback()
