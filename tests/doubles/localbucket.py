"""A fast store for benches: localbucket on loopback, whose PUT costs a third of SeaweedFS's.

It checks no credentials and keeps neither metadata nor checksums: configure its plane with `checksums: none`, and
measure with it, but prove nothing. Objects of a few KiB are slow (a delayed acknowledgement): use large ones.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.doubles.seaweedfs import Store, free_ports, program, stop

_READY_SECONDS = 30
_STARTS = 4  # another process may take the port between the kernel's answer and the server's bind


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Store]:
    """Start the server with its data in `folder`, give the store, stop it by its process id.

    Raises:
        RuntimeError: it does not answer within half a minute; the message holds the end of its output.
    """
    for attempt in range(_STARTS):
        data = folder / f"localbucket-{attempt}"
        data.mkdir(parents=True)
        (port,) = free_ports(1)
        with (folder / f"localbucket-{attempt}.output").open("wb") as output:
            process = subprocess.Popen(
                [program("localbucket"), "--port", str(port), str(data)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            if _answers(process, port):
                yield Store(f"http://127.0.0.1:{port}", "unchecked", "unchecked", process.pid)
                return
        finally:
            stop(process)
    text = (folder / f"localbucket-{_STARTS - 1}.output").read_text(errors="replace")[-2000:]
    msg = f"localbucket did not start in {folder}; the end of its output:\n{text}"
    raise RuntimeError(msg)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            try:
                connection.request("GET", "/")
                if b"ListAllMyBucketsResult" in connection.getresponse().read():
                    return True
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)  # a server that is not there yet sends no event to wait for
    return False
