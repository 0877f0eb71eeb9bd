"""Domains and folders of one server: look, list, make, move, remove.

A domain is a name for a root group; several names may lead to one root (`linked_domain`). A folder is a domain without
a root. To move a domain is to give its root another name and then to take the old one away; hsmv, which does it
otherwise, loses the data (seen with h5pyd 1.0.0).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds import acls
from fileserver.hdf5.hsds.address import lies_below, parent, show
from fileserver.hdf5.hsds.connection import JSON, Connection
from fileserver.hdf5.hsds.reading import Reader
from planes.errors import AlreadyExists, NotFound, Refused

_PAGE: Final = 1000
_ROOT: Final = "/"
_FAULTS: Final = 1000  # of a flush: as long as there is patience


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain or a folder."""

    path: str
    root: str
    """Id of the root group; empty for a folder."""
    owner: str
    created: float
    """Seconds since 1970."""
    modified: float
    groups: int = 0
    """Counts and bytes are as of the server's last scan, 0 before it; only where they were asked for."""
    datasets: int = 0
    datatypes: int = 0
    chunks: int = 0
    allocated: int = 0
    """Bytes of data as stored."""
    total: int = 0
    """Bytes with metadata."""

    @property
    def is_folder(self) -> bool:
        """It holds domains, not data."""
        return not self.root


async def stat(connection: Connection, path: str, *, totals: bool = False) -> Domain:
    """What is at a path; raises NotFound, and what `Connection.call` does."""
    if path == _ROOT:  # no object of the server's
        return Domain(_ROOT, "", "", 0.0, 0.0)
    params = {"verbose": "1"} if totals else {}
    answer = await connection.call("GET", "/", domain=path, params=params)
    return _domain(path, Reader(answer.asked, answer.json()))


async def find(connection: Connection, path: str) -> Domain | None:
    """What is at a path, or None; raises what `Connection.call` does."""
    try:
        return await stat(connection, path)
    except NotFound:
        return None


async def listing(connection: Connection, path: str, *, pattern: str = "", after: str = "") -> AsyncGenerator[Domain]:
    """Domains and folders right below a folder, in the server's order, page by page.

    Args:
        connection: to the server.
        path: of the folder.
        pattern: of the last name, with `*` and `?`; all if empty.
        after: begin behind this path of an earlier listing.
    """
    params = {"Limit": str(_PAGE)} | ({"pattern": pattern} if pattern else {}) | ({"Marker": after} if after else {})
    folder = path if path == _ROOT else f"{path}/"
    while True:
        answer = await connection.call("GET", "/domains", domain=folder, params=params)
        found = Reader(answer.asked, answer.json()).items("domains")
        for each in found:
            yield _domain(each.text("name"), each)
        if len(found) < _PAGE:
            return
        params["Marker"] = found[-1].text("name")


async def make_folder(connection: Connection, path: str, *, parents: bool = False, exist_ok: bool = False) -> Domain:
    """A folder; the server gives it the entries of the folder that it lies in.

    Args:
        connection: to the server.
        path: of the folder.
        parents: make those above it too.
        exist_ok: a folder that is there already is what was asked for.

    Raises:
        AlreadyExists: something is there.
        NotFound: the folder above it is not there.
        CallerDenied: top-level folders are for administrators, others for who may create in the one above.
    """
    there = await find(connection, path)
    if there is None:
        above = parent(path)
        if above != _ROOT:
            if parents:
                await make_folder(connection, above, parents=True, exist_ok=True)
            elif await find(connection, above) is None:
                msg = f"{show(above)} on HSDS '{connection.name}' is not there: make it first, or use --parents"
                raise NotFound(msg, hsds=connection.name, domain=show(above))
        try:
            await connection.call("PUT", "/", domain=path, body={"folder": 1})
        except AlreadyExists:
            if not exist_ok:  # else another maker was faster
                raise
        return await stat(connection, path)
    if there.is_folder and exist_ok:
        return there
    kind = "folder" if there.is_folder else "domain"
    msg = f"{show(path)} on HSDS '{connection.name}' is there already, a {kind}"
    raise AlreadyExists(msg, hsds=connection.name, domain=show(path))


async def link(connection: Connection, path: str, to: str, *, owner: str = "") -> None:
    """Another name for the domain `to`; the server gives it the entries of its folder, not those of `to`.

    Args:
        connection: to the server.
        path: the new name.
        to: a domain, which who asks may read and delete.
        owner: of the new name, if not who asks; for administrators.

    Raises:
        AlreadyExists: the new name is taken.
    """
    body: dict[str, JSON] = {"linked_domain": to}
    if owner and owner != connection.settings.username:
        body["owner"] = owner
    await connection.call("PUT", "/", domain=path, body=body)


async def unlink(connection: Connection, path: str) -> None:
    """Take a name away and keep its root; one that is not there is fine."""
    await _delete(connection, path, keep_root=True)


async def delete(connection: Connection, path: str, *, recursive: bool = False) -> int:
    """Remove a domain with its data, or an empty folder; how many names are gone.

    The server removes the data of a domain some seconds later, by itself.

    Raises:
        NotFound: nothing is there.
        AlreadyExists: the folder is not empty.
    """
    there = await stat(connection, path)
    gone = 1
    if path == _ROOT:
        msg = "all that a server has is not removed at once: name a folder"
        raise InvalidSpec(msg, {"domain": msg})
    if there.is_folder and recursive:
        for below in [each async for each in listing(connection, path)]:
            gone += await delete(connection, below.path, recursive=True)
    await _delete(connection, path, keep_root=False)
    return gone


async def delete_found(connection: Connection, path: str) -> None:
    """Remove a domain with its data, or an empty folder; one that is not there is fine."""
    await _delete(connection, path, keep_root=False)


async def move(connection: Connection, source: str, target: str) -> None:
    """Give a domain, or a folder and all below it, another name; its data stay where they are, with owner and ACLs.

    Interrupted and done again, it goes on where it was.

    Raises:
        NotFound: nothing is at `source`.
        AlreadyExists: another thing is at `target`.
        InvalidSpec: a folder into itself.
    """
    if _ROOT in {source, target} or (lies_below(target, source) and target != source):
        msg = f"{show(source)} cannot become {show(target)}: a folder is not moved into itself"
        raise InvalidSpec(msg, {"target": msg})
    there = await stat(connection, source)
    if source == target:
        return
    if not there.is_folder:
        await _move_domain(connection, there, target)
        return
    await _move_folder(connection, source, target)


async def _move_domain(connection: Connection, source: Domain, target: str) -> None:
    entries = await acls.read(connection, source.path)  # who may not read them finds out before anything is done
    there = await find(connection, target)
    if there is None:
        await link(connection, target, source.path, owner=source.owner)
        there = await stat(connection, target)
    if there.root != source.root:
        msg = f"{show(target)} on HSDS '{connection.name}' is there already: remove it first, or choose another name"
        raise AlreadyExists(msg, hsds=connection.name, domain=show(target))
    await acls.copy(connection, target, entries)
    await unlink(connection, source.path)


async def _move_folder(connection: Connection, source: str, target: str) -> None:
    made = await make_folder(connection, target, exist_ok=True)
    assert made.is_folder, "make_folder refuses a domain"
    await acls.copy(connection, target, await acls.read(connection, source))
    for below in [each async for each in listing(connection, source)]:
        await move(connection, below.path, target + below.path.removeprefix(source))
    await unlink(connection, source)


async def flush(connection: Connection, path: str) -> int:
    """Return once everything that was written to a domain is stored; how many data nodes said so.

    The server fails at it, with 500, as long as a data node is away: it is asked again until that is back. What that
    node had not stored is lost, and counts among the connection's lost requests.

    Raises:
        Refused: not all of the server's data nodes did.
        Unavailable: one is away for long.
    """
    params = {"flush": "1", "getdnids": "1"}
    answer = await connection.call("PUT", "/", domain=path, params=params, faults=_FAULTS)
    said = Reader(answer.asked, answer.json())
    nodes = len(said.texts("dn_ids")) if said.has("dn_ids") else 0
    if not nodes:
        msg = f"{show(path)} on HSDS '{connection.name}': no data node said that it has stored what was written"
        raise Refused(msg, hsds=connection.name, domain=show(path))
    return nodes


async def rescan(connection: Connection, path: str) -> None:
    """Have the server count objects and bytes of a domain anew, and wait for it."""
    await connection.call("PUT", "/", domain=path, params={"rescan": "1"})


async def _delete(connection: Connection, path: str, *, keep_root: bool) -> None:
    try:
        await connection.call("DELETE", "/", domain=path, body={"keep_root": 1} if keep_root else None)
    except NotFound:
        return  # a lost answer, asked again; or somebody else was faster


def _domain(path: str, found: Reader) -> Domain:
    def count(name: str) -> int:
        return int(found.number(name, 0.0))

    return Domain(
        path=path,
        root=found.text("root", ""),
        owner=found.text("owner", ""),
        created=found.number("created", 0.0),
        modified=found.number("lastModified", 0.0),
        groups=count("num_groups"),
        datasets=count("num_datasets"),
        datatypes=count("num_datatypes"),
        chunks=count("num_chunks"),
        allocated=count("allocated_bytes"),
        total=count("total_size"),
    )
