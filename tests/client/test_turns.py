from __future__ import annotations

import subprocess
import sys
from itertools import count

import pytest

from client import turns
from client.errors import Exit, ServerError
from client.turns import TURN_SECONDS, Turns


def never():
    pytest.fail("nobody asks whether the server suits who has the gate")


@pytest.fixture
def waits(monkeypatch):
    """Seconds that pass without taking time; functions in `later` are called after so many of them."""

    class Waits:
        def __init__(self):
            self.now = 0.0
            self.later = {}

        def sleep(self, seconds):
            self.now += seconds
            for moment in [m for m in self.later if m <= self.now]:
                self.later.pop(moment)()

    made = Waits()
    monkeypatch.setattr(turns.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(turns.time, "sleep", made.sleep)
    return made


@pytest.fixture
def command(tmp_path):
    """Turns of a command; what it was told is in its `said`."""

    def make():
        said = []
        made = Turns(tmp_path, said.append)
        made.said = said
        return made

    return make


def test_commands_of_one_configuration_use_the_server_together(command):
    users = [command() for _ in range(3)]
    for user in users:
        with user.gate(never) as held:
            assert held
            assert user.use()
    assert not any(user.said for user in users)


def test_who_ends_the_server_waits_until_nobody_uses_it(command, waits):
    user, other = command(), command()
    assert user.use()
    waits.later[5.0] = user.leave
    with other.gate(never):
        other.alone()
        assert waits.now >= 5
        assert other.use()
    assert other.said == [f"waiting for other commands on {other._state}"]


def test_who_comes_while_somebody_waits_stays_behind_for_a_short_time(command, waits):
    user, switching, late = command(), command(), command()
    assert user.use()
    with switching.gate(never), late.gate(lambda: True) as held:
        assert not held
    assert 2 <= waits.now < 3


def test_nobody_joins_while_the_server_is_ended(command, waits):
    switching, late = command(), command()
    with switching.gate(never):
        switching.alone()
        assert not late.use()
        assert switching.use()
        assert late.use()


def test_a_server_that_does_not_suit_is_left_at_once(command, waits):
    switching, late = command(), command()
    asked = count()
    gate = switching.gate(never)
    gate.__enter__()
    waits.later[4.0] = lambda: gate.__exit__(None, None, None)
    with late.gate(lambda: next(asked) > 1000) as held:
        assert held
        assert next(asked) > 10
        late.alone()


@pytest.mark.parametrize("busy", ["gate", "users"])
def test_waiting_ends_with_one_sentence(command, waits, busy):
    first, second = command(), command()
    with pytest.raises(ServerError, match=r"another configuration.*--state") as caught:  # noqa: PT012, SIM117
        with first.gate(never):
            if busy == "gate":
                second.gate(lambda: False).__enter__()
            third = command()
            third.use()
            first.alone()
    assert caught.value.exit is Exit.UNAVAILABLE
    assert caught.value.reason == "SERVER_BUSY"
    assert waits.now >= TURN_SECONDS


HOLD = """
import sys
from pathlib import Path
from client.turns import Turns
turns = Turns(Path(sys.argv[1]), print)
with turns.gate(lambda: True):
    turns.use()
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_a_killed_command_holds_nobody_up(tmp_path, command):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "holds\n"
    user = command()
    with user.gate(lambda: True) as held:
        assert not held
    holder.kill()
    holder.communicate()
    with user.gate(never):
        user.alone()


def test_a_folder_in_place_of_a_lock_is_told(tmp_path, command):
    (tmp_path / "gate").mkdir()
    with pytest.raises(ServerError, match=f"{tmp_path}/gate.*--state") as caught, command().gate(never):
        pass
    assert caught.value.exit is Exit.BAD_REQUEST
