"""One look at a watched prefix: list it, page by page, and enter what is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from fileserver.catalogue.files import PAGE
from fileserver.catalogue.store import Store
from fileserver.configured import where
from fileserver.errors import to_record
from fileserver.landing import arrivals, watches
from fileserver.landing.states import is_marker
from fileserver.landing.watch import Listed, Options, Watch
from fileserver.transfer.addresses import in_generation
from fileserver.transfer.filters import wanted
from fileserver.transfer.ingest_plan import SUFFIXES
from planes.errors import Refused
from planes.left_out import Tell
from planes.plane import Plane

_OURS_NO_MORE: Final = "somebody else looks meanwhile, or nobody is to"


class Superseded(Exception):
    """The look is not ours any more."""


async def look(store: Store, plane: Plane, watch: Watch, looker: str, began: float) -> None:
    """See everything below the prefix of a watch, and mark what has settled and what is gone.

    Args:
        store: where the arrivals are.
        plane: of the watch.
        watch: which this process has claimed.
        looker: this process.
        began: when the look began, by the database's clock.

    Raises:
        Superseded: the watch was stopped, or the lease was lost; nothing more was entered.
        Error: the plane could not be listed; nothing is taken for gone.
    """

    def enter(c: sa.Connection, page: list[Listed]) -> None:
        _check(c, watch, looker)
        arrivals.see(c, watch, began, page)
        if not watch.options.marker:  # markers may still be to come
            arrivals.settle(c, watch, began)

    def finish(c: sa.Connection) -> None:
        _check(c, watch, looker)
        arrivals.vanish(c, watch, began)
        arrivals.settle(c, watch, began)
        watches.looked(c, watch, looker, _nameless(watch, unnamed) if unnamed else None, whole=True)

    unnamed = list[str]()
    async for page in _pages(plane, watch, lambda left: unnamed.append(left.name) if left.has_data else None):
        await store.write(partial(enter, page=page))
    await store.write(finish)


def _nameless(watch: Watch, names: Sequence[str]) -> dict[str, Any]:
    """What a watch says of files that no key can name, and which it therefore comes by."""
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    msg = (
        f"the name of {where(watch.plane, names[0])}{others} is not UTF-8, so that no key can be that name: rename it; "
        "everything else is taken"
    )
    return to_record(Refused(msg, plane=watch.plane, key=names[0]))


async def _pages(plane: Plane, watch: Watch, left_out: Tell) -> AsyncIterator[list[Listed]]:
    """What is to be seen, a page at a time, keys relative to the prefix."""
    test, options = _test(watch.options), watch.options
    page, count = list[Listed](), 0
    async for info in plane.list(watch.prefix, left_out=left_out):
        key, count = info.key[len(watch.prefix) :], count + 1
        if key and not key.endswith("/") and not in_generation(key) and (is_marker(options.marker, key) or test(key)):
            page.append(Listed(key, info.size, info.version, info.modified.timestamp()))
        if count % PAGE == 0:
            yield page
            page = []
    yield page


def _test(options: Options) -> Callable[[str], bool]:
    """Which keys are wanted; where nothing is to be included, those that an ingest takes of a folder."""
    matches = wanted(options.include, options.exclude)
    if options.include:
        return matches
    endings = tuple(SUFFIXES)
    return lambda key: key.lower().endswith(endings) and matches(key)


def _check(c: sa.Connection, watch: Watch, looker: str) -> None:
    if not watches.is_looking(c, watch.name, looker):
        raise Superseded(_OURS_NO_MORE)
