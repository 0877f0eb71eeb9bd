"""Manifests that say an old name, because their file was renamed: written anew until it is done."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
import structlog

from fileserver.catalogue import files
from fileserver.catalogue.files import FilePart, LogicalFile, now
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
    for generation in await store.read(lambda c: files.stale_manifests(c, moment)):
        await rewrite(store, planes, generation)


async def rewrite(store: Store, planes: Configured, generation: str) -> None:
    """Write the manifest of a generation with the name that its file has now; what fails is logged and stays noted."""

    def find(c: sa.Connection) -> tuple[LogicalFile | None, list[FilePart]]:
        return files.by_generation(c, generation), files.parts(c, generation, limit=1)

    file, first = await store.read(find)
    if file is None or not first:
        await store.write(lambda c: files.forget_stale_manifest(c, generation, None))
        return
    name, home, plane = file.name, first[0].key.rpartition("/")[0], first[0].plane
    try:
        await write_manifest(store, planes.plane(plane), file, home)
    except Error as error:
        _log.warning("a manifest says an old name for now", file=name, plane=plane, error=error.message)
        return

    def done(c: sa.Connection) -> None:
        if files.by_generation(c, generation) is None:  # deleted meanwhile: the manifest came back behind that
            files.discard(c, plane, [f"{home}/{MANIFEST}"], now())
        files.forget_stale_manifest(c, generation, name)

    await store.write(done)
