"""Whole objects at S3 written by one request: a small one put, any up to 5 GiB copied by the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

from planes import checksum
from planes.errors import AlreadyExists, Changed, Corrupt, Error, Unavailable
from planes.plane import Info, StepReceipt, Ticket
from planes.s3_connection import ATTEMPT, Connection, etag_of, pin
from planes.s3_errors import Asked, doubtful
from planes.s3_upload import Wanted, source_of
from planes.s3_wire import Whole

if TYPE_CHECKING:  # the SDK's types are not installed beside a running server
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CopyObjectOutputTypeDef, PutObjectOutputTypeDef


@dataclass(frozen=True, slots=True)
class Target:
    """An object to be written: where, by which attempt, over what, described how."""

    key: str
    attempt: str
    replace: bool
    content_type: str = ""
    metadata: Mapping[str, str] | None = None

    @property
    def described(self) -> dict[str, Any]:
        """The arguments that describe it, with the id of the attempt among its metadata."""
        described: dict[str, Any] = {"Metadata": {**(self.metadata or {}), ATTEMPT: self.attempt}}
        return described | ({"ContentType": self.content_type} if self.content_type else {})

    @property
    def condition(self) -> dict[str, Any]:
        """The arguments that protect what is there."""
        return {} if self.replace else {"IfNoneMatch": "*"}


async def put(connection: Connection, target: Target, view: memoryview) -> StepReceipt:
    """Write `view` as an object; an earlier one of the same attempt is replaced.

    Raises:
        AlreadyExists: another attempt's object holds the key and `replace` is false.
        Corrupt: the store received other bytes.
    """
    crc = checksum.compute(view)
    proof: Any = {"ChecksumCRC64NVME": checksum.to_s3(crc)} if connection.settings.proves else {}
    wanted = Wanted(target.attempt, len(view), crc if proof else None)

    async def send(condition: dict[str, Any]) -> StepReceipt:
        def call(client: S3Client) -> PutObjectOutputTypeDef:
            more: Any = {"Body": Whole(view), **proof, **target.described, **connection.encryption, **condition}
            return client.put_object(Bucket=connection.bucket, Key=connection.full(target.key), **more)

        asked = Asked("put", target.key, precondition=AlreadyExists if condition else Changed)
        answer = await connection.ask(call, asked)
        confirmed = answer.get("ChecksumCRC64NVME", "") if proof else ""
        if confirmed and checksum.from_s3(confirmed) != crc:
            raise connection.error(Corrupt, target.key, "the store holds another checksum than was sent")
        etag = connection.etag(answer, target.key)
        return StepReceipt(1, len(view), crc if connection.hear(confirmed) else None, etag, compared=bool(confirmed))

    try:
        return await send(target.condition)
    except Error as doubt:
        if not doubtful(doubt):
            raise
        found = await connection.look(target.key)
        if found is not None and wanted.is_met_by(found):
            return StepReceipt(1, len(view), crc, etag_of(found.version), compared=bool(proof))
        if not isinstance(doubt, AlreadyExists):
            raise
        if found is None:  # 409
            words = "another write of it was under way and came to nothing"
            raise connection.error(Unavailable, target.key, words) from None
        if found.metadata.get(ATTEMPT) != target.attempt:
            raise
        etag = etag_of(found.version)
    return await send(pin(etag))


async def copy_object(connection: Connection, target: Target, ticket: Ticket, source: Info) -> StepReceipt:
    """Let the store copy in one request; `source` is what it says of the object now.

    The copy must have the checksum that the source has: where checksums are kept, call this only if there is one.

    Raises:
        AlreadyExists: another attempt's object holds the key and `replace` is false.
        Changed: the source has another version now, or has vanished.
        Corrupt: the copy has another checksum or size; it is deleted.
    """
    kept = {name: text for name, text in source.metadata.items() if name != ATTEMPT}
    target = changed(target, content_type=source.content_type, metadata=kept)
    crc = source.checksums.get("crc64nvme") if connection.settings.proves else None
    asked = Asked(f"copy {source.key!r} to", target.key, absent=Changed)

    def call(client: S3Client) -> CopyObjectOutputTypeDef:
        described = {"MetadataDirective": "REPLACE", **target.described, **connection.encryption}
        more: Any = {**source_of(ticket), **described, **target.condition}
        return client.copy_object(Bucket=connection.bucket, Key=connection.full(target.key), **more)

    etag, doubt = "", None
    try:
        answer = await connection.ask(call, asked, patient=True)
        etag = etag_of(answer.get("CopyObjectResult", {}).get("ETag", ""))
    except Error as error:
        # 412 speaks of the source's version or of the target that is there: looking tells which.
        if not doubtful(error) and not isinstance(error, Changed):
            raise
        doubt = error
    found = await connection.look(target.key)
    if found is not None and Wanted(target.attempt, ticket.size, crc, etag).is_met_by(found):
        return StepReceipt(1, ticket.size, crc, etag_of(found.version))
    if found is not None and found.metadata.get(ATTEMPT) == target.attempt and doubt is None:
        await connection.delete(target.key, only=found)
        raise connection.error(Corrupt, target.key, "the store's copy had another size or checksum than its source")
    if found is not None and isinstance(doubt, Changed) and not target.replace:
        raise connection.error(AlreadyExists, target.key, "an object with this key exists")
    raise doubt or connection.error(Changed, target.key, "another writer replaced it as soon as it was written")
