"""Small objects of a sync, many in one trip. Reads no row, decides no order, and raises no error of a single object.

With small objects the trip to a thread, and the look for a route, cost more than the bytes. So where one end is a
directory, some of them are read or written there together, and side by side at the other end; which way they go is
asked once. An object with which anything is not as it should be is left to `sync_move`, which knows what to do about
it and what to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Final, TypeAlias

from typing_extensions import Buffer

from fileserver.configured import Configured
from fileserver.together import side_by_side
from fileserver.transfer.buffers import Buffers
from fileserver.transfer.sync_journal import Moved
from fileserver.transfer.sync_move import Mover
from fileserver.transfer.sync_rows import Item
from planes import bulk, checksum
from planes.errors import Error, Full, Missing, Throttled, Unavailable
from planes.many import Whole
from planes.plane import KIB, StepReceipt
from planes.plane import Extent as PlaneExtent

LARGEST: Final = 64 * KIB
"""Bytes of an object that goes with others."""
MOST: Final = 16
"""Objects that go together."""

_Content: TypeAlias = tuple[Item, Buffer]
_Done: TypeAlias = Callable[[Item, StepReceipt], None]

OUTAGES: Final = (Throttled, Unavailable, Missing, Full)
"""Errors that say nothing about one object."""


class Together:
    """Moves small objects of one sync.

    Args:
        mover: of the same sync; its counters are used.
        planes: both ends.
        buffers: the memory for what is read.
        off: none go together.
    """

    def __init__(self, mover: Mover, planes: Configured, buffers: Buffers, *, off: bool = False) -> None:
        self._mover = mover
        source, target = mover.names
        self._source, self._target = planes.plane(source), planes.plane(target)
        self._buffers = buffers
        self._reads, self._takes = bulk.reads_many(self._source), bulk.takes_many(self._target)
        self._way = ("", "")
        self.off = off
        """What goes together proves nothing here, and has to go once more alone: none goes so any more."""

    def groups(self, items: Sequence[Item]) -> tuple[list[Sequence[Item]], list[Item]]:
        """Items that go together, and those that go alone."""
        small = [item for item in items if self._is_small(item)] if self._reads != self._takes and not self.off else []
        if len(small) < 2 or (way := self._mover.streams(small[0])) is None:
            return [], list(items)
        self._way = way
        numbers = {item.number for item in small}
        groups = [small[at : at + MOST] for at in range(0, len(small), MOST)]
        return list(groups), [item for item in items if item.number not in numbers]

    async def move(self, items: Sequence[Item], ended: Callable[[Item, Moved], None]) -> list[Item]:
        """Copy a group, tell of each object with which all went well, and give back the others.

        Raises:
            Error: an end of the sync is away or full.
        """
        if self.off:
            return list(items)
        left = {item.number: item for item in items}

        def done(item: Item, receipt: StepReceipt) -> None:
            self._mover.counted(item, receipt)
            ended(left.pop(item.number), Moved("copied", True, *self._way))

        async with self._buffers.take(sum(item.size for item in items)) as memory:
            contents = await self._read(items, memory)
            await (self._write_together if self._takes else self._write_each)(contents, done)
        return list(left.values())

    def _is_small(self, item: Item) -> bool:
        """Whether an object may go with others: nothing to look at before, and proved by what the copy itself says."""
        if item.token or item.why in {"newer", "checksum"} or not 0 < item.size <= LARGEST:
            return False
        return self._reads or checksum.may_be_digest(item.version)

    async def _read(self, items: Sequence[Item], memory: memoryview) -> list[_Content]:
        """The contents of objects, of those that could be read."""
        contents = list[_Content]()
        if self._reads:
            with _passed_over():
                found = await bulk.read_many(self._source, [self._extent(item) for item in items])
                contents.extend(zip(items, found, strict=True))
            return contents
        ends = accumulate(item.size for item in items)
        places = [(item, memory[end - item.size : end]) for item, end in zip(items, ends, strict=True)]

        async def read(place: tuple[Item, memoryview]) -> None:
            item, into = place
            with _passed_over():
                await self._source.read(self._extent(item), into)
                contents.append(place)

        await side_by_side(places, read, MOST)
        return contents

    async def _write_together(self, contents: Sequence[_Content], done: _Done) -> None:
        """Write what is what the source has: of that which has another MD5 than its version, nothing is seen."""
        known = [(item, data) for item, data in contents if checksum.is_digest(item.version, data)]
        self.off |= len(contents) > len(known)
        if not known:
            return
        with _passed_over():
            receipts = await bulk.put_many(self._target, [self._whole(*each) for each in known])
            for (item, _), receipt in zip(known, receipts, strict=True):
                done(item, receipt)

    async def _write_each(self, contents: Sequence[_Content], done: _Done) -> None:
        """Write objects side by side; those that are there by the time are looked at once more in one trip."""
        written, looking = list[tuple[Item, StepReceipt]](), False

        async def put(content: _Content) -> None:
            nonlocal written, looking
            one = self._whole(*content)
            with _passed_over():
                receipt = await self._target.put(one.key, one.data, upload_id=one.upload_id, replace=one.replace)
                if receipt.compared:
                    written.append((content[0], receipt))
                self.off |= not receipt.compared
            if looking:
                return
            looking = True
            while written:
                some, written = written, []
                await self._look(some, done)
            looking = False

        await side_by_side(contents, put, MOST)

    async def _look(self, written: Sequence[tuple[Item, StepReceipt]], done: _Done) -> None:
        """See that files are what they were, as `Held.unchanged` does, by reading none of their bytes."""
        with _passed_over():
            await bulk.read_many(self._source, [replace(self._extent(item), end=0) for item, _ in written])
            for each in written:
                done(*each)

    def _extent(self, item: Item) -> PlaneExtent:
        return PlaneExtent(self._mover.source_key(item), item.version, 0, item.size)

    def _whole(self, item: Item, data: Buffer) -> Whole:
        return Whole(self._mover.target_key(item), data, self._mover.attempt(item))


@contextmanager
def _passed_over() -> Iterator[None]:
    """Around what concerns some objects: what is wrong with them is found out again, and said, by each alone."""
    try:
        yield
    except OUTAGES:
        raise
    except Error:
        pass
