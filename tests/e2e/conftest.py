"""A user's machine: a folder, a state directory, and the installed command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from tests.doubles import azurite, seaweedfs
from tests.e2e.preloaded import Background, Forked, address

CLI = Path(sys.executable).with_name("cropduster")
HEARD = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)"
"""As a terminal starts a command: who runs the tests may ignore SIGINT, and children inherit that."""
_GO_ON = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last JSON line of standard output."""
        return json.loads(self.out.strip().splitlines()[-1])

    @property
    def error(self) -> dict[str, Any]:
        """The JSON error on standard error."""
        return json.loads(self.err.strip().splitlines()[-1])["error"]


@dataclass
class Machine:
    """Runs `cropduster` in a folder with a state directory of its own; no server outlives it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def data(self) -> Path:
        """The embedded default plane."""
        return self.state / "data"

    def start(self, *arguments: str, stdin: Any = None) -> Background:
        """A command in the background."""
        return Background("command", arguments, self.folder, self._variables(), stdin)

    def installed(self, *arguments: str, first: str = "", **options: Any) -> subprocess.Popen[str]:
        """The installed command in the background: a program that Python loads, with options of `subprocess`.

        What its process does `first` is Python, of a program of its own: between fork and exec of a process that has
        threads nothing may be done.
        """
        before = [sys.executable, "-I", "-S", "-c", f"{first}; {_GO_ON}"] if first else []
        return subprocess.Popen(
            [*before, CLI, *arguments],
            cwd=self.folder,
            env=self._variables(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def __call__(self, *arguments: str, code: int | None = 0) -> Result:
        """Run a command to its end; `code` is the exit code it must have (None: any)."""
        with TemporaryFile() as out, TemporaryFile() as err, Path(os.devnull).open("rb") as nothing:
            streams = [nothing.fileno(), out.fileno(), err.fileno()]
            process = Forked(address(), "command", arguments, streams, self.folder, self._variables())
            try:
                returned = process.wait(100)
            finally:
                if process.returncode is None:
                    os.kill(process.pid, signal.SIGKILL)
            out.seek(0)
            err.seek(0)
            said = Result(returned, out.read().decode(), err.read().decode())
        if code is not None:
            assert returned == code, f"exit {returned}\n{said.out}\n{said.err}\n{self.log()}"
        return said

    def _variables(self) -> dict[str, str]:
        environment = {**os.environ, "CROPDUSTER_STATE": str(self.state), "COLUMNS": "160", **self.environment}
        environment.pop("CROPDUSTER_SERVER", None)
        environment.setdefault("CROPDUSTER_CONFIG", "")
        if not environment["CROPDUSTER_CONFIG"]:
            del environment["CROPDUSTER_CONFIG"]
            environment["XDG_CONFIG_HOME"] = str(self.folder / "no-config")
        return environment

    def log(self) -> str:
        """The end of the server's log."""
        path = self.state / "server.log"
        return path.read_text()[-3000:] if path.exists() else "(no server log)"

    def pid(self) -> int:
        """The process id of the running server."""
        return int(json.loads((self.state / "lock").read_text())["pid"])

    def kill(self) -> None:
        """kill -9 the server and wait until it is gone."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the server, if it lives, and wait until it is gone."""
        with suppress(FileNotFoundError, ValueError, KeyError, ProcessLookupError):
            pid = self.pid()
            os.kill(pid, number)
            while _alive(pid):
                time.sleep(0.01)

    def files(self, root: Path | None = None) -> list[str]:
        """All files below a folder (the default plane), relative."""
        root = root or self.data
        return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())

    def configure(self, text: str) -> None:
        """Use a configuration file."""
        path = self.folder / "config.yaml"
        path.write_text(text)
        self.environment["CROPDUSTER_CONFIG"] = str(path)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.signal(signal.SIGTERM)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweedfs.Store]:
    """A real S3 store for the whole run."""
    with seaweedfs.running(tmp_path_factory.mktemp("seaweed")) as store:
        yield store


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[azurite.Account]:
    """A real Azure Blob service for the whole run."""
    with azurite.running(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@dataclass
class Bucket:
    """A bucket of its own for one test, looked at behind Cropduster's back."""

    store: seaweedfs.Store
    name: str

    @cached_property
    def client(self) -> Any:
        return self.store.client()

    def put(self, key: str, data: bytes, **more: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data, **more)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name)
        return [item["Key"] for item in found.get("Contents", [])]

    def open_uploads(self) -> list[str]:
        found = self.client.list_multipart_uploads(Bucket=self.name)
        return [item["Key"] for item in found.get("Uploads", [])]


@pytest.fixture
def bucket(machine: Machine, seaweed: seaweedfs.Store) -> Iterator[Bucket]:
    """A fresh bucket, and the machine configured with the planes `cloud` (in/ of it) and `data` (posix)."""
    name = f"b{os.urandom(6).hex()}"
    seaweed.create_bucket(name)
    machine.environment |= {"AK": seaweed.access_key, "SK": seaweed.secret_key}
    (machine.folder / "plane").mkdir(exist_ok=True)
    machine.configure(config_of(machine, seaweed, name))
    made = Bucket(seaweed, name)
    yield made
    made.client.close()


def config_of(machine: Machine, store: seaweedfs.Store, bucket: str, limits: str = "") -> str:
    """The configuration that `bucket` makes; `limits` is added to the cloud plane."""
    return (
        "planes:\n"
        f"  data: {{type: posix, path: {machine.folder}/plane}}\n"
        f"  cloud: {{type: s3, bucket: {bucket}, prefix: in/, endpoint: '{store.endpoint}', access_key: {{env: AK}},"
        f" secret_key: {{env: SK}}{limits}}}\n"
    )
