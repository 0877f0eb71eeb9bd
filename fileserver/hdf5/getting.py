"""A domain of HSDS as an HDF5 file on a plane: written in a spool, compared with the domain, then seen whole."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

from fileserver.hdf5 import compare
from fileserver.hdf5.compare import Depth, Tally
from fileserver.hdf5.deliver import deliver
from fileserver.hdf5.export import Progress, export
from fileserver.hdf5.hsds import domains
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.model import Trouble
from fileserver.hdf5.source import opened
from planes.errors import AlreadyExists, Corrupt, Full, NotFound, Refused
from planes.plane import Info, Plane
from planes.posix import PosixPlane, PosixSettings
from planes.threads import Threads

_NAMED: Final = 3  # differences that an error names


@dataclass(frozen=True, slots=True)
class Got:
    """A file that is there now."""

    info: Info
    troubles: tuple[Trouble, ...]
    """What of the domain is not in it as it was."""
    tally: Tally | None
    """What was compared; None where nothing was."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file in the spool, and what of the domain is not in it as it was."""

    plane: PosixPlane
    name: str
    troubles: tuple[Trouble, ...]


@dataclass(slots=True)
class Getting:
    """One domain on its way; `progress` may be looked at meanwhile.

    Args:
        connection: to the server.
        domain: path of the domain.
        root: id of its root group.
        spool: a folder of this host for the file in the making.
        depth: how much is compared; None for nothing.
    """

    connection: Connection
    domain: str
    root: str
    spool: Path
    depth: Depth | None
    bucket: Plane | None = None
    """That of the server, if it is a plane: chunks are taken from there as they are."""
    progress: Progress = field(default_factory=Progress)

    async def run(self, target: Plane, key: str, *, overwrite: bool) -> Got:
        """Write the file, and leave nothing in the spool, however this ends.

        Raises:
            AlreadyExists: something is at the target, and is not to be replaced.
            Corrupt: the file is not what the server gives: the domain was changed meanwhile.
            Full: there is no room for it in the spool.
        """
        if not overwrite:
            await _nothing_at(target, key)
        async with self.spooled() as made:
            plane, name = made.plane, made.name
            tally = await self._compared(plane, name, made.troubles) if self.depth is not None else None
            attempt = name.removesuffix(".h5")
            info = await deliver(plane, await plane.stat(name), target, key, attempt=attempt, replace=overwrite)
        return Got(info, made.troubles, tally)

    @asynccontextmanager
    async def spooled(self) -> AsyncIterator[Spooled]:
        """The domain as a file of the spool, which is gone afterwards; raises as `run` does."""
        name = f"{uuid4().hex}.h5"
        plane = PosixPlane("spool", PosixSettings(path=self.spool, durability="os"))
        threads = Threads("spool", 1)
        try:
            yield Spooled(plane, name, await self._written(self.spool / name))
        finally:
            await threads.run(lambda _: (self.spool / name).unlink(missing_ok=True))
            threads.close()
            await plane.aclose()

    async def _written(self, path: Path) -> tuple[Trouble, ...]:
        if self.bucket is not None:
            await domains.flush(self.connection, self.domain)
        objects = Objects(self.connection, self.domain, self.root)
        try:
            return await export(objects, self.root, path, self.progress, self.bucket)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                msg = f"no room for {show(self.domain)} as a file before it is delivered: make some in {self.spool}"
                raise Full(msg, path=str(self.spool)) from error
            msg = f"{self.spool}, where {show(self.domain)} is written before it is delivered: {error}"
            raise Refused(msg, path=str(self.spool)) from error

    async def _compared(self, plane: PosixPlane, name: str, troubles: tuple[Trouble, ...]) -> Tally:
        tally = Tally()
        lost = {trouble.path for trouble in troubles if trouble.what != "mapped"}
        mapped = {trouble.path for trouble in troubles if trouble.what == "mapped"}
        found: list[str] = []
        async with opened(plane, name) as source:
            objects = Objects(self.connection, self.domain, self.root)
            differences = compare.differences(source, objects, self.root, self.depth or Depth.NONE, tally=tally)
            async with aclosing(differences):
                async for each in differences:
                    told = each.path in lost or (each.path in mapped and each.what == "fill value")
                    if not told and len(found) < _NAMED:
                        found.append(f"{each.what} of {each.path}: file {each.left or '-'}, domain {each.right or '-'}")
        if found:
            msg = (
                f"the file made of {show(self.domain)} on HSDS '{self.connection.name}' is not what the server gives "
                f"now ({'; '.join(found)}): if the domain was being written, try again when it is not"
            )
            raise Corrupt(msg, hsds=self.connection.name, domain=show(self.domain))
        return tally


async def _nothing_at(target: Plane, key: str) -> None:
    try:
        await target.stat(key)
    except NotFound:
        return
    msg = f"{target.name}:{key} is there already: --overwrite replaces it"
    raise AlreadyExists(msg, plane=target.name, key=key)
