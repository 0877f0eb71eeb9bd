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

from dataclasses import dataclass
from typing import Final

from fileserver.errors import CallerDenied
from fileserver.hdf5.hsds.address import show
from planes.errors import AlreadyExists, Error, NotFound, Refused, Throttled, Unavailable, Unsupported

FAULTS: Final = frozenset({500, 502, 504})
"""The server failed at this request: it says so for what will pass and for what will not."""
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
    said = f" ({reason[:_LONGEST]})" if reason else ""
    facts = asked.facts | {"status": str(status)}
    if status == 401:
        msg = f"HSDS '{asked.target}' does not know {asked.user} or takes another password: correct its configuration"
        return CallerDenied(msg, retry_after=None, user=asked.user, **facts)
    if status == 403:
        msg = (
            f"{asked.where}: {asked.user} may not do that ({asked.what}); its owner can allow it with "
            "`cropduster hdf5 acl`"
        )
        return CallerDenied(msg, retry_after=None, user=asked.user, **facts)
    if status in {404, 410}:
        return NotFound(f"{asked.where}: not there ({asked.what})", retry_after=None, **facts)
    if status == 409:
        return AlreadyExists(
            f"{asked.where}: exists already, or is not empty ({asked.what}){said}", retry_after=None, **facts
        )
    if status == 501:
        return Unsupported(
            f"{asked.where}: this version of HSDS cannot do that ({asked.what}){said}", retry_after=None, **facts
        )
    if status == 503:
        wait = float(retry_after) if retry_after.isdecimal() else 0.0
        msg = f"{asked.where}: the server has no room for the request now ({asked.what})"
        return Throttled(msg, retry_after=min(wait, _MOST_WAIT) or None, **facts)
    if status in FAULTS:
        msg = f"{asked.where}: the server failed with {status} at {asked.what}{said}; its log tells why"
        return Unavailable(msg, retry_after=None, **facts)
    return Refused(f"{asked.where}: the server refused {asked.what} with {status}{said}", retry_after=None, **facts)


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
