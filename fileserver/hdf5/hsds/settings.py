"""What an HSDS server is configured with: `hsds: {main: {endpoint: …, username: …, password: {env: HS_PASSWORD}}}`.

Nothing here holds a secret: passwords and tokens are named by reference and resolved at the moment of use.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from planes.settings import PlaneLimits, Secret

_SOCKET: Final = "http+unix://"
_BUCKET: Final = re.compile(r"[A-Za-z0-9_.-]+")  # as HSDS 1.0.2 has it, in util/domainUtil.py


def _endpoint(value: str) -> str:
    """An address without what would be lost or shown: no path, no query, no user."""
    if value.startswith(_SOCKET):
        path = unquote(value.removeprefix(_SOCKET)).rstrip("/")
        if not path.startswith("/"):
            msg = "the path of a unix socket is written with %2F for /, like http+unix://%2Frun%2Fsn_1.sock"
            raise ValueError(msg)
        return value.rstrip("/")
    try:
        parts = urlsplit(value)
        well = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        msg = "is no address: write it like http://hsds.example.org:5101"
        raise ValueError(msg) from None
    if not well:
        msg = "must begin with http://, https:// or http+unix:// and name a host, like http://127.0.0.1:5101"
        raise ValueError(msg)
    if parts.username is not None or parts.query or parts.fragment or parts.path not in {"", "/"}:
        msg = "is scheme, host and port alone; user and password have keys of their own"
        raise ValueError(msg)
    return value.rstrip("/")


def _bucket(value: str) -> str:
    if value and not _BUCKET.fullmatch(value):
        msg = "is letters, digits, '_', '.' and '-'"
        raise ValueError(msg)
    return value


class HsdsSettings(BaseModel):
    """One server."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    endpoint: Annotated[str, AfterValidator(_endpoint)] = Field(description="http://, https:// or http+unix://.")
    username: str = Field(default="", description="Who asks, together with `password`.")
    password: Secret | None = None
    token: Secret | None = Field(default=None, description="A bearer token, instead of user and password.")
    bucket: Annotated[str, AfterValidator(_bucket)] = Field(default="", description="The server's own one if unset.")
    storage: str = Field(default="", description="The plane that is that bucket, if we may write to it ourselves.")
    limits: PlaneLimits = PlaneLimits(requests=8)
    """More than 8 requests at once make a server with one service node slower, not faster."""
    timeout: float = Field(default=180.0, gt=0, le=3600, description="Seconds that one request may take.")

    @model_validator(mode="after")
    def _who_asks(self) -> Self:
        if self.token and (self.username or self.password):
            msg = "has a token or user and password, not both"
            raise ValueError(msg)
        if bool(self.username) != bool(self.password):
            msg = "username and password go together"
            raise ValueError(msg)
        if ":" in self.username:
            msg = "a user name holds no colon"
            raise ValueError(msg)
        return self

    @property
    def socket(self) -> Path | None:
        """The unix socket of the endpoint, if it is one."""
        if not self.endpoint.startswith(_SOCKET):
            return None
        return Path(unquote(self.endpoint.removeprefix(_SOCKET)))

    @property
    def user(self) -> str:
        """Who asks, for messages."""
        return self.username or ("the owner of the token" if self.token else "nobody")
