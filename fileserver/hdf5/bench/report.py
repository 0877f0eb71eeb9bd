"""What the table of a write test says: how far it is, and how fast everybody was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fileserver.hdf5.bench.field import Field
from fileserver.hdf5.bench.site import Rows, State


@dataclass(frozen=True, slots=True)
class Share:
    """What one writer did."""

    writer: str
    blocks: int
    bytes: int
    seconds: float
    """Of its writes alone."""
    holds: int
    """Blocks that it has, and has not written yet."""

    @property
    def rate(self) -> float:
        """Bytes a second while it wrote."""
        return self.bytes / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """The whole test."""

    pending: int
    taken: int
    done: int
    bytes: int
    """Of the blocks that are done."""
    seconds: float
    """From the begin of the first write to the end of the last, by the clocks of the writers."""
    taken_over: int
    """Blocks whose first writer showed no sign of life any more."""
    shares: tuple[Share, ...]

    @property
    def rate(self) -> float:
        """Bytes a second of all writers together."""
        return self.bytes / self.seconds if self.seconds else 0.0


def report(field: Field, rows: Rows) -> Report:
    """What a table says."""
    done = rows[rows["state"] == State.DONE]
    taken = rows[rows["state"] == State.TAKEN]
    seconds = float((done["start"] + done["seconds"]).max() - done["start"].min()) if len(done) else 0.0
    names = sorted({bytes(name) for name in np.concatenate([done["writer"], taken["writer"]])})
    shares = tuple(_share(field, name, done, taken) for name in names)
    return Report(
        pending=int((rows["state"] == State.PENDING).sum()),
        taken=len(taken),
        done=len(done),
        bytes=sum(share.bytes for share in shares),
        seconds=seconds,
        taken_over=int((rows["claims"] > 1).sum()),
        shares=shares,
    )


def _share(field: Field, writer: bytes, done: Rows, taken: Rows) -> Share:
    mine = done[done["writer"] == writer]
    return Share(
        writer=writer.decode(errors="replace"),
        blocks=len(mine),
        bytes=sum(field.block(int(number)).size for number in mine["block"]),
        seconds=float(mine["seconds"].sum()),
        holds=int((taken["writer"] == writer).sum()),
    )
