"""Commands and embedded servers in processes of their own that need not load Python again: a third of the time.

One process has imported the program, and has done nothing else: it has one thread, no connection and no file open.
For every command it forks a child with the caller's words, environment, folder and streams, and when that command
needs an embedded server, another one in a session of its own, as `client.embedded` would start it. Commands that a
test starts by `Machine.installed` are the installed program itself, and so is the server they start.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

START = "import sys; from tests.e2e.preloaded import serve; serve(sys.argv[1])"


class Forked:
    """A child that was asked for: as much of `subprocess.Popen` as its callers use.

    Args:
        name: where the loaded process listens.
        what: `command` or `server`.
        words: after the program's name.
        streams: three descriptors, which the child has as its own.
    """

    def __init__(
        self,
        name: str,
        what: str,
        words: Sequence[str],
        streams: Sequence[int],
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.returncode: int | None = None
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect("\0" + name)
        asked = {"what": what, "words": list(words), "folder": str(folder), "environment": dict(environment)}
        socket.send_fds(self._line, [json.dumps(asked).encode()], streams)
        self.pid = int(self._line.recv(100))

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; negative for a signal."""
        if self.returncode is None:
            self._line.settimeout(timeout)
            self.returncode = int(self._line.recv(100))
            self._line.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        with suppress(BlockingIOError):
            self.wait(0)
        return self.returncode


class Background(Forked):
    """A child with pipes: as much of `subprocess.Popen` as its callers use, of text.

    Args:
        what: `command` or `server`.
        words: after the program's name.
        stdin: a file to read from, `subprocess.PIPE`, or nothing.
    """

    def __init__(
        self, what: str, words: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: Any = None
    ) -> None:
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        ours = None
        if stdin is None:
            its_in = os.open(os.devnull, os.O_RDONLY)
        elif stdin == subprocess.PIPE:
            its_in, ours = os.pipe()
        else:
            its_in = os.dup(stdin.fileno())
        try:
            super().__init__(address(), what, words, [its_in, its_out, its_err], folder, environment)
        finally:
            for stream in (its_in, its_out, its_err):
                os.close(stream)
        self.stdin = None if ours is None else os.fdopen(ours, "w")
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """End its input, and wait: what it wrote and had not been read."""
        if self.stdin is not None:
            with suppress(BrokenPipeError):
                self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            told = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self.wait(timeout)
        self.stdout.close()
        self.stderr.close()
        return told[0].result(), told[1].result()

    def send_signal(self, number: int) -> None:
        """Send a signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def address() -> str:
    """Where the loaded process of this run answers; it is started at the first use, and ends with its last user."""
    with _starting:
        return _start()


_starting = threading.Lock()


@cache
def _start() -> str:
    name = f"cropduster-preloaded-{os.getpid()}"
    loaded = subprocess.Popen([sys.executable, "-c", START, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert loaded.stdout is not None
    assert loaded.stdout.readline() == b"ready\n"
    _kept.append(loaded)
    return name


_kept: list[subprocess.Popen[bytes]] = []


def serve(name: str) -> None:
    """Fork children until standard input ends."""
    _load()
    tasks = len(list(Path("/proc/self/task").iterdir()))
    assert tasks == 1, f"a process with {tasks} threads cannot be forked"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("\0" + name)  # a name that is in no folder and ends with its process
    listener.listen(64)
    print("ready", flush=True)
    children: dict[int, tuple[int, socket.socket]] = {}
    while True:
        ready, _, _ = select.select([0, listener, *children], [], [])
        if 0 in ready:
            return
        for descriptor in [d for d in ready if d in children]:
            pid, line = children.pop(descriptor)
            os.close(descriptor)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with suppress(OSError), line:  # nobody waits for the end of a server
                line.send(str(code).encode())
        if listener in ready:
            line, _ = listener.accept()
            asked, streams, _, _ = socket.recv_fds(line, 1 << 20, 3)
            pid = os.fork()
            if pid == 0:
                listener.close()
                line.close()
                for descriptor in children:
                    os.close(descriptor)
                _be(name, json.loads(asked), streams)
            for stream in streams:
                os.close(stream)
            line.send(str(pid).encode())
            children[os.pidfd_open(pid)] = (pid, line)


def _load() -> None:
    """Import all that commands and servers import sooner or later."""
    os.environ |= {"GRPC_VERBOSITY": "NONE", "OPENBLAS_NUM_THREADS": "1"}  # threads cannot be forked
    import encodings.ascii
    import encodings.utf_8_sig  # noqa: F401

    import alembic.config  # noqa: F401
    import azure.core.rest._http_response_impl
    import azure.core.rest._requests_basic  # noqa: F401
    import boto3  # noqa: F401
    import dbos._sys_db_sqlite  # noqa: F401
    import google.rpc.error_details_pb2  # noqa: F401
    import grpc._channel  # noqa: F401
    import grpc_status.rpc_status  # noqa: F401
    import obstore.store  # noqa: F401
    import rich._emoji_codes  # noqa: F401
    import sqlalchemy.dialects.sqlite  # noqa: F401
    import typer._click.decorators
    import typer.main

    import client.api
    import client.app
    import client.cli
    import client.phrases
    import client.shapes
    import client.show
    import client.specs
    import fileserver.__main__
    import fileserver.serve
    import fileserver.services.file
    import fileserver.services.landing
    import fileserver.services.part
    import fileserver.services.transfer
    import fileserver.transfer.jobs
    import fileserver.transfer.partition  # noqa: F401
    import planes.azure
    import planes.s3_connection

    # A client of S3 reads what the SDK knows of it, which the clients of the children have then.
    settings = planes.s3_settings.S3Settings(bucket="none", endpoint="http://127.0.0.1:1")
    planes.s3_connection.Connection("none", settings)._client(patient=False).close()
    # The tree of commands takes longer to make than most commands take.
    vars(client.app)["make_app"] = cache(client.app.make_app)
    vars(typer.main)["get_command"] = cache(typer.main.get_command)
    typer.main.get_command(client.app.make_app())
    gc.collect()
    gc.freeze()  # or each child would look through all of it, and have a copy of its own then


def _be(name: str, asked: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Become the command or the server."""
    is_server = asked["what"] == "server"
    if is_server:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    random.seed()
    sys.argv[1:] = asked["words"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    vars(os)["execv"] = _become
    _end(_server if is_server else partial(_command, name))


def _become(_: str, words: Sequence[str]) -> NoReturn:
    """What `serve` does at its end, without loading Python again."""
    from client.embedded import server_command

    sys.argv[1:] = words[len(server_command()) - 1 :]
    _end(_server)


def _end(run: Callable[[], int]) -> NoReturn:
    """Run it, and end as Python does."""
    code = 1
    try:
        code = run()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - whatever it is, Python would show it
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type] - there is one
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _server() -> int:
    from fileserver.__main__ import main

    return main(sys.argv[1:])


def _command(name: str) -> int:
    from client import cli, embedded

    def popen(
        command: Sequence[str], *, stdin: int, stdout: Any, stderr: Any, cwd: Path, env: Mapping[str, str], **_: object
    ) -> Forked:
        assert stdin == subprocess.DEVNULL
        words = command[len(embedded.server_command()) - 1 :]
        with Path(os.devnull).open("rb") as nothing:
            return Forked(name, "server", words, [nothing.fileno(), stdout.fileno(), stderr.fileno()], cwd, env)

    vars(embedded)["subprocess"] = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL)
    return cli.main()
