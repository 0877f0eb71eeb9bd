"""Whose files an agent has: those that a command has named, or the folders of a host that are the data of planes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Final, Literal, Protocol

from typing_extensions import Buffer

from fileserver.errors import InvalidSpec
from fileserver.hosts import RESTARTED
from fileserver.v1 import agent_pb2 as pb
from planes.errors import Corrupt, NotFound, Refused, Unsupported
from planes.left_out import Tell
from planes.limited import LimitedPlane
from planes.opening import decorated
from planes.plane import Extent, Info, Plane, Presign, StepReceipt, Take, Ticket, Unfinished, Upload
from planes.posix import PosixPlane, PosixSettings
from planes.settings import PlaneLimits
from planes.wrapped import WrappedPlane, WrappedUpload, find

Durability = Literal["fsync", "os"]

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Machine(Protocol):
    """The files of an agent."""

    def files(self, plane: str) -> Plane:
        """What an assignment about a plane ("": the command's) is about; raises Refused."""
        ...

    def beside(self, plane: str, other: Plane) -> Plane:
        """A plane as it is seen from here: what is not on this machine is `other`."""
        ...

    def welcome(self, told: pb.Welcome) -> None:
        """The file servers know the agent."""
        ...

    async def aclose(self) -> None:
        """Let the files go."""
        ...


class Commanded:
    """The files of a command.

    Args:
        name: of the plane that they are.
        fenced: what may be touched.
    """

    def __init__(self, name: str, fenced: Plane) -> None:
        self._name = name
        self._fenced = fenced

    def files(self, plane: str) -> Plane:
        """Those of the command, whatever they are called."""
        del plane
        return self._fenced

    def beside(self, plane: str, other: Plane) -> Plane:
        """Its own plane is whole here."""
        return self._fenced if plane == self._name else other

    def welcome(self, told: pb.Welcome) -> None:
        """Nothing more to know."""

    async def aclose(self) -> None:
        """Let the files go."""
        await self._fenced.aclose()


class Host:
    """The folders of a host.

    Args:
        name: of the host.
        folders: by plane.

    Raises:
        InvalidSpec: a folder is none, or holds that of another plane.
    """

    def __init__(self, name: str, folders: Mapping[str, str]) -> None:
        self._name = name
        self._folders = {plane: Path(folder) for plane, folder in folders.items()}
        for plane, folder in self._folders.items():
            if why := _wrong_with(folder):
                msg = f"{str(folder)[:200]} {why}: make it, or name another with --plane {plane}=FOLDER"
                raise InvalidSpec(msg, {f"planes.{plane}": msg})
        for one, other in permutations(self._folders, 2):
            if _holds(self._folders[one], self._folders[other]):
                msg = (
                    f"{str(self._folders[other])[:200]} of plane {other} lies in {str(self._folders[one])[:200]} of "
                    f"plane {one}: each would take the files of the other for its own, so give each a folder of its own"
                )
                raise InvalidSpec(msg, {f"planes.{other}": msg})
        self._limited = LimitedPlane(PosixPlane.local(), PlaneLimits())
        self._served: list[pb.ServedPlane] = []
        self._open: dict[str, HomePlane] = {}

    @property
    def limited(self) -> LimitedPlane:
        """What bounds all of them together."""
        return self._limited

    def files(self, plane: str) -> Plane:
        """The folder of a plane."""
        if plane not in self._open:
            msg = (
                f"the agent of host {self._name} serves no plane {plane}: start it with --plane {plane}=FOLDER as well"
            )
            raise Refused(msg, plane=plane, host=self._name)
        return self._open[plane]

    def beside(self, plane: str, other: Plane) -> Plane:
        """Of a plane that is served here, this host's keys are here."""
        own = self._open.get(plane)
        return other if own is None else Beside(own, other)

    def welcome(self, told: pb.Welcome) -> None:
        """Open the folders as the configuration of the planes has it."""
        if (served := list(told.served)) == self._served:
            return
        self._served = served
        for each in served:
            durability: Durability = "fsync" if each.durable else "os"
            settings = PosixSettings(
                path=self._folders[each.name],
                durability=durability,
                symlinks="inside" if each.follows else "refuse",
                category="data" if each.prunes else "lz",
            )
            opened = decorated(PosixPlane(f"{each.name}@{self._name}", settings), PlaneLimits())
            if (limited := find(opened, LimitedPlane)) is not None:
                limited.share(self._limited)
            self._open[each.name] = HomePlane(opened, self._name)

    async def aclose(self) -> None:
        """Let the files go."""
        for plane in self._open.values():
            await plane.aclose()
        await self._limited.aclose()


class HomePlane(WrappedPlane):
    """The files of one host, whose keys and tokens begin with its name.

    Args:
        inner: the folder.
        host: the name.
    """

    def __init__(self, inner: Plane, host: str) -> None:
        super().__init__(inner)
        self._begin = f"{host}/"

    def has(self, key: str) -> bool:
        """Whether a key is this host's."""
        return key.startswith(self._begin)

    async def stat(self, key: str) -> Info:
        """Facts about a file."""
        return replace(await self.inner.stat(self._own(key)), key=key)

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Files of this host."""
        low = self._own(after) if after else ""
        async for info in self.inner.list(self._own(prefix), low, left_out):
            yield replace(info, key=self._begin + info.key)

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` from a file."""
        await self.inner.read(replace(extent, key=self._own(extent.key)), into)

    async def stream(self, extent: Extent, take: Take) -> None:
        """Hand over the bytes of a file."""
        await self.inner.stream(replace(extent, key=self._own(extent.key)), take)

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
        """Write a file."""
        del content_type, metadata
        return await self.inner.put(self._own(key), data, upload_id=upload_id, replace=replace)

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> Upload:
        """Begin a file in steps."""
        del content_type, metadata, kind
        made = await self.inner.upload(self._own(key), upload_id=upload_id, replace=replace)
        return HomeUpload(made, self._begin, boot())

    def resume(self, token: str) -> Upload:
        """The upload of a token, which also says in which run of this machine it was begun."""
        begun, _, inner = self._own(token).partition("/")
        return HomeUpload(self.inner.resume(inner), self._begin, begun)

    def copy_ticket(self, info: Info) -> Ticket | None:
        """Nothing is copied but by reading it: None."""
        del info
        return None

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """The same: raises Unsupported."""
        del ticket, upload_id, replace, url
        msg = f"{key[:200]}: files of hosts are read and written, not copied at once"
        raise Unsupported(msg, key=key[:200])

    async def discard(self, key: str, upload_id: str) -> None:
        """Remove what an attempt left."""
        await self.inner.discard(self._own(key), upload_id)

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Files in the making."""
        async for one in self.inner.unfinished(self._own(prefix)):
            yield replace(one, key=self._begin + one.key)

    async def delete(self, key: str, *, version: str = "") -> None:
        """Delete a file."""
        await self.inner.delete(self._own(key), version=version)

    def _own(self, key: str) -> str:
        if not self.has(key):
            msg = f"{key[:200]} is not of this host, {self._begin[:-1]}"
            raise NotFound(msg, key=key[:200])
        return key.removeprefix(self._begin)


class HomeUpload(WrappedUpload):
    """A file in the making on a host."""

    def __init__(self, inner: Upload, begin: str, begun: str) -> None:
        super().__init__(inner)
        self._begin = begin
        self._begun = begun

    @property
    def token(self) -> str:
        """Host, run of the machine, and the token of the file itself."""
        return f"{self._begin}{self._begun}/{self.inner.token}"

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Make the file visible.

        Raises:
            Corrupt: the machine was started anew meanwhile, so what was written before may not have reached its disk;
                the fact `why` is `fileserver.hosts.RESTARTED`.
        """
        if self._begun != boot():
            msg = f"{self._begin[:-1]} was started anew while it was written to: what its disk may have lost goes again"
            raise Corrupt(msg, host=self._begin[:-1], why=RESTARTED)
        return self._named(await self.inner.commit(steps, size, crc64nvme))

    async def made(self) -> Info | None:
        """The file that this has made."""
        found = await self.inner.made()
        return None if found is None else self._named(found)

    def _named(self, info: Info) -> Info:
        return replace(info, key=self._begin + info.key)


class Beside(WrappedPlane):
    """A plane of many hosts, as one of them sees it: what it writes is its own, what it reads may be another's.

    Args:
        own: the files of this host.
        other: those of the others.
    """

    def __init__(self, own: HomePlane, other: Plane) -> None:
        super().__init__(own)
        self._own = own
        self._other = other

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` from a file."""
        await (self._own if self._own.has(extent.key) else self._other).read(extent, into)

    async def stream(self, extent: Extent, take: Take) -> None:
        """Hand over the bytes of a file."""
        await (self._own if self._own.has(extent.key) else self._other).stream(extent, take)


def _wrong_with(folder: Path) -> str:
    """Why a path is no folder that files may lie in; "" where it is one."""
    try:
        good = folder.is_absolute() and folder.is_dir()
    except (OSError, ValueError) as error:
        return f"cannot be looked at ({getattr(error, 'strerror', None) or error})"
    return "" if good else "is no folder of this machine"


def _holds(folder: Path, other: Path) -> bool:
    """Whether one folder is another, or that lies below it, by whatever ways they are reached."""
    there, real = folder.stat(), other.resolve()
    return any(os.path.samestat(there, each.stat()) for each in (real, *real.parents))


def boot() -> str:
    """Names the present run of this machine, from its start to its next."""
    return _BOOT.read_text(encoding="ascii").strip()
