"""Small files of an ingest into new domains, many at a time: what costs as much for one as for many is done once.

    ask the server for each name     free, and never anybody's: else the file goes the long way (`ingest_file`); it
                                     need not be asked of a folder that was made just now
    read · make                      one trip to the HDF5 library for all of them
    write                            one trip to the bucket; what is there then is read and compared with what was made
    sample                           of 250 files, the first is read through the server and compared with its file
                                     before any of them is named: what the server reads of one, it reads of the others
    flush · name · flush             one object more names each domain, all of which is durable; so are the names
                                     before anything is said
    ask the server for one name      it has the root that was written

Whatever is not as it should be goes the long way too, from where it is: nothing is done here that a file brought for
itself could not go on with, after an error as after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import time
from typing import Final

from fileserver.configured import where
from fileserver.hdf5 import describe, load_many, verify
from fileserver.hdf5.hsds import address
from fileserver.hdf5.load_many import Made, Small
from fileserver.hdf5.source import WHOLE, opened
from fileserver.together import side_by_side
from fileserver.transfer.ingest_feed import Begun
from fileserver.transfer.ingest_file import Worker, attempt, loaded_file
from fileserver.transfer.ingest_rows import Ended, File
from fileserver.transfer.ingest_target import Frame
from fileserver.transfer.ingest_told import report
from planes import bulk
from planes.errors import Error, Throttled, Unavailable
from planes.many import Whole
from planes.plane import MIB, Extent, Plane

MOST: Final = 32
"""Files of a batch."""
SIZE: Final = 8 * MIB
"""Bytes of the files of a batch, but for the last one."""
_ABREAST: Final = 2  # in flight: while one is made and written, the other is asked for or flushed
SAMPLED: Final = 250
"""Of so many files, one is read through the server."""
_REQUESTS: Final = 8  # of one batch at a time


@dataclass(slots=True)
class _One:
    """A file on its way; `data` and `made` as soon as there are any."""

    file: File
    frame: Frame
    data: bytes = b""
    made: Made | None = None
    verified: str = "stored"


@dataclass(slots=True)
class Batches:
    """Brings small files of one transfer to one server."""

    worker: Worker
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of one batch at a time: two threads that work would only wait for each other, at every call of the system."""
    _look: asyncio.Lock = field(default_factory=asyncio.Lock)
    _due: int = 0
    """Files until one is read through the server again."""

    @property
    def abreast(self) -> int:
        """How many batches are to be in flight; 0 where no file may be one of many."""
        target = self.worker.target
        many = target.bulk is not None and bulk.takes_many(target.bulk) and target.ingest.mode != "link"
        return _ABREAST if many and target.ingest.verify in {"auto", "none"} else 0

    @staticmethod
    def fits(files: Sequence[Begun]) -> bool:
        """Whether a batch may have one more."""
        return len(files) < MOST and sum(each.file.size for each in files) < SIZE

    def takes(self, begun: Begun) -> bool:
        """Whether a file may be one of many: small, and new."""
        return bool(self.abreast) and begun.fresh and 0 < begun.file.size <= WHOLE

    async def bring(self, files: Sequence[Begun]) -> tuple[list[Ended], list[Begun]]:
        """How files ended, and those that are left, which have to be brought each for itself."""
        free = await self._read(await self._free(files))
        async with self.worker.target.loading, self._turn:
            made = await self._made(free)
            is_fine = bool(made) and await self._wrote(made)
        ended = await self._named(made) if is_fine and await self._proved(made) else []
        over, begun = {each.file.number for each in ended}, {each.file.number for each in made}
        left = [each for each in files if each.file.number not in over]
        return ended, [replace(each, fresh=each.fresh and each.file.number not in begun) for each in left]

    @property
    def _bulk(self) -> Plane:
        assert self.worker.target.bulk is not None, "see `takes`"
        return self.worker.target.bulk

    # --- load ---------------------------------------------------------------------------------------------------

    async def _free(self, files: Sequence[Begun]) -> list[_One]:
        """Those whose domain is not there, and was not, as far as the server remembers."""
        found: list[_One] = []
        is_gone = False

        async def ask(begun: Begun) -> None:
            nonlocal is_gone
            target, domain = self.worker.target, begun.file.domain
            if is_gone:
                return
            try:
                frame = await target.folder(address.parent(domain))
                if frame is not None and (frame.is_fresh or await target.there(domain) == (None, False)):
                    found.append(_One(begun.file, frame))
            except Error as error:  # said when it is brought for itself
                if isinstance(error, Throttled | Unavailable):
                    is_gone = True

        await side_by_side(files, ask, _REQUESTS)
        return sorted(found, key=lambda one: one.file.number)

    async def _read(self, free: Sequence[_One]) -> list[_One]:
        """Those that could be read."""

        async def read(some: Sequence[_One]) -> None:
            plane = self.worker.planes.plane(some[0].file.plane)
            try:
                found = await bulk.read_many(plane, [Extent(o.file.key, o.file.version, 0, o.file.size) for o in some])
            except Error:
                return  # the same
            for one, data in zip(some, found, strict=True):
                one.data = data

        for name in dict.fromkeys(one.file.plane for one in free):
            if bulk.reads_many(self.worker.planes.plane(name)):
                await read([one for one in free if one.file.plane == name])
        await side_by_side([[one] for one in free if not one.data], read, _REQUESTS)
        return [one for one in free if one.data]

    async def _made(self, free: Sequence[_One]) -> list[_One]:
        """Those of which the library has made all objects."""
        small = [Small(where(o.file.plane, o.file.key), o.data, o.file.load, o.file.begun or time()) for o in free]
        for one, made in zip(free, await load_many.make(small, self._bulk), strict=True):
            one.made = made
        return [one for one in free if one.made is not None]

    async def _wrote(self, made: Sequence[_One]) -> bool:
        """Write all objects."""
        try:
            receipts = iter(await bulk.put_many(self._bulk, [each for one in made for each in _of(one).objects]))
            for one in made:
                _of(one).bucket.wrote(receipt for _, receipt in zip(_of(one).objects, receipts, strict=False))
        except Error:
            return False
        return True

    async def _proved(self, made: Sequence[_One]) -> bool:
        """Whether the server reads what is written likewise; no other batch gets names while that is looked at."""
        if self.worker.level == "none":
            return True
        async with self._look:
            if self._due <= 0:
                if not await self._sampled(made[0]):
                    return False  # and the next batch looks at one of its own
                self._due = SAMPLED
            self._due -= len(made)
            return True

    async def _sampled(self, one: _One) -> bool:
        """Read one domain through the server, as `--verify sample` does."""
        target, staging = self.worker.target, self.worker.target.staging(one.file)
        name = self._name(one, staging, f"{attempt(one.file)}-staging", replace=True)
        assert target.bucket is not None, "see `takes`"
        try:
            await target.bucket.put(name.key, name.data, upload_id=name.upload_id, replace=True)
            async with opened(self.worker.planes.plane(one.file.plane), one.file.key) as source:
                if await verify.verify(source, target.connection, staging, _of(one).loaded, "sample"):
                    return False
        except Error:
            return False
        one.verified = "sample"
        return True

    # --- publish ------------------------------------------------------------------------------------------------

    async def _named(self, made: Sequence[_One]) -> list[Ended]:
        """Give all domains their names; those that have them now."""
        names = [self._name(one, one.file.domain, attempt(one.file), replace=False) for one in made]
        target = self.worker.target
        try:
            await bulk.put_many(self._bulk, names)  # which settles all of this before it
            await bulk.settle(self._bulk)
            there, _ = await target.there(made[-1].file.domain)
        except Error:
            return []  # some may have their names: each of them is looked at for itself
        if there is None or there.root != _of(made[-1]).loaded.root:
            return []
        return [await self._ended(one, "none" if self.worker.level == "none" else one.verified) for one in made]

    async def _ended(self, one: _One, verified: str) -> Ended:
        loaded = _of(one).loaded
        file, told = loaded_file(one.file, loaded, verified), list(report(loaded))
        if verified == "sample":
            return await self.worker.unstaged(file, told)
        return Ended(replace(file, ended=time(), owed=False), told)

    def _name(self, one: _One, path: str, upload_id: str, *, replace: bool) -> Whole:
        """The object that gives the root of a file a name."""
        loaded, frame = _of(one).loaded, one.frame
        data = describe.domain_json(loaded.root, frame.owner, loaded.created, frame.acls)
        return Whole(self.worker.target.key(path), data, upload_id, replace)


def _of(one: _One) -> Made:
    assert one.made is not None, "it was made"
    return one.made
