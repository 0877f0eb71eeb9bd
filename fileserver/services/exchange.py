"""ExchangeService: between HDF5 files and domains of HSDS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

from fileserver.auth import allow
from fileserver.calls import Context
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds import address
from fileserver.hdf5.hsds.targets import Targets, connect
from fileserver.services.hdf5 import need_library, place_of
from fileserver.v1 import exchange_pb2, exchange_pb2_grpc
from planes.errors import NotFound
from planes.retrying import Patience

if TYPE_CHECKING:
    from fileserver.hdf5.hsds.connection import Connection

_TOGETHER: Final = 100  # differences of one answer

# The HDF5 library and the HTTP client are loaded, and need be installed, for who has files and an HSDS.
# ruff: noqa: PLC0415


class ExchangeServicer(exchange_pb2_grpc.ExchangeServiceServicer):
    """What goes between files and domains.

    Args:
        planes: where the files are.
        targets: the configured HSDS servers.
    """

    def __init__(self, planes: Configured, targets: Targets) -> None:
        self._planes = planes
        self._targets = targets

    async def CompareDomain(
        self, request: exchange_pb2.CompareDomainRequest, context: Context
    ) -> AsyncIterator[exchange_pb2.CompareDomainResponse]:
        """All differences; raises InvalidSpec, NotFound, CallerDenied, FormatMismatch, Changed, Unavailable."""
        wrong: dict[str, str] = {}
        plane, key = place_of(request.source, wrong)
        path = self._path(request.target, "domain", request.domain, wrong)
        refuse(wrong)
        allow(plane)
        need_library()
        from fileserver.hdf5 import compare
        from fileserver.hdf5.hsds.objects import Objects
        from fileserver.hdf5.source import opened

        depths = {1: compare.Depth.NONE, 3: compare.Depth.FULL}
        tally = compare.Tally()
        async with self._patient(request.target) as connection:
            root = await root_of(connection, path)
            async with opened(self._planes.plane(plane), key) as source:
                depth = depths.get(request.data, compare.Depth.SAMPLE)
                found = compare.differences(source, Objects(connection, path, root), root, depth, tally=tally)
                answer = exchange_pb2.CompareDomainResponse()
                async with aclosing(found):
                    async for each in found:
                        answer.differences.add(path=each.path, what=each.what, left=each.left, right=each.right)
                        if len(answer.differences) == _TOGETHER:
                            yield answer
                            answer = exchange_pb2.CompareDomainResponse()
        answer.compared.objects, answer.compared.attributes = tally.objects, tally.attributes
        answer.compared.datasets, answer.compared.bytes = tally.datasets, tally.bytes
        yield answer

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


def refuse(wrong: dict[str, str]) -> None:
    """Raise InvalidSpec with every field that is wrong, if any is."""
    if wrong:
        raise InvalidSpec("; ".join(wrong.values()), wrong)
