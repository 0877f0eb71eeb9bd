"""inventory list, show, retry, reset, dump: what has arrived, what became of it, and another try."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from client.commands.watching import NAME
from client.places import Problems
from client.session import Session, command

if TYPE_CHECKING:
    from client.landing import Landing
    from fileserver.v1.landing_pb2 import Arrival, ArrivalFilter, Watch

_STATES: Final = ("seen", "settled", "running", "done", "failed", "gone")
_FORMATS: Final = ("table", "csv", "hdf5")

_Only = Annotated[
    list[str] | None,
    typer.Option(metavar="|".join(_STATES), help="Only in this state; can be given again.", show_default=False),
]
_Keys = Annotated[
    list[str] | None,
    typer.Argument(metavar="[GLOB]...", help="Only keys that match; ** is all, * stops at /.", show_default=False),
]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "list")(list_all)
    command(app, "show")(show)
    command(app, "retry")(retry)
    command(app, "reset")(reset)
    command(app, "dump")(dump)


def list_all(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="[WATCH]", help="All watches if not given.", show_default=False)] = "",
    keys: _Keys = None,
    only: _Only = None,
) -> None:
    """List the watches, or what has arrived at one, with what became of it."""
    chosen = _checked(only)
    from client import landing, phrases  # noqa: PLC0415  # protobuf, not for help

    server = landing.Landing(session.client)
    if name:
        found = server.arrivals(name, landing.choose(chosen, keys or ()))
        session.show.listing("arrivals", found, landing.arrival_shape, _HEADERS, _cells)
        return

    def cells(watch: Watch) -> tuple[str, ...]:
        found = landing.counts(watch)
        error = f"{watch.error.reason}: {watch.error.message}" if watch.HasField("error") else ""
        return (
            landing.name(watch),
            landing.life(watch),
            *(f"{found[each]:,}" for each in _STATES),
            phrases.location(watch.source),
            watch.load.folder,
            error,
        )

    headers = ("watch", "state", *(f">{each}" for each in _STATES), "source", "folder", "")
    session.show.listing("watches", server.watches(), landing.watch_shape, headers, cells)


_HEADERS: Final = ("state", ">bytes", ">tries", "transfer", "key", "")


def _cells(found: Arrival) -> tuple[str, ...]:
    from client import landing  # noqa: PLC0415  # loaded with the client already

    error = f"{found.error.reason}: {found.error.message}" if found.HasField("error") else ""
    transfer = found.transfer.removeprefix("transfers/") or "-"
    return landing.state(found), f"{found.size:,}", str(found.tries), transfer, found.key, error


def show(
    session: Session,
    name: NAME,
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="Of one arrival.", show_default=False)] = "",
) -> None:
    """Show a watch with its options and counts, or one arrival with its times and its error."""
    from client import landing  # noqa: PLC0415  # protobuf, not for help

    server = landing.Landing(session.client)
    body = landing.arrival_shape(server.arrival(name, key)) if key else landing.watch_shape(server.get(name))
    if session.show.as_json:
        session.show.object(body)
        return
    facts = []
    for field, value in body.items():
        inner = [f"{name} {each}" for name, each in value.items() if each] if isinstance(value, dict) else []
        inner = [str(each) for each in value] if isinstance(value, list) else inner
        plain = "" if isinstance(value, dict | list) or value is None else str(value)
        facts.append((field.replace("_", " "), ", ".join(inner) or plain or "-"))
    session.show.facts(facts)


def retry(session: Session, name: NAME, keys: _Keys = None, only: _Only = None) -> None:
    """Try at once what has failed or waits for its next try, all of it or what matches."""
    from client import landing  # noqa: PLC0415  # protobuf, not for help

    server = landing.Landing(session.client)
    _changed(session, server, name, server.retry(name, landing.choose(_checked(only), keys or ())), "tried again")


def reset(session: Session, name: NAME, keys: _Keys = None, only: _Only = None) -> None:
    """Begin anew with arrivals, as if they had just come: also what is loaded. What is gone is forgotten."""
    chosen = _checked(only)
    problems = Problems()
    if not chosen and not keys:
        problems.say("GLOB", "say what is to begin anew: a key or a glob ('**' is everything), or --only")
    problems.check()
    from client import landing  # noqa: PLC0415  # protobuf, not for help

    server = landing.Landing(session.client)
    _changed(session, server, name, server.reset(name, landing.choose(chosen, keys or ())), "begun anew")


def dump(
    session: Session,
    name: NAME,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.", show_default=False)
    ] = "",
    as_format: Annotated[
        str, typer.Option("--format", metavar="|".join(_FORMATS), help="hdf5 needs --output.")
    ] = "table",
    mirror: Annotated[
        str,
        typer.Option(metavar="hdf5://FOLDER/NAME", help="Write it as a table into this domain.", show_default=False),
    ] = "",
    target: Annotated[
        str,
        typer.Option(metavar="NAME", help="The HSDS of --mirror, if not that of the watch.", show_default=False),
    ] = "",
) -> None:
    """Write the whole inventory: to be read, as CSV, as an HDF5 file, or into a domain of HSDS."""
    problems = Problems()
    if as_format not in _FORMATS:
        problems.say("--format", f"'{as_format}' is not a format: there are {', '.join(_FORMATS)}")
    if as_format == "hdf5" and not output:
        problems.say("--output", "an HDF5 file needs a name")
    if as_format == "table" and output:
        problems.say("--output", "a table is for the terminal: name --format csv or hdf5")
    problems.check()
    from client import landing  # noqa: PLC0415  # protobuf, not for help

    server, everything = landing.Landing(session.client), landing.choose((), ())
    if mirror:
        _said(session, {"domain": mirror, "rows": server.mirror(name, mirror, target)}, f"{mirror} has the inventory")
    elif as_format == "table":
        found = server.arrivals(name, everything)
        session.show.listing("arrivals", found, landing.arrival_shape, _HEADERS, _cells)
    else:
        _to_file(session, server, name, everything, as_format, output)


def _to_file(
    session: Session, server: Landing, name: str, everything: ArrivalFilter, as_format: str, output: str
) -> None:
    from client import dump as writing  # noqa: PLC0415  # the csv module, and h5py

    path = Path(output)
    if as_format == "hdf5":
        rows = writing.to_hdf5(lambda: server.arrivals(name, everything), path)
    elif not output:
        writing.to_csv(server.arrivals(name, everything), sys.stdout)
        sys.stdout.flush()
        return
    else:
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("w", encoding="utf-8", newline="") as out:
                rows = writing.to_csv(server.arrivals(name, everything), out)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    _said(session, {"output": output, "rows": rows}, f"{output} has the inventory")


def _said(session: Session, body: dict[str, str | int], line: str) -> None:
    from client import phrases  # noqa: PLC0415  # loaded with the client already

    if session.show.as_json:
        session.show.object(dict(body))
    else:
        session.show.line(f"{line}, {phrases.count(int(body['rows']), 'row')}")


def _changed(session: Session, server: Landing, name: str, changed: int, what: str) -> None:
    from client import landing, phrases  # noqa: PLC0415  # loaded with the client already

    if session.show.as_json:
        session.show.object({"watch": name, "changed": changed})
        return
    life = landing.life(server.get(name))
    session.show.line(f"{phrases.count(changed, 'arrival')} will be {what}")
    if life != "active":
        session.show.note(f"the watch {name} is {life}: they wait until the same watch command is given again")


def _checked(states: Sequence[str] | None) -> list[str]:
    problems = Problems()
    for each in states or ():
        if each not in _STATES:
            problems.say("--only", f"'{each}' is no state: there are {', '.join(_STATES)}")
    problems.check()
    return list(states or ())
