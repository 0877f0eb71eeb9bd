"""What each object of an open file is: its attributes, and of datasets what decides how they travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import h5py
import numpy as np
from h5py import h5d, h5p, h5r, h5s, h5z

from fileserver.hdf5.attributes import attributes
from fileserver.hdf5.elements import MOST_POINTS, Pointing, Region
from fileserver.hdf5.model import (
    CHUNK_ROW,
    ChunkTable,
    Dataset,
    Datatype,
    Facts,
    Filter,
    Group,
    Layout,
    Node,
    Outline,
    Segment,
    Trouble,
)
from fileserver.hdf5.outline import BROKEN, Opened, by_address
from fileserver.hdf5.types import Enum, Json, Number, Text, Type, size
from fileserver.hdf5.typing_rules import NotHeld, readable, typed

_LAYOUTS: Final[Mapping[int, Layout]] = {
    h5d.COMPACT: "compact",
    h5d.CONTIGUOUS: "contiguous",
    h5d.CHUNKED: "chunked",
    h5d.VIRTUAL: "virtual",
}


def pointing(file: h5py.File, ids: Mapping[int, str]) -> Pointing:
    """How references of this file are turned into ids of the domain."""

    def target(reference: h5r.Reference) -> str | None:
        try:
            return ids.get(h5py.h5o.get_info(h5r.dereference(reference, file.id)).addr)
        except BROKEN:
            return None  # it leads to something that is gone: HSDS has a null reference for it

    def region(reference: h5r.RegionReference) -> Region | None:
        dataset = target(reference)
        if dataset is None:
            return None
        return _region(dataset, h5r.get_region(reference, file.id))

    return Pointing(target, region)


def group(
    file: h5py.File, outline: Outline, node: Node, to: Pointing, troubles: list[Trouble], opened: Opened | None = None
) -> Group:
    """A group with its attributes."""
    keeps = node.address in outline.kept
    found = attributes(by_address(file, node, opened), node.path, to, troubles, ordered=keeps)
    return Group(node, outline.links[node.address], found, keeps or node.address in outline.ordered)


def datatype(file: h5py.File, node: Node, to: Pointing, troubles: list[Trouble]) -> Datatype:
    """A committed type with its attributes.

    Raises:
        NotHeld: HSDS has no type like it.
    """
    place = by_address(file, node)
    kind = typed(place)
    troubles.extend(Trouble(node.path, "mapped", note) for note in kind.notes)
    # h5py has no creation properties of types.
    return Datatype(node, kind, attributes(place, node.path, to, troubles, ordered=False))


def dataset(
    file: h5py.File,
    node: Node,
    to: Pointing,
    troubles: list[Trouble],
    known: Facts | None = None,
    opened: Opened | None = None,
) -> Dataset:
    """A dataset without its data; with facts that are `known` already, or as they are now.

    Raises:
        NotHeld: HSDS has no type like its.
    """
    place = by_address(file, node, opened)
    found = known or facts(place)
    troubles.extend(Trouble(node.path, "mapped", note) for note in found.typed.notes)
    return Dataset(node, found, attributes(place, node.path, to, troubles, ordered=found.ordered), found.ordered)


def facts(place: h5d.DatasetID) -> Facts:
    """What decides how a dataset travels.

    Raises:
        NotHeld: HSDS has no type like its.
    """
    raw, space, plist = place.get_type(), place.get_space(), place.get_create_plist()
    kind = typed(raw)
    null = space.get_simple_extent_type() == h5s.NULL
    dims = None if null else tuple(space.get_simple_extent_dims())
    most = space.get_simple_extent_dims(maxdims=True) if dims else ()
    maxdims = tuple(None if m == h5s.UNLIMITED else m for m in most) if dims and most != dims else None
    layout = _LAYOUTS[plist.get_layout()]
    if layout == "contiguous" and plist.get_external_count():
        layout = "external"
    whole = 0 if null else space.get_simple_extent_npoints() * raw.get_size()
    filters = tuple(_filters(plist))
    fill, unheld = _fill(place, plist, kind.stored)
    return Facts(
        typed=kind,
        item=size(kind.stored),
        dims=dims,
        maxdims=maxdims,
        layout=layout,
        chunk=tuple(plist.get_chunk()) if layout == "chunked" else None,
        filters=filters,
        stored=0 if null else place.get_storage_size(),
        offset=place.get_offset() if layout == "contiguous" and not null else None,
        missing=tuple(f.name or str(f.number) for f in filters if not h5z.filter_avail(f.number)),
        segments=_segments(plist, whole) if layout == "external" else (),
        sources=_sources(plist, layout),
        fill=fill,
        fill_unheld=unheld,
        ordered=bool(plist.get_attr_creation_order() & h5p.CRT_ORDER_TRACKED),
    )


def chunk_table(file: h5py.File, node: Node, chunk: tuple[int, ...], opened: Opened | None = None) -> ChunkTable:
    """Where the chunks of a dataset lie; 40 bytes a chunk and 8 a dimension.

    Raises:
        OSError, RuntimeError: the index of chunks is damaged.
    """
    place = by_address(file, node, opened)
    count = place.get_num_chunks()
    rows = np.zeros(count, CHUNK_ROW)
    places = np.zeros((count, len(chunk)), np.int64)
    at = 0

    def take(info: h5d.StoreInfo) -> None:
        nonlocal at
        rows[at] = (info.byte_offset, info.size, info.filter_mask)
        places[at] = info.chunk_offset
        at += 1

    if count:
        place.chunk_iter(take)
    return ChunkTable(rows[:at], places[:at] // np.array(chunk))


def _filters(plist: h5py.h5p.PropDCID) -> list[Filter]:
    found = []
    for i in range(plist.get_nfilters()):
        number, _, values, name = plist.get_filter(i)
        found.append(Filter(number, readable(name)[0], tuple(values)))
    return found


def _sources(plist: h5py.h5p.PropDCID, layout: Layout) -> tuple[str, ...]:
    if layout != "virtual":
        return ()
    named = (plist.get_virtual_filename(i) for i in range(plist.get_virtual_count()))
    return tuple(dict.fromkeys(name for name in named if name != "."))


def _segments(plist: h5py.h5p.PropDCID, most: int) -> tuple[Segment, ...]:
    found, left = [], most
    for i in range(plist.get_external_count()):
        name, offset, held = plist.get_external(i)
        taken = min(held, left)  # the last one may be without an end
        found.append(Segment(readable(name)[0], offset, taken))
        left -= taken
    return tuple(found)


def _fill(  # noqa: PLR0911 -- one a kind of value
    place: h5d.DatasetID, plist: h5py.h5p.PropDCID, kind: Type
) -> tuple[Json, bool]:
    """The fill value as JSON, and whether there is one that HSDS does not hold."""
    if plist.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return None, False
    if not isinstance(kind, Number | Enum | Text):
        return None, True
    try:
        value = h5py.Dataset(place).fillvalue
    except BROKEN:
        return None, True
    if isinstance(kind, Text):
        raw = value.encode() if isinstance(value, str) else bytes(value or b"")
        if not raw:
            return None, False
        try:
            return (raw.decode(), False) if kind.length is not None else (None, True)
        except UnicodeDecodeError:
            return None, True
    plain = value.item() if isinstance(kind, Number) and kind.kind == "F" else int(value)
    return (plain, False) if plain or str(plain).startswith("-") else (None, False)


def _region(dataset: str, space: h5s.SpaceID) -> Region | None:
    """A selection of the library as one that HSDS has; None if nothing is selected."""
    shape = tuple(space.get_simple_extent_dims())
    kind = space.get_select_type()
    if kind == h5s.SEL_ALL:
        return Region(dataset, shape)
    if kind == h5s.SEL_NONE or not space.get_select_npoints():
        return None
    if kind == h5s.SEL_HYPERSLABS and space.is_regular_hyperslab():
        slab = _slab(*space.get_regular_hyperslab())
        if slab is not None:
            return Region(dataset, shape, slab=slab)
    if space.get_select_npoints() > MOST_POINTS:
        msg = (
            f"a region of more than {MOST_POINTS} elements that is no regular hyperslab: HSDS has to list its elements"
        )
        raise NotHeld(msg)
    return Region(dataset, shape, points=tuple(_points(space, kind)))


def _slab(
    start: tuple[int, ...], stride: tuple[int, ...], count: tuple[int, ...], block: tuple[int, ...]
) -> tuple[tuple[int, int, int], ...] | None:
    """(start, stop, step) by dimension; None if blocks of several elements have gaps between them."""
    found = []
    for first, step, number, length in zip(start, stride, count, block, strict=True):
        if number == 1 or step == length:
            found.append((first, first + (number - 1) * step + length, 1))
        elif length == 1:
            found.append((first, first + (number - 1) * step + 1, step))
        else:
            return None
    return tuple(found)


def _points(space: h5s.SpaceID, kind: int) -> list[tuple[int, ...]]:
    if kind == h5s.SEL_POINTS:
        return [tuple(map(int, point)) for point in space.get_select_elem_pointlist()]
    found: list[tuple[int, ...]] = []
    for low, high in space.get_select_hyper_blocklist():
        found.extend(np.ndindex(*(high - low + 1)) if not low.any() else _block(low, high))
    return found


def _block(
    low: np.ndarray[tuple[int], np.dtype[np.int64]], high: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> list[tuple[int, ...]]:
    return [tuple(int(a + b) for a, b in zip(low, each, strict=True)) for each in np.ndindex(*(high - low + 1))]
