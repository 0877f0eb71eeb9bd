"""Objects in a bucket of Amazon S3, or of a store that speaks its protocol, as a plane.

Every request is sent once: retries are made around the plane, where it is known what may be repeated. Writes carry
the id of their attempt in the object's metadata, and a doubtful answer is settled by looking at the object. Checksums
are of the whole object, sent with every write and kept by the store: CRC64NVME, or for uploads the kind that was asked
for.

In a bucket with versions a pin names the version: it stays readable after it was overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import Buffer

from planes import checksum, s3_whole
from planes.errors import Changed, NotFound, OutOfRange, Unavailable, Unsupported
from planes.left_out import Tell
from planes.plane import KIB, MIB, Capabilities, Extent, Info, Limits, Presign, StepReceipt, Take, Ticket, Unfinished
from planes.s3_connection import ALGORITHMS, ATTEMPT, KIND, Connection, etag_of, pin, version_of
from planes.s3_direct import S3Signing
from planes.s3_errors import Asked
from planes.s3_names import Names
from planes.s3_settings import MAX_STEP, MIN_STEP, S3Settings
from planes.s3_small import SOON, SmallObjects
from planes.s3_upload import S3Upload
from planes.threads import Stop, cleaned_up

if TYPE_CHECKING:  # the SDK's types are not installed beside a running server
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef

__all__ = ["S3Plane", "S3Settings"]

_STEPS: Final = 10_000
_SLICE: Final = MIB  # between two slices a cancelled read stops
_POURED: Final = 256 * KIB  # stays in the processor's cache until it is stored
_PAGE: Final = 1000
_METADATA: Final = 2 * KIB
_PRESIGNED: Final = 900  # seconds


class S3Plane:
    """A `planes.plane.Plane`; connects at the first call, so that a wrong setting hurts only those who use it.

    Small objects in numbers, more than `soon`, go through `planes.s3_small`.
    """

    def __init__(self, name: str, settings: S3Settings, *, soon: int = SOON) -> None:
        self._name = name
        self._settings = settings
        self._connection = Connection(name, settings)
        self._small = SmallObjects(self._connection, soon)
        self._names = Names(self._connection)
        self._signing: S3Signing | None = None

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def limits(self) -> Limits:
        """Amazon's bounds."""
        return Limits(
            min_step=MIN_STEP,
            max_step=MAX_STEP,
            max_steps=_STEPS,
            max_object=_STEPS * MAX_STEP,
            put_size=self._settings.put_size,
            copy_size=self._settings.copy_size,
            min_copy_source=MIN_STEP,
            single_put=self._settings.put_size,
            whole_copy=MAX_STEP,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the settings say the store can do, less what it was seen not to do."""
        kinds = frozenset(checksum.WIDTH) if self._settings.proves else frozenset[str]()
        confirms = self._settings.proves and not self._connection.silent
        facts = Capabilities(kinds, atomic_create=True, shared=True, metadata=_METADATA, confirms=confirms)
        return changed(facts, direct=self._settings.direct)

    async def stat(self, key: str) -> Info:
        """Facts about one object.

        Raises:
            NotFound: it is not there.
            Missing: its bucket is not there.
        """
        return await self._connection.head(self._connection.full(key), Asked("find", key))

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Objects in byte order of their keys, a page at a time; pins are ETags without version id."""
        del left_out
        connection, root = self._connection, self._settings.prefix
        full = connection.full_prefix(prefix)
        # By the store's own cursor: not every store's order is the one that StartAfter goes by.
        cursor: Any = {"StartAfter": root + after} if after else {}
        while cursor is not None:

            def call(client: S3Client, cursor: Any = cursor) -> ListObjectsV2OutputTypeDef:
                return client.list_objects_v2(Bucket=connection.bucket, Prefix=full, MaxKeys=_PAGE, **cursor)

            page = await connection.ask(call, Asked("list", prefix))
            for each in page.get("Contents", []):
                key = each["Key"].removeprefix(root)
                if key:  # the folder itself may be an object
                    yield Info(key, each["Size"], version_of(each["ETag"]), each["LastModified"])
            following = page.get("NextContinuationToken")
            cursor = {"ContinuationToken": following} if page["IsTruncated"] and following else None

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` with the extent's bytes, in one request, from the socket into the buffer.

        Raises:
            Changed: the object has another version, or has vanished.
            NotFound: it is not there, and no version was asked for.
            OutOfRange: it is shorter.
            Unavailable: the answer broke off.
        """
        if len(into) != extent.size:
            msg = f"a buffer of {len(into)} bytes for an extent of {extent.size}"
            raise ValueError(msg)
        if await self._small.read(extent, into):
            return
        await self._receive(extent, lambda done: into[done : done + _SLICE], lambda _: None)

    async def stream(self, extent: Extent, take: Take) -> None:
        """Hand over the extent's bytes as they come in, in one request.

        Raises as `read` does.
        """
        buffer = memoryview(bytearray(min(_POURED, extent.size)))
        await self._receive(extent, lambda done: buffer[: extent.size - done], take)

    async def _receive(self, extent: Extent, room: Callable[[int], memoryview], take: Take) -> None:
        """One request; `room` says where the bytes go that follow so many."""
        full = self._connection.full(extent.key)
        asked = Asked("read", extent.key, absent=Changed if extent.version else NotFound)
        if not extent.size:
            found = await self._connection.head(full, asked, version=extent.version)
            if found.size < extent.end:
                raise self._connection.error(
                    OutOfRange, extent.key, f"it has {found.size} bytes; {extent.end} were asked for"
                )
            return

        def work(client: S3Client, stop: Stop) -> None:
            span = f"bytes={extent.start}-{extent.end - 1}"
            answer = client.get_object(Bucket=self._connection.bucket, Key=full, Range=span, **pin(extent.version))
            with contextlib.closing(answer["Body"]) as body:
                self._check_answer(extent, answer)
                done = 0
                while done < extent.size:
                    stop.check()
                    piece: Any = room(done)  # a buffer, whatever the SDK's types say
                    count = body.readinto(piece)
                    if not count:
                        raise self._connection.error(
                            Unavailable, extent.key, f"the answer broke off after {done} bytes"
                        )
                    done += count
                    take(piece[:count])

        await self._connection.work(work, asked)

    def _check_answer(self, extent: Extent, answer: GetObjectOutputTypeDef) -> None:
        """Refuse other bytes than were asked for: not every store honours every header."""
        etag, found = etag_of(extent.version), self._connection.etag(answer, extent.key)
        if etag and found != etag:
            raise self._connection.error(Changed, extent.key, "it is another version than the one that was pinned")
        length = answer["ContentLength"]
        if length > extent.size:
            raise self._connection.error(Unsupported, extent.key, "the store ignores ranges")
        if length < extent.size:
            size = extent.start + length
            raise self._connection.error(OutOfRange, extent.key, f"it has {size} bytes; {extent.end} were asked for")

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
        """Write a whole object in one request; repeated with the same `upload_id` it replaces its own.

        Raises:
            AlreadyExists: the key is taken by another attempt and `replace` is false.
            Corrupt: the store received other bytes.
        """
        await self._names.check(key)
        target, view = s3_whole.Target(key, upload_id, replace, content_type, metadata), memoryview(data).cast("B")
        receipt = await self._small.put(target, view)
        return receipt or self._small.learn(await s3_whole.put(self._connection, target, view))

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """Let the store copy a whole object; `url` is not needed.

        By CopyObject where the source has a CRC64NVME that the result can be held against; else as the one step of
        an upload, because a step is answered with its checksum. That upload is of the kind that the source has: then
        the receipt has its value as `other`, and no CRC64NVME. A small object over one that may be replaced goes by
        `planes.s3_small` where ETags tell contents apart, and its receipt has neither.

        Raises:
            AlreadyExists: the key is taken by another attempt and `replace` is false.
            Changed: the source has another version now, or has vanished.
            Corrupt: the copy has another checksum than its source.
        """
        del url
        await self._names.check(key)
        where = self._connection.redeemable(ticket).location
        if replace and not _in_generation(key) and where["bucket"] == self._settings.bucket:
            receipt = await self._small.copy(key, ticket)
            if receipt is not None:
                return receipt
        asked = Asked(f"copy {where['key']!r} to", key, absent=Changed)
        source = await self._connection.head(where["key"], asked, bucket=where["bucket"], version=ticket.version)
        kind = next((kind for kind in ALGORITHMS if kind in source.checksums), "")
        if kind == "crc64nvme" or not self._settings.proves:
            target = s3_whole.Target(key, upload_id, replace)
            return await s3_whole.copy_object(self._connection, target, ticket, source)
        kept = {name: text for name, text in source.metadata.items() if name != ATTEMPT}
        async with await self.upload(
            key,
            upload_id=upload_id,
            replace=replace,
            content_type=source.content_type,
            metadata=kept,
            kind=kind or "crc64nvme",
        ) as upload:
            receipt = await upload.copy(1, 0, ticket, 0, ticket.size)
            done = await upload.commit([receipt], ticket.size, receipt.crc64nvme)
        return changed(receipt, etag=etag_of(done.version))

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> S3Upload:
        """Begin an object in steps; a lost answer leaves an upload that `discard` finds in a generation folder only.

        The store computes and keeps the `kind` of the whole object; with `checksums: none` it is ignored. A cancelled
        call waits for the answer of the store and aborts what it has begun.
        """
        await self._names.check(key)
        target = s3_whole.Target(key, upload_id, replace, content_type, metadata)
        more: Any = target.described | self._connection.encryption
        if self._settings.proves:
            more |= {"ChecksumAlgorithm": ALGORITHMS[kind].name, "ChecksumType": "FULL_OBJECT"}
        else:
            kind = "crc64nvme"
        full = self._connection.full(key)
        begun: list[S3Upload] = []

        def begin(client: S3Client) -> S3Upload:
            answer = client.create_multipart_upload(Bucket=self._connection.bucket, Key=full, **more)
            begun.append(S3Upload(self._connection, key, answer["UploadId"], upload_id, replace=replace, kind=kind))
            return begun[0]

        try:
            return await self._connection.ask(begin, Asked("begin the upload of", key))
        except asyncio.CancelledError:  # comes when the thread has ended; nobody else will ever know of the upload
            for upload in begun:
                await cleaned_up(upload.abort())
            raise

    def resume(self, token: str) -> S3Upload:
        """The upload of a token."""
        return S3Upload.from_token(self._connection, token)

    async def discard(self, key: str, upload_id: str) -> None:
        """Remove what an attempt left: its object, and in a generation folder (`~…/`) the open uploads of its key.

        The store does not say whose an open upload is: a listing names key, account and hour, and a stranger with our
        account may have begun one of the same key at the same time. So elsewhere it stays, for a rule of the bucket
        (AbortIncompleteMultipartUpload); a recorded intent could not tell it from a stranger's either.
        """
        if _in_generation(key):
            with contextlib.suppress(Unsupported):  # a store that cannot list uploads: nothing of it can be found
                for opened in await self._opened(key):
                    await S3Upload(self._connection, key, opened, upload_id, replace=False).abort()
        found = await self._connection.look(key)
        if found is not None and found.metadata.get(ATTEMPT) == upload_id:
            await self._connection.delete(key, only=found)

    async def _opened(self, key: str) -> Sequence[str]:
        full = self._connection.full(key)

        def call(client: S3Client) -> list[str]:
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=self._connection.bucket, Prefix=full)
            return [each["UploadId"] for page in pages for each in page.get("Uploads", []) if each["Key"] == full]

        return await self._connection.ask(call, Asked("list the open uploads of", key))

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Open uploads, a page at a time; whose they are the store does not say. None at a store that lists none."""
        connection, root = self._connection, self._settings.prefix
        full = connection.full_prefix(prefix)
        asked, pages = Asked("list the open uploads of", prefix), list[Iterator[Any]]()

        def turn(client: S3Client) -> Any:
            if not pages:
                found = client.get_paginator("list_multipart_uploads").paginate(Bucket=connection.bucket, Prefix=full)
                pages.append(iter(found))
            return next(pages[0], None)

        with contextlib.suppress(Unsupported):
            while (page := await connection.ask(turn, asked)) is not None:
                for each in page.get("Uploads", []):
                    if each["Key"].startswith(full):
                        yield Unfinished(each["Key"].removeprefix(root), handle=each["UploadId"])

    async def drop(self, one: Unfinished) -> bool:
        """Abort an open upload, whosever it is."""
        await S3Upload(self._connection, one.key, one.handle, one.attempt, replace=False).abort()
        return True

    async def delete(self, key: str, *, version: str = "") -> None:
        """Delete an object; no error if it is not there."""
        if version:
            await self._delete_only(key, version)
        elif not await self._small.delete(key):
            await self._connection.delete(key)

    async def _delete_only(self, key: str, version: str) -> None:
        """Delete an object if it is still that one; a listing does not name version ids."""
        found = await self._connection.look(key)
        if found is None or etag_of(found.version) != etag_of(version):
            return
        try:
            await self._connection.delete(key, only=found)
        except Unsupported:  # the store knows no condition of a deletion: it has been looked at right before
            await self._connection.delete(key)

    def copy_ticket(self, info: Info) -> Ticket | None:
        """The object's address, for any plane of the same store and owner."""
        location = {"bucket": self._settings.bucket, "key": self._connection.full(info.key)}
        version_id = info.version.partition(" ")[2]
        location |= {"version_id": version_id} if version_id else {}
        return Ticket(KIND, self._connection.scope, location, info.version, info.size)

    def accepts(self, ticket: Ticket) -> bool:
        """Whether it is of the same store and owner."""
        return self._connection.accepts(ticket)

    async def presign(self, ticket: Ticket) -> str:
        """An address by which whoever holds it can read the ticket's object for a quarter of an hour."""
        named = {"bucket": "Bucket", "key": "Key", "version_id": "VersionId"}
        where = {named[name]: text for name, text in ticket.location.items()}
        return await self._connection.ask(
            lambda client: client.generate_presigned_url("get_object", Params=where, ExpiresIn=_PRESIGNED),
            Asked("sign for a copy of", ticket.location["key"]),
        )

    def signing(self) -> S3Signing:
        """Who signs requests for nodes."""
        if self._signing is None:
            self._signing = S3Signing(self._name, self._settings)
        return self._signing

    async def aclose(self) -> None:
        """Close connections and let the threads go."""
        self._connection.close()
        if self._signing is not None:
            self._signing.close()


def _in_generation(key: str) -> bool:
    return any(name.startswith("~") for name in key.split("/")[:-1])
