"""ExchangeService: between HDF5 files and domains of HSDS."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from fileserver.auth import allow
from fileserver.calls import Context
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec, refuse
from fileserver.hdf5.hsds import address
from fileserver.hdf5.hsds.targets import Targets, connect
from fileserver.hdf5.needs import need_library
from fileserver.services.hdf5 import place_of
from fileserver.v1 import exchange_pb2, exchange_pb2_grpc
from planes.errors import NotFound, Refused
from planes.plane import Plane
from planes.retrying import Patience
from planes.threads import until_done

if TYPE_CHECKING:
    from fileserver.hdf5.compare import Depth, Tally
    from fileserver.hdf5.hsds.connection import Connection

T = TypeVar("T")

_FOLDER: Final = "exports"
_TOLD: Final = 1.0  # seconds between two answers
_TOGETHER: Final = 100  # differences of one answer

# The HDF5 library and the HTTP client are loaded, and need be installed, for who has files and an HSDS.
# ruff: noqa: PLC0415


class ExchangeServicer(exchange_pb2_grpc.ExchangeServiceServicer):
    """What goes between files and domains.

    Args:
        planes: where the files are.
        targets: the configured HSDS servers.
        state: the server's state directory, where files are written before they are delivered.
    """

    def __init__(self, planes: Configured, targets: Targets, state: Path) -> None:
        self._planes = planes
        self._targets = targets
        self._state = state
        self._swept = False

    async def CompareDomain(
        self, request: exchange_pb2.CompareDomainRequest, context: Context
    ) -> AsyncIterator[exchange_pb2.CompareDomainResponse]:
        """All differences; raises InvalidSpec, NotFound, CallerDenied, FormatMismatch, Changed, Unavailable."""
        wrong: dict[str, str] = {}
        plane, key = place_of(request.source, wrong)
        path = self._path(request.target, "domain", request.domain, wrong)
        refuse(wrong)
        allow(plane)
        self._planes.refuse_hosts((plane,), "HDF5 files are read and written where a file server is")
        need_library()
        from fileserver.hdf5 import compare
        from fileserver.hdf5.hsds.objects import Objects
        from fileserver.hdf5.source import opened

        tally = compare.Tally()
        async with self._patient(request.target) as connection:
            root = await root_of(connection, path)
            async with opened(self._planes.plane(plane), key) as source:
                depth = _depth(request.comparison) or compare.Depth.SAMPLE
                found = compare.differences(source, Objects(connection, path, root), root, depth, tally=tally)
                answer = exchange_pb2.CompareDomainResponse()
                async with aclosing(found):
                    async for each in found:
                        answer.differences.add(path=each.path, what=each.what, left=each.left, right=each.right)
                        if len(answer.differences) == _TOGETHER:
                            yield answer
                            answer = exchange_pb2.CompareDomainResponse()
        answer.compared.CopyFrom(_compared(tally))
        yield answer

    async def ExportDomain(
        self, request: exchange_pb2.ExportDomainRequest, context: Context
    ) -> AsyncIterator[exchange_pb2.ExportDomainResponse]:
        """How far it is, then what became of it.

        Raises InvalidSpec, NotFound, AlreadyExists, CallerDenied, Corrupt, Refused and its kinds, Unavailable.
        """
        wrong: dict[str, str] = {}
        plane, key = place_of(request.file, wrong)
        path = self._path(request.target, "domain", request.domain, wrong)
        refuse(wrong)
        allow(plane)
        self._planes.refuse_hosts((plane,), "HDF5 files are read and written where a file server is")
        need_library()
        from fileserver.hdf5.getting import Getting

        to = self._planes.plane(plane)
        spool = await asyncio.to_thread(self._spool)
        async with self._patient(request.target) as connection:
            root = await root_of(connection, path)
            job = Getting(connection, path, root, spool, _depth(request.comparison), self._known(request.target))
            work = asyncio.ensure_future(job.run(to, key, overwrite=request.overwrite))
            async with aclosing(until(work)) as waiting:
                async for _ in waiting:
                    yield exchange_pb2.ExportDomainResponse(
                        objects_done=job.progress.objects,
                        objects_found=job.progress.found,
                        bytes=job.progress.bytes,
                    )
        got = work.result()
        answer = exchange_pb2.ExportDomainResponse(
            objects_done=job.progress.objects, objects_found=job.progress.found, bytes=job.progress.bytes
        )
        answer.exported.size, answer.exported.version = got.info.size, got.info.version
        for each in got.troubles:
            answer.exported.exceptions.add(path=each.path, what=each.what, reason=each.reason)
        if got.tally is not None:
            answer.exported.compared.CopyFrom(_compared(got.tally))
        yield answer

    async def CopyDomain(
        self, request: exchange_pb2.CopyDomainRequest, context: Context
    ) -> AsyncIterator[exchange_pb2.CopyDomainResponse]:
        """How far it is, then what became of it.

        Raises InvalidSpec, NotFound, AlreadyExists, CallerDenied, Corrupt, Refused and its kinds, Unavailable.
        """
        wrong: dict[str, str] = {}
        path = self._path(request.target, "domain", request.domain, wrong)
        there = request.new_target or request.target
        new = self._path(there, "new_domain", request.new_domain, wrong, of="new_target")
        refuse(wrong)
        need_library()
        from fileserver.hdf5.copying import Copying
        from fileserver.hdf5.getting import Getting

        bucket, spool = self._bucket(there), await asyncio.to_thread(self._spool)
        async with self._patient(request.target) as connection, self._patient(there) as to:
            root = await root_of(connection, path)
            job = Getting(connection, path, root, spool, _depth(request.comparison), self._known(request.target))
            work = asyncio.ensure_future(Copying(job, to, bucket).run(new, time.time(), overwrite=request.overwrite))
            async with aclosing(until(work)) as waiting:
                async for _ in waiting:
                    yield exchange_pb2.CopyDomainResponse(
                        objects_done=job.progress.objects,
                        objects_found=job.progress.found,
                        bytes=job.progress.bytes,
                    )
        done = work.result()
        answer = exchange_pb2.CopyDomainResponse(
            objects_done=job.progress.objects, objects_found=job.progress.found, bytes=job.progress.bytes
        )
        answer.copied.root = done.root
        for each in done.troubles:
            answer.copied.exceptions.add(path=each.path, what=each.what, reason=each.reason)
        if done.tally is not None:
            answer.copied.compared.CopyFrom(_compared(done.tally))
        yield answer

    async def RelinkDomain(
        self, request: exchange_pb2.RelinkDomainRequest, context: Context
    ) -> exchange_pb2.RelinkDomainResponse:
        """Other links; raises InvalidSpec, NotFound, CallerDenied, Refused, TargetChanged, Unavailable."""
        wrong: dict[str, str] = {}
        path = self._path(request.target, "domain", request.domain, wrong)
        for field in ("old_prefix", "new_prefix"):
            if not getattr(request, field):
                wrong[field] = f"{field} is how links begin, like s3://bucket/folder/"
        refuse(wrong)
        need_library()
        from fileserver.hdf5.recast import Relinking

        bucket = self._bucket(request.target)
        async with self._patient(request.target) as connection:
            await root_of(connection, path)
            job = Relinking(connection, bucket, request.old_prefix, request.new_prefix)
            done = await job.run(path, time.time())
        return exchange_pb2.RelinkDomainResponse(root=done.root, datasets=done.datasets)

    def _bucket(self, target: str) -> Plane:
        """The plane that is a server's bucket; raises Refused where there is none."""
        name = self._targets.name(target)
        storage = self._targets.settings(name).storage
        if not storage:
            msg = f"this writes to the bucket of HSDS '{name}': name the plane that it is as `storage` of that server"
            raise Refused(msg, hsds=name)
        return self._planes.plane(storage)

    def _known(self, target: str) -> Plane | None:
        """The plane that is a server's bucket, if there is one."""
        storage = self._targets.settings(target).storage
        return self._planes.plane(storage) if storage else None

    def _spool(self) -> Path:
        """The folder for files in the making; those of a server that was killed are gone."""
        folder = self._state / _FOLDER
        if not self._swept:
            shutil.rmtree(folder, ignore_errors=True)
            self._swept = True
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _path(self, target: str, field: str, text: str, wrong: dict[str, str], *, of: str = "target") -> str:
        """The path of a domain's address; what is wrong with it or with the server's name is added to `wrong`."""
        try:
            self._targets.name(target)
        except InvalidSpec as error:
            wrong |= {of: error.violations["target"]}
        try:
            return address.parse(text, field)
        except InvalidSpec as error:
            wrong |= error.violations
            return ""

    @asynccontextmanager
    async def _patient(self, target: str) -> AsyncIterator[Connection]:
        """A connection of this call alone, which waits for a busy server as long as a transfer does."""
        name = self._targets.name(target)
        made = connect(name, self._targets.settings(name), Patience())
        try:
            yield made
        finally:
            await made.aclose()


async def root_of(connection: Connection, path: str) -> str:
    """The root group of a domain; raises NotFound for a folder as well."""
    from fileserver.hdf5.hsds import domains

    there = await domains.stat(connection, path)
    if there.is_folder:
        msg = f"{address.show(path)} on HSDS '{connection.name}' is a folder: name a domain in it"
        raise NotFound(msg, hsds=connection.name, domain=address.show(path))
    return there.root


async def until(work: asyncio.Future[T]) -> AsyncGenerator[None]:
    """Every second until `work` has ended; whoever stops waiting cancels it, and waits until it has cleaned up.

    Raises what `work` does.
    """
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=_TOLD)
            yield
    finally:
        if not work.done():
            work.cancel()
            await until_done(work)
            if not work.cancelled():
                work.exception()  # looked at: who asked has gone
    work.result()


def _depth(asked: exchange_pb2.Comparison.ValueType) -> Depth | None:
    from fileserver.hdf5.compare import Depth

    depths = {
        exchange_pb2.COMPARISON_NONE: None,
        exchange_pb2.COMPARISON_METADATA: Depth.NONE,
        exchange_pb2.COMPARISON_FULL: Depth.FULL,
    }
    return depths.get(asked, Depth.SAMPLE)


def _compared(tally: Tally) -> exchange_pb2.Compared:
    return exchange_pb2.Compared(
        objects=tally.objects, attributes=tally.attributes, datasets=tally.datasets, bytes=tally.bytes
    )
