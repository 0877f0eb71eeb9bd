"""The rules by which data travel, one row each."""

from dataclasses import replace

import pytest

from fileserver.hdf5.model import Facts, Filter, Segment
from fileserver.hdf5.routes import Means, Route, plan
from fileserver.hdf5.types import Number, Reference, Text
from fileserver.hdf5.typing_rules import NotHeld, Typed

F4 = Typed(Number("F", 4, "LE"), exact=True)
CHUNKED = Facts(F4, 4, (4096, 4096), None, "chunked", chunk=(512, 512), stored=1 << 26)
CONTIGUOUS = Facts(F4, 4, (4096, 4096), None, "contiguous", stored=1 << 26, offset=2048)
GZIP, SHUFFLE, FLETCHER = Filter(1, "deflate", (6,)), Filter(2, "shuffle", (4,)), Filter(3, "fletcher32", ())
LZF, SZIP, NBIT, SCALE = Filter(32000, "lzf", ()), Filter(4, "szip", ()), Filter(5, "nbit", ()), Filter(6, "so", (0,))
ZSTD = Filter(32015, "zstd", ())


def chunked(*filters, **more):
    return replace(CHUNKED, filters=filters, **more)


TEXTS = Typed(Text(None, "H5T_CSET_UTF8", "H5T_STR_NULLTERM"), exact=False)
ROWS = {
    "no filter": (CHUNKED, Route.PLACE, (None, False, 0)),
    "gzip": (chunked(GZIP), Route.PLACE, (6, False, 0)),
    "gzip of a level that there is not": (chunked(Filter(1, "deflate", (200,))), Route.PLACE, (4, False, 0)),
    "shuffle, gzip": (chunked(SHUFFLE, GZIP), Route.PLACE, (6, True, 0)),
    "fletcher": (chunked(FLETCHER), Route.PLACE, (None, False, 4)),
    "gzip, fletcher": (chunked(SHUFFLE, GZIP, FLETCHER), Route.PLACE, (6, True, 4)),
    "fletcher before gzip": (chunked(FLETCHER, GZIP), Route.TRANSCODE, (6, False, 0)),
    "gzip before shuffle": (chunked(GZIP, SHUFFLE), Route.TRANSCODE, (6, True, 0)),
    "shuffle alone": (chunked(SHUFFLE), Route.TRANSCODE, (None, False, 0)),
    "shuffle, fletcher": (chunked(SHUFFLE, FLETCHER), Route.TRANSCODE, (None, False, 0)),
    "lzf": (chunked(SHUFFLE, LZF), Route.TRANSCODE, (4, True, 0)),
    "szip": (chunked(SZIP), Route.TRANSCODE, (4, True, 0)),
    "nbit": (chunked(NBIT), Route.TRANSCODE, (4, True, 0)),
    "scaleoffset": (chunked(SCALE), Route.TRANSCODE, (4, True, 0)),
    "zstd": (chunked(ZSTD), Route.TRANSCODE, (4, True, 0)),
    "bytes": (chunked(LZF, item=1), Route.TRANSCODE, (4, False, 0)),
    "texts": (chunked(GZIP, typed=TEXTS, item=None), Route.TRANSCODE, (6, False, 0)),
    "references": (
        replace(CHUNKED, typed=Typed(Reference(region=False), exact=False)),
        Route.TRANSCODE,
        (None, False, 0),
    ),
    "padded": (replace(CHUNKED, typed=replace(F4, exact=False)), Route.TRANSCODE, (None, False, 0)),
    "never written": (replace(CHUNKED, stored=0), Route.NONE, (None, False, 0)),
    "never written, odd fill": (replace(CHUNKED, stored=0, fill_unheld=True), Route.PLACE, (None, False, 0)),
    "tiny chunks": (replace(CHUNKED, chunk=(8, 8)), Route.MERGE, (None, False, 0)),
    "few tiny chunks": (replace(CHUNKED, dims=(32, 32), chunk=(8, 8)), Route.PLACE, (None, False, 0)),
    "huge chunks": (replace(CHUNKED, dims=(8192, 8192), chunk=(8192, 8192)), Route.TRANSCODE, (None, False, 0)),
    "contiguous": (CONTIGUOUS, Route.SLAB, (None, False, 0)),
    "contiguous, never written": (replace(CONTIGUOUS, offset=None), Route.NONE, (None, False, 0)),
    "contiguous, never written, fill": (replace(CONTIGUOUS, offset=None, fill=7), Route.TRANSCODE, (None, False, 0)),
    "compact": (replace(CONTIGUOUS, layout="compact"), Route.TRANSCODE, (None, False, 0)),
    "virtual": (replace(CONTIGUOUS, layout="virtual"), Route.TRANSCODE, (None, False, 0)),
    "external": (
        replace(CONTIGUOUS, layout="external", offset=None, segments=(Segment("raw", 0, 1 << 26),)),
        Route.SLAB,
        (None, False, 0),
    ),
    "null": (replace(CONTIGUOUS, dims=None), Route.NONE, (None, False, 0)),
    "no elements": (replace(CHUNKED, dims=(0, 4)), Route.NONE, (None, False, 0)),
}


@pytest.mark.parametrize("row", ROWS)
def test_route(row):
    facts, route, told = ROWS[row]
    found = plan(facts)
    assert (found.route, (found.level, found.shuffle, found.trailer)) == (route, told)
    assert found.reason


@pytest.mark.parametrize("row", ROWS)
def test_without_the_bucket_the_server_writes(row):
    facts, route, _ = ROWS[row]
    expected = route if facts.dims is None or 0 in facts.dims else Route.REST
    assert plan(facts, Means(bucket=False)).route is expected


LINKED = {"no filter", "gzip", "gzip of a level that there is not", "shuffle, gzip"}
LINKED |= {"tiny chunks", "few tiny chunks", "contiguous"}


@pytest.mark.parametrize("row", sorted(set(ROWS) - {"null", "no elements", "never written, odd fill"}))
def test_links_only_to_what_hsds_can_read_through_them(row):
    found = plan(ROWS[row][0], Means(link=True))
    assert (found.route is Route.LINK) == (row in LINKED)


def test_chunk_sizes_that_hsds_reads_well():
    assert plan(ROWS["tiny chunks"][0]).chunk == (64, 4096)
    assert plan(CONTIGUOUS).chunk == (64, 4096)
    huge = plan(ROWS["huge chunks"][0]).chunk
    assert huge[0] * huge[1] * 4 <= 4 << 20


def test_a_missing_plugin_is_named_with_the_way_out():
    with pytest.raises(NotHeld, match=r"zstd.*install hdf5plugin"):
        plan(chunked(ZSTD, missing=("zstd",)))


def test_raw_chunks_need_no_plugin():
    assert plan(chunked(GZIP, missing=("deflate",))).route is Route.PLACE
