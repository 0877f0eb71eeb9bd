"""A domain of one HSDS server as a domain of another: through an HDF5 file in the spool, compared before it is seen."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from fileserver.hdf5 import compare, describe, ids, load
from fileserver.hdf5.compare import Tally
from fileserver.hdf5.getting import Getting, Spooled
from fileserver.hdf5.hsds import address, domains, publish
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.model import Trouble
from fileserver.hdf5.source import opened
from fileserver.hdf5.unpublished import publishing
from planes.errors import AlreadyExists, Corrupt
from planes.plane import Plane

_NAMED: Final = 3  # differences that an error names


@dataclass(frozen=True, slots=True)
class Copied:
    """A domain that is there now."""

    root: str
    troubles: tuple[Trouble, ...]
    """What is not in it as it was."""
    tally: Tally | None
    """What was compared; None where nothing was."""


@dataclass(frozen=True, slots=True)
class Copying:
    """One copy.

    Args:
        getting: the domain on its way into the spool.
        connection: to the server that gets the copy.
        bucket: the plane that is that server's bucket.
    """

    getting: Getting
    connection: Connection
    bucket: Plane

    async def run(self, path: str, created: float, *, overwrite: bool) -> Copied:
        """Make the domain at `path`; folders above it are made, its permissions are those of its folder.

        Raises:
            AlreadyExists: something is at `path`, and is not to be replaced.
            Corrupt: what the server gives is not what was written.
        """
        there = await domains.find(self.connection, path)
        if there is not None and (there.is_folder or not overwrite):
            msg = (
                f"{address.show(path)} on HSDS '{self.connection.name}' is there already: --overwrite replaces a domain"
            )
            raise AlreadyExists(msg, hsds=self.connection.name, domain=address.show(path))
        if address.parent(path) != "/":
            await domains.make_folder(self.connection, address.parent(path), parents=True, exist_ok=True)
        async with self.getting.spooled() as made:
            return await self._loaded(made, path, created, replaces=there is not None)

    async def _loaded(self, made: Spooled, path: str, created: float, *, replaces: bool) -> Copied:
        name = uuid4().hex
        root, staging = ids.root_id(name), f"{path}.copying-{name[:8]}"
        async with publishing(self.connection, self.bucket, path, root, staging, replaces=replaces):
            async with opened(made.plane, made.name) as source:
                done = await load.load(source, self.bucket, name, created)
                body = describe.domain_json(root, self.connection.settings.username, created)
                await self.bucket.put(f"{staging[1:]}/.domain.json", body, upload_id=f"{name}-staging")
                known = (*made.troubles, *done.troubles)
                objects = Objects(self.connection, staging, root)
                depth = self.getting.depth
                tally = None
                if depth is not None:
                    without = {trouble.path for trouble in known if trouble.what != "mapped"}
                    found = compare.differences(source, objects, root, depth, without=without, tally=(tally := Tally()))
                    async with aclosing(found):
                        self._equal(path, [each async for each in found])
            plan = await publish.prepare(self.connection, path, staging, overwrite=replaces)
            await publish.publish(self.connection, plan)
        return Copied(root, known, tally)

    def _equal(self, path: str, found: list[compare.Difference]) -> None:
        if found:
            first = "; ".join(f"{each.what} of {each.path}" for each in found[:_NAMED])
            msg = f"{address.show(path)} on HSDS '{self.connection.name}' does not read as what was written: {first}"
            raise Corrupt(msg, hsds=self.connection.name, domain=address.show(path))
