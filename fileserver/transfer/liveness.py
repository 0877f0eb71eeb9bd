"""Which file servers of a database live: PostgreSQL itself is the failure detector.

Each server holds a session advisory lock of its own name on a connection of its own. A process that dies, or a machine
that goes (some ten seconds later, by TCP keepalives), loses it with the connection. Whoever can take the lock of a
peer knows that it is dead: no table of heartbeats, no clock. One more lock makes one of them the keeper, which does
what is done once for all. Blocking; legal in one thread at a time. The connection must be direct: a proxy that pools
transactions loses such locks.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

_OURS: Final = 0x63726F70  # the first half of the keys: the locks of this program
_KEEPER: Final = 0
_SWEEPS: Final = 3
"""How often in a row a peer must be without its lock: after a restart of the database all are, for a moment."""


class Liveness:
    """This server's lock, and a look at those of others.

    Args:
        engine: of the database.
        me: the name under which the job engine knows this process.
    """

    def __init__(self, engine: sa.Engine, me: str) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._me = me
        self._held: sa.Connection | None = None
        self._free: Counter[str] = Counter()
        self.keeper = False
        """Whether this server is the one that cleans up for all."""

    def hold(self) -> None:
        """Take the lock, if it is not held; raises DBAPIError while the database is away."""
        if self._held is not None:
            try:
                self._held.execute(sa.text("SELECT 1"))
            except SQLAlchemyError:  # lost now, or in the middle of the last look: that raises another error
                self.release()
        if self._held is None:
            connection = self._engine.connect()
            connection.execute(sa.text("SELECT pg_advisory_lock(:ours, :key)"), {"ours": _OURS, "key": _key(self._me)})
            self._held = connection
            self._free.clear()
        if not self.keeper:
            self.keeper = self._take(_KEEPER)

    def dead(self, peers: Iterable[str]) -> Sequence[str]:
        """Which of these processes have been without their lock three times in a row; takes none of their locks."""
        self.hold()
        free = {peer for peer in set(peers) - {self._me} if self._is_free(_key(peer))}
        for known in set(self._free) - free:
            del self._free[known]
        self._free.update(free)
        return sorted(peer for peer in free if self._free[peer] >= _SWEEPS)

    def release(self) -> None:
        """Let go of all locks: this server has ended, or has lost its connection."""
        self.keeper = False
        held, self._held = self._held, None
        if held is not None:
            held.invalidate()  # closed, not given back: its session ends, and its locks with it
            with suppress(DBAPIError):
                held.close()

    def _is_free(self, key: int) -> bool:
        if not self._take(key):
            return False
        self._ask("SELECT pg_advisory_unlock(:ours, :key)", key)
        return True

    def _take(self, key: int) -> bool:
        return self._ask("SELECT pg_try_advisory_lock(:ours, :key)", key)

    def _ask(self, statement: str, key: int) -> bool:
        assert self._held is not None
        return bool(self._held.execute(sa.text(statement), {"ours": _OURS, "key": key}).scalar())


def _key(name: str) -> int:
    """The second half of a lock's key: a signed 32-bit number that is not the keeper's."""
    return (zlib.crc32(name.encode()) or 1) - 2**31
