"""The server that a CLI starts for itself: where it lives, whether it runs, and how to start the right one.

One embedded server belongs to one state directory. It takes an exclusive flock on `<state>/lock` before it binds its
socket, and writes into that file who it is; the kernel lets go of the flock when it ends, however it ends. So the
lock says whether one runs, and the line in it says whether it is the one we need. CLIs that need different ones take
turns (`client.turns`). Nothing here speaks gRPC: who calls says how to ask a server whether it serves.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import platformdirs

from client.errors import Code, Exit, Reason, ServerError, invalid, unavailable
from client.turns import Turns

START_SECONDS: Final = 60.0  # for a loaded machine: a server that ends is noticed at once
DRAIN_SECONDS: Final = 60.0
IDLE_SECONDS: Final = 30
LONGEST_SOCKET: Final = 107
"""Bytes of a socket's path; the kernel has room for 108, one of them ends it."""

_POLL: Final = 0.02
_TAIL: Final = 12  # lines of the log that an error shows
_SAYS: Final = "cropduster serve: "  # how a server begins what it says before it has a log
_REFUSALS: Final = frozenset({int(Exit.BAD_REQUEST), int(Exit.REFUSED)})
"""Exit codes of a server that would not come up the next time either."""
_NAMED: Final = re.compile(rb"""env:\s*["']?([A-Za-z_][A-Za-z0-9_]*)""")
_APP: Final = "cropduster"


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes one server different from another: the same version, config and environment give the same."""

    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Holder:
    """The server that holds the lock, as it wrote itself into the file."""

    pid: int
    identity: Identity


def state_directory(given: str | None) -> Path:
    """The directory given, else the platform's user data directory; absolute, symlinks resolved."""
    return Path(os.path.realpath(given or platformdirs.user_data_dir(_APP)))


def find_config(given: str | None) -> Path | None:
    """The config file given, else the user's, else the system's, else none. Never the working directory's.

    Raises:
        ServerError: INVALID_SPEC, the given file cannot be read.
    """
    if given:
        path = Path(given).absolute()
        if not os.access(path, os.R_OK) or path.is_dir():
            msg = f"the config file {path} cannot be read: check the path after --config or CROPDUSTER_CONFIG"
            raise invalid(msg, path=str(path))
        return path
    places = (Path(platformdirs.user_config_dir(_APP)) / "config.yaml", Path("/etc/cropduster/config.yaml"))
    return next((path for path in places if path.is_file()), None)


def digest(config: bytes, environment: Mapping[str, str]) -> str:
    """16 hex digits over a config and the values of the environment variables that it names."""
    whole = hashlib.sha256(config)
    for name in dict.fromkeys(found.decode() for found in _NAMED.findall(config)):
        whole.update(f"\0{name}={environment.get(name, '')}".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()[:16]


def runtime_directory(environment: Mapping[str, str]) -> Path:
    """Where sockets lie: $XDG_RUNTIME_DIR, else a folder of this user alone under the temporary folder.

    Raises:
        ServerError: INVALID_SPEC, there is no such folder, or somebody else owns it or may write there.
    """
    if given := environment.get("XDG_RUNTIME_DIR"):
        folder = Path(given)
        if not folder.is_absolute() or not folder.is_dir():
            msg = f"XDG_RUNTIME_DIR is '{given}', which is no folder: unset it, or name a folder of your own"
            raise invalid(msg, path=given)
        return folder
    folder = Path(tempfile.gettempdir()) / f"{_APP}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        msg = (
            f"{folder} is not a folder that belongs to you alone, so somebody else could answer in place of your "
            "server: remove it, or set XDG_RUNTIME_DIR to a folder of your own"
        )
        raise invalid(msg, path=str(folder))
    return folder


def socket_path(state: Path, environment: Mapping[str, str]) -> Path:
    """The socket of the server of a state directory.

    Raises:
        ServerError: INVALID_SPEC, the runtime directory is not safe or its path is too long for a socket.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(state))).hexdigest()[:16]
    path = runtime_directory(environment) / f"{name}.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        msg = (
            f"{path} is too long for a socket ({LONGEST_SOCKET} bytes at most): set XDG_RUNTIME_DIR to a shorter folder"
        )
        raise invalid(msg, path=str(path))
    return path


def server_command(verb: str = "serve") -> list[str]:
    """The words that run a server, or its other verb, with this interpreter.

    The folder one stands in is not on its module path (-P).

    Raises:
        ServerError: NOT_SUPPORTED, only the client is installed.
    """
    if find_spec("dbos") is None:
        msg = (
            "this is the client only, and no server is named: install the server too with "
            "pip install 'cropduster[server]', or name a running one with --server HOST:PORT"
        )
        raise ServerError(Reason.NOT_SUPPORTED, Code.UNIMPLEMENTED, msg)
    return [sys.executable, "-P", "-m", "fileserver", verb]


class EmbeddedServer:
    """The embedded server of one state directory.

    Args:
        state: its state directory, as `state_directory` gives it.
        config: its config file; None is the built-in one.
        version: the version of this program.
        environment: the variables that a server started from here would see.
        told: gets a sentence when other commands are waited for.
    """

    def __init__(
        self,
        state: Path,
        config: Path | None,
        version: str,
        environment: Mapping[str, str],
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state = state
        self.config = config
        self.socket = socket_path(state, environment)
        self.cookie = state / "cookie"
        self.log = state / "server.log"
        self._lock = state / "lock"
        self._version = version
        self._environment = environment
        self._turns = Turns(state, told)

    @property
    def target(self) -> str:
        """Its address for gRPC."""
        return f"unix:{self.socket}"

    @property
    def wanted(self) -> Identity:
        """The server that is needed; its config may change while a command runs."""
        try:
            config = self.config.read_bytes() if self.config else b""
        except OSError as error:
            msg = f"the config file {self.config} cannot be read ({error.strerror}): check --config, CROPDUSTER_CONFIG"
            raise invalid(msg, path=str(self.config)) from error
        return Identity(self._version, digest(config, self._environment))

    def ensure(self, serving: Callable[[], bool]) -> None:
        """Return when the right server serves, the one that runs or a fresh one; it stays until `leave`.

        Args:
            serving: asks the server behind the socket whether it serves; called only once something listens there.

        Raises:
            ServerError: NOT_SUPPORTED, the server is not installed; SERVER_UNAVAILABLE, it does not come up (with the
                last lines of its log); INVALID_SPEC, PLANE_REFUSED, it refused its config or directory; SERVER_BUSY,
                commands with another config use the one that runs.
        """
        self.leave()
        self._make_folder()
        with self._turns.gate(lambda: self._is_up(serving)) as held:
            if held:
                try:
                    self._bring_up(serving)
                    self._turns.use()
                except BaseException:  # also Ctrl-C: who has gone must not keep it from ending
                    self.leave()
                    raise

    def leave(self) -> None:
        """The server is not used any more: commands with another config may have another; idempotent."""
        self._turns.leave()

    def _is_up(self, serving: Callable[[], bool]) -> bool:
        holder = self.holder()
        return holder is not None and holder.identity == self.wanted and self._answers() and serving()

    def _bring_up(self, serving: Callable[[], bool]) -> None:
        """Start the right server, after another one has ended; both with the gate held."""
        logged = self.log.stat().st_size if self.log.exists() else 0
        child: subprocess.Popen[bytes] | None = None
        starts = 0
        other: Holder | None = None
        asked = False
        deadline = time.monotonic() + DRAIN_SECONDS
        while not self._is_up(serving):
            if self._held():
                # A server that has just taken the lock shows the line of an earlier one for a moment: who is asked
                # to end was seen twice.
                before, other = other, self.holder()
                if other != before:
                    asked = False
                elif other and not asked and other.identity != self.wanted:
                    self._turns.alone()
                    _end(other)
                    asked, deadline = True, time.monotonic() + DRAIN_SECONDS
            elif child is None or child.poll() is not None:
                # A server that ended although nobody holds the lock did so because of its config, or because a
                # command was looking at the lock in that moment: the second is worth one more start.
                if starts == 2 or (child and child.returncode in _REFUSALS):
                    raise self._no_server(child.returncode if child else None, logged)
                child = self._start()
                starts, deadline = starts + 1, time.monotonic() + START_SECONDS
            if time.monotonic() > deadline:
                raise self._no_server(child.returncode, logged) if child else self._stuck()
            time.sleep(_POLL)

    def holder(self) -> Holder | None:
        """Who says to hold the lock; the line may be of a server that has ended."""
        try:
            line = json.loads(self._lock.read_bytes())
            return Holder(int(line["pid"]), Identity(str(line["version"]), str(line["digest"])))
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not written to the end yet
            return None

    def _held(self) -> bool:
        """Whether a living process holds the lock; looked at with a shared lock that is let go at once."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _answers(self) -> bool:
        """Whether anything listens on the socket; a plain connect, because gRPC waits a second after a refusal."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _make_folder(self) -> None:
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            msg = f"the state directory {self.state} cannot be made ({error.strerror}): name another with --state"
            raise invalid(msg, path=str(self.state)) from error

    def _start(self) -> subprocess.Popen[bytes]:
        command = [*server_command(), "--embedded", "--state", str(self.state)]
        if self.config:
            command += ["--config", str(self.config)]
        command += ["--idle-exit", str(IDLE_SECONDS)]
        try:
            log = self.log.open("ab")
        except OSError as error:
            msg = f"the log {self.log} cannot be written ({error.strerror}): name another state directory with --state"
            raise invalid(msg, path=str(self.log)) from error
        with log:
            return subprocess.Popen(  # noqa: S603  # our own interpreter and words, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.state,
                env=dict(self._environment),
                start_new_session=True,
            )

    def _stuck(self) -> ServerError:
        """The error of a server that neither serves nor ends."""
        holder = self.holder()
        who = f"process {holder.pid}" if holder else "a process that wrote no name into it"
        msg = f"{who} holds {self._lock}, and neither serves nor ends: end it, or name another --state"
        return ServerError(Reason.SERVER_BUSY, Code.UNAVAILABLE, msg, {"path": str(self._lock)})

    def _no_server(self, code: int | None, logged: int) -> ServerError:
        """The error of a server that did not come up: what it said about it, else the end of its log."""
        lines = self._logged(logged)
        said = [number for number, line in enumerate(lines) if line.startswith(_SAYS)]
        if code in _REFUSALS and said:
            why = "\n".join([lines[said[-1]].removeprefix(_SAYS), *lines[said[-1] + 1 :]])
            msg = f"the embedded server cannot start: {why}"
        else:
            tail = [f"  {line}" for line in lines[-_TAIL:]] or ["  (nothing)"]
            msg = "\n".join([f"the embedded server did not come up; its log {self.log} ends with:", *tail])
        if code == Exit.BAD_REQUEST:
            return invalid(msg, path=str(self.log))
        if code == Exit.REFUSED:
            return ServerError(Reason.PLANE_REFUSED, Code.FAILED_PRECONDITION, msg, {"path": str(self.log)})
        return unavailable(msg, path=str(self.log))

    def _logged(self, before: int) -> list[str]:
        """The last lines that were logged after byte `before`."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(before, log.seek(0, os.SEEK_END) - 16384))
                return log.read().decode(errors="replace").splitlines()
        except OSError as error:
            return [f"(it cannot be read: {error.strerror})"]


def _end(holder: Holder) -> None:
    """Ask a server to drain."""
    with suppress(ProcessLookupError):  # it has ended since we looked
        os.kill(holder.pid, signal.SIGTERM)
