"""Whose turn it is: where a plane takes only so many transfers at once, over all file servers, the others wait."""

from __future__ import annotations

from typing import Final

from fileserver.catalogue.files import Catalogue
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import FileNotFound
from fileserver.transfer.spec import Copy, Despray, Ingest, Replicate, Spec, Spray, Sync
from planes.errors import Changed

USUAL: Final = 5
FIRST: Final = 1
LAST: Final = 9
"""Priorities: of those that wait for one plane the lowest number goes first, of equal ones who has waited longest."""


def queue_of(plane: str) -> str:
    """What the job engine calls the queue of a plane."""
    return f"plane {plane}"


def bounded(planes: Configured) -> dict[str, int]:
    """The planes that take only so many transfers at once, and how many."""
    return {name: most for name in planes.names if (most := planes.settings(name).transfers)}


async def plane_of(spec: Spec, planes: Configured, store: Store) -> str:
    """The plane that a transfer writes to, whose turns it takes; "" where it writes to none, or its file is gone."""
    verb = spec.verb
    if isinstance(verb, Ingest):
        return ""
    if isinstance(verb, Despray | Sync):
        return verb.target.plane
    if isinstance(verb, Spray):
        return verb.plane or planes.default
    if isinstance(verb, Replicate) or verb.plane:
        return verb.plane
    return await _usual(verb, planes, store)


async def _usual(verb: Copy, planes: Configured, store: Store) -> str:
    """Where a copy goes that names no plane: where the file is."""
    catalogue = Catalogue(store)
    try:
        copies = await catalogue.copies((await catalogue.get(verb.file)).generation)
    except (FileNotFound, Changed):
        return ""
    parts = await catalogue.parts(copies[0].id)
    return parts[0].plane if parts and parts[0].plane in planes.names else planes.default
