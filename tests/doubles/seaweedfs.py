"""A real S3 store for tests: SeaweedFS (`weed mini`) on loopback, alone in a folder, gone when the test is.

    with seaweedfs.running(folder) as store:
        store.create_bucket("lake")
        ...  # store.endpoint, store.access_key, store.secret_key

Every listener has a port of its own from the kernel: two stores never meet, whatever else runs on the machine.
Where it differs from Amazon S3: it ignores MpuObjectSize, If-None-Match on Complete is not atomic between two racing
uploads, listings of open uploads show replaced parts, ranges may be copied out of objects of any size.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions

_PORTS = (
    "admin.port",
    "debug.port",
    "filer.port",
    "filer.port.grpc",
    "master.port",
    "master.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "s3.debug.port",
    "volume.port",
    "volume.port.grpc",
)
WRITABLE_IAM = "-s3.iam.readOnly=false"
"""An option of `running`: the store has users, beside its owner."""

_READY_SECONDS = 60
_STOP_SECONDS = 20
_STARTS = 4  # another process may take a port between the kernel's answer and the server's bind


@dataclass(frozen=True, slots=True)
class Store:
    """Where a running store answers, and who may call it."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int = 0

    def client(self, **config: Any) -> Any:
        """A boto3 client of its owner, for looking behind a plane's back; close it after use."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 1},
                **config,
            ),
        )

    def create_user(self, name: str, bucket: str) -> tuple[str, str]:
        """Keys of somebody who may touch one bucket only; a store that was started with `WRITABLE_IAM`."""
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        allowed = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        rule = {"Effect": "Allow", "Action": ["s3:*"], "Resource": allowed}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
        with contextlib.closing(
            boto3.client("iam", endpoint_url=self.endpoint, region_name="us-east-1", **keys)
        ) as client:
            client.create_user(UserName=name)
            made = client.create_access_key(UserName=name)["AccessKey"]
            client.put_user_policy(UserName=name, PolicyName="one-bucket", PolicyDocument=policy)
        user = Store(self.endpoint, made["AccessKeyId"], made["SecretAccessKey"])
        deadline = time.monotonic() + _READY_SECONDS
        while True:  # the store learns of its users a moment later
            with contextlib.closing(user.client()) as client:
                try:
                    client.list_objects_v2(Bucket=bucket)
                except botocore.exceptions.ClientError:
                    assert time.monotonic() < deadline, f"{name} may not use {bucket} a minute after it was allowed"
                    time.sleep(0.05)
                else:
                    return user.access_key, user.secret_key

    def create_bucket(self, name: str) -> None:
        """Make an empty bucket; its name has at least three characters."""
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=name)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def program(name: str) -> str:
    """The path of a program of the environment that runs the tests."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        msg = f"the program {name} is missing: run `make install`, which installs the test stores"
        raise FileNotFoundError(msg)
    return found


def stop(process: subprocess.Popen[bytes], seconds: float = _STOP_SECONDS) -> None:
    """End a server that we started: ask, wait, then insist."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


@contextlib.contextmanager
def running(folder: Path, *more: str) -> Iterator[Store]:
    """Start the server with its data in `folder` and `more` options, give the store, stop it by its process id.

    Raises:
        RuntimeError: it does not answer within a minute; the message holds the end of its output.
    """
    # Socket paths are limited to 107 bytes: pytest's folders are too long for them.
    with tempfile.TemporaryDirectory(prefix="sw-") as sockets:
        for attempt in range(_STARTS):
            data = folder / f"seaweedfs-{attempt}"
            ports = _ports()
            process, store = _start(data, Path(sockets), ports, more)
            try:
                if _answers(process, store):
                    yield store
                    return
            finally:
                process.kill()  # asked to end, it waits for connections that nobody will use again
                process.wait()
                for port in ports.values():  # it leaves its gRPC sockets behind
                    for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                        left.unlink(missing_ok=True)
        output = (data / "output").read_text(errors="replace")[-2000:]
        msg = f"SeaweedFS did not start in {data}; the end of its output:\n{output}"
        raise RuntimeError(msg)


def _ports() -> dict[str, int]:
    """A port for every listener; the worker looks for the admin's gRPC 10000 above its port, whatever we say."""
    while True:
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        above = ports["admin.port"] + 10000
        with contextlib.suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind(("127.0.0.1", above))
            return ports | {"admin.port.grpc": above}


def _start(
    data: Path, sockets: Path, ports: dict[str, int], more: Sequence[str]
) -> tuple[subprocess.Popen[bytes], Store]:
    (data / "log").mkdir(parents=True)
    key, secret = f"AK{secrets.token_hex(8)}", secrets.token_hex(20)
    command = [
        program("weed"),
        f"-logdir={data / 'log'}",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        f"-s3.localSocket={sockets / 's3.sock'}",
        f"-filer.localSocket={sockets / 'filer.sock'}",
        *(f"-{name}={port}" for name, port in ports.items()),
        *more,
    ]
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))}
    with (data / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=keep | {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret},
        )
    return process, Store(f"http://127.0.0.1:{ports['s3.port']}", key, secret, process.pid)


def _answers(process: subprocess.Popen[bytes], store: Store) -> bool:
    """Wait until a bucket can be made with this store's own keys: then it is ready, and it is ours."""
    deadline = time.monotonic() + _READY_SECONDS
    with contextlib.closing(store.client(connect_timeout=2, read_timeout=10)) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="probe", Body=b"ready")
                client.delete_object(Bucket="ready", Key="probe")
                client.delete_bucket(Bucket="ready")
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                time.sleep(0.05)  # a server that is not there yet sends no event to wait for
            else:
                return True
    return False
