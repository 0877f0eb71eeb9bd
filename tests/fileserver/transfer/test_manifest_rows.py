"""Rows of a manifest are found, and set, each for its own transfer."""

from __future__ import annotations

import pytest

from fileserver.errors import InvalidSpec
from fileserver.transfer import manifest_rows
from fileserver.transfer.manifest import Extent, Part, Source
from fileserver.transfer.record import Done


async def test_a_segment_that_is_not_there_is_named(store):
    with pytest.raises(InvalidSpec, match="t1 has no segment 7"):
        await store.read(lambda c: manifest_rows.segment(c, "t1", 7))


async def test_sources_are_found_by_their_objects_however_many_are_asked_for(store):
    sources = [Source(f"p{n % 2}", f"k{n}", n, "v", {"crc64nvme": n}) for n in range(2500)]
    await store.write(lambda c: manifest_rows.save_sources(c, "t1", sources))
    await store.write(lambda c: manifest_rows.save_sources(c, "t2", sources[:1]))
    asked = {(s.plane, s.key) for s in sources[::2]} | {("p0", "k1"), ("p9", "k2")}
    found = await store.read(lambda c: manifest_rows.sources_of(c, "t1", asked))
    assert found == {(s.plane, s.key): s for s in sources[::2]}
    assert await store.read(lambda c: manifest_rows.sources_of(c, "t1", set())) == {}


async def test_what_is_known_of_many_parts_is_set_for_each_of_them(store):
    parts = [Part(n, f"k{n}", (Extent("p", "x", "v", n, n + 1, 100),)) for n in range(1, 6)]
    await store.write(lambda c: manifest_rows.add_parts(c, "t1", parts))
    await store.write(lambda c: manifest_rows.add_parts(c, "t2", parts))
    await store.write(lambda c: manifest_rows.set_tokens(c, "t1", {1: "a", 3: ""}))
    await store.write(
        lambda c: manifest_rows.parts_done(
            c, "t1", [Done(2, 7, None, compared=True, version="v2"), Done(4, None, 9, compared=False)]
        )
    )
    await store.write(lambda c: manifest_rows.parts_compared(c, "t1", [4, 5]))
    for nothing in (manifest_rows.parts_done, manifest_rows.parts_compared):
        await store.write(lambda c, nothing=nothing: nothing(c, "t1", []))
    rows = await store.read(lambda c: manifest_rows.parts(c, "t1"))
    assert [r.token for r in rows] == ["a", None, "", None, None]
    assert [r.done for r in rows] == [False, True, False, True, False]
    assert [r.compared for r in rows] == [False, True, False, True, True]
    assert [(r.crc64nvme, r.other, r.version) for r in rows[1:4]] == [(7, None, "v2"), (None, None, ""), (None, 9, "")]
    assert not any(r.done or r.compared or r.token for r in await store.read(lambda c: manifest_rows.parts(c, "t2")))
