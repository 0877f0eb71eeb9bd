r"""Whether a store keeps odd names as they are: some take `a//b` or `a\b` for `a/b`, and write one over the other.

Amazon keeps them. Another store is tried once for each kind of oddity, with an empty object in a folder of a random
name, which is removed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Final

from planes.errors import Full, Missing, Refused, Unsupported
from planes.s3_connection import Connection
from planes.s3_errors import Asked

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
            Refused: the store would keep it under another name, and write over what is there.
        """
        if self._connection.settings.endpoint is None:
            return
        for odd in odd_in(self._connection.full(key)):
            async with self._turn:
                if odd not in self._kept:
                    self._kept[odd] = await self._keeps(odd)
            if not self._kept[odd]:
                words = f"the store does not keep {odd!r} in names, and would write another object: choose another name"
                raise self._connection.error(Refused, key, words)

    async def _keeps(self, odd: str) -> bool:
        """Write an object with such a name, and see under which it lies."""
        connection = self._connection
        folder = f"{connection.settings.prefix}cropduster-names-{secrets.token_hex(8)}/"
        wanted, asked = f"{folder}a{odd}b", Asked("try names in", folder)

        def write(client: S3Client) -> None:
            client.put_object(Bucket=connection.bucket, Key=wanted, Body=b"", **connection.encryption)

        def names(client: S3Client) -> list[str]:
            page = client.list_objects_v2(Bucket=connection.bucket, Prefix=folder)
            return [each["Key"] for each in page.get("Contents", [])]

        def remove(client: S3Client) -> None:
            for name in {wanted, *found}:
                client.delete_object(Bucket=connection.bucket, Key=name)

        found: list[str] = []
        try:
            await connection.ask(write, asked)
            try:
                found = await connection.ask(names, asked)
            finally:
                with contextlib.suppress(Refused):
                    await connection.ask(remove, asked)
        except (Missing, Full):
            raise
        except (Refused, Unsupported):  # it takes no such names, or nothing from us: the write itself will tell
            return True
        return wanted in found


def odd_in(full: str) -> list[str]:
    """What of a name is not the same name everywhere."""
    return [odd for odd in _ODD if odd in f"/{full}"]
