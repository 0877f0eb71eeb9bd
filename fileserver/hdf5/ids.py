"""Ids of objects in a domain, and the keys of their objects in the bucket: HSDS's schema 2.

The rules are those of HSDS's package h5json, module objid. All ids of a domain share their first 16 hex digits; the
last 16 of the root's are those again, each plus 8 modulo 16. Ours follow from the name of a transfer and the address
of an object in its file, so that a load that is begun again writes the same keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

FOLDERS: Final = {"g": "groups", "d": "datasets", "t": "datatypes"}
_OTHER_HALF: Final = str.maketrans("0123456789abcdef", "89abcdef01234567")
_FILES: Final = {"g": ".group.json", "d": ".dataset.json", "t": ".datatype.json"}


def root_id(load: str) -> str:
    """The id of the root group that belongs to one load; `load` is a text that no other load has."""
    half = sha256(f"cropduster root {load}".encode()).hexdigest()[:16]
    return _formed("g", half + half.translate(_OTHER_HALF))


def object_id(root: str, kind: str, name: str) -> str:
    """The id of another object of a domain; `kind` is g, d or t."""
    half = root[2:].replace("-", "")[:16]
    return _formed(kind, half + sha256(f"{root} {kind} {name}".encode()).hexdigest()[:16])


def folder(root: str) -> str:
    """The prefix of all keys of a domain's objects."""
    return f"db/{root[2:19]}/"


def key(object_id: str, root: str) -> str:
    """The key of the object that describes a group, dataset or type."""
    kind = object_id[0]
    if object_id == root:
        return f"{folder(root)}{_FILES['g']}"
    return f"{folder(root)}{kind}/{object_id[20:]}/{_FILES[kind]}"


def chunk_key(dataset_id: str, root: str, index: Sequence[int]) -> str:
    """The key of a chunk by its place in the grid of chunks; a scalar's is 0."""
    return f"{folder(root)}d/{dataset_id[20:]}/{'_'.join(map(str, index)) or '0'}"


def _formed(kind: str, digits: str) -> str:
    return f"{kind}-{digits[:8]}-{digits[8:16]}-{digits[16:20]}-{digits[20:26]}-{digits[26:]}"
