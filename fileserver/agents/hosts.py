"""A plane whose files belong to hosts: each key, HOST/PATH, goes to the agent of that host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from typing_extensions import Buffer

from fileserver.agents.plane import AgentPlane, AgentUpload
from fileserver.hosts import host_of
from fileserver.transfer.manifest import Source
from fileserver.transfer.spec import Format
from planes.errors import PathEscapes, Refused
from planes.left_out import Tell
from planes.plane import Capabilities, Extent, Info, Limits, Presign, StepReceipt, Take, Ticket, Unfinished

if TYPE_CHECKING:  # brings numpy, which a server should not load before the first file is split
    from fileserver.transfer.partition import Points


class HostsPlane:
    """All hosts of a plane; what its verbs promise is said in `planes.plane`.

    Args:
        name: of the plane.
        hosts: the files of each host, by its name.
    """

    def __init__(self, name: str, hosts: Mapping[str, AgentPlane]) -> None:
        self.name = name
        self._hosts = hosts

    @property
    def limits(self) -> Limits:
        """Those of any host."""
        return next(iter(self._hosts.values())).limits

    @property
    def capabilities(self) -> Capabilities:
        """Those of any host."""
        return next(iter(self._hosts.values())).capabilities

    async def partition(self, sources: Sequence[Source], form: Format, targets: Sequence[int]) -> Points | None:
        """Split points, found by the agent that has all of the sources; None where no agent has."""
        hosts = {host_of(source.key) for source in sources}
        return await self._of(sources[0].key).partition(sources, form, targets) if len(hosts) == 1 else None

    async def stat(self, key: str) -> Info:
        """Facts about a file."""
        return await self._of(key).stat(key)

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Files of one host after the other, in byte order of their keys."""
        for begin, plane in self._below(prefix):
            low = after if after.startswith(begin) else ""
            if not low and after > begin:
                continue
            async for info in plane.list(prefix if prefix.startswith(begin) else begin, low, left_out):
                yield info

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` from a file."""
        await self._of(extent.key).read(extent, into)

    async def stream(self, extent: Extent, take: Take) -> None:
        """Hand over the bytes of a file."""
        await self._of(extent.key).stream(extent, take)

    async def put(
        self,
        key: str,
        data: Buffer,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> StepReceipt:
        """Write a small file."""
        del content_type, metadata
        return await self._of(key).put(key, data, upload_id=upload_id, replace=replace)

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """There are no native copies between machines."""
        return await self._of(key).copy(key, ticket, upload_id=upload_id, replace=replace, url=url)

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> AgentUpload:
        """Begin a file in steps."""
        del content_type, metadata, kind
        return await self._of(key).upload(key, upload_id=upload_id, replace=replace)

    def resume(self, token: str) -> AgentUpload:
        """The upload of a token, which begins with its host."""
        return self._of(token).resume(token)

    async def discard(self, key: str, upload_id: str) -> None:
        """Remove what an attempt left."""
        await self._of(key).discard(key, upload_id)

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Files in the making of all hosts."""
        for begin, plane in self._below(prefix):
            async for one in plane.unfinished(prefix if prefix.startswith(begin) else begin):
                yield one

    async def drop(self, one: Unfinished) -> bool:
        """Remove a file in the making."""
        await self._of(one.key).discard(one.key, one.attempt)
        return True

    async def delete(self, key: str, *, version: str = "") -> None:
        """Delete a file."""
        await self._of(key).delete(key, version=version)

    def copy_ticket(self, info: Info) -> Ticket | None:
        """No other provider reaches these files: None."""
        del info
        return None

    def accepts(self, ticket: Ticket) -> bool:
        """No: it copies nothing by itself."""
        del ticket
        return False

    async def presign(self, ticket: Ticket) -> str:
        """Files have no addresses: raises Unsupported."""
        return await next(iter(self._hosts.values())).presign(ticket)

    async def aclose(self) -> None:
        """Nothing to release."""

    def _of(self, key: str) -> AgentPlane:
        """The files of the host that a key, or a token, begins with.

        Raises:
            Refused: it begins with none of this plane's.
        """
        host = host_of(key)
        if not host:
            msg = f"{self.name}:{key[:200]} says no host: write {self.name}:HOST/PATH ({', '.join(self._hosts)})"
            raise PathEscapes(msg, plane=self.name, key=key[:200])
        if host not in self._hosts:
            msg = f"plane {self.name} has no host {host[:60]}; its hosts are {', '.join(self._hosts)}"
            raise Refused(msg, plane=self.name, host=host[:60])
        return self._hosts[host]

    def _below(self, prefix: str) -> Iterator[tuple[str, AgentPlane]]:
        """The hosts on which something may begin with a prefix, each with how its keys begin, in order."""
        for begin in sorted(f"{host}/" for host in self._hosts):
            if begin.startswith(prefix) or prefix.startswith(begin):
                yield begin, self._hosts[begin[:-1]]
