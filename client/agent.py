"""The agent of a command: the process that carries files of this machine to a server that does not see them.

It lives as long as the command: its standard input ends with us, in whatever way we end. One that is killed is started
again. What a command has asked is kept in a file until its transfer has ended, so that the same command, given again
after a break, goes on with the same transfer.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from client.embedded import server_command
from client.errors import Code, Reason, ServerError, invalid, unavailable

if TYPE_CHECKING:
    from client.api import Access

AGENT: Final = "@"
"""How the names of planes begin that are an agent's files."""
START_SECONDS: Final = 60.0
_END_SECONDS: Final = 30.0
_STARTS: Final = 5
_AGAIN: Final = 0.5  # seconds between two of them
_REFUSED: Final = 3  # its exit code where the server does not want it
_FOLDER: Final = "agents"
_KEPT_SECONDS: Final = 30 * 24 * 3600.0
"""For so long a command can be gone on with that was broken off."""


def plane_of(key: str) -> str:
    """The name of the plane of an agent, as the server draws it of the agent's key."""
    return f"{AGENT}{hashlib.sha256(key.encode()).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command goes by at the server."""

    request: str
    """Id of its request."""
    key: str
    """Of its agent."""
    again: bool = False
    """The same command was given before, and was broken off."""


class Memory:
    """Keeps what a command has asked, under its words.

    Args:
        state: the state directory of this user.
        words: what makes the command this one and no other.
    """

    def __init__(self, state: Path, words: bytes) -> None:
        self.path = state / _FOLDER / f"{hashlib.sha256(words).hexdigest()[:24]}.json"
        self.is_told = False
        """A server may know of it."""
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(self.path.parent)
        while self._lock is None:
            self._lock = self._locked()
        return self

    def _locked(self) -> int | None:
        """The lock, open; None if who had it before has removed its file: then nobody else sees that it is held."""
        path = self.path.with_suffix(".lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(lock)
            msg = "the same command is at work already, in another terminal perhaps: wait for it, or end it"
            raise ServerError(Reason.SERVER_BUSY, Code.ABORTED, msg) from None
        os.close(lock)
        return None

    def __exit__(self, *_: object) -> None:
        if not self.is_told:
            self.forget()
        if self._lock is not None:
            os.close(self._lock)

    def asked(self) -> Asked:
        """What the command goes by, from before or from now on."""
        with suppress(OSError, ValueError, KeyError):
            known = json.loads(self.path.read_text(encoding="utf-8"))
            self.is_told = True
            return Asked(str(known["request"]), str(known["key"]), again=True)
        return self.fresh(secrets.token_hex(32))

    def fresh(self, key: str) -> Asked:
        """Another request for the same agent; nothing of an earlier one is known any more."""
        made = Asked(secrets.token_hex(16), key)
        draft = self.path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"request": made.request, "key": made.key}, file)
        draft.replace(self.path)
        return made

    def forget(self) -> None:
        """The transfer has ended: the same command is another one from now on."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".lock").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            if not self.log.stat().st_size:
                self.log.unlink()

    @property
    def log(self) -> Path:
        """Where the agent says what goes wrong."""
        return self.path.with_suffix(".log")


def _sweep(folder: Path) -> None:
    """Remove what commands have left that were broken off long ago, and never given again."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another command does the same
            if path.stat().st_mtime < time.time() - _KEPT_SECONDS:
                path.unlink()


@dataclass(frozen=True, slots=True)
class Files:
    """What an agent may touch: absolute paths; the last element of what it reads may hold * and ?."""

    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    rates: Sequence[tuple[int, int, int]] = ()
    """From a minute of the day to another, and the bytes a second meanwhile."""
    overwrite: bool = False
    """What is there already of what it writes may be replaced."""


def orders_of(server: Access) -> dict[str, object]:
    """What every agent is told: how its server is called. It holds secrets."""
    orders: dict[str, object] = {"server": server.address, "metadata": list(server.metadata)}
    orders["token_file"] = server.token_file
    if server.pem is not None:
        orders["pem"] = [each.decode() if each else None for each in server.pem]
    return orders


class Standby:
    """A process that loads what an agent needs, while its command asks the server what there is to do.

    Args:
        state: the state directory of this user.
    """

    def __init__(self, state: Path) -> None:
        folder = state / _FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log = folder / f"{secrets.token_hex(12)}.log"
        self._process: subprocess.Popen[bytes] | None = _process(self._log)

    def become(self, log: Path) -> subprocess.Popen[bytes] | None:
        """The process, once, from now on with its complaints in `log`; None if it cannot be had."""
        process, self._process = self._process, None
        if process is not None:
            self._log.replace(log)
        return process

    def close(self) -> None:
        """Nobody needs it: it ends as its input does."""
        if self._process is not None:
            self._log.unlink(missing_ok=True)
            assert self._process.stdin is not None
            self._process.stdin.close()


def _process(log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as complaints:
        return subprocess.Popen(  # noqa: S603  # our own interpreter and words, no shell
            server_command("agent"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,  # Ctrl-C is ours to hear; it ends when we do
        )


class Agent:
    """The process of an agent.

    Args:
        server: how it is called.
        key: of the agent.
        files: what it may touch.
        log: where its complaints go.
        told: gets a sentence when something happens to it.
        standby: the process to begin with.
    """

    def __init__(
        self,
        server: Access,
        key: str,
        files: Files,
        log: Path,
        told: Callable[[str], None],
        standby: Standby | None = None,
    ) -> None:
        orders = orders_of(server) | {"key": key, "reads": list(files.reads), "writes": list(files.writes)}
        orders |= {"rates": list(files.rates), "overwrite": files.overwrite}
        self._orders = json.dumps(orders).encode() + b"\n"
        self._log = log
        self._standby = standby
        self._told = told
        self._ready = threading.Event()
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._log.unlink(missing_ok=True)
        self._process = self._start(self._standby.become(self._log) if self._standby else None)
        self._keeper.start()
        try:
            self._come_up()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _come_up(self) -> None:
        if not self._ready.wait(START_SECONDS) or self._over.is_set():
            raise self._failure()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def _start(self, process: subprocess.Popen[bytes] | None = None) -> subprocess.Popen[bytes]:
        process = process or _process(self._log)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(self._orders)
            process.stdin.flush()
        return process

    def _keep(self) -> None:
        """Wait for its end, and start it again if that was not wanted."""
        for left in reversed(range(_STARTS)):
            process = self._process
            assert process is not None
            assert process.stdout is not None
            for _ in process.stdout:
                self._ready.set()
            code = process.wait()
            if self._over.is_set():
                return
            if code in {0, _REFUSED} or not left:
                self._give_up()
                return
            # Killed; or replaced, by one of an earlier run of this command that had not noticed yet that it is over.
            self._over.wait(_AGAIN)
            if self._over.is_set():
                return
            self._process = process = self._start()
            if self._over.is_set():  # just now
                assert process.stdin is not None
                process.stdin.close()

    def _give_up(self) -> None:
        self._over.set()
        self._ready.set()
        self._told(f"nothing carries the files of this machine any more: {self._failure().message}")

    def _end(self) -> None:
        self._over.set()
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _failure(self) -> ServerError:
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        said = [line.removeprefix("cropduster agent: ") for line in lines if line.startswith("cropduster agent: ")]
        if said:
            return invalid(said[-1])
        return unavailable("\n".join(["the agent of this command did not come up", *lines[-5:]]))
