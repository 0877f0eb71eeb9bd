"""Turns at the embedded server of one state directory: one configuration at a time, its commands side by side.

Two files in the state directory, held with flock, which the kernel lets go of when a command ends, however it ends:

- `users` is held, shared, by every command while it uses the server, and alone by who ends that server to start
  another: so no command loses its server to another configuration while it needs it.
- `gate` is held by who makes sure that the right server runs, and while it waits for the users of the wrong one. Who
  comes later stays behind it, also those whom the wrong one would suit, but those for a short time only: a command
  that takes hours must not keep its own kind out.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from client.errors import Code, Reason, ServerError, invalid

TURN_SECONDS: Final = 60.0
"""How long a command waits for its turn."""

_POLITE: Final = 2.0  # seconds that a command whom the running server suits lets others go first
_PATIENT: Final = 1.0  # seconds after which a wait is told
_POLL: Final = 0.05


class Turns:
    """The turns of one command.

    Args:
        state: the state directory, which exists.
        told: gets a sentence when others are waited for.
    """

    def __init__(self, state: Path, told: Callable[[str], None]) -> None:
        self._state = state
        self._told = told
        self._users: int | None = None

    @contextmanager
    def gate(self, suits: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the gate and hold it; gives False, without it, where the running server suits and may be used.

        Args:
            suits: looks whether the right server serves; called now and then while others hold the gate.

        Raises:
            ServerError: SERVER_BUSY, others hold it for too long; INVALID_SPEC, the directory cannot be written.
        """
        gate = self._open("gate")
        try:
            for waited in self._wait():
                if _lock(gate, fcntl.LOCK_EX):
                    yield True
                    return
                if waited > _POLITE and self.use():
                    # Only now that nobody can end it does it matter which server this is.
                    if suits():
                        yield False
                        return
                    self.leave()
        finally:
            os.close(gate)

    def use(self) -> bool:
        """Use the server until `leave`; False if somebody is about to end it. Sure to succeed with the gate held."""
        if self._users is None:
            self._users = self._open("users")
        if _lock(self._users, fcntl.LOCK_SH):
            return True
        self.leave()
        return False

    def alone(self) -> None:
        """Wait until nobody uses the server, and keep it so; only with the gate held.

        Raises:
            ServerError: SERVER_BUSY, others use it for too long.
        """
        if self._users is None:
            self._users = self._open("users")
        for _ in self._wait():
            if _lock(self._users, fcntl.LOCK_EX):
                return

    def leave(self) -> None:
        """Let others have their turn; idempotent."""
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def _open(self, name: str) -> int:
        path = self._state / name
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"{path}, by which commands take turns, cannot be used ({error.strerror}): name another --state"
            raise invalid(msg, path=str(path)) from error

    def _wait(self) -> Iterator[float]:
        """The seconds waited, again and again; tells it once, and raises SERVER_BUSY in the end."""
        begun = time.monotonic()
        told = False
        while (waited := time.monotonic() - begun) < TURN_SECONDS:
            yield waited
            if waited > _PATIENT and not told:
                self._told(f"waiting for other commands on {self._state}")
                told = True
            time.sleep(_POLL)
        msg = (
            f"commands with another configuration, environment or version use the server of {self._state}, and did "
            f"not end in {TURN_SECONDS:.0f} s: try again when they have, or use another state directory with --state"
        )
        raise ServerError(Reason.SERVER_BUSY, Code.UNAVAILABLE, msg, {"path": str(self._state)})


def _lock(descriptor: int, kind: int) -> bool:
    """Take a lock if it is free; turns one kind into the other."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
