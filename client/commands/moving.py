"""spray, despray, copy and replicate: words in, one transfer out, watched until it has ended."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client import carrying
from client.agent import AGENT
from client.commands import options
from client.commands.reading import write_file
from client.commands.transfers import follow, show_accepted
from client.errors import Code, Exit, Reason, ServerError
from client.places import (
    FormatWords,
    Problems,
    check_names,
    check_places,
    find_all,
    read_format,
    read_natural,
    read_parts,
    read_priority,
    read_verify,
)
from client.session import Session, command
from client.spool import Spooled, spool
from client.words import FORMATS, LOCAL, STDIN, Kind, Location, kind_of

if TYPE_CHECKING:
    from fileserver.v1.transfer_pb2 import Plan, Transfer, TransferSpec

# The backspace keeps typer from joining the lines of a paragraph.
_EXAMPLES = f"""Examples:

\b
  cropduster spray flights.csv demo::flights --parts 8
  cropduster spray lz:in/people.dat hr::people --format fixed:155
  cropduster spray 'cloud:in/part*.tsv' sales::all --order natural
  zcat log.gz | cropduster spray - web::log --format csv --quote ''
  cropduster spray flights.csv demo::flights --parts 8 --dry-run

A SOURCE is a path of this machine, PLANE:KEY, or - for standard input; its last element may hold * and ? (quote
them, or the shell expands them).

{options.TOKENS}
"""


_REPLICATE = """Examples:

\b
  cropduster replicate demo::flights --plane cloud
  cropduster replicate demo::flights --plane cloud --dry-run

The copy has the same parts, and belongs to the same logical file: 'files show' lists it, 'files verify' looks at it,
reading falls back on it, and 'files delete' deletes it with the file. The same command makes a copy anew of which
something is missing or damaged.
"""

_SOURCES = Annotated[
    list[str], typer.Argument(metavar="SOURCE", help="The files to spray, in this order.", show_default=False)
]
_NEW_FILE = Annotated[
    str, typer.Argument(metavar="NAME", help="The logical file to make, like scope::name.", show_default=False)
]
_NO_SPLIT = Annotated[
    bool, typer.Option("--no-split", help="Deal whole sources to the parts instead of splitting them.")
]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "spray", epilog=_EXAMPLES)(spray)
    command(app, "despray")(despray)
    command(app, "copy")(copy)
    command(app, "replicate", epilog=_REPLICATE)(replicate)


def spray(
    session: Session,
    sources: _SOURCES,
    name: _NEW_FILE,
    plane: options.Plane = None,
    parts: options.Parts = None,
    part_size: options.PartSize = None,
    record: options.Format = None,
    separator: options.Separator = None,
    quote: options.Quote = None,
    terminator: options.Terminator = None,
    escape: options.Escape = None,
    max_record: options.MaxRecord = None,
    split: options.Split = None,
    no_split: _NO_SPLIT = False,
    order: options.Order = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    verify: options.Verify = None,
    priority: options.Priority = None,
) -> Exit | None:
    """Spray files into parts without ever cutting a record."""
    problems = Problems()
    check_names(problems, name=name)
    check_places("SOURCE", sources, problems, "send it to standard input, and write - for that")
    typed = FormatWords(record, separator, quote, terminator, escape, max_record, split)
    chosen = read_format(typed, sources, problems)
    if chosen is None and record is None and not no_split:
        problems.say("--format", f"the sources do not tell their format by their names: name it, there is {FORMATS}")
    if "-" in sources:
        _check_stream(sources, problems, dry_run=dry_run, no_wait=no_wait)
    number, size = read_parts(parts, part_size, problems)
    natural = read_natural(order, problems)
    read = read_verify(verify, problems)
    turn = read_priority(priority, problems)
    problems.check()

    def spec(places: Sequence[Location]) -> TransferSpec:
        from client import specs  # noqa: PLC0415  # protobuf, only after the words are known to be right

        made = specs.spray(
            places,
            name,
            plane=plane or "",
            parts=number,
            part_size=size,
            record=chosen,
            natural=natural,
            no_split=no_split,
            overwrite=overwrite,
            verify_read=read,
        )
        made.priority = turn
        return made

    if "-" in sources:
        return _spray_stream(session, spec)
    return run(session, spec(find_all(session, sources)), dry_run=dry_run, no_wait=no_wait)


def _check_stream(sources: Sequence[str], problems: Problems, *, dry_run: bool, no_wait: bool) -> None:
    """What does not go together with standard input."""
    if len(sources) > 1:
        problems.say("SOURCE", "standard input (-) can only be the one and only source")
    if sys.stdin is None:
        problems.say("SOURCE", "standard input is closed: pipe something into this command, or name a file")
    if dry_run:
        problems.say("--dry-run", "standard input can be read only once: spray a file to see the plan")
    if no_wait:
        problems.say("--no-wait", "standard input is kept for the transfer by this command, which has to wait for it")


def _spray_stream(session: Session, spec: Callable[[Sequence[Location]], TransferSpec]) -> Exit | None:
    """Spray standard input, by way of a file in the state directory that goes when the transfer has ended."""
    request = uuid.uuid4().hex
    with spool(sys.stdin.buffer, session.spool, request) as spooled:
        asked = spec([Location(LOCAL, str(spooled.path))])
        spooled.keep()  # who breaks off now does not know what the server does; it sweeps what it does not need
        try:
            transfer = _create(session, asked, request)
        except ServerError as error:
            if carrying.is_unseen(error):
                return _carry_stream(session, asked, spooled)
            if error.code not in {Code.UNAVAILABLE, Code.CANCELLED}:
                spooled.remove()
            raise error.renamed({str(spooled.path): STDIN}) from None
        return follow(session, transfer.name, spooled.remove)


def _carry_stream(session: Session, asked: TransferSpec, spooled: Spooled) -> Exit | None:
    """The same where the server does not see that file, so that this command carries it."""

    def wait(made: Transfer, ended: Callable[[], None]) -> Exit | None:
        def both() -> None:
            ended()
            spooled.remove()

        return follow(session, made.name, both, carried=True)

    return carrying.run(session, asked, wait)


def despray(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The logical file to read.", show_default=False)],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="The file to write: a path of this machine, PLANE:KEY, or - for standard output.",
            show_default=False,
        ),
    ],
    overwrite: options.Overwrite = False,
    verify: options.Verify = None,
    priority: options.Priority = None,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
) -> Exit | None:
    """Write a logical file back into one file, byte for byte."""
    problems = Problems()
    check_names(problems, name=name)
    read = read_verify(verify, problems)
    turn = read_priority(priority, problems)
    if target == "-":
        unused = {"--overwrite": overwrite, "--verify": verify, "--dry-run": dry_run, "--no-wait": no_wait}
        for option, given in unused.items():
            if given:
                problems.say(option, "it says nothing about standard output: leave it out")
    else:
        _check_target(target, problems)
    problems.check()
    if target == "-":
        return write_file(session, name)

    from client import specs  # noqa: PLC0415  # protobuf, only after the words are known to be right

    [place] = find_all(session, [target])
    spec = specs.despray(name, place, overwrite=overwrite, verify_read=read)
    spec.priority = turn
    return run(session, spec, dry_run=dry_run, no_wait=no_wait)


def _check_target(target: str, problems: Problems) -> None:
    check_places("TARGET", [target], problems, "write - for standard output")
    folder = kind_of(target) is Kind.LOCAL and Path(target).is_dir()
    if target.endswith("/") or folder:
        problems.say("TARGET", f"'{target}' is a folder: name the file to write in it")


def copy(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The logical file to copy.", show_default=False)],
    new_name: Annotated[str, typer.Argument(metavar="NEWNAME", help="The logical file to make.", show_default=False)],
    plane: Annotated[
        str | None, typer.Option(metavar="PLANE", help="Write the new parts to this plane instead of the old one.")
    ] = None,
    parts: options.Parts = None,
    part_size: options.PartSize = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    verify: options.Verify = None,
    priority: options.Priority = None,
) -> Exit | None:
    """Copy a logical file, also into another number of parts."""
    problems = Problems()
    check_names(problems, name=name, newname=new_name)
    number, size = read_parts(parts, part_size, problems)
    read = read_verify(verify, problems)
    turn = read_priority(priority, problems)
    problems.check()

    from client import specs  # noqa: PLC0415  # protobuf, only after the words are known to be right

    spec = specs.copy(
        name, new_name, plane=plane or "", parts=number, part_size=size, overwrite=overwrite, verify_read=read
    )
    spec.priority = turn
    return run(session, spec, dry_run=dry_run, no_wait=no_wait)


def replicate(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The logical file to replicate.", show_default=False)],
    plane: Annotated[str, typer.Option(metavar="PLANE", help="Write the copy to this plane.", show_default=False)],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make the copy anew even if PLANE holds a whole one.")
    ] = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    verify: options.Verify = None,
    priority: options.Priority = None,
) -> Exit | None:
    """Make another copy of the parts of a logical file on another plane."""
    problems = Problems()
    check_names(problems, name=name)
    if plane == LOCAL:
        problems.say("--plane", "a copy lies on a plane of the configuration; 'despray' writes files of this machine")
    read = read_verify(verify, problems)
    turn = read_priority(priority, problems)
    problems.check()

    from client import specs  # noqa: PLC0415  # protobuf, only after the words are known to be right

    spec = specs.replicate(name, plane, overwrite=overwrite, verify_read=read)
    spec.priority = turn
    return run(session, spec, dry_run=dry_run, no_wait=no_wait)


def run(session: Session, spec: TransferSpec, *, dry_run: bool, no_wait: bool) -> Exit | None:
    """Plan the transfer, or have it accepted and wait for it if asked to; what the server does not see is carried."""
    if not session.carries:
        try:
            if dry_run:
                _show_plan(session, session.client.plan_transfer(spec))
                return None
            return run_transfer(session, spec, no_wait=no_wait)
        except ServerError as error:
            if not carrying.is_unseen(error):
                raise
    return _carry(session, spec, dry_run=dry_run, no_wait=no_wait)


def _carry(session: Session, spec: TransferSpec, *, dry_run: bool, no_wait: bool) -> Exit | None:
    """The same, with the files of this machine carried by this command."""
    if no_wait:
        raise carrying.refuse_no_wait()
    if dry_run:
        _show_plan(session, carrying.plan(session, spec))
        return None
    return carrying.run(session, spec, lambda made, ended: follow(session, made.name, ended, carried=True))


def run_transfer(
    session: Session, spec: TransferSpec, *, no_wait: bool, ended: options.Ended | None = None
) -> Exit | None:
    """Have the transfer accepted and wait for it if asked to; `ended` is called with its name before the last line."""
    transfer = _create(session, spec, uuid.uuid4().hex)
    if not no_wait:
        return follow(session, transfer.name, partial(ended, transfer.name) if ended else lambda: None)
    show_accepted(session, transfer)
    return None


def _create(session: Session, spec: TransferSpec, request: str) -> Transfer:
    """Have a transfer accepted."""
    try:
        return session.client.create_transfer(spec, request)
    except KeyboardInterrupt:
        msg = "interrupted before the server answered: 'cropduster transfers list' shows whether it was accepted"
        raise ServerError(Reason.CANCELLED, Code.CANCELLED, msg) from None


def _named(plane: str, key: str) -> str:
    return key if plane.startswith(AGENT) else f"{plane}:{key}"


def _show_plan(session: Session, plan: Plan) -> None:
    from client import phrases, shapes  # noqa: PLC0415  # loaded with the client already

    show = session.show
    if show.as_json:
        show.object(shapes.plan(plan))
        return
    if len(plan.sources) > 1:
        rows = ((str(n), _named(s.plane, s.key), f"{s.size:,}") for n, s in enumerate(plan.sources, start=1))
        show.table((">order", "source", ">bytes"), rows)
        show.line("")
    show.table(
        (">part", ">bytes", "route", "why", ">extents", "key"),
        ((str(p.number), f"{p.size:,}", p.route, p.why, str(len(p.extents)), p.key) for p in plan.parts),
    )
    parts = phrases.count(len(plan.parts), "part")
    total = phrases.size(sum(p.size for p in plan.parts))
    show.line(
        f"{parts}, {total}: {phrases.size(plan.bytes_native)} copied natively, "
        f"{phrases.size(plan.bytes_through_us)} through this machine; record starts: {plan.split or 'none'}"
    )
    for warning in plan.warnings:
        show.note(f"warning: {warning}")
