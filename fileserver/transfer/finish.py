"""From stored steps to a visible result, or to nothing at all: commit, publish, clean up."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue import files
from fileserver.catalogue.files import Copy, FilePart, LogicalFile, now
from fileserver.catalogue.names import MANIFEST
from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.errors import Cancelled
from fileserver.together import side_by_side, to_its_end
from fileserver.transfer import ledger, manifest_rows
from fileserver.transfer.evidence import Known, PartProof, Proof, prove
from fileserver.transfer.execute import upload_id
from fileserver.transfer.live import Live, Paused
from fileserver.transfer.manifest_file import write_manifest
from fileserver.transfer.paging import Rows
from fileserver.transfer.record import Done, PartRow, Plan, Record, StoredStep, plain
from fileserver.transfer.sweep import drop_below
from planes.errors import Error, Missing, NotFound, PathEscapes
from planes.plane import Plane

AT_ONCE: Final = 16
_LEFT: Final = 3  # objects that could not be removed, after which clean-up gives up
_COMMITS: Final = 200  # parts whose commits are recorded together


class Finisher:
    """The end of a transfer on this file server."""

    def __init__(self, planes: Configured, store: Store) -> None:
        self._planes = planes
        self._store = store
        self._rows = Rows(store)

    # --- commit -------------------------------------------------------------------------------------------------

    async def commit(self, transfer: str, plan: Plan, live: Live) -> None:
        """Commit every part that is not committed yet, after comparing it with what the sources' values say.

        A commit that has begun ends and is recorded, even if the transfer is being stopped.

        Raises:
            Corrupt: what is stored is not what the sources hold; nothing of that part became visible.
        """
        async for page in self._rows.parts(transfer, _COMMITS):
            if all(row.done for row in page):
                continue
            known = await self._rows.behind(transfer, [row.part for row in page])
            first, last = page[0].part.number, page[-1].part.number
            stored = await self._store.read(
                partial(manifest_rows.steps, transfer=transfer, first_part=first, last_part=last)
            )
            todo = [(row, stored.get(row.part.number, [])) for row in page if not row.done]
            proved = await asyncio.to_thread(_proved, plan, todo, known)
            await self._commit_page(transfer, plan, live, proved)

    async def _commit_page(
        self, transfer: str, plan: Plan, live: Live, page: list[tuple[PartRow, list[StoredStep], PartProof]]
    ) -> None:
        done: list[Done] = []

        async def one(proved: tuple[PartRow, list[StoredStep], PartProof]) -> None:
            await to_its_end(self._commit_part(plan, *proved), done.append)
            live.parts_done += 1
            live.touch()

        try:
            await side_by_side(page, one, AT_ONCE)
        finally:
            await to_its_end(self._store.write(lambda c: self._record(c, transfer, done, live)))

    @staticmethod
    def _record(c: sa.Connection, transfer: str, done: list[Done], live: Live) -> None:
        manifest_rows.parts_done(c, transfer, done)
        ledger.update(c, transfer, now(), progress=plain(live.progress))

    async def _commit_part(self, plan: Plan, row: PartRow, stored: list[StoredStep], proof: PartProof) -> Done:
        upload = self._planes.plane(plan.plane).resume(row.token or "")
        info = await upload.commit([s.receipt for s in stored], row.part.size, proof.crc64nvme)
        return Done(row.part.number, proof.crc64nvme, proof.other, proof.compared, info.version)

    # --- publish ------------------------------------------------------------------------------------------------

    async def publish(
        self, record: Record, proof: Proof, outcome: dict[str, Any], moment: float, retire_at: float
    ) -> None:
        """Make the logical file visible, whole, and end the transfer, in one transaction; may run twice."""
        plan = record.plan
        assert plan is not None
        copy = Copy(record.id, plan.copy_of or record.id, proof.evidence, moment)
        file = await self._file(record, proof, moment)
        if plan.file:
            await self._enter(record.id, plan)
            home, *_ = plan.homes(record.id)
            plane = self._planes.plane(plan.plane)
            await write_manifest(self._store, plane, file, home, copy, hosted=bool(plan.hosts))

        def work(c: sa.Connection) -> None:
            wish = ledger.get(c, record.id).wish
            if wish:  # asked while the last byte was proved: nothing is visible yet
                raise Cancelled(f"the transfer {record.id} was cancelled") if wish == "cancel" else Paused
            if plan.copy_of:
                files.publish_copy(c, copy, retire_at, plan.instead_of)
                _note_renamed(c, file)
            elif plan.file:
                files.publish(c, file, overwrite=plan.overwrite, retire_at=retire_at)
            ledger.end(c, record.id, moment, "SUCCEEDED", outcome=outcome)

        await self._store.write(work, durable=True)

    async def _file(self, record: Record, proof: Proof, moment: float) -> LogicalFile:
        """The file that a transfer makes, or the one of which it makes another copy."""
        plan = record.plan
        assert plan is not None
        if plan.copy_of:
            file = await self._store.read(lambda c: files.by_generation(c, plan.copy_of))
            if file is None:
                raise files.gone(plan.file)
            return file
        facts = (plan.size, plan.format, proof.evidence, proof.crc64nvme, plan.parts)
        return LogicalFile(plan.file, record.id, *facts, record.id, moment)

    async def _enter(self, transfer: str, plan: Plan) -> None:
        async for page in self._rows.parts(transfer):
            rows = [_file_part(plan, row) for row in page]
            await self._store.write(partial(files.enter_parts, generation=transfer, rows=rows))

    # --- clean up -----------------------------------------------------------------------------------------------

    async def clean(self, record: Record) -> list[Error]:
        """Remove everything that a transfer has written; returns for what could not be removed why it could not."""
        plan = record.plan
        left: list[Error] = []
        if plan is None or not plan.opened:
            return left
        if plan.file:
            manifest = f"{plan.homes(record.id)[0]}/{MANIFEST}"
            await self._remove(record, plan, manifest, 0, left)
        async for page in self._rows.parts(record.id):
            await side_by_side(page, partial(self._remove_part, record, plan, left), AT_ONCE)
        if plan.file and not left:  # uploads whose begin was never answered: no token tells of them
            for home in plan.homes(record.id):
                left += await drop_below(self._planes, plan.plane, record.id, home)
        return left

    async def _remove_part(self, record: Record, plan: Plan, left: list[Error], row: PartRow) -> None:
        await self._remove(record, plan, row.part.key, row.part.number, left, row)

    async def _remove(
        self, record: Record, plan: Plan, key: str, number: int, left: list[Error], row: PartRow | None = None
    ) -> None:
        """Remove one object and its upload; what can't be is added to `left`."""
        if len(left) >= _LEFT:  # the plane itself is gone: asking it once more for each part helps nobody
            return
        try:
            plane = self._planes.plane(plan.plane)
            if row is not None and row.token:
                await plane.resume(row.token).abort()
            else:
                await plane.discard(key, upload_id(record.id, number))
            # A folder of a generation is ours. Any other target may be a stranger's by now, unless we committed it.
            if plan.file or (row is not None and await _made(plane, row)):
                await plane.delete(key)
        except Missing:  # the bucket or root itself is gone, and everything in it
            return
        except Error as error:
            if isinstance(error, PathEscapes) and (row is None or not row.token):  # so nothing was begun there
                return
            msg = f"{where(plan.plane, key)} could not be removed: {error.message}"
            left.append(type(error)(msg, retry_after=error.retry_after, **error.facts))


async def _made(plane: Plane, row: PartRow) -> bool:
    """Whether the object of a part is our own: its upload made it, be that recorded or did a crash come between.

    What one request wrote has no upload, and `discard` has removed it, unless it does not name its attempt (a copy
    within S3 can keep the metadata of its source). Then it is known by the version that it got.
    """
    if row.token:
        return await plane.resume(row.token).made() is not None
    if not row.done or not row.version:
        return False
    try:
        return (await plane.stat(row.part.key)).version == row.version
    except NotFound:
        return False


def _note_renamed(c: sa.Connection, written: LogicalFile) -> None:
    """If a file was renamed since a manifest was written for it, that has to be written again."""
    file = files.by_generation(c, written.generation)
    if file is not None and file.name != written.name:
        files.note_stale_manifests(c, file, 0.0)


def _proved(
    plan: Plan, page: list[tuple[PartRow, list[StoredStep]]], known: Known
) -> list[tuple[PartRow, list[StoredStep], PartProof]]:
    """A page of parts with what their receipts prove; busy for a while, so not for the event loop."""
    return [(row, stored, prove(plan, row, stored, known)) for row, stored in page]


def _file_part(plan: Plan, row: PartRow) -> FilePart:
    values = {kind: value for kind in ("crc64nvme", plan.kind) if (value := row.value(kind)) is not None}
    return FilePart(row.part.number, plan.plane, row.part.key, row.part.size, row.version, values, owned=True)
