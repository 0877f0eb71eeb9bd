"""A domain that is extended by requests to its server, for who may not write its bucket.

As `fileserver.hdf5.extending`: a second domain is made of the one that is there and of the files, and takes its name.
All data of the old one go through us, so that for large ones the bucket is the better way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from fileserver.hdf5 import ids, joined
from fileserver.hdf5.carrying import swapped
from fileserver.hdf5.declared import declared
from fileserver.hdf5.extension import Extension, every, extended, names
from fileserver.hdf5.files import Files
from fileserver.hdf5.hsds.connection import JSON, Connection
from fileserver.hdf5.hsds.objects import Kind, Objects, kind_of, make_domain
from fileserver.hdf5.reading_back import slabs
from fileserver.hdf5.rest import asked, finish_root
from fileserver.hdf5.storage import Written
from fileserver.hdf5.stretches import Block
from fileserver.together import side_by_side

_WIDTH: Final = 3  # blocks of one dataset at once
_BATCH: Final = 100  # objects that are held at a time
_IN_FILES: Final = "_REF"  # in layouts of linked datasets


async def send(
    files: Files, made: Extension, place: tuple[Connection, str], staging: str, name: str, did: joined.Did
) -> tuple[str, Written]:
    """Make the extended domain at `staging`; its root, and what was written. It may be done again over itself.

    Args:
        files: that are joined.
        made: to what.
        place: of the domain: a server and a path.
        staging: path of the new one.
        name: a text that no other load has.
        did: told of each file that was sent.

    Raises:
        Changed: a file is not the version that was listed.
        Misfit: data of a file cannot be read.
        AlreadyExists: another domain is at `staging`, or an earlier attempt was stopped while it made this one's root.
    """
    connection, path = place
    root = ids.root_id(name)
    old, new = Objects(connection, path, made.old), Objects(connection, staging, root)
    job = _Sending(old, new, made, root)
    first = await job.body(made.old)
    properties = first.get("creationProperties")
    wanted = properties if isinstance(properties, dict) else None
    job.fresh = await make_domain(connection, staging, root, properties=wanted)
    await job.make("datatypes")
    await job.make("datasets")
    for each in job.of("datasets"):
        await job.data(each)
    job.written.carried += await joined.send_data(files, made.joints, new, names(made, root), did)
    await job.make("groups")
    await finish_root(new, root, first)
    return root, job.written


@dataclass(slots=True)
class _Sending:
    old: Objects
    new: Objects
    made: Extension
    root: str
    fresh: bool = False
    """Nothing of it was there."""
    written: Written = field(default_factory=Written)

    def of(self, kind: Kind) -> list[str]:
        """Ids of the old domain's objects of one kind, but for its root."""
        found = dict.fromkeys(self.made.known.values())
        return [each for each in found if kind_of(each) == kind and each != self.made.old]

    async def body(self, object_id: str) -> dict[str, JSON]:
        """What the new domain's object is."""
        data = json.dumps(await self.old.raw(object_id, links=object_id.startswith("g"))).encode()
        joints = {each.id: self.made.joints[i] for i, each in enumerate(self.made.there.values())}
        data = extended(data, joints[object_id]) if object_id in joints else data
        found: dict[str, JSON] = json.loads(self._swapped(data))
        return found

    async def make(self, kind: Kind) -> None:
        """Make all objects of one kind."""
        for batch in _batches(self.of(kind)):
            items = [asked(await self.body(each)) for each in batch]
            await self.new.make(kind, items, fresh=self.fresh)
            self.written.objects += len(items)

    async def data(self, object_id: str) -> None:
        """Send the data of one dataset; what is only fill values is left out."""
        has = await declared(self.old, object_id, attributes=False)
        storage = has.storage
        if has.dims is None or 0 in has.dims or storage is None or _IN_FILES in storage.layout:
            return
        mine = swapped(object_id.encode(), old=self.made.old, new=self.root).decode()

        async def one(block: Block) -> None:
            data = await self.old.read(object_id, slabs(block))
            if storage.fill or any(data):
                await self.new.write(mine, self._swapped(data), slabs(block))
                self.written.carried += len(data)

        await side_by_side(every(has), one, _WIDTH)

    def _swapped(self, data: bytes) -> bytes:
        return swapped(data, old=self.made.old, new=self.root)


def _batches(found: Sequence[str]) -> Iterator[Sequence[str]]:
    return (found[at : at + _BATCH] for at in range(0, len(found), _BATCH))
