"""Manifests that say an old name, because their file was renamed: written anew until it is done."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
import structlog

from fileserver.catalogue import files, waste
from fileserver.catalogue.files import Copy, FilePart, LogicalFile, now
from fileserver.catalogue.names import MANIFEST
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.transfer.manifest_file import write_manifest
from planes.errors import Error

PATIENCE: Final = 60.0
"""Seconds for whoever renamed a file to write its manifest; then another may."""

_log = structlog.get_logger(__name__)


async def rewrite_all(store: Store, planes: Configured, moment: float) -> None:
    """Write the manifests anew at which nobody is since `moment` (seconds since 1970, UTC)."""
    for copy in await store.read(lambda c: files.stale_manifests(c, moment)):
        await rewrite(store, planes, copy)


async def rewrite(store: Store, planes: Configured, copy: str) -> None:
    """Write the manifest of a copy with the name that its file has now; what fails is logged and stays noted."""

    def find(c: sa.Connection) -> tuple[tuple[LogicalFile, Copy] | None, list[FilePart]]:
        return files.by_copy(c, copy), files.parts(c, copy, limit=1)

    known, first = await store.read(find)
    if known is None or not first:
        await store.write(lambda c: files.forget_stale_manifest(c, copy, None))
        return
    file, one = known
    name, home, plane = file.name, first[0].key.rpartition("/")[0], first[0].plane
    try:
        await write_manifest(store, planes.plane(plane), file, home, one, hosted=bool(planes.hosts(plane)))
    except Error as error:
        _log.warning("a manifest says an old name for now", file=name, plane=plane, error=error.message)
        return

    def done(c: sa.Connection) -> None:
        if files.by_copy(c, copy) is None:  # deleted meanwhile: the manifest came back behind that
            waste.discard(c, plane, [f"{home}/{MANIFEST}"], now())
        files.forget_stale_manifest(c, copy, name)

    await store.write(done)
