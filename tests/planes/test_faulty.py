"""Trouble comes exactly where the script says, so that tests above can rely on it."""

from __future__ import annotations

import asyncio

import pytest

from planes.errors import Corrupt, NotFound, Unavailable
from planes.faulty import Delay, Fault, FaultyPlane, Flip, Hold, LoseAnswer, Raise, Short
from planes.memory import MemoryPlane
from planes.plane import Extent


async def read(plane: FaultyPlane, key: str, size: int) -> bytes:
    into = bytearray(b"." * size)
    await plane.read(Extent(key, "", 0, size), memoryview(into))
    return bytes(into)


def faulty(*faults: Fault) -> FaultyPlane:
    return FaultyPlane(MemoryPlane("m"), faults)


async def test_only_the_named_call_fails_and_does_nothing():
    plane = faulty(Fault("put", 2, Raise(Unavailable("reset"))))
    await plane.put("1", b"", upload_id="u")
    with pytest.raises(Unavailable):
        await plane.put("2", b"", upload_id="u")
    await plane.put("3", b"", upload_id="u")
    assert [i.key async for i in plane.list()] == ["1", "3"]


async def test_call_0_is_every_call():
    plane = faulty(Fault("stat", 0, Raise(Unavailable("reset"))))
    for _ in range(3):
        with pytest.raises(Unavailable):
            await plane.stat("x")


async def test_a_lost_answer_comes_after_the_deed():
    plane = faulty(Fault("upload.commit", 1, LoseAnswer()), Fault("delete", 1, LoseAnswer()))
    async with await plane.upload("f", upload_id="u") as upload:
        step = await upload.put(1, 0, b"done")
        with pytest.raises(Unavailable):
            await upload.commit([step], 4, None)
    assert await read(plane, "f", 4) == b"done"
    with pytest.raises(Unavailable):
        await plane.delete("f")
    with pytest.raises(NotFound):
        await plane.stat("f")


async def test_what_is_read_can_be_wrong_or_short():
    plane = faulty(Fault("read", 1, Flip(1)), Fault("read", 2, Short(2)))
    await plane.put("f", b"data", upload_id="u")
    assert await read(plane, "f", 4) == b"d`ta"
    assert await read(plane, "f", 4) == b"da.."
    assert await read(plane, "f", 4) == b"data"


async def test_what_is_stored_can_be_wrong_and_an_announced_checksum_shows_it():
    plane = faulty(Fault("put", 1, Flip(0)), Fault("upload.put", 0, Flip(0)))
    data = bytearray(b"data")
    await plane.put("f", data, upload_id="u")
    assert await read(plane, "f", 4) == b"eata"
    assert data == b"data", "the caller's own buffer is not touched"
    async with await plane.upload("g", upload_id="u") as upload:
        receipt = await upload.put(1, 0, b"data")
        with pytest.raises(Corrupt):
            await upload.put(1, 0, b"data", (await MemoryPlane("n").put("x", b"data", upload_id="u")).crc64nvme)
    assert receipt.size == 4


async def test_a_held_call_waits_for_its_gate():
    hold = Hold()
    plane = faulty(Fault("put", 1, hold), Fault("put", 2, Delay(0)))
    task = asyncio.create_task(plane.put("f", b"x", upload_id="u"))
    await hold.reached.wait()
    with pytest.raises(NotFound):
        await plane.stat("f")
    await plane.put("g", b"x", upload_id="u")
    hold.gate.set()
    await task
    assert await read(plane, "f", 1) == b"x"


async def test_a_listing_breaks_before_or_after_its_objects():
    plane = faulty(Fault("list", 1, Raise(Unavailable("reset"))), Fault("list", 2, LoseAnswer()))
    await plane.put("f", b"", upload_id="u")
    seen: list[str] = []

    async def walk() -> None:
        async for info in plane.list():
            seen.append(info.key)  # noqa: PERF401 - what came before the error counts

    for expected in ([], ["f"]):
        with pytest.raises(Unavailable):
            await walk()
        assert seen == expected


async def test_calls_are_counted_over_all_uploads():
    plane = faulty(Fault("upload.put", 2, Raise(Unavailable("reset"))))
    one, two = await plane.upload("f", upload_id="a"), await plane.upload("g", upload_id="b")
    await one.put(1, 0, b"x")
    with pytest.raises(Unavailable):
        await plane.resume(two.token).put(1, 0, b"x")
    assert plane.script.calls["upload.put"] == 2
