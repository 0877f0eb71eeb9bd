"""agent: serve folders of this machine as the data of planes, for as long as the machine runs."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Final

import typer

from client.agent import orders_of
from client.commands.pushing import Rate
from client.embedded import server_command
from client.errors import Exit
from client.places import Problems
from client.rates import parse_rates
from client.session import Session, command
from client.words import WordError, check_text

_EPILOG = """Example:

\b
  cropduster agent --server https://storage.example:7301 --token-file node1.token \\
    --host node1 --plane thor=/var/lib/thor

Nothing listens here: the agent calls the server, and calls again when that breaks. SIGTERM or Ctrl-C ends it once what
is under way is done, a second one at once. A second agent of the same host takes its place; the first ends with 6.
"""

_MOST_SLOTS: Final = 16


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "agent", epilog=_EPILOG)(agent)


def agent(
    session: Session,
    plane: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER", help="A plane whose hosts name this machine, and where its files are. Repeatable."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="This machine, as the planes have it (default: its own name).")
    ] = None,
    slots: Annotated[str, typer.Option(metavar="N", help="Segments at once, 1 to 16.")] = "4",
    rate: Rate = None,
) -> Exit | None:
    """Serve folders of this machine as the data of planes, until it is told to end."""
    problems = Problems()
    folders = dict(problems.parse("--plane", parse_folder, each, ("", "")) for each in plane or ())
    if not folders:
        problems.say("--plane", "say which planes are served, and where their files are: --plane thor=/var/lib/thor")
    elif len(folders) < len(plane or ()):
        problems.say("--plane", "a plane has one folder on a machine")
    problems.parse("--host", check_text, host, None)
    if session.settings.server is None:
        problems.say("--server", "name the server that the planes are configured at: --server HOST:PORT")
    if not (slots.isdecimal() and 1 <= int(slots) <= _MOST_SLOTS):
        problems.say("--slots", f"'{slots}' is not 1 to {_MOST_SLOTS}")
    if rate is not None:
        session.rates = problems.parse("--rate", parse_rates, rate, ())
    problems.check()
    orders = orders_of(session.client.access())
    orders |= {"host": host or socket.gethostname().lower(), "planes": folders, "slots": int(slots)}
    orders["rates"] = [astuple(each) for each in session.rates]
    _become(server_command("agent"), json.dumps(orders).encode() + b"\n")
    return None


def parse_folder(text: str) -> tuple[str, str]:
    """The plane and the absolute path of NAME=FOLDER; raises WordError."""
    check_text(text)
    name, separator, folder = text.partition("=")
    if not (name and separator and folder) or "\0" in text:
        msg = f"'{text}' is no plane and its folder: write them like thor=/var/lib/thor"
        raise WordError(msg)
    return name, str(Path(folder).absolute())


def _become(arguments: list[str], orders: bytes) -> None:
    """Go on as the agent, under the same process id; its orders, which hold secrets, are in no file and no list."""
    memory = os.memfd_create("orders")
    os.write(memory, orders)
    os.lseek(memory, 0, os.SEEK_SET)
    os.dup2(memory, 0)
    sys.stdout.flush()
    os.execv(arguments[0], arguments)  # noqa: S606  # our own interpreter and words, no shell
