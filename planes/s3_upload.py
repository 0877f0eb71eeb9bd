"""A multipart upload at S3: steps put or copied by the store, made visible by one Complete that proves the whole.

The checksum that the store keeps of the whole is of the kind that the upload was begun with. Steps that are put have
their CRC64NVME all the same, because their bytes pass through us; of copied ones only that kind is known.

A doubtful answer (a lost one, 412, 404, 5xx) is never taken for a verdict: the target is looked at, and the upload
has succeeded if what lies there carries this attempt's id, the expected checksum and the expected size.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import Buffer

from planes import checksum
from planes.errors import (
    AlreadyExists,
    Changed,
    Corrupt,
    Error,
    NotFound,
    OutOfRange,
    Unavailable,
    Unsupported,
)
from planes.plane import Info, Presign, StepReceipt, Take, Ticket
from planes.s3_connection import ALGORITHMS, ATTEMPT, Connection, etag_of
from planes.s3_errors import Asked, doubtful
from planes.s3_settings import MIN_STEP
from planes.s3_wire import Whole

if TYPE_CHECKING:  # the SDK's types are not installed beside a running server
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import UploadPartCopyOutputTypeDef, UploadPartOutputTypeDef

_ABORTS = 60
_ABORT_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an object must be to count as written, whole, by one attempt."""

    attempt: str
    size: int
    value: int | None
    """Its checksum of `kind`; None if that is not known."""
    etag: str = ""
    """As the store answered it, without quotes; empty if it did not."""
    kind: str = "crc64nvme"

    def is_met_by(self, found: Info) -> bool:
        """Whether this is it: known by the attempt's id, or by its ETag at a store that keeps no metadata."""
        known = found.metadata.get(ATTEMPT) == self.attempt or (self.etag != "" and etag_of(found.version) == self.etag)
        proved = self.value is None or found.checksums.get(self.kind) == self.value
        return known and proved and found.size == self.size


def source_of(ticket: Ticket) -> dict[str, Any]:
    """The arguments that name and pin the source of a copy."""
    names = {"bucket": "Bucket", "key": "Key", "version_id": "VersionId"}
    source = {names[name]: value for name, value in ticket.location.items()}
    pinned = {"CopySourceIfMatch": f'"{etag_of(ticket.version)}"'} if ticket.version else {}
    return {"CopySource": source, **pinned}


class S3Upload:
    """One upload; any process may hold it by its token."""

    def __init__(
        self,
        connection: Connection,
        key: str,
        opened: str,
        attempt: str,
        *,
        replace: bool,
        kind: str = "crc64nvme",
    ) -> None:
        self._connection = connection
        self._key = key
        self._opened = opened
        self._attempt = attempt
        self._replace = replace
        self.kind = kind
        self._algorithm = ALGORITHMS[kind]
        self._committed = False

    @classmethod
    def from_token(cls, connection: Connection, token: str) -> Self:
        """The upload that `token` names; one without a kind is of CRC64NVME."""
        named = json.loads(token)
        kind = named.get("kind", "crc64nvme")
        return cls(connection, named["key"], named["upload"], named["attempt"], replace=named["replace"], kind=kind)

    @property
    def token(self) -> str:
        """Text for `from_token`; JSON without any credential."""
        return json.dumps(
            {
                "key": self._key,
                "upload": self._opened,
                "attempt": self._attempt,
                "replace": self._replace,
                "kind": self.kind,
            }
        )

    @property
    def target(self) -> dict[str, Any]:
        """The arguments that name it in requests."""
        bucket, key = self._connection.bucket, self._connection.full(self._key)
        return {"Bucket": bucket, "Key": key, "UploadId": self._opened}

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Send `data` as step `number`; its checksum travels with it and the store refuses other bytes.

        S3 orders steps by number, so `offset` is not needed.

        Raises:
            Corrupt: the store received other bytes than `crc64nvme` says.
        """
        del offset
        field, proves = self._algorithm.field, self._connection.settings.proves
        view = memoryview(data).cast("B")

        def call(client: S3Client) -> tuple[UploadPartOutputTypeDef, int, int]:
            crc, value = self._values(number, view, crc64nvme)
            proof: Any = {field: checksum.to_s3(value, self.kind)} if proves else {}
            body: Any = Whole(view)
            return client.upload_part(**self.target, PartNumber=number, Body=body, **proof), crc, value

        answer, crc, value = await self._connection.ask(call, Asked(f"put step {number} of", self._key))
        confirmed = str(answer.get(field, "")) if proves else ""
        if confirmed and checksum.from_s3(confirmed) != value:
            raise self._error(Corrupt, f"the store holds another checksum for step {number} than was sent")
        etag = self._etag(answer.get("ETag", ""), number)
        is_said = self._connection.hear(confirmed)
        other = None if self.kind == "crc64nvme" else value
        return StepReceipt(number, len(view), crc if is_said else None, etag, compared=bool(confirmed), other=other)

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """S3 wants a step's checksum before its bytes: raises Unsupported."""
        del offset, size, stream
        raise self._error(Unsupported, f"step {number} is sent whole, not while it is read")

    def _values(self, number: int, view: memoryview, crc64nvme: int | None) -> tuple[int, int]:
        """The CRC64NVME of a step, and its checksum of the upload's kind."""
        if self.kind == "crc64nvme":
            crc = checksum.compute(view) if crc64nvme is None else crc64nvme
            return crc, crc
        crc = checksum.compute(view)
        if crc64nvme is not None and crc != crc64nvme:  # the store will not see this value: it is for us to refuse
            words = f"{checksum.to_hex(crc)} instead of {checksum.to_hex(crc64nvme)}"
            raise self._error(Corrupt, f"step {number} has CRC64NVME {words}")
        return crc, checksum.compute(view, kind=self.kind)

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Let the store copy bytes [start, end) of the ticket's object as step `number`; `url` is not needed.

        Raises:
            Changed: the source has another version now, or has vanished.
            OutOfRange: the source has no such bytes.
            Unsupported: a range of an object up to 5 MiB, or a store that does not say what it copied.
        """
        del offset, url
        self._connection.redeemable(ticket)
        whole = start == 0 and end == ticket.size
        if not 0 <= start <= end <= ticket.size or (start == end and not whole):
            raise self._error(OutOfRange, f"bytes {start} to {end} of a source of {ticket.size} bytes")
        if not whole and ticket.size <= MIN_STEP:
            raise self._error(Unsupported, "ranges are copied out of objects over 5 MiB only: read this one")
        span: Any = {} if whole else {"CopySourceRange": f"bytes={start}-{end - 1}"}

        def call(client: S3Client) -> UploadPartCopyOutputTypeDef:
            return client.upload_part_copy(**self.target, PartNumber=number, **source_of(ticket), **span)

        asked = Asked(f"copy {ticket.location.get('key', '')!r} to", self._key, absent=Changed)
        answer = await self._connection.ask(call, asked, patient=True)
        result = answer.get("CopyPartResult", {})
        etag = self._etag(result.get("ETag", ""), number)
        if not self._connection.settings.proves:
            return StepReceipt(number, end - start, None, etag)
        said = str(result.get(self._algorithm.field, ""))
        if not said:
            way_out = "if it knows none, set `checksums: none` for the plane"
            raise self._error(Unsupported, f"the store does not say the {self._algorithm.name} of a step; {way_out}")
        value = checksum.from_s3(said)
        if self.kind == "crc64nvme":
            return StepReceipt(number, end - start, value, etag)
        return StepReceipt(number, end - start, None, etag, other=value)

    def _etag(self, etag: str, number: int) -> str:
        if not etag:  # some stores answer 200 to a copy and store an empty step
            raise self._error(Unsupported, f"the store answered step {number} without an ETag, so it stored nothing")
        return etag_of(etag)

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Make the object visible from its steps, which together must be `size` bytes with this checksum.

        Raises:
            AlreadyExists: the key is taken and the upload was opened with `replace=False`.
            Changed: another writer replaced the object, or the upload ended without it.
            Corrupt: size or checksum is another, or a step lacks the one of the upload's kind; nothing became visible.
        """
        ordered = sorted(steps, key=lambda step: step.number)
        expected = self._expected(ordered, size, crc64nvme)
        try:
            ordered = ordered or [await self.put(1, 0, b"")]  # an empty object has one empty step
            etag = await self._complete(ordered, size, expected)
        except Error as doubt:
            if not doubtful(doubt):
                raise
            found = await self._settle(Wanted(self._attempt, size, expected, kind=self.kind), doubt)
        else:
            found = await self._settle(Wanted(self._attempt, size, expected, etag, self.kind), None)
        self._committed = True
        return found

    def _expected(self, ordered: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> int | None:
        """The checksum of the whole, of the upload's kind, if it is known; None for a store that keeps none."""
        total = sum(step.size for step in ordered)
        if total != size:
            raise self._error(Corrupt, f"its steps are {total} bytes together instead of {size}")
        composed = checksum.combine_all((step.crc64nvme, step.size) for step in ordered)
        if composed is not None and crc64nvme is not None and composed != crc64nvme:
            words = f"{checksum.to_hex(composed)} instead of {checksum.to_hex(crc64nvme)}"
            raise self._error(Corrupt, f"its steps have CRC64NVME {words} together")
        if not self._connection.settings.proves:
            return None
        if self.kind == "crc64nvme":
            return crc64nvme if composed is None else composed
        other = checksum.combine_all(((step.other, step.size) for step in ordered), self.kind)
        if other is None:
            words = f"a step's receipt lacks the {self._algorithm.name} that this upload is proved by: write that again"
            raise self._error(Corrupt, words)
        return other

    async def _complete(self, ordered: Sequence[StepReceipt], size: int, expected: int | None) -> str:
        """Ask the store to put the steps together; the ETag of the object."""
        # From our own receipts: a store's listing of an open upload can name replaced steps.
        more: Any = {"MultipartUpload": {"Parts": [{"PartNumber": s.number, "ETag": s.etag} for s in ordered]}}
        if not self._replace:
            more["IfNoneMatch"] = "*"
        if self._connection.settings.proves:
            more |= {"ChecksumType": "FULL_OBJECT", "MpuObjectSize": size}
        if expected is not None:
            more[self._algorithm.field] = checksum.to_s3(expected, self.kind)
        asked = Asked("commit", self._key, precondition=Changed if self._replace else AlreadyExists)
        answer = await self._connection.ask(
            lambda client: client.complete_multipart_upload(**self.target, **more), asked, patient=True
        )
        return etag_of(answer.get("ETag", ""))

    async def _settle(self, wanted: Wanted, doubt: Error | None) -> Info:
        """The facts of the object if it is ours and whole, whatever the store answered; else why it is not."""
        found = await self._connection.look(self._key)
        if found is not None and wanted.is_met_by(found):
            return found
        if found is None and isinstance(doubt, AlreadyExists):  # 409
            raise self._error(Unavailable, "another write of it was under way and came to nothing")
        if found is not None and isinstance(doubt, NotFound):
            kind = Changed if self._replace else AlreadyExists
            raise self._error(kind, "its open upload has ended, and another writer's object holds the key")
        if doubt is not None:
            raise doubt
        raise self._error(Changed, "another writer replaced or deleted it as soon as it was written")

    async def made(self) -> Info | None:
        """The object, if its metadata names this attempt."""
        found = await self._connection.look(self._key)
        return found if found is not None and found.metadata.get(ATTEMPT) == self._attempt else None

    async def abort(self) -> None:
        """Remove the upload and its steps; returns when the store says that it is gone.

        Raises:
            Unavailable: half a minute later it is still there (a step under way keeps it alive).
        """
        asked = Asked("abort the upload of", self._key)
        for _ in range(_ABORTS):
            try:
                await self._connection.ask(lambda client: client.abort_multipart_upload(**self.target), asked)
                await self._connection.ask(lambda client: client.list_parts(**self.target, MaxParts=1), asked)
            except (NotFound, Unsupported):  # gone; or a store that cannot list steps, and has answered the abort
                return
            await asyncio.sleep(_ABORT_PAUSE)
        raise self._error(Unavailable, "its upload cannot be aborted: steps of it keep arriving")

    def _error(self, kind: type[Error], words: str) -> Error:
        return self._connection.error(kind, self._key, words)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed:
            return
        try:
            await self.abort()
        except Error as left:
            if error is None:
                raise
            error.add_note(f"moreover: {left.message}")  # the first error is the one to report
