"""Domains and folders of HSDS: one method a call, and what they look like as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from client.api import Client
from client.calls import pages
from client.moments import moment
from client.shapes import JSON
from fileserver.v1 import domain_pb2
from fileserver.v1.domain_pb2_grpc import DomainServiceStub

LETTERS: Final = {
    "c": "create",
    "r": "read",
    "u": "update",
    "d": "delete",
    "e": "read_acl",
    "p": "update_acl",
}
"""Permissions as hsacl writes them."""


class Domains:
    """The calls of DomainService.

    Args:
        client: of the file server.
        target: the HSDS server; empty is the first that is configured.
    """

    def __init__(self, client: Client, target: str = "") -> None:
        self._call = client.call
        self._target = target

    def get(self, domain: str) -> domain_pb2.Domain:
        """One domain or folder, with totals."""
        request = domain_pb2.GetDomainRequest(domain=domain, target=self._target)
        return self._call(lambda c: DomainServiceStub(c).GetDomain, request, timeout=None).domain

    def list(self, folder: str, pattern: str = "") -> Iterator[domain_pb2.Domain]:
        """What is right below a folder."""

        def page(token: str) -> domain_pb2.ListDomainsResponse:
            request = domain_pb2.ListDomainsRequest(
                folder=folder, target=self._target, pattern=pattern, page_size=1000, page_token=token
            )
            return self._call(lambda c: DomainServiceStub(c).ListDomains, request, timeout=None)

        return pages(page, lambda answer: answer.domains)

    def make_folder(self, folder: str, *, parents: bool = False) -> domain_pb2.Domain:
        """A new folder; `parents` makes those above it and is content with one that is there."""
        request = domain_pb2.CreateFolderRequest(folder=folder, target=self._target, parents=parents)
        return self._call(lambda c: DomainServiceStub(c).CreateFolder, request, timeout=None, again=parents).domain

    def move(self, domain: str, new_domain: str) -> domain_pb2.Domain:
        """Another name for a domain, or for a folder and all below it."""
        request = domain_pb2.MoveDomainRequest(domain=domain, new_domain=new_domain, target=self._target)
        return self._call(lambda c: DomainServiceStub(c).MoveDomain, request, timeout=None, again=False).domain

    def delete(self, domain: str, *, recursive: bool = False) -> int:
        """Remove a domain with its data, or a folder; how many are gone."""
        request = domain_pb2.DeleteDomainRequest(domain=domain, target=self._target, recursive=recursive)
        return self._call(lambda c: DomainServiceStub(c).DeleteDomain, request, timeout=None, again=False).deleted

    def acl(self, domain: str) -> Iterable[domain_pb2.AclEntry]:
        """Who may do what, by name of the user."""
        request = domain_pb2.GetAclRequest(domain=domain, target=self._target)
        return self._call(lambda c: DomainServiceStub(c).GetAcl, request, timeout=None).entries

    def update_acl(self, domain: str, entry: domain_pb2.AclEntry) -> Iterable[domain_pb2.AclEntry]:
        """Change what one user may do; all entries afterwards."""
        request = domain_pb2.UpdateAclRequest(domain=domain, target=self._target, entry=entry)
        return self._call(lambda c: DomainServiceStub(c).UpdateAcl, request, timeout=None).entries


def entry(user: str, letters: str) -> domain_pb2.AclEntry:
    """What somebody may do, by letters."""
    return domain_pb2.AclEntry(user=user, **{name: letter in letters for letter, name in LETTERS.items()})


def letters(found: domain_pb2.AclEntry) -> str:
    """What somebody may do as `crudep`, a dash for what not."""
    return "".join(letter if getattr(found, name) else "-" for letter, name in LETTERS.items())


def shape(found: domain_pb2.Domain) -> dict[str, JSON]:
    """A domain or a folder; `totals` is null where they were not asked for."""
    totals = found.totals
    return {
        "domain": found.domain,
        "target": found.target,
        "kind": "folder" if found.folder else "domain",
        "root": found.root or None,
        "owner": found.owner,
        "create_time": moment(found.create_time),
        "modify_time": moment(found.modify_time),
        "totals": {
            "groups": totals.groups,
            "datasets": totals.datasets,
            "datatypes": totals.datatypes,
            "chunks": totals.chunks,
            "allocated_bytes": totals.allocated_bytes,
            "total_bytes": totals.total_bytes,
        }
        if found.HasField("totals")
        else None,
    }


def acl_shape(domain: str, entries: Iterable[domain_pb2.AclEntry]) -> dict[str, JSON]:
    """Who may do what with a domain."""
    return {
        "domain": domain,
        "entries": [
            {"user": each.user, **{name: bool(getattr(each, name)) for name in LETTERS.values()}} for each in entries
        ],
    }
