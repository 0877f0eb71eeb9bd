"""push and fetch: spray and despray with a server that does not see this machine; the command carries the bytes."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from client.commands.moving import despray, spray
from client.errors import Exit
from client.places import Problems
from client.rates import parse_rates
from client.session import Session, command

_PUSH = """Examples:

\b
  cropduster push flights.csv demo::flights --parts 8 --server storage.example:7301
  cropduster fetch demo::flights ./flights.csv --server storage.example:7301

It is 'spray', with nothing listening here and no key of a store on this machine. After a break the same command,
given again, goes on with the same transfer. 'spray' and 'despray' do the same by themselves where the server says that
it does not see the files of this machine.
"""


Rate: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Carry so many bytes a second at most, like 20MiB; by the hour, like '8:00-18:00=5MiB,200MiB'.",
    ),
]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "push", epilog=_PUSH, like=spray)(push)
    command(app, "fetch", like=despray)(fetch)


def push(session: Session, *, rate: Rate = None, **words: Any) -> Exit | None:
    """Spray files of this machine at a server that does not see them: this command carries them."""
    _carry(session, rate)
    return spray(session, **words)


def fetch(session: Session, *, rate: Rate = None, **words: Any) -> Exit | None:
    """Despray a logical file of a server to this machine, which the server does not see: this command carries it."""
    _carry(session, rate)
    return despray(session, **words)


def _carry(session: Session, rate: str | None) -> None:
    """Have this command carry files, no faster than it may."""
    session.carries = session.settings.server is not None
    problems = Problems()
    if rate is not None:
        session.rates = problems.parse("--rate", parse_rates, rate, ())
        if not session.carries:
            problems.say("--rate", "without --server nothing is carried: leave it out, or see 'planes limits'")
    problems.check()
