"""Files that are joined to what a domain has already, past its server.

A domain that others read is never changed: it would be seen half extended. It is carried to another root inside of the
bucket (`fileserver.hdf5.carrying`), whole rows of chunks as they are; the row that was not full, and all that the new
files bring, are written there. Then that root takes the name. So a crash leaves the old domain, or the new one.
"""

from __future__ import annotations

import numpy as np

from fileserver.hdf5 import grid, ids, joined
from fileserver.hdf5.carrying import Carrying, swapped
from fileserver.hdf5.extension import Extension, extended, names
from fileserver.hdf5.files import Files
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects, Slab
from fileserver.hdf5.joining import Elements, Joining
from fileserver.hdf5.joint import Joint
from fileserver.hdf5.storage import Bucket, Written
from planes.bulk import settle
from planes.plane import Plane


async def fill(
    files: Files, made: Extension, place: tuple[Connection, str], bucket: Plane, name: str, did: joined.Did
) -> tuple[str, Written]:
    """Write the extended domain into the bucket; its root, and what was written.

    Args:
        files: that are joined.
        made: to what.
        place: of the domain: a server and a path.
        bucket: of the server.
        name: as for `load.load`.
        did: told of each file whose own chunks are there.

    Raises:
        Changed: a file is not the version that was listed.
        Misfit: data of a file cannot be read.
        Refused: data of the domain hold references that cannot be rewritten.
    """
    root = ids.root_id(name)
    to = Bucket(bucket, root, name)
    await to.resume()
    carrying = Carrying(bucket, made.old, root, name, to.has)
    bodies = {ids.key(each.id, made.old): made.joints[i] for i, each in enumerate(made.there.values())}
    folders = {key.rpartition("/")[0]: joint for key, joint in bodies.items()}

    def change(key: str, data: bytes) -> bytes:
        return extended(data, bodies[key]) if key in bodies else data

    def wanted(key: str) -> bool:
        folder, _, place = key.rpartition("/")
        joint = folders.get(folder)
        return joint is None or int(place.split("_")[joint.axis]) < joint.first_row

    await carrying.descriptions(change)
    await carrying.data(wanted)
    there = _There(Objects(*place, made.old), made, root)
    await Joining(to, files, names(made, root), made.joints, there.elements, did).run()
    await settle(bucket)
    to.written.carried += carrying.carried
    to.written.copied += carrying.copied
    return root, to.written


class _There:
    """Elements that the domain has, read through its server: it may know more than its bucket."""

    def __init__(self, objects: Objects, made: Extension, root: str) -> None:
        self._objects = objects
        self._made = made
        self._root = root

    async def elements(self, joint: Joint, start: grid.Dims, count: grid.Dims) -> Elements:
        """A block of a dataset."""
        slabs = [Slab(first, first + number) for first, number in zip(start, count, strict=True)]
        data = await self._objects.read(self._made.there[joint.path].id, slabs)
        data, item = swapped(data, old=self._made.old, new=self._root), joint.planned.facts.item
        if item is not None:
            return np.frombuffer(data, np.dtype((np.void, item))).reshape(count)
        found, at = np.empty(count, object), 0
        for place in np.ndindex(count):
            size = 4 + int.from_bytes(data[at : at + 4], "little")
            found[place], at = data[at : at + size], at + size
        return found
