"""ingest: HDF5 files into domains of an HSDS server; and the report of one, for transfers show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from client.commands import options
from client.commands.moving import run_transfer
from client.errors import Exit
from client.places import Problems, check_places, find_all
from client.session import Session, command
from client.words import LOAD_MODES, LOCAL, Location

if TYPE_CHECKING:
    from client.ingests import Planned, Reported
    from fileserver.v1.transfer_pb2 import TransferSpec

_LEVELS: Final = ("auto", "none", "metadata", "sample", "full")
_EPILOG = """Examples:

\b
  cropduster ingest run1.h5 hdf5://home/alice/run1.h5
  cropduster ingest 'cloud:runs/2026-*.h5' hdf5://home/alice/runs/
  cropduster ingest data:in/ hdf5://home/alice/in/ --overwrite --verify full
  cropduster ingest ./runs/ hdf5://home/alice/runs/ --dry-run
  cropduster ingest 'cloud:months/*.h5' hdf5://home/alice/all --extend time

A SOURCE is a path of this machine or PLANE:KEY; its last element may hold * and ?, and a folder (with / at its end)
stands for all HDF5 files below it. DOMAIN is one domain, or, with / at its end, the folder that gets a domain a file.
A domain is seen when it is whole, and not before; with --overwrite the old one stays until the new one is whole.

With --extend all files become one domain: datasets that lie along the dimension are joined in the order of the files,
everything else is the first file's, and what others have otherwise is reported. If one of the files does not fit or
cannot be read, nothing is joined, as what comes behind it would lie elsewhere; --skip-bad leaves such files out.

A file that cannot be loaded, or of which something stays behind, is listed at the end, with exit code 11; the others
arrive. --report tells what became of each object.
"""

_SOURCES = Annotated[list[str], typer.Argument(metavar="SOURCE", help="The HDF5 files to load.", show_default=False)]
_DOMAIN = Annotated[
    str,
    typer.Argument(
        metavar="DOMAIN",
        help="Where they go: hdf5://home/user/name, or a folder with / at its end.",
        show_default=False,
    ),
]
_MODE = Annotated[
    str,
    typer.Option(
        metavar="|".join(LOAD_MODES),
        help=(
            "Write the server's bucket past it (direct), send requests to it (rest), only say where the data lie "
            "(link), or direct where the configuration names the bucket's plane, else rest (auto)."
        ),
    ),
]
_VERIFY = Annotated[
    str,
    typer.Option(
        metavar="|".join(_LEVELS),
        help=(
            "What the server reads back is compared with the file before anything is seen; of many small files "
            "one in 32, and of the others what the bucket has (auto)."
        ),
    ),
]
_EXTEND = Annotated[
    str | None,
    typer.Option(
        metavar="DIMENSION",
        help="Join all files into one domain along this dimension, the name or path of a dimension scale.",
    ),
]
_SKIP_BAD = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="With --extend: leave out files that do not fit or cannot be read, and join the others."
    ),
]
_NO_FOLDERS = Annotated[bool, typer.Option("--no-folders", help="Refuse to make folders that are not there.")]
_PUBLIC_READ = Annotated[bool, typer.Option("--public-read", help="Let anybody read the domains.")]
_REPORT = Annotated[bool, typer.Option("--report", help="Tell at the end what became of each object.")]


def enter(app: typer.Typer) -> None:
    """Enter the command of this module."""
    command(app, "ingest", epilog=_EPILOG)(ingest)


def ingest(
    session: Session,
    sources: _SOURCES,
    domain: _DOMAIN,
    target: options.Hsds = "",
    mode: _MODE = "auto",
    verify: _VERIFY = "auto",
    extend: _EXTEND = None,
    skip_bad: _SKIP_BAD = False,
    overwrite: options.Overwrite = False,
    no_folders: _NO_FOLDERS = False,
    public_read: _PUBLIC_READ = False,
    report: _REPORT = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
) -> Exit | None:
    """Load HDF5 files into HSDS, verified, and seen only when they are whole."""
    problems = Problems()
    _check_words(sources, domain, mode, verify, problems)
    if extend == "":
        problems.say("--extend", "it is empty: name the dimension along which the files are joined")
    if extend and domain.endswith("/"):
        problems.say("DOMAIN", f"{domain} is a folder, and --extend joins all files into one domain: name that")
    if extend and mode == "link":
        problems.say("--mode", "files are not joined by links: use direct or rest")
    if skip_bad and not extend:
        problems.say("--skip-bad", "it is for files that are joined by --extend; else each file is loaded for itself")
    if report and (dry_run or no_wait):
        problems.say("--report", "it tells what was done: leave out --dry-run and --no-wait")
    problems.check()

    from client import specs  # noqa: PLC0415  # protobuf, only after the words are known to be right

    places = [_folder(word, place) for word, place in zip(sources, find_all(session, sources), strict=True)]
    flags = {"no_folders": no_folders, "public_read": public_read, "overwrite": overwrite, "skip_bad": skip_bad}
    spec = specs.ingest(places, domain, target=target, mode=mode, verify=verify, extend=extend or "", **flags)
    if dry_run:
        _show_plan(session, spec)
        return None
    return run_transfer(session, spec, no_wait=no_wait, ended=_reporter(session) if report else None)


def _check_words(sources: Sequence[str], domain: str, mode: str, verify: str, problems: Problems) -> None:
    """What is wrong with a word by itself."""
    check_places("SOURCE", sources, problems, "name an HDF5 file")
    if "-" in sources:
        problems.say("SOURCE", "an HDF5 file is read here and there, which standard input cannot: name a file")
    if not domain.startswith("hdf5://"):
        problems.say("DOMAIN", f"'{domain}' is no address of a domain: write it like hdf5://home/user/name")
    for option, word, known in (("--mode", mode, LOAD_MODES), ("--verify", verify, _LEVELS)):
        if word not in known:
            problems.say(option, f"'{word}' is none of {', '.join(known)}")


def _folder(word: str, place: Location) -> Location:
    """Of a folder of this machine, the folder."""
    if place.plane == LOCAL and (word.endswith("/") or Path(place.key).is_dir()):
        return replace(place, key=f"{place.key.rstrip('/')}/")
    return place


def _reporter(session: Session) -> options.Ended:
    def show(name: str) -> None:
        show_report(session, name)

    return show


def _show_plan(session: Session, spec: TransferSpec) -> None:
    from client import ingests  # noqa: PLC0415  # protobuf, not for help

    found, shape = ingests.plan(session.client, spec), ingests.planned_shape
    if spec.ingest.aggregate.dimension:  # of one domain
        session.show.listing("objects", found, shape, ("source", *_PLANNED), lambda one: (one.source, *_planned(one)))
    else:
        session.show.listing("objects", found, shape, ("domain", *_PLANNED), lambda one: (one.domain, *_planned(one)))


_PLANNED: Final = ("route", ">bytes", "path", "why")


def _planned(found: Planned) -> tuple[str, ...]:
    return found.route, f"{found.size:,}", found.path, found.reason


def show_report(session: Session, name: str) -> None:
    """What became of each object of each file of an ingest."""
    from client import ingests  # noqa: PLC0415  # protobuf, not for help

    headers = ("domain", "result", "route", ">bytes", "path", "why")
    session.show.listing("report", ingests.report(session.client, name), ingests.reported_shape, headers, _told)


def _told(found: Reported) -> tuple[str, ...]:
    return found.domain, found.result, found.route, f"{found.size:,}", found.path or found.source, found.reason
