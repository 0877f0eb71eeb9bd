"""Which way bytes go between the machine of an agent and a store: straight there, or through the file servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Final, TypeVar

from fileserver.away.direct import Direct, NotReached
from planes.direct import Address
from planes.errors import Throttled, Unavailable, Unsupported

T = TypeVar("T")

_TRIES: Final = 3  # of one step, in vain; a network that drops breaks many steps at once
_LOST: Final = 60.0  # seconds that a store which was not reached is not asked for again


class Paths:
    """The stores that this machine is to reach by itself, for one segment, until it turns out that it does not.

    Args:
        direct: makes the requests.
        wanted: as the plan has them, by the names of their planes.
    """

    def __init__(self, direct: Direct, wanted: Mapping[str, str]) -> None:
        self._direct = direct
        self._open = {name for name, why in wanted.items() if not why}
        self._failures = Counter[str]()
        self.closed: dict[str, str] = {}
        """Those that it does not reach, and why."""
        for name, (why, until) in direct.lost.items():
            if name in self._open and monotonic() < until:
                self._close(name, why)

    async def go(
        self,
        name: str,
        what: str,
        sign: Callable[[], Awaitable[Address]],
        do: Callable[[Direct, Address], Awaitable[T]],
    ) -> T | None:
        """What `do` makes of a signed request; None where the file servers have to carry the bytes.

        `what` names the step or the bytes, the same when they are tried again.

        Raises:
            Error: what `sign` raises; what `do` raises, while there is hope.
        """
        if name not in self._open:
            return None
        try:
            address = await sign()
        except Unsupported as error:  # by the provider, or by a file server that is older than this agent
            self._close(name, error.message)
            return None
        try:
            made = await do(self._direct, address)
        except NotReached as failure:
            if not failure.once:
                self._lose(name, failure.why)
            return None
        except (Unavailable, Throttled) as error:
            self._failures[what] += 1
            if self._failures[what] < _TRIES:
                raise
            self._lose(name, error.message)
            return None
        del self._failures[what]
        return made

    def _lose(self, name: str, why: str) -> None:
        told = f"the machine of these files does not reach {name} by itself: {why}"
        self._direct.lost[name] = (told, monotonic() + _LOST)
        self._close(name, told)

    def _close(self, name: str, why: str) -> None:
        self._open.discard(name)
        self.closed[name] = why
