import asyncio
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.errors import FormatMismatch, InvalidSpec, RecordTooLong
from fileserver.formats.csv import BOM, Csv
from fileserver.formats.fixed import Fixed
from fileserver.transfer import partition as module
from fileserver.transfer.manifest import Source
from fileserver.transfer.partition import last_terminated, partition, targets
from tests.fileserver.formats.machine import first_starts, record_starts
from tests.fileserver.formats.tables import tables

FLIGHTS = b'2013,1,1,"517",UA,"EWR, Newark",2013-01-01T10:00:00Z\n' * 20_000


class Store:
    """Sources in memory, and what was read of them."""

    def __init__(self, *contents):
        self.contents = contents
        self.sources = [Source("lake", f"{i}.csv", len(data), "v1", {}) for i, data in enumerate(contents)]
        self.total = sum(map(len, contents))
        self.bytes_read = self.open = self.most_open = 0

    async def read(self, source, start, end):
        assert 0 <= start < end <= len(self.contents[source])
        self.bytes_read += end - start
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        return memoryview(self.contents[source])[start:end]


def expected(form, contents, asked):
    starts = [0, *accumulate(map(len, contents))]
    records = {
        start + place for start, data in zip(starts, contents, strict=False) for place in record_starts(form, data)
    }
    return tuple(min(place for place in {*records, *starts} if place >= target) for target in asked)


async def points(form, *contents, asked):
    store = Store(*contents)
    found = await partition(store.sources, form, asked, store.read)
    assert found.bytes_read == store.bytes_read
    return found


@given(total=st.integers(0, 10**6), parts=st.integers(1, 3000))
def test_targets_are_the_rule(total, parts):
    found = targets(total, parts)
    assert len(found) == parts
    share = total // parts
    assert found == tuple(k * share if share else k * total // parts for k in range(parts))


@given(contents=st.lists(tables(), max_size=4), split=st.sampled_from(["deduce", "exact"]))
async def test_points_of_many_sources_are_those_of_the_machine(contents, split):
    asked = range(sum(map(len, contents)) + 1)
    found = await points(Csv(split=split), *contents, asked=asked)
    assert found.points == expected(Csv(), contents, asked)


@pytest.mark.parametrize("split", ["deduce", "exact", "terminator"])
@pytest.mark.parametrize("parts", [1, 2, 8, 1000])
async def test_all_ways_give_the_same_points(split, parts):
    asked = targets(len(FLIGHTS), parts)
    found = await points(Csv(split=split), FLIGHTS, asked=asked)
    assert found.split == split
    near = first_starts(Csv(quotes=()), FLIGHTS[:200], [t % 53 for t in asked])
    assert found.points == tuple(start + t - t % 53 for start, t in zip(near, asked, strict=True))


async def test_deduce_reads_windows_alone_and_some_at_once():
    store = Store(FLIGHTS)
    found = await partition(store.sources, Csv(), targets(store.total, 8), store.read)
    assert found.bytes_read == 7 * 16 * 1024 + 4096
    assert 2 <= store.most_open <= 8
    assert found.warnings == ()


async def test_exact_reads_no_further_than_the_last_target():
    store = Store(FLIGHTS)
    found = await partition(store.sources, Csv(split="exact"), (0, 1000), store.read)
    assert found.points == (0, 1007)
    assert found.bytes_read < 16 * 1024


@pytest.mark.parametrize("form", [Csv(split="exact"), Csv(split="exact", quotes=(b'"', b"'"))])
async def test_ranges_are_joined_across_reads(monkeypatch, form):
    monkeypatch.setattr(module, "_RANGE", 1000)
    data = b'a,"b\n""c",d\n' * 3000
    store = Store(data)
    asked = targets(store.total, 7)
    found = await partition(store.sources, form, asked, store.read)
    assert found.points == tuple(-(-t // 12) * 12 for t in asked)
    assert 2 <= store.most_open <= 3


async def test_what_cannot_be_deduced_is_scanned_from_the_last_proved_point():
    puzzle = b'","\n' * 100_000
    data = FLIGHTS + puzzle + FLIGHTS
    store = Store(data)
    inside = len(FLIGHTS) + 200_001
    asked = (0, 1000, len(FLIGHTS) - 100, inside, len(data) - 1000)
    found = await partition(store.sources, Csv(), asked, store.read)
    assert found.points[3] == first_starts(Csv(), puzzle, [inside - len(FLIGHTS)])[0] + len(FLIGHTS)
    assert found.split == "deduce"
    assert "scanned" in found.warnings[0]
    assert found.bytes_read < 200_000 + 5 * 256 * 1024
    alone = await points(Csv(), puzzle, asked=(200_001,))
    assert alone.split == "exact"


async def test_other_tokens_are_scanned_and_it_is_said():
    data = b'a||"b\n"||c\n' * 100
    found = await points(Csv(separators=(b"||",)), data, asked=targets(len(data), 3))
    assert (found.split, len(found.warnings)) == ("exact", 1)
    assert found.points == tuple(-(-t // 11) * 11 for t in targets(len(data), 3))


async def test_terminators_that_overlap_are_scanned_without_quotes():
    data = b'a"\n\nb\nc\n\n' * 10
    form = Csv(split="terminator", terminators=(b"\n\n",))
    found = await points(form, data, asked=(1, 10))
    assert (found.points, found.split) == ((4, 13), "exact")


async def test_the_start_of_a_source_is_a_record_start_without_reading_more_than_the_look():
    found = await points(Csv(), b"a", b"", BOM, b"b\n", asked=(0, 1, 4, 6))
    assert found.points == (0, 1, 4, 6)
    assert found.bytes_read == 6


async def test_fixed_reads_nothing():
    store = Store(b"x" * 30, b"", b"y" * 20)
    found = await partition(store.sources, Fixed(10), targets(50, 3), store.read)
    assert (found.points, found.bytes_read, found.split) == ((0, 10, 30), 0, "fixed")


async def test_fixed_sizes_that_do_not_fit_name_the_source():
    store = Store(b"x" * 30, b"y" * 25)
    with pytest.raises(FormatMismatch, match="not a multiple of the record size 10") as caught:
        await partition(store.sources, Fixed(10), (0,), store.read)
    assert caught.value.facts == {"plane": "lake", "key": "1.csv", "offset": "20"}


@pytest.mark.parametrize("split", ["deduce", "exact", "terminator"])
async def test_a_record_too_long_names_place_and_option(split):
    data = b"a\nb\n" + b"x" * 5000 + b"\nc\n"
    with pytest.raises(RecordTooLong, match="--max-record") as caught:
        await points(Csv(split=split, max_record=1000), b"", data, asked=(100,))
    assert caught.value.facts["key"] == "1.csv"
    if split == "exact":
        assert caught.value.facts["offset"] == "4"
        assert "1.csv, byte 4, record 3" in caught.value.message
    assert caught.value.message.endswith("^")


async def test_contradicting_quotes_name_place_and_option():
    with pytest.raises(FormatMismatch, match="--split exact") as caught:
        await points(Csv(), b'a,5" disk,b\n' * 10, asked=(50,))
    assert caught.value.facts == {"plane": "lake", "key": "0.csv", "offset": "3"}
    assert caught.value.message.splitlines()[1:] == ['a,5" disk,b␊a,5" disk,b␊a,5" disk', "   ^"]


@pytest.mark.parametrize("data", ["a,b\n".encode("utf-16"), b"\xfe\xff\x00a", b"a\x00,\x00"])
async def test_utf16_is_refused_in_any_source(data):
    with pytest.raises(FormatMismatch, match=r"looks like UTF-16.*iconv") as caught:
        await points(Csv(), b"a\n", data, asked=(0,))
    assert caught.value.facts["key"] == "1.csv"


async def test_a_format_without_sense_is_refused_field_by_field():
    with pytest.raises(InvalidSpec) as caught:
        await points(Csv(terminators=(), max_record=0), b"a", asked=(0,))
    assert set(caught.value.violations) == {"format.terminators", "format.max_record"}


async def test_an_error_of_the_read_ends_all_and_is_raised_as_it_is():
    class Broken(Exception):
        pass

    async def read(source, start, end):
        if end > 500_000:
            raise Broken
        return FLIGHTS[start:end]

    for split in ("deduce", "exact"):
        with pytest.raises(Broken):
            await partition(Store(FLIGHTS).sources, Csv(split=split), targets(len(FLIGHTS), 8), read)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", True),
        (BOM, True),
        (b"a\n", True),
        (b"a", False),
        (b"x" * 10_000 + b"\r\n", True),
        (b"a" + b"\\" * 9001 + b"\n", False),
    ],
)
async def test_last_terminated(data, answer):
    store = Store(data)

    async def read(start, end):
        return await store.read(0, start, end)

    assert await last_terminated(store.sources[0], Csv(escapes=(b"\\",)), read) is answer
