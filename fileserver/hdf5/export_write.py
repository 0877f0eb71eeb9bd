"""What of an export is done in the HDF5 library: objects, links, attributes and blocks of data of the new file."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5o, h5p, h5r, h5s, h5t

from fileserver.hdf5 import grid, stretches
from fileserver.hdf5.declared import Declared, DeclaredAttribute, DeclaredLink, DeclaredType, Storage
from fileserver.hdf5.elements import Region
from fileserver.hdf5.model import DEFLATE, FLETCHER, SHUFFLE, Trouble
from fileserver.hdf5.outline import BROKEN
from fileserver.hdf5.restored import Aiming, Garbled, from_json, hdf5_type, set_fill, values
from fileserver.hdf5.stretches import Block
from fileserver.hdf5.types import Type, is_plain, size
from fileserver.hdf5.typing_rules import NotHeld

_ASIDE: Final = b"/~cropduster types in the making"
"""Holds committed types until their names come; taken away at the end."""
_LEVEL: Final = 4  # of gzip, for compression that not every reader of HDF5 has
_ELEMENT: Final = 64  # bytes that one of variable length is taken for
_NOTHING: Final = (SHUFFLE, DEFLATE, FLETCHER)
_TRACKED: Final = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
_Place: TypeAlias = h5g.GroupID | h5d.DatasetID | h5t.TypeID


@dataclass(slots=True)
class Written:
    """What is in the file by now."""

    paths: dict[str, bytes] = field(default_factory=dict)
    """The first path of each object, by id."""
    aside: set[str] = field(default_factory=set)
    """Committed types that have no name of their own yet."""


def begun(path: Path, *, ordered: bool) -> h5py.File:
    """A new file, which any HDF5 since 1.8 reads, with its root group; raises OSError."""
    return h5py.File(path, "x", libver=("v108", "latest"), track_order=ordered)


def aside(file: h5py.File, written: Written, kind: Declared) -> None:
    """A committed type, before its name comes."""
    if _ASIDE not in file:
        h5g.create(file.id, _ASIDE)
    path = _ASIDE + b"/" + kind.id.encode()
    _commit(file, path, kind)
    written.paths[kind.id] = path
    written.aside.add(kind.id)


def links(
    file: h5py.File,
    written: Written,
    group: Declared,
    batch: Sequence[DeclaredLink],
    told: Mapping[str, Declared | str],
    troubles: list[Trouble],
) -> list[Declared]:
    """Some links of a group, with the objects that are met for the first time; the groups among those."""
    place = h5o.open(file.id, written.paths[group.id])
    made = []
    for link in batch:
        path = posixpath.join(written.paths[group.id], link.name.encode())
        try:
            if link.kind == "soft":
                place.links.create_soft(link.name.encode(), link.target.encode())
            elif link.kind == "external":
                place.links.create_external(link.name.encode(), link.file.encode(), link.target.encode())
            elif link.target in written.paths:
                _again(file, written, place, link, path)
            else:
                found = told[link.target]
                if isinstance(found, str):
                    troubles.append(Trouble(_text(path), "failed", found))
                    continue
                _make(file, written, found, path, troubles)
                if found.kind == "g":
                    made.append(found)
        except (*BROKEN, NotHeld) as error:
            _raise_of_disk(error)
            troubles.append(Trouble(_text(path), "failed", f"it cannot be written: {error}"))
    return made


def attributes(file: h5py.File, written: Written, found: Sequence[Declared], troubles: list[Trouble]) -> None:
    """All attributes of some objects."""
    aiming = _aiming(file, written)
    for each in found:
        path = written.paths[each.id]
        place = h5o.open(file.id, path)
        for attribute in each.attributes:
            try:
                _attribute(place, attribute, aiming)
            except (*BROKEN, Garbled) as error:
                _raise_of_disk(error)
                name = f"{_text(path).rstrip('/')}/@{attribute.name}"
                troubles.append(Trouble(name, "failed", f"it cannot be written: {error}"))


def block(file: h5py.File, written: Written, dataset: Declared, part: Block, data: bytes) -> None:
    """A block of a dataset.

    Raises:
        Garbled: the server gave other bytes than the block has.
    """
    kind = _kind(dataset)
    if dataset.storage is not None and not dataset.storage.fill and not data.strip(b"\0") and is_plain(kind):
        return  # as if it was never written: what the server has not stored is not stored here
    place = h5d.open(file.id, written.paths[dataset.id])
    memory = place.get_type()
    found = values(kind, data, part.count, memory, _aiming(file, written))
    space = place.get_space()
    if part.count:
        space.select_hyperslab(part.start, part.count)
    here = h5s.create_simple(part.count) if part.count else h5s.create(h5s.SCALAR)
    place.write(here, space, found, memory if is_plain(kind) else h5t.py_create(found.dtype))


def ended(file: h5py.File) -> None:
    """What only helped to write is gone."""
    if _ASIDE in file:
        del file[_ASIDE]


def step_of(dataset: Declared) -> grid.Dims:
    """Extents of the blocks in which a dataset is read: whole chunks."""
    dims, item = dataset.dims or (), size(_kind(dataset)) or _ELEMENT
    chunk = dataset.storage.chunk if dataset.storage else ()
    if len(chunk) != len(dims) or not all(chunk) or math.prod(chunk) * item > grid.MOST:
        return grid.slabs_of(dims, item, stretches.WHOLE)
    return grid.grown(tuple(map(min, chunk, dims)), dims, item, stretches.WHOLE)


def _again(file: h5py.File, written: Written, place: h5g.GroupID, link: DeclaredLink, path: bytes) -> None:
    """Another name for an object; the first one of a type that was put aside."""
    place.links.create_hard(link.name.encode(), file.id, written.paths[link.target])
    if link.target in written.aside:
        written.aside.discard(link.target)
        written.paths[link.target] = path


def _make(file: h5py.File, written: Written, found: Declared, path: bytes, troubles: list[Trouble]) -> None:
    if found.kind == "g":
        plist = h5p.create(h5p.GROUP_CREATE)
        plist.set_link_creation_order(_TRACKED if found.ordered else 0)
        plist.set_attr_creation_order(_TRACKED if found.ordered else 0)
        h5g.create(file.id, path, gcpl=plist)
    elif found.kind == "t":
        _commit(file, path, found)
    else:
        _dataset(file, written, found, path, troubles)
    written.paths[found.id] = path


def _commit(file: h5py.File, path: bytes, found: Declared) -> None:
    hdf5_type(_kind(found)).commit(file.id, path)


def _dataset(file: h5py.File, written: Written, found: Declared, path: bytes, troubles: list[Trouble]) -> None:
    committed = found.type.committed if found.type else ""
    kind = h5o.open(file.id, written.paths[committed]) if committed in written.paths else hdf5_type(_kind(found))
    if found.dims is None:
        space = h5s.create(h5s.NULL)
    elif not found.dims:
        space = h5s.create(h5s.SCALAR)
    else:
        most = tuple(h5s.UNLIMITED if each is None else each for each in found.maxdims or found.dims)
        space = h5s.create_simple(found.dims, most)
    notes: list[str] = []
    h5d.create(file.id, path, kind, space, dcpl=_properties(found, kind, notes))
    troubles.extend(Trouble(_text(path), "mapped", note) for note in notes)


def _properties(found: Declared, kind: h5t.TypeID, notes: list[str]) -> h5p.PropDCID:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_attr_creation_order(_TRACKED if found.ordered else 0)
    storage, dims = found.storage, found.dims
    if storage is None or not dims:
        return plist
    limits = found.maxdims or dims
    if found.maxdims is not None or storage.filters or storage.layout.startswith("H5D_CHUNKED"):
        chunk = storage.chunk if len(storage.chunk) == len(dims) else dims
        bound = (each if most is None else min(each, most) for each, most in zip(chunk, limits, strict=True))
        plist.set_chunk(tuple(max(1, each) for each in bound))
        _filters(plist, storage, notes)
    if storage.fill:
        _fill(plist, _kind(found), storage, kind, notes)
    return plist


def _filters(plist: h5p.PropDCID, storage: Storage, notes: list[str]) -> None:
    numbers = [each.number for each in storage.filters]
    if SHUFFLE in numbers:
        plist.set_shuffle()
    level = next((each.level for each in storage.filters if each.number == DEFLATE), None)
    other = [each.name for each in storage.filters if each.number not in _NOTHING]
    if DEFLATE in numbers or other:
        plist.set_deflate(_LEVEL if level is None else level)
    if other:
        notes.append(f"{', '.join(other)} became gzip, which every reader of HDF5 has")
    if FLETCHER in numbers:
        plist.set_fletcher32()


def _fill(plist: h5p.PropDCID, kind: Type, storage: Storage, memory: h5t.TypeID, notes: list[str]) -> None:
    if not is_plain(kind):
        notes.append("a fill value of elements of variable length is left out")
        return
    try:
        data = from_json(kind, storage.fill, 0)
        set_fill(plist, np.frombuffer(data, np.dtype([("it", memory.dtype)]))["it"].reshape(()))
    except (*BROKEN, Garbled) as error:
        notes.append(f"its fill value is left out: {error}")


def _attribute(place: _Place, found: DeclaredAttribute, aiming: Aiming) -> None:
    kind = found.type.type
    memory = hdf5_type(kind)
    if found.dims is None:
        h5a.create(place, found.name.encode(), memory, h5s.create(h5s.NULL))
        return
    elements = None
    if 0 not in found.dims:
        elements = values(kind, from_json(kind, found.value, len(found.dims)), found.dims, memory, aiming)
    space = h5s.create_simple(found.dims) if found.dims else h5s.create(h5s.SCALAR)
    made = h5a.create(place, found.name.encode(), memory, space)
    if elements is not None:
        made.write(elements, mtype=memory if is_plain(kind) else h5t.py_create(elements.dtype))


def _aiming(file: h5py.File, written: Written) -> Aiming:
    def target(object_id: str) -> h5r.Reference:
        path = written.paths.get(object_id)
        return h5r.create(file.id, path, h5r.OBJECT) if path else h5r.Reference()

    def region(found: Region) -> h5r.RegionReference:
        path = written.paths.get(found.dataset)
        if not path:
            return h5r.RegionReference()
        space = h5d.open(file.id, path).get_space()
        if found.points is not None:
            space.select_elements(np.array(found.points, np.uint64))
        elif found.slab is not None:
            steps = [(start, max(0, -(-(stop - start) // step)), step) for start, stop, step in found.slab]
            space.select_hyperslab(*(tuple(each) for each in zip(*steps, strict=True)))
        return h5r.create(file.id, path, h5r.DATASET_REGION, space)

    return Aiming(target, region)


def _kind(found: Declared) -> Type:
    assert isinstance(found.type, DeclaredType), "datasets and committed types have one"
    return found.type.type


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")


def _raise_of_disk(error: BaseException) -> None:
    """An error of the file that is written, not of the object that goes into it."""
    if isinstance(error, OSError) and error.errno:
        raise error
