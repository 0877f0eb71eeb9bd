"""DomainService: domains and folders of the configured HSDS servers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from google.protobuf.timestamp_pb2 import Timestamp

from fileserver.calls import Context
from fileserver.errors import InvalidSpec, refuse
from fileserver.hdf5.hsds import address
from fileserver.hdf5.hsds.targets import Targets
from fileserver.v1 import domain_pb2, domain_pb2_grpc

if TYPE_CHECKING:
    from fileserver.hdf5.hsds.acls import Permissions
    from fileserver.hdf5.hsds.connection import Connection
    from fileserver.hdf5.hsds.domains import Domain

PAGE: Final = 100
LARGEST_PAGE: Final = 1000

# What talks to HSDS needs an HTTP client: it is loaded, and need be installed, for who has an HSDS.
# ruff: noqa: PLC0415


class DomainServicer(domain_pb2_grpc.DomainServiceServicer):
    """Domains on the wire.

    Args:
        targets: the configured HSDS servers.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def GetDomain(self, request: domain_pb2.GetDomainRequest, context: Context) -> domain_pb2.GetDomainResponse:
        """One domain or folder; raises InvalidSpec, NotFound, CallerDenied, Unavailable."""
        path, connection = self._asked(request.target, domain=request.domain)
        from fileserver.hdf5.hsds import domains

        found = await domains.stat(connection, path["domain"], totals=True)
        return domain_pb2.GetDomainResponse(domain=_domain(connection.name, found, totals=True))

    async def ListDomains(
        self, request: domain_pb2.ListDomainsRequest, context: Context
    ) -> domain_pb2.ListDomainsResponse:
        """One page of a folder; of a domain itself; raises InvalidSpec, NotFound, CallerDenied, Unavailable."""
        if not 0 <= request.page_size <= LARGEST_PAGE:
            what = f"is 0 (which means {PAGE}) to {LARGEST_PAGE}"
            msg = f"page_size {what}"
            raise InvalidSpec(msg, {"page_size": what})
        path, connection = self._asked(request.target, folder=request.folder)
        from fileserver.hdf5.hsds import domains

        size = request.page_size or PAGE
        answer = domain_pb2.ListDomainsResponse()
        if not request.page_token:  # the server itself lists what is not there, and a domain, as an empty folder
            there = await domains.stat(connection, path["folder"])
            if not there.is_folder:
                answer.domains.append(_domain(connection.name, there))
                return answer
        last = ""
        listing = domains.listing(connection, path["folder"], pattern=request.pattern, after=request.page_token)
        async with aclosing(listing):
            async for found in listing:
                if len(answer.domains) == size:
                    answer.next_page_token = last
                    break
                answer.domains.append(_domain(connection.name, found))
                last = found.path
        return answer

    async def CreateFolder(
        self, request: domain_pb2.CreateFolderRequest, context: Context
    ) -> domain_pb2.CreateFolderResponse:
        """A new folder; raises InvalidSpec, AlreadyExists, NotFound, CallerDenied, Unavailable."""
        path, connection = self._asked(request.target, folder=request.folder)
        from fileserver.hdf5.hsds import domains

        made = await domains.make_folder(connection, path["folder"], parents=request.parents, exist_ok=request.parents)
        return domain_pb2.CreateFolderResponse(domain=_domain(connection.name, made))

    async def MoveDomain(
        self, request: domain_pb2.MoveDomainRequest, context: Context
    ) -> domain_pb2.MoveDomainResponse:
        """Another name; raises InvalidSpec, AlreadyExists, NotFound, CallerDenied, Unavailable."""
        path, connection = self._asked(request.target, domain=request.domain, new_domain=request.new_domain)
        from fileserver.hdf5.hsds import domains

        await domains.move(connection, path["domain"], path["new_domain"])
        moved = await domains.stat(connection, path["new_domain"])
        return domain_pb2.MoveDomainResponse(domain=_domain(connection.name, moved))

    async def DeleteDomain(
        self, request: domain_pb2.DeleteDomainRequest, context: Context
    ) -> domain_pb2.DeleteDomainResponse:
        """A domain or a folder is gone; raises InvalidSpec, AlreadyExists, NotFound, CallerDenied, Unavailable."""
        path, connection = self._asked(request.target, domain=request.domain)
        from fileserver.hdf5.hsds import domains

        gone = await domains.delete(connection, path["domain"], recursive=request.recursive)
        return domain_pb2.DeleteDomainResponse(deleted=gone)

    async def GetAcl(self, request: domain_pb2.GetAclRequest, context: Context) -> domain_pb2.GetAclResponse:
        """Who may do what; raises InvalidSpec, NotFound, CallerDenied, Unavailable."""
        path, connection = self._asked(request.target, domain=request.domain)
        from fileserver.hdf5.hsds import acls

        return domain_pb2.GetAclResponse(entries=_entries(await acls.read(connection, path["domain"])))

    async def UpdateAcl(self, request: domain_pb2.UpdateAclRequest, context: Context) -> domain_pb2.UpdateAclResponse:
        """What one user may do from now on; raises InvalidSpec, NotFound, CallerDenied, Unavailable."""
        path, connection = self._asked(request.target, domain=request.domain)
        from fileserver.hdf5.hsds import acls

        entry = request.entry
        permissions = acls.Permissions(
            create=entry.create,
            read=entry.read,
            update=entry.update,
            delete=entry.delete,
            read_acl=entry.read_acl,
            update_acl=entry.update_acl,
        )
        await acls.write(connection, path["domain"], entry.user, permissions)
        return domain_pb2.UpdateAclResponse(entries=_entries(await acls.read(connection, path["domain"])))

    def _asked(self, target: str, **addresses: str) -> tuple[dict[str, str], Connection]:
        """The paths of all addresses and the connection; raises InvalidSpec with every field that is wrong."""
        wrong: dict[str, str] = {}
        paths: dict[str, str] = {}
        for field, text in addresses.items():
            try:
                paths[field] = address.parse(text, field)
            except InvalidSpec as error:
                wrong |= error.violations
        try:
            self._targets.name(target)
        except InvalidSpec as error:
            wrong |= error.violations
        refuse(wrong)
        return paths, self._targets.connection(target)


def _domain(target: str, found: Domain, *, totals: bool = False) -> domain_pb2.Domain:
    made = domain_pb2.Domain(
        domain=address.show(found.path),
        target=target,
        folder=found.is_folder,
        root=found.root,
        owner=found.owner,
        create_time=_time(found.created),
        modify_time=_time(found.modified),
    )
    if totals and not found.is_folder:
        made.totals.CopyFrom(
            domain_pb2.DomainTotals(
                groups=found.groups,
                datasets=found.datasets,
                datatypes=found.datatypes,
                chunks=found.chunks,
                allocated_bytes=found.allocated,
                total_bytes=found.total,
            )
        )
    return made


def _entries(found: Mapping[str, Permissions]) -> list[domain_pb2.AclEntry]:
    return [
        domain_pb2.AclEntry(
            user=user,
            create=p.create,
            read=p.read,
            update=p.update,
            delete=p.delete,
            read_acl=p.read_acl,
            update_acl=p.update_acl,
        )
        for user, p in found.items()
    ]


def _time(seconds: float) -> Timestamp | None:
    if not seconds:
        return None
    made = Timestamp()
    made.FromNanoseconds(round(seconds * 1e9))
    return made
