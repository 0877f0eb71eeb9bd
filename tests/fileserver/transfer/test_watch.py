"""Watching a transfer that runs on another file server, or waits for its turn."""

from dataclasses import replace

from fileserver.configured import Configured
from fileserver.transfer import jobs as module
from fileserver.transfer.jobs import Jobs
from fileserver.transfer.record import Record


async def test_what_stays_as_it_is_is_looked_at_ever_less_often(store, monkeypatch):
    jobs = Jobs(store, Configured({}, ""), retire_after=0.0)
    queued = Record("t1", {}, "QUEUED", "", 1, 0.0, 0.0)
    moving, over = replace(queued, state="MOVING"), replace(queued, state="SUCCEEDED", ended=1.0)
    naps = []

    async def get(_):
        return (queued if len(naps) < 10 else moving if len(naps) < 12 else over), 0.0

    async def sleep(seconds):
        naps.append(seconds)

    monkeypatch.setattr(jobs, "get", get)
    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    seen = [record.state async for record, _ in jobs.watch("t1")]
    assert seen == ["QUEUED", "MOVING", "SUCCEEDED"]
    assert naps[:10] == sorted(naps[:10])
    assert (naps[0], naps[9]) == (0.02, 2.0)
    assert naps[10] == 0.25, "what changes at last is looked at more often again"
