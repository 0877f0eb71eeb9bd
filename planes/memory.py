"""A plane in memory: the contract with nothing in the way. For tests and demonstrations; its objects die with it."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal, Self

from typing_extensions import Buffer

from planes.checksum import compute
from planes.errors import AlreadyExists, Changed, Corrupt, NotFound, OutOfRange, PathEscapes, Refused, Unsupported
from planes.left_out import Tell
from planes.pack import must_have
from planes.plane import KIB, MIB, Capabilities, Extent, Info, Limits, Presign, StepReceipt, Take, Ticket, Unfinished
from planes.settings import PlaneSettings

LIMITS: Final = Limits(
    min_step=1,
    max_step=64 * MIB,
    max_steps=10_000,
    max_object=1024 * MIB,
    put_size=MIB,
    copy_size=MIB,
    min_copy_source=0,
    single_put=64 * KIB,
    whole_copy=64 * KIB,
)
CAPABILITIES: Final = Capabilities(
    checksums=frozenset({"crc64nvme"}), atomic_create=True, shared=False, metadata=8 * KIB, pours=True
)


class MemorySettings(PlaneSettings):
    """Nothing but what all planes have."""

    type: Literal["memory"] = "memory"


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    info: Info
    upload_id: str


@dataclass(slots=True)
class _Draft:
    key: str
    upload_id: str
    replace: bool
    content_type: str
    metadata: Mapping[str, str]
    steps: dict[int, tuple[int, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class Store:
    """The objects and open uploads of one place; several planes may share it, as processes share a disk."""

    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    objects: dict[str, _Object] = field(default_factory=dict)
    drafts: dict[tuple[str, str], _Draft] = field(default_factory=dict)
    _versions: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def show(self, draft: _Draft, data: bytes) -> Info:
        """Make an object visible.

        Raises:
            AlreadyExists: another attempt made one of this key, and it was not to be replaced.
        """
        there = self.objects.get(draft.key)
        if there is not None and not draft.replace and there.upload_id != draft.upload_id:
            msg = f"{draft.key} exists already; remove it, or overwrite it on purpose"
            raise AlreadyExists(msg, key=draft.key)
        checksums = {"crc64nvme": compute(data)}
        facts = (checksums, draft.content_type, draft.metadata)
        info = Info(draft.key, len(data), str(next(self._versions)), datetime.now(UTC), *facts)
        self.objects[draft.key] = _Object(data, info, draft.upload_id)
        return info

    def cut(self, key: str, version: str, start: int, end: int) -> bytes:
        """Bytes of an object, which must be of `version`; empty stands for any."""
        found = self.objects.get(key)
        if version and (found is None or found.info.version != version):
            msg = f"{key} was changed after it was planned; start again when nobody writes to it"
            raise Changed(msg, key=key, pinned=version)
        if found is None:
            msg = f"{key} is not there"
            raise NotFound(msg, key=key)
        if end > len(found.data):
            msg = f"{key} has {len(found.data)} bytes, not {end}"
            raise OutOfRange(msg, key=key, size=str(len(found.data)), offset=str(end))
        return found.data[start:end]


class MemoryPlane:
    """Objects in a dictionary; what its verbs promise is said in `planes.plane`."""

    def __init__(self, name: str, settings: MemorySettings | None = None, store: Store | None = None) -> None:
        del settings  # there is nothing to set; the signature is that of all providers
        self._name = name
        self._store = store or Store()

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def limits(self) -> Limits:
        """Small ones, so that tests reach them."""
        return LIMITS

    @property
    def capabilities(self) -> Capabilities:
        """Keeps the CRC64NVME of every object."""
        return CAPABILITIES

    async def stat(self, key: str) -> Info:
        """Facts about an object."""
        self._store.cut(_legal(key), "", 0, 0)
        return self._store.objects[key].info

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Objects in byte order of their keys."""
        del left_out
        for key in sorted(self._store.objects, key=str.encode):
            found = self._store.objects.get(key)
            if found is not None and key.startswith(prefix) and key.encode() > after.encode():
                yield found.info

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Copy bytes of an object."""
        into[:] = self._store.cut(_legal(extent.key), extent.version, extent.start, extent.end)

    async def stream(self, extent: Extent, take: Take) -> None:
        """Hand over bytes of an object, in two slices, so that tests see more than one."""
        data = memoryview(self._store.cut(_legal(extent.key), extent.version, extent.start, extent.end))
        middle = len(data) // 2
        for part in (data[:middle], data[middle:]):
            if part:
                await asyncio.to_thread(take, part)

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
        """Keep a whole object."""
        draft = _Draft(_legal(key), upload_id, replace, content_type, metadata or {})
        return _receipt(1, self._store.show(draft, bytes(data)).checksums["crc64nvme"], memoryview(data).nbytes)

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """Keep a whole object under another key too."""
        del url
        data = self._redeem(ticket, 0, ticket.size)
        source = self._store.objects[ticket.location["key"]].info
        draft = _Draft(_legal(key), upload_id, replace, source.content_type, source.metadata)
        info = self._store.show(draft, data)
        return _receipt(1, info.checksums["crc64nvme"], len(data))

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> MemoryUpload:
        """Begin an object in steps; its CRC64NVME is kept, whatever `kind` says."""
        del kind
        draft = _Draft(_legal(key), upload_id, replace, content_type, metadata or {})
        self._store.drafts[key, upload_id] = draft
        return MemoryUpload(self, key, upload_id)

    def resume(self, token: str) -> MemoryUpload:
        """The upload of a token of this store."""
        record = json.loads(token)
        if record["store"] != self._store.identity:
            msg = f"this token is of another store than that of plane {self._name}"
            raise Refused(msg, plane=self._name)
        return MemoryUpload(self, record["key"], record["upload_id"])

    async def discard(self, key: str, upload_id: str) -> None:
        """Forget an upload."""
        self._store.drafts.pop((key, upload_id), None)

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Uploads that are open."""
        for key, attempt in sorted(self._store.drafts):
            if key.startswith(prefix):
                yield Unfinished(key, attempt)

    async def drop(self, one: Unfinished) -> bool:
        """Forget an upload."""
        return self._store.drafts.pop((one.key, one.attempt), None) is not None

    async def delete(self, key: str, *, version: str = "") -> None:
        """Forget an object."""
        there = self._store.objects.get(_legal(key))
        if there is not None and version in {"", there.info.version}:
            del self._store.objects[key]

    def copy_ticket(self, info: Info) -> Ticket | None:
        """A ticket for this store alone."""
        return Ticket("memory", self._store.identity, {"key": info.key}, info.version, info.size)

    def accepts(self, ticket: Ticket) -> bool:
        """Whether it is of the same store."""
        return ticket.kind == "memory" and ticket.scope == self._store.identity

    async def presign(self, ticket: Ticket) -> str:
        """Memory has no addresses."""
        msg = f"plane {self._name} is memory of this process: nobody else can read there"
        raise Unsupported(msg, plane=self._name, kind=ticket.kind)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _redeem(self, ticket: Ticket, start: int, end: int) -> bytes:
        if not self.accepts(ticket):
            msg = f"plane {self._name} copies its own objects only; read these bytes and put them instead"
            raise Unsupported(msg, plane=self._name, kind=ticket.kind)
        return self._store.cut(ticket.location["key"], ticket.version, start, end)


class MemoryUpload:
    """Steps in a dictionary; what its verbs promise is said in `planes.plane`."""

    def __init__(self, plane: MemoryPlane, key: str, upload_id: str) -> None:
        self._plane = plane
        self._store = plane._store  # noqa: SLF001 - two classes of one provider
        self._key = key
        self._id = upload_id

    @property
    def token(self) -> str:
        """Names the store, key and attempt."""
        return json.dumps({"store": self._store.identity, "key": self._key, "upload_id": self._id})

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Keep a step."""
        held = bytes(data)
        if crc64nvme is not None and compute(held) != crc64nvme:
            msg = f"step {number} of {self._key} has checksum {compute(held):016x} instead of {crc64nvme:016x}"
            raise Corrupt(msg, key=self._key)
        self._draft().steps[number] = (offset, held)
        return _receipt(number, compute(held), len(held))

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """Keep a step."""
        held = bytearray()
        await stream(held.extend)
        must_have(self._key, number, len(held), size)
        return await self.put(number, offset, held)

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Keep a step of another object's bytes."""
        del url
        return await self.put(number, offset, self._plane._redeem(ticket, start, end))  # noqa: SLF001 - as above

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Join the steps."""
        del steps  # the store remembers them
        there = self._store.objects.get(self._key)
        if (self._key, self._id) not in self._store.drafts and there is not None and there.upload_id == self._id:
            return there.info
        draft = self._draft()
        data = self._joined(draft)
        if len(data) != size or (crc64nvme is not None and compute(data) != crc64nvme):
            msg = f"{self._key} would have {len(data)} bytes of checksum {compute(data):016x}, which is not expected"
            raise Corrupt(msg, key=self._key, found=str(len(data)), expected=str(size))
        info = self._store.show(draft, data)
        del self._store.drafts[self._key, self._id]
        return info

    async def made(self) -> Info | None:
        """The object, if its last writer was this attempt."""
        there = self._store.objects.get(self._key)
        return there.info if there is not None and there.upload_id == self._id else None

    async def abort(self) -> None:
        """Forget the steps."""
        self._store.drafts.pop((self._key, self._id), None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abort()

    def _draft(self) -> _Draft:
        try:
            return self._store.drafts[self._key, self._id]
        except KeyError:
            msg = f"upload {self._id} of {self._key} is gone: it was aborted, or begun anew"
            raise NotFound(msg, key=self._key, upload_id=self._id) from None

    def _joined(self, draft: _Draft) -> bytes:
        joined = bytearray()
        for number, (offset, data) in sorted(draft.steps.items()):
            if offset != len(joined):
                msg = f"step {number} of {self._key} begins at {offset}, but the steps before it end at {len(joined)}"
                raise Corrupt(msg, key=self._key, offset=str(offset))
            joined += data
        return bytes(joined)


def _receipt(number: int, crc64nvme: int, size: int) -> StepReceipt:
    return StepReceipt(number, size, crc64nvme, compared=True)


def _legal(key: str) -> str:
    if "\0" in key or any(element in {"", ".", ".."} for element in key.split("/")):
        msg = f"{key!r} is not a key: no '..', '.', '//' or leading '/'"
        raise PathEscapes(msg, key=key)
    return key
