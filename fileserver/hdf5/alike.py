"""JSON against JSON: whether two values are the same, and whether a server says what is wanted."""

from __future__ import annotations

from typing import Final

from fileserver.hdf5.ids import FOLDERS
from fileserver.hdf5.types import Json

_OWN: Final = frozenset({"created", "lastModified"})


def same(ours: Json, theirs: Json) -> bool:
    """Two values: equal, with NaN for NaN, whether ids of objects have the kind before them or not."""
    if isinstance(ours, list | tuple):
        return isinstance(theirs, list | tuple) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, str) and isinstance(theirs, str):
        kind, dash, _ = ours.partition("-")
        return ours == theirs or (bool(dash) and kind in FOLDERS and theirs == f"{FOLDERS[kind]}/{ours}")
    return _equal(ours, theirs)


def same_fill(ours: Json, theirs: Json) -> bool:
    """Two fill values; nothing at all is zero, and the empty text."""
    return same(ours or None, theirs or None)


def says(wanted: Json, found: Json) -> bool:
    """Whether a server says what is wanted, with members of its own beside it; NaN is NaN."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return False
        return all(name in _OWN or says(value, found.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(says, wanted, found))
    if wanted == "H5S_UNLIMITED":
        return found in {0, "H5S_UNLIMITED"}
    return _equal(wanted, found)


def _equal(ours: Json, theirs: Json) -> bool:
    return ours == theirs or (ours != ours and theirs != theirs)  # noqa: PLR0124 -- NaN
