"""What is in a domain: groups, datasets and committed types made many at a time, links, attributes, values.

Whoever makes objects chooses their ids, so that every request may be sent twice: one whose answer was lost is asked
again, and what it made is found to be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from typing_extensions import Buffer

from fileserver.hdf5.hsds import domains
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import JSON, Connection
from fileserver.hdf5.hsds.reading import Reader
from planes.errors import AlreadyExists, Error, NotFound, Refused

_Item = TypeVar("_Item")
Kind = Literal["groups", "datasets", "datatypes"]

_BATCH: Final = 200
"""Objects in one request. The server makes them one by one all the same, and its answer must come in time."""

_OF_ID: Final[Mapping[str, Kind]] = {"g": "groups", "d": "datasets", "t": "datatypes"}


@dataclass(frozen=True, slots=True)
class Slab:
    """A hyperslab: from `start` up to `stop`, by `step`, in one dimension."""

    start: int
    stop: int
    step: int = 1


def kind_of(object_id: str) -> Kind:
    """What an id is of, or the letter that it begins with; raises KeyError for what is neither."""
    return _OF_ID[object_id.partition("-")[0]]


async def make_domain(
    connection: Connection, path: str, root: str, *, properties: Mapping[str, JSON] | None = None
) -> bool:
    """An empty domain with the root group that is asked for; one that is there with that root is fine.

    `properties` are the creation properties of the root group. Returns whether it was not there.

    Raises:
        AlreadyExists: another domain or a folder is there.
        NotFound: the folder that it lies in is not.
    """
    body: dict[str, JSON] = {"root_id": root}
    if properties:
        body["group"] = {"creationProperties": properties}
    try:
        await connection.call("PUT", "/", domain=path, body=body)
    except AlreadyExists:
        there = await domains.find(connection, path)
        if there is not None and there.root == root:
            return False
        if there is None:  # the root was made and its name was not: a server died between the two
            msg = (
                f"{show(path)} on HSDS '{connection.name}' was half made when the server stopped: make it again, with "
                "another root"
            )
            raise AlreadyExists(msg, hsds=connection.name, domain=show(path), root=root) from None
        raise
    return True


class Objects:
    """The objects of one domain.

    Args:
        connection: to the server.
        domain: its path.
        root: its root group.
    """

    def __init__(self, connection: Connection, domain: str, root: str) -> None:
        self._connection = connection
        self._domain = domain
        self._root = root

    async def make(self, kind: Kind, items: Sequence[Mapping[str, JSON]], *, fresh: bool = False) -> None:
        """Make objects, each with its `id` and whatever else the server takes; no links.

        Those that are there already are left out. With `fresh` none is, so that nobody looks: the server would fail
        at them, as it does when it has lost something.

        Raises:
            Refused: the server does not take one of them; those before it may be there.
        """
        for batch in _batches(items):
            if not fresh and len(batch) > 1 and not await self._is_missing(str(batch[0]["id"])):
                await self._make_missing(kind, batch)
                continue
            try:
                await self._connection.call("POST", f"/{kind}", domain=self._domain, body=batch)
            except (AlreadyExists, Refused) as error:
                # The server does not say which one it is about, nor whether it is there already: 400, 409 and, of
                # several, 500 may all mean that (seen with 1.0.2). Ids are new, so what is there was sent before.
                await self._make_each(kind, batch, error)

    async def _make_each(self, kind: Kind, items: Sequence[Mapping[str, JSON]], refused: Error) -> None:
        if len(items) == 1 and await self._is_missing(str(items[0]["id"])):
            raise refused
        await self._make_missing(kind, items)

    async def _make_missing(self, kind: Kind, items: Sequence[Mapping[str, JSON]]) -> None:
        is_missing = [await self._is_missing(str(item["id"])) for item in items]
        for item in (item for item, wanted in zip(items, is_missing, strict=True) if wanted):
            await self._connection.call("POST", f"/{kind}", domain=self._domain, body=item)

    async def _is_missing(self, object_id: str) -> bool:
        try:
            await self.get(object_id)
        except NotFound:
            return True
        return False

    async def link(self, links: Mapping[str, Mapping[str, JSON]]) -> None:
        """Put links into groups: by group, by name, as the server has them (`{"id": …}`, `{"h5path": …}`).

        Raises:
            AlreadyExists: a name is taken by another link; one that is the same is fine.
        """
        for batch in _batches(list(links.items())):
            body: JSON = {"grp_ids": {group: {"links": by_name} for group, by_name in batch}}
            path = f"/groups/{self._root}/links"
            await self._connection.call("PUT", path, domain=self._domain, body=body)

    async def describe(self, attributes: Mapping[str, Mapping[str, JSON]]) -> None:
        """Put attributes on objects: by object, by name, as the server has them (type, shape, value)."""
        for batch in _batches(list(attributes.items())):
            body: JSON = {"obj_ids": {of: {"attributes": by_name} for of, by_name in batch}}
            path = f"/groups/{self._root}/attributes"
            await self._connection.call("PUT", path, domain=self._domain, params={"replace": "1"}, body=body)

    async def write(self, dataset: str, data: Buffer, slabs: Sequence[Slab] = ()) -> None:
        """Put bytes of elements, packed in C order, into a hyperslab of a dataset, or all of it. Not stored yet."""
        path = f"/datasets/{dataset}/value"
        await self._connection.call("PUT", path, domain=self._domain, params=_select(slabs), data=data)

    async def read(self, dataset: str, slabs: Sequence[Slab] = ()) -> bytes:
        """The bytes of a hyperslab of a dataset, or of all of it, packed in C order; vlen as the server packs it."""
        path = f"/datasets/{dataset}/value"
        answer = await self._connection.call("GET", path, domain=self._domain, params=_select(slabs), wants_bytes=True)
        return answer.content

    async def get(self, object_id: str, *, links: bool = False, attributes: bool = False) -> Reader:
        """What the server says of an object; raises NotFound."""
        params = ({"include_links": "1"} if links else {}) | ({"include_attrs": "1"} if attributes else {})
        path = f"/{kind_of(object_id)}/{object_id}"
        answer = await self._connection.call("GET", path, domain=self._domain, params=params)
        return Reader(answer.asked, answer.json())

    async def raw(self, object_id: str, *, links: bool = False) -> Mapping[str, JSON]:
        """All that the server says of an object, its attributes among it; raises NotFound."""
        params = {"include_attrs": "1"} | ({"include_links": "1"} if links else {})
        path = f"/{kind_of(object_id)}/{object_id}"
        return (await self._connection.call("GET", path, domain=self._domain, params=params)).json()

    async def drop(self, object_id: str) -> None:
        """Remove an object that no link leads to."""
        try:
            await self._connection.call("DELETE", f"/{kind_of(object_id)}/{object_id}", domain=self._domain)
        except NotFound:
            return  # a lost answer, asked again


def _select(slabs: Sequence[Slab]) -> dict[str, str]:
    """A selection as the server writes it: `[0:10,5:50:5]`; none is everything."""
    if not slabs:
        return {}
    parts = (f"{s.start}:{s.stop}" + (f":{s.step}" if s.step != 1 else "") for s in slabs)
    return {"select": f"[{','.join(parts)}]"}


def _batches(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
