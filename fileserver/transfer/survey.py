"""Look at what a transfer will read: wildcards expanded, every source pinned. Writes nothing, moves no payload."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from fileserver.configured import AGENT, Configured, is_beside, where
from fileserver.errors import InvalidSpec
from fileserver.together import side_by_side
from fileserver.transfer.manifest import Source
from fileserver.transfer.spec import Location
from planes import checksum
from planes.errors import Changed, Error, NotFound, Refused
from planes.left_out import LeftOut
from planes.plane import Info, Plane

if TYPE_CHECKING:  # brings the database, which an agent has none of
    from fileserver.catalogue.files import FilePart

AT_ONCE = 16
"""Requests in flight while looking at sources."""

MOST = 250_000
"""Sources of a transfer that a wildcard may find: each takes some 2.5 KB of memory until it is stored."""

_NO_TEXT = re.compile(r"\\x[89a-f][0-9a-f]")  # a byte of a name that is not UTF-8, as listings show it


def key_of(location: Location) -> str:
    """The key on the location's plane: an absolute local path loses its leading slash."""
    return location.key.lstrip("/") if is_beside(location.plane) else location.key


async def pin(planes: Configured, locations: Sequence[Location], *, natural: bool) -> list[Source]:
    """Source objects in the order given, wildcards expanded, each with its version.

    A wildcard (`*`, `?`) counts in the last element of a key only, and only if no object has that very name. What it
    finds comes in byte order of the keys, or in natural order (part2 before part10).

    Raises:
        NotFound: an object is not there, or a wildcard finds nothing.
        InvalidSpec: there are more than `MOST` of them.
    """
    found: list[Source] = []
    for location in locations:
        plane, key = planes.plane(location.plane), key_of(location)
        folder, _, last = key.rpartition("/")
        literal = await _there(plane, key) if set(last) & set("*?") else await plane.stat(key)
        if literal is not None:
            found.append(_source(location.plane, literal))
            continue
        keys: list[str] = []
        async for match in matching(plane, f"{folder}/" if folder else "", last):
            keys.append(match.key)
            if len(found) + len(keys) > MOST:
                msg = f"{where(location.plane, key)} matches more objects than the {MOST} that one transfer may read"
                raise InvalidSpec(msg, {"spec.spray.sources": msg}, plane=location.plane, key=location.key)
        if not keys:
            msg = f"nothing matches {where(location.plane, key)}"
            raise NotFound(msg, plane=location.plane, key=location.key)
        keys.sort(key=_natural if natural else lambda k: k.encode("utf-8", "surrogateescape"))
        found += await _stat_all(planes, location.plane, keys)
    return found


async def still(plane: Plane, part: FilePart) -> Info:
    """The facts of a part's object now, if it is still the part that the catalogue knows; reads are pinned to them.

    Size and every checksum that both sides know must be equal. Where the version differs, a checksum in the catalogue
    is enough: `chmod` and a restored backup make new versions of the same bytes, and a transfer compares them.

    Raises:
        Changed: the object is gone, or is another.
    """
    try:
        info = await plane.stat(part.key)
    except NotFound as error:
        raise _changed(part, "is gone", "") from error
    if why := unlike(part, info):
        raise _changed(part, "is not what the catalogue says", f" {why}")
    if part.version not in {"", info.version} and not part.checksums:
        raise _changed(part, "may have changed", " was written again, and no checksum of it is known")
    return info


def unlike(part: FilePart, info: Info) -> str:
    """What contradicts the catalogue, "" if nothing does."""
    if info.size != part.size:
        return f"has {info.size} bytes, catalogued are {part.size}"
    for kind, known in part.checksums.items():
        found = info.checksums.get(kind, known)
        if found != known:
            return f"has {kind} {checksum.to_hex(found, kind)}, catalogued is {checksum.to_hex(known, kind)}"
    return ""


def _changed(part: FilePart, what: str, why: str) -> Changed:
    msg = f"part {part.number} {what}: {where(part.plane, part.key)}{why}; `cropduster files verify` tells more"
    return Changed(msg, plane=part.plane, key=part.key, part=str(part.number))


class Planes(Protocol):
    """The configured planes, as `fileserver.configured.Configured` has them."""

    def plane(self, name: str) -> Plane:
        """The plane of a name; raises PlaneNotFound."""
        ...


def reached_directly(planes: Planes, names: Sequence[str]) -> dict[str, str]:
    """The stores among the planes of a transfer that an agent which reads or writes in it reaches by itself: ""."""
    if not any(name.startswith(AGENT) for name in names):
        return {}
    return {name: "" for name in names if planes.plane(name).capabilities.direct}


def untouched(part: FilePart, info: Info) -> bool:
    """Whether an object that is `still` the part shows no trace of having been written again."""
    if part.version in {"", info.version}:
        return True
    return any(info.checksums.get(kind) == value for kind, value in part.checksums.items())


async def choose(planes: Planes, same: Sequence[FilePart], away: set[str]) -> tuple[FilePart, Info]:
    """Of several copies of one part the first that is there as it was written, and the facts of its object now.

    Where there is none, the first that may be the same bytes. Planes that do not answer are added to `away`, and asked
    last from then on.

    Raises:
        Error: none can be read; what was wrong with the first.
    """
    doubtful: tuple[FilePart, Info] | None = None
    failure: Error | None = None
    for part in sorted(same, key=lambda each: each.plane in away):
        try:
            info = await still(planes.plane(part.plane), part)
        except Error as error:
            if not isinstance(error, Changed):
                away.add(part.plane)
            failure = failure or error
            continue
        if len(same) == 1 or untouched(part, info):
            return part, info
        doubtful = doubtful or (part, info)
    if doubtful is not None:
        return doubtful
    assert failure is not None
    raise failure


async def pin_parts(planes: Planes, copies: Sequence[Sequence[FilePart]]) -> list[Source]:
    """The parts of a logical file as sources, each out of the first of its copies where it is as it was written.

    They are checked against the catalogue; our own checksums come along.

    Raises:
        Changed: a part is not there any more, or is not the object that the catalogue knows.
    """
    found: dict[int, Source] = {}
    away: set[str] = set()

    async def one(same: Sequence[FilePart]) -> None:
        part, info = await choose(planes, same, away)
        values = {**info.checksums, **part.checksums}
        found[part.number] = Source(part.plane, part.key, info.size, info.version, values)

    await side_by_side(zip(*copies, strict=True), one, AT_ONCE)
    return [found[part.number] for part in copies[0]]


def composed(sources: Sequence[Source]) -> int | None:
    """CRC64NVME of all sources in order, or None if one of them has none."""
    return checksum.combine_all((source.checksums.get("crc64nvme"), source.size) for source in sources)


def common_kind(sources: Sequence[Source]) -> str:
    """The checksum that all sources have, CRC64NVME before the others; CRC64NVME too if there is none."""
    for kind in checksum.WIDTH:
        if all(kind in s.checksums for s in sources if s.size):
            return kind
    return "crc64nvme"


async def _there(plane: Plane, key: str) -> Info | None:
    """Facts about an object that has the very name of a wildcard, if there is one."""
    try:
        return await plane.stat(key)
    except NotFound:
        return None


async def matching(plane: Plane, folder: str, mask: str) -> AsyncIterator[Info]:
    """What is right below a folder (with its slash, or empty) and whose last element matches a mask of `*` and `?`.

    Raises:
        Refused: something there matches whose name no key can have, because it is not UTF-8.
    """
    prefix, asked, after = folder + re.split(r"[*?]", mask, maxsplit=1)[0], folder + mask, ""
    mask = mask.replace("[", "[[]")

    def meant(left: LeftOut) -> None:
        name = left.name[len(folder) :]
        if left.has_data and "/" not in name and fnmatchcase(_NO_TEXT.sub("?", name), mask):
            msg = (
                f"the name of {where(plane.name, left.name)} is not UTF-8, so that no key can be that name, and it "
                f"matches {asked}: rename it, or take a mask that leaves it out"
            )
            raise Refused(msg, plane=plane.name, key=left.name)

    while True:
        async for info in plane.list(prefix, after, meant):
            name, deeper, _ = info.key[len(folder) :].partition("/")
            if deeper and not plane.capabilities.shared:  # a directory tree: go round what lies below
                after = f"{folder}{name}/\U0010ffff"
                break
            if not deeper and fnmatchcase(name, mask):
                yield info
        else:
            return


async def _stat_all(planes: Configured, name: str, keys: Sequence[str]) -> list[Source]:
    plane, found = planes.plane(name), dict[str, Source]()

    async def one(key: str) -> None:
        found[key] = _source(name, await plane.stat(key))

    await side_by_side(keys, one, AT_ONCE)
    return [found[key] for key in keys]


def _source(plane: str, info: Info) -> Source:
    return Source(plane, info.key, info.size, info.version, dict(info.checksums))


def _natural(key: str) -> list[tuple[int, int, str]]:
    return [(0, int(run), "") if run.isdigit() else (1, 0, run) for run in re.findall(r"[0-9]+|[^0-9]+", key)]
