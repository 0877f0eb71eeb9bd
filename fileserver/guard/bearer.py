"""Who calls by token: `authorization: Bearer …` on every call but health checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from fileserver.auth import Caller, caller, set_caller
from fileserver.calls import HEALTH, Call, Metadata
from fileserver.errors import CallerUnknown
from fileserver.guard.tokens import Verifier
from fileserver.rules import Rules

METADATA_KEY: Final = "authorization"


class Bearers:
    """Asks every call but health checks for a token.

    Args:
        verifier: checks tokens.
        rules: what callers may do; None is everything that is offered outside.
        now: seconds since 1970.
    """

    def __init__(self, verifier: Verifier, rules: Rules | None, now: Callable[[], float] = time.time) -> None:
        self._verifier = verifier
        self._rules = rules
        self._now = now

    async def check(self, method: str, metadata: Metadata) -> None:
        """Know the caller of a call, before anything else of it is taken in.

        Raises:
            CallerUnknown: no token, or one that does not count.
            ServerUnavailable: whether it counts cannot be found out now.
        """
        if not method.startswith(HEALTH):
            found = await self._verifier.identity(_token(metadata))
            rights = self._rules.of(found.name, found.groups) if self._rules else None
            set_caller(Caller(local=False, name=found.name, rights=rights, outside=True, until=found.ends))

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """End an answer that goes on and on with its token; raises CallerUnknown."""
        ends = caller().until
        if not call.streams or ends is None:
            yield
            return
        limit = asyncio.timeout(max(0.0, ends - self._now()))
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            msg = "the token has expired while the answer was under way: get a new one, and call again"
            raise CallerUnknown(msg) from None


def _token(metadata: Metadata) -> str:
    """What stands behind `Bearer`, if that is there once; raises CallerUnknown."""
    shown = [value for key, value in metadata if key == METADATA_KEY]
    scheme, _, token = shown[0].partition(" ") if len(shown) == 1 and isinstance(shown[0], str) else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        msg = "this file server asks for a token: give one with --token-file, or in CROPDUSTER_TOKEN"
        raise CallerUnknown(msg)
    return token.strip()
