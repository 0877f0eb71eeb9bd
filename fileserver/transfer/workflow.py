"""The workflow of a transfer as the job engine (DBOS Transact) knows it: its stages as steps, in order.

Steps take and give ids and counts; everything else is in the ledger. A step that fails for good returns its failure
instead of raising it, so that what other steps did stays done.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from dbos import DBOS

from fileserver import traces
from fileserver.transfer.runs import Runs, Stage

CURRENT: Final[list[Runs]] = []
"""The engine's workflows are plain functions; this is where they find what runs here: one server a process."""


async def _in_stage(name: str, transfer: str, work: Stage) -> dict[str, Any]:
    with traces.span(name, transfer) as told:
        end = await CURRENT[-1].guarded(transfer, work)
        told["end"] = end.get("stop", "ok")
        return end


@DBOS.step(name="plan")
async def _plan(transfer: str) -> dict[str, Any]:
    return await _in_stage("plan", transfer, lambda stages, live: stages.plan(transfer, live))


@DBOS.step(name="open")
async def _open(transfer: str) -> dict[str, Any]:
    return await _in_stage("open", transfer, lambda stages, live: stages.open(transfer, live))


async def _fill(transfer: str, segment: int) -> dict[str, Any]:
    return await _in_stage("fill", transfer, lambda stages, live: stages.fill(transfer, segment, live))


@DBOS.step(name="reroute")
async def _reroute(transfer: str, closed: dict[str, str], route: str = "") -> dict[str, Any]:
    (await CURRENT[-1].live(transfer)).go_on("again")
    return await _in_stage("reroute", transfer, lambda stages, live: stages.reroute(transfer, live, closed, route))


@DBOS.step(name="commit")
async def _commit(transfer: str) -> dict[str, Any]:
    return await _in_stage("commit", transfer, lambda stages, live: stages.commit(transfer, live))


@DBOS.step(name="publish")
async def _publish(transfer: str) -> dict[str, Any]:
    return await _in_stage("publish", transfer, lambda stages, live: stages.publish(transfer, live))


@DBOS.step(name="stop")
async def _stop(transfer: str, kind: str) -> None:
    await CURRENT[-1].stopped(transfer, kind)


async def _fill_all(transfer: str, segments: int) -> dict[str, Any]:
    """All segments, some side by side; their step ids are drawn first, so that a replay finds them in any order."""
    slots = [DBOS.reserve_step() for _ in range(segments)]
    width, order = await CURRENT[-1].order(transfer, segments)
    gate = asyncio.Semaphore(width)
    broken = False

    async def one(number: int) -> dict[str, Any]:
        nonlocal broken
        async with gate:
            end: dict[str, Any] = {}
            if not broken:
                try:
                    end = await slots[number - 1].run_async({"name": "fill"}, _fill, transfer, number)
                finally:
                    broken |= not end
            return end

    # A run that breaks off is over only when none of its segments is at work any more: the next one does them again.
    ends = await asyncio.gather(*(one(number) for number in order), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    stops = [end for end in ends if not isinstance(end, BaseException) and "stop" in end]
    for kind in ("cancel", "fail", "pause", "again"):
        for end in stops:
            if end["stop"] == kind and (kind != "again" or "closed" in end):
                return end
    return {"ok": None}


@DBOS.workflow(name="transfer", max_recovery_attempts=1000)
async def run_transfer(transfer: str, run: int) -> str:
    """One run of a transfer, from wherever the ledger says it stands."""
    runs = CURRENT[-1]
    runs.enter(transfer, run)
    try:
        if not await runs.take(transfer, run):
            return "superseded"
        end = await _move(transfer)
        if "stop" in end:
            await _stop(transfer, end["stop"])
        await runs.tell_traces(transfer)
    finally:
        runs.ended(transfer, run)
    return str(end.get("stop", "done"))


async def _move(transfer: str) -> dict[str, Any]:
    """All stages in order; how the last of them ended."""
    end = await _plan(transfer)
    while "ok" in end:
        segments = end["ok"]
        end = await _open(transfer)
        if "ok" in end:
            end = await _fill_all(transfer, segments)
        if end.get("stop") != "again":
            break
        end = await _reroute(transfer, end["closed"], end.get("route", ""))
        if "ok" in end:
            end = await _plan(transfer)
    for stage in (_commit, _publish):
        if "ok" in end:
            end = await stage(transfer)
    return end
