"""What a command that carries files keeps, so that it can be gone on with after a break."""

import fcntl
import os
import sys

import pytest

from client import agent
from client.agent import Agent, Files, Memory, Standby
from client.api import Access
from client.errors import ServerError

LONG_AGO = 10**9


def kept(state):
    return sorted(path.suffix for path in (state / "agents").iterdir())


def test_nothing_is_kept_of_a_command_that_no_server_knows_of(tmp_path):
    with Memory(tmp_path, b"words") as memory:
        asked = memory.asked()
        assert not asked.again
    assert kept(tmp_path) == []


def test_a_command_that_was_broken_off_goes_by_the_same_until_it_has_ended(tmp_path):
    with Memory(tmp_path, b"words") as memory:
        first = memory.asked()
        memory.is_told = True
    with Memory(tmp_path, b"words") as memory:
        again = memory.asked()
        assert (again.request, again.key, again.again) == (first.request, first.key, True)
    assert ".json" in kept(tmp_path)
    with Memory(tmp_path, b"words") as memory:
        memory.asked()
        memory.forget()
    assert kept(tmp_path) == []


def test_what_nobody_has_gone_on_with_for_long_is_swept(tmp_path):
    for words in (b"old", b"new"):
        with Memory(tmp_path, words) as memory:
            memory.asked()
            memory.log.write_text("cropduster agent: it broke")
            memory.is_told = True
    old = Memory(tmp_path, b"old")
    for path in (tmp_path / "agents").glob(f"{old.path.stem}.*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    with Memory(tmp_path, b"another"):
        assert {path.stem for path in (tmp_path / "agents").glob("*.json")} == {Memory(tmp_path, b"new").path.stem}


def test_a_lock_whose_file_is_gone_keeps_nobody_out_and_is_none(tmp_path, monkeypatch):
    first, taken = Memory(tmp_path, b"words"), []
    lock = fcntl.flock

    def flock(descriptor, how):
        if not taken:  # the one before ends between our open and our lock, and takes its file with it
            first.path.with_suffix(".lock").unlink()
        taken.append(descriptor)
        lock(descriptor, how)

    monkeypatch.setattr("client.agent.fcntl.flock", flock)
    with first, pytest.raises(ServerError, match="at work already"), Memory(tmp_path, b"words"):
        pass
    assert len(taken) == 3


PROGRAM = """
import os, sys
orders = sys.stdin.readline()
if orders:
    print("ready", flush=True)
    print(os.getpid(), file=sys.stderr, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def program(monkeypatch):
    """What stands for the agent: says that it is ready, complains of its number, and ends with its input."""
    monkeypatch.setattr(agent, "server_command", lambda _: [sys.executable, "-c", PROGRAM])


def agent_of(memory, standby):
    return Agent(Access("nowhere:1", (), None, ""), "key", Files(), memory.log, pytest.fail, standby)


def test_the_process_that_stood_by_is_the_agent_and_complains_where_that_one_does(program, tmp_path):
    standby = Standby(tmp_path)
    waiting = standby._process.pid
    with Memory(tmp_path, b"words") as memory:
        memory.asked()
        with agent_of(memory, standby) as first:
            assert first.pid == waiting
        assert memory.log.read_text() == f"{waiting}\n"
        with agent_of(memory, standby) as second:
            assert second.pid != waiting
        assert kept(tmp_path) == [".json", ".lock", ".log"]
    standby.close()


def test_one_that_was_not_needed_ends_and_leaves_nothing(program, tmp_path):
    standby = Standby(tmp_path)
    process = standby._process
    standby.close()
    assert process.wait(30) == 0
    assert kept(tmp_path) == []
