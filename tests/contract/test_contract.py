"""The contract of `planes/plane.py`, said once for all planes. Names no provider; sizes follow the plane's limits."""

from __future__ import annotations

import asyncio
import itertools
import random
import urllib.error
import urllib.request
from dataclasses import replace as changed

import pytest

from planes.checksum import combine_all, compute
from planes.errors import (
    AlreadyExists,
    Changed,
    Corrupt,
    NotFound,
    OutOfRange,
    PathEscapes,
    Refused,
    Unsupported,
)
from planes.plane import Extent, Info, Plane, StepReceipt, Ticket

_ids = itertools.count(1)
KEY = "folder/object.bin"


def attempt() -> str:
    return f"attempt-{next(_ids)}"


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def put(plane: Plane, key: str, data: bytes, *, replace: bool = False) -> StepReceipt:
    return await plane.put(key, data, upload_id=attempt(), replace=replace)


async def content(plane: Plane, key: str) -> bytes:
    info = await plane.stat(key)
    return await read(plane, info, 0, info.size)


async def read(plane: Plane, info: Info, start: int, end: int) -> bytes:
    into = bytearray(end - start)
    await plane.read(Extent(info.key, info.version, start, end), memoryview(into))
    return bytes(into)


async def absent(plane: Plane, key: str) -> bool:
    try:
        await plane.stat(key)
    except NotFound:
        return [i.key async for i in plane.list(key)] == []
    return False


def three_steps(plane: Plane) -> list[bytes]:
    """Two of the smallest steps that are allowed, and a last one that is smaller."""
    size = max(plane.limits.min_step, 1000)
    return [noise(size, 1), noise(size, 2), noise(77, 3)]


def offsets(steps: list[bytes]) -> list[int]:
    return list(itertools.accumulate((len(s) for s in steps), initial=0))


def ticket_of(plane: Plane, info: Info) -> Ticket:
    ticket = plane.copy_ticket(info)
    assert ticket is not None
    assert plane.accepts(ticket)
    return ticket


async def source(plane: Plane, seed: int = 9) -> tuple[Ticket, bytes]:
    """An object large enough that ranges may be copied out of it."""
    data = noise(plane.limits.min_copy_source + 5000, seed)
    await put(plane, "source.bin", data)
    return ticket_of(plane, await plane.stat("source.bin")), data


# Whole objects.


@pytest.mark.parametrize("data", [b"", b"x", noise(5000)], ids=["empty", "one byte", "some"])
async def test_what_was_put_is_read_back(plane, data):
    receipt = await put(plane, KEY, data)
    assert receipt.size == len(data)
    assert receipt.crc64nvme == compute(data)
    info = await plane.stat(KEY)
    assert (info.key, info.size) == (KEY, len(data))
    assert info.version
    assert await content(plane, KEY) == data
    for kind, value in info.checksums.items():
        assert value == compute(data, kind=kind)


async def test_memoryviews_are_taken_as_they_are(plane):
    await plane.put(KEY, memoryview(bytearray(noise(300)))[100:200], upload_id=attempt())
    assert await content(plane, KEY) == noise(300)[100:200]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (17, 4000), (4999, 5000), (5000, 5000)])
async def test_any_range_is_read(plane, start, end):
    await put(plane, KEY, noise(5000))
    assert await read(plane, await plane.stat(KEY), start, end) == noise(5000)[start:end]


async def test_a_read_without_version_takes_what_is_there(plane):
    await put(plane, KEY, b"old")
    await put(plane, KEY, b"new", replace=True)
    into = bytearray(3)
    await plane.read(Extent(KEY, "", 0, 3), memoryview(into))
    assert into == b"new"


async def test_a_read_beyond_the_end_is_out_of_range(plane):
    await put(plane, KEY, noise(100))
    info = await plane.stat(KEY)
    with pytest.raises(OutOfRange):
        await read(plane, info, 50, 101)


async def test_what_is_not_there_is_not_found(plane):
    with pytest.raises(NotFound):
        await plane.stat("nowhere")
    with pytest.raises(NotFound):
        await plane.read(Extent("nowhere", "", 0, 1), memoryview(bytearray(1)))


async def test_a_pinned_read_notices_a_replaced_object(plane):
    await put(plane, KEY, b"first")
    old = await plane.stat(KEY)
    await put(plane, KEY, b"other", replace=True)
    assert (await plane.stat(KEY)).version != old.version
    with pytest.raises(Changed):
        await read(plane, old, 0, 5)


async def test_a_pinned_read_notices_a_vanished_object(plane):
    await put(plane, KEY, b"first")
    old = await plane.stat(KEY)
    await plane.delete(KEY)
    with pytest.raises(Changed):
        await read(plane, old, 0, 5)


async def test_a_stream_hands_over_any_range_in_order(plane):
    data = noise(600_000)
    await put(plane, KEY, data)
    info = await plane.stat(KEY)
    for start, end in ((0, 600_000), (1, 599_999), (300_000, 300_001), (7, 7)):
        got = bytearray()
        await plane.stream(Extent(KEY, info.version, start, end), got.extend)
        assert got == data[start:end]


async def test_a_stream_knows_versions_and_bounds_as_a_read_does(plane):
    await put(plane, KEY, noise(100))
    old = await plane.stat(KEY)
    with pytest.raises(OutOfRange):
        await plane.stream(Extent(KEY, old.version, 50, 101), lambda _: None)
    with pytest.raises(NotFound):
        await plane.stream(Extent("nowhere", "", 0, 1), lambda _: None)
    await put(plane, KEY, noise(100, 1), replace=True)
    with pytest.raises(Changed):
        await plane.stream(Extent(KEY, old.version, 0, 5), lambda _: None)


async def test_what_the_taker_of_a_stream_raises_ends_it(plane):
    await put(plane, KEY, noise(100))
    info, calls = await plane.stat(KEY), []

    def refuse(data: memoryview) -> None:
        calls.append(len(data))
        msg = "no more of it"
        raise Corrupt(msg)

    with pytest.raises(Corrupt, match="no more of it"):
        await plane.stream(Extent(KEY, info.version, 0, 100), refuse)
    assert len(calls) == 1


async def test_steps_are_stored_while_they_are_read(plane, elsewhere):
    """Or the plane says that it takes them whole, and stores nothing."""
    data, source_key = noise(700_000, 3), "source"
    await put(plane, source_key, data)
    info = await plane.stat(source_key)

    def part(start: int, end: int):
        return lambda take: elsewhere.stream(Extent(source_key, info.version, start, end), take)

    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        if not plane.capabilities.pours:
            with pytest.raises(Unsupported):
                await upload.pour(1, 0, 10, part(0, 10))
            return
        second = await upload.pour(2, 500_000, 200_000, part(500_000, 700_000))
        first = await upload.pour(1, 0, 500_000, part(0, 500_000))
        assert (first.size, first.crc64nvme) == (500_000, compute(data[:500_000]))
        await upload.commit([first, second], len(data), compute(data))
    assert await content(elsewhere, KEY) == data


async def test_a_stream_of_another_size_than_planned_is_corrupt(plane):
    if not plane.capabilities.pours:
        return
    await put(plane, "source", noise(100))
    info = await plane.stat("source")
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        with pytest.raises(Corrupt):
            await upload.pour(1, 0, 101, lambda take: plane.stream(Extent("source", info.version, 0, 100), take))


async def test_a_put_does_not_overwrite_unless_it_is_told_to(plane):
    await put(plane, KEY, b"first")
    with pytest.raises(AlreadyExists):
        await put(plane, KEY, b"second")
    assert await content(plane, KEY) == b"first"
    await put(plane, KEY, b"third", replace=True)
    assert await content(plane, KEY) == b"third"


async def test_a_put_that_is_repeated_by_the_same_attempt_replaces_its_own(plane, elsewhere):
    await plane.put(KEY, b"first", upload_id="once")
    await elsewhere.put(KEY, b"again", upload_id="once")
    assert await content(plane, KEY) == b"again"


async def test_of_racing_puts_one_wins(plane):
    answers = await asyncio.gather(*(put(plane, KEY, bytes([n]) * 100) for n in range(6)), return_exceptions=True)
    won = [n for n, answer in enumerate(answers) if isinstance(answer, StepReceipt)]
    assert len(won) == 1, answers
    assert all(isinstance(answer, AlreadyExists) for n, answer in enumerate(answers) if n not in won)
    assert await content(plane, KEY) == bytes(won) * 100


async def test_delete_is_idempotent(plane):
    await plane.delete("never/there")
    await put(plane, KEY, b"x")
    await plane.delete(KEY)
    await plane.delete(KEY)
    assert await absent(plane, KEY)


async def test_a_pinned_delete_spares_what_was_written_since(plane):
    await put(plane, KEY, b"x")
    [listed] = [info async for info in plane.list(KEY)]
    await plane.delete(KEY)
    await put(plane, KEY, b"other")
    await plane.delete(KEY, version=listed.version)
    assert await content(plane, KEY) == b"other"
    await plane.delete(KEY, version=(await plane.stat(KEY)).version)
    assert await absent(plane, KEY)
    await plane.delete(KEY, version=listed.version)


@pytest.mark.parametrize("key", ["a b/c+d%2F?&#.csv", "Grüße/日本.csv", "x" * 255, "d/" * 20 + "deep", "~g/n._1_of_2"])
async def test_keys_of_all_kinds(plane, key):
    await put(plane, key, key.encode())
    assert await content(plane, key) == key.encode()
    assert [info.key async for info in plane.list()] == [key]
    async with await plane.upload(key, upload_id=attempt(), replace=True) as upload:
        step = await upload.put(1, 0, b"in steps")
        await upload.commit([step], 8, None)
    assert await content(plane, key) == b"in steps"
    await plane.delete(key)
    assert await absent(plane, key)


@pytest.mark.parametrize("key", ["../out", "a/../../out", "/etc/passwd", "a/..", ".."])
async def test_no_key_leads_out_of_the_plane(plane, key):
    with pytest.raises(PathEscapes):
        await put(plane, key, b"x")
    with pytest.raises(PathEscapes):
        await plane.upload(key, upload_id=attempt())
    with pytest.raises(PathEscapes):
        await plane.stat(key)
    with pytest.raises(PathEscapes):
        await plane.read(Extent(key, "", 0, 1), memoryview(bytearray(1)))
    with pytest.raises(PathEscapes):
        await plane.delete(key)


# Listings.

NAMES = ["a/b/c", "a/c", "a0", "b/z", "b/ü", "b/\U0001f681", "c"]
PREFIXES = ["", "a", "a/", "a/b", "b/", "b/ü", "nothing", "a/b/c", "a/b/c/"]
AFTERS = ["", "a/", "a/b/", "a/b/c", "a0", "b/ü", "b/\U0010ffff", "z"]


async def test_a_listing_goes_from_a_prefix_and_a_key_in_order(plane):
    for name in reversed(NAMES):
        await put(plane, name, name.encode())
    listed = [info async for info in plane.list()]
    assert [i.key for i in listed] == NAMES
    assert [i.size for i in listed] == [len(n.encode()) for n in NAMES]
    for prefix, after in itertools.product(PREFIXES, AFTERS):
        wanted = [n for n in NAMES if n.startswith(prefix) and n.encode() > after.encode()]
        assert [i.key async for i in plane.list(prefix, after)] == wanted, (prefix, after)


async def test_folders_are_listed_by_the_bytes_of_whole_keys(plane):
    names = ["a-b", "a.b/c", "a/b", "a/b-c/d", "a/c/d", "a0"]
    for name in reversed(names):
        await put(plane, name, b"")
    assert [i.key async for i in plane.list()] == names
    assert [i.key async for i in plane.list("a", "a")] == names
    assert [i.key async for i in plane.list("a", "a.b/c")] == names[2:]
    assert [i.key async for i in plane.list("a/b")] == ["a/b", "a/b-c/d"]


async def test_a_listed_version_is_a_pin(plane):
    await put(plane, KEY, noise(10))
    [info] = [info async for info in plane.list("folder/")]
    assert await read(plane, info, 2, 7) == noise(10)[2:7]


async def test_a_listing_of_nothing_is_empty(plane):
    assert [info async for info in plane.list()] == []
    assert [info async for info in plane.list("no/such/folder/")] == []


# Uploads.


async def test_an_object_appears_whole_at_commit(plane, elsewhere):
    steps = three_steps(plane)
    whole = b"".join(steps)
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        receipts = await asyncio.gather(
            *(upload.put(n + 1, offsets(steps)[n], steps[n], compute(steps[n]) if n else None) for n in (2, 0, 1))
        )
        assert await absent(elsewhere, KEY)
        info = await upload.commit(receipts, len(whole), compute(whole))
    assert {(r.number, r.size, r.crc64nvme) for r in receipts} == {
        (n + 1, len(s), compute(s)) for n, s in enumerate(steps)
    }
    assert await content(elsewhere, KEY) == whole
    assert info.version == (await elsewhere.stat(KEY)).version
    assert info.size == len(whole)


async def test_the_same_number_twice_replaces(plane):
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        await upload.put(1, 0, b"wrong")
        step = await upload.put(1, 0, b"right")
        await upload.commit([step], 5, compute(b"right"))
    assert await content(plane, KEY) == b"right"


async def test_any_process_goes_on_with_a_token(plane, elsewhere):
    steps = three_steps(plane)
    whole = b"".join(steps)
    upload = await plane.upload(KEY, upload_id=attempt())
    first = await upload.put(1, 0, steps[0])
    others = [await elsewhere.resume(upload.token).put(n + 1, offsets(steps)[n], steps[n]) for n in (1, 2)]
    await elsewhere.resume(upload.token).commit([first, *others], len(whole), compute(whole))
    assert await content(plane, KEY) == whole
    await upload.abort()
    assert await content(plane, KEY) == whole


async def test_a_commit_may_be_repeated(plane, elsewhere):
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        steps = [await upload.put(1, 0, b"once")]
        first = await upload.commit(steps, 4, compute(b"once"))
        again = await upload.commit(steps, 4, compute(b"once"))
        third = await elsewhere.resume(upload.token).commit(steps, 4, compute(b"once"))
    assert first.version == again.version == third.version
    assert await content(plane, KEY) == b"once"


async def test_leaving_without_commit_leaves_nothing(plane):
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        await upload.put(1, 0, b"never seen")
    assert await absent(plane, KEY)
    with pytest.raises((NotFound, Refused)):
        await upload.put(1, 0, b"too late")


async def test_leaving_by_an_error_leaves_nothing_and_the_error(plane):
    async def fail() -> None:
        async with await plane.upload(KEY, upload_id=attempt()) as upload:
            await upload.put(1, 0, b"never seen")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await absent(plane, KEY)


async def test_abort_is_idempotent(plane, elsewhere):
    upload = await plane.upload(KEY, upload_id=attempt())
    await upload.put(1, 0, b"x")
    await elsewhere.resume(upload.token).abort()
    await upload.abort()
    assert await absent(plane, KEY)


async def test_discard_removes_an_upload_whose_token_was_lost(plane, elsewhere):
    key = "~1/lost.bin"
    await plane.upload(key, upload_id="lost")
    await elsewhere.discard(key, "lost")
    await elsewhere.discard(key, "lost")
    assert await absent(plane, key)


async def test_an_open_upload_is_found_below_its_prefix_and_dropped_without_its_token(plane, elsewhere):
    key, name = "~1/open._1_of_1", attempt()
    await put(plane, "~1/whole", b"whole")
    upload = await plane.upload(key, upload_id=name)
    await upload.put(1, 0, b"x")
    assert [one async for one in elsewhere.unfinished("~2/")] == []
    (one,) = [one async for one in elsewhere.unfinished("~1/")]
    assert one.attempt in {"", name}
    assert one.key.rpartition("/")[0] == "~1"
    mine = changed(one, attempt=name)
    await elsewhere.drop(mine)
    await elsewhere.drop(mine)
    assert [one async for one in elsewhere.unfinished("~1/")] == []
    assert await content(plane, "~1/whole") == b"whole"
    assert await absent(plane, key)


async def test_discard_keeps_what_others_wrote(plane):
    await put(plane, KEY, b"theirs")
    await plane.discard(KEY, "lost")
    assert await content(plane, KEY) == b"theirs"


async def test_an_upload_does_not_overwrite_unless_it_is_told_to(plane):
    await put(plane, KEY, b"old")
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        step = await upload.put(1, 0, b"new")
        with pytest.raises(AlreadyExists):
            await upload.commit([step], 3, None)
    assert await content(plane, KEY) == b"old"
    async with await plane.upload(KEY, upload_id=attempt(), replace=True) as upload:
        step = await upload.put(1, 0, b"new")
        assert await content(plane, KEY) == b"old"
        await upload.commit([step], 3, None)
    assert await content(plane, KEY) == b"new"


async def test_an_object_of_the_wrong_size_is_corrupt_and_invisible(plane):
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        step = await upload.put(1, 0, b"four")
        with pytest.raises(Corrupt):
            await upload.commit([step], 5, None)
    assert await absent(plane, KEY)


async def test_an_object_of_the_wrong_checksum_is_corrupt_and_invisible(plane):
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        step = await upload.put(1, 0, b"four")
        with pytest.raises(Corrupt):
            await upload.commit([step], 4, compute(b"five"))
    assert await absent(plane, KEY)


async def test_a_step_of_another_checksum_than_announced_is_corrupt(plane):
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        with pytest.raises(Corrupt):
            await upload.put(1, 0, b"four", compute(b"five"))


async def test_an_upload_without_bytes_makes_an_empty_object(plane):
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        step = await upload.put(1, 0, b"")
        await upload.commit([step], 0, 0)
    assert await content(plane, KEY) == b""


@pytest.mark.parametrize("kind", ["crc32", "crc32c"])
async def test_an_upload_of_another_kind_of_checksum_is_the_same_object(plane, elsewhere, kind):
    steps = three_steps(plane)
    whole = b"".join(steps)
    async with await plane.upload(KEY, upload_id=attempt(), kind=kind) as upload:
        receipts = [await upload.put(n + 1, offsets(steps)[n], steps[n], compute(steps[n])) for n in (2, 0)]
        receipts.append(await elsewhere.resume(upload.token).put(2, offsets(steps)[1], steps[1]))
        with pytest.raises(Corrupt):
            await upload.put(2, offsets(steps)[1], steps[1], compute(b"others"))
        receipts[-1] = await upload.put(2, offsets(steps)[1], steps[1])
        with pytest.raises(Corrupt):
            await upload.commit(receipts, len(whole), compute(b"others"))
        assert await absent(plane, KEY)
        info = await upload.commit(receipts, len(whole), compute(whole))
        assert await elsewhere.resume(upload.token).commit(receipts, len(whole), compute(whole)) == info
    assert await content(elsewhere, KEY) == whole
    in_order = sorted(receipts, key=lambda r: r.number)
    assert [r.crc64nvme for r in in_order] == [compute(s) for s in steps]
    assert {r.other is None for r in in_order} == {kind not in info.checksums}
    known = [(r.other, r.size) for r in in_order if r.other is not None]
    assert combine_all(known, kind) == info.checksums.get(kind, 0)
    for stored, value in info.checksums.items():
        assert value == compute(whole, kind=stored)


@pytest.mark.parametrize("kind", ["crc32", "crc32c"])
async def test_ranges_are_copied_into_an_upload_of_another_kind(plane, kind):
    ticket, data = await source(plane)
    middle, tail = data[13 : plane.limits.min_copy_source + 4000], b"the end"
    async with await plane.upload(KEY, upload_id=attempt(), kind=kind) as upload:
        receipts = [
            await upload.put(2, len(middle), tail),
            await upload.copy(1, 0, ticket, 13, 13 + len(middle)),
        ]
        info = await upload.commit(receipts, len(middle) + len(tail), None)
    assert await content(plane, KEY) == middle + tail
    for stored, value in info.checksums.items():
        assert value == compute(middle + tail, kind=stored)


# Copies by the provider.


async def test_a_whole_object_is_copied(plane):
    ticket, data = await source(plane)
    receipt = await plane.copy("copy.bin", ticket, upload_id=attempt())
    assert (receipt.size, receipt.crc64nvme) == (len(data), compute(data))
    assert await content(plane, "copy.bin") == data
    with pytest.raises(AlreadyExists):
        await plane.copy("copy.bin", ticket, upload_id=attempt())
    await plane.copy("copy.bin", ticket, upload_id=attempt(), replace=True)


async def test_an_empty_object_is_copied(plane):
    await put(plane, "empty", b"")
    await plane.copy("copy", ticket_of(plane, await plane.stat("empty")), upload_id=attempt())
    assert await content(plane, "copy") == b""


async def test_ranges_are_copied_and_mixed_with_puts(plane):
    ticket, data = await source(plane)
    size = plane.limits.min_copy_source
    start = 13
    head, middle, tail = noise(max(plane.limits.min_step, 100), 4), data[start : start + size + 500], data[-321:]
    whole = head + middle + tail
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        receipts = [
            await upload.copy(3, len(head + middle), ticket, len(data) - 321, len(data)),
            await upload.put(1, 0, head),
            await upload.copy(2, len(head), ticket, start, start + size + 500),
        ]
        await upload.commit(receipts, len(whole), compute(whole))
    assert [r.crc64nvme for r in receipts] == [compute(tail), compute(head), compute(middle)]
    assert await content(plane, KEY) == whole


async def test_a_ticket_is_redeemed_by_any_process(plane, elsewhere):
    ticket, data = await source(plane)
    assert elsewhere.accepts(ticket)
    await elsewhere.copy(KEY, ticket, upload_id=attempt())
    assert await content(plane, KEY) == data


async def test_a_copy_notices_a_changed_source(plane):
    ticket, data = await source(plane)
    await put(plane, "source.bin", data[::-1], replace=True)
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        with pytest.raises(Changed):
            await upload.copy(1, 0, ticket, 0, len(data))
    with pytest.raises(Changed):
        await plane.copy(KEY, ticket, upload_id=attempt())
    assert await absent(plane, KEY)


async def test_a_copy_notices_a_vanished_source(plane):
    ticket, data = await source(plane)
    await plane.delete("source.bin")
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        with pytest.raises(Changed):
            await upload.copy(1, 0, ticket, 0, len(data))
    with pytest.raises(Changed):
        await plane.copy(KEY, ticket, upload_id=attempt())


async def test_a_copy_beyond_the_end_of_its_source_is_out_of_range(plane):
    ticket, data = await source(plane)
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        with pytest.raises(OutOfRange):
            await upload.copy(1, 0, ticket, 0, len(data) + 1)


async def test_the_address_of_an_object_reads_it_and_nothing_else(plane):
    ticket, data = await source(plane)
    if ticket.kind in {"memory", "posix"}:  # which have none
        with pytest.raises(Unsupported):
            await plane.presign(ticket)
        return
    url = await plane.presign(ticket)
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=13-99"})) as answer:
        assert answer.read() == data[13:100]
    for method in ("PUT", "DELETE"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(url, data=b"", method=method))
    assert await content(plane, "source.bin") == data


async def test_a_foreign_ticket_is_not_accepted(plane):
    foreign = Ticket("elsewhere", "another scope", {"key": "x"}, "1", 10)
    assert not plane.accepts(foreign)
    own = await source(plane)
    assert not plane.accepts(Ticket(own[0].kind, "another scope", own[0].location, own[0].version, own[0].size))


async def test_redeeming_a_foreign_ticket_is_refused(plane):
    foreign = Ticket("elsewhere", "another scope", {"planet": "none", "crater": "x"}, "1", 10)
    async with await plane.upload(KEY, upload_id=attempt()) as upload:
        with pytest.raises((Unsupported, Refused)):
            await upload.copy(1, 0, foreign, 0, 10)
    with pytest.raises((Unsupported, Refused)):
        await plane.copy(KEY, foreign, upload_id=attempt())


# Side by side.


async def test_many_objects_side_by_side(plane):
    await asyncio.gather(*(put(plane, f"many/{n:02}", noise(1000, n)) for n in range(24)))
    contents = await asyncio.gather(*(content(plane, f"many/{n:02}") for n in range(24)))
    assert contents == [noise(1000, n) for n in range(24)]
    await asyncio.gather(*(plane.delete(f"many/{n:02}") for n in range(24)))
    assert [info async for info in plane.list()] == []
