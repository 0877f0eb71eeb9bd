"""Data of datasets against those of a domain, block by block, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from random import Random
from typing import Final

from fileserver.hdf5 import at_hand, differing, stretches
from fileserver.hdf5.differing import Difference, Unequal
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.model import Dataset, Facts
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.source import Source
from fileserver.hdf5.stretches import Block, Contents
from fileserver.hdf5.typing_rules import NotHeld
from fileserver.together import side_by_side

UNREADABLE: Final = "unreadable"
"""What is said of something that the library cannot read in the file."""
_WIDTH: Final = 4  # blocks that are held at a time
_SAMPLES: Final = 4  # blocks of a dataset, where some are read


class Depth(StrEnum):
    """How much of the data is compared."""

    NONE = "none"
    SAMPLE = "sample"
    """The first and the last block of each dataset, and two at random."""
    FULL = "full"


@dataclass(slots=True)
class Tally:
    """What has been compared so far; may be looked at meanwhile."""

    objects: int = 0
    attributes: int = 0
    datasets: int = 0
    """Whose data were read."""
    bytes: int = 0
    """Of data, as the server gives them."""


@dataclass(frozen=True, slots=True)
class DataComparison:
    """Compares datasets whose types and extents are the same."""

    source: Source
    objects: Objects
    ids: Mapping[int, str]
    """Of the domain's objects, by address in the file."""
    depth: Depth
    random: Random
    tally: Tally

    async def differences(self, datasets: Sequence[Dataset]) -> list[Difference]:
        """Those of virtual datasets one after the other: each is put together in memory."""
        found: list[Difference] = []
        together = [Contents(self.source, here.node, here.facts) for here in datasets if not here.facts.sources]
        found.extend(await self._elements(together))
        for here in datasets:
            if here.facts.sources:
                try:
                    async with stretches.contents(self.source, here.node, here.facts) as held:
                        found.extend(await self._elements([held]))
                except NotHeld as error:
                    found.append(Difference(here.node.path, UNREADABLE, str(error), "there"))
        return found

    async def _elements(self, datasets: Sequence[Contents]) -> list[Difference]:
        wrong: dict[int, list[Unequal | str]] = {}

        async def one(job: tuple[Contents, Block, bytes | None]) -> None:
            here, block, ours = job
            unequal: Unequal | str | None
            try:
                unequal = await self._block(here, block, ours)
            except (NotHeld, *BROKEN) as error:
                unequal = str(error)
            if unequal is not None:
                wrong.setdefault(here.node.address, []).append(unequal)

        held = await self._at_hand(datasets)

        def jobs() -> Iterator[tuple[Contents, Block, bytes | None]]:
            for here in datasets:
                if (few := held.pop(here.node.address, None)) is not None:
                    yield from ((here, block, ours) for block, ours in few)
                else:
                    yield from ((here, block, None) for block in self._blocks(here.facts))

        await side_by_side(jobs(), one, _WIDTH)
        self.tally.datasets += len(datasets)
        return [_said(here, wrong[here.node.address]) for here in datasets if here.node.address in wrong]

    async def _at_hand(self, datasets: Sequence[Contents]) -> at_hand.Held:
        """Blocks of small datasets, which are read together."""
        small = [here for here in datasets if here.made is None and at_hand.fits(here.facts)]
        if len(small) < 2:
            return {}
        wanted = [(here.node, here.facts, partial(self._blocks, here.facts)) for here in small]
        return await self.source.run(partial(at_hand.decoded, wanted=wanted, ids=self.ids))

    def _blocks(self, facts: Facts) -> Iterator[Block]:
        dims = facts.dims or ()
        if self.depth is Depth.FULL:
            return stretches.blocks(dims, stretches.step_of(facts, stretches.WHOLE))
        return stretches.some(dims, stretches.step_of(facts, stretches.SAMPLE), _SAMPLES, self.random)

    async def _block(self, here: Contents, block: Block, ours: bytes | None) -> Unequal | None:
        # First the file: at a chunk that is damaged there, and was placed undecoded, the server fails for minutes.
        if ours is None:
            ours = await here.stored(block, self.ids)
        theirs = await self.objects.read(self.ids[here.node.address], block.slabs)
        self.tally.bytes += len(theirs)
        return differing.elements(here.facts.typed.stored, block.start, block.count, ours, theirs)


def _said(here: Contents, wrong: Sequence[Unequal | str]) -> Difference:
    """One difference a dataset: how many elements, and the first of them."""
    reason = next((each for each in wrong if isinstance(each, str)), None)
    if reason is not None:
        return Difference(here.node.path, UNREADABLE, reason, "there")
    unequal = sorted((each for each in wrong if isinstance(each, Unequal)), key=lambda each: each.place)
    at = f"[{', '.join(map(str, unequal[0].place))}] " if unequal[0].place else ""
    count = sum(each.count for each in unequal)
    more = f", one of {count} that differ" if count > 1 else ""
    return Difference(here.node.path, "data", f"{at}{unequal[0].left}{more}", f"{at}{unequal[0].right}")
