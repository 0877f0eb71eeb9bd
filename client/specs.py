"""From plain words to the messages of a request. Pure; the words are checked before they come here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from client.words import Csv, Fixed, Format, Location
from fileserver.v1 import transfer_pb2 as wire

_SPLITS: Final = {
    "": wire.Csv.SPLIT_UNSPECIFIED,
    "deduce": wire.Csv.SPLIT_DEDUCE,
    "exact": wire.Csv.SPLIT_EXACT,
    "terminator": wire.Csv.SPLIT_TERMINATOR,
}
_INGEST_MODES: Final = {
    "auto": wire.Ingest.MODE_UNSPECIFIED,
    "direct": wire.Ingest.MODE_DIRECT,
    "rest": wire.Ingest.MODE_REST,
    "link": wire.Ingest.MODE_LINK,
}
_INGEST_LEVELS: Final = {
    "auto": wire.Ingest.VERIFY_UNSPECIFIED,
    "none": wire.Ingest.VERIFY_NONE,
    "metadata": wire.Ingest.VERIFY_METADATA,
    "sample": wire.Ingest.VERIFY_SAMPLE,
    "full": wire.Ingest.VERIFY_FULL,
}


def location(place: Location) -> wire.Location:
    """A place on the wire."""
    return wire.Location(plane=place.plane, key=place.key)


def order(*, natural: bool) -> wire.Spray.Order.ValueType:
    """How the objects that a wildcard finds are ordered."""
    return wire.Spray.ORDER_NATURAL if natural else wire.Spray.ORDER_UNSPECIFIED


def record_format(chosen: Format | None) -> wire.Format | None:
    """A format on the wire; None stays unset."""
    match chosen:
        case None:
            return None
        case Fixed(record_size):
            return wire.Format(fixed=wire.Fixed(record_size=record_size))
        case Csv():
            return wire.Format(
                csv=wire.Csv(
                    separators=chosen.separators,
                    terminators=chosen.terminators,
                    quotes=chosen.quotes or (),
                    escapes=chosen.escapes,
                    no_quote=chosen.quotes is None,
                    max_record=chosen.max_record,
                    split=_SPLITS[chosen.split],
                )
            )


def spray(
    sources: Sequence[Location],
    file: str,
    *,
    plane: str = "",
    parts: int = 0,
    part_size: int = 0,
    record: Format | None = None,
    natural: bool = False,
    no_split: bool = False,
    overwrite: bool = False,
    verify_read: bool = False,
) -> wire.TransferSpec:
    """One file or many into the parts of a logical file; sizes in bytes, 0 leaves the choice to the plane."""
    asked = wire.Spray(
        sources=[location(s) for s in sources],
        file=file,
        plane=plane,
        parts=parts,
        part_size=part_size,
        format=record_format(record),
        order=order(natural=natural),
        no_split=no_split,
    )
    return wire.TransferSpec(spray=asked, overwrite=overwrite, verify_read=verify_read)


def despray(
    file: str,
    target: Location,
    *,
    sources: Sequence[Location] = (),
    overwrite: bool = False,
    verify_read: bool = False,
) -> wire.TransferSpec:
    """The parts of a logical file back into one object; with `sources`, and no file, those joined into it."""
    asked = wire.Despray(file=file, target=location(target), sources=[location(s) for s in sources])
    return wire.TransferSpec(despray=asked, overwrite=overwrite, verify_read=verify_read)


def copy(
    file: str,
    new_file: str,
    *,
    plane: str = "",
    parts: int = 0,
    part_size: int = 0,
    overwrite: bool = False,
    verify_read: bool = False,
) -> wire.TransferSpec:
    """A logical file into another; with parts and part size 0 the parts stay as they are."""
    asked = wire.Copy(file=file, new_file=new_file, plane=plane, parts=parts, part_size=part_size)
    return wire.TransferSpec(copy=asked, overwrite=overwrite, verify_read=verify_read)


def replicate(file: str, plane: str, *, overwrite: bool = False, verify_read: bool = False) -> wire.TransferSpec:
    """Another copy of the same parts on another plane."""
    asked = wire.Replicate(file=file, plane=plane)
    return wire.TransferSpec(replicate=asked, overwrite=overwrite, verify_read=verify_read)


def sync(
    source: Location,
    target: Location,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    names: Location | None = None,
    delete: bool = False,
    max_delete: int | None = None,
    checksum: bool = False,
    verify_read: bool = False,
) -> wire.TransferSpec:
    """What is missing or different below one folder, copied below another; `names` is a list of relative keys."""
    asked = wire.Sync(
        source=location(source),
        target=location(target),
        include=include,
        exclude=exclude,
        names=location(names) if names else None,
        delete=delete,
        max_delete=max_delete or 0,
        refuse_delete=max_delete == 0,
        checksum=checksum,
    )
    return wire.TransferSpec(sync=asked, verify_read=verify_read)


def ingest(
    sources: Sequence[Location],
    domain: str,
    *,
    target: str = "",
    mode: str = "auto",
    verify: str = "auto",
    no_folders: bool = False,
    public_read: bool = False,
    overwrite: bool = False,
    extend: str = "",
    skip_bad: bool = False,
) -> wire.TransferSpec:
    """HDF5 files into a domain, or into the folder that an address with / at its end is.

    With `extend`, the name or path of a dimension, all of them into one domain, joined along that; with `skip_bad` all
    that can be joined.
    """
    asked = wire.Ingest(
        sources=[location(s) for s in sources],
        domain=domain,
        target=target,
        mode=_INGEST_MODES[mode],
        verify=_INGEST_LEVELS[verify],
        no_folders=no_folders,
        public_read=public_read,
        aggregate=wire.Aggregate(dimension=extend, skip_bad=skip_bad) if extend else None,
    )
    return wire.TransferSpec(ingest=asked, overwrite=overwrite)
