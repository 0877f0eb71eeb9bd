"""Requests to Azure that are signed for a node, by a shared access signature for one blob.

Such a signature says which blob, what for and how long, but neither how many bytes nor which: so blobs are written by
it in generation folders (`~…/`) alone, which are nobody's but ours, and what the service says of each block is what
counts.
"""

from __future__ import annotations

import base64
from urllib.parse import quote

from planes import checksum
from planes.azure_connection import Connection
from planes.azure_errors import Asked
from planes.azure_upload import AzureUpload, Target
from planes.direct import Address, Whole, authorities
from planes.errors import Unsupported
from planes.plane import Extent


class AzureSigning:
    """Signs with the plane's key, or with one that the service hands out for that."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def step(self, token: str, number: int, size: int, crc64nvme: int) -> Address:
        """To put a block.

        Raises:
            Unsupported: the blob is not in a folder of ours, or the plane has nothing to sign with.
        """
        upload = AzureUpload.from_token(self._connection, token)
        url = await self._signed(upload.key, "w")
        block = quote(base64.b64encode(upload.block(number).encode()).decode(), safe="")
        return await self._to("PUT", f"{url}&comp=block&blockid={block}", _sent(size, crc64nvme))

    async def put(self, whole: Whole, size: int, crc64nvme: int) -> Address:
        """To write a blob that is not there yet.

        Raises:
            Unsupported: as `step`.
        """
        target = Target(whole.key, whole.upload_id, whole.replace, whole.content_type, whole.metadata)
        headers = {f"x-ms-meta-{name}": text for name, text in target.described(size, crc64nvme).items()}
        headers |= {"x-ms-blob-type": "BlockBlob", "x-ms-blob-content-type": str(target.content.content_type)}
        headers |= {"if-none-match": "*"}
        return await self._to("PUT", await self._signed(whole.key, "c"), headers | _sent(size, crc64nvme))

    async def read(self, extent: Extent) -> Address:
        """To read a blob; range and version are the node's to keep, and what it read is held against checksums."""
        headers = {"range": f"bytes={extent.start}-{extent.end - 1}"}
        headers |= {"if-match": f'"{extent.version}"'} if extent.version else {}
        return await self._to("GET", await self._signed(extent.key, "r"), headers)

    async def _to(self, method: str, url: str, headers: dict[str, str]) -> Address:
        return Address(method, url, headers, await authorities(self._connection.settings.ca))

    async def _signed(self, key: str, permission: str) -> str:
        if permission != "r" and not any(name.startswith("~") for name in key.split("/")[:-1]):
            words = "Azure signs for a whole blob, and this one is not in a folder of ours"
            raise self._connection.error(Unsupported, key, words)
        connection, asked = self._connection, Asked("sign for", key)
        where = connection.container, connection.full(key)
        url = await connection.work(lambda _: connection.account.lent(*where, permission), asked)
        if url is None:
            raise connection.error(Unsupported, key, "it is configured with a SAS, which cannot sign for others")
        seen = connection.settings.direct_endpoint
        return seen + url.removeprefix(connection.account.url) if seen else url


def _sent(size: int, crc64nvme: int) -> dict[str, str]:
    proof = base64.b64encode(checksum.to_azure(crc64nvme)).decode()
    return {"content-length": str(size), "x-ms-content-crc64": proof}
