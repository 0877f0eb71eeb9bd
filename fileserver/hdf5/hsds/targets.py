"""The configured HSDS servers by name, each connected to when it is first used.

The HTTP client is loaded only then: who has no HSDS need not have it installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds.settings import HsdsSettings
from planes.errors import Refused
from planes.retrying import Patience

if TYPE_CHECKING:
    from fileserver.hdf5.hsds.connection import Connection

_ASKED: Final = Patience(attempts=3, seconds=5.0, throttled=30.0)
"""For who waits for an answer; a load has more."""


class Targets:
    """The HSDS servers of a configuration. Belongs to one event loop.

    Args:
        settings: by name, in order of the configuration.
    """

    def __init__(self, settings: Mapping[str, HsdsSettings]) -> None:
        self._settings = settings
        self._open: dict[str, Connection] = {}

    @property
    def names(self) -> list[str]:
        """In order of the configuration; the first is the default."""
        return list(self._settings)

    def name(self, asked: str) -> str:
        """The name that is meant; nothing is the first.

        Raises:
            InvalidSpec: no server, or none of that name, is configured.
        """
        if not self._settings:
            msg = "no HSDS is configured: name one under `hsds` in the configuration, with its endpoint"
            raise InvalidSpec(msg, {"target": msg})
        if asked and asked not in self._settings:
            known = ", ".join(self._settings)
            msg = f"no HSDS is called {asked}; the configuration has {known}"
            raise InvalidSpec(msg, {"target": msg}, hsds=asked)
        return asked or next(iter(self._settings))

    def settings(self, asked: str = "") -> HsdsSettings:
        """The settings of a server; raises as `name` does."""
        return self._settings[self.name(asked)]

    def connection(self, asked: str = "") -> Connection:
        """The connection to a server, which nothing is asked of yet.

        Raises:
            InvalidSpec: see `name`.
            Refused: the HTTP client is not installed.
        """
        name = self.name(asked)
        if name not in self._open:
            self._open[name] = connect(name, self._settings[name], _ASKED)
        return self._open[name]

    async def aclose(self) -> None:
        """Release all connections."""
        for each in self._open.values():
            await each.aclose()
        self._open.clear()


def connect(name: str, settings: HsdsSettings, patience: Patience) -> Connection:
    """A connection of one's own; raises Refused where the HTTP client is not installed."""
    try:
        from fileserver.hdf5.hsds.connection import Connection  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "fileserver":
            raise  # a module of ours: a bug, not an installation
        msg = f"HSDS needs the package {error.name}: pip install 'cropduster[hdf5]'"
        raise Refused(msg, hsds=name, package=error.name, extra="hdf5") from error
    return Connection(name, settings, patience)
