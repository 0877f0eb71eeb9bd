"""How a plane at Azure Blob Storage is configured."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, field_validator, model_validator

from planes.plane import KIB, MIB
from planes.settings import PlaneSettings, Secret

MAX_STEP: Final = 4000 * MIB
MAX_STEPS: Final = 50_000


class AzureSettings(PlaneSettings):
    """A container, or a prefix of one, of an Azure storage account."""

    type: Literal["azure"] = "azure"
    container: str = Field(min_length=1, description="Name of the container; it must exist.")
    prefix: str = Field(default="", description="Folder in the container that all keys are below.")
    connection_string: Secret | None = Field(default=None, description="As the portal shows it, with a key or a SAS.")
    account_url: str | None = Field(default=None, description="https://<account>.blob.core.windows.net, or another.")
    account_key: Secret | None = Field(default=None, description="Belongs to account_url.")
    sas: Secret | None = Field(
        default=None, description="Belongs to account_url, instead of a key: of the container, with rwdl at least."
    )
    ca: Path | None = Field(
        default=None, description="Certificates of authorities to trust instead of the usual ones, PEM."
    )
    pull_from: tuple[str, ...] = Field(
        default=(),
        description="Endpoints of S3 stores and URLs of accounts that Azure reaches although they are no public https.",
    )
    put_size: Annotated[ByteSize, Field(ge=64 * KIB, le=MAX_STEP)] = Field(
        default=ByteSize(16 * MIB), description="Size of a step that travels; one buffer in memory."
    )
    copy_size: Annotated[ByteSize, Field(ge=64 * KIB, le=MAX_STEP)] = Field(
        default=ByteSize(256 * MIB), description="Size of a step that Azure copies."
    )

    direct: bool = Field(
        default=False, description="Nodes reach the account: agents send and fetch by requests signed for them."
    )
    direct_endpoint: str | None = Field(default=None, description="URL of the account as nodes see it; none: its own.")

    @property
    def location(self) -> str:
        """Container, prefix and account."""
        return f"az://{self.container}/{self.prefix}" + (f" at {self.account_url}" if self.account_url else "")

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, prefix: str) -> str:
        folder = prefix.strip("/")
        if ".." in folder.split("/"):
            msg = "a prefix must not contain `..`"
            raise ValueError(msg)
        return f"{folder}/" if folder else ""

    @field_validator("account_url", "direct_endpoint")
    @classmethod
    def _is_a_plain_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("http://", "https://")):
            msg = "the URL of an account begins with https:// or http://"
            raise ValueError(msg)
        if urlsplit(url).query:
            msg = "the URL of an account holds no SAS: name that as `sas`"
            raise ValueError(msg)
        return url.rstrip("/")

    @field_validator("pull_from")
    @classmethod
    def _are_urls(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(endpoint.rstrip("/") for endpoint in endpoints)

    @model_validator(mode="after")
    def _says_who(self) -> Self:
        if (self.connection_string is None) == (self.account_url is None):
            msg = "give either connection_string or account_url"
            raise ValueError(msg)
        if self.connection_string and (self.account_key or self.sas):
            msg = "a connection_string has its own key or SAS: give account_key or sas with account_url only"
            raise ValueError(msg)
        if self.account_url and self.account_url.startswith("http:") and not (self.account_key or self.sas):
            msg = "an identity is told by https only: give account_key or sas, or an address that begins with https://"
            raise ValueError(msg)
        if self.account_key and self.sas:
            msg = "give account_key or sas, not both"
            raise ValueError(msg)
        if self.direct and self.sas:
            msg = "direct takes what can sign for single blobs: account_key or an identity, not a sas"
            raise ValueError(msg)
        if self.direct_endpoint and not self.direct:
            msg = "direct_endpoint needs `direct: true`"
            raise ValueError(msg)
        return self


def is_public(url: str) -> bool:
    """Whether an address may be reached from a cloud: https, and not obviously of a private network."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" or "." not in host.strip("."):
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return not host.endswith((".local", ".localhost", ".internal", ".svc"))
