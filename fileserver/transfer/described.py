"""What the copy of one whole object keeps of it beside its bytes: content type and metadata.

Where the provider copies a whole object in one request, its plane sees to that; here it is for all other ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from fileserver.transfer.manifest import Extent, Part
from planes.errors import NotFound
from planes.plane import Info, Plane

_OURS: Final = ("cropduster-", "cropduster_")
"""How the names begin that planes write for themselves: they speak of the object that has them, and of no copy."""
_RESERVED: Final = 512  # bytes of metadata that the target's plane may need for those

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Described:
    """How an object is to be described."""

    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


_NOTHING: Final = Described()


async def described(plane: Callable[[str], Plane], target: Plane, part: Part) -> Described:
    """What a part inherits: nothing, unless it is one whole source, and both planes keep such things.

    Metadata that the target has no room for, and text that is not plain ASCII, which HTTP has no place for, stay
    behind.
    """
    piece = part.pieces[0] if len(part.pieces) == 1 else None
    if not isinstance(piece, Extent) or not piece.whole or not target.capabilities.metadata:
        return _NOTHING
    source = plane(piece.plane)
    if not source.capabilities.metadata:
        return _NOTHING
    try:
        info = await source.stat(piece.key)
    except NotFound:
        return _NOTHING  # reading or copying it tells what is wrong
    return inherited(info, target)


def inherited(info: Info, target: Plane) -> Described:
    """What a copy of a whole object at `target` inherits of it."""
    if not target.capabilities.metadata:
        return _NOTHING
    kept = {name: text for name, text in info.metadata.items() if not name.lower().startswith(_OURS)}
    kept = {name: text for name, text in kept.items() if (name + text).isascii() and (name + text).isprintable()}
    if sum(len(name) + len(text) for name, text in kept.items()) > target.capabilities.metadata - _RESERVED:
        log.warning("metadata left behind", key=info.key, target=target.name)
        kept = {}
    return Described(info.content_type, kept)
