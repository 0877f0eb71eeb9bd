"""The configured planes by name, each opened when it is first used (an SDK that nobody needs is never loaded)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

from fileserver.errors import PlaneNotFound
from fileserver.hosts import host_of, hosts_of, not_here
from planes.bulk import open_bulk
from planes.errors import Unavailable, Unsupported
from planes.opening import open_local, open_plane
from planes.plane import Plane
from planes.settings import PlaneSettings

LOCAL = "local"
"""The plane of the caller's own machine: root `/`, for callers who proved to be the server's own user."""

AGENT: Final = "@"
"""How the names of planes begin that are the files of an agent's machine, root `/` as well; see `fileserver.agents`."""


def agent_plane(key: str) -> str:
    """The name of the plane of an agent, drawn of the key that only it and who started it know."""
    return f"{AGENT}{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def is_beside(plane: str) -> bool:
    """Whether a plane is somebody's own machine, where keys are absolute paths without their leading slash."""
    return plane == LOCAL or plane.startswith(AGENT)


def where(plane: str, key: str) -> str:
    """An object as people write it: plane:key, and an absolute path for what is on the caller's machine."""
    return f"/{key}" if is_beside(plane) else f"{plane}:{key}"


class Beside(Protocol):
    """The planes of agents."""

    def plane(self, name: str) -> Plane:
        """The plane of a name that begins with `AGENT`, or of one that has hosts."""
        ...

    async def absent(self, name: str) -> Sequence[str]:
        """The hosts of a plane whose agents are not here."""
        ...


class Configured:
    """The planes of a configuration, and `local`."""

    def __init__(self, settings: Mapping[str, PlaneSettings], default: str) -> None:
        self._settings = settings
        self._open: dict[str, Plane] = {}
        self._bulk: dict[str, Plane] = {}
        self.default = default
        """The plane of a spray that names none."""
        self.beside: Beside | None = None
        """The planes of agents, where there are any."""

    @property
    def names(self) -> list[str]:
        """Names in order of the configuration, without `local`."""
        return list(self._settings)

    def settings(self, name: str) -> PlaneSettings:
        """The configuration of a plane; raises PlaneNotFound."""
        if name not in self._settings:
            known = ", ".join(self._settings)
            msg = f"no plane is called {name}; the configuration has {known}"
            raise PlaneNotFound(msg, plane=name, planes=known)
        return self._settings[name]

    def plane(self, name: str) -> Plane:
        """The plane of a name; raises PlaneNotFound, and Refused where its configuration cannot work."""
        if name not in self._open:
            if name == LOCAL:
                self._open[name] = open_local()
            elif self.beside is not None and (name.startswith(AGENT) or self.hosts(name)):
                return self.beside.plane(name)
            else:
                self._open[name] = open_plane(name, self.settings(name))
        return self._open[name]

    def hosts(self, name: str) -> tuple[str, ...]:
        """The hosts whose agents have the files of a plane; none for all other planes."""
        return hosts_of(self._settings[name]) if name in self._settings else ()

    def place(self, name: str, key: str) -> tuple[str, str]:
        """What has to answer for an object: its plane and, where that has hosts, the one that the key names."""
        return name, host_of(key) if self.hosts(name) else ""

    async def absent(self, name: str) -> Sequence[str]:
        """Those of them whose agents are not connected to any file server."""
        return await self.beside.absent(name) if self.beside is not None and self.hosts(name) else ()

    async def must_be_here(self, name: str, only: Collection[str] = ()) -> None:
        """See that every host of a plane, or `only` these, has an agent here; raises Unavailable."""
        absent = [host for host in await self.absent(name) if not only or host in only]
        if absent:
            raise Unavailable(not_here(absent[0], name), plane=name, host=absent[0])

    def refuse_hosts(self, names: Iterable[str], what: str) -> None:
        """Refuse planes with hosts for what is done by the file servers alone; raises Unsupported."""
        for name in names:
            if self.hosts(name):
                msg = f"plane {name} belongs to hosts, and {what}"
                raise Unsupported(msg, plane=name)

    def bulk(self, name: str) -> Plane:
        """The same plane for many objects of which none counts before `planes.bulk.settle`; raises as `plane`."""
        if name not in self._bulk:
            self._bulk[name] = open_bulk(name, self.settings(name))
        return self._bulk[name]

    def opened(self) -> list[tuple[str, Plane]]:
        """What is open, by name; from any thread. A plane of many objects has the name of the plane that it is."""
        return [*self._open.copy().items(), *self._bulk.copy().items()]

    async def aclose(self) -> None:
        """Release the threads and connections of all planes."""
        for opened in (self._open, self._bulk):
            for plane in opened.values():
                await plane.aclose()
            opened.clear()
