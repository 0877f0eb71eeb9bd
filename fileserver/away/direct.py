"""Straight to a store, by requests that a file server has signed: the way of bytes past the file servers.

A signed request is a credential: no error, log or record has its address. Where a store cannot be reached from here, or
takes what is sent otherwise than it was signed, that is said (`NotReached`), and the file servers carry the bytes.
"""

from __future__ import annotations

import base64
import logging
import re
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions

from planes import checksum
from planes.direct import Address
from planes.errors import Corrupt, Throttled, Unavailable
from planes.plane import KIB, Extent, StepReceipt, Take
from planes.threads import Stop, Threads

_SLICE: Final = 256 * KIB  # between two of them a cancelled request stops
_CONNECT: Final = 10.0  # seconds
_SILENT: Final = 60.0  # the same
_TOLD: Final = 64 * KIB  # bytes of an error's text
_WRONG: Final = {"BadDigest", "Crc64Mismatch", "InvalidDigest", "Md5Mismatch"}
_LATER: Final = {429, 500, 502, 503, 504}
_LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}
_HEADER: Final = re.compile("(?i)content-(length|type)|range|if-(none-)?match|x-(amz|ms)-[a-z0-9_-]+")
_OF_THE_OBJECT: Final = {404, 409, 412}
"""It is there already (an answer was lost), or is not the version that was pinned, or its upload has ended."""
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_NAME: Final = re.compile("[A-Za-z0-9.]{1,64}")
_WHY: Final[Mapping[type[Exception], str]] = {
    exceptions.NameResolutionError: "its name is not known there",
    exceptions.NewConnectionError: "it takes no connection from there",
    exceptions.SSLError: "its certificate is not trusted there",
    exceptions.ConnectTimeoutError: f"it does not answer within {_CONNECT:.0f} seconds",
    exceptions.ProxyError: "the proxy of that machine does not lead there",
    exceptions.LocationParseError: "its address is none",
}
"""Failures before anything was sent, in words; the more special come first."""
_BEFORE: Final = (*_WHY,)
_CHECKSUMS: Final[Mapping[str, Callable[[str], int]]] = {
    "x-amz-checksum-crc64nvme": checksum.from_s3,
    "x-ms-content-crc64": lambda text: checksum.from_azure(base64.b64decode(text)),
}


# It tells of every request, with what its address was signed with.
logging.getLogger("urllib3.connectionpool").setLevel(logging.WARNING)


class NotReached(Exception):
    """A store does not do what was signed, or cannot be reached from here; `why` names no address but its host.

    With `once` that is about this object alone, and the file servers know more of it.
    """

    def __init__(self, why: str, *, once: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.once = once


class Direct:
    """Connections to stores, kept for the next request.

    Args:
        threads: where requests are made.
        width: connections to one host that are kept.
        encrypted: the file servers are reached by TLS, and so nothing goes in the clear to another machine.
    """

    def __init__(self, threads: Threads, width: int, *, encrypted: bool) -> None:
        self._threads = threads
        self._width = width
        self._encrypted = encrypted
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        """By proxy, and by who is trusted beside the usual authorities."""
        self.lost: dict[str, tuple[str, float]] = {}
        """Planes whose stores were not reached of late: why, and until when that is believed."""

    async def send(self, address: Address, number: int, data: memoryview, crc: int) -> StepReceipt:
        """Send a step, or an object whole; its checksum as the store says it.

        Raises:
            NotReached: the store is not there, or does not take it so.
            Corrupt: it received something else.
            Unavailable, Throttled: the connection broke, or the store asks to come back.
        """

        def work(stop: Stop) -> StepReceipt:
            with _Answer(self._ask("PUT", address, _slices(data, stop))) as answer:
                answer.check({200, 201})
                said = _said(answer.headers)
                if said is None and "x-ms-blob-type" in address.headers and "x-ms-version" in answer.headers:
                    said = crc  # a Put Blob, which Azure refuses if it is not that; a success says no more
                if said is None:  # whoever else answers 200 here, or a store that does not say what it has
                    why = f"{answer.host} answers without a checksum"
                    raise NotReached(why)
                if said != crc:
                    msg = f"the store holds another checksum of step {number} than was sent"
                    raise Corrupt(msg)
                etag = answer.headers.get("etag", "").strip('"')
                return StepReceipt(number, data.nbytes, crc, etag, compared=True)

        return await self._threads.run(work)

    async def fetch(self, address: Address, extent: Extent, take: Take) -> None:
        """Hand over the bytes of an extent, in order.

        Raises:
            NotReached: the store is not there, or does not give them so; nothing was handed over.
            Unavailable, Throttled: the connection broke, or the store asks to come back.
        """

        def work(stop: Stop) -> None:
            with _Answer(self._ask("GET", address, None)) as answer:
                answer.check({206})
                pinned, etag = extent.version.partition(" ")[0], answer.headers.get("etag", "").strip('"')
                if answer.headers.get("content-length") != str(extent.size) or (pinned and etag != pinned):
                    why = f"{answer.host} answers with something else than was asked for"
                    raise NotReached(why)
                left = extent.size
                while left:
                    stop.check()
                    data = answer.read(min(_SLICE, left))
                    left -= len(data)
                    take(memoryview(data))

        await self._threads.run(work)

    def _check(self, method: str, address: Address) -> str:
        """The host of a request that is one to a store: a file server must not have anything else done here."""
        url = urlsplit(address.url)
        host = url.hostname or ""
        odd = address.method != method or url.scheme not in {"http", "https"}
        if odd or not all(_HEADER.fullmatch(name) for name in address.headers):
            why = "what the file server has signed is no request to a store"
            raise NotReached(why)
        if self._encrypted and url.scheme != "https" and host not in _LOOPBACK:
            why = f"{host}: the store would be reached in the clear, and the file servers are not"
            raise NotReached(why)
        return host

    def _ask(self, method: str, address: Address, body: Any) -> tuple[str, urllib3.BaseHTTPResponse]:
        host = self._check(method, address)
        try:
            answer = self._pool(address).request(
                method,
                address.url,
                headers=dict(address.headers),
                body=body,
                preload_content=False,
                decode_content=False,
                redirect=False,
            )
        except _BEFORE as failure:
            why = f"{host}: {next(words for kind, words in _WHY.items() if isinstance(failure, kind))}"
            raise NotReached(why) from None  # the failure's text has the address
        except (exceptions.HTTPError, OSError):
            raise _broke(host) from None
        return host, answer

    def _pool(self, address: Address) -> urllib3.PoolManager:
        proxy = _proxy_of(address.url)
        key = proxy, address.authorities
        with self._lock:
            if key not in self._pools:
                options: Any = {
                    "maxsize": self._width,
                    "retries": False,
                    "timeout": urllib3.Timeout(connect=_CONNECT, read=_SILENT),
                }
                if address.authorities:
                    options["ssl_context"] = _trusting(address.authorities)
                made = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
                self._pools[key] = made
            return self._pools[key]

    def close(self) -> None:
        """Let connections go."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()


class _Answer:
    """An answer, whose connection is given back when all of it was read, and closed otherwise."""

    def __init__(self, asked: tuple[str, urllib3.BaseHTTPResponse]) -> None:
        self.host, self._answer = asked
        self.headers: Mapping[str, str] = self._answer.headers

    def check(self, well: set[int]) -> None:
        """See that it is what was hoped for, and raise what it is otherwise."""
        status = self._answer.status
        if status in well:
            return
        told = self.headers.get("x-ms-error-code", "")
        if not _NAME.fullmatch(told):
            found = _CODE.search(self._read(_TOLD))
            told = found[1].decode() if found else ""
        if told in _WRONG:
            msg = f"{self.host} received other bytes than were sent ({told})"
            raise Corrupt(msg)
        if status in {429, 503}:
            msg = f"{self.host} asks to come back ({status} {told})"
            raise Throttled(msg, retry_after=_seconds(self.headers.get("retry-after", "")))
        if status in _LATER:
            msg = f"{self.host} answers {status} {told}"
            raise Unavailable(msg)
        why = f"{self.host} answers {status} {told}".rstrip()
        raise NotReached(why, once=status in _OF_THE_OBJECT)

    def read(self, size: int) -> bytes:
        """Bytes of it, one at least; raises Unavailable where it broke off."""
        data = self._read(size)
        if not data:
            raise _broke(self.host)
        return data

    def _read(self, size: int) -> bytes:
        try:
            return self._answer.read(size)
        except (exceptions.HTTPError, OSError):
            raise _broke(self.host) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._answer.drain_conn()
            self._answer.release_conn()
        else:
            self._answer.close()


def _slices(data: memoryview, stop: Stop) -> Iterator[memoryview]:
    for start in range(0, data.nbytes, _SLICE):
        stop.check()
        yield data[start : start + _SLICE]


def _said(headers: Mapping[str, str]) -> int | None:
    """The CRC64NVME that a store says of what it has stored."""
    for name, read in _CHECKSUMS.items():
        if text := headers.get(name, ""):
            try:
                return read(text)
            except ValueError:
                return None
    return None


def _broke(host: str) -> Unavailable:
    return Unavailable(f"the connection to {host} broke")


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


def _trusting(authorities: str) -> ssl.SSLContext:
    """Trusts these beside the usual ones; raises NotReached."""
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError):
        why = "what the file server says of who signed the store's certificate is no certificate"
        raise NotReached(why) from None
    return context


def _proxy_of(url: str) -> str:
    """The proxy that the environment of this machine names for an address; "" for none."""
    parts = urlsplit(url)
    known = urllib.request.getproxies()
    if parts.scheme not in known or urllib.request.proxy_bypass(parts.netloc):
        return ""
    return known[parts.scheme]
