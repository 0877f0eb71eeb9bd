"""A cable between two programs that can be pulled out: connections through it break, in the middle of whatever it is.

async with cable(port) as between:
    ... dial between.port ...
    between.cut_after(3_000_000)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Cable:
    """Relays connections to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._left: int | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._stalls = False
        self.port = 0
        self.cuts = 0
        self.carried = 0
        """Bytes that went through, in both directions."""

    def cut(self) -> None:
        """Break every connection; new ones are carried again."""
        self.cuts += 1
        self._left = None
        self._flows.set()
        for writer in self._writers:
            writer.transport.abort()

    def cut_after(self, size: int) -> None:
        """Break every connection once so many bytes more have gone through."""
        self._left = size

    def stall_after(self, size: int) -> None:
        """Carry nothing more once so many bytes more have gone through, until `cut`."""
        self._left, self._stalls = size, True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            there, here = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, here}
        self._writers |= pair
        try:
            await asyncio.gather(self._carry(reader, here), self._carry(there, writer))
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self.carried += len(data)
                if self._left is not None and (left := self._left - len(data)) <= 0:
                    self._left = None
                    if not self._stalls:
                        self.cut()
                        return
                    self._flows.clear()
                elif self._left is not None:
                    self._left = left
                writer.write(data)
                await writer.drain()
                await self._flows.wait()
            writer.write_eof()


@asynccontextmanager
async def cable(port: int) -> AsyncIterator[Cable]:
    """A cable to a port, for as long as the block lasts."""
    made = Cable(port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut()
