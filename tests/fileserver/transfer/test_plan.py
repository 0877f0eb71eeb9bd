"""The pure planning functions: no byte lost, doubled or moved; every byte in exactly one segment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fileserver.transfer import plan
from fileserver.transfer.manifest import Extent, Literal, Source, pieces_from_json, pieces_to_json
from planes.plane import GIB, KIB, MIB, Limits

LIMITS = Limits(
    min_step=5, max_step=50, max_steps=100, max_object=4000, put_size=16, copy_size=40, min_copy_source=5,
    single_put=16, whole_copy=50,
)  # fmt: skip


@st.composite
def streams(draw):
    contents = draw(st.lists(st.binary(max_size=30), min_size=1, max_size=6))
    filled = [i for i, c in enumerate(contents) if c]
    endings = [b"\n" if draw(st.booleans()) and i in filled[:-1] else b"" for i in range(len(contents))]
    sources = [Source("p", f"k{i}", len(c), "v", {}) for i, c in enumerate(contents)]
    return contents, plan.Stream(sources, endings)


def bytes_of(contents: list[bytes], pieces) -> bytes:
    return b"".join(p.data if isinstance(p, Literal) else contents[int(p.key[1:])][p.start : p.end] for p in pieces)


def joined(contents: list[bytes], stream: plan.Stream) -> bytes:
    return b"".join(c + e for c, e in zip(contents, stream.endings, strict=True))


@given(streams(), st.data())
def test_split_parts_hold_every_byte_once_and_in_order(given_stream, data):
    contents, stream = given_stream
    cuts = sorted(data.draw(st.lists(st.integers(0, stream.size), max_size=6)))
    parts = list(plan.split(stream, [0, *cuts], lambda n: f"part{n}"))
    assert [p.number for p in parts] == list(range(1, len(cuts) + 2))
    assert b"".join(bytes_of(contents, p.pieces) for p in parts) == joined(contents, stream)
    assert all(piece.size for p in parts for piece in p.pieces)
    assert all(pieces_from_json(pieces_to_json(p.pieces)) == p.pieces for p in parts)


@given(streams(), st.integers(1, 9))
def test_dealt_parts_hold_whole_sources_in_order(given_stream, count):
    contents, stream = given_stream
    parts = list(plan.deal(stream, count, lambda n: f"part{n}"))
    assert len(parts) == count
    assert b"".join(bytes_of(contents, p.pieces) for p in parts) == joined(contents, stream)
    assert all(piece.whole for p in parts for piece in p.pieces if isinstance(piece, Extent))


@given(streams(), st.booleans())
def test_steps_of_a_part_cover_it_within_the_limits(given_stream, native):
    _, stream = given_stream
    (part,) = plan.split(stream, [0], lambda n: f"part{n}")
    steps = plan.steps_of(part, LIMITS, lambda _: native)
    assert [s.number for s in steps] == list(range(1, len(steps) + 1))
    assert sum(s.size for s in steps) == part.size
    assert all(LIMITS.min_step <= s.size <= LIMITS.max_step for s in steps[:-1])


@given(st.lists(st.sampled_from([0, 1, 10 * KIB, 300 * MIB, 3 * GIB]), min_size=1, max_size=130))
def test_segments_hold_every_step_of_every_part_once(sizes):
    limits = Limits(0, GIB, 10_000, 10**15, 16 * MIB, 256 * MIB, 0, 16 * MIB, GIB)
    parts = []
    for number, size in enumerate(sizes, 1):
        pieces = (Extent("p", "k", "v", 0, size, size),) if size else ()
        part = plan.Part(number, f"part{number}", pieces)
        parts.append((part, plan.steps_of(part, limits, lambda _: True)))
    segments = plan.Segments(sum(sizes))
    found = [*(segment for part, steps in parts for segment in segments.add(part, steps)), *segments.rest()]
    assert [s.number for s in found] == list(range(1, len(found) + 1))
    assert sum(s.size for s in found) == sum(sizes)
    seen = []
    for segment in found:
        for number in range(segment.first_part, segment.last_part + 1):
            steps = [s.number for s in parts[number - 1][1]]
            last = segment.last_step or len(steps)
            seen += [(number, step) for step in steps[max(segment.first_step, 1) - 1 : last]]
    assert seen == [(part.number, s.number) for part, steps in parts for s in steps]
    assert all(s.size <= GIB or s.first_step for s in found)
