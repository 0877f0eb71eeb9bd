"""planes list, show, check, limits, objects: the storage that the server is configured for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from client import moments
from client.errors import Code, Exit, Reason, ServerError
from client.places import Problems
from client.session import Session, command
from client.words import parse_count, parse_size, split_plane

if TYPE_CHECKING:
    from fileserver.v1.plane_pb2 import CheckPlaneResponse, LeftOut, Object, Plane

_NAME = Annotated[str, typer.Argument(metavar="PLANE", help="The plane.", show_default=False)]


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "list")(list_planes)
    command(app, "show")(show)
    command(app, "check")(check)
    command(app, "limits")(limits)
    command(app, "sweep")(sweep)
    command(app, "objects")(objects)


def list_planes(session: Session) -> None:
    """List the configured planes; the default one is marked."""
    from client import shapes  # noqa: PLC0415  # protobuf, not for help

    answer = session.client.list_planes()
    session.show.listing(
        "planes",
        answer.planes,
        lambda plane: shapes.plane(plane, answer.default_plane),
        ("name", "type", "category", ">parts", "location"),
        lambda plane: (
            f"{plane.name} (default)" if plane.name == answer.default_plane else plane.name,
            plane.type,
            plane.category,
            str(plane.default_parts),
            plane.location,
        ),
    )


def show(session: Session, name: _NAME) -> None:
    """Show one plane and its limits."""
    _show(session, session.client.get_plane(name))


def _show(session: Session, plane: Plane) -> None:
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    if session.show.as_json:
        session.show.object(shapes.plane(plane, session.client.list_planes().default_plane))
        return
    session.show.facts(
        [
            ("name", plane.name),
            ("type", plane.type),
            ("category", plane.category),
            ("location", plane.location),
            ("parts by default", str(plane.default_parts)),
            ("requests at once", _requests(plane)),
            ("rate limit", phrases.rate(plane.bytes_per_second) if plane.bytes_per_second else "none"),
            ("stored checksums", ", ".join(plane.checksums) or "none"),
            ("native copies", "yes" if plane.native_copy else "no"),
        ]
    )


def _requests(plane: Plane) -> str:
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    waits = plane.wait.ToMilliseconds() / 1000
    if waits:
        asked = f"asked to be left alone for {phrases.seconds(waits)} more"
        return f"{plane.requests} at most; the provider {asked}"
    if plane.requests_now < plane.requests:
        return f"{plane.requests} at most, {plane.requests_now} just now"
    return str(plane.requests)


def limits(
    session: Session,
    name: _NAME,
    *,
    requests: Annotated[
        str | None, typer.Option(metavar="N", help="Send at most N requests at once.", show_default=False)
    ] = None,
    bytes_per_second: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Move at most so many bytes a second, like 50MB; 0 for any.", show_default=False
        ),
    ] = None,
) -> None:
    """Change how hard a plane may be driven, until its server ends; the configuration holds what is for good."""
    problems = Problems()
    at_once = problems.parse("--requests", parse_count, requests, None)
    rate = 0 if bytes_per_second == "0" else problems.parse("--bytes-per-second", parse_size, bytes_per_second, None)
    if requests is None and bytes_per_second is None:
        problems.say("--requests", "name this limit, or --bytes-per-second, or both")
    problems.check()
    _show(session, session.client.update_limits(name, requests=at_once, bytes_per_second=rate))


def sweep(
    session: Session,
    name: _NAME,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be ended, and end nothing.")] = False,
) -> None:
    """End open uploads that transfers of this server have left on a plane; nothing of anybody else is touched."""
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    answer = session.client.sweep_plane(name, validate_only=dry_run)
    if session.show.as_json:
        session.show.object(shapes.swept(name, answer, dry_run=dry_run))
        return
    if answer.uploads:
        rows = ((u.transfer.removeprefix("transfers/"), u.key, u.left) for u in answer.uploads)
        session.show.table(("transfer", "key", "still there because"), rows)
    gone = phrases.count(sum(not u.left for u in answer.uploads), "open upload")
    session.show.line(f"{gone} {'would be ended' if dry_run else 'ended'}")


def check(session: Session, name: _NAME) -> None:
    """Try a plane with small objects that are removed again; tell what it can do, and what it costs where it can't."""
    from client import shapes  # noqa: PLC0415  # protobuf, not for help

    answer = session.client.check_plane(name)
    if session.show.as_json:
        session.show.object(shapes.check(name, answer))
    else:
        rows = (("ok" if r.ok else "FAILED", r.check, r.detail) for r in answer.results)
        session.show.table(("", "check", ""), rows)
        if answer.facts:
            session.show.line("")
            found = ((f.fact, f.found, f.costs) for f in answer.facts)
            session.show.table(("the plane", "", "what that costs"), found)
    if not answer.ok:
        raise check_failure(name, answer)


_REFUSED: Final = (Reason.PLANE_REFUSED, Code.FAILED_PRECONDITION)
_REASONS: Final = {
    "PLANE_MISSING": (Reason.PLANE_MISSING, Code.FAILED_PRECONDITION),
    "PLANE_UNAVAILABLE": (Reason.PLANE_UNAVAILABLE, Code.UNAVAILABLE),
    "PLANE_THROTTLED": (Reason.PLANE_THROTTLED, Code.RESOURCE_EXHAUSTED),
}
"""What a plane that can't be checked is, by the first reason that it gave; anything else is a refusal."""


def check_failure(name: str, answer: CheckPlaneResponse) -> ServerError:
    """The error of a plane that does not do what it must."""
    failed = [result for result in answer.results if not result.ok]
    told = "; ".join(f"{r.check}: {r.detail or 'no'}" for r in failed)
    msg = f"the plane '{name}' does not work as it must; {told}"
    reason = next((r.reason for r in failed if r.reason), "")
    return ServerError(*_REASONS.get(reason, _REFUSED), msg, {"plane": name})


def objects(
    session: Session,
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLANE[:PREFIX]", help="The plane, and what keys must begin with if not all.", show_default=False
        ),
    ],
) -> Exit | None:
    """List the objects of a plane in order of their keys."""
    from client import shapes  # noqa: PLC0415  # protobuf, not for help

    where = split_plane(place)

    def cells(found: Object) -> tuple[str, ...]:
        return f"{found.size:,}", moments.brief(found.modify_time), found.key

    odd: dict[str, LeftOut] = {}
    session.show.listing(
        "objects",
        session.client.list_objects(where.plane, where.key, lambda each: odd.setdefault(each.name, each)),
        shapes.stored_object,
        (">bytes", "modified", "key"),
        cells,
        tail=lambda: {"left_out": [shapes.left_out(each) for each in odd.values()]} if odd else {},
    )
    for each in odd.values():
        session.show.note(f"left out: {each.name}: {each.why}")
    return Exit.EXCEPTIONS if any(each.has_data for each in odd.values()) else None
