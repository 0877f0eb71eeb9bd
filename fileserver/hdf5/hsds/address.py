"""The address of a domain or a folder: `hdf5://home/user/name`, which HSDS itself calls `/home/user/name`."""

from __future__ import annotations

import unicodedata
from typing import Final

from fileserver.errors import InvalidSpec

SCHEME: Final = "hdf5://"
PREVIOUS: Final = ".previous"
"""What is behind the name of a domain while another takes its place."""
_STORAGE: Final = "db"
"""The top-level folder of a bucket where HSDS keeps the objects of all domains."""
_LONGEST: Final = 255  # bytes of one name: a folder of the file system, where HSDS stores on one


def parse(address: str, field: str = "domain") -> str:
    """The path of an address: absolute, without a slash at its end; `/` for `hdf5://`.

    Raises:
        InvalidSpec: it is no address, or names what a server must not be asked for.
    """
    if not address.startswith(SCHEME):
        why = f"begins with {SCHEME}, like {SCHEME}home/user/name"
        raise _wrong(field, address, why)
    path = address.removeprefix(SCHEME)
    if path.startswith("/"):
        better = SCHEME + path.lstrip("/")
        why = f"has two slashes after the colon, not three: write {better}"
        raise _wrong(field, address, why)
    path = path.removesuffix("/")
    for name in path.split("/") if path else ():
        if why := _fault(name):
            raise _wrong(field, address, why)
    if path.split("/")[0] == _STORAGE:
        why = "names the folder where the server stores objects: begin with home, say"
        raise _wrong(field, address, why)
    return f"/{path}"


def parse_new(address: str, field: str = "domain") -> str:
    """The path of an address that a domain is to be given.

    Raises:
        InvalidSpec: as `parse` does; and for a name that HSDS 1.0.2 does not list where it stores in files, so that
            the folder of such a domain cannot be removed either.
    """
    path = parse(address, field)
    if "\\" in path:
        why = "holds a backslash, and HSDS does not list such names"
        raise _wrong(field, address, why)
    return path


def show(path: str) -> str:
    """The address of a path."""
    return SCHEME + path.removeprefix("/")


def parent(path: str) -> str:
    """The folder that a path lies in; `/` for a top-level one and for itself."""
    return path.rpartition("/")[0] or "/"


def name(path: str) -> str:
    """The last name of a path."""
    return path.rpartition("/")[2]


def previous(path: str) -> str:
    """Where a domain is kept while another takes its place."""
    return path + PREVIOUS


def lies_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder or is it."""
    return folder in {"/", path} or path.startswith(f"{folder}/")


def _fault(part: str) -> str:
    if not part:
        return "has an empty name between two slashes"
    if part in {".", ".."}:
        return f"holds the name '{part}', which would lead elsewhere"
    if part == ".domain.json":
        return "names a file of the server's own"
    if any(unicodedata.category(each) in {"Cc", "Cs"} for each in part):
        return "holds a character that no name may have"
    if len(part.encode()) > _LONGEST:
        return f"has a name of more than {_LONGEST} bytes"
    return ""


def _wrong(field: str, address: str, why: str) -> InvalidSpec:
    shown = address.encode("utf-8", "backslashreplace").decode()
    what = f"'{shown}' is no address of a domain: it {why}" if not why.startswith(("begins", "has two")) else ""
    what = what or f"'{shown}' is no address of a domain: one {why}"
    return InvalidSpec(what, {field: what}, address=shown)
