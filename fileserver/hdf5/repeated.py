"""Whether a domain holds already what a file would bring, where nobody knows which files it was made of.

The dimension itself tells: what a file has along it must not be a run of what the domain has. A dimension that says
nothing, because all of its values are the same or begin again in every file, tells the same of every file: so such a
domain is not extended unless it is known what it was made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import h5py

from fileserver.hdf5 import read, transcode
from fileserver.hdf5.dimension import Along, Misfit
from fileserver.hdf5.elements import Pointing, to_bytes
from fileserver.hdf5.extension import Extension
from fileserver.hdf5.files import Files
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.joint import Joint

_NOWHERE = Pointing(lambda _: None, lambda _: None)


async def need_new(files: Files, made: Extension, joined: Sequence[Along], connection: Connection, path: str) -> None:
    """Make sure that what files have along the dimension is not in the domain at `path`.

    Raises:
        Misfit: it is, of one of them.
    """
    objects = Objects(connection, path, made.old)
    for joint, lying in zip(made.joints, joined, strict=True):
        if not lying.is_scale or not joint.there:
            continue
        has = await objects.read(made.there[joint.path].id)
        for number, share in enumerate(joint.shares):
            async with files.open(number) as source:
                mine = await source.run(partial(_values, joint=joint))
            if share.extent and _holds(has, mine, joint.planned.facts.item or 1):
                msg = (
                    f"what it has of {joint.path} is in {show(path)} already, and it is not known here of which files "
                    "that was made: leave the file out, or use --overwrite with all files"
                )
                raise Misfit(msg, number)


def _values(file: h5py.File, joint: Joint) -> bytes:
    place = transcode.dataset(file, joint.planned.node.raw)
    facts = read.facts(place)
    dims = facts.dims or ()
    return to_bytes(facts.typed.stored, transcode.read(place, facts, (0,) * len(dims), dims), _NOWHERE)


def _holds(whole: bytes, part: bytes, item: int) -> bool:
    """Whether a run of elements of `item` bytes is the part."""
    at = whole.find(part)
    while at >= 0:
        if at % item == 0:
            return True
        at = whole.find(part, at + 1)
    return False
