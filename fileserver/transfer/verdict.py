"""What one object says of the part that it should be: compared by stored values, or by reading it. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fileserver.catalogue.files import FilePart
from fileserver.configured import Configured, where
from fileserver.together import side_by_side
from planes import checksum
from planes.errors import Error, NotFound
from planes.plane import MIB, Extent, Info, Plane

_SLICE: Final = 8 * MIB
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found for one part: "read", "stored", "size", "touched", "missing", "different" or "away"."""

    number: int
    plane: str
    key: str
    verdict: str
    detail: str = ""
    bytes_read: int = 0
    version: str = ""
    """Of the object whose bytes were read, and are those that the catalogue has the checksum of."""

    @property
    def ok(self) -> bool:
        """The part is what the catalogue says."""
        return self.verdict in {"read", "stored", "size"}


async def verdicts(
    planes: Configured, parts: Sequence[FilePart], *, read: bool, patient: bool = False
) -> list[Verdict]:
    """Compare parts with the catalogue, by stored values, or (read) by reading every byte; in the order given.

    Raises:
        Error: a plane does not answer; if `patient`, its parts are "away" instead, and the others are compared.
    """
    found: dict[int, Verdict] = {}
    away: dict[tuple[str, str], str] = {}  # one host that is away is not all of its plane

    async def one(each: tuple[int, FilePart]) -> None:
        index, part = each
        place = planes.place(part.plane, part.key)
        try:
            if place not in away:
                found[index] = await _verdict(planes.plane(part.plane), part, read=read)
                return
        except Error as error:
            if not patient:
                raise
            away[place] = error.message
        found[index] = Verdict(part.number, part.plane, part.key, "away", away[place])

    await side_by_side(enumerate(parts), one, _AT_ONCE)
    return [found[index] for index in range(len(parts))]


async def whole(planes: Configured, parts: Sequence[FilePart]) -> bool:
    """Whether all parts are what the catalogue says.

    Those are read of which neither a stored checksum nor the version tells; one that was written again, and of which
    no checksum is known, is not.
    """
    first = await verdicts(planes, parts, read=False)
    if any(each.verdict in {"missing", "different"} for each in first):
        return False
    both = list(zip(parts, first, strict=True))
    if any(each.verdict == "touched" and not part.checksums for part, each in both):
        return False
    doubtful = [part for part, each in both if not each.ok or (each.verdict == "size" and not part.version)]
    return all(each.ok for each in await verdicts(planes, doubtful, read=True))


async def _verdict(plane: Plane, part: FilePart, *, read: bool) -> Verdict:
    def said(verdict: str, detail: str = "") -> Verdict:
        return Verdict(part.number, part.plane, part.key, verdict, detail)

    try:
        info = await plane.stat(part.key)
    except NotFound:
        return said("missing", f"{where(part.plane, part.key)} is not there")
    if info.size != part.size:
        return said("different", f"{info.size} bytes are there, {part.size} are catalogued")
    if read:
        word, detail = await _read(plane, part, info)
        version = info.version if word == "read" and not detail else ""
        return Verdict(part.number, part.plane, part.key, word, detail, part.size, version)
    for each, value in part.checksums.items():
        if each in info.checksums:
            return said(*_compared(each, info.checksums[each], value, "stored"))
    if part.version and info.version != part.version:
        return said("touched", "it was touched since it was written; --read tells whether its bytes are the same")
    return said("size", "the plane stores no checksum; --read compares the bytes")


async def _read(plane: Plane, part: FilePart, info: Info) -> tuple[str, str]:
    kind = next(iter(part.checksums), "")
    value = await _sum(plane, info, kind or "crc64nvme")
    known = part.checksums.get(kind)
    if known is None:
        return "read", "the catalogue has no checksum to compare"
    return _compared(kind, value, known, "read")


async def _sum(plane: Plane, info: Info, kind: str) -> int:
    value, buffer = 0, bytearray(min(_SLICE, max(info.size, 1)))
    for start in range(0, info.size, len(buffer)):
        view = memoryview(buffer)[: min(len(buffer), info.size - start)]
        await plane.read(Extent(info.key, info.version, start, start + len(view)), view)
        value = checksum.compute(view, value, kind)
    return value


def _compared(kind: str, found: int, known: int, word: str) -> tuple[str, str]:
    if found == known:
        return word, ""
    return "different", f"{kind} is {checksum.to_hex(found, kind)}, catalogued is {checksum.to_hex(known, kind)}"
