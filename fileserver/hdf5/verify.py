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

from fileserver.configured import where
from fileserver.errors import FormatMismatch
from fileserver.hdf5 import compare
from fileserver.hdf5.compare import Depth
from fileserver.hdf5.compare_data import UNREADABLE
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.source import Source
from planes.errors import Corrupt

_DEPTHS: Final[Mapping[str, Depth]] = {"metadata": Depth.NONE, "sample": Depth.SAMPLE, "full": Depth.FULL}


async def verify(source: Source, connection: Connection, path: str, loaded: Loaded, level: str) -> None:
    """Compare the domain at `path` with the file.

    Raises:
        Corrupt: they differ; says where first.
        FormatMismatch: the library cannot read what was placed undecoded.
        Changed: the file is another by now.
    """
    if level == "none":
        return
    objects = Objects(connection, path, loaded.root)
    behind = {each.path for each in loaded.troubles if each.what != "mapped"}
    found = compare.differences(source, objects, loaded.root, _DEPTHS[level], without=behind)
    async with aclosing(found):
        async for each in found:
            key = source.info.key
            if each.what == UNREADABLE:
                msg = (
                    f"the data of {each.path} in {where(source.plane.name, key)} cannot be read: {each.left}. The file "
                    "is damaged: fetch it again, or load everything else of it with --mode rest"
                )
                raise FormatMismatch(msg, key=key, path=each.path)
            msg = (
                f"{each.path} of {show(path)} on HSDS '{connection.name}', loaded from {key}, reads back otherwise "
                f"than it was: {each.what}: {each.left or 'nothing'} in the file, {each.right or 'nothing'} there"
            )
            raise Corrupt(msg, key=key, path=each.path)
