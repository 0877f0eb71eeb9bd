"""Stands in for `python -m fileserver serve`: takes the lock, writes who it is, listens, ends on SIGTERM.

What it writes into the lock and how it fails come from the environment, so that tests can have other versions.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
from pathlib import Path


def main() -> int:
    state = Path(sys.argv[sys.argv.index("--state") + 1])
    with (state / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if code := os.environ.get("FAKE_EXIT"):
        print("a warning of a library", file=sys.stderr)
        print("cropduster serve: the configuration is wrong:\n  planes.data.typ: unknown key", file=sys.stderr)
        return int(code)
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 8
    identity = {"pid": os.getpid(), "version": os.environ["FAKE_VERSION"], "digest": os.environ["FAKE_DIGEST"]}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(identity).encode() + b"\n", 0)
    path = os.environ["FAKE_SOCKET"]
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(64)
        signal.sigwait({signal.SIGTERM})
        Path(path).unlink()
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    sys.exit(main())
