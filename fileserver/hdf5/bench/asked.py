"""What the command line asks of the write test, as one JSON document; see `fileserver.hdf5.bench.__main__`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fileserver.hdf5.bench.field import Cut


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    where: str
    """`hdf5://…` or the absolute path of a file."""
    target: str = ""
    """The HSDS server of the configuration; the first if empty."""
    config: Path | None = None


class Create(_Asked):
    """Make a test."""

    verb: Literal["create"]
    rows: int
    columns: int
    chunk: tuple[int, int]
    cut: Cut
    seed: int
    overwrite: bool = False


class Write(_Asked):
    """Be one of its writers."""

    verb: Literal["write"]
    lease: float = Field(gt=0)
    most: int = Field(ge=0)
    wait: bool = True


class Status(_Asked):
    """Look at it."""

    verb: Literal["status"]
    verify: bool = False
    blocks: bool = False
    plot: Path | None = None


Asked = Annotated[Create | Write | Status, Field(discriminator="verb")]
READER: TypeAdapter[Asked] = TypeAdapter(Asked)
