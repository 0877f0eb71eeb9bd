"""The stages of an ingest: plan, open, fill, commit, publish, stop, as those of other transfers.

Its work is in tables of its own (`ingest_rows`). Each file is loaded, verified and published for itself: a bad one is
an outcome of that file alone. What a load that came to nothing has left in the server is removed; where that cannot be
done at once it is owed, and tried again.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fileserver.auth import run_for
from fileserver.catalogue.files import PAGE, now
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import Cancelled, InvalidSpec, TargetBusy, from_record
from fileserver.hdf5.hsds.targets import Targets
from fileserver.hdf5.needs import need_all
from fileserver.together import side_by_side
from fileserver.transfer import ingest_rows, ledger, manifest_rows, sync_rows
from fileserver.transfer.course import Course
from fileserver.transfer.ingest_ends import Survived, Taken, orderly
from fileserver.transfer.ingest_feed import Begun, Feed
from fileserver.transfer.ingest_outcome import outcome
from fileserver.transfer.ingest_plan import Expansion, goes_direct
from fileserver.transfer.ingest_rows import Ended, File, Found, Told
from fileserver.transfer.live import Live, Paused
from fileserver.transfer.record import Plan, Record, plain
from fileserver.transfer.spec import Ingest, Spec, spec_from_json
from fileserver.transfer.sync_record import Recorded
from planes.errors import Error, Throttled, Unavailable, Unsupported

if TYPE_CHECKING:
    from fileserver.transfer.ingest_batch import Batches
    from fileserver.transfer.ingest_file import Worker
    from fileserver.transfer.ingest_joined import Joiner

WIDTH: Final = 32
"""Files of a segment in flight: most of them wait for the server to store what it has; `ingest_target.LOADS` load."""
_ASKED: Final = 64  # the same, where the server is asked for everything: each waits some seconds for its flush
SHOWN: Final = 100
"""Files that an outcome names."""
_LOST: Final = 3  # files one after the other that no server answered for: then the rest is not tried

# The HDF5 library and the HTTP client are loaded, and need be installed, for who ingests.
# ruff: noqa: PLC0415


@dataclass(slots=True)
class _Run:
    """What the segments of one transfer share in this process."""

    worker: Worker
    batches: Batches
    joiner: Joiner | None = None
    """The same, where all files become one domain."""
    lost: int = 0
    tried: set[str] = field(default_factory=set)


class IngestStages(Course):
    """What has to be done for an ingest, on this file server."""

    def __init__(self, planes: Configured, store: Store, targets: Targets) -> None:
        super().__init__(store)
        self._planes = planes
        self._targets = targets
        self._runs: dict[str, _Run] = {}
        self._survived = Survived()

    def check(self, spec: Spec) -> str:
        """What a call can be told at once; returns the target to reserve: a domain, or a name of its own.

        Raises:
            InvalidSpec, PlaneNotFound: as they say.
            Refused: the HDF5 library is not installed.
            Unsupported: not there yet.
        """
        ingest = _ingest(spec)
        name = self._targets.name(ingest.target)
        self._planes.refuse_hosts((s.plane for s in ingest.sources), "HDF5 files are read where a file server is")
        for location in ingest.sources:
            self._planes.plane(location.plane)
        if goes_direct(ingest, self._targets):
            self._planes.settings(self._targets.settings(name).storage)
        if ingest.aggregate and ingest.mode == "link":
            msg = "files are not joined by links: use --mode direct or rest"
            raise Unsupported(msg)
        need_all()
        # Two may fill one folder at once: each of their domains is made once, by whoever comes first.
        return f"domain:{name}:{ingest.domain}" + (uuid.uuid4().hex if ingest.domain.endswith("/") else "")

    def preview(self, spec: Spec) -> AsyncIterator[Found]:
        """The files that an ingest would load."""
        self.check(spec)
        return Expansion(_ingest(spec), self._planes).files()

    def preview_joined(self, spec: Spec) -> AsyncIterator[tuple[File, list[Told], Error | None]]:
        """The same of files that become one domain: what would be told of each, or why nothing would be joined."""
        from fileserver.transfer.ingest_foreseen import foreseen

        self.check(spec)
        return foreseen(spec, self._planes, self._store, self._targets)

    def writes_bucket(self, spec: Spec) -> bool:
        """Whether an ingest goes past the server; raises InvalidSpec."""
        return goes_direct(_ingest(spec), self._targets)

    async def report(self, transfer: str) -> AsyncIterator[tuple[File | None, list[Told]]]:
        """Every file as it stands with the first page of its report, each further page with None.

        Raises:
            TransferNotFound: there is no such transfer.
            InvalidSpec: it is no ingest.
        """
        if (await self.record(transfer)).spec["kind"] != "ingest":
            msg = f"transfer {transfer} is no ingest, and has no report"
            raise InvalidSpec(msg, {"name": msg})
        after = 1
        while files := await self._store.read(partial(ingest_rows.page, transfer=transfer, first=after, pending=False)):
            for file in files:
                number, told = 0, await self._told(file, 0)
                yield file, told
                while told := await self._told(file, number := number + 1):
                    yield None, told
            after = files[-1].number + 1

    async def _told(self, file: File, page: int) -> list[Told]:
        return await self._store.read(lambda c: ingest_rows.told(c, file.transfer, file.number, page))

    # --- stages -------------------------------------------------------------------------------------------------

    async def plan(self, transfer: str, live: Live) -> int:
        """Find the files; returns the number of segments.

        Raises:
            NotFound: there are none.
            InvalidSpec: several would become one domain.
        """
        record = await self.record(transfer)
        if record.plan is None:
            await self._state(transfer, "PLANNING", live)
            await self._find(record, live)
        return await self._store.read(lambda c: sync_rows.segment_count(c, transfer))

    async def _find(self, record: Record, live: Live) -> None:
        ingest, transfer = _ingest(spec_from_json(record.spec)), record.id
        await self._store.write(lambda c: manifest_rows.clear_manifest(c, transfer))
        await self._store.write(lambda c: ingest_rows.clear(c, transfer))
        expansion, page, number = Expansion(ingest, self._planes), list[Found](), 1
        async for each in expansion.files():
            page.append(each)
            if len(page) == PAGE:
                await self._store.write(partial(ingest_rows.enter, transfer=transfer, first=number, found=page))
                page, number = [], number + len(page)
        await self._store.write(partial(ingest_rows.enter, transfer=transfer, first=number, found=page))
        together = bool(ingest.aggregate)
        count, size = await self._store.write(lambda c: ingest_rows.arrange(c, transfer, together=together))
        live.total, live.parts_total = size, count
        left = "1 file was" if expansion.skipped == 1 else f"{expansion.skipped} files were"
        notes = [f"{left} left out that are no HDF5 by their names"] * bool(expansion.skipped)
        made = Plan(
            plane="",
            file="",
            format=None,
            split="none",
            size=size,
            parts=count,
            limits=self._planes.plane(ingest.sources[0].plane).limits,
            native={},
            overwrite=True,
        )
        values = {"plan": made.to_json(), "warnings": notes, "progress": plain(live.progress)}
        await self._store.write(lambda c: ledger.update(c, transfer, now(), **values))
        live.announce()

    async def open(self, transfer: str, live: Live) -> None:
        """Nothing to begin: each file begins by itself."""
        await self._state(transfer, "RUNNING", live)

    async def fill(self, transfer: str, segment: int, live: Live) -> None:
        """Bring what has not ended of a segment to its domains."""
        part, done = await self._store.read(lambda c: manifest_rows.segment(c, transfer, segment))
        if done:
            return
        await self._store.write(lambda c: manifest_rows.segment_begun(c, transfer, segment, self._store.me, now()))
        run_for((await self.record(transfer)).caller)
        run = await self._run(transfer)
        if run.joiner is not None:
            await run.joiner.bring(transfer, live)  # which leaves no file for what follows

        width = _ASKED if run.worker.target.bulk is None else WIDTH

        async def page(first: int) -> list[Begun]:
            found = await self._store.read(lambda c: ingest_rows.page(c, transfer, first, part.last_part, limit=width))
            return await self._begin(found, run)

        feed = Feed(page, part.first_part, Taken(transfer, part.first_part, 0))
        enter, abreast = ingest_rows.enter_ended, run.batches.abreast or width
        async with orderly(self._store, feed.taken), Recorded(self._store, transfer, live, enter) as work:
            await side_by_side(range(abreast), lambda _: self._bring(run, work, feed), abreast)
        await self._store.write(lambda c: manifest_rows.segment_done(c, transfer, segment, now()))

    async def _begin(self, files: list[File], run: _Run) -> list[Begun]:
        """Files with all that they need to be begun, or gone on with."""
        if not files:
            return []
        moment = now()
        fresh = [each for each in files if each.state == "waiting" or await self._is_another(each, run)]
        begun = [replace(each, state="loading", tries=each.tries + 1, begun=moment, owed=True) for each in fresh]
        others = [each for each in files if each.state == "loading" and each not in fresh]
        again = [replace(each, resumed=each.resumed + 1) for each in others]

        def record(c: sa.Connection) -> None:
            ingest_rows.begin(c, begun, moment)
            ingest_rows.resume(c, again)

        await self._store.write(record)
        changed = {each.number: each for each in [*begun, *again]}
        new = {each.number for each in begun}
        return [Begun(changed.get(each.number, each), each.number in new) for each in files]

    async def _is_another(self, file: File, run: _Run) -> bool:
        """Whether an attempt of another run was for another version of the file; what it left is removed."""
        if file.state != "loading":
            return False
        try:
            info = await self._planes.plane(file.plane).stat(file.key)
        except Error:
            return False  # said when it is opened
        if info.version == file.version:
            return False
        try:
            await run.worker.target.clean(file)
        except TargetBusy:
            return False
        return True

    async def _bring(self, run: _Run, work: Recorded[Ended], feed: Feed) -> None:
        """Small files many at a time where that pays; all others, and what is left of those, each for itself."""
        batches = run.batches
        while files := await (feed.next(batches.fits) if batches.abreast else feed.next()):
            work.check()
            many = [each for each in files if batches.takes(each)]
            ended, left = await batches.bring(many) if many else ([], [])
            for each in ended:
                self._over(work, each)
            alone = [*(each for each in files if not batches.takes(each)), *left]
            await side_by_side(alone, partial(self._one, run, work), WIDTH)

    async def _one(self, run: _Run, work: Recorded[Ended], begun: Begun) -> None:
        work.check()
        file = begun.file
        try:
            ended = await run.worker.bring_alone(file, fresh=begun.fresh)
        except Error as error:
            ended = await run.worker.give_up(file, error)
            run.lost = run.lost + 1 if isinstance(error, Throttled | Unavailable) else 0
            if run.lost >= _LOST:
                work.ended.append(ended)
                raise
        else:
            run.lost = 0
        self._over(work, ended)

    @staticmethod
    def _over(work: Recorded[Ended], ended: Ended) -> None:
        file = ended.file
        work.live.done += file.size
        work.live.through_us += file.through_us
        work.live.native += file.native
        work.live.parts_done += 1
        work.ended.append(ended)
        work.live.touch()

    async def reroute(self, transfer: str, live: Live, closed: dict[str, str], route: str = "") -> None:
        """Never asked for: a chunk that a provider does not copy is carried at once."""

    async def commit(self, transfer: str, live: Live) -> None:
        """Nothing to do: each file was published by itself."""
        await self._state(transfer, "PUBLISHING", live)

    async def publish(self, transfer: str, live: Live) -> None:
        """Say what was done; nothing to do if that has happened.

        Raises:
            Error: there was one file alone, and this is what was wrong with it.
        """
        record = await self.record(transfer)
        if record.ended is not None:
            return
        assert record.plan is not None
        tally, moment = await self._store.read(lambda c: ingest_rows.tally(c, transfer)), now()
        wrong = await self._store.read(lambda c: ingest_rows.failures(c, transfer, SHOWN))
        if tally.loaded + tally.partly + tally.failed == 1 and tally.failed:
            raise from_record(wrong[0].error or {})
        levels = await self._store.read(lambda c: ingest_rows.levels(c, transfer))
        past = goes_direct(_ingest(spec_from_json(record.spec)), self._targets)
        said = outcome(record, tally, wrong, levels, past=past)
        state = "PARTLY_SUCCEEDED" if tally.failed or tally.partly else "SUCCEEDED"
        done = record.progress.forward(live.progress)
        progress = plain(replace(done, parts_done=min(done.parts_done, record.plan.parts)))

        def work(c: sa.Connection) -> None:
            wish = ledger.get(c, transfer).wish
            if wish:
                raise Cancelled(f"the transfer {transfer} was cancelled") if wish == "cancel" else Paused
            ledger.end(c, transfer, moment, state, outcome=said, progress=progress)

        await self._store.write(work, durable=True)
        await self._let_go(transfer)

    async def stop(self, transfer: str, kind: str, live: Live) -> None:
        """Stand still ("pause"), or remove what is half loaded and end ("cancel", "fail"); what is published stays."""
        await super().stop(transfer, kind, live)
        await self._let_go(transfer)

    async def give_up(self, transfer: str, kind: str, note: str) -> None:
        """End an ingest whose clean-up failed; what it left is tried again later."""
        await super().give_up(transfer, kind, note)
        await self._let_go(transfer)

    async def clean_again(self) -> None:
        """Try again to remove what ended ingests have left, and forget files of transfers that are forgotten."""
        by_server = defaultdict[str, list[Record]](list)
        for transfer in await self._store.read(ingest_rows.unclean):
            record = await self.record(transfer)
            by_server[_ingest(spec_from_json(record.spec)).target].append(record)
        # Of servers that are away, each is waited for; so they are not asked one behind the other.
        await side_by_side(by_server.values(), self._clean, max(1, len(by_server)))
        await self._store.write(ingest_rows.forgotten)

    async def _clean(self, records: Sequence[Record]) -> None:
        """Try again to remove what ingests into one server have left; not that of the others where it is away."""
        for record in records:
            try:
                if await self._remove(record, []):
                    return
            finally:
                await self._let_go(record.id)

    # --- pieces of the above ------------------------------------------------------------------------------------

    async def _run(self, transfer: str) -> _Run:
        if transfer not in self._runs:
            from fileserver.transfer.ingest_batch import Batches
            from fileserver.transfer.ingest_file import Worker
            from fileserver.transfer.ingest_joined import Joiner
            from fileserver.transfer.ingest_target import Target

            spec = spec_from_json((await self.record(transfer)).spec)
            if transfer in self._runs:  # another segment, which began with this one
                return self._runs[transfer]
            target = Target(_ingest(spec), transfer, self._targets, self._planes)
            if _ingest(spec).aggregate:
                joiner = Joiner(target, self._planes, self._store, spec.overwrite, self._survived)
                self._runs[transfer] = _Run(joiner, Batches(joiner), joiner)
            else:
                worker = Worker(target, self._planes, self._store, spec.overwrite)
                self._runs[transfer] = _Run(worker, Batches(worker))
        return self._runs[transfer]

    async def _let_go(self, transfer: str) -> None:
        run = self._runs.pop(transfer, None)
        if run is not None:
            await run.worker.target.aclose()

    async def _removed(self, record: Record) -> list[str]:
        """Remove what is half loaded, and finish what is half published; a sentence for what cannot be."""
        left = list[str]()
        await self._remove(record, left)
        return left

    async def _remove(self, record: Record, left: list[str]) -> bool:
        """The same; what cannot be is added to `left`. Returns whether the server is away."""
        transfer, after = record.id, 0
        while files := await self._store.read(partial(ingest_rows.owing, transfer=transfer, after=after)):
            for file in files:
                try:
                    ended = await (await self._run(transfer)).worker.settle(file)
                except Error as error:
                    left.append(error.message)
                    if isinstance(error, Throttled | Unavailable):
                        return True  # it would be asked in vain for every file
                else:
                    await self._store.write(partial(ingest_rows.settle, file=ended))
            after = files[-1].number
        return False


def _ingest(spec: Spec) -> Ingest:
    assert isinstance(spec.verb, Ingest)
    return spec.verb
