"""A linked domain whose sources have moved: the same domain once more, under another root, with other links."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from fileserver.hdf5 import describe, ids
from fileserver.hdf5.carrying import Carrying
from fileserver.hdf5.hsds import acls, domains, publish
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.types import Json
from fileserver.hdf5.unpublished import publishing
from planes.errors import Refused
from planes.plane import Plane

_NAMED: Final = 3  # links that an error names


@dataclass(frozen=True, slots=True)
class Relinked:
    """A domain that leads to other files now."""

    root: str
    datasets: int
    """Whose links are others now."""


@dataclass(slots=True)
class Relinking:
    """One domain.

    Args:
        connection: to the server.
        bucket: the plane that is its bucket.
        old: how the links begin that are to change, like `s3://bucket/folder/`.
        new: how they begin afterwards.
    """

    connection: Connection
    bucket: Plane
    old: str
    new: str
    datasets: int = 0
    kept: set[str] = field(default_factory=set)
    """Links that do not begin so."""

    async def run(self, path: str, created: float) -> Relinked:
        """Let the domain at `path` lead to other files; readers see the old links or the new ones, never both.

        Raises:
            Refused: no link begins so; or data hold compressed references, which cannot be rewritten.
        """
        there = await domains.stat(self.connection, path)
        await domains.flush(self.connection, path)
        load = uuid4().hex
        root, staging = ids.root_id(load), f"{path}.relinking-{load[:8]}"
        async with publishing(self.connection, self.bucket, path, root, staging, replaces=True):
            await self._copy(there.root, root, load)
            self._changed(path)
            entries = {user: _stored(each) for user, each in (await acls.read(self.connection, path)).items()}
            body = describe.domain_json(root, there.owner, created, entries)
            await self.bucket.put(f"{staging[1:]}/.domain.json", body, upload_id=f"{load}-staging")
            plan = await publish.prepare(self.connection, path, staging, overwrite=True)
            await publish.publish(self.connection, plan)
        return Relinked(root, self.datasets)

    async def _copy(self, old: str, new: str, load: str) -> None:
        """Descriptions first: they tell which data hold references."""
        carrying = Carrying(self.bucket, old, new, load)
        await carrying.descriptions(self._described)
        if self.datasets:
            await carrying.data()

    def _described(self, key: str, data: bytes) -> bytes:
        if not key.endswith(".dataset.json"):
            return data
        body: dict[str, Json] = json.loads(data)
        layout = _layout(body)
        uri = layout.get("file_uri") if layout is not None else None
        if layout is None or not isinstance(uri, str):
            return data
        if not uri.startswith(self.old):
            self.kept.add(uri)
            return data
        layout["file_uri"] = self.new + uri.removeprefix(self.old)
        self.datasets += 1
        return json.dumps(body).encode()

    def _changed(self, path: str) -> None:
        if not self.datasets:
            known = ", ".join(sorted(self.kept)[:_NAMED]) or "it has no links at all"
            msg = f"no link of {show(path)} begins with {self.old} (there are: {known})"
            raise Refused(msg, hsds=self.connection.name, domain=show(path))


def _stored(each: acls.Permissions) -> Mapping[str, bool]:
    """Permissions as HSDS stores them."""
    return {
        "create": each.create,
        "read": each.read,
        "update": each.update,
        "delete": each.delete,
        "readACL": each.read_acl,
        "updateACL": each.update_acl,
    }


def _layout(body: dict[str, Json]) -> dict[str, Json] | None:
    properties = body.get("creationProperties")
    layout = properties.get("layout") if isinstance(properties, dict) else None
    return layout if isinstance(layout, dict) else None
