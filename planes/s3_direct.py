"""Requests to S3 that are signed for a node: one step, one object or one range, and nothing else.

Size and checksum of what is sent are among the signed headers: the store refuses other bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from planes import checksum
from planes.direct import LIFE, Address, Whole, authorities
from planes.errors import Unsupported
from planes.plane import Extent
from planes.s3_connection import Connection, pin
from planes.s3_errors import Asked
from planes.s3_settings import S3Settings
from planes.s3_upload import S3Upload
from planes.s3_whole import Target

if TYPE_CHECKING:  # the SDK's types are not installed beside a running server
    from mypy_boto3_s3.client import S3Client

_PROOF: Final = "x-amz-checksum-crc64nvme"
_ENCRYPTION: Final = {
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}
_METHODS: Final = {"upload_part": "PUT", "put_object": "PUT", "get_object": "GET"}


class S3Signing:
    """Signs with the plane's keys, for the endpoint as nodes see it; asks the store nothing."""

    def __init__(self, name: str, settings: S3Settings) -> None:
        seen = settings.direct_endpoint or settings.endpoint
        self._connection = Connection(name, settings.model_copy(update={"endpoint": seen}))

    async def step(self, token: str, number: int, size: int, crc64nvme: int) -> Address:
        """To store a step.

        Raises:
            Unsupported: the store would not hold it against our checksum.
        """
        upload = S3Upload.from_token(self._connection, token)
        if upload.kind != "crc64nvme" or not self._connection.settings.proves:
            raise self._connection.error(Unsupported, "", "it keeps another checksum than a node sends")
        headers = {_PROOF: checksum.to_s3(crc64nvme), "content-length": str(size)}
        words = {"ChecksumCRC64NVME": headers[_PROOF], "ContentLength": size, "PartNumber": number}
        return await self._sign("upload_part", {**upload.target, **words}, headers)

    async def put(self, whole: Whole, size: int, crc64nvme: int) -> Address:
        """To write a whole object, over another only if it may be replaced.

        Raises:
            Unsupported: the store would not hold it against our checksum.
        """
        connection = self._connection
        if not connection.settings.proves:
            raise connection.error(Unsupported, whole.key, "it keeps no checksum of what a node sends")
        target = Target(whole.key, whole.upload_id, whole.replace, whole.content_type, whole.metadata)
        described, encryption, condition = target.described, connection.encryption, target.condition
        headers = {_PROOF: checksum.to_s3(crc64nvme), "content-length": str(size)}
        headers |= {f"x-amz-meta-{name}": text for name, text in described["Metadata"].items()}
        headers |= {"content-type": whole.content_type} if whole.content_type else {}
        headers |= {_ENCRYPTION[name]: text for name, text in encryption.items()}
        headers |= {"if-none-match": "*"} if condition else {}
        words = {"ChecksumCRC64NVME": headers[_PROOF], "ContentLength": size, **described, **encryption, **condition}
        return await self._sign("put_object", {**self._named(whole.key), **words}, headers)

    async def read(self, extent: Extent) -> Address:
        """To read a range of one version."""
        words = {"Range": f"bytes={extent.start}-{extent.end - 1}", **pin(extent.version)}
        headers = {"range": words["Range"]} | ({"if-match": words["IfMatch"]} if "IfMatch" in words else {})
        return await self._sign("get_object", {**self._named(extent.key), **words}, headers)

    def _named(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._connection.bucket, "Key": self._connection.full(key)}

    async def _sign(self, operation: str, words: dict[str, Any], headers: dict[str, str]) -> Address:
        def call(client: S3Client) -> str:
            named: Any = operation
            return client.generate_presigned_url(named, Params=words, ExpiresIn=LIFE)

        url = await self._connection.ask(call, Asked("sign for", words["Key"]))
        signed = set(parse_qs(urlsplit(url).query).get("X-Amz-SignedHeaders", [""])[0].split(";")) - {"host"}
        if signed != {name.lower() for name in headers}:  # a header less and the store takes what was not meant
            words_of = ", ".join(sorted(signed ^ {name.lower() for name in headers}))
            raise self._connection.error(Unsupported, "", f"a request cannot be signed as it is meant ({words_of})")
        return Address(_METHODS[operation], url, headers, await authorities(self._connection.settings.ca))

    def close(self) -> None:
        """Let connections go."""
        self._connection.close()
