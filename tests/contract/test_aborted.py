"""What a clean-up relies on: a commit after an abort answers for what this upload has committed, and makes nothing."""

from __future__ import annotations

import pytest

from planes.errors import AlreadyExists, Changed, Error, NotFound

DATA = b"0123456789" * 100
KEY = "out/x.dat"


async def filled(plane, *, replace=False):
    upload = await plane.upload(KEY, upload_id="mine", replace=replace)
    return upload.token, [await upload.put(1, 0, DATA)]


async def there(plane) -> bool:
    try:
        await plane.stat(KEY)
    except NotFound:
        return False
    return True


async def test_it_answers_for_its_own_object(plane, elsewhere):
    token, steps = await filled(plane)
    committed = await plane.resume(token).commit(steps, len(DATA), None)
    await elsewhere.resume(token).abort()
    again = await elsewhere.resume(token).commit(steps, len(DATA), None)
    assert (again.key, again.size, again.version) == (KEY, len(DATA), committed.version)


async def test_it_makes_nothing_of_an_upload_that_was_aborted(plane, elsewhere):
    token, steps = await filled(plane)
    await plane.resume(token).abort()
    with pytest.raises(Error) as caught:
        await elsewhere.resume(token).commit(steps, len(DATA), None)
    assert isinstance(caught.value, NotFound)
    assert not await there(plane)


@pytest.mark.parametrize("replace", [False, True])
async def test_it_does_not_answer_for_a_stranger_s_object(plane, elsewhere, replace):
    token, steps = await filled(plane, replace=replace)
    await plane.put(KEY, DATA, upload_id="theirs")
    await plane.resume(token).abort()
    with pytest.raises((NotFound, AlreadyExists, Changed)):
        await elsewhere.resume(token).commit(steps, len(DATA), None)
    assert await there(plane)
