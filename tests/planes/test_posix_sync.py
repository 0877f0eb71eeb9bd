"""A flush is shared by those who asked before it began, and by nobody else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from planes import posix_sync
from planes.posix_sync import DirectorySync


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


def test_who_asks_during_a_flush_waits_for_the_next_one_and_shares_it(directory, monkeypatch):
    begun, go_on, flushes = Event(), Event(), []

    def flush(fd: int) -> None:
        flushes.append(fd)
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(posix_sync, "flush", flush)
    sync = DirectorySync()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(sync, directory)
        assert begun.wait(10)
        others = [pool.submit(sync, directory) for _ in range(4)]
        turn = sync._turns[next(iter(sync._turns))]
        while turn.waiting < 5:
            pass
        assert not first.done()
        go_on.set()
        for one in (first, *others):
            one.result(10)
    assert len(flushes) == 2
    assert sync._turns == {}


def test_a_failed_flush_is_told_to_the_one_who_made_it_and_made_again_for_the_others(directory, monkeypatch):
    answers = [OSError(5, "no"), None]

    def flush(_fd: int) -> None:
        answer = answers.pop(0)
        if answer:
            raise answer

    monkeypatch.setattr(posix_sync, "flush", flush)
    sync = DirectorySync()
    with pytest.raises(OSError, match="no"):
        sync(directory)
    sync(directory)
    assert answers == []
