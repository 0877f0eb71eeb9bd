"""DomainService: what the wire says of domains, page by page."""

import pytest

from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds import domains
from fileserver.hdf5.hsds.targets import Targets
from fileserver.services.domain import DomainServicer
from fileserver.v1 import domain_pb2
from planes.errors import NotFound
from tests.fileserver.hdf5.conftest import settings_of


@pytest.fixture
async def asked(server):
    targets = Targets({"main": settings_of(server)})
    yield DomainServicer(targets)
    await targets.aclose()


async def test_a_folder_comes_in_pages_of_the_size_that_is_asked_for(asked, connection, folder):
    wanted = {f"hdf5:/{folder}/n{n}" for n in range(5)}
    for n in range(5):
        await domains.make_folder(connection, f"{folder}/n{n}")
    found, token, pages = set(), "", 0
    while pages == 0 or token:
        request = domain_pb2.ListDomainsRequest(folder=f"hdf5:/{folder}", page_size=2, page_token=token)
        answer = await asked.ListDomains(request, None)
        found |= {each.domain for each in answer.domains}
        token, pages = answer.next_page_token, pages + 1
    assert found == wanted
    assert pages == 3


async def test_a_domain_is_told_with_its_totals_and_listed_as_itself(asked, connection, folder):
    await connection.call("PUT", "/", domain=f"{folder}/d")
    address = f"hdf5:/{folder}/d"
    told = (await asked.GetDomain(domain_pb2.GetDomainRequest(domain=address), None)).domain
    assert (told.domain, told.target, told.folder, told.owner) == (address, "main", False, "admin")
    assert told.HasField("totals")
    assert told.root.startswith("g-")
    assert told.create_time.seconds > 1.7e9
    (listed,) = (await asked.ListDomains(domain_pb2.ListDomainsRequest(folder=address), None)).domains
    assert listed.domain == address
    with pytest.raises(NotFound):
        await asked.ListDomains(domain_pb2.ListDomainsRequest(folder=f"{address}x"), None)


async def test_the_top_is_a_folder_that_nobody_made(asked):
    top = (await asked.GetDomain(domain_pb2.GetDomainRequest(domain="hdf5://"), None)).domain
    assert (top.domain, top.folder, top.HasField("create_time"), top.HasField("totals")) == (
        "hdf5://",
        True,
        False,
        False,
    )


async def test_pages_out_of_range_are_refused(asked):
    with pytest.raises(InvalidSpec, match="page_size"):
        await asked.ListDomains(domain_pb2.ListDomainsRequest(folder="hdf5://", page_size=1001), None)
