"""Where objects are, whatever the plane is called by which they are reached: addresses that can be compared.

Planes say it themselves (`copy_ticket`), so that two planes of one directory or bucket, or `local` and a plane, are
seen to be the same place.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from fileserver.configured import Configured, where
from fileserver.errors import InvalidSpec
from fileserver.transfer.manifest import Source
from planes.errors import AlreadyExists, Error, NotFound
from planes.plane import Info, Plane, Ticket

_PROBE: Final = "x"  # a name in a folder, for an object that nobody asks for


def in_generation(key: str) -> bool:
    """Whether an object lies in a generation folder (`~…/`): it belongs to a logical file, or to what makes one."""
    return any(name.startswith("~") for name in key.split("/")[:-1])


def overlap(one: str, other: str) -> bool:
    """Whether two addresses are the same, or one is a folder (with `/` at its end) that holds the other."""
    return one == other or any(a.endswith("/") and b.startswith(a) for a, b in ((one, other), (other, one)))


async def address(planes: Configured, plane: str, key: str) -> str:
    """Where an object is, or a folder if `key` is empty or ends in `/`, whatever its plane is called.

    Directories of this host are resolved. A plane that cannot tell is known by its name.
    """
    is_folder = not key or key.endswith("/")
    probe = Info(f"{key}{_PROBE}" if is_folder else key, 0, "", datetime.now(UTC))
    try:
        ticket = planes.plane(plane).copy_ticket(probe)
    except Error:  # a key or a secret that cannot be used: said by the first request
        ticket = None
    if ticket is None:
        return f"{plane}:{key}"
    path = await asyncio.to_thread(_path, ticket)
    return path.removesuffix(_PROBE) if is_folder else path


def _path(ticket: Ticket) -> str:
    """The object of a ticket, as an address without credentials: store, container and key."""
    place = ticket.location
    if ticket.kind == "posix":
        folder, _, name = f"{place['root'].rstrip('/')}/{place['key']}".rpartition("/")
        return f"{os.path.realpath(folder or '/').rstrip('/')}/{name}"
    if ticket.kind == "s3":  # whoever owns the keys, in whichever region
        return f"{ticket.scope.partition(' ')[0].lower()}/{place['bucket']}/{place['key']}"
    names = (place[name] for name in ("container", "blob", "key") if name in place)
    return "/".join((ticket.scope.rstrip("/"), *names))


async def check_object(
    planes: Configured, into: Plane, key: str, sources: Sequence[Source], *, overwrite: bool
) -> None:
    """Refuse a target that exists, or that is one of the sources under any name."""
    try:
        info = await into.stat(key)
    except NotFound:
        return
    plane = into.name
    ticket = into.copy_ticket(info)
    for s in sources:
        same = s.plane == plane and s.key == key
        if not same and ticket is not None and s.version == info.version and s.size == info.size:
            other = planes.plane(s.plane).copy_ticket(replace(info, key=s.key))
            same = other is not None and (other.kind, _store(other)) == (ticket.kind, _store(ticket))
            same = same and (ticket.kind == "posix" or other is None or other.location == ticket.location)
        if same:
            msg = f"{where(plane, key)} is a part of the file itself; choose another target"
            raise InvalidSpec(msg, {"spec.despray.target": msg}, plane=plane, key=key)
    if not overwrite:
        msg = f"{where(plane, key)} exists; --overwrite replaces it"
        raise AlreadyExists(msg, plane=plane, key=key)


def _store(ticket: Ticket) -> str:
    """Where the object lies, whoever asks: a scope begins with it, and may go on with who that is."""
    return ticket.scope.partition(" ")[0]
