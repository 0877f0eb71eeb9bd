"""The HSDS server that an ingest loads into, with what all of its files share: connections, folders, a flush.

Whoever writes the bucket past the server does what the server would have done: what rights a new domain has, and
whether we may make one, is found out by having the server make one, whose object then tells (and proves that the
bucket is the server's).
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from fileserver.configured import Configured
from fileserver.errors import CallerDenied, TargetBusy
from fileserver.hdf5 import ids
from fileserver.hdf5.hsds import address, domains
from fileserver.hdf5.hsds.domains import Domain
from fileserver.hdf5.hsds.objects import make_domain
from fileserver.hdf5.hsds.targets import Targets, connect
from fileserver.together import side_by_side
from fileserver.transfer.ingest_plan import goes_direct
from fileserver.transfer.ingest_rows import File
from fileserver.transfer.spec import Ingest
from planes.errors import AlreadyExists, NotFound, Refused
from planes.plane import Extent, Plane
from planes.retrying import Patience
from planes.settings import PlaneLimits

LOADS: Final = 4
"""Files that are loaded at once, by all segments of a transfer: each may hold some tens of MiB."""
_FLUSHES: Final = 8
"""That are asked for at once. The others wait here, where that costs nothing: every request that waits in the server
makes it slower at all others and, many together, say that it is full. What has waited for two seconds is stored, and
its flush answered at once.
"""
_GONE: Final = "410"
_FORBIDDEN: Final = "403"
_PROBES: Final = 4  # of a folder
_RIGHTS: Final = {"create": False, "read": True, "update": False, "delete": False, "readACL": False, "updateACL": False}


@dataclass(frozen=True, slots=True)
class Frame:
    """What the server writes into a new domain of a folder."""

    owner: str
    acls: Mapping[str, Mapping[str, bool]]
    is_fresh: bool = False
    """The folder was made just now, and the server remembers none: nothing in it was ever anybody's.

    A server forgets when it is started anew, each node for itself; what is in the bucket, it never overlooks.
    """


class Target:
    """One server for one transfer. Belongs to one event loop.

    Args:
        ingest: what was asked.
        transfer: its id.
        targets: the configured servers.
        planes: among them the bucket.
    """

    def __init__(self, ingest: Ingest, transfer: str, targets: Targets, planes: Configured) -> None:
        name, settings = targets.name(ingest.target), targets.settings(ingest.target)
        self.ingest = ingest
        self.name = name
        is_direct = goes_direct(ingest, targets)
        self.bucket: Plane | None = planes.plane(settings.storage) if is_direct else None
        self.bulk: Plane | None = planes.bulk(settings.storage) if is_direct else None
        """The same bucket, for what nobody sees before a domain names it."""
        self.connection = connect(name, settings, Patience())
        self.loading = asyncio.Semaphore(LOADS)
        waiting = settings.model_copy(update={"limits": PlaneLimits(requests=_FLUSHES)})
        self._flushes = connect(name, waiting, Patience())
        self._transfer = transfer
        self._folders: dict[str, asyncio.Task[Frame | None]] = {}
        self._probing = asyncio.Lock()
        """Who tidies up after one file is not to take away the probe by which another finds out about the folder."""

    async def aclose(self) -> None:
        """Release the connections."""
        for task in self._folders.values():
            task.cancel()
        await asyncio.gather(*self._folders.values(), return_exceptions=True)
        await self.connection.aclose()
        await self._flushes.aclose()

    # --- names --------------------------------------------------------------------------------------------------

    def staging(self, file: File) -> str:
        """Where a file is loaded, before its domain has its name."""
        return f"{address.parent(file.domain)}/.cropduster-{self._transfer}-{file.number}-{file.tries}"

    def _probe(self, folder: str) -> str:
        return f"{folder}/.cropduster-{self._transfer}"

    async def there(self, path: str) -> tuple[Domain | None, bool]:
        """What is at a path, and whether the server may remember that something was."""
        try:
            return await domains.stat(self.connection, path), True
        except NotFound as error:
            return None, error.facts.get("status") == _GONE

    # --- folders ------------------------------------------------------------------------------------------------

    async def folder(self, path: str) -> Frame | None:
        """Have a folder, and know what a domain in it gets (None without a bucket); found out once.

        Raises:
            NotFound: it is not there, and folders are not to be made.
            CallerDenied: nothing may be made in it.
            AlreadyExists: it is a domain.
            Refused: the bucket is not the server's.
        """
        if path not in self._folders:
            self._folders[path] = asyncio.ensure_future(self._have(path))
        task = self._folders[path]
        try:
            return await asyncio.shield(task)
        except BaseException:  # a cancel of one that waits leaves the look to the others
            if task.done():
                self._folders.pop(path, None)  # whoever comes next may find it otherwise
            raise

    async def _have(self, path: str) -> Frame | None:
        there, seen = await self.there(path)
        if there is None and self.ingest.no_folders:
            msg = f"the folder {address.show(path)} on HSDS '{self.name}' is not there, and --no-folders makes none"
            raise NotFound(msg, hsds=self.name, domain=address.show(path))
        if there is None:
            seen |= not await self._made(path)
        elif not there.is_folder:
            msg = f"{address.show(path)} on HSDS '{self.name}' is a domain, no folder: nothing can be put into it"
            raise AlreadyExists(msg, hsds=self.name, domain=address.show(path))
        return await self._frame(path, is_fresh=not seen) if self.bucket is not None else None

    async def _made(self, path: str) -> bool:
        """Make a folder, and those above it; whether nobody else was faster."""
        try:
            await domains.make_folder(self.connection, path, parents=True)
        except AlreadyExists:
            await domains.make_folder(self.connection, path, parents=True, exist_ok=True)
            return False
        return True

    async def _frame(self, folder: str, *, is_fresh: bool) -> Frame:
        async with self._probing:
            # A process that died may have asked for the same, or for its end, and the server comes to that only now.
            for _ in range(_PROBES - 1):
                with suppress(AlreadyExists, NotFound):
                    return await self._probed(folder, is_fresh=is_fresh)
            return await self._probed(folder, is_fresh=is_fresh)

    async def _probed(self, folder: str, *, is_fresh: bool) -> Frame:
        """What the server writes for a domain in a folder."""
        probe = self._probe(folder)
        await domains.delete_found(self.connection, probe)
        with self.closed(folder):
            await make_domain(self.connection, probe, ids.root_id(uuid.uuid4().hex))
        try:
            said = await self._written(probe)
        finally:
            await domains.delete_found(self.connection, probe)
        more = {"default": _RIGHTS} if self.ingest.public_read else {}
        return Frame(said["owner"], {**said["acls"], **more}, is_fresh)

    @contextmanager
    def closed(self, folder: str) -> Iterator[None]:
        """Where nothing may be made in a folder, tell of the folder, not of what we call the domain meanwhile."""
        try:
            yield
        except CallerDenied as error:
            if error.facts.get("status") != _FORBIDDEN:
                raise
            where, who = address.show(folder), self.connection.settings.user
            msg = (
                f"{where} on HSDS '{self.name}': {who} may not make anything in this folder; whoever owns it can allow "
                f"that with `cropduster hdf5 acl`"
            )
            raise CallerDenied(msg, retry_after=None, **error.facts) from error

    async def _written(self, path: str) -> dict[str, Any]:
        """What the server has written for a domain."""
        assert self.bucket is not None
        key = self.key(path)
        try:
            info = await self.bucket.stat(key)
        except NotFound:
            await domains.stat(self.connection, path)  # raises if somebody has removed it
            msg = (
                f"the plane {self.bucket.name} is not the bucket of HSDS '{self.name}': what the server writes "
                "does not arrive there; correct `storage` or `bucket` in the configuration, or use --mode rest"
            )
            raise Refused(msg, hsds=self.name, plane=self.bucket.name) from None
        data = bytearray(info.size)
        await self.bucket.read(Extent(key, info.version, 0, info.size), memoryview(data))
        found: dict[str, Any] = json.loads(data)
        return found

    @staticmethod
    def key(path: str) -> str:
        """The object of a domain in the bucket."""
        return f"{path.removeprefix('/')}/.domain.json"

    # --- at the end ---------------------------------------------------------------------------------------------

    @property
    def lost(self) -> int:
        """Requests without an answer so far: what they, and others before them, had brought may be gone."""
        return self.connection.traffic.lost + self._flushes.traffic.lost

    async def flush(self, path: str) -> None:
        """Return once everything that was sent of a domain is stored."""
        await domains.flush(self._flushes, path)

    async def clean(self, file: File) -> None:
        """Remove what a load that is not published has left; of one that is, its staging name.

        Raises:
            TargetBusy: it is published, so that nothing else of it may be removed.
        """
        root = ids.root_id(file.load)
        there, _ = await self.there(file.domain)
        if there is not None and there.root == root:
            await domains.unlink(self.connection, self.staging(file))
            msg = f"{address.show(file.domain)} is published already"
            raise TargetBusy(msg, domain=address.show(file.domain))
        staged = await domains.find(self.connection, self.staging(file))
        if staged is not None and self.bucket is None:
            await domains.delete_found(self.connection, staged.path)
        elif staged is not None:
            await domains.unlink(self.connection, staged.path)
        if self.bucket is not None:
            bucket, keys = self.bucket, [info.key async for info in self.bucket.list(ids.folder(root))]
            await side_by_side(keys, bucket.delete, 8)
            async with self._probing:
                await domains.delete_found(self.connection, self._probe(address.parent(file.domain)))
