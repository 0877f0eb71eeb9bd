"""What a sync finds different, against a model in memory; segments; what is recorded."""

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import given

from fileserver.catalogue.tables import metadata
from fileserver.transfer import manifest_rows, sync_rows
from fileserver.transfer.sync_rows import Ended, Listed, Totals
from planes.plane import GIB

OBJECTS = st.dictionaries(
    st.sampled_from(["a", "a-b", "a/b", "b", "ü", "z z", "\n"]),
    st.tuples(st.integers(0, 2), st.floats(0, 3, allow_nan=False)),
)


@pytest.fixture(scope="module")
def engine():
    made = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def rows(engine):
    with engine.connect() as connection:
        yield connection
        connection.rollback()


def listed(objects):
    return [Listed(key, size, f"v{size}", modified) for key, (size, modified) in objects.items()]


def expected(source, target, names, *, checksum, delete):
    """(action, why, key) in order."""
    if names is not None:
        source, target = ({k: v for k, v in side.items() if k in names} for side in (source, target))
    found = []
    for key, (size, modified) in sorted(source.items(), key=lambda item: item[0].encode()):
        if key not in target:
            why = "missing"
        elif target[key][0] != size:
            why = "size"
        elif modified > target[key][1]:
            why = "newer"
        else:
            why = "checksum" if checksum else ""
        found += [("copy", why, key)] if why else []
    lost = sorted(names - source.keys(), key=str.encode) if names is not None and not delete else []
    extra = sorted(target.keys() - source.keys(), key=str.encode) if delete else []
    return found, lost, [("delete", "extra", key) for key in extra]


@given(OBJECTS, OBJECTS, st.none() | st.frozensets(st.sampled_from(["a", "a/b", "x"])), st.booleans(), st.booleans())
def test_the_database_finds_what_a_model_finds(engine, source, target, names, checksum, delete):
    copies, lost, extra = expected(source, target, names, checksum=checksum, delete=delete)
    with engine.connect() as c:
        sync_rows.enter(c, "other", "target", [Listed("a", 9)])
        sync_rows.enter(c, "t", "source", reversed(listed(source)))
        sync_rows.enter(c, "t", "target", listed(target))
        sync_rows.enter(c, "t", "name", map(Listed, names or ()))
        totals = sync_rows.compare(c, "t", named=names is not None, checksum=checksum, delete=delete)
        items = sync_rows.page(c, "t", 1)
        assert [(i.action, i.why, i.key) for i in items] == [*copies, *extra]
        assert [i.number for i in items if i.action == "copy"] == list(range(1, len(copies) + 1))
        assert [(key, error["reason"]) for key, error in sync_rows.failures(c, "t", 9)] == [
            (key, "OBJECT_NOT_FOUND") for key in lost
        ]
        size = sum(source[key][0] for _, _, key in copies)
        here = source.keys() if names is None else source.keys() & names
        looked = [source[key][0] for _, why, key in copies if why == "checksum"]
        counts = (len(copies), size, len(extra), len(here) - len(copies), len(looked), sum(looked), len(lost))
        assert totals == Totals(*counts)
        assert [i.key for i in sync_rows.deletions(c, "t", 0)] == [key for _, _, key in extra]
        c.rollback()


@given(st.lists(st.integers(0, 2 * GIB), max_size=60), st.integers(0, 3))
def test_segments_hold_every_item_once_and_in_order(sizes, gap):
    items = [(1 + n * (gap + 1), size) for n, size in enumerate(sizes)]
    totals = Totals(len(items), sum(sizes), 0, 0)
    segments = list(sync_rows.batches(items, totals))
    assert [s.number for s in segments] == list(range(1, len(segments) + 1))
    held = [[i for i in items if s.first_part <= i[0] <= s.last_part] for s in segments]
    assert [i for some in held for i in some] == items
    assert [s.size for s in segments] == [sum(size for _, size in some) for some in held]
    assert all(s.size <= GIB or len(some) == 1 for s, some in zip(segments, held, strict=True))


def test_a_million_objects_make_a_thousand_segments():
    totals = Totals(1_000_000, 0, 0, 0)
    assert len(list(sync_rows.batches(((n, 0) for n in range(1, 1_000_001)), totals))) == 1000


def test_what_is_recorded_is_not_done_again(rows):
    sync_rows.enter(rows, "t", "source", [Listed(f"k{n}", n) for n in range(1, 6)])
    sync_rows.enter(rows, "t", "target", [Listed("extra")])
    totals = sync_rows.compare(rows, "t", named=False, checksum=False, delete=True)
    sync_rows.cut(rows, "t", totals)
    assert sync_rows.segment_count(rows, "t") == 1
    segment, done = manifest_rows.segment(rows, "t", 1)
    assert ((segment.first_part, segment.last_part), done) == ((1, 5), False)
    sync_rows.set_token(rows, "t", 2, "token")
    sync_rows.set_token(rows, "t", 3, "another")
    error = {"reason": "SOURCE_CHANGED", "message": "m", "facts": {}}
    ended = [Ended(1, "copied", compared=True), Ended(2, "copied"), Ended(4, "failed", error=error), Ended(5, "equal")]
    sync_rows.enter_ended(rows, "t", ended)
    assert [i.number for i in sync_rows.page(rows, "t", 1)] == [3, 6]
    assert [i.number for i in sync_rows.page(rows, "t", 1, 5)] == [3]
    assert [(i.number, i.token) for i in sync_rows.opened(rows, "t")] == [(3, "another")]
    tally = sync_rows.tally(rows, "t")
    assert (tally.copied, tally.copied_bytes, tally.equal, tally.failed, tally.compared) == (2, 3, 1, 1, False)
    assert sync_rows.failures(rows, "t", 9) == [("k4", error)]
    sync_rows.enter_ended(rows, "t", [Ended(6, "deleted")])
    assert sync_rows.deletions(rows, "t", 0) == []
    assert sync_rows.tally(rows, "t").deleted == 1


def test_plans_of_nobody_are_forgotten(rows):
    for name in ("stray", "living"):
        sync_rows.enter(rows, name, "source", [Listed("a")])
        sync_rows.compare(rows, name, named=False, checksum=False, delete=False)
    sync_rows.strays(rows, ["living"])
    assert sync_rows.page(rows, "stray", 1) == []
    assert len(sync_rows.page(rows, "living", 1)) == 1
