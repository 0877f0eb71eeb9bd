r"""Whether a store keeps odd names as they are: some take `a//b` or `a\b` for `a/b`, and write one over the other.

Amazon keeps them. Another store is tried once for each kind of oddity, with an empty object in a folder of a random
name, which is removed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from planes.errors import Error, Full, Missing, NotFound, Refused, Unsupported
from planes.s3_connection import Connection
from planes.s3_errors import Asked
from planes.threads import until_done

if TYPE_CHECKING:  # the SDK's types are not installed beside a running server
    from mypy_boto3_s3.client import S3Client

_ODD: Final = ("//", "/./", "\\")


class Names:
    """What is known of one store."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept: dict[str, bool] = {}
        self._turn = asyncio.Lock()

    async def check(self, key: str) -> None:
        """Look at the name of an object that is to be written; nearly all pass without a request.

        Raises:
            Refused: the store would keep it under another name, and write over what is there; or does not let us see.
        """
        if self._connection.settings.endpoint is None:
            return
        for odd in odd_in(self._connection.full(key)):
            async with self._turn:
                kept = self._kept.get(odd)
                if kept is None:
                    kept = await self._keeps(odd, key)
                    if kept is None:
                        continue
                    self._kept[odd] = kept
            if not kept:
                words = f"the store does not keep {odd!r} in names, and would write another object: choose another name"
                raise self._connection.error(Refused, key, words)

    async def _keeps(self, odd: str, key: str) -> bool | None:
        """Write an object with such a name, and see under which it lies; None if it takes no such names from us.

        Raises:
            Refused: it takes one, and does not say under which name it lies.
        """
        connection = self._connection
        folder = f"{connection.settings.prefix}cropduster-names-{secrets.token_hex(8)}/"
        wanted, merged = f"{folder}a{odd}b", f"{folder}a/b"
        made = {wanted, merged}

        def write(client: S3Client) -> None:
            client.put_object(Bucket=connection.bucket, Key=wanted, Body=b"", **connection.encryption)

        try:
            try:
                await connection.ask(write, Asked("try names in", folder))
            except (Refused, Unsupported) as refused:
                made.clear()
                if isinstance(refused, Missing | Full):
                    raise
                return None  # the write itself will tell
            kept = await self._lies(folder, wanted, merged)
            if kept:
                made.discard(merged)
        finally:  # also if nobody knows whether it was written
            await self._remove(made)
        if kept is None:
            words = f"whether the store keeps {odd!r} in names, or would write another object, cannot be found out, "
            words += "because we may neither list nor look at objects: allow s3:ListBucket, or choose another name"
            raise connection.error(Refused, key, words)
        return kept

    async def _lies(self, folder: str, wanted: str, merged: str) -> bool | None:
        """Whether what was written lies where it should; None if the store does not say."""
        connection = self._connection

        def names(client: S3Client) -> list[str]:
            page = client.list_objects_v2(Bucket=connection.bucket, Prefix=folder)
            return [each["Key"] for each in page.get("Contents", [])]

        try:
            return wanted in await connection.ask(names, Asked("try names in", folder))
        except (Missing, Full):
            raise
        except (Refused, Unsupported):
            elsewhere = await self._is_there(merged)
        if elsewhere is None:  # who may not list is told so of an object that is not there, but not of one that is
            return await self._is_there(wanted) or None
        return not elsewhere

    async def _is_there(self, name: str) -> bool | None:
        """Whether there is an object of this name; None if the store does not say."""
        connection = self._connection

        def look(client: S3Client) -> None:
            client.head_object(Bucket=connection.bucket, Key=name)

        try:
            await connection.ask(look, Asked("look at", name))
        except NotFound:
            return False
        except (Refused, Unsupported):
            return None
        return True

    async def _remove(self, names: Iterable[str]) -> None:
        """Remove these, whoever is cancelled meanwhile; what the store does not remove stays."""
        connection = self._connection

        async def each() -> None:
            for name in names:

                def remove(client: S3Client, name: str = name) -> None:
                    client.delete_object(Bucket=connection.bucket, Key=name)

                with contextlib.suppress(Error):
                    await connection.ask(remove, Asked("remove", name))

        removing = asyncio.ensure_future(each())
        cancelled = await until_done(removing)
        removing.result()
        if cancelled is not None:
            raise cancelled


def odd_in(full: str) -> list[str]:
    """What of a name is not the same name everywhere."""
    # A `.` may be the last; what ends in `/` is a folder everywhere.
    return [odd for odd in _ODD if odd in (f"/{full}/" if odd == "/./" else f"/{full}")]
