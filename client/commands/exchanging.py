"""hdf5 diff, get, copy, relink: HDF5 files and domains of HSDS beside each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from client.commands import options
from client.errors import Exit
from client.places import Problems, check_places, find_all
from client.session import Session, command

if TYPE_CHECKING:
    from client.shapes import JSON
    from fileserver.v1.exchange_pb2 import (
        CompareDomainResponse,
        Copied,
        CopyDomainResponse,
        Difference,
        ExportDomainResponse,
        Exported,
    )

_Answer = TypeVar("_Answer", "ExportDomainResponse", "CopyDomainResponse")
_DEPTHS = ("none", "sample", "full")
_VERIFIED = ("none", "metadata", "sample", "full")

_VERIFY = Annotated[
    str,
    typer.Option(metavar="none|metadata|sample|full", help="How much is compared before the result is seen."),
]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "diff")(diff)
    command(app, "get")(get)
    command(app, "copy")(copy)
    command(app, "relink")(relink)


def diff(
    session: Session,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="An HDF5 file: a path or PLANE:KEY.", show_default=False)
    ],
    domain: Annotated[str, typer.Argument(metavar="hdf5://FOLDER/NAME", help="A domain.", show_default=False)],
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="none|sample|full",
            help="How much of the data is compared; a sample is the first and last block of a dataset and two more.",
        ),
    ] = "sample",
    target: options.Hsds = "",
) -> Exit | None:
    """Compare an HDF5 file with a domain as its server gives it; exit code 9 if anything is different.

    The file is compared as HSDS can hold it: what a load has to map is no difference.
    """
    problems = Problems()
    check_places("SOURCE", [source], problems, "an HDF5 file")
    if data not in _DEPTHS:
        problems.say("--data", f"'{data}' is none of none, sample and full")
    problems.check()
    from client import phrases  # noqa: PLC0415  # protobuf, not for help
    from client.exchange import Exchange, compared, shape  # noqa: PLC0415  # the same

    [place] = find_all(session, [source])
    answers = Exchange(session.client, target).compare(place, domain, data)
    last: list[CompareDomainResponse] = []
    differ = 0

    def found() -> Iterator[Difference]:
        nonlocal differ
        for answer in answers:
            differ += len(answer.differences)
            yield from answer.differences
            last[:] = [answer]

    if session.show.as_json:
        listed: list[JSON] = [shape(each) for each in found()]
        session.show.object({"differences": listed, "compared": compared(last[0].compared)})
    else:
        _table(session, found(), source, domain)
        total = last[0].compared
        words = f"{phrases.count(total.objects, 'object')}, {phrases.count(total.attributes, 'attribute')}"
        words += f", {phrases.size(total.bytes)} of data compared: "
        session.show.line(words + (phrases.count(differ, "difference") if differ else "no difference"))
    return Exit.CORRUPT if differ else None


def _table(session: Session, found: Iterator[Difference], *sides: str) -> None:
    """What differs, if anything does."""
    first = list(islice(found, 1))
    if first:
        rows = ((each.what, each.path, each.left or "-", each.right or "-") for each in chain(first, found))
        session.show.table(("what", "path", *sides), rows)


def get(
    session: Session,
    domain: Annotated[str, typer.Argument(metavar="hdf5://FOLDER/NAME", help="A domain.", show_default=False)],
    file: Annotated[
        str, typer.Argument(metavar="TARGET.h5", help="Where the file goes: a path or PLANE:KEY.", show_default=False)
    ],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    verify: _VERIFY = "sample",
    target: options.Hsds = "",
) -> Exit | None:
    """Write a domain of HSDS as an HDF5 file, read through its server; the file is seen when all of it is there.

    Exit code 11 if something of the domain is left out; what and why is shown. Interrupted, it leaves nothing behind.
    """
    problems = Problems()
    check_places("TARGET.h5", [file], problems, "the file to write")
    if file == "-":
        problems.say("TARGET.h5", "HDF5 is not written as a stream: name a file (one of that name: ./-)")
    _check_verify(verify, problems)
    problems.check()
    from client import phrases  # noqa: PLC0415  # protobuf, not for help
    from client.exchange import Exchange, exported  # noqa: PLC0415  # the same

    [place] = find_all(session, [file])
    answers = Exchange(session.client, target).export(domain, place, verify=verify, overwrite=overwrite)
    last = _awaited(session, answers)
    done = last.exported
    if session.show.as_json:
        session.show.object(exported(last))
    else:
        words = f"{file}: {phrases.count(last.objects_done, 'object')}, {phrases.size(done.size)}, "
        session.show.line(words + _told(session, done))
    return Exit.EXCEPTIONS if _left_out(done) else None


def copy(
    session: Session,
    domain: Annotated[str, typer.Argument(metavar="hdf5://FOLDER/NAME", help="A domain.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="hdf5://NEW/NAME", help="Address of the copy.", show_default=False)],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the domain that is there.")] = False,
    verify: _VERIFY = "sample",
    target: options.Hsds = "",
    to_target: Annotated[
        str,
        typer.Option(metavar="NAME", help="The HSDS server of the copy; the same if not given.", show_default=False),
    ] = "",
) -> Exit | None:
    """Copy a domain, also to another HSDS server; the copy is seen when all of it is there and has been compared.

    The server of the copy needs its bucket as a plane (`storage`). Permissions are those of the folder of the copy.
    """
    problems = Problems()
    _check_verify(verify, problems)
    problems.check()
    from client import phrases  # noqa: PLC0415  # protobuf, not for help
    from client.exchange import Exchange, copied  # noqa: PLC0415  # the same

    answers = Exchange(session.client, target).copy(
        domain, new, new_target=to_target, verify=verify, overwrite=overwrite
    )
    last = _awaited(session, answers)
    if session.show.as_json:
        session.show.object(copied(last))
    else:
        words = f"{new}: {phrases.count(last.objects_done, 'object')}, {phrases.size(last.bytes)} of data, "
        session.show.line(words + _told(session, last.copied))
    return Exit.EXCEPTIONS if _left_out(last.copied) else None


def _check_verify(verify: str, problems: Problems) -> None:
    if verify not in _VERIFIED:
        problems.say("--verify", f"'{verify}' is none of none, metadata, sample and full")


def _awaited(session: Session, answers: Iterator[_Answer]) -> _Answer:
    """The last answer; on a terminal each one tells how far it is."""
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    last = next(answers)
    for last in answers:
        if sys.stderr.isatty():
            session.show.note(
                f"{last.objects_done} of {last.objects_found} objects, {phrases.size(last.bytes)} of data"
            )
    return last


def _told(session: Session, done: Exported | Copied) -> str:
    """Show what is not as in the domain; how much was compared."""
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    for each in done.exceptions:
        session.show.line(f"{each.what}: {each.path} {each.reason}")
    checked = f"{phrases.size(done.compared.bytes)} of data compared with the domain"
    return checked if done.HasField("compared") else "not compared"


def _left_out(done: Exported | Copied) -> bool:
    return any(each.what != "mapped" for each in done.exceptions)


def relink(
    session: Session,
    domain: Annotated[str, typer.Argument(metavar="hdf5://FOLDER/NAME", help="A domain.", show_default=False)],
    *,
    old: Annotated[
        str,
        typer.Option("--from", metavar="URI", help="How the links begin that are to change.", show_default=False),
    ],
    new: Annotated[str, typer.Option("--to", metavar="URI", help="How they begin afterwards.", show_default=False)],
    target: options.Hsds = "",
) -> None:
    """Let a linked domain lead to its sources again after they have moved.

    Links are as HSDS has them: s3://bucket/folder/name, or bucket/folder/name where its storage is a file system. HSDS
    reads a file that is not there as fill values, so compare with `hdf5 diff` afterwards.
    """
    from client import phrases  # noqa: PLC0415  # protobuf, not for help
    from client.exchange import Exchange  # noqa: PLC0415  # the same

    done = Exchange(session.client, target).relink(domain, old, new)
    if session.show.as_json:
        session.show.object({"domain": domain, "root": done.root, "datasets": done.datasets})
    else:
        session.show.line(f"{domain}: {phrases.count(done.datasets, 'dataset')} linked to {new}")
