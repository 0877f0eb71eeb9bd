"""JSON of a server against JSON that is wanted."""

from __future__ import annotations

from typing import Final

from fileserver.hdf5.hsds.connection import JSON


def same(wanted: JSON, found: JSON) -> bool:
    """Whether the server says the same, with members of its own beside it; NaN is NaN."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return False
        return all(name in _OWN or same(value, found.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(same, wanted, found))
    if wanted == "H5S_UNLIMITED":
        return found in {0, "H5S_UNLIMITED"}
    return wanted == found or (wanted != wanted and found != found)  # noqa: PLR0124 -- NaN


_OWN: Final = frozenset({"created", "lastModified"})
