"""FileService: a file with all its parts, or page by page."""

import pytest

from fileserver import auth
from fileserver.callers import RuleSettings
from fileserver.catalogue import files
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from fileserver.rules import Rules
from fileserver.services import transfer
from fileserver.services.file import FileServicer
from fileserver.transfer import ledger
from fileserver.transfer.custody import Custody
from fileserver.transfer.manifest import Source
from fileserver.v1 import file_pb2
from planes.errors import Changed, Unsupported
from planes.memory import MemorySettings

COUNT = 25


async def enter(store, generation="g1", count=COUNT, *, overwrite=False):
    parts = [FilePart(n, "data", f"k{n}", n, "", {"crc64nvme": n}, owned=True) for n in range(1, count + 1)]
    file = LogicalFile("a::x", generation, sum(p.size for p in parts), None, "pinned", 7, count, generation, 0.0)

    def work(c) -> None:
        files.enter_parts(c, generation, parts)
        ledger.save_sources(c, generation, [Source("data", f"s{n}", n, "v", {}) for n in range(3)])
        files.publish(c, file, overwrite=overwrite, retire_at=0.0)

    await store.write(work)


@pytest.fixture
async def servicer(store):
    planes = Configured({"data": MemorySettings()}, "data")
    await enter(store)
    return FileServicer(Custody(store, planes, retire_after=0.0), planes)


async def get(servicer, **request):
    return await servicer.GetFile(file_pb2.GetFileRequest(name="a::x", **request), None)


@pytest.mark.parametrize("size", [1, 7, 24, 25, 26, 1000, 5000])
async def test_pages_follow_each_other_without_gap_or_overlap(servicer, size):
    whole = (await get(servicer)).file
    numbers, token, pages = [], "", 0
    while True:
        page = await get(servicer, page_size=size, page_token=token)
        assert len(page.file.parts) <= size
        assert list(page.file.sources) == (list(whole.sources) if not token else [])
        assert (page.file.name, page.file.size, page.file.part_count) == ("a::x", whole.size, COUNT)
        numbers += [p.number for p in page.file.parts]
        pages, token = pages + 1, page.next_page_token
        if not token:
            break
    assert numbers == [p.number for p in whole.parts] == list(range(1, COUNT + 1))
    assert pages == -(-COUNT // size)


async def test_without_a_page_size_all_parts_come_at_once(servicer):
    answer = await get(servicer)
    assert len(answer.file.parts) == COUNT
    assert answer.next_page_token == ""


async def test_a_page_of_a_file_that_was_replaced_is_refused(servicer, store):
    page = await get(servicer, page_size=10)
    await enter(store, "g2", overwrite=True)
    with pytest.raises(Changed, match="was replaced while it was read"):
        await get(servicer, page_size=10, page_token=page.next_page_token)


@pytest.mark.parametrize("token", ["x", "g1", "g1 x", "g1 -1"])
async def test_a_token_that_is_none_of_ours_is_refused(servicer, token):
    with pytest.raises(InvalidSpec) as caught:
        await get(servicer, page_size=10, page_token=token)
    assert set(caught.value.violations) == {"page_token"}


async def test_an_answer_that_no_message_can_hold_is_refused_with_the_way_out(servicer, monkeypatch):
    monkeypatch.setattr(transfer, "LARGEST", 500)
    with pytest.raises(Unsupported, match="page_size"):
        await get(servicer)
    assert len((await get(servicer, page_size=2)).file.parts) == 2


@pytest.fixture
def reader():
    """A caller who may read sales::* alone."""
    rule = RuleSettings(who=("alice",), may=("read",), files=("sales::*",)).rule()
    auth.set_caller(auth.Caller(local=False, name="alice", rights=Rules([rule]).of("alice", []), outside=True))
    yield
    auth.set_caller(auth._STRANGER)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_a_list_has_what_its_caller_may_read_and_no_other_name_even_in_a_token(servicer, store, reader, size):
    names = [f"{scope}::{n}" for n in range(3) for scope in ("hidden", "sales", "secret")]

    def work(c) -> None:
        for name in names:
            files.publish(
                c, LogicalFile(name, name, 0, None, "pinned", 7, 0, name, 0.0), overwrite=False, retire_at=0.0
            )

    await store.write(work)
    found, token = [], ""
    while True:
        page = await servicer.ListFiles(file_pb2.ListFilesRequest(page_size=size, page_token=token), None)
        found += [each.name for each in page.files]
        token = page.next_page_token
        if not token:
            break
        assert token.startswith("sales::")
        assert len(page.files) == size
    assert found == ["sales::0", "sales::1", "sales::2"]
