"""Whether a call may be: what it needs (`fileserver.guard.needs`) held against the rules about its caller.

Asked before the service sees the request, with names as the service will understand them, so that nobody learns by the
answer what is there. Local paths are refused where they are read (`fileserver.auth.allow`), whatever the rules say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from fileserver.auth import Caller, caller
from fileserver.calls import Call
from fileserver.errors import CallerDenied
from fileserver.guard.needs import OUTSIDE, Held, Need, Server, Wants
from fileserver.rules import Thing, Verb
from fileserver.transfer.addresses import in_generation

_OURS: Final = "/fileserver.v1."


@dataclass(frozen=True, slots=True)
class Place:
    """What a watch is about."""

    plane: str
    prefix: str
    folder: str
    """The address of the folder in HSDS into which it loads."""


class Known(Protocol):
    """What the server knows that rules are asked about."""

    @property
    def default_plane(self) -> str:
        """The plane of a spray that names none."""
        ...

    async def owner(self, transfer: str) -> str:
        """Who began a transfer; "" is the server's own kind. Raises TransferNotFound."""
        ...

    async def place(self, watch: str) -> Place:
        """What a watch is about; raises WatchNotFound."""
        ...


class Access:
    """Asks the rules about every call.

    Args:
        known: what the server knows.
    """

    def __init__(self, known: Known) -> None:
        self._known = known

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Let the call through if its caller may make it.

        Raises:
            CallerDenied: it may not; what, and which rule would allow it.
            InvalidSpec, TransferNotFound, WatchNotFound: what it names is no name, or is not there.
        """
        who = caller()
        if call.method.startswith(_OURS):
            row = OUTSIDE.get(call.method)
            if row is None:
                msg = f"{call.method.rpartition('/')[2]} is not for callers from outside"
                raise CallerDenied(msg)
            if who.rights is not None:
                await self._ask(who, row(call.request, self._known.default_plane))
        yield

    async def _ask(self, who: Caller, wants: Wants) -> None:
        assert who.rights is not None
        for want in wants:
            if isinstance(want, Need):
                _ask(who, want)
            elif isinstance(want, Server):
                if not who.rights.admin:
                    raise _denied(who, Verb.ADMIN, want.what)
            elif want.kind == "watch":
                await self._ask_watch(who, want)
            elif want.kind == "plane":
                if not who.rights.sees_plane(want.name):
                    raise _denied(who, Verb.READ, want.name, "planes")
            elif who.owner_of not in {None, await self._known.owner(want.name)}:
                raise _denied(who, Verb.ADMIN, f"see or steer transfer {want.name}, which somebody else began,")

    async def _ask_watch(self, who: Caller, want: Held) -> None:
        place = await self._known.place(want.name)
        if want.verb is Verb.READ:
            _ask(who, Need(want.verb, Thing("planes", f"{place.plane}:{place.prefix}", below=True)))
        else:
            _ask(who, Need(want.verb, Thing("domains", f"{place.folder.rstrip('/')}/", below=True)))


def _ask(who: Caller, need: Need) -> None:
    thing = need.thing
    changes = need.verb in {Verb.WRITE, Verb.DELETE}
    if changes and thing.kind == "planes" and in_generation(thing.name.partition(":")[2]):
        msg = (
            f"{thing.name} lies among the parts of a logical file (~), which nobody from outside writes: name the file"
        )
        raise CallerDenied(msg, verb=need.verb, thing=thing.shown)
    if not who.may(need.verb, thing):
        raise _denied(who, need.verb, thing.shown, thing.kind)


def _denied(who: Caller, verb: Verb, what: str, kind: str = "") -> CallerDenied:
    if kind:
        rule = f"may: [{verb}] and {kind}: ['{what}']"
        return CallerDenied(
            f"{who.name} may not {verb} {what}: a rule with {rule} would allow it", verb=verb, thing=what
        )
    return CallerDenied(f"{who.name} may not {what}: a rule with may: [{verb}] would allow it", verb=verb, thing=what)
