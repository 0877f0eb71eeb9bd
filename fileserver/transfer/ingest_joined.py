"""All files of an ingest into one domain, joined along a dimension: looked at, loaded, read back and published at once.

The row of the first file stands for the domain: its load, its publication, what is owed. The other rows say what became
of those files; they end together. A file that does not fit ends the transfer before anything is written, and one whose
data cannot be read before anything is seen: a domain without it would have what comes behind it elsewhere, for ever.
Who asks for that (`skip_bad`) has them left out, each as a failure of its own, and the domain is begun anew without.

Where the domain is there already, files come behind what it has, those that it was joined of left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import time
from typing import Final, TypeVar

import sqlalchemy as sa

from fileserver.catalogue.store import Store
from fileserver.configured import where
from fileserver.errors import FormatMismatch, TargetChanged, from_record, to_record
from fileserver.hdf5 import extended, extending, extending_rest, extension, joined, reading_back
from fileserver.hdf5.dimension import Damaged, Misfit
from fileserver.hdf5.extension import Extension
from fileserver.hdf5.files import Files, Place
from fileserver.hdf5.hsds import address, domains
from fileserver.hdf5.hsds.domains import Domain
from fileserver.hdf5.joined import Did, Looked, Whole
from fileserver.hdf5.joint import Joint
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.repeated import need_new
from fileserver.hdf5.storage import Written
from fileserver.transfer import ingest_members, ingest_rows
from fileserver.transfer.ingest_ends import Survived, Taken, orderly
from fileserver.transfer.ingest_file import PASSES, Worker, loaded_file, publication_from_json
from fileserver.transfer.ingest_rows import Ended, File, Told
from fileserver.transfer.ingest_target import Target
from fileserver.transfer.ingest_told import Saying, ends
from fileserver.transfer.ingest_trial import deadly
from fileserver.transfer.live import Live
from planes.errors import Changed, Error, Throttled, Unavailable

T = TypeVar("T")

_NAMED: Final = 3  # files that an error names
_WAY_OUT: Final = "mend what cannot be joined, or leave it out; --skip-bad joins the others, and tells what it left out"


@dataclass(frozen=True, slots=True)
class _Extends:
    """What a load was begun to extend, recorded before it; nothing, if all of the domain is new. And how many files."""

    extends: str = ""
    state: str = ""
    files: int = 0


@dataclass(frozen=True, slots=True)
class Joiner(Worker):
    """Brings all files of one transfer into one domain of one server."""

    survived: Survived

    async def bring(self, transfer: str, live: Live) -> None:
        """Load, verify and publish what has not ended.

        Raises:
            Error: whatever is wrong with a file, the domain or the server; what was written may still be there.
        """
        files = await self._fit(transfer)
        if files[0].state == "loading":  # begun by another run
            files[0] = replace(files[0], resumed=files[0].resumed + 1)
            await self.store.write(lambda c: ingest_rows.resume(c, files[:1]))
        async with orderly(self.store, Taken(transfer, files[0].number, files[-1].number)):
            await self._bring(transfer, files, live)

    async def _bring(self, transfer: str, files: list[File], live: Live) -> None:
        while files[0].state not in {"loaded", "partly"}:
            try:
                ended = await self._brought(files, live)
            except Error:
                left = await self._fit(transfer) if self.target.ingest.skip_bad else files
                if len(left) == len(files):
                    raise
                files = left
            else:
                await self._told_done(ended, files, live)
                return

    async def _brought(self, files: Sequence[File], live: Live) -> Ended:
        head = files[0]
        if head.publication is not None and "target" in head.publication:
            return await self._go_on(head, publication_from_json(head.publication))
        files = [await self._begun(head), *files[1:]]
        if wrong := await deadly(self.planes, files, self.target.loading, self.survived, live):
            raise await self._unfit(files, wrong)
        return await self._arrive(files, live)

    async def _told_done(self, ended: Ended, files: Sequence[File], live: Live) -> None:
        await self._end(ended)
        live.done = max(live.done, sum(each.size for each in files))
        live.parts_done += len(files)
        live.through_us += ended.file.through_us
        live.native += ended.file.native
        live.touch()

    async def settle(self, file: File) -> File:
        """As for one file; the other files end with the first."""
        settled = await Worker.settle(self, file)
        if settled.state in {"loaded", "partly"}:
            await self._end(Ended(settled, await self._told_before(settled)))
        return settled

    @property
    def _verified(self) -> str:
        """How much is compared."""
        return self.target.ingest.verify if self.target.ingest.verify in {"none", *reading_back.DEPTHS} else "sample"

    # --- rows ---------------------------------------------------------------------------------------------------

    async def _fit(self, transfer: str) -> list[File]:
        """The files that are joined: all, or all but those that are left out; what one of these has begun is removed.

        Raises:
            Error: what is wrong with the first that is not.
        """
        files = await self._files(transfer)
        fit = [each for each in files if each.error is None]
        bad = [each for each in files if each.error is not None]
        if bad and not (fit and self.target.ingest.skip_bad):
            raise from_record(bad[0].error or {})
        for each in bad:
            if each.owed:
                ended = await self.give_up(each, from_record(each.error or {}))
                await self.store.write(partial(ingest_rows.enter_ended, transfer=transfer, ended=[ended]))
        return fit

    async def _files(self, transfer: str) -> list[File]:
        found, first = list[File](), 1
        while page := await self.store.read(partial(ingest_rows.page, transfer=transfer, first=first, pending=False)):
            found, first = found + page, page[-1].number + 1
        return found

    async def _begun(self, head: File) -> File:
        """The first row with all that it needs to be begun, or gone on with."""
        return head if head.state != "waiting" else await self._again(head)

    async def _again(self, head: File) -> File:
        begun = replace(head, state="loading", tries=head.tries + 1, begun=time(), owed=True)
        await self.store.write(lambda c: ingest_rows.begin(c, [begun], begun.begun or 0.0))
        return begun

    async def _end(self, ended: Ended) -> None:
        """Record that all files have ended, and of which files the domain is now."""
        head = ended.file
        files = [each for each in await self._files(head.transfer) if each.error is None]
        walk = head.publication or {}

        def record(c: sa.Connection) -> None:
            ingest_rows.enter_ended(c, head.transfer, [ended])
            ingest_rows.end_joined(c, head)
            if "target" in walk:
                ingest_members.enter(c, head.root, files, walk["replaces"], extends=not self.overwrite)

        await self.store.write(record)

    # --- the domain ---------------------------------------------------------------------------------------------

    async def _arrive(self, files: Sequence[File], live: Live) -> Ended:
        head = files[0]
        there, _ = await self.target.there(head.domain)
        if there is None or there.is_folder or self.overwrite:
            self._may_be(there, head)
            return await self._made(files, there, live)
        return await self._extended(files, there, live)

    async def _made(self, files: Sequence[File], there: Domain | None, live: Live) -> Ended:
        """A domain of these files alone."""
        head = files[0]
        frame = await self.target.folder(address.parent(head.domain))
        held, level, joints = self._held(files), self._verified, list[Joint]()
        try:
            looked = await self._looked(held, files)
            made, head = joined.whole(looked), await self._marked(head, _Extends(files=len(files)))
            joints.extend(made.joints)
            loaded = await self._join(head, held, made, _counting(files, live))
            if frame is not None:
                await self._stage(head, loaded, frame, needed=True)
            await reading_back.check(
                held, made.joints, self.target.connection, self.target.staging(head), loaded, level
            )
        except Damaged as error:
            raise await self._unfit(files, await self._damaged(held, joints, error)) from error
        except Misfit as error:
            raise await self._unfit(files, {error.number or 0: error}, final=True) from error
        finally:
            await held.aclose()
        troubles, bucket = [(), *(each.troubles for each in made.others)], self.target.bulk is not None
        saying = Saying(made.joints, troubles, level, loaded, bucket=bucket)
        await saying.record(self.store, files, head)
        return await self._publish(loaded_file(head, loaded, level), saying.of(0), there)

    async def _extended(self, files: Sequence[File], there: Domain, live: Live) -> Ended:
        """The domain that is there, with these files behind what it has."""
        head = files[0]
        frame = await self.target.folder(address.parent(head.domain))
        fresh, is_known = await fresh_of(self.store, files, there)
        new = {each.number for each in fresh}
        await self._say_there([each for each in files if each.number not in new])
        if not fresh:
            await self._need_along(files, there)
            return Ended(replace(head, state="loaded", owed=False, ended=time(), root=there.root), [THERE])
        held, level, connection = self._held(fresh), self._verified, self.target.connection
        joints = list[Joint]()
        try:
            await domains.flush(connection, head.domain)
            looked = await self._looked(held, fresh)
            made = await measured(held, looked, self.target, there, is_known=is_known)
            joints.extend(made.joints)
            head = await self._marked(head, _Extends(made.old, made.state, len(fresh)))
            root, written = await self._grown(head, held, made, _counting(fresh, live))
            if frame is not None:
                loaded = Loaded(root, head.begun or 0.0, looked.first.survey, (), written)
                await self._stage(head, loaded, frame, needed=True)
            places = (head.domain, self.target.staging(head))
            await extended.check(held, made, connection, places, root, level)
            await self._need_still(made, head)
        except Damaged as error:
            raise await self._unfit(fresh, await self._damaged(held, joints, error)) from error
        except Misfit as error:
            raise await self._unfit(fresh, {error.number or 0: error}, final=True) from error
        finally:
            await held.aclose()
        troubles = [made.troubles, *(each.troubles for each in looked.others)]
        saying = Saying(made.joints, troubles, level, bucket=self.target.bulk is not None)
        await saying.record(self.store, fresh, head)
        is_new = fresh[0].number == head.number
        state = ends(troubles[0]) if is_new else "loaded"
        row = replace(head, root=root, objects=len(made.joints), verified=level, state=state)
        row = replace(row, through_us=written.carried, native=written.copied)
        return await self._publish(row, saying.of(0) if is_new else [THERE], there)

    async def _need_along(self, files: Sequence[File], there: Domain) -> None:
        """Raise FormatMismatch if files that are in a domain already are not joined there along this dimension."""
        held = self._held(files[:1])
        try:
            looked = await self._looked(held, files)
            dimension = self.target.ingest.aggregate
            await extension.need_along(looked, self.target.connection, there.path, there.root, dimension)
        except Misfit as error:
            raise await self._unfit(files, {0: error}, final=True) from error
        finally:
            await held.aclose()

    async def _need_still(self, made: Extension, head: File) -> None:
        """Raise TargetChanged if somebody else has changed what was extended."""
        there, _ = await self.target.there(head.domain)
        same = there is not None and there.root == made.old
        if not same or not await extension.still(made, self.target.connection, head.domain):
            what = address.show(head.domain)
            msg = f"{what} on HSDS '{self.target.name}' was changed by somebody else while it was extended: try again"
            raise TargetChanged(msg, domain=what)

    async def _say_there(self, files: Sequence[File]) -> None:
        """Record that these are in the domain already."""

        def record(c: sa.Connection) -> None:
            for each in files:
                ingest_rows.report(c, each.transfer, each.number, [THERE])

        await self.store.write(record)

    async def _marked(self, head: File, begun: _Extends) -> File:
        """The first row, begun to extend just that; what was begun to extend something else is removed."""
        mark = asdict(begun)
        if head.publication is not None and head.publication != mark:
            await self.target.clean(head)
            head = await self._again(head)
        await self.store.write(lambda c: ingest_rows.update(c, head.transfer, head.number, publication=mark))
        return replace(head, publication=mark)

    async def _join(self, head: File, held: Files, made: Whole, did: Did) -> Loaded:
        begun = head.begun or time()
        if self.target.bulk is not None:
            return await joined.fill(held, made, self.target.bulk, head.load, begun, did)
        to = (self.target.connection, self.target.staging(head))
        return await self._sent(head, lambda: joined.send(held, made, to, head.load, begun, did))

    async def _grown(self, head: File, held: Files, made: Extension, did: Did) -> tuple[str, Written]:
        place = (self.target.connection, head.domain)
        if self.target.bulk is not None:
            return await extending.fill(held, made, place, self.target.bulk, head.load, did)
        staging = self.target.staging(head)
        return await self._sent(head, lambda: extending_rest.send(held, made, place, staging, head.load, did))

    async def _sent(self, head: File, send: Callable[[], Awaitable[T]]) -> T:
        """Send until the server has lost nothing of it, and has stored it."""
        staging = self.target.staging(head)
        for _ in range(PASSES):
            lost = self.target.lost
            done = await send()
            await self.target.flush(staging)
            if self.target.lost == lost:
                return done
        msg = f"HSDS '{self.target.name}' lost requests each of the {PASSES} times that the files were sent to it"
        raise Unavailable(msg, hsds=self.target.name)

    # --- files --------------------------------------------------------------------------------------------------

    def _held(self, files: Sequence[File]) -> Files:
        return Files([Place(self.planes.plane(each.plane), each.key, each.version) for each in files])

    async def _looked(self, held: Files, files: Sequence[File]) -> Looked:
        looked = await joined.look(held, self.target.ingest.aggregate)
        if looked.wrong:
            raise await self._unfit(files, looked.wrong)
        return looked

    async def _damaged(self, held: Files, joints: Sequence[Joint], found: Damaged) -> joined.Wrong:
        """The files whose data cannot be read; all at once where they are left out, as that begins the load anew."""
        more = await joined.damaged(held, joints) if self.target.ingest.skip_bad else {}
        return {found.number or 0: found, **more}

    async def _unfit(self, files: Sequence[File], wrong: joined.Wrong, *, final: bool = False) -> Error:
        """Say of each file that does not fit why; the error that ends the transfer, if they are not left out.

        It ends it all the same if it is `final`: what is wrong lies in the domain, or in all of the files.
        """
        errors = {number: misfit(files[number], why) for number, why in sorted(wrong.items())}
        skips = self.target.ingest.skip_bad
        for error in errors.values():
            if isinstance(error, Throttled | Unavailable) or (skips and (final or isinstance(error, Changed))):
                return error

        def record(c: sa.Connection) -> None:
            for number, error in errors.items():
                file = files[number]
                ingest_rows.update(c, file.transfer, file.number, state="failed", error=to_record(error))

        await self.store.write(record)
        first, *more = errors.values()
        if not more and (final or not isinstance(first, FormatMismatch)):
            return first
        out = "" if skips or len(errors) == len(files) else f": {_WAY_OUT}"
        if not more:
            return FormatMismatch(f"{first.message}. Nothing was joined{out}", retry_after=None, **first.facts)
        names = ", ".join(where(files[n].plane, files[n].key) for n in list(errors)[1 : _NAMED + 1])
        rest = f" and {len(more) - _NAMED} others" if len(more) > _NAMED else ""
        what = f"{first.message}; nor do {names}{rest} fit, as the report says. Nothing was joined{out}"
        return FormatMismatch(what, key=files[next(iter(errors))].key)


def _counting(files: Sequence[File], live: Live) -> Did:
    def did(number: int) -> None:
        live.done += files[number].size
        live.touch()

    return did


THERE: Final = Told("", "", "", 0, "loaded", "it is in the domain already, and was not joined to it again")
"""What is told of a file that the domain was joined of before."""


async def fresh_of(store: Store, files: Sequence[File], there: Domain) -> tuple[list[File], bool]:
    """The files that a domain was not joined of yet; and whether it is known of which it was made.

    Raises:
        Changed: one is another version than the one that is in the domain.
    """
    known = await store.read(lambda c: ingest_members.known(c, there.root))
    for each in files:
        if each.version != known.get((each.plane, each.key), each.version):
            name = where(each.plane, each.key)
            msg = (
                f"{name} is another version than the one that is in {address.show(each.domain)}: leave it out, or use "
                "--overwrite with all files"
            )
            raise Changed(msg, plane=each.plane, key=each.key)
    return [each for each in files if (each.plane, each.key) not in known], bool(known)


async def measured(held: Files, looked: Looked, target: Target, there: Domain, *, is_known: bool) -> Extension:
    """The domain that is there, measured by files that are new to it; raises Misfit."""
    connection = target.connection
    made = await extension.measure(held, looked, connection, there.path, there.root)
    if not is_known:
        await need_new(held, made, looked.first.joined, connection, there.path)
    return made


def misfit(file: File, why: Misfit | Error) -> Error:
    """What is wrong with a file, as an error that names it."""
    if isinstance(why, Error):
        return why
    name = where(file.plane, file.key)
    return FormatMismatch(f"{name} cannot be joined: {why}", key=name)
