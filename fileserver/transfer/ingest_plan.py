"""From what was asked of an ingest to its files and their domains: wildcards and folders expanded. Writes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Final

from fileserver.configured import Configured, where
from fileserver.errors import InvalidSpec, to_record
from fileserver.hdf5.hsds import address
from fileserver.hdf5.hsds.targets import Targets
from fileserver.transfer.ingest_rows import Found
from fileserver.transfer.spec import Ingest, Location
from fileserver.transfer.survey import key_of, matching
from planes.errors import NotFound, Refused
from planes.left_out import LeftOut
from planes.plane import Info

SUFFIXES: Final = frozenset({".h5", ".hdf5", ".hdf", ".he5", ".h5ad", ".nc", ".nc4", ".cdf", ".mat", ".hd5"})
"""How the names of HDF5 files end, for folders: what is named by itself may end as it likes."""


@dataclass(slots=True)
class Expansion:
    """The files of an ingest, one after the other; `skipped` counts those of folders that are no HDF5 by their name."""

    ingest: Ingest
    planes: Configured
    skipped: int = 0
    _given: int = field(default=0)

    async def files(self) -> AsyncIterator[Found]:
        """All of them, in the order of the sources; one that is not there, or has no domain, with its error.

        Raises:
            NotFound: a wildcard or a folder finds nothing.
            InvalidSpec: several files would become one domain.
        """
        for location in self.ingest.sources:
            found = False
            async for each in self._of(location):
                found = True
                self._count()
                yield each
            if not found:
                what = where(location.plane, key_of(location))
                msg = f"nothing matches {what}" if set(what) & set("*?") else f"no HDF5 file is below {what}"
                names = ", ".join(sorted(SUFFIXES))
                more = f"; of a folder, files are taken whose names end in {names}" if self.skipped else ""
                raise NotFound(msg + more, plane=location.plane, key=location.key)

    def _count(self) -> None:
        self._given += 1
        if self._given > 1 and not self.ingest.domain.endswith("/") and not self.ingest.aggregate:
            msg = (
                f"{address.show(self.ingest.domain)} is one domain, and there are several files: "
                "end it with / to put them into a folder, or join them along a dimension with --extend"
            )
            raise InvalidSpec(msg, {"spec.ingest.domain": msg})

    async def _of(self, location: Location) -> AsyncIterator[Found]:
        plane, key = self.planes.plane(location.plane), key_of(location)
        if not key or key.endswith("/"):
            unnamed = list[LeftOut]()
            async for info in plane.list(key, left_out=unnamed.append):
                if _is_hdf5(info.key):
                    yield self._found(location, info, info.key[len(key) :])
                else:
                    self.skipped += not info.key.endswith("/")
            for left in unnamed:
                if left.has_data and _is_hdf5(left.name):
                    yield self._nameless(location, left.name, left.name[len(key) :])
            return
        folder, _, last = key.rpartition("/")
        try:
            info = await plane.stat(key)
        except NotFound as error:
            if not set(last) & set("*?"):
                gone = Found(location.plane, key, 0, "", self._domain(last))
                yield replace(gone, state="failed", error=to_record(error))
                return
            async for match in matching(plane, f"{folder}/" if folder else "", last):
                yield self._found(location, match, match.key.rpartition("/")[2])
        else:
            yield self._found(location, info, last)

    def _found(self, location: Location, info: Info, name: str) -> Found:
        domain = self._domain(name)
        found = Found(location.plane, info.key, info.size, info.version, domain)
        try:
            address.parse_new(address.show(domain))
        except InvalidSpec as error:
            return replace(found, state="failed", error=to_record(error))
        return found

    def _nameless(self, location: Location, shown: str, name: str) -> Found:
        msg = (
            f"the name of {where(location.plane, shown)} is not UTF-8, so that neither a key nor a domain can be "
            "called so: rename it"
        )
        error = to_record(Refused(msg, plane=location.plane, key=shown))
        return Found(location.plane, shown, 0, "", self._domain(name), state="failed", error=error)

    def _domain(self, name: str) -> str:
        return self.ingest.domain + name if self.ingest.domain.endswith("/") else self.ingest.domain


def _is_hdf5(key: str) -> bool:
    return key.lower().endswith(tuple(SUFFIXES))


def goes_direct(ingest: Ingest, targets: Targets) -> bool:
    """Whether an ingest writes the server's bucket.

    Raises:
        InvalidSpec: it should, and the configuration does not say which plane that is.
    """
    name, storage = targets.name(ingest.target), targets.settings(ingest.target).storage
    if ingest.mode in {"direct", "link"} and not storage:
        msg = (
            f"--mode {ingest.mode} writes the bucket of HSDS '{name}': say in its configuration which plane that is "
            "(`storage`), or use --mode rest"
        )
        raise InvalidSpec(msg, {"spec.ingest.mode": msg})
    return bool(storage) and ingest.mode != "rest"
