"""A directory of this host as a plane. A file system is made to look like an object store, not the other way round.

An object in the making is a hidden file beside its final name; it gets that name by link(2), which refuses to
overwrite, or rename(2), which replaces. Copies are made by the kernel. All blocking work runs in threads of the
plane's own.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from typing_extensions import Buffer

from planes import posix_many
from planes.errors import Refused, Unsupported
from planes.left_out import Tell
from planes.many import Whole
from planes.plane import GIB, MIB, Capabilities, Extent, Info, Limits, Presign, StepReceipt, Take, Ticket, Unfinished
from planes.posix_copy import Mover
from planes.posix_draft import from_token
from planes.posix_list import walk
from planes.posix_paths import Tree
from planes.posix_site import Site, info
from planes.posix_sync import sync_file_system
from planes.posix_upload import PosixUpload, receipt
from planes.settings import PlaneSettings
from planes.threads import Threads

LOCAL: Final = "local"
"""Name of the plane whose keys are absolute paths without their leading slash."""

LIMITS: Final = Limits(
    min_step=1,
    max_step=1024 * GIB,
    max_steps=1 << 30,
    max_object=1 << 62,
    put_size=32 * MIB,
    copy_size=256 * MIB,
    min_copy_source=0,
    single_put=16 * MIB,
    whole_copy=16 * MIB,
)
CAPABILITIES: Final = Capabilities(checksums=frozenset(), atomic_create=True, shared=False, pours=True)

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,46}[a-z0-9])?")
_PAGE: Final = 256  # entries of a listing that one trip to a thread brings back


class PosixSettings(PlaneSettings):
    """A directory that this file server can see, or one of each of some hosts, which their agents see."""

    type: Literal["posix"] = "posix"
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Instead of a path: machines whose agents keep the files; part p is on host p mod their number.",
    )
    host_group: str = Field(default="", description="The same by the name of a group of `host_groups`.")
    path: Path | None = Field(
        default=None, validate_default=True, description="Absolute path of the directory; it must exist."
    )
    durability: Literal["fsync", "os"] = Field(
        default="fsync",
        description=(
            "`fsync`: a commit is on the disk when it returns, and kernel copies are compared with their source; "
            "`os`: the kernel's word is taken for both."
        ),
    )
    shared: bool = Field(
        default=False, description="Every file server of the same database sees the same files below this path."
    )
    symlinks: Literal["inside", "refuse"] = Field(
        default="inside", description="`inside`: follow those that stay inside the directory; `refuse`: none."
    )

    @property
    def location(self) -> str:
        """The directory, or the hosts."""
        return str(self.path) if self.path else f"hosts {', '.join(self.hosts)}"

    @field_validator("hosts", mode="before")
    @classmethod
    def _is_a_list(cls, value: object) -> object:
        if isinstance(value, str):
            msg = "is a list, like [node1, node2]"
            raise ValueError(msg)  # noqa: TRY004 - what a validator is to raise
        return value

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := wrong_hosts(value):
            raise ValueError(wrong)
        return value

    @model_validator(mode="after")
    def _is_told_nothing_of_others(self) -> Self:
        told = {"shared", "limits"} & self.model_fields_set
        if not self.path and told:
            msg = f"leave {' and '.join(sorted(told))} out: the agents of its hosts are told by their own options"
            raise ValueError(msg)
        return self

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        elsewhere = [name for name in ("hosts", "host_group") if info.data.get(name, True)]  # a wrong one is told so
        if value is None and not elsewhere:
            msg = "is required: the directory of the file servers; or `hosts` (or `host_group`), which have agents"
            raise ValueError(msg)
        if len(elsewhere) + (value is not None) > 1:
            msg = "one place is enough: a path, or hosts, or a host_group"
            raise ValueError(msg)
        if value is not None and not value.is_absolute():
            msg = f"must be an absolute path, not {str(value)!r}: the server has no working directory to speak of"
            raise ValueError(msg)
        return value


def wrong_hosts(hosts: Sequence[str]) -> str:
    """What is wrong with names of hosts, "" if nothing is: they are the first elements of keys."""
    for host in hosts:
        if not _HOST.fullmatch(host):
            return f"{host!r} is no name of a host: lower-case letters, digits, '.' and '-', at most 48 of them"
    return "a host is named twice" if len(set(hosts)) < len(hosts) else ""


class PosixPlane:
    """A directory as a plane; what its verbs promise is said in `planes.plane`.

    Raises:
        Refused: it is one of each of some hosts, and none of this file server's.
    """

    def __init__(self, name: str, settings: PosixSettings) -> None:
        if settings.path is None:
            msg = f"plane {name} belongs to the agents of its hosts: that is for planes that the file servers reach"
            raise Refused(msg, plane=name)
        self._name = name
        cores = os.cpu_count() or 1
        # By what the host has, not by what the limits are now: those may be widened while it runs.
        self._threads = Threads(f"plane-{name}", 4 * cores)
        # Copies in the kernel keep a core busy each: more of them side by side only fight for the caches.
        self._copiers = Threads(f"copy-{name}", max(2, cores))
        self._unsettled = False
        self._site = Site(
            Tree(name, str(settings.path), settings.symlinks),
            durable=settings.durability == "fsync",
            prunes=settings.category != "lz",
            mover=Mover(both=settings.durability == "fsync"),
        )

    @classmethod
    def local(cls, *, durable: bool = True) -> Self:
        """This host's files by absolute path; symlinks lead anywhere, and no directory of the user's is removed."""
        plane = cls(LOCAL, PosixSettings(path=Path("/")))
        plane._site = Site(Tree(LOCAL, "/", "anywhere"), durable=durable, prunes=False)
        return plane

    def in_bulk(self) -> None:
        """From now on, files are durable only after `settle`: for many that nobody looks at before."""
        self._unsettled = self._site.durable
        self._site = replace(self._site, durable=False)

    @property
    def is_unsettled(self) -> bool:
        """Whether it is in bulk."""
        return self._unsettled

    async def settle(self) -> None:
        """Return when everything that was written in bulk is durable; nothing to do where that was not asked for.

        Raises:
            Refused, Full: the file system could not write it.
        """
        if self._unsettled:
            await self._threads.run(lambda _: self._settled())

    def _settled(self) -> None:
        tree = self._site.tree
        if self._unsettled:
            with tree.directory("") as directory, tree.translating("make durable", ""):
                sync_file_system(directory)

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def limits(self) -> Limits:
        """Hardly any."""
        return LIMITS

    @property
    def capabilities(self) -> Capabilities:
        """Stores no checksums; of one host."""
        return CAPABILITIES

    async def stat(self, key: str) -> Info:
        """Facts about a file.

        Raises:
            Refused: it is a directory, a pipe, a device or a socket.
        """
        return info(key, await self._threads.run(lambda _: self._site.tree.stat_file(key)))

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Files in byte order of their keys; symlinks are followed where the settings allow it.

        Pipes, sockets, devices and links that lead nowhere, in a circle or out are left out.
        """
        found = walk(self._site.tree, prefix, after, left_out=left_out)
        while page := await self._threads.run(lambda _: list(islice(found, _PAGE))):
            for key, facts in page:
                yield info(key, facts)

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` from a file, which is looked at before the first and after the last byte."""
        await self._threads.run(partial(self._site.read, extent, into))

    async def read_many(self, extents: Sequence[Extent]) -> Sequence[bytes]:
        """The bytes of many extents as `read` has them, one after the other, in one trip to a thread."""
        return await self._threads.run(lambda stop: [self._site.bytes_of(each, stop) for each in extents])

    async def stream(self, extent: Extent, take: Take) -> None:
        """Hand over a file's bytes; it is looked at before the first and after the last."""
        await self._threads.run(partial(self._site.stream, extent, take))

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
        """Write a whole file. Files have no content type and no metadata: both are dropped."""
        del content_type, metadata
        site = self._site
        proof = await self._threads.run(
            lambda stop: site.whole(key, upload_id, lambda fd: site.mover.put(data, fd, 0, None, stop), replace=replace)
        )
        return receipt(1, proof)

    async def put_many(self, objects: Sequence[Whole]) -> Sequence[StepReceipt]:
        """Write whole files, one after the other, in one trip to a thread, and make them durable together."""
        site = self._site
        proofs = await self._threads.run(lambda stop: posix_many.write(site, objects, stop, self._settled))
        return [receipt(1, proof) for proof in proofs]

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """Copy a whole file in the kernel."""
        del url
        site = self._site
        proof = await self._copiers.run(
            lambda stop: site.whole(
                key, upload_id, lambda fd: site.redeem(ticket, 0, ticket.size, fd, 0, stop), replace=replace
            )
        )
        return receipt(1, proof)

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> PosixUpload:
        """Begin a file in steps; files keep no checksum, so `kind` is dropped too."""
        del content_type, metadata, kind
        try:
            draft = await self._threads.run(lambda _: self._site.begin(key, upload_id, replace=replace))
        except asyncio.CancelledError:
            await self.discard(key, upload_id)  # nobody will hold the token
            raise
        return PosixUpload(self._site, self._threads, self._copiers, draft)

    def resume(self, token: str) -> PosixUpload:
        """The upload of a token."""
        return PosixUpload(self._site, self._threads, self._copiers, from_token(token))

    async def discard(self, key: str, upload_id: str) -> None:
        """Remove the temporary file of an attempt, if there is one; a whole file that is visible stays."""
        await self._threads.run(lambda _: self._site.discard(key, upload_id))

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Temporary files, which are called by their upload ids."""
        found = self._site.unfinished(prefix)
        while page := await self._threads.run(lambda _: list(islice(found, _PAGE))):
            for one in page:
                yield one

    async def drop(self, one: Unfinished) -> bool:
        """Remove a temporary file."""
        await self._threads.run(lambda _: self._site.discard(one.key, one.attempt))
        return True

    async def delete(self, key: str, *, version: str = "") -> None:
        """Remove a file, and directories that are empty without it unless this is a landing zone."""
        await self._threads.run(lambda _: self._site.delete(key, version))

    def copy_ticket(self, info: Info) -> Ticket | None:
        """Where the file is, for other planes of this host."""
        return self._site.ticket(info)

    def accepts(self, ticket: Ticket) -> bool:
        """Whether it is a file that this process sees as its own host's."""
        return self._site.accepts(ticket)

    async def presign(self, ticket: Ticket) -> str:
        """Files have no addresses that a store could fetch: raises Unsupported."""
        msg = f"plane {self._name}: no store can fetch a file of this host by itself"
        raise Unsupported(msg, plane=self._name, kind=ticket.kind)

    async def aclose(self) -> None:
        """Let the threads go."""
        self._threads.close()
        self._copiers.close()
