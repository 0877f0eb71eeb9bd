"""inventory watch, stop, remove: which prefixes are watched, and what becomes of what arrives there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from client.commands import options
from client.errors import Code, Exit, ServerError
from client.places import Places, Problems, check_places
from client.session import Session, command
from client.words import LOAD_MODES, Kind, kind_of, parse_count, parse_seconds

if TYPE_CHECKING:
    from client.landing import Landing
    from fileserver.v1.landing_pb2 import Watch

_PAUSE: Final = 0.2  # seconds between two looks at a watch that is waited for
_SHOWN: Final = 20

_EPILOG = """Examples:

\b
  cropduster inventory watch lz:in hdf5://home/user/in/
  cropduster inventory watch cloud:in/ hdf5://home/user/in/ --include '*.h5' --settle 1m --public-read
  cropduster inventory watch lz:in hdf5://home/user/in/ --marker '*.done'
  cropduster inventory watch lz:in hdf5://home/user/in/ --once

Everything below SOURCE that settles is loaded as a domain of the same relative name below the folder, once a version:
an object that changes is loaded again, and replaces the domain that this watch made of it. One that vanishes is
reported as gone, and its domain stays. The watch goes on in the server until it is stopped. The same command again is
the same watch. The * in the NAME of --marker stands for the name of the object.
"""

NAME = Annotated[str, typer.Argument(metavar="WATCH", help="Name of the watch.", show_default=False)]
_SOURCE = Annotated[str, typer.Argument(metavar="SOURCE", help="PLANE:PREFIX or a directory.", show_default=False)]
_FOLDER = Annotated[
    str, typer.Argument(metavar="hdf5://FOLDER/", help="Where the domains are to be.", show_default=False)
]
_INCLUDE = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB", help="Only what matches this, instead of all that ends like an HDF5 file; can be given again."
    ),
]
_SETTLE = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Load what has had the same size and version for so long; 30s, or 0s with --marker or --once.",
    ),
]
_MARKER = Annotated[
    str,
    typer.Option(metavar="NAME", help="Load what has this beside it, like '*.done' or _SUCCESS.", show_default=False),
]
_MODE = Annotated[str, typer.Option(metavar="|".join(LOAD_MODES), help="How data travel, as in ingest.")]
_OVERWRITE = Annotated[
    bool, typer.Option("--overwrite", help="Replace domains that are there already and not of this watch.")
]
_ONCE = Annotated[
    bool, typer.Option("--once", help="Load what is there, wait for it, and end; exit code 11 if some failed.")
]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "watch", epilog=_EPILOG)(watch)
    command(app, "stop")(stop)
    command(app, "remove")(remove)


def watch(
    session: Session,
    source: _SOURCE,
    folder: _FOLDER,
    name: Annotated[str, typer.Option(metavar="WATCH", help="Call it so.", show_default=False)] = "",
    include: _INCLUDE = None,
    exclude: options.Exclude = None,
    settle: _SETTLE = None,
    marker: _MARKER = "",
    every: Annotated[str | None, typer.Option(metavar="TIME", help="Look so often instead of every 10s.")] = None,
    mode: _MODE = "auto",
    target: options.Hsds = "",
    public_read: Annotated[bool, typer.Option("--public-read", help="Everybody may read the domains.")] = False,
    overwrite: _OVERWRITE = False,
    tries: Annotated[str | None, typer.Option(metavar="N", help="Try a version N times instead of 3.")] = None,
    at_once: Annotated[str | None, typer.Option(metavar="N", help="Run N transfers at once instead of 4.")] = None,
    once: _ONCE = False,
) -> Exit | None:
    """Load every HDF5 file that arrives at SOURCE into HSDS, as a watch that outlives this command."""
    problems = Problems()
    check_places("SOURCE", [source], problems, "name a folder")
    if kind_of(source) is Kind.STREAM:
        problems.say("SOURCE", "- is no folder")
    if mode not in LOAD_MODES:
        problems.say("--mode", f"'{mode}' is not a mode: there are {', '.join(LOAD_MODES)}")
    quiet = problems.parse("--settle", parse_seconds, settle, None)
    pause = problems.parse("--every", parse_seconds, every, None)
    most = problems.parse("--tries", parse_count, tries, 0)
    width = problems.parse("--at-once", parse_count, at_once, 0)
    problems.check()

    from client import landing  # noqa: PLC0415  # protobuf, only after the words are known to be right

    places = Places(lambda: [plane.name for plane in session.client.list_planes().planes])
    asked = landing.watch(places.find(source), folder, name, settle=quiet, every=pause, mode=mode)
    asked.include.extend(include or ())
    asked.exclude.extend(exclude or ())
    asked.marker, asked.tries, asked.at_once, asked.once = marker, most, width, once
    asked.load.target, asked.load.public_read, asked.load.overwrite = target, public_read, overwrite
    made = landing.Landing(session.client).create(asked)
    if once:
        return _wait(session, made)
    _told(session, made)
    return None


def stop(session: Session, name: NAME) -> None:
    """Look no more, and begin nothing; what is being loaded is loaded. The same watch command lets it go on."""
    from client.landing import Landing  # noqa: PLC0415  # protobuf, not for help

    _told(session, Landing(session.client).stop(name))


def remove(session: Session, name: NAME) -> None:
    """Forget a watch and its inventory; domains stay."""
    from client.landing import Landing  # noqa: PLC0415  # protobuf, not for help

    Landing(session.client).remove(name)
    if session.show.as_json:
        session.show.object({"removed": name})
    else:
        session.show.line(f"{name} is forgotten; what it loaded stays")


def _told(session: Session, made: Watch) -> None:
    from client import landing, phrases  # noqa: PLC0415  # loaded with the client already

    if session.show.as_json:
        session.show.object(landing.watch_shape(made))
        return
    name, same = landing.name(made), session.settings.as_options()
    session.show.line(f"{name} ({phrases.location(made.source)} to {made.load.folder}) is {landing.life(made)}")
    if landing.life(made) == "active":
        session.show.note(
            f"  what has arrived: cropduster inventory list {name}{same}\n"
            f"  stop it:          cropduster inventory stop {name}{same}"
        )


def _wait(session: Session, made: Watch) -> Exit | None:
    """Wait until a watch that looks once has ended; Ctrl-C leaves it running."""
    from client import landing  # noqa: PLC0415  # loaded with the client already

    server, name = landing.Landing(session.client), landing.name(made)
    try:
        while landing.life(made) == "active":
            time.sleep(_PAUSE)
            made = server.get(name)
    except KeyboardInterrupt:
        session.show.note(
            f"\n{name} goes on without you: cropduster inventory list {name}{session.settings.as_options()}"
        )
        return Exit.CANCELLED
    found = landing.counts(made)
    if made.HasField("error") and not any(found.values()):
        raise _failure(made)
    if session.show.as_json:
        session.show.object(landing.watch_shape(made))
    else:
        session.show.line(f"{name}: " + (", ".join(f"{n:,} {state}" for state, n in found.items() if n) or "nothing"))
    if found["failed"]:
        _show_failed(session, server, name, found["failed"])
    if made.HasField("error"):  # of the look, or of names that it came by: the rest was done
        raise _failure(made)
    return Exit.EXCEPTIONS if found["failed"] else None


def _failure(made: Watch) -> ServerError:
    """What was wrong with the look itself."""
    failure = made.error
    return ServerError(failure.reason, Code(failure.code), failure.message, dict(failure.metadata))


def _show_failed(session: Session, server: Landing, name: str, count: int) -> None:
    """The first of the arrivals that failed."""
    from client import landing  # noqa: PLC0415  # loaded with the client already

    failed = server.arrivals(name, landing.choose(["failed"], ()))
    for _, each in zip(range(_SHOWN), failed, strict=False):
        session.show.note(f"failed: {each.key}: {each.error.message} ({each.error.reason})")
    if count > _SHOWN:
        session.show.note(f"and {count - _SHOWN:,} more: cropduster inventory list {name} --only failed")
