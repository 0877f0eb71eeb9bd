"""Planes for many objects that nobody looks at before all of them are there.

A directory makes every file durable by three flushes or more. Whoever writes thousands of which none counts before
the last opens its plane in bulk, and lets it settle once before it says so. Stores need neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from planes import many
from planes.many import Whole
from planes.opening import decorated, provider
from planes.plane import Extent, Info, Plane, StepReceipt
from planes.posix import PosixPlane
from planes.settings import PlaneSettings
from planes.wrapped import find

_SLACK = timedelta(seconds=5)
"""The time of start in /proc is rounded, and follows the clock when that is set."""


def open_bulk(name: str, settings: PlaneSettings) -> Plane:
    """A plane of one's own, as `open_plane` makes it, whose objects are durable after `settle` and not before.

    Raises:
        Refused: the packages of its type are not installed, or a secret cannot be found.
    """
    plane = provider(settings.type).make(name, settings)
    if isinstance(plane, PosixPlane):
        plane.in_bulk()
    return decorated(plane, settings.limits)


async def settle(plane: Plane) -> None:
    """Return when everything that was written to a plane is durable; at once for one that is not open in bulk.

    Raises:
        Refused, Full: the file system could not write it.
    """
    if directory := find(plane, PosixPlane):
        await directory.settle()


def takes_many(plane: Plane) -> bool:
    """Whether `put_many` is faster than objects side by side: it is where names are flushed together, if at all."""
    return find(plane, PosixPlane) is not None


async def put_many(plane: Plane, objects: Sequence[Whole]) -> Sequence[StepReceipt]:
    """Write objects in this order, each of them whole or not at all, and replace what is there.

    Raises:
        Error: as `Plane.put`; of the objects before the one that failed some may be there. It may be repeated.
    """
    return await many.put_many(plane, objects)


def reads_many(plane: Plane) -> bool:
    """Whether `read_many` is faster than reads side by side: it is where one costs less than its trip to a thread."""
    return find(plane, PosixPlane) is not None


async def read_many(plane: Plane, extents: Sequence[Extent]) -> Sequence[bytes]:
    """The bytes of each extent; raises as `Plane.read` of the first that cannot be read."""
    return await many.read_many(plane, extents)


def survived(plane: Plane, info: Info) -> bool:
    """Whether an object that an earlier attempt wrote in bulk, perhaps without settling, is whole for sure.

    It is while the host has not been started anew since: what a process has written outlives that process.
    """
    directory = find(plane, PosixPlane)
    return directory is None or not directory.is_unsettled or info.modified - _SLACK > _started()


def _started() -> datetime:
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    [seconds] = (line.split()[1] for line in lines if line.startswith("btime "))
    return datetime.fromtimestamp(int(seconds), UTC)
