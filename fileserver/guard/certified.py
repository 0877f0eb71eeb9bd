"""Who calls by certificate: the other file servers, and what else the operator trusts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase

from fileserver.auth import Caller, set_caller
from fileserver.calls import HEALTH, Call
from fileserver.errors import CallerDenied


class Certificates:
    """Lets callers in whose certificate has a name of a list; gRPC has seen to it that the right authority signed it.

    Args:
        allow: names, in which `*` stands for anything.
    """

    def __init__(self, allow: Sequence[str]) -> None:
        self._allow = allow

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Know the caller of this call; health is told to whoever has a certificate.

        Raises:
            CallerDenied: no name in the certificate is allowed.
        """
        found = names(call.context.auth_context())
        known = next((name for name in found if any(fnmatchcase(name, each) for each in self._allow)), None)
        if known is not None:
            set_caller(Caller(local=False, name=known))
        elif not call.method.startswith(HEALTH):
            shown = ", ".join(found)[:200] or "no name"
            msg = f"the certificate of {shown} may not call here: add a name of it to listen.internal.allow"
            raise CallerDenied(msg)
        yield


def names(facts: Mapping[str, Iterable[bytes]]) -> list[str]:
    """The names in the certificate of a connection: URIs and host names; the common name only if it has none of these.

    RFC 6125 section 6.4.4 is the rule: a common name counts only where there is no other.
    """
    found = [*facts.get("peer_uri", ()), *facts.get("peer_dns", ())] or list(facts.get("x509_common_name", ()))
    return [name.decode("utf-8", "backslashreplace") for name in found]
