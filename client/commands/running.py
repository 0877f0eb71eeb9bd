"""serve, migrate and doctor: to run a server, and to find out why none runs."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer

from client.commands.planes import check_failure
from client.errors import Exit, Reason, ServerError
from client.session import Session, command
from client.words import LOCAL

_OLDEST_SQLITE: Final = (3, 42, 0)
_MOST_SKEW: Final = 2.0  # seconds between the clock of this machine and that of the state directory
_NETWORK: Final = frozenset({"9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"})


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "serve")(serve)
    command(app, "migrate")(migrate)
    command(app, "doctor")(doctor)


def serve(
    session: Session,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Listen on this address of this machine instead of the configured one."),
    ] = None,
) -> None:
    """Run a file server until it is told to end."""
    from client.embedded import find_config, server_command  # noqa: PLC0415  # not for help

    arguments = server_command()
    if config := find_config(session.settings.config):
        arguments += ["--config", str(config)]
    if session.settings.state:
        arguments += ["--state", str(session.state)]
    if listen:
        arguments += ["--listen", listen]
    sys.stdout.flush()
    os.execv(arguments[0], arguments)  # noqa: S606  # our own interpreter and words, no shell


def migrate(session: Session) -> None:
    """Make or upgrade the tables of the PostgreSQL that the configuration names."""
    from client.embedded import find_config, server_command  # noqa: PLC0415  # not for help

    arguments = server_command("migrate")
    if config := find_config(session.settings.config):
        arguments += ["--config", str(config)]
    sys.stdout.flush()
    os.execv(arguments[0], arguments)  # noqa: S606  # our own interpreter and words, no shell


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of the doctor found."""

    check: str
    ok: bool
    detail: str


def doctor(session: Session) -> Exit | None:
    """Check this machine, the server and every plane."""
    findings: list[Finding] = []
    for finding in _findings(session):
        findings.append(finding)
        if not session.show.as_json:
            session.show.line(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.check}: {finding.detail}")
    well = all(finding.ok for finding in findings)
    if session.show.as_json:
        session.show.object(
            {"ok": well, "checks": [{"check": f.check, "ok": f.ok, "detail": f.detail} for f in findings]}
        )
    return None if well else Exit.REFUSED


def _findings(session: Session) -> Iterator[Finding]:
    from client.embedded import find_config  # noqa: PLC0415  # not for help

    yield Finding("python", sys.version_info >= (3, 11), platform.python_version())
    yield _sqlite()
    installed = find_spec("dbos") is not None
    needed = installed or session.settings.server is not None
    yield Finding("server", needed, "installed" if installed else "not installed: pip install 'cropduster[server]'")
    yield from _state(session.state)
    try:
        config = find_config(session.settings.config)
    except ServerError as error:
        yield Finding("config", ok=False, detail=error.message)
    else:
        yield Finding("config", ok=True, detail=str(config or "none: one posix plane in the state directory"))
        yield from _server(session)


def _sqlite() -> Finding:
    """SQLite before 3.42 blocks DBOS with Python 3.12 and later; the pysqlite3 wheel brings a newer one."""
    bundled = find_spec("pysqlite3") is not None
    well = sys.version_info < (3, 12) or sqlite3.sqlite_version_info >= _OLDEST_SQLITE or bundled
    way_out = "" if well else ", too old for this Python: pip install pysqlite3-binary"
    return Finding("sqlite", well, f"{sqlite3.sqlite_version}{' and a newer one' if bundled else ''}{way_out}")


def _state(state: Path) -> Iterator[Finding]:
    kind = file_system(state, _mounts())
    local = kind not in _NETWORK
    way_out = "" if local else ": a database is not safe there, name a directory of a local disk with --state"
    yield Finding("state directory", local, f"{state} on {kind or 'an unknown file system'}{way_out}")
    existing = next(folder for folder in (state, *state.parents) if folder.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=existing) as probe:
            skew = Path(probe.name).stat().st_mtime - time.time()
    except OSError as error:
        yield Finding("state writable", ok=False, detail=f"{existing}: {error.strerror}")
    else:
        yield Finding("state writable", ok=True, detail=str(existing))
        yield Finding(
            "clock", abs(skew) <= _MOST_SKEW, f"{abs(skew):.1f} s between this machine and the state directory"
        )


def _mounts() -> str:
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no /proc here, so nobody can tell
        return ""


def file_system(path: Path, mounts: str) -> str:
    """The kind of file system that a path lies on, by the text of /proc/self/mounts; empty if that does not say."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        # Of two mounts at one point the later covers the earlier.
        if len(point.parts) >= best and path.is_relative_to(point):
            best, kind = len(point.parts), fields[2]
    return kind


def _server(session: Session) -> Iterator[Finding]:
    """Whether the server answers, and its planes work; it checks its own config when it starts."""
    try:
        planes = session.client.list_planes().planes
    except ServerError as error:
        yield Finding("server answers", ok=False, detail=error.message)
        return
    yield Finding("server answers", ok=True, detail=session.settings.server or "embedded")
    for plane in planes:
        if plane.name == LOCAL:
            continue
        try:
            answer = session.client.check_plane(plane.name)
        except ServerError as error:
            denied = error.reason == Reason.CALLER_DENIED  # which is no fault of the plane
            yield Finding(f"plane {plane.name}", ok=denied, detail=error.message)
        else:
            detail = plane.location if answer.ok else check_failure(plane.name, answer).message
            yield Finding(f"plane {plane.name}", answer.ok, detail)
