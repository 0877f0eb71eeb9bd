"""Every answer of an HSDS server that is none, in our words, in one place.

401, 403            CallerDenied    names the server, the user and what was asked for
404, 410            NotFound
409                 AlreadyExists
413, other 4xx      Refused         with the server's own reason
501                 Unsupported
503                 Throttled       the server is full; it is asked again
500, 502, 504       Unavailable     it is asked again, a few times; then Refused
no answer           Unavailable     names the endpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fileserver.errors import CallerDenied
from fileserver.hdf5.hsds.address import show
from planes.errors import AlreadyExists, Error, NotFound, Refused, Throttled, Unavailable, Unsupported

FAULTS: Final = frozenset({500, 502, 504})
"""The server failed at this request: it says so for what will pass and for what will not."""
_MEANING: Final[Mapping[int, tuple[type[Error], str]]] = {
    404: (NotFound, "not there"),
    410: (NotFound, "not there"),
    409: (AlreadyExists, "exists already, or is not empty"),
    501: (Unsupported, "this version of HSDS cannot do that"),
    503: (Throttled, "the server has no room for the request now"),
}
_LONGEST: Final = 300  # characters of the server's own words
_MOST_WAIT: Final = 60.0  # seconds; what a server may ask for in Retry-After


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, for messages."""

    target: str
    """The server's name in the configuration."""
    endpoint: str
    user: str
    what: str
    """The request in words: `GET /datasets/d-…`."""
    domain: str = ""
    bucket: str = ""
    """As configured; empty for the server's own."""

    @property
    def facts(self) -> dict[str, str]:
        """The variable words of messages."""
        facts = {"hsds": self.target, "endpoint": self.endpoint}
        return facts | ({"domain": show(self.domain)} if self.domain else {})

    @property
    def where(self) -> str:
        """The domain and the server."""
        return f"{show(self.domain)} on HSDS '{self.target}'" if self.domain else f"HSDS '{self.target}'"


def answered(asked: Asked, status: int, reason: str, retry_after: str = "") -> Error:
    """The error of an answer with a status of 400 and above."""
    if status in {401, 403}:
        return _denied(asked, status)
    kind, what = _MEANING.get(status, (Unavailable if status in FAULTS else Refused, "the server answered {status}"))
    if kind is NotFound and asked.bucket:
        what = f"not there in its bucket {asked.bucket}"
    said = f": {reason[:_LONGEST]}" if reason and kind is not NotFound else ""
    msg = f"{asked.where}: {what.format(status=status)} ({asked.what}{said})"
    wait = float(retry_after) if retry_after.isdecimal() else 0.0
    return kind(msg, retry_after=min(wait, _MOST_WAIT) or None, status=str(status), **asked.facts)


def _denied(asked: Asked, status: int) -> CallerDenied:
    if status == 401:
        msg = f"HSDS '{asked.target}' does not know {asked.user} or takes another password: correct its configuration"
    else:
        way_out = "whoever owns it can allow it with `cropduster hdf5 acl`"
        msg = f"{asked.where}: {asked.user} may not do that ({asked.what}); {way_out}"
    return CallerDenied(msg, retry_after=None, user=asked.user, status=str(status), **asked.facts)


def for_good(asked: Asked, status: int, times: int) -> Refused:
    """The error of a request at which the server fails again and again."""
    msg = f"{asked.where}: the server failed with {status} at {asked.what}, {times} times; its log tells why"
    return Refused(msg, retry_after=None, status=str(status), **asked.facts)


def unanswered(asked: Asked, why: str) -> Unavailable:
    """The error of a server that does not answer: gone, unreachable, or broken off."""
    msg = f"HSDS '{asked.target}' at {asked.endpoint} does not answer ({why}): see that it runs and can be reached"
    return Unavailable(msg, retry_after=None, **asked.facts)


def garbled(asked: Asked, why: str) -> Refused:
    """The error of an answer that no HSDS gives: another server listens there, or a proxy in between."""
    msg = f"what answers at {asked.endpoint} for HSDS '{asked.target}' is no HSDS ({asked.what}: {why})"
    return Refused(msg, retry_after=None, **asked.facts)
