"""Link mode: a real HSDS reads the data where they are, also after all its nodes have forgotten everything."""

from datetime import UTC, datetime

import numpy as np
import pytest

from fileserver.hdf5 import compare, describe, links, load
from fileserver.hdf5.compare import Depth
from fileserver.hdf5.hsds.objects import Objects
from fileserver.hdf5.routes import Route
from fileserver.hdf5.source import opened
from planes.errors import Refused
from planes.memory import MemoryPlane, MemorySettings
from planes.plane import Info
from tests.fileserver.hdf5.conftest import plane as posix
from tests.fileserver.hdf5.sampling import SAMPLES, make

BY_TABLE = ("layouts", "filters", "latest", "compounds")
BY_LIST = (*BY_TABLE, "numbers", "filter_mask", "user_block", "fills", "spaces")


async def link(source, key, bucket, domain):
    async with opened(source, key) as file:
        uri = await links.uri(source, file.info, bucket)
        done = await load.load(file, bucket, f"link {domain}", 1.8e9, link=uri)
    body = describe.domain_json(done.root, "admin", done.created)
    await bucket.put(f"{domain[1:]}/.domain.json", body, upload_id=f"p-{done.root[2:10]}")
    return done


async def differences(source, key, connection, domain, done):
    async with opened(source, key) as file:
        objects = Objects(connection, domain, done.root)
        return [d async for d in compare.differences(file, objects, done.root, Depth.FULL)]


def routes(done):
    return {planned.node.path: planned.plan.route for planned in done.survey.datasets}


@pytest.mark.parametrize(("few", "names"), [pytest.param(links.FEW, BY_LIST, marks=pytest.mark.soak), (1, BY_TABLE)])
async def test_everything_reads_as_the_file_by_list_and_by_table(few, names, server, connection, folder, monkeypatch):
    monkeypatch.setattr(links, "FEW", few)
    home = server.storage.parent / f"sources{few}"
    home.mkdir()
    source, bucket = posix("source", home), posix("bucket", server.storage)
    done = {}
    for name in names:
        make(name, home)
        done[name] = await link(source, f"{name}.h5", bucket, f"{folder}/{name}")
    server.restart()
    for name in names:
        assert await differences(source, f"{name}.h5", connection, f"{folder}/{name}", done[name]) == []
    assert {path for path, route in routes(done["filters"]).items() if route is Route.LINK} == {
        "/gzip",
        "/gzip_shuffle",
    }
    assert routes(done["layouts"])["/contiguous"] is Route.LINK
    assert routes(done["layouts"])["/never_written"] is Route.NONE
    assert done["layouts"].written.carried < 60_000  # JSON alone
    await source.aclose()
    await bucket.aclose()


async def test_chunks_that_skipped_a_filter_are_ingested_and_that_is_said(server, tmp_path):
    make("filter_mask", tmp_path)
    source, bucket = posix("source", tmp_path), MemoryPlane("bucket", MemorySettings())
    async with opened(source, "filter_mask.h5") as file:
        done = await load.load(file, bucket, "x", 1.8e9, link="b/filter_mask.h5")
    assert set(routes(done).values()) == {Route.PLACE}
    assert {(t.path, t.what) for t in done.troubles} == {("/mixed", "mapped"), ("/all_skipped", "mapped")}
    assert "1 of its chunks skipped a filter" in done.troubles[0].reason


async def test_the_name_that_the_server_has_for_a_file(tmp_path):
    (tmp_path / "root/bucket").mkdir(parents=True)
    (tmp_path / "root/files").mkdir()
    storage, near, far = (posix(n, tmp_path / n) for n in ("root/bucket", "root/files", "root"))
    info = Info("a/x.h5", 1, "v", datetime.now(UTC))
    assert await links.uri(near, info, storage) == "files/a/x.h5"
    assert await links.uri(storage, info, storage) == "bucket/a/x.h5"
    outside = posix("outside", tmp_path)
    for plane, key, to, words in (
        (outside, "x.h5", storage, "does not lie in a folder of"),
        (far, "x.h5", storage, "does not lie in a folder of"),
        (near, "x.h5", None, "as `storage` of that server"),
        (MemoryPlane("memory", MemorySettings()), "x.h5", storage, "files of a file system, of S3 and of Azure"),
    ):
        with pytest.raises(Refused, match=words):
            await links.uri(plane, Info(key, 1, "v", info.modified), to)


def test_the_table_is_cut_into_chunks_that_are_filled_up():
    rows = np.zeros((300, 400), links._ROW)
    rows["offset"] = np.arange(120_000).reshape(300, 400)
    rows["size"] = 7
    table = links.Table("d-x", rows)
    assert table.chunk == (218, 400)
    last = np.frombuffer(table.chunk_bytes((1, 0)), links._ROW).reshape(table.chunk)
    assert np.array_equal(last[:82], rows[218:])
    assert not last[82:]["size"].any()


assert set(BY_LIST) <= set(SAMPLES)
