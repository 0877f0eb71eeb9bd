"""How a plane at S3 is configured."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from planes.plane import GIB, MIB
from planes.settings import PlaneSettings, Secret

MIN_STEP: Final = 5 * MIB
MAX_STEP: Final = 5 * GIB


class Encryption(BaseModel):
    """How the store encrypts what it keeps: with keys of its own (SSE-S3), or of a key service (SSE-KMS)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["AES256", "aws:kms"] = Field(description="`AES256`: SSE-S3. `aws:kms`: SSE-KMS.")
    key: str | None = Field(
        default=None, min_length=1, description="Id or ARN of the key, for aws:kms; none: the account's usual one."
    )

    @model_validator(mode="after")
    def _has_a_key_of_a_service(self) -> Self:
        if self.key and self.type != "aws:kms":
            msg = "a key is named for type aws:kms only"
            raise ValueError(msg)
        return self


class S3Settings(PlaneSettings):
    """A bucket, or a prefix of one, at Amazon S3 or a store that speaks its protocol."""

    type: Literal["s3"] = "s3"
    bucket: str = Field(min_length=1, description="Name of the bucket; it must exist.")
    prefix: str = Field(default="", description="Folder in the bucket that all keys are below.")
    endpoint: str | None = Field(default=None, description="URL of the store; none: Amazon S3.")
    region: str = Field(default="us-east-1", min_length=1, description="Region of the bucket.")
    access_key: Secret | None = Field(default=None, description="None: the SDK's own chain of credentials.")
    secret_key: Secret | None = Field(default=None, description="Belongs to access_key.")
    session_token: Secret | None = Field(default=None, description="Belongs to temporary keys.")
    path_style: bool | None = Field(default=None, description="Bucket in the path; default: if there is an endpoint.")
    ca: Path | None = Field(
        default=None, description="Certificates of authorities to trust instead of the usual ones, PEM."
    )
    sse: Encryption | None = Field(default=None, description="None: what the bucket does by itself.")
    checksums: Literal["crc64nvme", "none"] = Field(
        default="crc64nvme", description="`none` for a store that does not know CRC64NVME."
    )
    put_size: Annotated[ByteSize, Field(ge=MIN_STEP, le=MAX_STEP)] = Field(
        default=ByteSize(16 * MIB), description="Size of a step that travels; one buffer in memory."
    )
    copy_size: Annotated[ByteSize, Field(ge=MIN_STEP, le=MAX_STEP)] = Field(
        default=ByteSize(256 * MIB), description="Size of a step that the store copies."
    )

    direct: bool = Field(
        default=False, description="Nodes reach the store: agents send and fetch by requests signed for them."
    )
    direct_endpoint: str | None = Field(default=None, description="URL of the store as nodes see it; none: endpoint.")

    @property
    def location(self) -> str:
        """Bucket, prefix and endpoint."""
        return f"s3://{self.bucket}/{self.prefix}" + (f" at {self.endpoint}" if self.endpoint else "")

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, prefix: str) -> str:
        folder = prefix.strip("/")
        if ".." in folder.split("/"):
            msg = "a prefix must not contain `..`"
            raise ValueError(msg)
        return f"{folder}/" if folder else ""

    @field_validator("endpoint", "direct_endpoint")
    @classmethod
    def _is_a_url(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            msg = "an endpoint begins with https:// or http://"
            raise ValueError(msg)
        return endpoint.rstrip("/") if endpoint else None

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            msg = "access_key and secret_key are given together or not at all"
            raise ValueError(msg)
        if self.session_token and not self.access_key:
            msg = "session_token needs access_key and secret_key"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _is_direct_to_somewhere(self) -> Self:
        if self.direct_endpoint and not self.direct:
            msg = "direct_endpoint needs `direct: true`"
            raise ValueError(msg)
        return self

    @property
    def hashes(self) -> bool:
        """Whether payloads are hashed for the signature: only where neither TLS, a checksum nor loopback guards them.

        The hash doubles the cost of an upload (measured: 1.4 instead of 0.5 CPU-seconds per GiB).
        """
        url = urlsplit(self.endpoint or "https://")
        return not (self.proves or url.scheme == "https" or _is_loopback(url.hostname or ""))

    @property
    def proves(self) -> bool:
        """Whether the store computes and keeps CRC64NVME."""
        return self.checksums == "crc64nvme"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
