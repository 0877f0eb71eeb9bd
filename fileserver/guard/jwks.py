"""The keys of an OpenID Connect provider: fetched, kept, and fetched again when a token names one that is not there.

A stranger can name a key that nobody has as often as he likes, so there is a bound on how often that is looked up.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO, Any, Final

import structlog

from fileserver.callers import Issuer
from fileserver.errors import ServerUnavailable

BETWEEN: Final = 10.0
"""Seconds between two fetches at least."""
FRESH: Final = 600.0
"""Seconds for which keys are taken for all there are."""
STALE: Final = 24 * 3600.0
"""Seconds for which keys are believed while the provider does not answer."""
_NO_ANSWER: Final = (OSError, ValueError, http.client.HTTPException, RecursionError)
"""What there may be instead of an answer: nothing, no JSON, an answer that breaks off, one nested a million deep."""
_LARGEST: Final = 1 << 20
_SECONDS: Final = 5.0

Fetch = Callable[[str, str | None], object]
"""From an address and the file of an authority to the JSON that is there; raises what `_NO_ANSWER` names."""
_log = structlog.stdlib.get_logger(__name__)


class IssuerKeys:
    """The keys of one provider, by their ids. Belongs to one event loop.

    Args:
        settings: which provider.
        fetch: gets JSON, in a thread.
        clock: monotonic seconds.
    """

    def __init__(
        self, settings: Issuer, fetch: Fetch | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._fetch = fetch or fetch_json
        self._clock = clock
        self._keys: Mapping[str, Mapping[str, Any]] = {}
        self._fetched = self._tried = float("-inf")
        self._alone = asyncio.Lock()

    async def key(self, kid: str) -> Mapping[str, Any] | None:
        """The key of an id as the provider publishes it, None if it has none such.

        Raises:
            ServerUnavailable: the provider does not answer, and its keys are not known.
        """
        if kid not in self._keys or self._clock() - self._fetched > FRESH:
            async with self._alone:
                await self._refresh(kid)
        if self._clock() - self._fetched > STALE:
            msg = f"the issuer {self._settings.issuer} does not tell its keys: call again in a moment"
            raise ServerUnavailable(msg, retry_after=BETWEEN, issuer=self._settings.issuer)
        return self._keys.get(kid)

    async def _refresh(self, kid: str) -> None:
        """Fetch the keys, unless that was just done."""
        known = kid in self._keys and self._clock() - self._fetched <= FRESH
        if known or self._clock() - self._tried < BETWEEN:
            return
        self._tried = self._clock()
        try:
            self._keys = await asyncio.to_thread(self._look)
        except _NO_ANSWER as error:
            _log.warning("keys of an issuer cannot be had", issuer=self._settings.issuer, why=str(error))
        else:
            self._fetched = self._clock()

    def _look(self) -> Mapping[str, Mapping[str, Any]]:
        """The keys as they are published now; raises what `_NO_ANSWER` names."""
        address, issuer = self._settings.jwks, self._settings.issuer
        ca = str(self._settings.ca) if self._settings.ca else None
        if address is None:
            found = self._fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration", ca)
            if not isinstance(found, dict) or found.get("issuer") != issuer:
                msg = "its discovery document is that of another issuer"
                raise ValueError(msg)
            address = type(self._settings)(
                issuer=issuer, jwks=found.get("jwks_uri")
            ).jwks  # checked as a configured one
            if address is None:
                msg = "its discovery document names no jwks_uri"
                raise ValueError(msg)
        published = self._fetch(address, ca)
        keys = published.get("keys") if isinstance(published, dict) else None
        if not isinstance(keys, list):
            msg = "there are no keys where it says"
            raise ValueError(msg)  # noqa: TRY004 - what came is wrong, not a program
        named = [key for key in keys if isinstance(key, dict) and isinstance(key.get("kid"), str)]
        return {key["kid"]: key for key in named if key.get("use", "sig") == "sig"}


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: keys come from where the configuration says."""

    def redirect_request(self, req: object, fp: IO[bytes], code: int, msg: str, headers: object, newurl: str) -> None:  # noqa: ARG002
        """Nowhere."""
        return


def fetch_json(address: str, ca: str | None) -> object:
    """The JSON at an address; raises what `_NO_ANSWER` names."""
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310 - checked: https
    with urllib.request.build_opener(_Stay, secure).open(request, timeout=_SECONDS) as answer:
        text = answer.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        msg = f"{address} answers with more than {_LARGEST} bytes"
        raise ValueError(msg)
    return json.loads(text)
