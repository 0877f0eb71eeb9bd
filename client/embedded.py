"""The server that a CLI starts for itself: where it lives, whether it runs, and how to start the right one.

One embedded server belongs to one state directory. It takes an exclusive flock on `<state>/lock` before it binds its
socket, and writes into that file who it is; the kernel lets go of the flock when it ends, however it ends. So the
lock says whether one runs, the line in it says whether it is the one we need, and two CLIs that start servers at the
same moment need not know of each other: the second server finds the lock taken and ends, both CLIs ask one socket.
Nothing here speaks gRPC: who calls says how to ask a server whether it serves.
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

START_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 60.0
IDLE_SECONDS: Final = 30
LONGEST_SOCKET: Final = 107
"""Bytes of a socket's path; the kernel has room for 108, one of them ends it."""

_POLL: Final = 0.02
_TAIL: Final = 12  # lines of the log that an error shows
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


def server_command() -> list[str]:
    """The words that run a server with this interpreter; the folder one stands in is not on its module path (-P).

    Raises:
        ServerError: NOT_SUPPORTED, only the client is installed.
    """
    if find_spec("dbos") is None:
        msg = (
            "this is the client only, and no server is named: install the server too with "
            "pip install 'cropduster[server]', or name a running one with --server HOST:PORT"
        )
        raise ServerError(Reason.NOT_SUPPORTED, Code.UNIMPLEMENTED, msg)
    return [sys.executable, "-P", "-m", "fileserver", "serve"]


class EmbeddedServer:
    """The embedded server of one state directory.

    Args:
        state: its state directory, as `state_directory` gives it.
        config: its config file; None is the built-in one.
        version: the version of this program.
        environment: the variables that a server started from here would see.
    """

    def __init__(self, state: Path, config: Path | None, version: str, environment: Mapping[str, str]) -> None:
        self.state = state
        self.config = config
        self.socket = socket_path(state, environment)
        self.cookie = state / "cookie"
        self.log = state / "server.log"
        self._lock = state / "lock"
        self._environment = environment
        self._wanted = Identity(version, digest(config.read_bytes() if config else b"", environment))

    @property
    def target(self) -> str:
        """Its address for gRPC."""
        return f"unix:{self.socket}"

    def ensure(self, serving: Callable[[], bool]) -> None:
        """Return when the right server serves: the one that runs, or a fresh one.

        Args:
            serving: asks the server behind the socket whether it serves; called only once something listens there.

        Raises:
            ServerError: NOT_SUPPORTED, the server is not installed; PLANE_UNAVAILABLE, it does not come up;
                INVALID_SPEC, it refused its config or directory (both with the last lines of its log).
        """
        holder = self.holder()
        if holder and holder.identity == self._wanted and self._answers() and serving():
            return
        self._make_folder()
        self._end_other()
        logged = self.log.stat().st_size if self.log.exists() else 0
        child: subprocess.Popen[bytes] | None = None
        starts = 0
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._answers() and self._is_ours() and serving():
                return
            ended = child is None or child.poll() is not None
            if ended and not self._held():
                # A server that ended although nobody holds the lock did so because of its config, or because this
                # or another CLI was looking at the lock in that moment: the second is worth one more start.
                if starts == 2 or (child and child.returncode == Exit.BAD_REQUEST):
                    break
                child = self._start()
                starts += 1
            time.sleep(_POLL)
        raise self._no_server(child.returncode if child else None, logged)

    def holder(self) -> Holder | None:
        """Who says to hold the lock; the line may be of a server that has ended."""
        try:
            line = json.loads(self._lock.read_bytes())
            return Holder(int(line["pid"]), Identity(str(line["version"]), str(line["digest"])))
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not written to the end yet
            return None

    def _is_ours(self) -> bool:
        holder = self.holder()
        return holder is not None and holder.identity == self._wanted

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

    def _end_other(self) -> None:
        """Ask a running server of another version, config or environment to drain, and wait until it has ended."""
        asked: int | None = None
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._held():
            holder = self.holder()
            if holder and holder.identity == self._wanted:
                return
            if holder and holder.pid != asked:
                with suppress(ProcessLookupError):  # it ended since we looked
                    os.kill(holder.pid, signal.SIGTERM)
                asked = holder.pid
            if time.monotonic() > deadline:
                who = f"process {holder.pid}" if holder else "a process that wrote no name into it"
                msg = f"{who} holds {self._lock}, serves another version, config or environment, and does not end"
                raise ServerError(Reason.SERVER_BUSY, Code.UNAVAILABLE, msg, {"path": str(self._lock)})
            time.sleep(_POLL)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [*server_command(), "--embedded", "--state", str(self.state)]
        if self.config:
            command += ["--config", str(self.config)]
        command += ["--idle-exit", str(IDLE_SECONDS)]
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # our own interpreter and words, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.state,
                env=dict(self._environment),
                start_new_session=True,
            )

    def _no_server(self, code: int | None, logged: int) -> ServerError:
        text = f"the embedded server did not come up; its log {self.log} ends with:"
        message = "\n".join([text, *self._tail(logged)])
        if code == Exit.BAD_REQUEST:
            return invalid(message, path=str(self.log))
        return unavailable(message, path=str(self.log))

    def _tail(self, logged: int) -> list[str]:
        """The last lines that were logged after byte `logged`."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(logged, log.seek(0, os.SEEK_END) - 16384))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError as error:
            return [f"  (it cannot be read: {error.strerror})"]
        return [f"  {line}" for line in lines[-_TAIL:]] or ["  (nothing)"]
