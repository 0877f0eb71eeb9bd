"""files list, show, verify, rename, delete, register, rebuild: the catalogue of logical files."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from client import moments
from client.commands import options
from client.errors import Code, Exit, Reason, ServerError, bad_request
from client.places import (
    FormatWords,
    Problems,
    check_names,
    check_places,
    find_all,
    read_format,
    read_natural,
)
from client.session import Session, command

if TYPE_CHECKING:
    from fileserver.v1.file_pb2 import DeleteFileResponse, LogicalFile, Part, VerifyFileResponse

_NAME = Annotated[str, typer.Argument(metavar="NAME", help="The logical file.", show_default=False)]
_WELL = frozenset({"read", "stored", "size"})


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "list")(list_files)
    command(app, "show")(show)
    command(app, "verify")(verify)
    command(app, "rename")(rename)
    command(app, "delete")(delete)
    command(app, "register")(register)
    command(app, "rebuild")(rebuild)


def list_files(
    session: Session,
    mask: Annotated[
        str, typer.Argument(metavar="MASK", help="Only names that match this, with * and ?.", show_default=False)
    ] = "",
) -> None:
    """List logical files in order of their names."""
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    def cells(file: LogicalFile) -> tuple[str, ...]:
        created = moments.brief(file.create_time)
        record = shapes.format_name(file.format) or "-"
        return file.name, phrases.size(file.size), f"{file.part_count:,}", record, file.evidence, created

    session.show.listing(
        "files",
        session.client.list_files(mask),
        lambda file: shapes.file(file, parts=False),
        ("name", ">size", ">parts", "format", "evidence", "created"),
        cells,
    )


def show(
    session: Session,
    name: _NAME,
    uris: Annotated[
        bool, typer.Option("--uris", help="Tell for every part where other programs find it, like file:// or s3://.")
    ] = False,
) -> None:
    """Show a logical file and its parts."""
    _show(session, session.client.get_file(name, uris=uris))


def _show(session: Session, file: LogicalFile) -> None:
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    screen = session.show
    if screen.as_json:
        screen.object(shapes.file(file))
        return
    facts = [
        ("name", file.name),
        ("size", f"{phrases.count(file.size, 'byte')} in {phrases.count(len(file.parts), 'part')}"),
        ("format", shapes.format_name(file.format) or "unknown"),
        ("evidence", file.evidence),
        ("crc64nvme", file.crc64nvme or "unknown"),
        ("created", moments.whole(file.create_time)),
    ]
    if file.transfer:
        facts.append(("made by", file.transfer))
    if file.HasField("expire_time"):
        facts.append(("expires", moments.whole(file.expire_time)))
    facts += [("source", f"{source.plane}:{source.key}") for source in file.sources]
    facts += [("copy", f"{r.plane}, {r.evidence}, by {r.transfer}") for r in file.replicas]
    screen.facts(facts)
    screen.line("")
    _show_parts(session, chain(file.parts, *(replica.parts for replica in file.replicas)))


def _show_parts(session: Session, parts: Iterable[Part]) -> None:
    session.show.table(
        (">part", ">bytes", "owned", "crc64nvme", "where"),
        (
            (
                str(part.number),
                f"{part.size:,}",
                "yes" if part.owned else "no",
                part.checksum.get("crc64nvme", "-"),
                part.uri or f"{part.plane}:{part.key}",
            )
            for part in parts
        ),
    )


def verify(
    session: Session,
    name: _NAME,
    read: Annotated[bool, typer.Option("--read", help="Read every byte instead of trusting stored checksums.")] = False,
) -> Exit | None:
    """Check that the parts are what the catalogue says."""
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    found = session.client.verify_file(name, read=read)
    if session.show.as_json:
        session.show.object(shapes.verdicts(name, found))
    else:
        rows = ((str(p.number), p.verdict, f"{p.plane}:{p.key}", p.detail) for p in found.parts)
        session.show.table((">part", "verdict", "object", ""), rows)
    if not found.ok:
        raise unlike(name, found)
    if not session.show.as_json:
        copies = len(found.parts) // max(p.number for p in found.parts)
        count = phrases.count(len(found.parts), "part") + (f" in {copies} copies" if copies > 1 else "")
        session.show.line(f"{count} as catalogued; {phrases.size(found.bytes_read)} read")
    return None


def unlike(name: str, found: VerifyFileResponse) -> ServerError:
    """The error of a file whose parts are not what they should be; parts that are gone are another matter."""
    missing = sorted({p.number for p in found.parts if p.verdict == "missing"})
    other = sorted({p.number for p in found.parts if p.verdict == "different"})
    facts = {"file": name, "missing": _numbers(missing), "different": _numbers(other)}
    away = {p.plane: p.detail for p in found.parts if p.verdict == "away"}
    touched = ", ".join(sorted({p.plane for p in found.parts if p.verdict == "touched"}))
    if not (missing or other or touched):
        msg = f"parts of {name} could not be looked at: {'; '.join(away.values())}"
        return ServerError(Reason.PLANE_UNAVAILABLE, Code.UNAVAILABLE, msg, {**facts, "planes": ", ".join(away)})
    if not (missing or other):
        msg = (
            f"parts of {name} were touched since they were written ({touched}):"
            f" 'cropduster files verify {name} --read' tells whether their bytes are the same"
        )
        return ServerError(Reason.CHECKSUM_MISMATCH, Code.DATA_LOSS, msg, {**facts, "planes": touched})
    reason = (Reason.CHECKSUM_MISMATCH, Code.DATA_LOSS) if other else (Reason.OBJECT_NOT_FOUND, Code.NOT_FOUND)
    if {p.number for p in found.parts} == {p.number for p in found.parts if p.verdict in _WELL}:
        bad = sorted({p.plane for p in found.parts if p.verdict in {"missing", "different"}})
        facts["planes"] = ", ".join(bad)
        msg = (
            f"a copy of {name} is not what was written ({facts['planes']}), but every part is there elsewhere:"
            f" 'cropduster replicate {name} --plane {bad[0]}' makes it again"
        )
        return ServerError(*reason, msg, facts)
    unless = f", unless {', '.join(away)}, which did not answer, has them" if away else ""
    if not other:
        msg = f"parts of {name} are missing: {_numbers(missing)}; despray or copy would fail, so spray the source again"
    else:
        msg = f"parts of {name} are not what was written: {_numbers(other)}; spray the source again"
    return ServerError(*reason, msg + unless, facts)


def _numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")


def rename(
    session: Session,
    name: _NAME,
    new_name: Annotated[str, typer.Argument(metavar="NEWNAME", help="Its new name.", show_default=False)],
) -> None:
    """Give a logical file another name; no byte moves."""
    from client import shapes  # noqa: PLC0415  # protobuf, not for help

    problems = Problems()
    check_names(problems, name=name, newname=new_name)
    problems.check()
    file = session.client.rename_file(name, new_name)
    if session.show.as_json:
        session.show.object(shapes.file(file))
    else:
        session.show.line(f"{name} is now {file.name}")


def delete(
    session: Session,
    name: _NAME,
    with_parts: Annotated[
        bool, typer.Option("--with-parts", help="Destroy also parts that Cropduster did not write, after listing them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before foreign parts are destroyed.")] = False,
    dry_run: options.DryRun = False,
) -> None:
    """Delete a logical file and the parts that are ours."""
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    client, screen = session.client, session.show
    if with_parts and not dry_run and not yes:
        _ask(session, name, client.delete_file(name, with_parts=True, validate_only=True))
    answer = client.delete_file(name, with_parts=with_parts, validate_only=dry_run)
    if screen.as_json:
        screen.object({"name": name, **shapes.deletion(answer, dry_run=dry_run)})
        return
    if dry_run:
        _show_parts(session, answer.deleted)
    would = "would be deleted" if dry_run else "deleted"
    kept = f"; {len(answer.kept):,} not ours, kept" if answer.kept else ""
    screen.line(f"{name}: {phrases.count(len(answer.deleted), 'part')} {would}{kept}")


def _ask(session: Session, name: str, would: DeleteFileResponse) -> None:
    """Let a person see and confirm which foreign parts are destroyed; without a person, `--yes` must say so."""
    foreign = [part for part in would.deleted if not part.owned]
    if not foreign:
        return
    from client import phrases  # noqa: PLC0415  # protobuf, not for help

    objects = phrases.count(len(foreign), "object")
    if session.show.as_json or sys.stdin is None or not sys.stdin.isatty():
        problem = f"{name} has {objects} not written by Cropduster: say --yes to destroy"
        raise bad_request({"--with-parts": problem})
    _show_parts(session, foreign)
    if not typer.confirm(f"Destroy {objects} that Cropduster did not write?", err=True):
        raise typer.Abort


def register(
    session: Session,
    name: _NAME,
    locations: Annotated[
        list[str],
        typer.Argument(metavar="LOCATION", help="Its parts in order: PLANE:KEY, with * and ?.", show_default=False),
    ],
    record: options.Format = None,
    separator: options.Separator = None,
    quote: options.Quote = None,
    terminator: options.Terminator = None,
    escape: options.Escape = None,
    max_record: options.MaxRecord = None,
    split: options.Split = None,
    order: options.Order = None,
) -> None:
    """Enter existing objects as the parts of a logical file."""
    problems = Problems()
    check_names(problems, name=name)
    check_places("LOCATION", locations, problems, "name the file itself")
    if "-" in locations:
        problems.say("LOCATION", "standard input (-) is no object that stays: spray it, or name PLANE:KEY")
    typed = FormatWords(record, separator, quote, terminator, escape, max_record, split)
    chosen = read_format(typed, locations, problems)
    natural = read_natural(order, problems)
    problems.check()

    from client import specs  # noqa: PLC0415  # protobuf, only after the words are known to be right

    parts = [specs.location(place) for place in find_all(session, locations)]
    _show(
        session,
        session.client.register_file(name, parts, specs.record_format(chosen), specs.order(natural=natural)),
    )


def rebuild(
    session: Session,
    plane: Annotated[str, typer.Argument(metavar="PLANE", help="The plane to search.", show_default=False)],
    dry_run: options.DryRun = False,
) -> None:
    """Restore the catalogue from the manifests on a plane."""
    from client import phrases, shapes  # noqa: PLC0415  # protobuf, not for help

    found = session.client.rebuild_files(plane, validate_only=dry_run)
    screen = session.show
    if screen.as_json:
        screen.object(shapes.rebuilt(found, dry_run=dry_run))
        return
    for name in found.restored:
        screen.line(name)
    for sentence in found.skipped:
        screen.note(f"warning: {sentence}")
    would = "would be restored" if dry_run else "restored"
    screen.line(
        f"{phrases.count(len(found.restored), 'file')} {would}, {len(found.present):,} in the catalogue already, "
        f"{len(found.skipped):,} skipped"
    )
