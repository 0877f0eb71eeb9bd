"""All objects of a file and how they are linked, read without recursion and without following a link out of it.

An object that the library cannot read is left out, with the links to it, and reported; the rest goes on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import h5py
from h5py import h5g, h5l, h5o, h5p

from fileserver.hdf5.model import Kind, Link, Node, Outline, Trouble
from fileserver.hdf5.typing_rules import readable

_KINDS: Final[dict[int, Kind]] = {h5o.TYPE_GROUP: "g", h5o.TYPE_DATASET: "d", h5o.TYPE_NAMED_DATATYPE: "t"}
BROKEN: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises for objects that the library cannot read; the last three for sizes and types that are damaged."""


Located: TypeAlias = h5py.h5g.GroupID | h5py.h5d.DatasetID | h5py.h5t.TypeID
Opened: TypeAlias = dict[int, Located]
"""Objects of a file that stay open, by their address, for who comes to them again; never outside of its thread."""
_KEPT: Final = 64  # objects that stay open: each takes the library some KiB


@dataclass(slots=True)
class _Walk:
    file: h5py.File
    nodes: dict[int, Node] = field(default_factory=dict)
    links: dict[int, list[Link]] = field(default_factory=dict)
    opened: Opened | None = None
    ordered: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)
    troubles: list[Trouble] = field(default_factory=list)
    todo: deque[int] = field(default_factory=deque)

    def meet(self, address: int, kind: Kind, path: str, raw: bytes) -> None:
        if address not in self.nodes:
            self.nodes[address] = Node(address, kind, path, raw)
            if kind == "g":
                self.todo.append(address)


def outline(file: h5py.File, opened: Opened | None = None) -> Outline:
    """All that can be reached from the root group by hard links; groups that had to be opened are added to `opened`."""
    walk = _Walk(file, opened=opened)
    walk.meet(h5o.get_info(file.id).addr, "g", "/", b"/")
    while walk.todo:
        node = walk.nodes[walk.todo.popleft()]
        try:
            _group(walk, node)
        except BROKEN as error:
            walk.links[node.address] = []
            walk.troubles.append(Trouble(node.path, "failed", f"its links cannot be read: {error}"))
    return Outline(walk.nodes, walk.links, frozenset(walk.ordered), frozenset(walk.kept), tuple(walk.troubles))


def by_address(file: h5py.File, node: Node, opened: Opened | None = None) -> Located:
    """An object, opened by the path that it was found by, unless it is among those that are open."""
    place = opened.get(node.address) if opened else None
    return h5o.open(file.id, node.raw) if place is None else place


def keep(opened: Opened | None, node: Node, place: Located) -> None:
    """Have an object stay open, where that is wanted and not too many are."""
    if opened is not None and len(opened) < _KEPT:
        opened[node.address] = place


def _group(walk: _Walk, node: Node) -> None:
    group = by_address(walk.file, node)
    keep(walk.opened, node, group)
    links: list[Link] = []
    walk.links[node.address] = links
    plist = group.get_create_plist()
    if plist.get_attr_creation_order() & h5p.CRT_ORDER_TRACKED:
        walk.kept.add(node.address)
    order = h5py.h5.INDEX_NAME
    if plist.get_link_creation_order() & h5p.CRT_ORDER_TRACKED:
        walk.ordered.add(node.address)
        if plist.get_link_creation_order() & h5p.CRT_ORDER_INDEXED:
            order = h5py.h5.INDEX_CRT_ORDER
    names: list[bytes] = []
    group.links.iterate(names.append, idx_type=order)
    for raw in names:
        _link(walk, node, group, raw, links)


def _link(walk: _Walk, node: Node, group: h5g.GroupID, raw: bytes, links: list[Link]) -> None:
    name, same = readable(raw)
    path = f"{node.path.rstrip('/')}/{name}"
    if not same:
        walk.troubles.append(Trouble(path, "mapped", "its name is not UTF-8 and is written percent-encoded"))
    try:
        kind = group.links.get_info(raw).type
        if kind == h5l.TYPE_HARD:
            _hard(walk, node, group, raw, Link(name, "hard", 0), links)
        elif kind == h5l.TYPE_SOFT:
            links.append(Link(name, "soft", readable(group.links.get_val(raw))[0]))
        elif kind == h5l.TYPE_EXTERNAL:
            file, target = group.links.get_val(raw)
            links.append(Link(name, "external", readable(target)[0], readable(file)[0]))
        else:
            walk.troubles.append(Trouble(path, "refused", "a user-defined link: HSDS has no such thing"))
    except BROKEN as error:
        walk.troubles.append(Trouble(path, "failed", f"it cannot be read: {error}"))


def _hard(walk: _Walk, node: Node, group: h5g.GroupID, raw: bytes, link: Link, links: list[Link]) -> None:
    facts = h5o.get_info(group, raw)
    path = f"{node.path.rstrip('/')}/{link.name}"
    kind = _KINDS.get(facts.type)
    if kind is None:
        walk.troubles.append(Trouble(path, "refused", "an object of unknown kind"))
        return
    walk.meet(facts.addr, kind, path, node.raw.rstrip(b"/") + b"/" + raw)
    links.append(Link(link.name, "hard", facts.addr))
