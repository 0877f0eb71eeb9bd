"""hdf5 ls, mkdir, mv, rm, acl, info: folders and domains of HSDS servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.commands import options
from client.moments import moment
from client.places import Problems
from client.session import Session, command

if TYPE_CHECKING:
    from client.shapes import JSON
    from fileserver.v1.domain_pb2 import Domain

_ADDRESS = Annotated[
    str, typer.Argument(metavar="hdf5://FOLDER/NAME", help="A domain or a folder.", show_default=False)
]
_LETTERS = "c create, r read, u update, d delete, e read this list, p change this list; - for nothing"


def enter(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    command(app, "ls")(list_domains)
    command(app, "info")(info)
    command(app, "mkdir")(make_folder)
    command(app, "mv")(move)
    command(app, "rm")(remove)
    command(app, "acl")(acl)


def list_domains(
    session: Session,
    folder: Annotated[
        str, typer.Argument(metavar="hdf5://FOLDER", help="The folder; the top if not given.")
    ] = "hdf5://",
    pattern: Annotated[
        str, typer.Option(metavar="MASK", help="Only names that match, with * and ?.", show_default=False)
    ] = "",
    target: options.Hsds = "",
) -> None:
    """List the domains and folders in a folder of HSDS."""
    from client.domains import Domains, shape  # noqa: PLC0415  # protobuf, not for help

    def cells(found: Domain) -> tuple[str, ...]:
        return "folder" if found.folder else "domain", found.owner, _moment(found), found.domain

    listed = Domains(session.client, target).list(folder, pattern)
    session.show.listing("domains", listed, shape, ("kind", "owner", "modified", "address"), cells)


def info(session: Session, domain: _ADDRESS, target: options.Hsds = "") -> None:
    """Show one domain or folder of HSDS; counts and bytes are as of the last scan of HSDS."""
    from client import phrases  # noqa: PLC0415  # protobuf, not for help
    from client.domains import Domains, shape  # noqa: PLC0415  # the same

    found = Domains(session.client, target).get(domain)
    if session.show.as_json:
        session.show.object(shape(found))
        return
    facts = [
        ("address", found.domain),
        ("kind", "folder" if found.folder else "domain"),
        ("server", found.target),
        ("owner", found.owner or "-"),
        ("made", moment(found.create_time) or "-"),
        ("modified", moment(found.modify_time) or "-"),
    ]
    if not found.folder:
        totals = found.totals
        facts += [
            ("root group", found.root),
            ("objects", f"{totals.groups:,} groups, {totals.datasets:,} datasets, {totals.datatypes:,} types"),
            ("chunks", f"{totals.chunks:,}, {phrases.size(totals.allocated_bytes)}"),
            ("size", phrases.size(totals.total_bytes)),
        ]
    session.show.facts(facts)


def make_folder(
    session: Session,
    folder: _ADDRESS,
    *,
    parents: Annotated[
        bool, typer.Option("--parents", "-p", help="Make those above it too; one that is there is fine.")
    ] = False,
    target: options.Hsds = "",
) -> None:
    """Make a folder in HSDS; who may use it is inherited from the folder above."""
    from client.domains import Domains, shape  # noqa: PLC0415  # protobuf, not for help

    made = Domains(session.client, target).make_folder(folder, parents=parents)
    _told(session, shape(made), f"{made.domain} is there")


def move(
    session: Session,
    domain: _ADDRESS,
    new_domain: Annotated[
        str, typer.Argument(metavar="hdf5://NEW/NAME", help="Where nothing is yet.", show_default=False)
    ],
    target: options.Hsds = "",
) -> None:
    """Give a domain, or a folder and all below it, another name; data, owner and permissions stay as they are."""
    from client.domains import Domains, shape  # noqa: PLC0415  # protobuf, not for help

    moved = Domains(session.client, target).move(domain, new_domain)
    _told(session, shape(moved), f"{domain} is now {moved.domain}")


def remove(
    session: Session,
    domain: _ADDRESS,
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="A folder with all that is below it.")] = False,
    target: options.Hsds = "",
) -> None:
    """Remove a domain with its data, or an empty folder, from HSDS."""
    from client import phrases  # noqa: PLC0415  # protobuf, not for help
    from client.domains import Domains  # noqa: PLC0415  # the same

    gone = Domains(session.client, target).delete(domain, recursive=recursive)
    more = f", with {phrases.count(gone - 1, 'name')} below it" if gone > 1 else ""
    _told(session, {"domain": domain, "deleted": gone}, f"{domain} is gone{more}")


def acl(
    session: Session,
    domain: _ADDRESS,
    user: Annotated[
        str,
        typer.Argument(metavar="USER", help="A user, g:GROUP, or default for everybody else.", show_default=False),
    ] = "",
    permissions: Annotated[
        str, typer.Argument(metavar="PERMISSIONS", help=f"All that the user may do: {_LETTERS}.", show_default=False)
    ] = "",
    target: options.Hsds = "",
) -> None:
    """Show who may do what with a domain or a folder, or change it for one user."""
    problems = Problems()
    if user and not permissions:
        problems.say("PERMISSIONS", f"say what {user} may do, like 'r' or 'cru': {_LETTERS}")
    if wrong := "".join(sorted(set(permissions) - set("crudep-"))):
        problems.say("PERMISSIONS", f"'{wrong}' means nothing here: {_LETTERS}")
    problems.check()
    from client.domains import Domains, acl_shape, entry, letters  # noqa: PLC0415  # protobuf, not for help

    server = Domains(session.client, target)
    found = list(server.update_acl(domain, entry(user, permissions)) if user else server.acl(domain))
    if session.show.as_json:
        session.show.object(acl_shape(domain, found))
    else:
        session.show.table(("may", "user"), ((letters(each), each.user) for each in found))


def _told(session: Session, shape: dict[str, JSON], line: str) -> None:
    if session.show.as_json:
        session.show.object(shape)
    else:
        session.show.line(line)


def _moment(found: Domain) -> str:
    changed = moment(found.modify_time)
    return f"{changed[:19]}Z" if changed else "-"
