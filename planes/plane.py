"""The contract of a plane: what every place that holds objects can do, and nothing else.

It mirrors object stores, not file systems: whole objects under keys, no rename, mkdir, append or open-for-update.
Keys are relative, `/`-separated, without a leading `/`; a provider adds its own root or prefix. Everything is
async; a provider with a blocking SDK runs it in a thread pool of its own.

Where providers differ:

| | posix | s3 | azure | memory |
| --- | --- | --- | --- | --- |
| version pin | device, inode, size, mtime_ns, ctime_ns | ETag and version id | ETag | a counter |
| stored checksums of `stat` | none | CRC64NVME, CRC32C or CRC32 of the whole | CRC64NVME of what we wrote | CRC64NVME |
| a step's checksum | target read back after the write | returned by the store | returned by the service | computed |
| `kind` of an upload | ignored | the checksum that the store keeps | ignored | ignored |
| content type, metadata | not kept | kept, 2 KB | kept, 8 KB; `-` in names becomes `_` | kept |
| smallest step but the last | none | 5 MiB | none | none |
| ranges are copied out of | files of the same host | objects over 5 MiB of the same endpoint | any blob, S3 | itself |
| `replace=False` on commit | link(2), exact | If-None-Match | If-None-Match | exact |
| a step put after the abort | refused | refused | refused by who aborted; else it is forgotten after a week | refused |

The rules that all keep, proved by `tests/contract/`:

- Nobody sees an object before its commit, and then sees all of it.
- `put` and `copy` of one upload run in any order, side by side, from any process that holds the token; the same
  number twice replaces; on return the bytes are stored.
- `commit` may be repeated: a second call for a committed upload answers like the first.
- `abort` and `delete` are idempotent, and leave no temporary object behind.
- A read pinned to a version that is not there any more raises `Changed`; it never returns other bytes.
- Every exception is one of `planes.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from typing_extensions import Buffer

from planes.left_out import Tell

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Take = Callable[[memoryview], None]
"""Takes a slice of bytes, which is valid only during the call; may block."""
Presign = Callable[[], Awaitable[str]]
"""Asks the source plane of a copy for a short-lived address of the ticket's object; called at the moment of use."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A provider's bounds for objects and for the steps of an upload; all sizes in bytes."""

    min_step: int
    """Smallest step but the last."""
    max_step: int
    max_steps: int
    max_object: int
    put_size: int
    """The size of a put step that suits this provider: a buffer in memory."""
    copy_size: int
    """The size of a copy step that suits this provider."""
    min_copy_source: int
    """A range can only be copied out of an object larger than this."""
    single_put: int
    """An object up to this size is written by `Plane.put` in one request."""
    whole_copy: int
    """An object up to this size is copied by `Plane.copy` in one request."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Plain facts about a provider that need no counterpart."""

    checksums: frozenset[str]
    """Kinds that `stat` may report for a whole object."""
    atomic_create: bool
    """`replace=False` holds even against a racing writer."""
    shared: bool
    """Every file server reaches it (a store), not only those on one host."""
    metadata: int = 0
    """Bytes of metadata that it keeps with an object, and then a content type too; 0 for neither."""
    confirms: bool = True
    """Its receipts say what it has stored; where not, those of puts say only what it was sent."""
    pours: bool = False
    """Its uploads take a step slice by slice (`Upload.pour`), not only whole from memory."""
    direct: bool = False
    """Nodes reach it by requests that are signed for them (`planes.direct`)."""


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of one object; `checksums` are of the whole object, by kind."""

    key: str
    size: int
    version: str
    modified: datetime
    checksums: Mapping[str, int] = field(default_factory=dict)
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes [start, end) of one version of one object."""

    key: str
    version: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Ticket:
    """Plain data, without credential, by which a provider may copy from an object itself.

    `kind` and `scope` say who can redeem it (for S3: same endpoint and same access key; for posix: same host);
    `location` is the provider's own address of the object.
    """

    kind: str
    scope: str
    location: Mapping[str, str]
    version: str
    size: int


@dataclass(frozen=True, slots=True)
class StepReceipt:
    """What one finished put or copy proved."""

    number: int
    size: int
    crc64nvme: int | None
    """Checksum of what was written, as the writer reports it, None if it does not; where a provider cannot
    (`Capabilities.confirms`), of what was put, and None for a copy.

    In an upload of another kind: computed here for a put, None for a copy.
    """
    etag: str = ""
    compared: bool = False
    """The checksum equals one that was computed from the source's bytes, not by the writer."""
    bytes_checked: int = 0
    """Bytes that were read for checksums alone."""
    other: int | None = None
    """Checksum of the upload's own kind, where that is not CRC64NVME."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload that is open, whoever began it."""

    key: str
    """What it is to become; at a file system another name in the same directory."""
    attempt: str = ""
    """Its upload id, where the provider says it: S3 and Azure do not."""
    handle: str = ""
    """The provider's own name for it."""


class Upload(Protocol):
    """An object in the making. As a context manager it aborts on leaving, unless it was committed."""

    @property
    def token(self) -> str:
        """Text by which `Plane.resume` continues in any process; holds no credential."""
        ...

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Store `data` as step `number` (1, 2, …), which begins at byte `offset` of the object.

        `crc64nvme` is the checksum of `data` if the caller knows it already.
        """
        ...

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """Store a step while it is being read: `stream` is called once and hands over `size` bytes in order.

        So no byte waits in memory: a slice is stored and checked while it is still in the processor's cache.

        Raises:
            Unsupported: this provider takes steps whole (`Capabilities.pours`): read, and put.
            Corrupt: `stream` ended after another number of bytes.
        """
        ...

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Let the provider copy bytes [start, end) of the ticket's object as step `number`.

        A provider that copies by fetching an address calls `url` for one; the others leave it alone.

        Raises:
            Changed: the source is not the ticket's version any more.
            Unsupported, Refused: this provider will not; the caller may read and put instead.
        """
        ...

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Make the object visible, whole, from all its steps in order of their numbers.

        `crc64nvme` is what the caller expects, if it knows. In an upload of another kind it is held against the
        steps only if all of them have one; the store is told the value that their `other` make together.

        Raises:
            AlreadyExists: the key exists and the upload was opened with `replace=False`.
            Corrupt: size or checksum is not what the caller expects, or a step lacks the `other` that the upload's
                kind needs; nothing became visible.
        """
        ...

    async def made(self) -> Info | None:
        """The object that this upload has made visible, if it is still there; asks, and changes nothing.

        So a clean-up after a crash knows what is its own, whoever has written the same key since.
        """
        ...

    async def abort(self) -> None:
        """Leave nothing behind; idempotent, and does nothing to a committed object."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Plane(Protocol):
    """A configured place that holds objects."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    @property
    def limits(self) -> Limits:
        """The provider's bounds."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Facts about the provider."""
        ...

    async def stat(self, key: str) -> Info:
        """Facts about one object; raises NotFound."""
        ...

    def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Objects whose key begins with `prefix` and is greater than `after`, in byte order of keys, streaming.

        Temporary objects of uploads are not listed. `Info.checksums` may be empty here. `left_out` is told, in any
        thread and perhaps twice, what is there and is no object.

        Raises:
            Refused: there is no `left_out`, and something is there whose name no key can have.
        """
        ...

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` (exactly `extent.size` bytes) from the pinned version.

        An empty `extent.version` reads what is there now. S3's old versions stay readable where they are kept.

        Raises:
            Changed: the object is not the pinned version, at the start or after the last byte, or a pinned object has
                vanished.
            NotFound: it is not there, and no version was asked for.
            OutOfRange: the object is shorter than `extent.end`.
        """
        ...

    async def stream(self, extent: Extent, take: Take) -> None:
        """Hand the bytes of an extent to `take`, in order, slice by slice, in a thread of the plane's own.

        What `take` raises ends the stream and is raised here. All bytes were of the pinned version only if this
        returns.

        Raises as `read` does.
        """
        ...

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
        """Write a whole small object (up to `limits.single_put`) in one request, visible on return.

        `upload_id` names the attempt: after a crash, a repeated call with the same id replaces what the first left,
        and `discard(key, upload_id)` removes what it left unfinished.
        """
        ...

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """Copy a whole object (up to `limits.whole_copy`) by the provider in one request, visible on return.

        Where the source has no stored CRC64NVME but another checksum of the whole, S3 keeps that kind for the copy,
        and the receipt has it as `other`, with None as `crc64nvme`. Comparing it with the source's is the caller's.

        Raises as `Upload.copy` does.
        """
        ...

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
        """Begin an object in steps; `upload_id` (letters, digits, `-`) is unique to this attempt.

        `kind` is the checksum that the writer keeps of the whole object, one of `planes.checksum.WIDTH`; a plane that
        keeps none ignores it. Another kind than CRC64NVME lets a native copy be compared with a source that has only
        that one.
        """
        ...

    def resume(self, token: str) -> Upload:
        """The upload of a token, in any process; asks the provider nothing."""
        ...

    async def discard(self, key: str, upload_id: str) -> None:
        """Remove what an attempt left unfinished whose token was never recorded (a crash between begin and record).

        S3 does not say whose an open upload is, so there they are aborted in generation folders (`~…/`) only. At S3
        and Azure the attempt's finished object is removed too: a `put` has no other handle there. Elsewhere it stays;
        a caller deletes keys that it owns itself. Idempotent; spares what other attempts wrote.
        """
        ...

    def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Uploads whose keys begin with `prefix` and that nobody has committed or aborted yet: strangers' too.

        Not every store says of all of them, and a store that cannot list them says of none.
        """
        ...

    async def drop(self, one: Unfinished) -> bool:
        """End an open upload, and touch no object; returns whether it is gone. Idempotent.

        `one.attempt` is whose the caller takes it to be. Where the provider can tell, nobody else's is touched; S3
        cannot: whoever calls this must know.
        """
        ...

    async def delete(self, key: str, *, version: str = "") -> None:
        """Delete an object; no error if it is not there.

        With `version`, as `stat` or `list` names it, only if it still is that one: stores compare by themselves where
        they can, files are looked at right before. Another one stays, without an error.
        """
        ...

    def copy_ticket(self, info: Info) -> Ticket | None:
        """Data by which another plane may copy this object itself, or None; holds no credential (see `presign`)."""
        ...

    def accepts(self, ticket: Ticket) -> bool:
        """Whether this plane can hope to redeem the ticket."""
        ...

    async def presign(self, ticket: Ticket) -> str:
        """A short-lived address by which anyone can read the object of a ticket of this plane's own.

        It is a credential: for one step, never stored, never shown.

        Raises:
            Unsupported: the objects of this provider have no addresses.
        """
        ...

    async def aclose(self) -> None:
        """Release threads and connections."""
        ...
