"""What may happen to a transfer behind the back of whoever read its record a moment ago."""

from __future__ import annotations

import pytest

from fileserver.errors import InvalidSpec
from fileserver.transfer import ledger
from fileserver.transfer.manifest import Extent, Part, Source
from fileserver.transfer.record import Done, Record


@pytest.fixture
async def known(store):
    record = Record("t1", {}, "RUNNING", "", 3, 0.0, 0.0)
    await store.write(lambda c: ledger.create(c, record, "r1", "file:a::x"))
    await store.write(lambda c: ledger.update(c, "t1", 0.0, run=3))
    return store


@pytest.mark.parametrize("new", [True, False])
async def test_a_run_that_is_over_is_followed_by_another(known, new):
    record = await known.write(lambda c: ledger.run_again(c, "t1", 3, 1.0, new=new))
    assert record is not None
    assert (record.run, record.state) == (4 if new else 3, "RUNNING")


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("meanwhile", ["ended", "paused", "run again by another"])
async def test_nothing_is_run_that_ended_or_stands_still_meanwhile(known, new, meanwhile):
    def work(c) -> None:
        if meanwhile == "ended":
            ledger.end(c, "t1", 1.0, "SUCCEEDED")
        elif meanwhile == "paused":
            ledger.update(c, "t1", 1.0, state="PAUSED")
        else:
            ledger.run_again(c, "t1", 3, 1.0, new=True)

    await known.write(work)
    before = await known.read(lambda c: ledger.get(c, "t1"))
    assert await known.write(lambda c: ledger.run_again(c, "t1", 3, 2.0, new=new)) is None
    assert await known.read(lambda c: ledger.get(c, "t1")) == before


async def test_a_segment_that_is_not_there_is_named(known):
    with pytest.raises(InvalidSpec, match="t1 has no segment 7"):
        await known.read(lambda c: ledger.segment(c, "t1", 7))


async def test_sources_are_found_by_their_objects_however_many_are_asked_for(store):
    sources = [Source(f"p{n % 2}", f"k{n}", n, "v", {"crc64nvme": n}) for n in range(2500)]
    await store.write(lambda c: ledger.save_sources(c, "t1", sources))
    await store.write(lambda c: ledger.save_sources(c, "t2", sources[:1]))
    asked = {(s.plane, s.key) for s in sources[::2]} | {("p0", "k1"), ("p9", "k2")}
    found = await store.read(lambda c: ledger.sources_of(c, "t1", asked))
    assert found == {(s.plane, s.key): s for s in sources[::2]}
    assert await store.read(lambda c: ledger.sources_of(c, "t1", set())) == {}


async def test_what_is_known_of_many_parts_is_set_for_each_of_them(store):
    parts = [Part(n, f"k{n}", (Extent("p", "x", "v", n, n + 1, 100),)) for n in range(1, 6)]
    await store.write(lambda c: ledger.add_parts(c, "t1", parts))
    await store.write(lambda c: ledger.add_parts(c, "t2", parts))
    await store.write(lambda c: ledger.set_tokens(c, "t1", {1: "a", 3: ""}))
    await store.write(
        lambda c: ledger.parts_done(
            c, "t1", [Done(2, 7, None, compared=True, version="v2"), Done(4, None, 9, compared=False)]
        )
    )
    await store.write(lambda c: ledger.parts_compared(c, "t1", [4, 5]))
    for nothing in (ledger.parts_done, ledger.parts_compared):
        await store.write(lambda c, nothing=nothing: nothing(c, "t1", []))
    rows = await store.read(lambda c: ledger.parts(c, "t1"))
    assert [r.token for r in rows] == ["a", None, "", None, None]
    assert [r.done for r in rows] == [False, True, False, True, False]
    assert [r.compared for r in rows] == [False, True, False, True, True]
    assert [(r.crc64nvme, r.other, r.version) for r in rows[1:4]] == [(7, None, "v2"), (None, None, ""), (None, 9, "")]
    assert not any(r.done or r.compared or r.token for r in await store.read(lambda c: ledger.parts(c, "t2")))
