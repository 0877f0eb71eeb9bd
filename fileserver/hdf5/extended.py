"""What a server reads of an extended domain, against the domain that it was carried from and the files that came."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Final

from fileserver.hdf5 import stretches
from fileserver.hdf5.alike import says
from fileserver.hdf5.carrying import swapped
from fileserver.hdf5.declared import declared
from fileserver.hdf5.extension import Extension, every, extended, facts_of, names
from fileserver.hdf5.files import Files
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import JSON, Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.reading_back import Back, slabs
from fileserver.together import side_by_side
from planes.errors import Corrupt, NotFound

_WIDTH: Final = 4
_SAMPLED: Final = 3  # blocks of a dataset of the old domain
_NAMED: Final = ("attributes", "links")


async def check(
    files: Files, made: Extension, connection: Connection, place: tuple[str, str], root: str, level: str
) -> None:
    """Compare the extended domain with the old one and with the files, through the server.

    Args:
        files: that were joined.
        made: to what.
        connection: to the server.
        place: paths of the old domain and of the new one.
        root: of the new one.
        level: metadata, sample or full; none compares nothing.

    Raises:
        Corrupt: they differ; says where first.
        Changed: a file is another by now.
    """
    if level == "none":
        return
    old, new = Objects(connection, place[0], made.old), Objects(connection, place[1], root)
    name = f"{show(place[1])} on HSDS '{connection.name}'"
    await _Carried(old, new, made, root, level, name).compare()
    await Back(new, name, made.joints, names(made, root), level).compare(files)


@dataclass(slots=True)
class _Carried:
    """The new domain against the old one."""

    old: Objects
    new: Objects
    made: Extension
    root: str
    level: str
    domain: str

    async def compare(self) -> None:
        """Every object that a link leads to; of data some blocks, or all."""
        todo, seen = [self.made.old], {self.made.old}
        while todo:
            level, todo = todo, []
            found: list[str] = []

            async def one(object_id: str, into: list[str] = found) -> None:
                into.extend(await self._object(object_id))

            await side_by_side(level, one, _WIDTH)
            for each in found:
                if each not in seen:
                    seen.add(each)
                    todo.append(each)

    async def _object(self, object_id: str) -> list[str]:
        """Compare one object; the ids that it leads to."""
        mine = {each.id: self.made.joints[i] for i, each in enumerate(self.made.there.values())}
        is_group, here = object_id.startswith("g"), self._here(object_id)
        data = json.dumps(await self.old.raw(object_id, links=is_group)).encode()
        wanted = json.loads(self._swapped(extended(data, mine[object_id]) if object_id in mine else data))
        try:
            found = await self.new.raw(here, links=is_group)
        except NotFound as error:
            raise self._differs(object_id, "is not there") from error
        for name in ("type", "shape", "attributes", "links", "creationProperties"):
            ours, theirs = wanted.get(name) or {}, found.get(name) or {}
            if not says(ours, theirs) or (name in _NAMED and _keys(ours) != _keys(theirs)):
                raise self._differs(object_id, f"has other {name}: {str(theirs)[:300]}")
        if object_id.startswith("d") and self.level != "metadata":
            await self._data(object_id)
        links = wanted.get("links") if is_group else None
        after = [str(each["id"]) for each in (links or {}).values() if "id" in each]
        return [swapped(each.rpartition("/")[2].encode(), old=self.root, new=self.made.old).decode() for each in after]

    async def _data(self, object_id: str) -> None:
        has = await declared(self.old, object_id, attributes=False)
        if has.dims is None or 0 in has.dims or has.storage is None or has.type is None:
            return
        facts = facts_of(has)
        chance = random.Random(f"{self.root} {object_id}")  # noqa: S311 -- a sample, no secret
        some = stretches.some(has.dims, stretches.step_of(facts, stretches.SAMPLE), _SAMPLED, chance)
        for block in every(has) if self.level == "full" else some:
            here = await self.new.read(self._here(object_id), slabs(block))
            if here != self._swapped(await self.old.read(object_id, slabs(block))):
                raise self._differs(object_id, f"has other data in {block}")

    def _here(self, object_id: str) -> str:
        return self._swapped(object_id.encode()).decode()

    def _swapped(self, data: bytes) -> bytes:
        return swapped(data, old=self.made.old, new=self.root)

    def _differs(self, object_id: str, what: str) -> Corrupt:
        path = next((path for path, each in self.made.there.items() if each.id == object_id), object_id)
        return Corrupt(f"{path} of {self.domain}, carried to its extended form, {what}", path=path)


def _keys(named: JSON) -> set[str]:
    return set(named) if isinstance(named, dict) else set()
