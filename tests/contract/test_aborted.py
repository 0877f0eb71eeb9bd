"""What a clean-up relies on: an upload knows the object that it made, before and after it was aborted."""

from __future__ import annotations

import pytest

DATA = b"0123456789" * 100
KEY = "out/x.dat"


async def filled(plane, *, replace=False):
    upload = await plane.upload(KEY, upload_id="mine", replace=replace)
    return upload.token, [await upload.put(1, 0, DATA)]


async def test_it_knows_its_own_object(plane, elsewhere):
    token, steps = await filled(plane)
    committed = await plane.resume(token).commit(steps, len(DATA), None)
    await elsewhere.resume(token).abort()
    made = await elsewhere.resume(token).made()
    assert made is not None
    assert (made.key, made.size, made.version) == (KEY, len(DATA), committed.version)


async def test_it_made_nothing_before_its_commit(plane, elsewhere):
    token, _ = await filled(plane)
    assert await elsewhere.resume(token).made() is None
    await plane.resume(token).abort()
    assert await elsewhere.resume(token).made() is None


async def test_what_it_made_may_be_gone_since(plane, elsewhere):
    token, steps = await filled(plane)
    await plane.resume(token).commit(steps, len(DATA), None)
    await plane.delete(KEY)
    assert await elsewhere.resume(token).made() is None


@pytest.mark.parametrize("replace", [False, True])
async def test_it_does_not_answer_for_a_stranger_s_object(plane, elsewhere, replace):
    token, _ = await filled(plane, replace=replace)
    await plane.put(KEY, DATA, upload_id="theirs", replace=True)
    await plane.resume(token).abort()
    assert await elsewhere.resume(token).made() is None
    assert (await plane.stat(KEY)).size == len(DATA)


async def test_it_does_not_answer_for_who_replaced_it(plane, elsewhere):
    token, steps = await filled(plane)
    await plane.resume(token).commit(steps, len(DATA), None)
    await plane.put(KEY, DATA, upload_id="theirs", replace=True)
    assert await elsewhere.resume(token).made() is None
