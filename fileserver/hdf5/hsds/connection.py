"""Requests to one HSDS server: as many at once as it takes, asked again where that helps, errors in our words.

The server says 503 when it is full, and means it: the width of the window halves (`planes.window`), and who was
refused waits, each another while. Every verb is asked again after a lost answer, so callers make requests that may be
done twice (ids of their own, links to what is known) and take "exists" or "not there" for done where they do.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlencode

import aiohttp
from typing_extensions import Buffer
from yarl import URL

from fileserver.hdf5.hsds import errors
from fileserver.hdf5.hsds.errors import Asked
from fileserver.hdf5.hsds.settings import HsdsSettings
from planes.bounds import Bounds
from planes.errors import Error, Throttled, Unavailable
from planes.retrying import Outage, Patience

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

MOST_FAULTS: Final = 4
"""Times that a server may fail at a request, if nothing else is said."""
"""Times that a server may fail at one request with 500: it says that for what will pass, and for what never will."""
_CONNECT_SECONDS: Final = 10.0
_SLICE: Final = 256 * 1024  # bytes that are handed to the socket at once
_BINARY: Final = "application/octet-stream"
_TEXT: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    asked: Asked
    status: int
    content: bytes

    def json(self) -> Mapping[str, JSON]:
        """The answer as a mapping; empty if it has no content. Raises Refused where it is none."""
        try:
            found = json.loads(self.content) if self.content else {}
        except ValueError:
            raise errors.garbled(self.asked, "its answer is no JSON") from None
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise errors.garbled(self.asked, "its answer is no mapping")
        return found


@dataclass(frozen=True, slots=True)
class Traffic:
    """Totals since the connection was made."""

    requests: int
    refused: int
    """Answers that the server is full."""
    lost: int
    """Requests without an answer."""


class Connection:
    """One server. Belongs to one event loop.

    Args:
        name: of the server in the configuration.
        settings: where it is and who asks.
        patience: how long to keep trying; half a minute for one that is gone, two minutes for one that is full.
    """

    def __init__(self, name: str, settings: HsdsSettings, patience: Patience | None = None) -> None:
        self.name = name
        self.settings = settings
        self._socket = settings.socket
        self._base = "http://localhost" if self._socket else settings.endpoint
        patience = patience or Patience()
        self._again = Outage(patience)
        self._bounds = Bounds(name, settings.limits, patience.clock, patience.sleep)
        self._session: aiohttp.ClientSession | None = None
        self._requests = self._refused = self._lost = 0

    @property
    def traffic(self) -> Traffic:
        """What has been asked so far."""
        return Traffic(self._requests, self._refused, self._lost)

    @property
    def width(self) -> int:
        """Requests at once just now."""
        return self._bounds.window.places

    async def call(
        self,
        method: str,
        path: str,
        *,
        domain: str = "",
        params: Mapping[str, str] | None = None,
        body: JSON = None,
        data: Buffer | None = None,
        wants_bytes: bool = False,
        faults: int = MOST_FAULTS,
    ) -> Answer:
        """One request, answered with a status below 400.

        Args:
            method: GET, PUT, POST or DELETE.
            path: of the resource, like `/datasets/d-…/value`.
            domain: path of the domain that it is in.
            params: of the query, beside domain and bucket.
            body: sent as JSON.
            data: sent as bytes, instead of `body`.
            wants_bytes: in return, instead of JSON.
            faults: after so many failures of the server at it, it fails for good.

        Raises:
            CallerDenied, NotFound, AlreadyExists, Refused, Unsupported: what the server says, see `errors`.
            Throttled: it had no room for two minutes.
            Unavailable: it did not answer for half a minute.
        """
        settings = self.settings
        asked = Asked(self.name, settings.endpoint, settings.user, f"{method} {path}", domain, settings.bucket)
        request = _Request(method, path, self._query(domain, params), body, data, wants_bytes)
        failed = 0

        async def attempt() -> Answer:
            nonlocal failed
            status, reason, wait, content = await self._exchange(asked, request)
            if status < 300:
                return Answer(asked, status, content)
            failed += status in errors.FAULTS
            if failed >= faults:
                raise errors.for_good(asked, status, failed)
            if status < 400:
                raise errors.garbled(asked, f"it sends us elsewhere with {status}")
            raise errors.answered(asked, status, reason, wait)

        async def bounded() -> Answer:
            async with self._bounds.of(request.size):
                try:
                    return await attempt()
                except Error as error:
                    self._count(error)
                    raise

        return await self._again.keep_trying(bounded)

    async def aclose(self) -> None:
        """Release the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _count(self, error: Error) -> None:
        self._refused += isinstance(error, Throttled)
        self._lost += isinstance(error, Unavailable)

    def _query(self, domain: str, params: Mapping[str, str] | None) -> Mapping[str, str]:
        query = {"domain": domain} if domain else {}
        if self.settings.bucket:
            query["bucket"] = self.settings.bucket
        return {**query, **(params or {})}

    async def _exchange(self, asked: Asked, request: _Request) -> tuple[int, str, str, bytes]:
        """One attempt: status, reason, Retry-After and content; raises Unavailable without an answer."""
        headers = request.headers | self._who()
        self._requests += 1
        try:
            async with self._open().request(
                request.method,
                self._url(request),
                data=request.content(),
                headers=headers,
                allow_redirects=False,  # nobody else is to see the password
            ) as answer:
                content = await answer.read()
                return answer.status, answer.reason or "", answer.headers.get("Retry-After", ""), content
        except TimeoutError:
            raise errors.unanswered(asked, f"no answer within {self.settings.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise errors.unanswered(asked, _why(error)) from None

    def _url(self, request: _Request) -> URL:
        """Whole and quoted: taken apart and put together again, it would cost more than the answer."""
        query = urlencode(request.query, safe="/")
        return URL(f"{self._base}{request.path}{'?' if query else ''}{query}", encoded=True)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # The window bounds the requests in flight, and so the connections.
            connector = (
                aiohttp.UnixConnector(str(self._socket), limit=0) if self._socket else aiohttp.TCPConnector(limit=0)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self.settings.timeout, sock_connect=_CONNECT_SECONDS),
                trust_env=False,
            )
        return self._session

    def _who(self) -> dict[str, str]:
        """The header that says who asks; secrets are read anew, so that a rotated one is found."""
        if self.settings.token:
            return {"Authorization": f"Bearer {self.settings.token.resolve()}"}
        if self.settings.password:
            pair = f"{self.settings.username}:{self.settings.password.resolve()}"
            return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        return {}


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent, as often as it has to be."""

    method: str
    path: str
    query: Mapping[str, str]
    body: JSON
    data: Buffer | None
    wants_bytes: bool

    @property
    def size(self) -> int:
        """Bytes of data."""
        return memoryview(self.data).nbytes if self.data is not None else 0

    @property
    def headers(self) -> dict[str, str]:
        """What is sent and what is wanted."""
        wanted = {"Accept": _BINARY if self.wants_bytes else _TEXT}
        if self.data is not None:
            return wanted | {"Content-Type": _BINARY, "Content-Length": str(self.size)}
        return wanted | ({"Content-Type": _TEXT} if self.body is not None else {})

    def content(self) -> bytes | AsyncIterator[bytes] | None:
        """The body; data in slices, so that a large one does not hold the event loop up."""
        if self.data is not None:
            data = memoryview(self.data)
            return _slices(data.cast("B")) if data.nbytes > _SLICE else data.tobytes()
        return json.dumps(self.body).encode() if self.body is not None else None


async def _slices(data: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, data.nbytes, _SLICE):
        yield bytes(data[start : start + _SLICE])


def _why(error: aiohttp.ClientError | OSError) -> str:
    """What went wrong, without the address, which may be a path of another machine's."""
    found = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(found, OSError) and found.strerror:
        return found.strerror
    return "the connection broke"
