"""What may happen to a transfer behind the back of whoever read its record a moment ago."""

from __future__ import annotations

import pytest

from fileserver.transfer import ledger
from fileserver.transfer.record import Record


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
