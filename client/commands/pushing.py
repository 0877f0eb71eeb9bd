"""push and fetch: spray and despray with a server that does not see this machine; the command carries the bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from client.commands.moving import despray, run, spray
from client.errors import Exit, ServerError
from client.places import Problems, check_places, find_all, read_priority, read_verify
from client.rates import parse_rates
from client.session import Session, command
from client.words import LOCAL, Location

if TYPE_CHECKING:
    from fileserver.v1.transfer_pb2 import TransferSpec

_PUSH = """Examples:

\b
  cropduster push flights.csv demo::flights --parts 8 --server storage.example:7301
  cropduster push --no-register *.csv lz:in/ --server storage.example:7301
  cropduster fetch demo::flights ./flights.csv --server storage.example:7301

It is 'spray', with nothing listening here and no key of a store on this machine. After a break the same command,
given again, goes on with the same transfer. 'spray' and 'despray' do the same by themselves where the server says that
it does not see the files of this machine. Where the plane says `direct: true` the bytes go straight to its store, or
come from there. With --no-register NAME is PLANE:KEY, or PLANE:FOLDER/ for several files: each becomes an object
there, as it is, and the catalogue knows nothing of it.
"""


Rate: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Carry so many bytes a second at most, like 20MiB; by the hour, like '8:00-18:00=5MiB,200MiB'.",
    ),
]


_NoRegister: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-register", help="Make plain objects of the files, as they are: NAME is PLANE:KEY or PLANE:FOLDER/."
    ),
]
_PLAIN: Final = {"sources", "name", "overwrite", "dry_run", "no_wait", "verify", "priority"}
"""The words of push that say something where nothing is registered."""


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "push", epilog=_PUSH, like=spray)(push)
    command(app, "fetch", like=despray)(fetch)


def push(session: Session, *, rate: Rate = None, no_register: _NoRegister = False, **words: Any) -> Exit | None:
    """Spray files of this machine at a server that does not see them: this command carries them."""
    _carry(session, rate)
    return _push_plain(session, words) if no_register else spray(session, **words)


def fetch(session: Session, *, rate: Rate = None, **words: Any) -> Exit | None:
    """Despray a logical file of a server to this machine, which the server does not see: this command carries it."""
    _carry(session, rate)
    return despray(session, **words)


def _push_plain(session: Session, words: Mapping[str, Any]) -> Exit | None:
    """Make an object of each file; with several, what is wrong with one does not keep the others."""
    specs = _plain_specs(session, words)
    options = {name: words[name] for name in ("dry_run", "no_wait")}
    if len(specs) == 1:
        return run(session, specs[0], **options)
    failed = 0
    for spec in specs:
        try:
            ended = run(session, spec, **options)
        except ServerError as error:
            if error.exit is Exit.CANCELLED:
                raise
            session.show.error(error)
            ended = error.exit
        if ended is Exit.CANCELLED:
            return ended
        failed += bool(ended)
    return Exit.EXCEPTIONS if failed else None


def _plain_specs(session: Session, words: Mapping[str, Any]) -> list[TransferSpec]:
    """What is asked for each file, once all the words are known to be right."""
    problems, sources, name = Problems(), list[str](words["sources"]), str(words["name"])
    _check_plain(words, sources, name, problems)
    read, turn = read_verify(words["verify"], problems), read_priority(words["priority"], problems)
    problems.check()
    # Of a file that is there it is known whose it is, whatever its name looks like.
    [target] = find_all(session, [name])
    if target.plane == LOCAL:
        problems.say("NAME", f"'{name}' names no plane: write PLANE:KEY")
    problems.check()

    from client import specs  # noqa: PLC0415  # protobuf, only after the words are known to be right

    made = []
    for source in map(Path, sources):
        goal = Location(target.plane, f"{target.key}{source.name}") if name.endswith("/") else target
        place = Location(LOCAL, os.path.abspath(source))  # noqa: PTH100  # symlinks are followed where it is read
        spec = specs.despray("", goal, sources=[place], overwrite=words["overwrite"], verify_read=read)
        spec.priority = turn
        made.append(spec)
    return made


def _check_plain(words: Mapping[str, Any], sources: Sequence[str], name: str, problems: Problems) -> None:
    for option in sorted(set(words) - _PLAIN):
        if words[option] not in {None, False}:
            typed = "format" if option == "record" else option.replace("_", "-")
            problems.say(f"--{typed}", "it says nothing of files that stay as they are: leave it out")
    for source in sources:
        if not Path(source).is_file():
            problems.say("SOURCE", f"'{source}' is no file of this machine")
    check_places("NAME", [name], problems, "name PLANE:KEY")
    if len(sources) > 1 and not name.endswith("/"):
        problems.say("NAME", "several files become several objects: name a folder, PLANE:FOLDER/")
    if len({Path(source).name for source in sources}) < len(sources):
        problems.say("SOURCE", "two of the files have the same name, and would become the same object")


def _carry(session: Session, rate: str | None) -> None:
    """Have this command carry files, no faster than it may."""
    session.carries = session.settings.server is not None
    problems = Problems()
    if rate is not None:
        session.rates = problems.parse("--rate", parse_rates, rate, ())
        if not session.carries:
            problems.say("--rate", "without --server nothing is carried: leave it out, or see 'planes limits'")
    problems.check()
