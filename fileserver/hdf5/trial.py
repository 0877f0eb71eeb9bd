"""Whether the HDF5 library survives a file: it is loaded into nothing, by a process of its own.

There are files at which the library, or a plugin of it, ends the process that reads them, or never comes back. A
server that takes its work up again would end at such a file again and again, and every other server after it. So a file
that was being loaded when that has happened more than once is tried here first.

The process has access to nothing: it asks this one, by a line of JSON, for facts about objects and for bytes of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

from typing_extensions import Buffer

from fileserver.auth import caller
from fileserver.hdf5 import load
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.source import opened
from planes.errors import Error, NotFound, Throttled, Unavailable
from planes.memory import MemoryPlane, MemoryUpload
from planes.plane import Extent, Info, Plane, Presign, StepReceipt, Ticket

PATIENCE: Final = 300.0
"""Seconds that a process may take before it asks for more, or ends."""
COMMAND: Final = (sys.executable, "-m", "fileserver.hdf5.trial")
_KEPT: Final = frozenset({"HDF5_PLUGIN_PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH"})


async def ends(plane: Plane, key: str, patience: float = PATIENCE) -> str:
    """How a process ends that loads a file, as the rest of a sentence; empty if it survives, whatever is wrong.

    Raises:
        Throttled, Unavailable: the plane does not answer.
    """
    environment = {name: value for name, value in os.environ.items() if name in _KEPT}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, plane.name, key, env=environment, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    assert process.stdin is not None, "it is a pipe"
    assert process.stdout is not None, "it is a pipe"
    try:
        while asked := await asyncio.wait_for(process.stdout.readline(), patience):
            head, data = await _answer(plane, key, json.loads(asked))
            process.stdin.write(json.dumps(head).encode() + b"\n" + data)
            await process.stdin.drain()
        code = await asyncio.wait_for(process.wait(), patience)
    except ConnectionError:
        code = await process.wait()
    except TimeoutError:
        return f"keeps the HDF5 library busy for ever (a process of its own did nothing else for {patience:g} s)"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return f"ends every process that reads it ({signal.Signals(-code).name})" if code < 0 else ""


async def _answer(plane: Plane, own: str, asked: Mapping[str, Any]) -> tuple[dict[str, str | int], bytes]:
    key: str = asked["key"]
    try:
        if key != own and caller().outside:
            msg = f"{key} is not tried for callers from outside"
            raise NotFound(msg, key=key)
        if "end" not in asked:
            info = await plane.stat(key)
            return {"size": info.size, "version": info.version}, b""
        data = bytearray(asked["end"] - asked["start"])
        await plane.read(Extent(key, asked["version"], asked["start"], asked["end"]), memoryview(data))
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
        asked = {"key": extent.key, "version": extent.version, "start": extent.start, "end": extent.end}
        await asyncio.to_thread(self._said, asked, into)

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

    async def put(
        self,
        key: str,
        data: Buffer,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> StepReceipt:
        """Take an object."""
        del key, upload_id, replace, content_type, metadata
        return StepReceipt(1, memoryview(data).nbytes, None)

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> MemoryUpload:
        """Take an object in steps."""
        del replace, content_type, metadata, kind
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


async def _load(name: str, key: str) -> None:
    try:
        async with opened(_There(name, sys.stdout.buffer, sys.stdin.buffer), key) as source:
            await load.load(source, _Nowhere("nowhere"), "a trial", 0.0, fresh=True)
    except (Error, *BROKEN):
        return  # that is no end of a process: whoever loads it says what is wrong


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asyncio.run(_load(*sys.argv[1:]))
