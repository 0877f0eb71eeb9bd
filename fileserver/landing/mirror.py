"""The arrivals of a watch as a table in HSDS, with the columns that hsds-bucket-loader's inventory has, and more.

It is a copy for readers, made on request: what is done with the arrivals never depends on it. It is written beside the
domain and takes its place when it is whole.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Final

import numpy as np

from fileserver.hdf5 import ids
from fileserver.hdf5.hsds import domains, publish
from fileserver.hdf5.hsds.address import parent
from fileserver.hdf5.hsds.connection import JSON, Connection
from fileserver.hdf5.hsds.objects import Objects, Slab, make_domain
from fileserver.landing.watch import Arrival, State

DATASET: Final = "inventory"
_ROWS: Final = 1000  # of an HDF5 chunk
_STATUS: Final = {State.RUNNING: -1, State.FAILED: 1}
"""The bucket loader's: -1 runs, else the return code of the load."""
_NUMBERS: Final = {
    "loadstart": "H5T_STD_I64LE",
    "loaddone": "H5T_STD_I64LE",
    "loadstatus": "H5T_STD_I32LE",
    "size": "H5T_STD_I64LE",
    "tries": "H5T_STD_I32LE",
}
_TEXTS: Final = ("filename", "loadpodname", "state", "version", "error")


async def mirror(connection: Connection, path: str, pages: Callable[[], AsyncIterator[list[Arrival]]]) -> int:
    """Write the arrivals into the domain at `path`, whatever domain is there; how many there are.

    Args:
        connection: to the server.
        path: of the domain; missing folders above it are made.
        pages: gives all arrivals; asked twice, because texts are as long as the longest.

    Raises:
        AlreadyExists: a folder is there.
        CallerDenied, Unavailable: what the server says.
    """
    longest, count = dict.fromkeys(_TEXTS, 1), 0
    async for page in pages():
        count += len(page)
        for each in page:
            for name, text in _texts(each).items():
                longest[name] = max(longest[name], len(text))
    if parent(path) != "/":
        await domains.make_folder(connection, parent(path), parents=True, exist_ok=True)
    load = uuid.uuid4().hex
    staging, root = f"{path}.~{load[:12]}", ids.root_id(load)
    try:
        await make_domain(connection, staging, root)
        written = await _write(connection, staging, root, longest, count, pages)
        await domains.flush(connection, staging)
        plan = await publish.prepare(connection, path, staging, overwrite=True)
        await publish.publish(connection, plan)
    except BaseException:  # also a cancelled call: nothing half-made stays under another name
        if await domains.find(connection, staging) is not None:
            await domains.delete(connection, staging)
        raise
    return written


async def _write(
    connection: Connection,
    staging: str,
    root: str,
    longest: dict[str, int],
    count: int,
    pages: Callable[[], AsyncIterator[list[Arrival]]],
) -> int:
    """The dataset and its rows, as many as were counted: what arrives meanwhile is for the next time."""
    objects, dataset = Objects(connection, staging, root), ids.object_id(root, "d", DATASET)
    made: JSON = {"class": "H5D_CHUNKED", "dims": [_ROWS]}
    body: dict[str, JSON] = {"id": dataset, "type": _type(longest), "shape": [count], "maxdims": [0]}
    await objects.make("datasets", [body | {"creationProperties": {"layout": made}}])
    await objects.link({root: {DATASET: {"id": dataset}}})
    kind, start = _dtype(longest), 0
    async for page in pages():
        rows = np.array([_row(each) for each in page[: count - start]], dtype=kind)
        if len(rows):
            await objects.write(dataset, rows.tobytes(), [Slab(start, start + len(rows))])
        start += len(rows)
    return start


def _row(each: Arrival) -> tuple[int | bytes, ...]:
    """The values in order of the columns."""
    texts = _texts(each)
    numbers = (int(each.started or 0), int(each.ended or 0), _STATUS.get(each.state, 0), each.size, each.tries)
    return (texts["filename"], *numbers, *(texts[name] for name in _TEXTS[1:]))


def _texts(each: Arrival) -> dict[str, bytes]:
    """As UTF-8. Where the loader names the pod that loads, we have the transfer."""
    texts = {
        "filename": each.key,
        "loadpodname": f"transfers/{each.transfer}" if each.transfer else "",
        "state": each.state.value,
        "version": each.version,
        "error": str(each.error["message"]) if each.error else "",
    }
    return {name: text.encode() for name, text in texts.items()}


def _dtype(longest: dict[str, int]) -> np.dtype[np.void]:
    numbers = [(name, "<i4" if "I32" in kind else "<i8") for name, kind in _NUMBERS.items()]
    texts = [(name, f"S{longest[name]}") for name in _TEXTS]
    return np.dtype([texts[0], *numbers, *texts[1:]])


def _type(longest: dict[str, int]) -> JSON:
    numbers: list[tuple[str, JSON]] = [
        (name, {"class": "H5T_INTEGER", "base": kind}) for name, kind in _NUMBERS.items()
    ]
    texts: list[tuple[str, JSON]] = [
        (
            name,
            {
                "class": "H5T_STRING",
                "charSet": "H5T_CSET_ASCII",  # what h5py makes of bytes; readers decode UTF-8 themselves
                "strPad": "H5T_STR_NULLPAD",
                "length": longest[name],
            },
        )
        for name in _TEXTS
    ]
    return {"class": "H5T_COMPOUND", "fields": [{"name": n, "type": k} for n, k in (texts[0], *numbers, *texts[1:])]}
