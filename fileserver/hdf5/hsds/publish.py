"""To put a loaded domain in its place: at a free name, or instead of the domain that is there.

HSDS has no rename and no replace, and its nodes remember what was at a path, so `.domain.json` is never overwritten.
What it has is names for roots, and a replacement is a walk over names (checked on HSDS 1.0.2):

    PUT    <name>.previous  {linked_domain: <name>}     the old root has two names
    DELETE <name>           {keep_root: 1}              readers of <name> see 410 from here …
    PUT    <name>           {linked_domain: <staging>}  … to here, some milliseconds
    DELETE <staging>        {keep_root: 1}
    read back: the root group of <name> is the new one and answers
    DELETE <name>.previous                              with its data

Which of these is next is seen from what is there: every name leads to a root, and we know the old one and the new one.
So each step may be done twice, and after a crash at any moment the same call goes on: forward while the staging name
is there or <name> leads to the new root; else back, until <name> leads to the old root again. A name that leads to any
other root is somebody else's and stays as it is.

The entries of the access control list and the owner stay with the name: the server itself would give a new name those
of its folder. From the PUT of <name> until they are set, some milliseconds, those of the folder are in force.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fileserver.errors import TargetChanged
from fileserver.hdf5.hsds import acls, domains
from fileserver.hdf5.hsds.acls import Permissions
from fileserver.hdf5.hsds.address import previous, show
from fileserver.hdf5.hsds.connection import Connection
from planes.errors import AlreadyExists, NotFound

_MOST_STEPS: Final = 24
"""Steps that a publication looks for before it says that somebody undoes them: it needs 6."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One domain that takes its place; plain data, to be recorded before the first step."""

    target: str
    """The path that it is to have."""
    staging: str
    """The path that it was loaded at."""
    root: str
    """Its root group."""
    replaces: str = ""
    """The root group that `target` leads to now; empty if nothing is there."""
    owner: str = ""
    """Who owns what is replaced."""
    entries: tuple[tuple[str, Permissions], ...] = ()
    """Its access control list: recorded, because a second name does not have it before it is given it."""


class Outcome(Enum):
    """How a publication ended."""

    PUBLISHED = "published"
    RESTORED = "restored"
    """The staging name was gone, and the old domain has its name again."""


async def prepare(connection: Connection, target: str, staging: str, *, overwrite: bool) -> Publication:
    """What publishing `staging` as `target` will do, from what is there now. Changes nothing.

    Raises:
        NotFound: nothing is at `staging`, or it is a folder.
        AlreadyExists: a domain is at `target` and is not to be replaced, or a folder is, or what a replacement needs
            to keep the old domain is taken.
    """
    loaded = await domains.stat(connection, staging)
    if loaded.is_folder:
        msg = f"{show(staging)} on HSDS '{connection.name}' is a folder, no domain that could be published"
        raise NotFound(msg, hsds=connection.name, domain=show(staging))
    there = await domains.find(connection, target)
    if there is None:
        return Publication(target, staging, loaded.root)
    if there.is_folder or not overwrite:
        why = "a folder" if there.is_folder else "a domain, which --overwrite would replace"
        msg = f"{show(target)} on HSDS '{connection.name}' is there already: {why}"
        raise AlreadyExists(msg, hsds=connection.name, domain=show(target))
    kept = await domains.find(connection, previous(target))
    if kept is not None and kept.root != there.root:
        raise _taken(connection, target)
    entries = tuple((await acls.read(connection, target)).items())
    return Publication(target, staging, loaded.root, there.root, there.owner, entries)


async def publish(
    connection: Connection, plan: Publication, did: Callable[[str], Awaitable[None]] | None = None
) -> Outcome:
    """Do the steps that are left of a publication, or take it back if it cannot be finished.

    Args:
        connection: to the server.
        plan: as `prepare` made it, perhaps long ago in another process.
        did: told after each step what it was.

    Raises:
        TargetChanged: `target` leads to a root that is neither the old nor the new one.
        AlreadyExists: the name that is to keep the old domain is taken.
        NotFound: nothing is left: neither the loaded domain nor, where there was one, the old.
    """
    for _ in range(_MOST_STEPS):
        step = await _next(connection, plan)
        if isinstance(step, Outcome):
            return step
        name, action = step
        try:
            await action()
        except AlreadyExists:
            continue  # a lost answer, asked again; or somebody else's, which the next look tells
        if did is not None:
            await did(name)
    msg = f"{show(plan.target)} on HSDS '{connection.name}' does not stay as it is made: somebody else changes it"
    raise TargetChanged(msg, hsds=connection.name, domain=show(plan.target))


_Step = tuple[str, Callable[[], Awaitable[object]]]


async def _next(connection: Connection, plan: Publication) -> _Step | Outcome:
    """The next step by what is there."""
    target = await domains.find(connection, plan.target)
    staging = await domains.find(connection, plan.staging)
    kept = await domains.find(connection, previous(plan.target)) if plan.replaces else None
    at, old_is_kept = target.root if target else None, kept is not None and kept.root == plan.replaces
    is_staged = staging is not None and staging.root == plan.root
    walk = _Walk(connection, plan)
    if at == plan.root:
        return await walk.finish(is_staged=is_staged, old_is_kept=old_is_kept)
    if at is None and is_staged:
        return "named", walk.name
    if at is None and old_is_kept:
        return "restored", walk.restore
    if at is None:
        raise _lost(connection, plan)
    if not plan.replaces or at != plan.replaces:
        raise _changed(connection, plan, is_new=not plan.replaces)
    if not is_staged:
        return ("forgotten", walk.forget) if old_is_kept else Outcome.RESTORED
    if kept is None:
        return "kept", walk.keep
    if not old_is_kept:
        raise _taken(connection, plan.target)
    return "swapped", walk.swap


class _Walk:
    """The steps, each of which may be done twice."""

    def __init__(self, connection: Connection, plan: Publication) -> None:
        self._connection = connection
        self._plan = plan
        self._previous = previous(plan.target)

    async def keep(self) -> None:
        """The old root gets a second name."""
        await domains.link(self._connection, self._previous, self._plan.target, owner=self._plan.owner)

    async def swap(self) -> None:
        """The name goes from the old root to the new one, once the second name is as closed to others as the first.

        Nothing is looked at in between: that is the time in which nothing is there.
        """
        await self._set_entries(self._previous)
        await domains.unlink(self._connection, self._plan.target)
        await self.name()

    async def name(self) -> None:
        """The new root gets the name."""
        await domains.link(self._connection, self._plan.target, self._plan.staging, owner=self._plan.owner)
        await self._set_entries(self._plan.target)

    async def finish(self, *, is_staged: bool, old_is_kept: bool) -> _Step | Outcome:
        """What is left once the target leads to the new root."""
        if is_staged:
            return "unstaged", self.unstage
        if old_is_kept:
            return "removed the old", self.remove_old
        await self._read_back()
        return Outcome.PUBLISHED

    async def unstage(self) -> None:
        """The new root loses its staging name, once its new one has all that belongs to it."""
        await self._set_entries(self._plan.target)  # a crash may have been right before
        await domains.unlink(self._connection, self._plan.staging)

    async def remove_old(self) -> None:
        """The old root goes, once the new one has been read and has all that belongs to the name."""
        await self._set_entries(self._plan.target)
        await self._read_back()
        await domains.delete(self._connection, self._previous)

    async def restore(self) -> None:
        """The old root gets its name back."""
        await domains.link(self._connection, self._plan.target, self._previous, owner=self._plan.owner)
        await self._set_entries(self._plan.target)

    async def forget(self) -> None:
        """The old root has its name, and the second one goes."""
        await self._set_entries(self._plan.target)  # a crash may have been right before
        await domains.unlink(self._connection, self._previous)

    async def _set_entries(self, path: str) -> None:
        if self._plan.entries:
            await acls.copy(self._connection, path, dict(self._plan.entries))

    async def _read_back(self) -> None:
        """The root group answers at its new name; raises what the server says if it does not."""
        await self._connection.call("GET", f"/groups/{self._plan.root}", domain=self._plan.target)


def _taken(connection: Connection, target: str) -> AlreadyExists:
    kept = show(previous(target))
    msg = (
        f"{kept} on HSDS '{connection.name}' is there already, and {show(target)} would be kept under that name while "
        "it is replaced: move or remove it first"
    )
    return AlreadyExists(msg, hsds=connection.name, domain=kept)


def _changed(connection: Connection, plan: Publication, *, is_new: bool) -> AlreadyExists | TargetChanged:
    what = show(plan.target)
    rest = f"what was loaded is at {show(plan.staging)}"
    if is_new:
        msg = f"{what} on HSDS '{connection.name}' was made by somebody else meanwhile; {rest}"
        return AlreadyExists(msg, retry_after=None, hsds=connection.name, domain=what)
    msg = f"{what} on HSDS '{connection.name}' was replaced by somebody else meanwhile; {rest}"
    return TargetChanged(msg, retry_after=None, hsds=connection.name, domain=what)


def _lost(connection: Connection, plan: Publication) -> NotFound:
    msg = (
        f"{show(plan.target)} on HSDS '{connection.name}' cannot be published: {show(plan.staging)}, where it was "
        "loaded, is gone: load it again"
    )
    return NotFound(msg, hsds=connection.name, domain=show(plan.target))
