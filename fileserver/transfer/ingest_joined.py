"""All files of an ingest into one domain, joined along a dimension: looked at, loaded, read back and published at once.

The row of the first file stands for the domain: its load, its publication, what is owed. The other rows say what became
of those files; they end together. A file that does not fit ends the transfer before anything is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time
from typing import Final

import sqlalchemy as sa

from fileserver.catalogue.files import PAGE
from fileserver.configured import where
from fileserver.errors import FormatMismatch, from_record, to_record
from fileserver.hdf5 import joined
from fileserver.hdf5.dimension import Misfit
from fileserver.hdf5.files import Files, Place
from fileserver.hdf5.hsds import address
from fileserver.hdf5.joined import Looked, Whole
from fileserver.hdf5.joint import Use, uses
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.model import Trouble
from fileserver.transfer import ingest_rows
from fileserver.transfer.ingest_file import PASSES, Worker, loaded_row, publication_from_json, report, worst
from fileserver.transfer.ingest_rows import Ended, File, Told
from fileserver.transfer.live import Live
from planes.errors import Error, Throttled, Unavailable

_NAMED: Final = 3  # files that an error names
_COMPARED: Final[Mapping[str, str]] = {
    "none": "not compared",
    "metadata": "type and extents compared",
    "sample": "type, extents and some of its data compared",
    "full": "type, extents and all of its data compared",
}


@dataclass(frozen=True, slots=True)
class Joiner(Worker):
    """Brings all files of one transfer into one domain of one server."""

    async def bring(self, transfer: str, live: Live) -> None:
        """Load, verify and publish what has not ended.

        Raises:
            Error: whatever is wrong with a file, the domain or the server; what was written may still be there.
        """
        files = await self._files(transfer)
        head = files[0]
        if head.state in {"loaded", "partly"}:
            return
        if bad := next((each for each in files if each.error is not None), None):
            raise from_record(bad.error or {})
        if head.publication is None:
            head = await self._begun(head)
            ended = await self._arrive([head, *files[1:]])
        else:
            ended = await self._go_on(head, publication_from_json(head.publication))
        await self._end(ended)
        live.done += sum(each.size for each in files)
        live.parts_done += len(files)
        live.through_us += ended.file.through_us
        live.native += ended.file.native
        live.touch()

    async def settle(self, file: File) -> File:
        """As for one file; the other files end with the first."""
        settled = await Worker.settle(self, file)
        if settled.state in {"loaded", "partly"}:
            await self.store.write(lambda c: ingest_rows.end_joined(c, settled))
        return settled

    # --- pieces of the above ------------------------------------------------------------------------------------

    async def _files(self, transfer: str) -> list[File]:
        found, first = list[File](), 1
        while page := await self.store.read(
            lambda c, n=first: ingest_rows.page(c, transfer, n, pending=False)  # type: ignore[misc]
        ):
            found, first = found + page, page[-1].number + 1
        return found

    async def _begun(self, head: File) -> File:
        """The first row with all that it needs to be begun, or gone on with."""
        if head.state != "waiting":
            return head
        begun = replace(head, state="loading", tries=head.tries + 1, begun=time(), owed=True)
        await self.store.write(lambda c: ingest_rows.begin(c, [begun], begun.begun or 0.0))
        return begun

    async def _arrive(self, files: Sequence[File]) -> Ended:
        head = files[0]
        there, _ = await self.target.there(head.domain)
        self._may_be(there, head)
        frame = await self.target.folder(address.parent(head.domain))
        held = Files([Place(self.planes.plane(each.plane), each.key, each.version) for each in files])
        try:
            looked = await joined.look(held, self.target.ingest.aggregate)
            if looked.wrong:
                raise await self._unfit(files, looked)
            made = joined.whole(looked)
            try:
                loaded = await self._join(head, held, made)
                if frame is not None:
                    await self._stage(head, loaded, frame, needed=True)
                level = self.target.ingest.verify
                await joined.check(held, made, self.target.connection, self.target.staging(head), loaded, level)
            except Misfit as error:
                raise await self._unfit(files, Looked(None, (), {error.number or 0: error})) from error
        finally:
            await held.aclose()
        head = loaded_row(head, loaded, level)
        told = await self._tell(files, made, loaded)
        return await self._publish(head, told, there)

    async def _join(self, head: File, held: Files, made: Whole) -> Loaded:
        begun = head.begun or time()
        if self.target.bulk is not None:
            return await joined.fill(held, made, self.target.bulk, head.load, begun)
        connection, staging = self.target.connection, self.target.staging(head)
        for _ in range(PASSES):
            lost = connection.traffic.lost
            loaded = await joined.send(held, made, connection, staging, head.load, begun)
            await self.target.flush(staging)
            if connection.traffic.lost == lost:
                return loaded
        msg = f"HSDS '{self.target.name}' lost requests each of the {PASSES} times that the files were sent to it"
        raise Unavailable(msg, hsds=self.target.name)

    async def _unfit(self, files: Sequence[File], looked: Looked) -> Error:
        """Say of each file that does not fit why; the error that ends the transfer."""
        errors = {number: _misfit(files[number], why) for number, why in sorted(looked.wrong.items())}
        for error in errors.values():
            if isinstance(error, Throttled | Unavailable):
                return error

        def record(c: sa.Connection) -> None:
            for number, error in errors.items():
                file = files[number]
                ingest_rows.update(c, file.transfer, file.number, state="failed", error=to_record(error))

        await self.store.write(record)
        first, *more = errors.values()
        if not more:
            return first
        names = ", ".join(where(files[n].plane, files[n].key) for n in list(errors)[1 : _NAMED + 1])
        rest = f" and {len(more) - _NAMED} others" if len(more) > _NAMED else ""
        what = f"{first.message}; nor do {names}{rest}, as the report says. Nothing was joined"
        return FormatMismatch(what, key=files[next(iter(errors))].key)

    async def _tell(self, files: Sequence[File], made: Whole, loaded: Loaded) -> list[Told]:
        """Record what becomes of each file, many at a time; returns that of the first, which is recorded later."""
        by_file = defaultdict[int, list[Use]](list)
        for joint in made.joints:
            for number, use in enumerate(uses(joint)):
                by_file[number].append(use)
        others = [(file, fitted.troubles) for file, fitted in zip(files[1:], made.others, strict=True)]
        level = self.target.ingest.verify
        for at in range(0, len(others), PAGE // 10):
            some = others[at : at + PAGE // 10]
            told = [
                (file, _ends(troubles), [*_used(by_file[at + i + 1], level), *_troubles(troubles)])
                for i, (file, troubles) in enumerate(some)
            ]
            await self.store.write(lambda c, t=told: _record(c, t))  # type: ignore[misc]
        mine = {each.path: each for each in _used(by_file[0], level)}
        return [mine.get(each.path, each) for each in report(loaded)]

    async def _end(self, ended: Ended) -> None:
        """Record that all files have ended."""

        def record(c: sa.Connection) -> None:
            ingest_rows.enter_ended(c, ended.file.transfer, [ended])
            ingest_rows.end_joined(c, ended.file)

        await self.store.write(record)


def _record(c: sa.Connection, told: Sequence[tuple[File, str, list[Told]]]) -> None:
    for file, ends, objects in told:
        ingest_rows.update(c, file.transfer, file.number, publication={"ends": ends})
        ingest_rows.report(c, file.transfer, file.number, objects)


def _misfit(file: File, why: Misfit | Error) -> Error:
    if isinstance(why, Error):
        return why
    name = where(file.plane, file.key)
    return FormatMismatch(f"{name} cannot be joined: {why}", key=name)


def _used(found: Sequence[Use], level: str) -> Iterator[Told]:
    for use in found:
        yield Told(use.path, "dataset", str(use.route), use.stored, "loaded", f"{use.told()}; {_COMPARED[level]}")


def _troubles(troubles: Sequence[Trouble]) -> Iterator[Told]:
    for each in troubles:
        yield Told(each.path, "", "", 0, each.what, each.reason)


def _ends(troubles: Sequence[Trouble]) -> str:
    return "loaded" if worst(list(troubles)) in {"loaded", "mapped"} else "partly"
