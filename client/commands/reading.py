"""cat and head: bytes of a logical file to standard output."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from client.errors import Code, Exit, Reason, ServerError
from client.places import Problems, check_names
from client.session import Session, command
from client.words import parse_count

if TYPE_CHECKING:
    from client.shapes import JSON

_NAME = Annotated[str, typer.Argument(metavar="NAME", help="The logical file to read.", show_default=False)]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "cat")(cat)
    command(app, "head")(head)


def cat(session: Session, name: _NAME) -> Exit | None:
    """Write a logical file to standard output."""
    problems = Problems()
    check_names(problems, name=name)
    problems.check()
    return write_file(session, name)


def write_file(session: Session, name: str) -> Exit | None:
    """Write a logical file to standard output; nothing else goes there, with `--json` neither."""
    out = sys.stdout.buffer
    for piece in session.client.read_file(name):
        out.write(piece)
    out.flush()
    return None


def head(
    session: Session,
    name: _NAME,
    number: Annotated[
        str, typer.Option("-n", "--records", metavar="N", help="Show so many records from the start.")
    ] = "5",
) -> Exit | None:
    """Show the first records of a logical file, as they stand in it."""
    problems = Problems()
    check_names(problems, name=name)
    count = problems.parse("-n", parse_count, number, 1)
    problems.check()

    from client.records import first_records  # noqa: PLC0415  # loads the messages of the wire

    client = session.client
    record = client.get_file(name).format
    if record.WhichOneof("kind") is None:
        msg = (
            f"{name} was registered without a format, so it has no records: see its bytes with 'cropduster cat {name}'"
        )
        raise ServerError(Reason.FORMAT_MISMATCH, Code.FAILED_PRECONDITION, msg, {"file": name})
    found = 0
    for found, data in enumerate(first_records(client.read_file(name), record, count), start=1):
        if session.show.as_json:
            session.show.object(_shape(found, data))
        else:
            _write(data)
    if session.show.as_json:
        session.show.object({"name": name, "records": found})
    return None


def _write(data: bytes) -> None:
    """A record byte for byte; on a terminal each one begins a line."""
    out = sys.stdout.buffer
    out.write(data)
    if sys.stdout.isatty() and not data.endswith(b"\n"):
        out.write(b"\n")


def _shape(number: int, data: bytes) -> dict[str, JSON]:
    try:
        return {"number": number, "text": data.decode()}
    except UnicodeDecodeError:
        return {"number": number, "base64": base64.b64encode(data).decode("ascii")}
