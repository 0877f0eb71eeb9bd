"""Limits that an operator widens are used at once, and an upload that ends badly says first why it did."""

from __future__ import annotations

import asyncio
import threading

import pytest

from planes.azure_connection import Connection
from planes.azure_errors import Asked
from planes.azure_settings import AzureSettings
from planes.bounds import LONGEST_WAIT
from planes.errors import Corrupt, Throttled, Unavailable
from planes.limited import LimitedPlane
from planes.memory import MemoryPlane
from planes.opening import decorated
from planes.plane import Extent
from planes.posix import PosixPlane, PosixSettings
from planes.posix_site import Site
from planes.settings import PlaneLimits
from planes.wrapped import find

OTHER, AWAY = Corrupt("other bytes"), Unavailable("away")
PATIENCE = 10.0  # seconds for threads to come together, which takes none


async def test_widened_limits_reach_the_threads_of_a_directory(tmp_path):
    one, four = PlaneLimits(requests=1), PlaneLimits(requests=4)
    (tmp_path / "x").write_bytes(b"x")
    plane = decorated(PosixPlane("d", PosixSettings(path=tmp_path, limits=one)), one)
    find(plane, LimitedPlane).change(four)
    barrier = threading.Barrier(four.requests)
    try:
        await asyncio.gather(
            *(plane.stream(Extent("x", "", 0, 1), lambda _: barrier.wait(PATIENCE) and None) for _ in range(4))
        )
    finally:
        await plane.aclose()


async def test_widened_limits_reach_the_threads_of_a_container():
    """The plane above lets more in; here they must find threads."""
    settings = AzureSettings(container="c", account_url="https://a.invalid", limits=PlaneLimits(requests=1))
    connection, barrier = Connection("az", settings), threading.Barrier(100)
    try:
        await asyncio.gather(
            *(connection.work(lambda _: barrier.wait(PATIENCE), Asked("look at", "x")) for _ in range(100))
        )
    finally:
        connection.close()


# --- the first error is the one to report


def resting(inner) -> LimitedPlane:
    """A plane whose provider wants to be left alone for longer than anybody waits."""
    plane = LimitedPlane(inner, PlaneLimits())
    plane._bounds.pause.ask_for(LONGEST_WAIT * 2)
    return plane


async def test_a_cancelled_upload_is_cancelled_also_while_the_provider_rests():
    inner = MemoryPlane("m")
    upload = resting(inner)._wrap(await inner.upload("x", upload_id="u"))
    begun = asyncio.Event()

    async def work() -> None:
        async with upload:
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_in_an_upload_is_told_before_the_rest_of_the_provider():
    inner = MemoryPlane("m")
    upload = resting(inner)._wrap(await inner.upload("x", upload_id="u"))
    with pytest.raises(Corrupt) as told:
        async with upload:
            raise OTHER
    assert any("left alone" in note for note in told.value.__notes__)


async def test_without_an_error_the_rest_of_the_provider_is_told():
    inner = MemoryPlane("m")
    with pytest.raises(Throttled):
        async with resting(inner)._wrap(await inner.upload("x", upload_id="u")):
            pass


async def test_an_error_in_an_upload_to_a_directory_is_told_before_that_of_its_removal(tmp_path, monkeypatch):
    plane = PosixPlane("d", PosixSettings(path=tmp_path, durability="os"))

    def fails(*_) -> None:
        raise AWAY

    try:
        upload = await plane.upload("x", upload_id="u")
        monkeypatch.setattr(Site, "abort", fails)
        with pytest.raises(Corrupt):
            async with upload:
                raise OTHER
    finally:
        await plane.aclose()
