"""token key, create: tokens that this machine's own key signs, for servers that know its public half."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.places import Problems
from client.session import Session, command
from client.words import parse_seconds


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "key")(make_key)
    command(app, "create")(create)


def make_key(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where the private key goes.", show_default=False)],
) -> None:
    """Make a key pair, FILE and FILE.pub, and print the lines that a server's configuration needs."""
    from client.tokens import make_key  # noqa: PLC0415  # not for help

    made = make_key(Path(file))
    if session.show.as_json:
        session.show.object({"id": made.id, "private": str(made.private), "public": str(made.public)})
        return
    session.show.note(f"the private key is in {made.private}: keep it to yourself; the public one is in {made.public}")
    for line in made.config().splitlines():
        session.show.line(line)


def create(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The private key.", show_default=False)],
    subject: Annotated[str, typer.Option(metavar="NAME", help="Whom the token names.", show_default=False)],
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A group of which that is a member; may be repeated.")
    ] = None,
    lifetime: Annotated[str, typer.Option(metavar="TIME", help="How long it counts: 30m, 8h, 90d.")] = "8h",
    audience: Annotated[
        str, typer.Option(metavar="NAME", help="Which servers take it: tokens.audience of their configuration.")
    ] = "cropduster",
) -> None:
    """Print a token for somebody, signed by the private key in FILE."""
    from client.tokens import make_token  # noqa: PLC0415  # not for help

    problems = Problems()
    seconds = problems.parse("--lifetime", parse_seconds, lifetime, 0.0)
    if not subject.isprintable() or not subject:
        problems.say("--subject", "name somebody, in plain text")
    problems.check()
    token = make_token(Path(file), subject, group or [], seconds, audience)
    if session.show.as_json:
        session.show.object({"token": token})
    else:
        session.show.line(token)
