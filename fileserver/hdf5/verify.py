"""What a server reads of a domain against the file that was loaded into it: all through the server, as users do.

metadata  structure, links, shapes, types and attributes of every object
sample    the same, and some blocks of each dataset
full      the same, and all data

The comparison is that of `fileserver.hdf5.compare`, but for what the load has said to stay behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

from fileserver.hdf5 import blocks, compare, stretches
from fileserver.hdf5.compare import Depth
from fileserver.hdf5.compare_data import UNREADABLE
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.routes import Route
from fileserver.hdf5.source import Source
from fileserver.hdf5.survey import Planned
from fileserver.hdf5.typing_rules import NotHeld
from planes.errors import Corrupt

_DEPTHS: Final[Mapping[str, Depth]] = {"metadata": Depth.NONE, "sample": Depth.SAMPLE, "full": Depth.FULL}


_UNDECODED: Final = frozenset({Route.PLACE, Route.LINK})


async def verify(source: Source, connection: Connection, path: str, loaded: Loaded, level: str) -> dict[str, str]:
    """Compare the domain at `path` with the file; returns what the library cannot read of it, by path, and why.

    Raises:
        Corrupt: they differ; says where first.
        Changed: the file is another by now.
    """
    damaged: dict[str, str] = {}
    if level == "none":
        return damaged
    objects = Objects(connection, path, loaded.root)
    behind = {each.path for each in loaded.troubles if each.what != "mapped"}
    found = compare.differences(source, objects, loaded.root, _DEPTHS[level], without=behind)
    async with aclosing(found):
        async for each in found:
            key = source.info.key
            if each.what == UNREADABLE:
                damaged[each.path] = f"its data cannot be read: {each.left}"
                continue
            msg = (
                f"{each.path} of {show(path)} on HSDS '{connection.name}', loaded from {key}, reads back otherwise "
                f"than it was: {each.what}: {each.left or 'nothing'} in the file, {each.right or 'nothing'} there"
            )
            raise Corrupt(msg, key=key, path=each.path)
    return damaged


async def damage(source: Source, loaded: Loaded) -> dict[str, str]:
    """All datasets that were placed undecoded, and that the library cannot read from end to end: by path, and why."""
    found: dict[str, str] = {}
    for planned in loaded.survey.datasets:
        if planned.plan.route in _UNDECODED and (why := await _why_not(source, planned)):
            found[planned.node.path] = f"its data cannot be read: {why}"
    return found


async def _why_not(source: Source, planned: Planned) -> str:
    try:
        async with stretches.contents(source, planned.node, planned.facts) as data:
            for block in await blocks.stored(source, planned):
                await data.stored(block, {})
    except (NotHeld, *BROKEN) as error:
        return str(error)
    return ""
