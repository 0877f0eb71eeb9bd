"""Whether the HDF5 library survives a file: it is loaded into nothing, by a process of its own.

There are files at which the library, or a plugin of it, ends the process that reads them, or never comes back. A
server that takes its work up again would end at such a file again and again, and every other server after it. So a file
that was being loaded when that has happened more than once is tried here first.

The process is given no plane and no secret: it asks this one, by a line of JSON, for facts about objects and for bytes
of them. It says that it has begun and that it is over; one that does not say the latter was ended by the file, whatever
its exit code is: plugins call exit(0). And once it reads the file it may say anything, so nothing it says is believed.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, TypeVar

from typing_extensions import Buffer

from fileserver.auth import caller
from fileserver.configured import where
from fileserver.hdf5 import load
from fileserver.hdf5.source import opened
from planes.errors import Error, NotFound, Throttled, Unavailable
from planes.memory import MemoryPlane, MemoryUpload
from planes.plane import MIB, Extent, Info, Plane, Presign, StepReceipt, Ticket

T = TypeVar("T")

PATIENCE: Final = 300.0
"""Seconds that a process may take before it asks for more, or ends."""
START: Final = 300.0
"""Seconds in which a process has to begin."""
COMMAND: Final = (sys.executable, "-m", "fileserver.hdf5.trial")
_KEPT: Final = frozenset({"HDF5_PLUGIN_PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH"})
_BEGUN: Final = b'{"begun": true}\n'
_OVER: Final = b'{"over": true}\n'
_STEP: Final = 8 * MIB  # bytes that are asked for at once
_NONSENSE: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


async def ends(plane: Plane, key: str, patience: float = PATIENCE) -> str:
    """How a process ends that loads a file, as the rest of a sentence; empty if it survives, whatever is wrong.

    Raises:
        Throttled, Unavailable: the plane does not answer.
        Unavailable: no process can be begun here.
    """
    environment = {name: value for name, value in os.environ.items() if name in _KEPT}
    try:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, plane.name, key, env=environment, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
    except OSError as error:
        raise _unbegun(plane, key, str(error)) from error
    try:
        await _need_begun(process, plane, key)
        if await _survives(process, _Answers(plane, key), patience):
            return ""
        async with asyncio.timeout(patience):
            code = await process.wait()
    except TimeoutError:
        return f"keeps the HDF5 library busy for ever (a process of its own did nothing else for {patience:g} s)"
    except _NONSENSE:
        return "breaks every process that reads it (a process of its own spoke no sense any more)"
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return f"ends every process that reads it ({_how(code)})"


async def _need_begun(process: Process, plane: Plane, key: str) -> None:
    """Raise Unavailable if a process does not come so far as to read the file."""
    assert process.stdout is not None, "it is a pipe"
    with suppress(TimeoutError, ValueError):
        async with asyncio.timeout(START):
            while said := await process.stdout.readline():
                if said == _BEGUN:
                    return
    raise _unbegun(plane, key, "it ended, or came to nothing, before it had begun")


def _unbegun(plane: Plane, key: str, why: str) -> Unavailable:
    name = where(plane.name, key)
    msg = f"{name} cannot be tried in a process of its own on this file server ({why}): is there memory for one?"
    return Unavailable(msg, plane=plane.name, key=key)


async def _survives(process: Process, answers: _Answers, patience: float) -> bool:
    """Answer a process until it says that it is over, or ends without."""
    assert process.stdin is not None, "it is a pipe"
    assert process.stdout is not None, "it is a pipe"
    try:
        while asked := await _within(patience, process.stdout.readline()):
            if asked == _OVER:
                return True
            head, data = await answers.to(json.loads(asked))
            process.stdin.write(json.dumps(head).encode() + b"\n" + data)
            await _within(patience, process.stdin.drain())
    except ConnectionError:
        return False
    return False


async def _within(seconds: float, work: Awaitable[T]) -> T:
    async with asyncio.timeout(seconds):
        return await work


def _how(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    known = {each.value: each.name for each in signal.Signals}
    return known.get(-code, f"signal {-code}")


class _Answers:
    """What a process is told that may have lost its senses: of a file and what that names, inside of their bounds."""

    def __init__(self, plane: Plane, own: str) -> None:
        self._plane = plane
        self._own = own
        self._sizes: dict[str, int] = {}

    async def to(self, asked: Mapping[str, Any]) -> tuple[dict[str, str | int], bytes]:
        """The answer to a question, and the bytes behind it.

        Raises:
            ValueError, KeyError, TypeError: that is no question.
            Throttled, Unavailable: the plane does not answer.
        """
        key = asked["key"]
        if not isinstance(key, str):
            raise TypeError(key)
        try:
            if key != self._own and caller().outside:
                msg = f"{key} is not tried for callers from outside"
                raise NotFound(msg, key=key)
            if "end" not in asked:
                info = await self._plane.stat(key)
                self._sizes[key] = info.size
                return {"size": info.size, "version": info.version}, b""
            extent = Extent(key, str(asked["version"]), int(asked["start"]), int(asked["end"]))
            if not 0 <= extent.start <= extent.end <= self._sizes[key] or extent.end - extent.start > _STEP:
                raise ValueError(extent)
            data = bytearray(extent.end - extent.start)
            await self._plane.read(extent, memoryview(data))
        except (Throttled, Unavailable):
            raise
        except Error as error:
            return {"error": error.message}, b""
        return {}, bytes(data)


# --- in the other process -----------------------------------------------------------------------------------------


class _There(MemoryPlane):
    """The plane of the process that began this one."""

    def __init__(self, name: str, ask: BinaryIO, answer: BinaryIO) -> None:
        super().__init__(name)
        self._ask = ask
        self._answers = answer
        self._turn = threading.Lock()

    async def stat(self, key: str) -> Info:
        """Facts about an object."""
        found = await asyncio.to_thread(self._said, {"key": key}, None)
        return Info(key, int(found["size"]), str(found["version"]), datetime.now(UTC))

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Bytes of an object."""
        for start in range(extent.start, extent.end, _STEP):
            end = min(start + _STEP, extent.end)
            asked = {"key": extent.key, "version": extent.version, "start": start, "end": end}
            await asyncio.to_thread(self._said, asked, into[start - extent.start : end - extent.start])

    def copy_ticket(self, info: Info) -> Ticket:
        """What is placed undecoded need not come here."""
        return Ticket("trial", "", {"key": info.key}, info.version, info.size)

    def _said(self, asked: Mapping[str, Any], into: memoryview | None) -> dict[str, Any]:
        with self._turn:
            self._ask.write(json.dumps(asked).encode() + b"\n")
            self._ask.flush()
            found: dict[str, Any] = json.loads(self._answers.readline() or b'{"error": "nobody answers"}')
            if "error" in found:
                raise NotFound(found["error"])
            if into is not None:
                into[:] = self._answers.read(len(into))
            return found


class _Nowhere(MemoryPlane):
    """Takes everything, and keeps nothing."""

    def accepts(self, ticket: Ticket) -> bool:
        """It does."""
        return ticket.kind == "trial"

    async def put(self, key: str, data: Buffer, **_: Any) -> StepReceipt:
        """Take an object."""
        del key
        return StepReceipt(1, memoryview(data).nbytes, None)

    async def upload(self, key: str, *, upload_id: str, **_: Any) -> MemoryUpload:
        """Take an object in steps."""
        return _Nothing(self, key, upload_id)


class _Nothing(MemoryUpload):
    """An upload of which nothing is kept."""

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Take a step."""
        del offset, ticket, url
        return StepReceipt(number, end - start, None)

    async def commit(self, steps: object, size: int, crc64nvme: int | None) -> Info:
        """Take all of it."""
        del steps, crc64nvme
        return Info(self._key, size, "", datetime.now(UTC))


async def _load(name: str, key: str, ask: BinaryIO, answers: BinaryIO) -> None:
    try:
        async with opened(_There(name, ask, answers), key) as source:
            await load.load(source, _Nowhere("nowhere"), "a trial", 0.0, fresh=True)
    except Exception:  # noqa: BLE001 -- no end of a process: whoever loads it says what is wrong, or what bug there is
        return


def _main(name: str, key: str) -> None:
    """Load a file, with the pipes out of the reach of plugins, which print."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_RDWR)
    with os.fdopen(os.dup(1), "wb") as ask, os.fdopen(os.dup(0), "rb") as answers:
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        ask.write(_BEGUN)
        ask.flush()
        asyncio.run(_load(name, key, ask, answers))
        ask.write(_OVER)


if __name__ == "__main__":
    _main(*sys.argv[1:])
