"""Bytes of a blob, of exactly the version that was pinned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import urllib3

from planes.azure_connection import Connection, bare
from planes.azure_errors import Asked, answered
from planes.errors import Changed, Error, NotFound, OutOfRange, Unavailable, Unsupported
from planes.plane import MIB, Extent
from planes.threads import Stop

SLICE: Final = MIB
"""Between two slices a cancelled read stops."""

Room = Callable[[int, int], memoryview]
"""Where the slice at an offset, of a size at most, is to lie."""


async def read(connection: Connection, extent: Extent, room: Room, take: Callable[[memoryview], None]) -> None:
    """Read an extent in one request, slice by slice, in a thread.

    Raises:
        Changed: the object has another version, or has vanished.
        NotFound: it is not there, and no version was asked for.
        OutOfRange: it is shorter.
        Unavailable: the answer broke off.
    """
    full = connection.full(extent.key)
    asked = Asked("read", extent.key, absent=Changed if extent.version else NotFound)
    if not extent.size:
        found = await connection.head(extent.key, asked, version=extent.version)
        if found.size < extent.end:
            raise _too_short(connection, extent, found.size)
        return

    def work(stop: Stop) -> None:
        url, headers = connection.account.readable(connection.container, full)
        headers["Range"] = f"bytes={extent.start}-{extent.end - 1}"
        headers |= {"If-Match": f'"{extent.version}"'} if extent.version else {}
        answer = connection.http.get(url, headers)
        try:
            _check(connection, extent, asked, answer.status, answer.headers)
            done = 0
            while done < extent.size:
                stop.check()
                piece = room(done, min(SLICE, extent.size - done))
                done += _receive(connection, extent, answer, piece, done)
                take(piece)
        except BaseException:  # whatever it was, the rest of the body is not worth reading
            answer.close()
            raise
        answer.drain_conn()
        answer.release_conn()

    await connection.work(work, asked)


def _receive(
    connection: Connection, extent: Extent, answer: urllib3.BaseHTTPResponse, piece: memoryview, done: int
) -> int:
    """Fill a slice; its size."""
    held = 0
    while held < len(piece):
        count = answer.readinto(piece[held:])
        if not count:
            raise connection.error(Unavailable, extent.key, f"the answer broke off after {done + held} bytes")
        held += count
    return held


def _check(connection: Connection, extent: Extent, asked: Asked, status: int, headers: Mapping[str, str]) -> None:
    """Refuse other bytes than were asked for."""
    if status not in {200, 206}:
        raise answered(status, headers.get("x-ms-error-code", ""), headers, asked, connection.place)
    if "etag" not in headers:
        raise connection.error(Unavailable, extent.key, "the service does not answer properly: no ETag")
    if extent.version and bare(headers["etag"]) != extent.version:
        raise connection.error(Changed, extent.key, "it is another version than the one that was pinned")
    length = int(headers.get("content-length", "-1"))
    if status == 200 or length > extent.size:
        raise connection.error(Unsupported, extent.key, "the service ignores ranges")
    if 0 <= length < extent.size:
        raise _too_short(connection, extent, extent.start + length)


def _too_short(connection: Connection, extent: Extent, size: int) -> Error:
    return connection.error(OutOfRange, extent.key, f"it has {size} bytes; {extent.end} were asked for")
