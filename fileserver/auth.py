"""Who calls: whoever can read the server's cookie is the server's own user; others are known by `fileserver.guard`."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fileserver.calls import GRANT_KEY, HEALTH, Call, Metadata
from fileserver.configured import AGENT, LOCAL, agent_plane
from fileserver.errors import CallerDenied, CallerUnknown
from fileserver.rules import Rights, Thing, Verb

METADATA_KEY: Final = "cropduster-cookie"
DATA: Final = "/fileserver.v1.DataService/"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes the call in progress."""

    local: bool
    """Proved to be the server's own user, on this machine."""
    name: str = ""
    """By its certificate or its token; "" is the server's own user, or nobody."""
    rights: Rights | None = None
    """What it may do; None is everything that is offered to it."""
    outside: bool = False
    """Known by a token; its name is one of those that tokens have, which others may have, too."""

    until: float | None = None
    """Seconds since 1970 until which it is known; None is for ever."""

    @property
    def owns_as(self) -> str:
        """Under which name its transfers are kept: those of the server's own kind are nobody's in particular."""
        return self.name if self.outside else ""

    @property
    def owner_of(self) -> str | None:
        """Whose transfers it may see and steer: those of its name; None is everybody's."""
        return None if self.rights is None or self.rights.admin else self.name

    def may(self, verb: Verb, thing: Thing) -> bool:
        """Whether it may do something with a thing.

        Where there are no rules, who has a token may do what is offered outside, but be nobody's host: whoever is that
        gets the files of all callers.
        """
        if self.rights is None:
            return not (self.outside and verb is Verb.SERVE)
        return self.rights.allow(verb, thing)

    def sees_plane(self, name: str) -> bool:
        """Whether it may know that there is a plane of this name."""
        return self.rights is None or self.rights.sees_plane(name)


_STRANGER: Final = Caller(local=False)
_caller: ContextVar[Caller] = ContextVar("caller", default=_STRANGER)
_agent: ContextVar[str] = ContextVar("agent", default="")
_holder: ContextVar[str] = ContextVar("holder", default="")


def caller() -> Caller:
    """Who makes the call in progress, or for whom a transfer runs; a stranger otherwise."""
    return _caller.get()


def set_caller(who: Caller) -> None:
    """Make what goes on in this task that of somebody."""
    _caller.set(who)


def run_for(owner: str) -> None:
    """Make what goes on in this task, for a transfer, that of whom it belongs to (`Caller.owns_as`)."""
    set_caller(Caller(local=False, name=owner, outside=bool(owner)))


def allow(plane: str) -> None:
    """Let the call in progress use a plane.

    Raises:
        CallerDenied: the plane is `local` and the caller is not the server's own user, or it is the machine of somebody
            else's agent.
    """
    if plane.startswith(AGENT) and plane != _agent.get():
        msg = "the files of an agent's machine are for transfers of who started the agent: name it by its key"
        raise CallerDenied(msg, plane=plane)
    if plane == LOCAL and not caller().local:
        msg = "that server cannot see files of this machine: use `cropduster push`, or name a plane"
        raise CallerDenied(msg, plane=plane)


def know_agent(key: str) -> None:
    """Let the call in progress use the files of the agent that has this key."""
    _agent.set(agent_plane(key) if key else "")


def holder() -> str:
    """For which transfer the grant is that came with the call in progress; "" without one that counts."""
    return _holder.get()


def know_holder(transfer: str) -> None:
    """Know that the call in progress comes with a grant for this transfer."""
    _holder.set(transfer)


def granted(method: str, metadata: Metadata) -> bool:
    """Whether a call comes with a grant: it says by itself what may be done, and its service looks at it."""
    return method.startswith(DATA) and grant_in(metadata) is not None


def grant_in(metadata: Metadata) -> str | None:
    """The grant that came with a call; None if there is none."""
    for key, value in metadata:
        if key == GRANT_KEY:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return None


class Cookies:
    """Asks every call but health checks, and those that come with a grant, for the cookie.

    Args:
        cookie: the secret of this server's own user, or of all file servers of one database.
        path: where it is found.
        local: whether the user's own files are within reach: a transfer of one machine runs on that machine.
    """

    def __init__(self, cookie: str, path: Path, *, local: bool = True) -> None:
        self._cookie = cookie.encode()
        self._path = path
        self._local = local

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Know the caller of this call.

        Raises:
            CallerUnknown: no cookie or a wrong one; the fact `cookie` is the path of the file with the right one.
        """
        if not call.method.startswith(HEALTH) and not granted(
            call.method, tuple(call.context.invocation_metadata() or ())
        ):
            if not self._matches(call):
                msg = f"this file server answers its own user only: send the content of {self._path} as {METADATA_KEY}"
                raise CallerUnknown(msg, cookie=str(self._path))
            set_caller(Caller(local=self._local))
        yield

    def _matches(self, call: Call) -> bool:
        for key, value in call.context.invocation_metadata() or ():
            if key == METADATA_KEY:
                presented = value if isinstance(value, bytes) else value.encode()
                return hmac.compare_digest(presented, self._cookie)
        return False
