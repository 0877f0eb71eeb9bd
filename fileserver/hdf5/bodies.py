"""The JSON that describes one object of an open file: stored in a bucket, sent to a server, expected from it."""

from __future__ import annotations

import h5py

from fileserver.hdf5 import describe, read
from fileserver.hdf5.elements import Pointing
from fileserver.hdf5.model import Node, Outline, Trouble
from fileserver.hdf5.outline import Opened
from fileserver.hdf5.routes import Plan


def body(
    file: h5py.File,
    frame: describe.Frame,
    outline: Outline,
    node: Node,
    plan: Plan | None,
    to: Pointing,
    troubles: list[Trouble],
    opened: Opened | None = None,
) -> bytes:
    """One object as HSDS stores it; `plan` is of a dataset, `troubles` gets what does not arrive as it is.

    Raises:
        NotHeld: HSDS has no type like its.
    """
    if node.kind == "g":
        return describe.group_json(frame, read.group(file, outline, node, to, troubles, opened))
    if node.kind == "t":
        return describe.datatype_json(frame, read.datatype(file, node, to, troubles))
    assert plan is not None, "a dataset has one"
    return describe.dataset_json(frame, read.dataset(file, node, to, troubles), plan)
