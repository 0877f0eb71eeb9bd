"""What is written past the server for a domain, and has to go again if that does not get its name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fileserver.hdf5 import ids
from fileserver.hdf5.hsds import domains
from fileserver.hdf5.hsds.connection import Connection
from fileserver.together import side_by_side
from planes.plane import Plane

_WIDTH: Final = 8


@asynccontextmanager
async def publishing(
    connection: Connection, bucket: Plane, path: str, root: str, staging: str, *, replaces: bool
) -> AsyncIterator[None]:
    """Publish a domain, or leave nothing of it; but what is published already, or only waits for its name, stays.

    Args:
        connection: to the server.
        bucket: the plane that is its bucket.
        path: that the domain was to have.
        root: id of its root group, which is ours.
        staging: the path that it had meanwhile.
        replaces: another domain was at `path`; if none is now, the new one is all that is left.
    """
    try:
        yield
    except BaseException:  # also a cancelled call
        await _forget(connection, bucket, path, root, staging, replaces=replaces)
        raise


async def _forget(connection: Connection, bucket: Plane, path: str, root: str, staging: str, *, replaces: bool) -> None:
    there = await domains.find(connection, path)
    if (there is None and replaces) or (there is not None and there.root == root):
        return
    if await domains.find(connection, staging) is not None:
        await domains.unlink(connection, staging)
    keys = [info.key async for info in bucket.list(ids.folder(root))]
    await side_by_side(keys, bucket.delete, _WIDTH)
