"""What Azurite can't: Put Block From URL out of somewhere else, as Azure's protocol describes it.

A fault for `proxy.before(account.url …)`: requests whose source is another host are checked, fetched from there as
Azure would (a GET with the range, nothing else), and put as a block with the account's own key. All others pass.
"""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from planes import checksum
from tests.doubles import proxy
from tests.doubles.azurite import Account

_NOT_OURS = ("x-ms-source-if-match", "x-ms-source-content-md5")


@dataclass
class Puller:
    """Fetches for Azurite; `fetched` are the addresses that it was given."""

    account: Account
    fetched: list[str] = field(default_factory=list)

    def __call__(self, exchange: proxy.Exchange) -> None:
        """Answer one request."""
        request = exchange.request
        source = request.headers.get("x-ms-copy-source", "")
        if not source or urlsplit(source).netloc in {urlsplit(self.account.url).netloc, request.headers["host"]}:
            exchange.send(exchange.forward())
            return
        query = parse_qs(request.query)
        assert (request.method, query["comp"], request.received) == ("PUT", ["block"], 0), request
        assert request.headers["x-ms-source-range"].startswith("bytes="), request
        assert not [name for name in _NOT_OURS if name in request.headers], "conditions of blobs, for another source"
        self.fetched.append(source)
        try:
            data = self._fetch(source, request.headers["x-ms-source-range"])
        except urllib.error.HTTPError as refused:
            exchange.send(_answer(refused.code, "CannotVerifyCopySource"))
            return
        _, _, container, blob = request.path.split("/", 3)
        name = base64.b64decode(query["blockid"][0]).decode()
        with self.account.client() as client:
            client.get_blob_client(container, blob).stage_block(name, data)
        said = base64.b64encode(checksum.to_azure(checksum.compute(data))).decode()
        exchange.send(proxy.Answer(201, (("x-ms-content-crc64", said), ("x-ms-version", "2026-06-06"))))

    @staticmethod
    def _fetch(source: str, span: str) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(source, headers={"Range": span}), timeout=30) as answer:
            return bytes(answer.read())


def _answer(status: int, code: str) -> proxy.Answer:
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>by a test</Message></Error>'
    return proxy.Answer(status, (("x-ms-error-code", code), ("Content-Type", "application/xml")), text.encode())
