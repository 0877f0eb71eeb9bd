"""A write test on an HSDS server.

Its table is one HDF5 chunk, so one data node has it, and `PUT value?query=…&Limit=1` changes rows there: unlike
h5pyd's `update_where`, which looks and changes in two requests, so that two writers get the same row.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

import numpy as np

from fileserver.hdf5 import ids
from fileserver.hdf5.bench.field import Block, Field, Values
from fileserver.hdf5.bench.site import ATTRIBUTE, DATA, ROW, TABLE, Match, Rows, fresh, from_text, no_test, to_text
from fileserver.hdf5.hsds import domains, objects
from fileserver.hdf5.hsds.address import show
from fileserver.hdf5.hsds.connection import JSON, Connection
from fileserver.hdf5.hsds.objects import Objects, Slab
from planes.errors import AlreadyExists, NotFound

_F8: Final[JSON] = {"class": "H5T_FLOAT", "base": "H5T_IEEE_F64LE"}
_I4: Final[JSON] = {"class": "H5T_INTEGER", "base": "H5T_STD_I32LE"}
_FEWEST: Final = 2  # rows of the table: in one of a single row the server finds nothing by a query (seen with 1.0.2)
_NOBODYS: Final = -1  # state of a row that stands for no block
_TEXT: Final[JSON] = {"class": "H5T_STRING", "charSet": "H5T_CSET_ASCII", "length": "H5T_VARIABLE"}


class HsdsSite:
    """An opened test in a domain.

    Args:
        connection: to the server; closed with the site.
        path: of the domain.
        root: its root group.
        field: what is written.
    """

    def __init__(self, connection: Connection, path: str, root: str, field: Field) -> None:
        self._connection = connection
        self._path = path
        self._inside = Objects(connection, path, root)
        self._data, self._table = _datasets(root)
        self._field = field

    @property
    def field(self) -> Field:
        """What is written."""
        return self._field

    async def change(self, match: Match, values: Match, *, most: int = 0) -> int:
        """See Site; raises what `Connection.call` does."""
        params = {"query": _query(match)} | ({"Limit": str(most)} if most else {})
        answer = await self._connection.call(
            "PUT", self._value, domain=self._path, params=params, body=dict(values), wants_bytes=True
        )
        return len(answer.content) // np.dtype("i8").itemsize  # the places of the rows, one number each

    async def rows(self, match: Match | None = None) -> Rows:
        """See Site; raises what `Connection.call` does."""
        params = {"query": _query(match)} if match else {}
        answer = await self._connection.call("GET", self._value, domain=self._path, params=params, wants_bytes=True)
        return np.frombuffer(answer.content, ROW)[: self._field.blocks]  # what matches stands for a block

    async def write(self, block: Block, values: Values) -> None:
        """See Site; raises what `Connection.call` does."""
        slabs = [Slab(block.row, block.row + block.rows), Slab(block.column, block.column + block.columns)]
        await self._inside.write(self._data, values.data, slabs)

    async def flush(self) -> None:
        """See Site; raises what `domains.flush` does."""
        await domains.flush(self._connection, self._path)

    async def aclose(self) -> None:
        """Release the connection."""
        await self._connection.aclose()

    @property
    def _value(self) -> str:
        return f"/datasets/{self._table}/value"


async def make(connection: Connection, path: str, field: Field, *, overwrite: bool) -> None:
    """Make a test in a new domain; one that fails half-way is removed.

    Args:
        connection: to the server.
        path: of the domain.
        field: what will be written.
        overwrite: remove a write test that is there.

    Raises:
        AlreadyExists: something is there, and it is no write test or was not to be replaced.
    """
    if (there := await domains.find(connection, path)) is not None:
        if not overwrite or there.is_folder or await _described(connection, path, there.root) is None:
            msg = f"{show(path)} on HSDS '{connection.name}' is there already"
            way_out = ": use --overwrite" if not overwrite else ", and is no write test: choose another name"
            raise AlreadyExists(msg + way_out, hsds=connection.name, domain=show(path))
        await domains.delete(connection, path)
    root = ids.root_id(f"bench {secrets.token_hex(16)}")
    await objects.make_domain(connection, path, root)
    try:
        await _fill(Objects(connection, path, root), root, field)
        await domains.flush(connection, path)
    except BaseException:  # whatever stopped us: nobody shall take what is there for a test
        await domains.delete(connection, path)
        raise


async def _fill(inside: Objects, root: str, field: Field) -> None:
    data, table = _datasets(root)
    rows = _table(field)
    await inside.make(
        "datasets",
        [
            _dataset(data, _F8, (field.rows, field.columns), field.chunk),
            _dataset(table, _row_type(), rows.shape, rows.shape),
        ],
    )
    await inside.link({root: {DATA: {"id": data}, TABLE: {"id": table}}})
    await inside.write(table, rows.tobytes())
    await inside.describe({root: {ATTRIBUTE: {"type": _TEXT, "shape": [], "value": to_text(field)}}})


async def opened(connection: Connection, path: str) -> HsdsSite:
    """Open a test.

    Raises:
        InvalidSpec: what is there is none.
        NotFound: nothing is there.
    """
    there = await domains.stat(connection, path)
    text = None if there.is_folder else await _described(connection, path, there.root)
    where = f"{show(path)} on HSDS '{connection.name}'"
    if text is None:
        raise no_test(where)
    return HsdsSite(connection, path, there.root, from_text(text, where))


async def _described(connection: Connection, path: str, root: str) -> str | None:
    try:
        answer = await connection.call("GET", f"/groups/{root}/attributes/{ATTRIBUTE}", domain=path)
    except NotFound:
        return None
    value = answer.json().get("value")
    return value if isinstance(value, str) else ""


def _datasets(root: str) -> tuple[str, str]:
    return ids.object_id(root, "d", DATA), ids.object_id(root, "d", TABLE)


def _dataset(made: str, kind: JSON, shape: tuple[int, ...], chunk: tuple[int, ...]) -> Mapping[str, JSON]:
    layout: JSON = {"layout": {"class": "H5D_CHUNKED", "dims": chunk}}
    return {"id": made, "type": kind, "shape": shape, "creationProperties": layout}


def _table(field: Field) -> Rows:
    """The table of a test that nobody has begun, filled up with rows that no query of ours matches."""
    more = np.zeros(max(0, _FEWEST - field.blocks), ROW)
    more["state"] = more["block"] = _NOBODYS
    return np.concatenate([fresh(field), more])


def _row_type() -> JSON:
    kinds: Mapping[str, JSON] = {"i": _I4, "f": _F8}
    fields = []
    for name in ROW.names or ():
        of = ROW[name]
        text: JSON = {
            "class": "H5T_STRING",
            "charSet": "H5T_CSET_ASCII",
            "strPad": "H5T_STR_NULLPAD",
            "length": of.itemsize,
        }
        fields.append({"name": name, "type": kinds.get(of.kind, text)})
    return {"class": "H5T_COMPOUND", "fields": fields}


def _query(match: Match) -> str:
    """The server's language; our texts hold no quotes."""
    return " & ".join(
        f"({name} == b'{value}')" if isinstance(value, str) else f"({name} == {value})" for name, value in match.items()
    )
