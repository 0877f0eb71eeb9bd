"""Small HDF5 files, many in one trip to the library: what `fileserver.hdf5.load` makes of each, and nothing is written.

A file that cannot be made so, because it is large when it is decoded, because its data lie in other files, or because
something is wrong with it, is left to a load of its own, which says what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import h5py

from fileserver.hdf5 import at_once, describe, ids, superblock
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.making import Making
from fileserver.hdf5.outline import BROKEN, Opened
from fileserver.hdf5.routes import Means
from fileserver.hdf5.source import alone, close_all, open_into, thread
from fileserver.hdf5.storage import Bucket
from fileserver.hdf5.survey import look, names
from fileserver.hdf5.typing_rules import NotHeld
from planes.errors import Error
from planes.many import Whole
from planes.plane import MIB, Plane

_MOST: Final = 24 * MIB
"""Bytes of objects that are made before the rest is left: of files that are small, and large when they are decoded."""


@dataclass(frozen=True, slots=True)
class Small:
    """A file to be made: all of its bytes, `name` for messages, and `load` and `created` as `load.load` has them."""

    name: str
    data: bytes
    load: str
    created: float


@dataclass(frozen=True, slots=True)
class Made:
    """What a file has become: objects to be written, chunks first, and counted by `bucket`."""

    loaded: Loaded
    bucket: Bucket
    objects: Sequence[Whole]


async def make(files: Sequence[Small], bucket: Plane) -> list[Made | None]:
    """All objects of each file, in the same order; None for one that needs a load of its own."""
    with thread() as threads:
        return await threads.run(lambda _: _all(files, bucket))


def _all(files: Sequence[Small], bucket: Plane) -> list[Made | None]:
    found: list[Made | None] = []
    held = 0
    for file in files:
        made = _one(file, bucket) if held < _MOST else None
        held += sum(memoryview(each.data).nbytes for each in made.objects) if made else 0
        found.append(made)
    return found


def _one(file: Small, bucket: Plane) -> Made | None:
    held: list[h5py.File] = []
    try:
        superblock.look(file.name, file.data)
        open_into(held, file.name, file.data)
        return alone(held, partial(_made, small=file, bucket=bucket))
    except (Error, NotHeld, *BROKEN):
        return None  # its own load says why
    finally:
        close_all(held)


def _made(file: h5py.File, small: Small, bucket: Plane) -> Made | None:
    opened: Opened = {}
    found, root = look(file, Means(), opened), ids.root_id(small.load)
    if not at_once.suits(found):
        return None
    frame = describe.Frame(root, small.created, names(found, root))
    making = Making(frame, found, len(small.data), [*found.troubles], opened=opened)
    to = Bucket(bucket, root, small.load)
    made = at_once.make(file, making, small.data, to.has)
    loaded = Loaded(root, small.created, found, tuple(making.troubles), to.written, making.frame.ids)
    return Made(loaded, to, to.wholes(made.chunks, made.bodies))
