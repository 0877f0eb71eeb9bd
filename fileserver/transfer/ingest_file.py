"""One file of an ingest: loaded, verified and published, or removed again.

past the server     objects into its bucket, then a staging domain to read them back by, then one object more, which
                    names the domain; where one is to be replaced, or was once, the server does that (`hsds.publish`)
by requests         a staging domain, made and filled by the server, flushed, and published by the server

What is done is seen from what is there, so that every step may be done twice: after a crash the same call goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import time
from typing import Any, Final

from fileserver.catalogue.store import Store
from fileserver.configured import Configured, where
from fileserver.errors import FormatMismatch, TargetBusy, to_record
from fileserver.hdf5 import describe, ids, links, load, rest, verify
from fileserver.hdf5.hsds import acls, address, domains, publish
from fileserver.hdf5.hsds.acls import Permissions
from fileserver.hdf5.hsds.domains import Domain
from fileserver.hdf5.hsds.publish import Outcome, Publication
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.routes import Means
from fileserver.hdf5.source import Source, opened
from fileserver.hdf5.storage import Written
from fileserver.hdf5.survey import leaving, survey
from fileserver.hdf5.survey import names as names_of
from fileserver.transfer import ingest_rows, ingest_trial
from fileserver.transfer.ingest_rows import Ended, File, Told
from fileserver.transfer.ingest_target import Frame, Target
from fileserver.transfer.ingest_told import report
from planes.bulk import settle
from planes.errors import AlreadyExists, Changed, Error, NotFound, Unavailable
from planes.plane import Plane

PASSES: Final = 5
"""Times that a file is sent to a server that loses requests."""
_READ: Final = Permissions(read=True)


@dataclass(frozen=True, slots=True)
class Worker:
    """Brings the files of one transfer to one server."""

    target: Target
    planes: Configured
    store: Store
    overwrite: bool

    @property
    def level(self) -> str:
        """What is compared of a file that is brought for itself."""
        asked = self.target.ingest.verify
        return "sample" if asked == "auto" else asked

    async def bring_alone(self, file: File, *, fresh: bool = False) -> Ended:
        """As `arrive`; whatever the HDF5 library does at a damaged file costs that file alone."""
        plane, turns = self.planes.plane(file.plane), self.target.loading
        return await ingest_trial.alone(plane, file, turns, lambda: self.arrive(file, fresh=fresh))

    async def arrive(self, file: File, *, fresh: bool = False) -> Ended:
        """Bring one file, of which nothing was written yet if it is `fresh`; how that ended.

        Raises:
            Error: whatever is wrong with the file, the domain or the server; what was written may still be there.
        """
        if file.publication is not None:
            return await self._go_on(file, publication_from_json(file.publication))
        there, seen = await self.target.there(file.domain)
        is_mine = there is not None and there.root == ids.root_id(file.load)
        if not is_mine:
            self._may_be(there, file)
        frame = await self.target.folder(address.parent(file.domain))
        if is_mine and frame is None:
            return await self._found_named(file)
        is_new = there is None and not seen
        behind = {} if fresh else await self._left_behind(file)
        bring = self._past if self.target.bulk is not None else self._asked
        file, loaded = await bring(file, frame, behind, fresh=fresh, is_mine=is_mine, is_new=is_new)
        file, told = loaded_file(file, loaded, self.level), list(report(loaded))
        # Not while it is among the few that load: one flush serves all that wait for it.
        if self.target.bulk is not None:
            await settle(self.target.bulk)
        if frame is not None and is_new:
            await self._name(file, loaded, frame)
        if is_mine or (frame is not None and is_new):
            return await self.unstaged(file, told)
        return await self._publish(file, told, there)

    async def _found_named(self, file: File) -> Ended:
        """A file whose domain the server had named when we died: what is left is to say so."""
        await domains.unlink(self.target.connection, self.target.staging(file))
        async with self.target.loading, self._source(file) as source:
            file = await self._pinned(file, source)
            found, root = await survey(source, Means(bucket=False)), ids.root_id(file.load)
        names = names_of(found, root)
        loaded = Loaded(root, file.begun or 0.0, found, found.troubles, Written(), names)
        return _ended(loaded_file(file, loaded, self.level), list(report(loaded)))

    def _may_be(self, there: Domain | None, file: File) -> None:
        """Raise AlreadyExists for what is not to be replaced."""
        if there is not None and (there.is_folder or not self.overwrite):
            why = "a folder" if there.is_folder else "a domain, which --overwrite would replace"
            msg = f"{address.show(file.domain)} on HSDS '{self.target.name}' is there already: {why}"
            raise AlreadyExists(msg, hsds=self.target.name, domain=address.show(file.domain))

    # --- load ---------------------------------------------------------------------------------------------------

    async def _past(
        self,
        file: File,
        frame: Frame | None,
        behind: Mapping[str, str],
        *,
        fresh: bool,
        is_mine: bool,
        is_new: bool,
    ) -> tuple[File, Loaded]:
        """A file past the server, and read back unless it is published already; not durable yet."""
        async with self.target.loading, self._source(file) as source:
            file = await self._pinned(file, source)
            loaded = await self._load(file, source, behind, fresh=fresh)
            if is_mine:
                return file, loaded
            return await self._read_back(file, source, loaded, frame, is_new=is_new)

    async def _asked(
        self,
        file: File,
        frame: Frame | None,
        behind: Mapping[str, str],
        *,
        fresh: bool,
        is_mine: bool,
        is_new: bool,
    ) -> tuple[File, Loaded]:
        """A file by requests, and read back. While the server stores it, which takes seconds, another one is loaded."""
        del fresh, is_mine  # it is all the same to who asks

        async def send() -> Loaded:
            nonlocal file
            async with self.target.loading, self._source(file) as source:
                file = await self._pinned(file, source)
                return await self._pass(file, source, behind)

        loaded = await self._until_kept(file, send)
        if self.level == "none":
            return file, loaded
        async with self.target.loading, self._source(file) as source:
            if source.info.version != file.version:
                raise self._changed(file)
            return await self._read_back(file, source, loaded, frame, is_new=is_new)

    def _source(self, file: File) -> AbstractAsyncContextManager[Source]:
        return opened(self.planes.plane(file.plane), file.key)

    async def _pinned(self, file: File, source: Source) -> File:
        """The file as it is read, recorded before anything is written: attempts go on for that version alone."""
        version = source.info.version
        if version == file.version:
            return file
        if file.tries > 1 or file.size != source.info.size:
            raise self._changed(file)
        await self.store.write(lambda c: ingest_rows.update(c, file.transfer, file.number, version=version))
        return replace(file, version=version)

    @staticmethod
    def _changed(file: File) -> Changed:
        msg = f"{where(file.plane, file.key)} has changed since it was listed: run the ingest again"
        return Changed(msg, plane=file.plane, key=file.key)

    async def _read_back(
        self, file: File, source: Source, loaded: Loaded, frame: Frame | None, *, is_new: bool
    ) -> tuple[File, Loaded]:
        """A file as the server reads it; what the library cannot read of it, and we have placed, is left behind.

        That is loaded once more, as another attempt, because the server remembers what it has read of the first.
        """

        async def compared() -> dict[str, str]:
            if frame is not None:
                await self._stage(file, loaded, frame, needed=not is_new)
            return await verify.verify(source, self.target.connection, self.target.staging(file), loaded, self.level)

        if damaged := await compared():
            damaged |= await verify.damage(source, loaded)
            file = await self._again_without(file, damaged)
            loaded = await self._load(file, source, damaged, fresh=True)
            for path, why in (await compared()).items():
                msg = f"{path} in {where(file.plane, file.key)} is damaged, and reads otherwise every time: {why}"
                raise FormatMismatch(msg, key=file.key, path=path)
        return file, loaded

    async def _again_without(self, file: File, damaged: Mapping[str, str]) -> File:
        """Another attempt, for which is recorded what of the file stays behind."""
        await self.target.clean(file)
        file = replace(file, tries=file.tries + 1, begun=time())
        told = [Told(path, "", "", 0, "failed", reason) for path, reason in damaged.items()]

        def record(c: Any) -> None:
            ingest_rows.begin(c, [file], file.begun or 0.0)
            ingest_rows.report(c, file.transfer, file.number, told)

        await self.store.write(record)
        return file

    async def _load(self, file: File, source: Source, behind: Mapping[str, str], *, fresh: bool) -> Loaded:
        """Past the server: not durable before the bucket has settled. What is to stay `behind` is not loaded."""
        if self.target.bulk is not None:
            begun, link = file.begun or time(), ""
            if self.target.ingest.mode == "link":
                link = await links.uri(self.planes.plane(file.plane), source.info, self.target.bucket)
            bulk = self.target.bulk
            return await load.load(source, bulk, file.load, begun, link=link, fresh=fresh, behind=behind)
        return await self._until_kept(file, lambda: self._pass(file, source, behind))

    async def _pass(self, file: File, source: Source, behind: Mapping[str, str]) -> Loaded:
        """Send all of a file; not stored yet."""
        connection, staging = self.target.connection, self.target.staging(file)
        found = leaving(await survey(source, Means(bucket=False)), behind) if behind else None
        with self.target.closed(address.parent(file.domain)):
            return await rest.load(source, connection, staging, file.load, file.begun or time(), found=found)

    async def _until_kept(self, file: File, send: Callable[[], Awaitable[Loaded]]) -> Loaded:
        """Send until the server has lost nothing of it, and has stored it."""
        for _ in range(PASSES):
            lost = self.target.lost
            loaded = await send()
            await self.target.flush(self.target.staging(file))
            if self.target.lost == lost:
                return loaded
        msg = f"HSDS '{self.target.name}' lost requests each of the {PASSES} times that {file.key} was sent to it"
        raise Unavailable(msg, hsds=self.target.name, key=file.key)

    async def _stage(self, file: File, loaded: Loaded, frame: Frame, *, needed: bool) -> None:
        """Have a domain by which the server reads what is in its bucket, if that is to be verified or `needed`."""
        if needed or self.level != "none":
            data = describe.domain_json(loaded.root, frame.owner, loaded.created, frame.acls)
            key = self.target.key(self.target.staging(file))
            await self._bucket.put(key, data, upload_id=f"{attempt(file)}-staging", replace=True)

    # --- publish ------------------------------------------------------------------------------------------------

    @property
    def _bucket(self) -> Plane:
        assert self.target.bucket is not None, "a frame comes from a bucket"
        return self.target.bucket

    async def _name(self, file: File, loaded: Loaded, frame: Frame) -> None:
        """Write the object that names a domain where the server has never seen one: it is there at once, or not."""
        data = describe.domain_json(loaded.root, frame.owner, loaded.created, frame.acls)
        key = self.target.key(file.domain)
        await self._bucket.put(key, data, upload_id=attempt(file))

    async def _publish(self, file: File, told: list[Told], there: Domain | None) -> Ended:
        """Have the server give the domain its name; recorded before, with all that is to be said of it."""
        connection, staging = self.target.connection, self.target.staging(file)
        plan = Publication(file.domain, staging, file.root)
        if there is not None:
            # What may not be replaced was refused before it was loaded.
            plan = await publish.prepare(connection, file.domain, staging, overwrite=True)
        file = going = replace(file, publication=publication_to_json(plan) | {"ends": file.state})

        def record(c: Any) -> None:
            names = ("root", "objects", "through_us", "native", "verified", "publication")
            values = {name: getattr(going, name) for name in names}
            ingest_rows.update(c, file.transfer, file.number, state="publishing", **values)
            ingest_rows.report(c, file.transfer, file.number, told)

        await self.store.write(record)
        if there is None:
            await self._name_new(file, staging)
            return await self.unstaged(file, told)
        return await self._walk(going, plan, file.state, told)

    async def _name_new(self, file: File, staging: str) -> None:
        """Two requests instead of a walk: the server gives no name twice.

        Raises:
            AlreadyExists: somebody else was faster.
        """
        try:
            await domains.link(self.target.connection, file.domain, staging)
        except AlreadyExists:
            there, _ = await self.target.there(file.domain)
            if there is None or there.root != file.root:
                raise
        if self.target.ingest.public_read:
            await acls.write(self.target.connection, file.domain, acls.DEFAULT, _READ)

    async def unstaged(self, file: File, told: list[Told]) -> Ended:
        """The end of a file whose domain has its name: that it has another too is no failure, but to be cured."""
        owed = False
        if self.target.bucket is None or self.level != "none" or file.publication is not None:
            try:
                await domains.unlink(self.target.connection, self.target.staging(file))
            except Error:  # tried again later, by the sweep
                owed = True
        return Ended(replace(file, ended=time(), owed=owed), told)

    async def _go_on(self, file: File, plan: Publication) -> Ended:
        """Go on with a publication that was begun in another run."""
        assert file.publication is not None
        return await self._walk(file, plan, file.publication["ends"], await self._told_before(file))

    async def _left_behind(self, file: File) -> dict[str, str]:
        """What an attempt that goes on was begun without."""
        return {each.path: each.reason for each in await self._told_before(file) if each.result == "failed"}

    async def _told_before(self, file: File) -> list[Told]:
        told, page = list[Told](), 0
        while more := await self.store.read(
            partial(ingest_rows.told, transfer=file.transfer, number=file.number, number_of_page=page)
        ):
            told, page = told + more, page + 1
        return told

    async def _walk(self, file: File, plan: Publication, state: str, told: list[Told]) -> Ended:
        connection = self.target.connection
        if await publish.publish(connection, plan) is Outcome.RESTORED:
            msg = f"what was loaded for {address.show(file.domain)} is gone, and the domain before it is there again"
            raise NotFound(msg, hsds=self.target.name, domain=address.show(file.domain))
        if self.target.ingest.public_read:
            await acls.write(connection, file.domain, acls.DEFAULT, _READ)
        return _ended(replace(file, state=state), told)

    # --- afterwards ---------------------------------------------------------------------------------------------

    async def give_up(self, file: File, error: Error) -> Ended:
        """Remove what a load has left, if that can be done now, and say that the file failed."""
        owed = False
        try:
            await self.target.clean(file)
        except Error:  # tried again later, by the sweep
            owed = True
        return Ended(replace(file, state="failed", error=to_record(error), owed=owed, ended=time()))

    async def settle(self, file: File) -> File:
        """Finish a publication that was begun, else remove what a load has left; the row as it is then."""
        if file.publication is not None and file.state == "publishing":
            return (await self._go_on(file, publication_from_json(file.publication))).file
        try:
            await self.target.clean(file)
        except TargetBusy:  # it has its name; the crash came before that was recorded
            state = file.state if file.state in {"loaded", "partly"} else "loaded"
            return replace(file, state=state, owed=False, root=ids.root_id(file.load))
        return replace(file, owed=False)


def loaded_file(file: File, loaded: Loaded, verified: str) -> File:
    """The row of a file that is loaded."""
    written, state = loaded.written, "loaded" if loaded.whole else "partly"
    return replace(
        file,
        root=loaded.root,
        objects=len(loaded.ids),
        verified=verified,
        state=state,
        through_us=written.carried,
        native=written.copied,
    )


def _ended(file: File, told: list[Told]) -> Ended:
    return Ended(replace(file, ended=time(), owed=False), told)


def attempt(file: File) -> str:
    """The upload id of what names a domain: one an attempt."""
    return file.load.replace("/", "-")


def publication_to_json(plan: Publication) -> dict[str, Any]:
    """Plain data for the store."""
    return asdict(plan)


def publication_from_json(data: dict[str, Any]) -> Publication:
    """The inverse of `publication_to_json`."""
    plain = {name: value for name, value in data.items() if name not in {"entries", "ends"}}
    entries = tuple((user, Permissions(**rights)) for user, rights in data["entries"])
    return Publication(**plain, entries=entries)
