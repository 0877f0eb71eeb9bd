"""What Azure may copy from by itself: blobs of any account that it reaches, and objects of S3 by a pre-signed address.

Azure fetches an address, so redeeming a ticket takes one that is signed at the moment of use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from planes.azure_connection import KIND, OURS, Connection
from planes.azure_errors import Asked, answered
from planes.azure_settings import is_public
from planes.errors import Changed, Unsupported
from planes.plane import Presign, Ticket

_AMAZON: Final = "aws"
_METADATA: Final = ("x-ms-meta-", "x-amz-meta-")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the source says of itself beside its bytes."""

    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def accepts(connection: Connection, ticket: Ticket) -> bool:
    """Whether Azure can hope to fetch the ticket's object."""
    account = connection.account.url
    if ticket.kind == KIND:
        return ticket.scope == account or (is_public(account) and is_public(ticket.scope))
    if ticket.kind != "s3":
        return False
    endpoint = ticket.scope.partition(" ")[0]  # a scope of S3 begins with where the store is
    if endpoint in connection.settings.pull_from:
        return True
    return is_public(account) and (endpoint == _AMAZON or is_public(endpoint))


def is_azures(ticket: Ticket) -> bool:
    """Whether the source is a blob, whose version Azure compares by itself."""
    return ticket.kind == KIND


def is_pinned(ticket: Ticket) -> bool:
    """Whether Azure itself sees to it that the source has the ticket's version.

    Of other sources than blobs it is not known that the condition is passed on: those are looked at after each step,
    unless their address names the version.
    """
    return is_azures(ticket) or "version_id" in ticket.location


async def address(connection: Connection, ticket: Ticket, url: Presign | None, asked: Asked) -> str:
    """A signed address of the ticket's object.

    Raises:
        Unsupported: it is of somewhere that Azure cannot reach, or nobody is there to sign it.
    """
    if accepts(connection, ticket):
        if url is not None:
            return await url()
        if ticket.scope == connection.account.url:
            where = ticket.location
            return await connection.work(lambda _: connection.account.signed(where["container"], where["blob"]), asked)
    words = f"Azure cannot copy it out of there by itself ({ticket.kind}): read and put it instead"
    raise connection.error(Unsupported, asked.key, words)


async def look_through(connection: Connection, source: str, ticket: Ticket, asked: Asked) -> Facts:
    """See at its own address that the source has the ticket's version, and what it says of itself; reads one byte.

    Raises:
        Changed: it has another version, or has vanished.
    """
    headers = {"Range": "bytes=0-0"} if ticket.size else {}
    etag = ticket.version.partition(" ")[0]
    headers |= {"If-Match": f'"{etag}"'} if etag else {}

    def call(_: object) -> Facts:
        answer = connection.http.get(source, headers)
        try:
            if answer.status not in {200, 206}:
                code = answer.headers.get("x-ms-error-code", "")
                raise answered(answer.status, code, answer.headers, asked, connection.place)
            if etag and answer.headers.get("etag", "").strip('"') != etag:
                raise connection.error(Changed, asked.key, "its source is another version than the one that was pinned")
            return Facts(answer.headers.get("content-type", ""), _metadata(answer.headers))
        finally:
            answer.close()

    return await connection.work(call, asked)


def _metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """The source's metadata under names that Azure takes, without what is ours."""
    named = ((header.lower(), text) for header, text in headers.items())
    found = {name.removeprefix(begin): text for name, text in named for begin in _METADATA if name.startswith(begin)}
    return legal(found)


def legal(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Metadata under names that Azure takes (`-` becomes `_`), without what is ours and what has no such name."""
    names = {name: name.replace("-", "_") for name in metadata or {}}
    taken = {name: new for name, new in names.items() if new.isascii() and new.isidentifier()}
    return {new: (metadata or {})[name] for name, new in taken.items() if new.lower() not in OURS}
