"""The write test, in processes of its own: what is measured shares nothing with a file server, or with this client.

The code of the test is the server's; here it is a program that takes one JSON document and answers in JSON lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from queue import SimpleQueue
from typing import IO, Final, TypedDict, cast

from client.errors import Code, Reason, ServerError
from client.shapes import JSON

_INTERRUPTED: Final = 130  # what a writer ends with that was told to, and gave its block back


class Block(TypedDict):
    """One written block."""

    block: int
    row: int
    column: int
    rows: int
    columns: int
    bytes: int
    start: float
    seconds: float
    counted: bool


class Figures(TypedDict):
    """What one writer did; times are seconds, start and end since 1970."""

    writer: str
    blocks: int
    bytes: int
    seconds: float
    overtaken: int
    taken_over: int
    start: float
    end: float
    flush_seconds: float


class Share(TypedDict):
    """What one writer did, as the table of the test says."""

    writer: str
    blocks: int
    bytes: int
    seconds: float
    holds: int
    bytes_per_second: float


class Difference(TypedDict):
    """A block that is not what it must be, and the first place where."""

    number: int
    row: int
    column: int
    expected: float
    found: float


class Status(TypedDict):
    """How far a test is."""

    rows: int
    columns: int
    chunk: list[int]
    tasks: str
    seed: int
    blocks: int
    bytes: int
    pending: int
    taken: int
    done: int
    bytes_done: int
    seconds: float
    bytes_per_second: float
    taken_over: int
    writers: list[Share]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one process ended."""

    result: JSON = None
    error: ServerError | None = None


@dataclass(slots=True)
class Many:
    """How all writers ended."""

    figures: list[Figures] = field(default_factory=list)
    errors: list[ServerError] = field(default_factory=list)


def ask(document: dict[str, JSON]) -> dict[str, JSON]:
    """The answer to one document; raises the ServerError that it was answered with."""
    ended = _together(document, 1, lambda _: None)[0]
    if ended.error:
        raise ended.error
    return cast("dict[str, JSON]", ended.result)


def write(document: dict[str, JSON], writers: int, told: Callable[[Block], None]) -> Many:
    """Run writers beside each other until all have ended; `told` gets every block, in the calling thread."""
    many = Many()
    for ended in _together(document, writers, told):
        if ended.error:
            many.errors.append(ended.error)
        else:
            many.figures.append(cast("Figures", ended.result))
    return many


def _together(document: dict[str, JSON], count: int, told: Callable[[Block], None]) -> Sequence[Ended]:
    """Run processes beside each other. Ctrl-C reaches them too; their end is waited for."""
    command = [*_command(), json.dumps(document)]
    said: SimpleQueue[Block | Ended] = SimpleQueue()
    processes: list[subprocess.Popen[str]] = []
    threads: list[threading.Thread] = []
    ended: list[Ended] = []
    try:
        for _ in range(count):
            errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # its reader closes it
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and words, no shell
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            processes.append(process)
            threads.append(threading.Thread(target=_listen, args=(process, errors, said)))
            threads[-1].start()
        while len(ended) < count:
            heard = said.get()
            if isinstance(heard, Ended):
                ended.append(heard)
            else:
                told(heard)
    except BaseException:  # Ctrl-C reaches them by itself; what else ends us must end them too
        for process in processes:
            process.terminate()
        raise
    finally:
        for thread in threads:
            thread.join()
    return ended


def _listen(process: subprocess.Popen[str], errors: IO[str], said: SimpleQueue[Block | Ended]) -> None:
    last = Ended()
    assert process.stdout is not None
    with errors, process:
        for line in process.stdout:
            heard = json.loads(line)
            if "block" in heard:
                said.put(cast("Block", heard["block"]))
            elif "error" in heard:
                last = Ended(error=_error(heard["error"]))
            else:
                last = Ended(result=heard["result"])
        code = process.wait()
        errors.seek(0)
        if last == Ended():
            last = Ended(error=_unsaid(code, errors.read()))
    said.put(last)


def _command() -> list[str]:
    missing = [name for name in ("dbos", "h5py", "h5pyd") if find_spec(name) is None]
    if missing:
        msg = f"the write test needs what is not installed here ({', '.join(missing)}): pip install 'cropduster[all]'"
        raise ServerError(Reason.NOT_SUPPORTED, Code.UNIMPLEMENTED, msg)
    return [sys.executable, "-P", "-m", "fileserver.hdf5.bench"]


class _Failure(TypedDict):
    code: int
    reason: str
    message: str
    metadata: dict[str, str]
    violations: dict[str, str]


def _error(told: _Failure) -> ServerError:
    return ServerError(told["reason"], Code(told["code"]), told["message"], told["metadata"], told["violations"])


def _unsaid(code: int, errors: str) -> ServerError:
    if code == _INTERRUPTED:
        return ServerError(Reason.CANCELLED, Code.CANCELLED, "interrupted: the block that was under way was given back")
    lines = errors.strip().splitlines()
    msg = f"a process of the write test ended with {code}: {lines[-1] if lines else 'it said nothing'}"
    return ServerError(Reason.BUG, Code.INTERNAL, msg)
