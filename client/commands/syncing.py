"""sync: what is missing or different below one folder, copied below another."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands import options
from client.commands.moving import run_transfer
from client.errors import Exit
from client.places import Places, Problems, check_places, read_priority, read_verify
from client.session import Session, command
from client.words import Kind, WordError, kind_of

if TYPE_CHECKING:
    from fileserver.v1.transfer_pb2 import TransferSpec

_EPILOG = """Examples:

\b
  cropduster sync ./photos cloud:photos
  cropduster sync cloud:in/ data:in/ --include '*.csv' --exclude 'old/**'
  cropduster sync cloud:in/ backup:in/ --delete --dry-run
  cropduster sync ./www cloud:www --delete --max-delete 50

SOURCE and TARGET are folders: directories of this machine, or PLANE:PREFIX (PLANE: is all of a plane). An object is
copied if the target has none of its name, or one of another size, or an older one. Of the last kind those are left
alone whose checksums, kept by the store or computed from the file, show that nothing but the time has changed.
Nothing is deleted without --delete, and then at the end, and only if everything was copied.

GLOB is for the last element of a name, at any depth; one with a / in it is for the whole name relative to the folder.
* and ? stop at /, ** does not; [a-z] and [!a-z] are one character. What is filtered out is neither copied nor deleted,
nor is what --files-from does not name. A name in that list that SOURCE has not is a failure; with --delete TARGET loses
it, too.

Objects that cannot be copied are listed at the end, with exit code 11; the same command tries them again.
"""


def enter(app: typer.Typer) -> None:
    """Enter the command of this module."""
    command(app, "sync", epilog=_EPILOG)(sync)


def sync(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The folder to copy from.", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The folder to copy to.", show_default=False)],
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only what matches this; can be given again.")
    ] = None,
    exclude: options.Exclude = None,
    files_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Only what this file names, one name relative to the folder a line."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what TARGET has and SOURCE has not.")] = False,
    max_delete: Annotated[
        str | None, typer.Option(metavar="N", help="Refuse to delete more than N objects instead of 1000.")
    ] = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Compare the contents of what has the same size, whatever the times say.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be copied and deleted, and write nothing.")
    ] = False,
    no_wait: options.NoWait = False,
    verify: options.Verify = None,
    priority: options.Priority = None,
) -> Exit | None:
    """Copy what is missing or different from one folder to another."""
    problems = Problems()
    check_places("SOURCE", [source], problems, "name a folder")
    check_places("TARGET", [target], problems, "name a folder")
    for field, word in (("SOURCE", source), ("TARGET", target)):
        if kind_of(word) is Kind.STREAM:
            problems.say(field, "- is no folder")
    if files_from is not None:
        check_places("--files-from", [files_from], problems, "write the list to a file")
    most = problems.parse("--max-delete", _parse_most, max_delete, None)
    if max_delete is not None and not delete:
        problems.say("--max-delete", "it has no meaning without --delete")
    read = read_verify(verify, problems)
    turn = read_priority(priority, problems)
    problems.check()

    from client import specs  # noqa: PLC0415  # protobuf, only after the words are known to be right

    places = Places(lambda: [plane.name for plane in session.client.list_planes().planes])
    spec = specs.sync(
        places.find(source),
        places.find(target),
        include=include or (),
        exclude=exclude or (),
        names=places.find(files_from) if files_from is not None else None,
        delete=delete,
        max_delete=most,
        checksum=checksum,
        verify_read=read,
    )
    spec.priority = turn
    if dry_run:
        _show_plan(session, spec)
        return None
    return run_transfer(session, spec, no_wait=no_wait)


def _parse_most(text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", text):
        msg = f"'{text}' is not a whole number; 0 refuses any deletion"
        raise WordError(msg)
    return int(text)


def _show_plan(session: Session, spec: TransferSpec) -> None:
    """List what a sync would do, as it comes."""
    from client import phrases, shapes  # noqa: PLC0415  # loaded with the client already

    pages = session.client.plan_sync(spec)
    first = next(pages)
    session.show.listing(
        "objects",
        (each for page in chain([first], pages) for each in page.objects),
        shapes.planned_object,
        ("action", "why", ">bytes", "key"),
        lambda each: (each.action, each.why, f"{each.size:,}", each.key),
        head={"totals": shapes.sync_totals(first.totals), "warnings": list(first.warnings)},
    )
    if not session.show.as_json:
        session.show.line(phrases.planned_sync(first.totals))
    for warning in first.warnings:
        session.show.note(f"warning: {warning}")
