"""A container of a real Azure service behind the proxy, and faults in Azure's words."""

from __future__ import annotations

import base64
from typing import Any, ClassVar

from planes import checksum
from planes.plane import Plane
from tests.doubles import proxy


class AzureSite:
    """A container of a real service."""

    requests: ClassVar = {
        "stat": {"method": "HEAD"},
        "list": {"method": "GET", "query": "comp=list"},
        "read": {"method": "GET"},
        "put": {"method": "PUT", "header": "x-ms-blob-type"},
        "copy": {"method": "PUT", "header": "x-ms-copy-source"},
        "put_step": {"method": "PUT", "query": "blockid="},
        "copy_step": {"method": "PUT", "header": "x-ms-copy-source"},
        "commit": {"method": "PUT", "query": "comp=blocklist"},
        "abort": {"method": "PUT", "query": "comp=blocklist"},
        "delete": {"method": "DELETE"},
    }
    source = "origin/source"

    def __init__(self, plane: Plane, between: proxy.Proxy, behind: Any) -> None:
        self.plane = plane
        self.between = between
        self._behind = behind

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies there, what an abort leaves for a moment too."""
        names = [each.name for each in self._behind.list_blobs(prefix)]
        return {name: self._behind.download_blob(name).readall() for name in names}

    def open_uploads(self, prefix: str) -> list[str]:
        """Names of blobs at which blocks wait."""
        names = [each.name for each in self._behind.list_blobs(prefix, include=["uncommittedblobs"])]
        return [name for name in names if self._behind.get_blob_client(name).get_block_list("uncommitted")[1]]


def says(status: int, code: str, *, after: str = "", done: bool = False) -> proxy.Fault:
    """An error of Azure's kind, whose code is in a header; with `done` the service has done it before."""

    def fault(exchange: proxy.Exchange) -> None:
        if done:
            exchange.forward()
        headers = (("x-ms-error-code", code), ("Content-Type", "application/xml"))
        text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>by a test</Message></Error>'
        answer = proxy.Answer(status, headers, text.encode())
        exchange.send(answer.with_header("Retry-After", after) if after else answer)

    return fault


def wrong_checksum(answer: proxy.Answer) -> proxy.Answer:
    """The answer with the checksum of other bytes."""
    return answer.with_header("x-ms-content-crc64", base64.b64encode(checksum.to_azure(5)).decode())
