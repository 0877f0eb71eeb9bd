"""A domain as h5pyd reads it against its file as h5py reads it: all differences, as text."""

from collections.abc import Iterator
from typing import Any

import h5py
import h5pyd
import numpy as np
from numpy.lib.recfunctions import repack_fields

from fileserver.hdf5 import ids

KINDS = {h5py.Group: "g", h5py.Dataset: "d", h5py.Datatype: "t"}
# What HSDS reads back otherwise than HDF5 does, whoever wrote it.
UNLIMITED_AT_ZERO = "/zero"  # a fixed dimension of no elements is said to be unlimited


class Comparison:
    """One file and its domain; `root` is the id of the domain's root group."""

    def __init__(self, file: h5py.File, domain: h5pyd.File, root: str) -> None:
        self.file, self.domain, self.root = file, domain, root
        self._seen: set[int] = set()

    def differences(self, refused: frozenset[str] = frozenset()) -> list[str]:
        """All of them; objects that were refused must not be there."""
        return list(self._objects("/", self.file["/"], self.domain["/"], refused))

    def _objects(self, path: str, here: Any, there: Any, refused: frozenset[str]) -> Iterator[str]:
        yield from self._attributes(path, here, there)
        if isinstance(here, h5py.Group):
            yield from self._links(path, here, there, refused)
        elif isinstance(here, h5py.Dataset):
            yield from self._dataset(path, here, there)
        elif here.dtype != there.dtype:
            yield f"{path}: type {here.dtype}, {there.dtype}"

    def _attributes(self, path: str, here: Any, there: Any) -> Iterator[str]:
        if list(here.attrs) != list(there.attrs):
            yield f"{path}: attributes {list(here.attrs)}, {list(there.attrs)}"
        for name in here.attrs:
            a, b = self._plain(here.attrs[name]), self._plain(there.attrs[name])
            if not same(a, b):
                yield f"{path}@{name}: {a!r}, {b!r}"

    def _links(self, path: str, here: Any, there: Any, refused: frozenset[str]) -> Iterator[str]:
        address = h5py.h5o.get_info(here.id).addr
        if address in self._seen:
            return
        self._seen.add(address)
        wanted = [name for name in here if f"{path.rstrip('/')}/{name}" not in refused]
        if wanted != list(there):
            yield f"{path}: links {wanted}, {list(there)}"
            return
        for name in wanted:
            a, b = here.get(name, getlink=True), there.get(name, getlink=True)
            facts = [(type(link).__name__, getattr(link, "path", ""), getattr(link, "filename", "")) for link in (a, b)]
            if facts[0] != facts[1]:
                yield f"{path}/{name}: {facts}"
            elif isinstance(a, h5py.HardLink):
                if there[name].id.id != self._id(here[name]):
                    yield f"{path}/{name}: is another object than in the file"
                yield from self._objects(f"{path.rstrip('/')}/{name}", here[name], there[name], refused)

    def _dataset(self, path: str, here: Any, there: Any) -> Iterator[str]:
        if here.shape != there.shape or (here.maxshape != there.maxshape and path != UNLIMITED_AT_ZERO):
            yield f"{path}: shapes {here.shape} {here.maxshape}, {there.shape} {there.maxshape}"
        if here.dtype.kind not in "OcV" and here.dtype.itemsize <= 8 and here.dtype != there.dtype:
            yield f"{path}: dtypes {here.dtype}, {there.dtype}"
        if here.dtype.names and not here.dtype.hasobject and repack_fields(here.dtype, recurse=True) != there.dtype:
            yield f"{path}: dtypes {here.dtype}, {there.dtype}"
        a, b = (self._plain(_values(each)) if each.shape is not None else None for each in (here, there))
        if not same(a, b):
            yield f"{path}: {str(a)[:300]}, {str(b)[:300]}"

    def _plain(self, value: Any) -> Any:  # noqa: C901 -- one case a kind of value
        """Values in which references are ids, regions are what they select, and text is bytes."""
        match value:
            case h5py.Empty() | h5pyd.Empty():
                return None
            case h5py.RegionReference():
                return self.file[value][value].tolist() if value else None
            case h5pyd.RegionReference():
                return _selected(self.domain, value) if value.id else None
            case h5py.Reference():
                return self._id(self.file[value]) if value else ""
            case h5pyd.Reference():
                return value.id or ""
            case np.void() if value.dtype.names:
                return [self._plain(value[name]) for name in value.dtype.names]
            case np.void():
                return value.tobytes()
            case np.ndarray() if value.dtype.kind == "S" and value.dtype.metadata and "ref" in value.dtype.metadata:
                return [each.decode().rpartition("/")[2] for each in value.reshape(-1)]
            case np.ndarray() if value.dtype.kind == "c":
                return [[each.real, each.imag] for each in value.tolist()]
            case np.ndarray() if value.dtype.kind in "OV":
                return [self._plain(each) for each in value]
            case np.complexfloating():
                return [value.real, value.imag]
            case str():
                return value.encode("utf-8", "surrogateescape")
            case bytes() if value[:8] in {b"groups/g", b"datasets", b"datatype"} or value[:2] == b"d-":
                return value.decode().rpartition("/")[2]
            case _:
                return value

    def _id(self, found: Any) -> str:
        address = h5py.h5o.get_info(found.id).addr
        if address == h5py.h5o.get_info(self.file.id).addr:
            return self.root
        kind = next(kind for cls, kind in KINDS.items() if isinstance(found, cls))
        return ids.object_id(self.root, kind, str(address))


def _selected(domain: h5pyd.File, region: Any) -> list[Any]:
    return domain[h5pyd.Reference(region.id)][region].tolist()


def _values(dataset: Any) -> Any:
    """What h5py reads; opaque bytes with a tag it only reads as the file's own type."""
    base = h5py.check_vlen_dtype(dataset.dtype) if isinstance(dataset, h5py.Dataset) else None
    if isinstance(base, np.dtype) and base.byteorder == ">":  # h5py 3.16 gives their bytes out for native ones
        found = dataset[()]
        for place in np.ndindex(found.shape):
            found[place] = found[place].view(base)
        return found
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "V" or dataset.dtype.names:
        return dataset[()]
    if dataset.dtype.subdtype:
        return dataset[()]
    found = np.zeros(dataset.shape, dataset.dtype)
    dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, found, dataset.id.get_type())
    return found


def same(a: Any, b: Any) -> bool:
    """Equal, NaN for NaN; HSDS gives a sequence without elements as 0."""
    if isinstance(a, np.ndarray) and a.shape == (0,) and not isinstance(b, np.ndarray):
        return b == 0 or b == []
    if isinstance(a, list):
        b = b.tolist() if isinstance(b, np.ndarray) else b
        if not a and isinstance(b, int):
            return b == 0
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    return bool(a == b) or (a != a and b != b)
