"""Retrying asks again what may work the next time, and nothing else. No test waits: pauses are recorded."""

from __future__ import annotations

import pytest

from planes.checksum import compute
from planes.errors import (
    AlreadyExists,
    Changed,
    Corrupt,
    Error,
    NotFound,
    Refused,
    Throttled,
    Unavailable,
)
from planes.faulty import Break, Fault, FaultyPlane, LoseAnswer, Raise
from planes.memory import MemoryPlane
from planes.plane import Extent, StepReceipt
from planes.retrying import Patience, RetryingPlane


class Around:
    """A retrying plane around a faulty one in memory, the pauses that it made, and a clock that they move."""

    def __init__(self, *faults: Fault, **patience) -> None:
        self.pauses: list[float] = []
        self.now = 1000.0
        self.faulty = FaultyPlane(MemoryPlane("m"), faults)
        self.plane = RetryingPlane(self.faulty, Patience(sleep=self._sleep, clock=lambda: self.now, **patience))

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def calls(self, verb: str) -> int:
        return self.faulty.script.calls[verb]


def times(verb: str, count: int, error: Error) -> list[Fault]:
    return [Fault(verb, n + 1, Raise(error)) for n in range(count)]


def times_after(verb: str, first: int, count: int) -> list[Fault]:
    return [Fault(verb, first + n + 1, Raise(Unavailable("reset"))) for n in range(count)]


async def use(verb: str, around: Around) -> None:
    plane = around.plane
    await around.faulty.inner.put("there", b"data", upload_id="u0")
    ticket = plane.copy_ticket(await around.faulty.inner.stat("there"))
    calls = {
        "stat": lambda: plane.stat("there"),
        "read": lambda: plane.read(Extent("there", "", 0, 4), memoryview(bytearray(4))),
        "put": lambda: plane.put("new", b"x", upload_id="u"),
        "copy": lambda: plane.copy("new", ticket, upload_id="u"),
        "upload": lambda: plane.upload("new", upload_id="u"),
        "discard": lambda: plane.discard("new", "u"),
        "delete": lambda: plane.delete("there"),
    }
    if verb in calls:
        await calls[verb]()
    elif verb == "list":
        assert [i.key async for i in plane.list()] == ["there"]
    else:
        upload = await plane.upload("new", upload_id="u")
        step = await upload.put(1, 0, b"data")
        await upload.copy(2, 4, ticket, 0, 4)
        await (upload.abort() if verb == "upload.abort" else upload.commit([step], 8, None))


VERBS = ["stat", "list", "read", "put", "copy", "upload", "discard", "delete"]
VERBS += ["upload.put", "upload.copy", "upload.commit", "upload.abort"]


@pytest.mark.parametrize("verb", VERBS)
async def test_every_verb_is_asked_again(verb):
    around = Around(*times(verb, 2, Unavailable("reset")))
    await use(verb, around)
    assert around.calls(verb) == 3
    assert len(around.pauses) == 2


@pytest.mark.parametrize("verb", VERBS)
async def test_every_verb_gives_up_when_patience_ends(verb):
    around = Around(*times(verb, 9, Unavailable("reset")), attempts=3, seconds=0)
    with pytest.raises(Unavailable, match="reset"):
        await use(verb, around)
    assert around.calls(verb) == 3


@pytest.mark.parametrize("kind", [NotFound, AlreadyExists, Changed, Refused])
async def test_what_will_not_work_the_next_time_is_not_asked_again(kind):
    around = Around(*times("stat", 9, kind("no")))
    with pytest.raises(kind):
        await around.plane.stat("x")
    assert around.calls("stat") == 1
    assert around.pauses == []


async def test_corrupt_is_tried_once_more_and_then_final():
    around = Around(*times("upload.put", 9, Corrupt("wrong")))
    async with await around.plane.upload("f", upload_id="u") as upload:
        with pytest.raises(Corrupt):
            await upload.put(1, 0, b"x")
    assert around.calls("upload.put") == 2


async def test_a_store_may_be_away_for_half_a_minute():
    around = Around(*times("stat", 99, Unavailable("reset")))
    with pytest.raises(Unavailable):
        await around.plane.stat("x")
    assert 25 <= sum(around.pauses) <= 30
    for pause, most in zip(around.pauses, [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5], strict=False):
        assert most / 2 <= pause <= most


async def test_attempts_that_take_long_are_still_several():
    around = Around(*times("stat", 99, Unavailable("timed out")))
    stat = around.faulty.stat

    async def slow(key: str):
        around.now += 60
        return await stat(key)

    around.faulty.stat = slow
    with pytest.raises(Unavailable):
        await around.plane.stat("x")
    assert around.calls("stat") == 5


async def test_being_throttled_uses_up_no_attempt_and_ends_after_two_minutes():
    around = Around(*times("stat", 99, Throttled("slow down", retry_after=7)))
    with pytest.raises(Throttled):
        await around.plane.stat("x")
    assert around.pauses == [7] * 17
    around = Around(*times("stat", 10, Throttled("slow down", retry_after=7)), *times_after("stat", 10, 99))
    with pytest.raises(Unavailable):
        await around.plane.stat("x")
    assert around.calls("stat") == 10 + 5


async def test_a_plane_that_was_waited_for_in_vain_is_not_waited_for_again_at_once():
    around = Around(*times("stat", 99, Unavailable("refused")), *times("discard", 99, Unavailable("refused")))
    with pytest.raises(Unavailable):
        await around.plane.stat("x")
    waited = list(around.pauses)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await around.plane.discard("x", "u")
    assert around.calls("discard") == 3
    assert around.pauses == waited
    around.now += 30
    with pytest.raises(Unavailable):
        await around.plane.discard("x", "u")
    assert around.calls("discard") > 3 + 5


async def test_an_upload_knows_what_its_plane_has_waited_for():
    around = Around(*times("stat", 99, Unavailable("refused")), *times("upload.abort", 99, Unavailable("refused")))
    upload = await around.plane.upload("new", upload_id="u")
    with pytest.raises(Unavailable):
        await around.plane.stat("x")
    with pytest.raises(Unavailable):
        await upload.abort()
    assert around.calls("upload.abort") == 1


async def test_a_plane_that_answers_again_is_waited_for_again():
    around = Around(*times("stat", 99, Unavailable("refused")), Fault("put", 2, Raise(Unavailable("refused"))))
    with pytest.raises(Unavailable):
        await around.plane.stat("x")
    await around.plane.put("a", b"", upload_id="u")
    await around.plane.put("b", b"", upload_id="u")
    assert around.calls("put") == 3


async def test_what_is_wrong_with_one_step_says_nothing_about_the_plane():
    around = Around(*times("stat", 2, Corrupt("wrong")), Fault("put", 1, Raise(Unavailable("refused"))))
    with pytest.raises(Corrupt):
        await around.plane.stat("x")
    await around.plane.put("a", b"", upload_id="u")
    assert around.calls("put") == 2


async def test_pauses_grow_to_their_limit_and_are_spread():
    around = Around(*times("stat", 99, Unavailable("reset")), attempts=9, seconds=0, first=1.0, longest=10.0)
    with pytest.raises(Unavailable):
        await around.plane.stat("x")
    for pause, most in zip(around.pauses, [1, 2, 4, 8, 10, 10, 10, 10], strict=True):
        assert most / 2 <= pause <= most
    assert len(set(around.pauses)) > 4


async def test_what_the_provider_asks_for_is_waited():
    around = Around(*times("delete", 1, Throttled("slow down", retry_after=7.5)), first=0.1)
    await around.plane.delete("x")
    assert around.pauses == [7.5]


async def test_a_provider_that_asks_for_too_much_is_left_to_the_caller():
    around = Around(*times("delete", 1, Throttled("come back tomorrow", retry_after=86_400)))
    with pytest.raises(Throttled):
        await around.plane.delete("x")
    assert around.pauses == []


async def test_a_listing_goes_on_behind_the_last_key_that_came():
    broken_off = Unavailable("reset")

    class Breaking(MemoryPlane):
        """Every listing breaks off after two objects."""

        async def list(self, prefix: str = "", after: str = "", left_out=None):
            count = 0
            async for info in super().list(prefix, after, left_out):
                if count == 2:
                    raise broken_off
                count += 1
                yield info

    inner = Breaking("m")
    for n in range(7):
        await inner.put(f"f{n}", b"", upload_id="u")

    async def at_once(seconds: float) -> None:
        """No pause."""

    plane = RetryingPlane(inner, Patience(attempts=2, seconds=0, sleep=at_once))
    assert [i.key async for i in plane.list("f")] == [f"f{n}" for n in range(7)]


@pytest.mark.parametrize("verb", ["put", "copy", "upload.commit"])
async def test_a_lost_answer_is_not_mistaken_for_somebody_elses_object(verb):
    around = Around(Fault(verb, 1, LoseAnswer()))
    if verb == "upload.commit":
        async with await around.plane.upload("new", upload_id="u") as upload:
            step = await upload.put(1, 0, b"x")
            await upload.commit([step], 1, None)
    else:
        await use(verb, around)
    assert around.calls(verb) == 2
    assert (await around.plane.stat("new")).size > 0


async def test_leaving_an_upload_aborts_it_even_if_that_takes_two_attempts():
    around = Around()
    upload = await around.plane.upload("f", upload_id="u")
    failures = iter([Unavailable("reset")])
    inner = upload.inner.inner
    abort = inner.abort

    async def fail_once() -> None:
        for error in failures:
            raise error
        await abort()

    inner.abort = fail_once
    async with upload:
        await upload.put(1, 0, b"x")
    assert around.pauses
    assert not around.faulty.inner._store.drafts


def stream(around: Around, got: bytearray, size: int = 100):
    return around.plane.stream(Extent("there", "", 0, size), got.extend)


async def test_a_stream_goes_on_behind_the_last_byte_that_was_taken():
    around = Around(Fault("read", 1, Break(50)), Fault("read", 2, Break(10)))
    data = bytes(range(100))
    await around.faulty.inner.put("there", data, upload_id="u0")
    got = bytearray()
    await stream(around, got)
    assert got == data
    assert around.calls("read") == 3


async def test_what_the_taker_of_a_stream_raises_is_not_tried_again():
    around = Around()
    await around.faulty.inner.put("there", b"data", upload_id="u0")
    error = Unavailable("the target is away")

    def refuse(_: memoryview) -> None:
        raise error

    with pytest.raises(Unavailable) as caught:
        await around.plane.stream(Extent("there", "", 0, 4), refuse)
    assert caught.value is error
    assert (around.calls("read"), around.pauses) == (1, [])


async def pour(around: Around) -> StepReceipt:
    source = MemoryPlane("s")
    await source.put("x", bytes(100), upload_id="u0")
    upload = await around.plane.upload("there", upload_id="u1")
    receipt = await upload.pour(1, 0, 100, lambda take: source.stream(Extent("x", "", 0, 100), take))
    await upload.commit([receipt], 100, receipt.crc64nvme)
    return receipt


async def test_a_step_that_the_target_did_not_take_is_poured_anew():
    around = Around(Fault("upload.put", 1, Break(50, Corrupt("the target holds other bytes"))))
    receipt = await pour(around)
    assert (receipt.size, around.calls("upload.put")) == (100, 2)
    assert (await around.faulty.inner.stat("there")).checksums == {"crc64nvme": compute(bytes(100))}


async def test_an_error_of_the_source_is_not_the_targets_to_try_again():
    around = Around()
    upload = await around.plane.upload("there", upload_id="u1")
    error = Unavailable("the source is away")

    async def broken(take) -> None:
        take(memoryview(b"some"))
        raise error

    with pytest.raises(Unavailable) as caught:
        await upload.pour(1, 0, 100, broken)
    assert caught.value is error
    assert (around.calls("upload.put"), around.pauses) == (1, [])


async def test_an_upload_whose_begin_was_lost_is_discarded_before_the_next():
    around = Around(Fault("upload", 1, LoseAnswer()))
    async with await around.plane.upload("k", upload_id="u") as upload:
        await upload.commit([await upload.put(1, 0, b"x")], 1, None)
    assert around.calls("discard") == 1
