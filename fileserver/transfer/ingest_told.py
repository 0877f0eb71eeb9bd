"""What is told of files and their objects: where each went, how, what was compared, and what of it stays behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from fileserver.catalogue.store import Store
from fileserver.hdf5.joint import Joint, Use, uses
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.model import Trouble
from fileserver.hdf5.routes import Route
from fileserver.transfer import ingest_rows
from fileserver.transfer.ingest_rows import File, Told

_BATCH: Final = 100  # files that are recorded at a time
_COMPARED: Final[Mapping[str, str]] = {
    "none": "not compared",
    "metadata": "type and extents compared",
    "sample": "type, extents and some of its data compared",
    "full": "type, extents and all of its data compared",
}


class Saying:
    """The reports of files that are joined.

    Args:
        joints: the datasets.
        troubles: what of each file stays behind.
        level: none, metadata, sample or full; empty before anything is done.
        first: the first file, if all objects of the domain are its.
        bucket: whether it goes past the server.
    """

    def __init__(
        self,
        joints: Sequence[Joint],
        troubles: Sequence[Sequence[Trouble]],
        level: str,
        first: Loaded | None = None,
        *,
        bucket: bool,
    ) -> None:
        self._bucket = bucket
        self._troubles = troubles
        self._compared = f"; {_COMPARED[level]}" if level else ""
        self._first = first
        self._uses: defaultdict[int, list[Use]] = defaultdict(list)
        for joint in joints:
            for number, use in enumerate(uses(joint)):
                self._uses[number].append(use)

    def of(self, number: int) -> list[Told]:
        """The report of one file."""
        used = [self._used(use) for use in self._uses[number]]
        if self._first is not None and not number:
            mine = {each.path: each for each in used}
            return [mine.get(each.path, each) for each in report(self._first)]
        return used + [Told(each.path, "", "", 0, each.what, each.reason) for each in self._troubles[number]]

    def _used(self, use: Use) -> Told:
        route, said = use.route, use.told()
        if not self._bucket and route is not Route.NONE:
            route, said = Route.REST, f"{use.where} sent to the server"
        return Told(use.path, "dataset", str(route), use.stored, "loaded", f"{said}{self._compared}")

    async def record(self, store: Store, files: Sequence[File], head: File) -> None:
        """Record the reports of all but the first row, and how those files will end."""
        others = [(number, file) for number, file in enumerate(files) if file.number != head.number]
        for at in range(0, len(others), _BATCH):
            some = [(file, self.of(number), ends(self._troubles[number])) for number, file in others[at : at + _BATCH]]

            def write(c: sa.Connection, some: Sequence[tuple[File, list[Told], str]] = some) -> None:
                for file, told, end in some:
                    ingest_rows.update(c, file.transfer, file.number, publication={"ends": end})
                    ingest_rows.report(c, file.transfer, file.number, told)

            await store.write(write)


def ends(troubles: Sequence[Trouble]) -> str:
    """How a file ends of which this stays behind."""
    return "loaded" if worst(list(troubles)) in {"loaded", "mapped"} else "partly"


def report(loaded: Loaded) -> Iterator[Told]:
    """What became of each object of a file, then of each attribute and link that did not arrive as it was."""
    troubles = defaultdict[str, list[Trouble]](list)
    for each in loaded.troubles:
        troubles[each.path].append(each)
    plans = {planned.node.address: planned for planned in loaded.survey.datasets}
    for node in loaded.survey.outline.nodes.values():
        planned, wrong = plans.get(node.address), troubles.pop(node.path, [])
        route = str(planned.plan.route) if planned else ""
        reason = "; ".join(each.reason for each in wrong) or (planned.plan.reason if planned else "")
        size = planned.facts.stored if planned else 0
        yield Told(node.path, _KINDS[node.kind], route, size, worst(wrong), reason)
    for path, wrong in troubles.items():
        yield Told(path, "", "", 0, worst(wrong), "; ".join(each.reason for each in wrong))


def worst(wrong: list[Trouble]) -> str:
    """What the worst of troubles makes of an object: failed, refused, mapped, or loaded if there are none."""
    found = {each.what for each in wrong}
    return next((what for what in ("failed", "refused", "mapped") if what in found), "loaded")


_KINDS: Final = {"g": "group", "d": "dataset", "t": "datatype"}
